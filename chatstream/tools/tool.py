"""A tool, as the rest of the server knows it; and all of them together."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from chatstream.errors import ConfigurationError
from chatstream.llm.model import OfferedTool
from chatstream.plugins.tool import Caller, Manner, OutcomeUnknown, ToolFailed

__all__ = ["BadArguments", "Caller", "Manner", "OutcomeUnknown", "Tool", "ToolFailed", "Tools", "Where"]

# So deep are no honest arguments; a parser's stack has an end.
_MAX_DEPTH = 64


class BadArguments(Exception):
    """What a model has written is not what the tool takes. The text is for the model."""


class Where(StrEnum):
    """Who carries a call out."""

    SERVER = "server"  # `Tool.run`
    CLIENT = "client"  # the app, which answers within `Manner.timeout`: `run` is not called


class Tool(Struct, frozen=True, kw_only=True):
    """`check` takes the arguments, a JSON object, and returns what `run` takes; it raises `BadArguments`.

    `run` returns any JSON. It raises `ToolFailed`, whose text is for the model, `OutcomeUnknown`, or whatever it likes.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]  # a JSON Schema of an object
    manner: Manner
    check: Callable[[dict[str, Any]], Any]
    run: Callable[[Any, Caller], Awaitable[object]]
    source: str  # where it comes from, for the operator
    where: Where = Where.SERVER

    def checked(self, arguments: str) -> Any:
        """What `run` takes, from the arguments as a model wrote them. Raises `BadArguments`."""
        try:
            given = msgspec.json.decode(arguments.strip() or "{}")
        except (ValueError, RecursionError) as exc:
            raise BadArguments("bad arguments: they are not a JSON object") from exc
        if not isinstance(given, dict):
            raise BadArguments("bad arguments: they are not a JSON object")
        if _depth(given) > _MAX_DEPTH:
            raise BadArguments("bad arguments: they are nested too deep")
        return self.check(given)


class Tools:
    """All tools, by name."""

    _own: dict[str, Tool]
    _by_name: dict[str, Tool]
    offered: tuple[OfferedTool, ...]

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        """Raises `ConfigurationError` if two have the same name."""
        self._own = {}
        for tool in tools:
            if (other := self._own.get(tool.name)) is not None:
                where = f"the tool {tool.name} of {tool.source}"
                raise ConfigurationError(f"{where} has the same name as one of {other.source}")
            self._own[tool.name] = tool
        self.found(())

    def found(self, tools: Iterable[Tool]) -> None:
        """There are these, too, whose servers were asked; those that were found before are gone.

        An answer goes on with what it was `offered` at its beginning.
        """
        self._by_name = self._own | {tool.name: tool for tool in tools if tool.name not in self._own}
        self.offered = tuple(OfferedTool(tool.name, tool.description, tool.parameters) for tool in self)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._by_name.values())

    def get(self, name: str) -> Tool | None:
        """None if there is no such tool."""
        return self._by_name.get(name)


def _depth(value: Any) -> int:
    """Level by level, so that it needs no stack."""
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
