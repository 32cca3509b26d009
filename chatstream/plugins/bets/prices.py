"""A small table of prices, all made up: what `best_price` looks into, and what bets are placed at."""

import re
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

_DRAW: Final = "A draw"
# Decimal odds, by match, by what happens, by bookmaker. None of these bookmakers exists.
_PRICES: Final[Mapping[str, Mapping[str, Mapping[str, str]]]] = MappingProxyType(
    {
        "Arsenal v Chelsea": {
            "Arsenal to win": {"Northgate": "2.05", "Quayside": "2.10", "Tally & Sons": "2.00"},
            _DRAW: {"Northgate": "3.40", "Quayside": "3.25", "Tally & Sons": "3.30"},
            "Chelsea to win": {"Northgate": "3.60", "Quayside": "3.50", "Tally & Sons": "3.75"},
        },
        "Bayern München v Borussia Dortmund": {
            "Bayern München to win": {"Northgate": "1.62", "Quayside": "1.65"},
            "Borussia Dortmund to win": {"Northgate": "4.80", "Quayside": "4.60"},
        },
        "Ireland v New Zealand": {
            "Ireland to win": {"Quayside": "2.30", "Tally & Sons": "2.38"},
            "New Zealand to win": {"Quayside": "1.65", "Tally & Sons": "1.62"},
        },
        "Boston Celtics v Denver Nuggets": {
            "Boston Celtics to win": {"Northgate": "2.20", "Tally & Sons": "2.15"},
            "Denver Nuggets to win": {"Northgate": "1.70", "Tally & Sons": "1.74"},
        },
    }
)
_WORD: Final = re.compile(r"\w+")
# They say nothing of which match, and which side, is meant.
_EMPTY: Final = frozenset(
    (
        *("a", "an", "the", "to", "win", "wins", "on", "in", "at", "of", "for", "v", "vs", "and", "between", "please"),
        *("der", "die", "das", "den", "auf", "im", "am", "von", "gegen", "und", "sieg", "gewinnt", "zwischen", "bitte"),
        *("sunday", "sonntag", "game", "match", "spiel"),
    )
)


class Price(NamedTuple):
    """The best one."""

    match: str
    selection: str
    odds: str
    bookmaker: str


def best(selection: str) -> Price | None:
    """For what somebody has called so; None if nothing, or not one thing alone, is meant by it."""
    words = _words(selection)
    found = [
        (match, name, prices)
        for match, selections in _PRICES.items()
        for name, prices in selections.items()
        if words and words <= _words(name) | (_words(match) if name == _DRAW and "draw" in words else set())
    ]
    if len(found) != 1:
        return None
    match, name, prices = found[0]
    bookmaker = max(prices, key=lambda one: float(prices[one]))
    return Price(match, name, prices[bookmaker], bookmaker)


def known() -> list[str]:
    """What there are prices for."""
    return [f"{name} ({match})" for match, selections in _PRICES.items() for name in selections]


def _words(text: str) -> set[str]:
    plain = unicodedata.normalize("NFKD", text.casefold())
    return {*_WORD.findall("".join(one for one in plain if not unicodedata.combining(one)))} - _EMPTY
