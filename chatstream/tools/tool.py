"""The interface of tools, and the collection of all tools."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from chatstream.errors import ConfigurationError
from chatstream.llm.model import OfferedTool
from chatstream.pieces import Question
from chatstream.plugins.tool import Caller, Manner, OutcomeUnknown, ToolFailed

__all__ = [
    "Answered",
    "BadArguments",
    "Caller",
    "InputRequired",
    "Manner",
    "OpenCalls",
    "OutcomeUnknown",
    "Said",
    "Tool",
    "ToolFailed",
    "Tools",
    "Where",
]

# Deepest nesting of a call's arguments; deeper ones could exhaust a parser's stack.
_MAX_DEPTH = 64


class BadArguments(Exception):
    """The model's arguments are invalid. The text is for the model."""


class Said(Struct, frozen=True, kw_only=True):
    """The user's answer to a question of a tool."""

    question: Question
    action: str  # "accept", "decline" or "cancel", as in MCP
    content: dict[str, Any] | None = None  # with "accept"; matches the question's schema


class InputRequired(Exception):
    """Raised by a tool that asks the user something before it can go on.

    `questions`: what it asks, at least one. `carry` is text that the tool gets back with the answers. `held`: the
    seconds for which the call stays open in this process, so that only this process can continue it. None: every
    process can continue the call.
    """

    def __init__(self, questions: Sequence[Question], *, carry: str = "", held: float | None = None) -> None:
        super().__init__()
        self.questions = tuple(questions)
        self.carry = carry
        self.held = held


class Answered(Struct, frozen=True, kw_only=True):
    """The answers to an `InputRequired`, in the order of its questions, with its `carry`.

    `before`: the answers to earlier questions of the same call.
    """

    carry: str
    said: tuple[Said, ...]
    before: tuple[Said, ...] = ()


class Where(StrEnum):
    """Where a call is carried out."""

    SERVER = "server"  # `Tool.run`
    CLIENT = "client"  # the app, which answers within `Manner.timeout`: `run` is not called


class Tool(Struct, frozen=True, kw_only=True):
    """A tool. `check` turns a call's arguments, a JSON object, into `run`'s input, or raises `BadArguments`.

    `run` returns any JSON. It may raise `ToolFailed`, whose text is for the model, `OutcomeUnknown`, `InputRequired`,
    or anything else. After the user has answered an `InputRequired`, `go_on` is called in place of `run`; then the call
    may be open in another process, or in none any more.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]  # a JSON Schema of an object
    manner: Manner
    check: Callable[[dict[str, Any]], Any]
    run: Callable[[Any, Caller], Awaitable[object]]
    source: str  # the tool's origin, for the operator
    where: Where = Where.SERVER
    go_on: Callable[[Any, Caller, Answered], Awaitable[object]] | None = None

    def checked(self, arguments: str) -> Any:
        """Parse and check the arguments that a model wrote; returns the input of `run`. Raises `BadArguments`."""
        try:
            given = msgspec.json.decode(arguments.strip() or "{}")
        except (ValueError, RecursionError) as exc:
            raise BadArguments("bad arguments: they are not a JSON object") from exc
        if not isinstance(given, dict):
            raise BadArguments("bad arguments: they are not a JSON object")
        if _depth(given) > _MAX_DEPTH:
            raise BadArguments("bad arguments: they are nested too deep")
        return self.check(given)


class OpenCalls(Protocol):
    """The calls that stay open in this process while their users are asked: see `InputRequired`."""

    def callers(self) -> Sequence[Caller]:
        """Return the callers of the open calls."""

    def answer(self, key: str, said: Said) -> None:
        """Give the user's answer to the call with this key, before `Tool.go_on` is called with the same answer."""

    def let_go(self, which: Callable[[Caller], bool]) -> None:
        """End the open calls of these callers, as nobody waits for their results any more."""


class _NoOpenCalls:
    def callers(self) -> Sequence[Caller]:
        return []

    def answer(self, key: str, said: Said) -> None:
        pass

    def let_go(self, which: Callable[[Caller], bool]) -> None:
        pass


class Tools:
    """All tools, by name. `open_calls`: of those that can ask the user only while the call stays open."""

    _own: dict[str, Tool]
    _by_name: dict[str, Tool]
    offered: tuple[OfferedTool, ...]
    open_calls: OpenCalls

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        """Raises `ConfigurationError` if two have the same name."""
        self.open_calls = _NoOpenCalls()
        self._own = {}
        for tool in tools:
            if (other := self._own.get(tool.name)) is not None:
                where = f"the tool {tool.name} of {tool.source}"
                raise ConfigurationError(f"{where} has the same name as one of {other.source}")
            self._own[tool.name] = tool
        self.found(())

    def found(self, tools: Iterable[Tool]) -> None:
        """Replace the tools of MCP servers by these.

        A running answer keeps the tools that were `offered` at its start.
        """
        self._by_name = self._own | {tool.name: tool for tool in tools if tool.name not in self._own}
        self.offered = tuple(OfferedTool(tool.name, tool.description, tool.parameters) for tool in self)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._by_name.values())

    def get(self, name: str) -> Tool | None:
        """The tool of this name, or None."""
        return self._by_name.get(name)


def _depth(value: Any) -> int:
    """The nesting depth, found level by level: without recursion."""
    depth, level = 0, [value]
    while level and depth <= _MAX_DEPTH:
        depth += 1
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return depth
