"""Builds the tools from the settings."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatstream.errors import ConfigurationError, InvalidSettings
from chatstream.plugins.loading import Loaded
from chatstream.settings import Settings
from chatstream.tools.python import python_tools
from chatstream.tools.tool import Tools

if TYPE_CHECKING:
    from chatstream.tools.file import AppTool, HttpTool
    from chatstream.tools.mcp_file import McpServer


def read_file(settings: Settings) -> "tuple[list[HttpTool | AppTool], list[McpServer]]":
    """Read the tools file, if one is set. Raises `InvalidSettings` with all its errors."""
    if settings.tools_file is None:
        return [], []
    from chatstream.tools import file, mcp_file  # slow to import, and needed only with such a file

    problems: list[str] = []
    found: list[list[Any]] = []
    readers: tuple[Callable[[Path, Settings], list[Any]], ...] = (file.read, mcp_file.read)
    for read in readers:
        try:
            found.append(read(settings.tools_file, settings))
        except InvalidSettings as exc:
            problems += exc.problems
    if problems:
        raise InvalidSettings(dict.fromkeys(problems))
    listed, servers = found
    return listed, servers


@asynccontextmanager
async def configured_tools(
    settings: Settings, loaded: Iterable[Loaded], *, connect: bool = True
) -> AsyncIterator[Tools]:
    """All configured tools. The context holds their connections. Without `connect`, MCP servers are not contacted.

    Raises `ConfigurationError`, and `InvalidSettings`.
    """
    ours = python_tools(loaded)
    if settings.tools_file is None:
        yield Tools(ours)
        return
    from chatstream.tools.client import client_tool
    from chatstream.tools.file import SETTING, AppTool, HttpTool
    from chatstream.tools.http import HttpTools

    listed, servers = read_file(settings)
    endpoints = [one for one in listed if isinstance(one, HttpTool)]
    apps = [
        client_tool(one.name, one.description, one.parameters, manner=one.manner, source=SETTING)
        for one in listed
        if isinstance(one, AppTool)
    ]
    http = HttpTools(endpoints, output_characters=settings.tool_output_characters)
    try:
        tools = Tools([*ours, *http.tools, *apps])
        for server in servers:
            for each in server.tools:
                if (other := tools.get(each.name)) is not None:
                    where = f"the tool {each.own_name} of the MCP server {server.name}"
                    raise ConfigurationError(f"{where} has the same name as one of {other.source}")
        if not servers or not connect:
            yield tools
            return
        from chatstream.tools.mcp_servers.servers import McpServers

        asked = tools.open_calls = McpServers(servers, tools.found)
        try:
            await asked.open()
            yield tools
        finally:
            await asked.close()
    finally:
        await http.close()
