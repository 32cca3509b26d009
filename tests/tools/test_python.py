"""Python functions as tools: their descriptions for the model, their arguments, and refusals."""

import re
import threading
from datetime import date
from typing import Annotated, Any, Literal

import pytest

from chatstream.errors import ConfigurationError
from chatstream.pieces import Effect
from chatstream.plugins.bets import Bets
from chatstream.plugins.loading import Loaded, threads
from chatstream.plugins.tool import Ask, Caller, ToolFailed, tool
from chatstream.tools.python import python_tools
from chatstream.tools.tool import BadArguments, Tool, Tools

CALLER = Caller(user="u", conversation="c", answer="a", key="a.1")


def made(*functions: Any) -> list[Tool]:
    class Plugin:
        tools = functions

    return python_tools([Loaded("test:plugin", Plugin(), {}, threads("test"))])


@tool(effect="none")
def price(
    match: Annotated[int, "its number"],
    caller: Caller,
    market: Literal["win", "draw"] = "win",
    on: date | None = None,
) -> list[Any]:
    """The price of a bet.

    At the moment.
    """
    return [match, market, on and on.year, caller.key, threading.current_thread() is threading.main_thread()]


def test_the_schema_comes_from_the_signature() -> None:
    (ours,) = made(price)
    assert (ours.name, ours.description, ours.manner.effect) == (
        "price",
        "The price of a bet.\n\nAt the moment.",
        Effect.NONE,
    )
    assert ours.parameters["required"] == ["match"]
    assert ours.parameters["additionalProperties"] is False
    properties = ours.parameters["properties"]
    assert {*properties} == {"match", "market", "on"}
    assert (properties["match"]["type"], properties["match"]["description"]) == ("integer", "its number")
    assert properties["market"]["enum"] == ["win", "draw"]


@pytest.mark.gen_test
async def test_it_is_called_with_what_the_model_wrote_and_blocks_nobody() -> None:
    (ours,) = made(price)
    arguments = ours.checked('{"match": 7, "on": "2026-11-28"}')
    assert await ours.run(arguments, CALLER) == [7, "win", 2026, "a.1", False]


@pytest.mark.parametrize(
    "arguments",
    [
        "[7]",
        "7",
        "null",
        '{"match":7',
        '{"match":"7"}',
        '{"match":7.5}',
        '{"match":7,"caller":{"user":"root"}}',
        '{"match":7,"market":"lay"}',
        '{"match":7,"more":1}',
        '{"match":NaN}',
        '{"match":' + "[" * 100 + "]" * 100 + "}",
        '{"match":' + "[" * 100_000,
        "",
        "{}",
    ],
)
def test_arguments_are_not_repaired(arguments: str) -> None:
    (ours,) = made(price)
    with pytest.raises(BadArguments, match=r"\Abad arguments: "):
        ours.checked(arguments)


def test_no_arguments_are_an_empty_object_where_none_is_needed() -> None:
    @tool(effect="none")
    def now() -> str:
        return "noon"

    (ours,) = made(now)
    assert ours.checked("") == ours.checked(" {} ") == {}


@pytest.mark.gen_test
async def test_the_text_of_a_failure_that_is_meant_for_the_model_is_told() -> None:
    @tool(effect="none")
    async def fails() -> str:
        raise ValueError("no such match")

    (ours,) = made(fails)
    with pytest.raises(ToolFailed, match="no such match"):
        await ours.run({}, CALLER)


def test_what_cannot_be_a_tool_is_said_at_start() -> None:
    @tool(effect="none")
    def untyped(match) -> str:  # type: ignore[no-untyped-def]  # which is the case
        return str(match)

    @tool(effect="none")
    def several(*matches: int) -> str:
        return str(matches)

    for function, why in (
        (lambda: "x", "must be a function whose name"),
        (untyped, "match has no type"),
        (several, "matches must be a parameter with a name"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            made(function)


def test_what_may_happen_once_needs_an_approval_unless_it_says_otherwise() -> None:
    def pay(euros: int) -> str:
        return "paid"

    (ours,) = made(pay)
    assert (ours.manner.effect, ours.manner.asks, ours.manner.approval_timeout) == (Effect.ONCE, True, 86_400)
    (ours,) = made(tool(approval="never")(pay))
    assert (ours.manner.effect, ours.manner.asks) == (Effect.ONCE, False)
    (ours,) = made(tool(effect="none", approval="always", approval_timeout=60)(pay))
    assert (ours.manner.asks, ours.manner.approval_timeout) == (True, 60)
    with pytest.raises(ValueError, match="30 days"):
        tool(approval_timeout=0)


def test_the_decorator_may_be_bare_and_says_what_its_options_may_be() -> None:
    @tool
    def pay(euros: int) -> str:
        return f"{euros}"

    (ours,) = made(pay)
    assert (pay(3), ours.manner.effect, ours.manner.asks) == ("3", Effect.ONCE, True)
    wrong: Any = tool
    for options, named, why in (
        (("none",), {}, 'its options have names: @tool(effect="none")'),
        ((), {"effect": "read"}, "effect must be one of none, idempotent, once"),
        ((), {"approval": "maybe"}, "approval must be one of never, always"),
        ((), {"timeout": "soon"}, "timeout must be a number of seconds, up to a day"),
    ):
        with pytest.raises(ValueError, match=re.escape(why)):
            wrong(*options, **named)

    class Alone:
        tools = staticmethod(pay)

    with pytest.raises(ConfigurationError, match="`tools` must be a list of functions, and is a function"):
        python_tools([Loaded("test:plugin", Alone(), {}, threads("test"))])


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="price"):
        Tools([*made(price), *made(price)])


def test_the_bets_plug_in_recommends_by_a_tool() -> None:
    found = {one.name: one for one in python_tools([Loaded("bets", Bets(), {}, threads("bets"))])}
    ours = found["recommend_bet"]
    assert ours.manner.effect is Effect.NONE
    assert ours.parameters["required"] == ["selection", "odds"]


def test_what_cannot_be_asked_is_said_at_start() -> None:
    def other(seats: int) -> Ask:
        return Ask()

    async def waits(match: int) -> Ask:
        return Ask()

    @tool(ask=other)
    def buy(match: int, caller: Caller) -> None:
        """Buy."""

    with pytest.raises(ConfigurationError, match=r"the tool 'buy': its `ask` must take the same parameters"):
        made(buy)
    with pytest.raises(ValueError, match="not async"):
        tool(ask=waits)  # type: ignore[arg-type]  # which is the case
