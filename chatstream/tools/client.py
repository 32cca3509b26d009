"""Tools that the app carries out: the server asks it, in the answer's log, and waits for what it says."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from chatstream.models import ClientTool
from chatstream.plugins.tool import Approval, Caller, Manner
from chatstream.tools import schema
from chatstream.tools.tool import Tool, ToolFailed, Tools, Where

# An app that is open answers in seconds; one that died has to be opened again.
TIMEOUT: Final = 600.0


def client_tool(
    name: str, description: str, parameters: Mapping[str, Any], *, manner: Manner | None = None, source: str
) -> Tool:
    """A tool of the app's. What it does is its own business: by default nobody has to agree.

    Raises `ValueError` if `parameters` are no JSON Schema of an object.
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
    """`tools`, and those that an app has declared in its conversation. Where both have a name, it is the server's."""
    own = [
        client_tool(
            one.name,
            one.description,
            one.parameters,
            manner=Manner(approval=Approval.NEVER, timeout=one.timeout),
            source="the conversation",
        )
        for one in declared
        if tools.get(one.name) is None
    ]
    return Tools([*tools, *own]) if own else tools
