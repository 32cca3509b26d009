"""Tools that the client app carries out: the server publishes the call in the answer, and waits for the result."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from chatstream.models import ClientTool
from chatstream.plugins.tool import Approval, Caller, Manner
from chatstream.tools import schema
from chatstream.tools.tool import Tool, ToolFailed, Tools, Where

# Seconds to wait for the app's result: an open app answers in seconds; one that crashed must be opened again.
TIMEOUT: Final = 600.0


def client_tool(
    name: str, description: str, parameters: Mapping[str, Any], *, manner: Manner | None = None, source: str
) -> Tool:
    """A tool of the app. The app may ask for consent itself, so by default the server does not.

    Raises `ValueError` if `parameters` is not a JSON Schema of an object.
    """
    return Tool(
        name=name,
        description=description,
        parameters=parameters,
        manner=manner or Manner(approval=Approval.NEVER, timeout=TIMEOUT),
        check=schema.checking(parameters),
        run=_never,
        source=source,
        where=Where.CLIENT,
    )


async def _never(arguments: Any, caller: Caller) -> object:
    raise ToolFailed("only the app can carry this out")


def with_declared(tools: Tools, declared: Iterable[ClientTool]) -> Tools:
    """`tools` plus those that an app declared in its conversation. If both have a name, the server's tool counts.

    A tool that is not acceptable is left out: an earlier version may have stored it.
    """
    own = []
    for one in declared:
        if tools.get(one.name) is None:
            manner = Manner(approval=Approval.NEVER, timeout=one.timeout)
            with suppress(ValueError):
                own.append(
                    client_tool(one.name, one.description, one.parameters, manner=manner, source="the conversation")
                )
    return Tools([*tools, *own]) if own else tools
