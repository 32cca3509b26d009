"""Collects the bets from the model's calls of `recommend_bet`. A number is shown only if the text contains it, too."""

import json
import re
from collections.abc import Sequence
from typing import Any

from chatstream.pieces import CallState, Part, ToolCallPart
from chatstream.plugins.bets.reader import MOST, decimal
from chatstream.plugins.bets.recommendation import Recommendation
from chatstream.plugins.bets.tools import recommend_bet

_LONGEST = 200  # code points of a name or of a stake
_NUMBER = re.compile(r"(?<![\w.,/€$£])[+\u2212-]?[0-9]+(?:[.,/][0-9]+)*(?![\w/])(?!\s?%)")
_DIGITS = re.compile(r"[0-9]+(?:[.,/][0-9]+)*")


def called(answer_id: str, text: str, parts: Sequence[Part]) -> tuple[Recommendation, ...]:
    """Return the bets of the calls that have a result, in order and without duplicates. Never raises.

    Leaves out a bet if its odds or a number in its name are not in the text, and a stake that is not in the text.
    """
    numbers = {match[0] for match in _NUMBER.finditer(text)}
    digits = set(_DIGITS.findall(text))
    found: dict[tuple[str, float], tuple[str, str | None]] = {}
    for part in parts:
        arguments = _arguments(part)
        if arguments is None:
            continue
        selection, odds, stake = arguments
        worth = decimal(odds)
        told = next((number for number in numbers if worth is not None and decimal(number) == worth), None)
        if worth is None or told is None or not digits.issuperset(_DIGITS.findall(selection)):
            continue
        if stake is not None and not digits.issuperset(_DIGITS.findall(stake)):
            stake = None
        found.setdefault((selection, worth), (told, stake))
    return tuple(
        Recommendation(bet_id=f"bet-{answer_id}-{number}", odds=odds, odds_text=told, selection=selection, stake=stake)
        for number, ((selection, odds), (told, stake)) in enumerate([*found.items()][:MOST], start=1)
    )


def _arguments(part: Part) -> tuple[str, str, str | None] | None:
    """The arguments of a call of `recommend_bet`; None for other parts and for failed calls."""
    if not isinstance(part, ToolCallPart) or part.name != recommend_bet.__name__ or part.failed is True:
        return None
    try:
        given: Any = json.loads(part.arguments)
    except (ValueError, RecursionError):
        return None
    if part.state is not CallState.DONE or not isinstance(given, dict):
        return None
    selection, odds, stake = given.get("selection"), given.get("odds"), given.get("stake")
    if not isinstance(selection, str) or not isinstance(odds, str | int | float) or isinstance(odds, bool):
        return None
    if not 0 < len(selection.strip()) <= _LONGEST:
        return None
    amount = stake.strip() if isinstance(stake, str) else ""
    return selection.strip(), str(odds).strip(), amount if 0 < len(amount) <= _LONGEST else None
