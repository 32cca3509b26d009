"""Bets that a model recommends by calling a tool."""

import json
from typing import Any

import pytest

from chatstream.pieces import CallState, Part, TextPart, ToolCallPart
from chatstream.plugins.bets.calls import called
from chatstream.plugins.bets.tools import recommend_bet


def call(state: CallState | None = CallState.DONE, *, name: str = "recommend_bet", **fields: Any) -> ToolCallPart:
    failed = fields.pop("failed", False)
    return ToolCallPart(
        tool_call_id="c1", name=name, arguments=json.dumps(fields), state=state, output="shown", failed=failed
    )


def slips(text: str, *parts: Part) -> list[tuple[str | None, float, str, str | None]]:
    found = called("a1", text, [TextPart(text=text), *parts])
    assert [one.bet_id for one in found] == [f"bet-a1-{number}" for number in range(1, len(found) + 1)]
    return [(one.selection, one.odds, one.odds_text, one.stake) for one in found]


@pytest.mark.parametrize(
    ("arguments", "slip"),
    [
        ({"odds": "2.10", "stake": "€10"}, ("Arsenal", 2.1, "2.10", "€10")),
        ({"odds": 2.1}, ("Arsenal", 2.1, "2.10", None)),  # a number in the call; the odds' text is that of the answer
        ({"odds": "11/8", "stake": None}, ("Arsenal", 2.375, "11/8", None)),
        ({"odds": "+150", "stake": "€20"}, ("Arsenal", 2.5, "+150", None)),  # the text names no such stake
        ({"odds": 3}, ("Arsenal", 3.0, "3", None)),
    ],
)
def test_a_bet_of_a_call_is_shown_as_the_text_has_it(arguments: dict[str, Any], slip: tuple[Any, ...]) -> None:
    text = "Arsenal: 2.10 here, 11/8 there, +150 in America, 3 elsewhere. Put €10 on it."
    assert slips(text, call(selection=" Arsenal ", **arguments)) == [slip]


@pytest.mark.parametrize(
    "made",
    [
        call(selection="Arsenal", odds="3.40"),
        call(selection="over 3.5 goals", odds="2.10"),
        call(selection="Arsenal", odds=10),  # the stake's number
        call(selection="Arsenal", odds=50),  # the text has the number only as a percentage
        call(selection="Arsenal", odds=True),
        call(selection="Arsenal", odds=None),
        call(selection="Arsenal", odds="2.10 or more"),
        call(selection="Arsenal"),
        call(selection=7, odds="2.10"),
        call(selection=" ", odds="2.10"),
        call(selection="x" * 201, odds="2.10"),
        call(selection="Arsenal", odds="2.10", failed=True),
        call(CallState.DENIED, selection="Arsenal", odds="2.10"),
        call(CallState.RUNNING, selection="Arsenal", odds="2.10"),
        call(None, selection="Arsenal", odds="2.10"),
        call(name="another_tool", selection="Arsenal", odds="2.10"),
        ToolCallPart(tool_call_id="c", name="recommend_bet", arguments='{"selection": "Ars', state=CallState.DONE),
        ToolCallPart(tool_call_id="c", name="recommend_bet", arguments="[1]", state=CallState.DONE),
    ],
)
def test_no_slip_of_what_the_text_does_not_have_or_what_came_to_nothing(made: ToolCallPart) -> None:
    assert slips("Arsenal at 2.10, with €10, and a chance of 50 %.", made) == []


def test_the_same_bet_counts_once_and_others_in_their_order() -> None:
    parts = [call(selection=name, odds=odds) for name, odds in (("A", "2.10"), ("B", "3.40"), ("A", 2.1))]
    assert [slip[0] for slip in slips("A 2.10, B 3.40", *parts)] == ["A", "B"]


@pytest.mark.gen_test
async def test_a_model_is_told_what_is_wrong_with_its_call() -> None:
    assert "Arsenal at 11/8" in await recommend_bet("Arsenal", "11/8", "€10")
    for selection, odds in (("", "2.10"), ("Arsenal", "good"), ("Arsenal", "1.0")):
        with pytest.raises(ValueError, match="must"):
            await recommend_bet(selection, odds)
