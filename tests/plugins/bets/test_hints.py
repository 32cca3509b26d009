import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatstream.plugins.bets.hints import may_name_a_bet

# How odds are written: 2.50, 2,50, 11/8, 5-2, 5 to 2 with any white space, +150, -150, evens, even money.
_ODDS = re.compile(r"[0-9](?:[./,-]|\sto\s)[0-9]|[+\u2212-][1-9][0-9]{2}|evens|even\smoney")


@pytest.mark.parametrize(
    "odds",
    [
        "2.50",
        "2,50",
        "11/8",
        "5-2",
        "5 to 2",
        "5\u00a0to\n2",
        "+150",
        "-150",
        "\u2212150",
        "Evens",
        "EVEN MONEY",
        "even\u202fmoney",
    ],
)
def test_a_text_with_odds_is_read(odds: str) -> None:
    assert may_name_a_bet(f"I would take Arsenal at {odds} today")
    assert may_name_a_bet(f"Zürich — at {odds}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Arsenal have won at home all season, and of their rivals only one has even come close.",
        "They scored 3 of 12 chances, in the 90th minute, at a crowd of 250 people",
        "Zürich: 250 Plätze, 40 Euro (mit Rabatt)",
        "11/8",  # a number alone: nothing says that it is a price
    ],
)
def test_a_text_without_odds_is_not_read(text: str) -> None:
    assert not may_name_a_bet(text)


def test_a_text_is_read_only_up_to_a_length() -> None:
    assert may_name_a_bet("at 2.50 ".ljust(20_000))
    assert not may_name_a_bet("at 2.50 ".ljust(20_001))


@given(st.text(st.sampled_from("0159 \t\n\x1c\x85\u00a0\u2009\u3000.,/+-\u2212toevnsmyTOE€\u017f?"), max_size=40))
def test_no_odds_are_passed_over(text: str) -> None:
    if _ODDS.search(text.casefold()):
        assert may_name_a_bet(f"{text} at ")
