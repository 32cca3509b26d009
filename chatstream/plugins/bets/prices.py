"""A small table of invented prices, for `best_price` and `place_bet`."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Final, NamedTuple

_DRAW: Final = "A draw"
# Decimal odds, by match, selection and bookmaker. None of these bookmakers exists.
_PRICES: Final[Mapping[str, Mapping[str, Mapping[str, str]]]] = MappingProxyType(
    {
        "Arsenal v Chelsea": {
            "Arsenal to win": {"Northgate": "2.05", "Quayside": "2.10", "Tally & Sons": "2.00"},
            _DRAW: {"Northgate": "3.40", "Quayside": "3.25", "Tally & Sons": "3.30"},
            "Chelsea to win": {"Northgate": "3.60", "Quayside": "3.50", "Tally & Sons": "3.75"},
        },
        "Leeds United v Aston Villa": {
            "Leeds United to win": {"Northgate": "2.90", "Quayside": "2.80", "Tally & Sons": "2.85"},
            "Aston Villa to win": {"Northgate": "2.40", "Quayside": "2.50"},
        },
        "Bayern München v Borussia Dortmund": {
            "Bayern München to win": {"Northgate": "1.62", "Quayside": "1.65"},
            "Both teams to score": {"Northgate": "1.65", "Tally & Sons": "1.60"},
            "Borussia Dortmund to win": {"Northgate": "4.80", "Quayside": "4.60"},
        },
        "Atlético Madrid v Sevilla": {
            "Atlético Madrid to win": {"Northgate": "1.95", "Quayside": "1.90"},
            "Under 2.5 goals": {"Northgate": "1.75", "Tally & Sons": "1.80"},
            "Sevilla to win": {"Northgate": "4.20", "Quayside": "4.33"},
        },
        "Paris Saint-Germain v Olympique de Marseille": {
            "Paris Saint-Germain to win": {"Northgate": "1.45", "Quayside": "1.48"},
            "Paris Saint-Germain to lead at half-time": {"Quayside": "1.85", "Tally & Sons": "1.90"},
            "Olympique de Marseille to win": {"Northgate": "6.50", "Quayside": "6.00"},
        },
        "Świątek v Sabalenka": {
            "Świątek to win": {"Northgate": "1.70", "Tally & Sons": "1.72"},
            "Świątek to win in two sets": {"Northgate": "2.40", "Tally & Sons": "2.38"},
            "Sabalenka to win": {"Northgate": "2.15", "Quayside": "2.20"},
        },
        "Ireland v New Zealand": {
            "Ireland to win": {"Quayside": "2.30", "Tally & Sons": "2.38"},
            "New Zealand to win": {"Quayside": "1.65", "Tally & Sons": "1.62"},
        },
        "Boston Celtics v Denver Nuggets": {
            "Boston Celtics to win": {"Northgate": "2.20", "Tally & Sons": "2.15"},
            "Denver Nuggets to win": {"Northgate": "1.70", "Tally & Sons": "1.74"},
        },
        "Kansas City Chiefs v Buffalo Bills": {
            "Kansas City Chiefs to win": {"Northgate": "1.71", "Quayside": "1.68"},
            "Buffalo Bills to win": {"Northgate": "2.20", "Quayside": "2.25"},
        },
    }
)
HELD: Final = timedelta(minutes=10)
"""How long a quoted price stays valid: the user needs time to think, and the server may restart meanwhile."""
# Words before the opponent's name.
_AGAINST: Final = re.compile(r"\b(?:to beat|beats?|against|over)\b|\(", re.IGNORECASE)
_TO_WIN: Final = " to win"
_ALIASES: Final = {"munich": "munchen", "psg": "paris", "bvb": "dortmund"}
_WORD: Final = re.compile(r"\w+")
# Words that do not help to find the match or the side, and are ignored.
_EMPTY: Final = frozenset(
    (
        *("a", "an", "the", "to", "win", "wins", "on", "in", "at", "of", "for", "v", "vs", "and", "between", "please"),
        *("der", "die", "das", "den", "auf", "im", "am", "von", "gegen", "und", "sieg", "gewinnt", "zwischen", "bitte"),
        *("sunday", "sonntag", "game", "match", "spiel"),
    )
)


class Price(NamedTuple):
    """The best price for a selection."""

    match: str
    selection: str
    odds: str
    bookmaker: str


def best(selection: str) -> Price | None:
    """Return the best price for `selection`, in the user's words; None if it matches no bet, or more than one."""
    words = _words(_AGAINST.split(selection, maxsplit=1)[0])
    found = [
        (match, name, prices)
        for match, selections in _PRICES.items()
        for name, prices in selections.items()
        if words and words <= _words(name) | (_words(match) if name == _DRAW and "draw" in words else set())
    ]
    if len(found) > 1:  # "Paris" means "Paris to win" if there are other bets on Paris
        found = [one for one in found if one[1].endswith(_TO_WIN)]
    if len(found) != 1:
        return None
    match, name, prices = found[0]
    bookmaker = max(prices, key=lambda one: float(prices[one]))
    return Price(match, name, prices[bookmaker], bookmaker)


def known() -> list[str]:
    """The selections that have prices."""
    return [f"{name} ({match})" for match, selections in _PRICES.items() for name in selections]


def _words(text: str) -> set[str]:
    plain = unicodedata.normalize("NFKD", text.casefold())
    words = _WORD.findall("".join(one for one in plain if not unicodedata.combining(one)))
    return {_ALIASES.get(word, word) for word in words} - _EMPTY
