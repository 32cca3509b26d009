"""What the demo model calls when somebody asks it for a price, or to place a bet, and what it says of the results."""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from chatstream.llm.demo_answers import Called, Step, Wanted

_PRICE: Final = re.compile(
    r"\b(?:best|current|what|which)\b.{0,40}?\b(?:price|odds)\b.{0,20}?\b(?:for|on)\b(?P<what>.+)"
    r"|\b(?:beste|welche|wie)\b.{0,40}?\b(?:Quote|Preis)\b.{0,20}?\b(?:für|auf)\b(?P<was>.+)",
    re.IGNORECASE,
)
# Held at once: two tips of the table, for the models that only play at calling.
CALLS: Final = (
    Wanted("best_price", {"selection": "Arsenal to win"}),
    Wanted("best_price", {"selection": "Ireland to win"}),
)


def step(question: str, called: Sequence[Called]) -> Step:
    """What it does next."""
    text = question[:500]
    if (asked := _PRICE.search(text)) is not None:
        selection = _bare(asked["what"] or asked["was"])
        return _price(called[-1]) if called else [Wanted("best_price", {"selection": selection})]
    return None


def _price(call: Called) -> str:
    found = _result(call)
    if not isinstance(found, dict):
        return f"I could not find a price: {call.result.removeprefix('failed: ')}."
    return (
        f"For **{found['selection']}** ({found['match']}) {found['bookmaker']} has the best price: {found['odds']}. "
        "(The prices are made up: this is the demo model.)"
    )


def _result(call: Called) -> Any:
    try:
        return json.loads(call.result)
    except ValueError:
        return None


def _bare(text: str) -> str:
    return text.strip(" \t\n?!.,;:\"'“”„*")
