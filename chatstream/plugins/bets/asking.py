"""Lets the demo model call tools if the user asks for a price or wants to place a bet, and report the results."""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from chatstream.llm.demo_answers import Called, Step, Wanted

# `re` compiles a pattern at its first use: only the demo model uses these.
_PRICE: Final = (
    r"(?i)\b(?:best|current|what|which)\b.{0,40}?\b(?:price|odds)\b.{0,20}?\b(?:for|on)\b(?P<what>.+)"
    r"|\b(?:beste|welche|wie)\b.{0,40}?\b(?:Quote|Preis)\b.{0,20}?\b(?:für|auf)\b(?P<was>.+)"
)
_MONEY: Final = (
    r"(?P<before>[€£$]\s?)?(?P<amount>[0-9]+(?:[.,][0-9]+)*)"
    r"(?:\s?(?P<after>[€£$]|euros?\b|eur\b|pounds?\b|quid\b|gbp\b|dollars?\b|bucks?\b|usd\b))?"
)
# "Place €10 on Arsenal", "bet 10 on Leeds", "put ten …" not; "place a bet of 10 euros on …", "a £5 bet on …".
_PLACE: Final = (
    r"(?i)\b(?:place|bet|put|stake|wager|back|setz\w*|platzier\w*|wett\w*|tipp\w*)\b[^.?!0-9]{0,30}?"
    rf"{_MONEY}(?:\s+(?:bet|wager|stake|wette))?\s+(?:on|auf)\s+(?P<what>.+)"
)
_PLACE_ON: Final = (
    r"(?i)\b(?:place|bet|put|stake|wager|back)\b[^.?!0-9]{0,20}?\bon\s+(?P<what>[^0-9€£$]+?),?\s+"
    rf"(?:(?:with|for|at)\s+)?(?:an?\s+)?(?:stake\s+of\s+)?{_MONEY}(?:\s+stake)?\W*$"
)
_PLACE_SOMETHING: Final = r"(?i)^\W*(?:please\s+)?(?:place|put)\b.{0,20}?\bbet\b.{0,10}?\bon\b"
_AT_ODDS: Final = r"(?i)\s+at\s+(?:odds\s+of\s+|a\s+price\s+of\s+)?[+-]?[0-9][0-9.,/]*"
# Words of a question whether to bet: it asks for advice, so no bet is placed.
_ADVICE: Final = r"(?i)\b(?:should|would|could|worth|if|soll|sollte|lohnt)\b"
_PLACED: Final = (
    r"(?i)\b(?:which|what|list|show|see|any|how many)\b.{0,40}?\b(?:bets?\b.{0,30}?\b(?:placed?|made|have)\b"
    r"|my bets?\b)"
    r"|\b(?:did|have) i\b.{0,30}?\bbets?\b"
    r"|\bmy (?:placed |open )?bets\b\W*$"
    r"|\b(?:welche|zeig\w*|was|habe)\b.{0,40}?\bwett\w*\b.{0,30}?\b(?:platziert|gesetzt|abgeschlossen|habe)\b"
    r"|\bmeine wetten\b"
)
_SIGNS: Final = {"eur": "€", "pou": "£", "qui": "£", "gbp": "£", "dol": "$", "buc": "$", "usd": "$"}
# Two calls with a price in the table, for the demo models that show tool calls without being asked.
CALLS: Final = (
    Wanted("best_price", {"selection": "Arsenal to win"}),
    Wanted("best_price", {"selection": "Ireland to win"}),
)
_DEMO: Final = "(The prices are made up: this is the demo model.)"


def step(question: str, called: Sequence[Called]) -> Step:
    """Return the demo model's next step: tool calls, a text, or None if `question` is not about prices or placing."""
    text = question[:500]
    if (asked := re.search(_PRICE, text)) is not None:
        selection = _bare(asked["what"] or asked["was"])
        return _price(called[-1]) if called else [Wanted("best_price", {"selection": selection})]
    if not re.search(_ADVICE, text):
        wish = re.sub(_AT_ODDS, "", text)  # without the odds: a bet is placed at the current price
        if (asked := re.search(_PLACE, wish) or re.search(_PLACE_ON, wish)) is not None:
            return _place(_bare(asked["what"]), _stake(asked), called)
        if re.search(_PLACE_SOMETHING, wish):
            return "How much? Say, for example: *Place €10 on Arsenal*."
    if re.search(_PLACED, text):
        return _bets(called[-1]) if called else [Wanted("placed_bets", {})]
    return None


def _price(call: Called) -> str:
    found = _result(call)
    if not isinstance(found, dict):
        return f"I could not find a price: {_why(call)}."
    return (
        f"For **{found['selection']}** ({found['match']}) {found['bookmaker']} has the best price: {found['odds']}. "
        f"{_DEMO}"
    )


def _place(selection: str, stake: str, called: Sequence[Called]) -> Step:
    if not called:
        return [Wanted("best_price", {"selection": selection})]
    found = _result(called[-1])
    if called[-1].name == "best_price":
        if not isinstance(found, dict):
            return f"I have placed no bet: {_why(called[-1])}."
        bet = {name: found[name] for name in ("selection", "odds")}
        return [Wanted("place_bet", {**bet, "stake": stake, "good_until": found["good_until"]})]
    if not isinstance(found, dict):
        return _not_placed(called[-1])
    return (
        f"It is placed: **{found['stake']}** on **{found['selection']}** ({found['match']}) at {found['odds']} with "
        f"{found['bookmaker']}. If it wins, {found['pays']} is paid back. {_DEMO}"
    )


def _not_placed(call: Called) -> str:
    why = _why(call)
    if "in time" in why or "not good any more" in why:
        return "I have placed no bet: nobody agreed to it while the price was good. Ask me again, for a new price."
    if "did not agree" in why:
        return "As you like: I have placed no bet."
    return f"I have placed no bet: {why}."


def _bets(call: Called) -> str:
    found = _result(call)
    if not isinstance(found, list):
        return f"I cannot look that up at the moment: {_why(call)}."
    if not found:
        return "You have placed no bets yet. Say, for example: *Place €10 on Arsenal*."
    rows = [
        f"| {bet['selection']} | {bet['match']} | {bet['odds']} | {bet['stake']} | {bet['pays']} |" for bet in found
    ]
    head = "| Bet | Match | Odds | Stake | Pays |\n|---|---|---:|---:|---:|"
    return "\n".join(["Your bets, the newest first:", "", head, *rows, "", _DEMO])


def _stake(asked: "re.Match[str]") -> str:
    after = (asked["after"] or "").lower()
    sign = (asked["before"] or "").strip() or _SIGNS.get(after[:3], after) or "€"
    return f"{sign}{asked['amount']}"


def _why(call: Called) -> str:
    """The reason of a failed call, to be put into a sentence."""
    why = call.result
    for prefix in ("failed: ", "Not carried out: ", "not carried out: "):
        why = why.removeprefix(prefix)
    return why.rstrip(".") or "nothing came back"


def _result(call: Called) -> Any:
    try:
        return json.loads(call.result)
    except ValueError:
        return None


def _bare(text: str) -> str:
    text = re.sub(r"\b(?:please|for me|today|now|bitte|für mich|heute)\b", " ", text, flags=re.IGNORECASE)
    return " ".join(text.split()).strip(" \t\n?!.,;:\"'“”„*")
