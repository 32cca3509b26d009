"""`best_price`: the selections that it finds, and those that it refuses."""

import pytest

from chatstream.plugins.bets import prices
from chatstream.plugins.bets.tools import best_price


@pytest.mark.parametrize(
    ("asked", "selection", "odds"),
    [
        ("Arsenal to win", "Arsenal to win", "2.10"),
        ("ARSENAL", "Arsenal to win", "2.10"),
        ("Bayern Munchen", "Bayern M\u00fcnchen to win", "1.65"),
        ("a draw between Arsenal and Chelsea", "A draw", "3.40"),
        ("the draw", "A draw", "3.40"),
        ("Sieg von Irland", None, None),
        ("Arsenal v Chelsea", None, None),  # which side?
        ("win", None, None),
        ("", None, None),
        ("?" * 500, None, None),
    ],
)
def test_one_thing_is_found_or_none(asked: str, selection: str | None, odds: str | None) -> None:
    found = prices.best(asked)
    assert (found and found.selection, found and found.odds) == (selection, odds)


@pytest.mark.gen_test
async def test_the_model_is_told_what_there_is() -> None:
    assert (await best_price("Chelsea"))["bookmaker"] == "Tally & Sons"
    with pytest.raises(ValueError, match="There are prices for: Arsenal to win"):
        await best_price("Everton")
