"""The tools that the settings name."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from chatstream.plugins.loading import Loaded
from chatstream.settings import Settings
from chatstream.tools.python import python_tools
from chatstream.tools.tool import Tools


@asynccontextmanager
async def configured_tools(settings: Settings, loaded: Iterable[Loaded]) -> AsyncIterator[Tools]:
    """All of them; their connections are there meanwhile. Raises `ConfigurationError`, and `InvalidSettings`."""
    ours = python_tools(loaded)
    if settings.tools_file is None:
        yield Tools(ours)
        return
    from chatstream.tools import file
    from chatstream.tools.http import HttpTools

    http = HttpTools(file.read(settings.tools_file, settings), output_characters=settings.tool_output_characters)
    try:
        yield Tools([*ours, *http.tools])
    finally:
        await http.close()
