"""Reads the tables ``[[mcp]]`` of the tools file (`CHATSTREAM_TOOLS_FILE`): MCP servers and their allowed tools."""

import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from msgspec import Struct
from pydantic import AfterValidator, Field, ValidationError

from chatstream.config import toml_file
from chatstream.config.words import SECONDS
from chatstream.errors import InvalidSettings
from chatstream.pieces import Effect
from chatstream.plugins.tool import APPROVAL_TIMEOUT, TIMEOUT, Approval, Manner
from chatstream.settings import Settings
from chatstream.tools import file
from chatstream.tools.file import SETTING

_MOST_SERVERS: Final = 20
_LONGEST_NAME: Final = 64  # of a tool's name with its server's prefix: endpoints' limit
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")
_EXTRA: Final = 'pip install "chatstream[mcp]"'


class McpTool(Struct, frozen=True, kw_only=True):
    """A tool of an MCP server that models may call. `name`: its name for models; `own_name`: its name on the server."""

    name: str
    own_name: str
    description: str | None  # None: the server's own
    manner: Manner

    def __str__(self) -> str:
        asks = "after a person's approval" if self.manner.asks else "asks nobody"
        return f"{self.name}: effect {self.manner.effect}, {asks}"


class McpServer(Struct, frozen=True, kw_only=True):
    """An MCP server: with a `url` (HTTP) or a `command` (stdio)."""

    name: str
    url: str | None
    command: tuple[str, ...]
    headers: Mapping[str, str]
    environment: Mapping[str, str]
    internal: bool  # its host may be in the operator's network
    tools: tuple[McpTool, ...]

    def __str__(self) -> str:
        if self.url is None:
            return f"{self.name}: MCP server, started as {self.command[0]}"  # its arguments may hold a key
        parts = urlsplit(self.url)
        return f"{self.name}: MCP server at {parts.scheme}://{parts.netloc}{parts.path}"


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-](?:_?[A-Za-z0-9-]){0,30}", text):
        raise ValueError("must be up to 31 ASCII letters, digits, - or single _: it stands before the tools' names")
    return text


def _command(given: list[str]) -> list[str]:
    if not given or not given[0].strip() or any("\0" in each for each in given):
        raise ValueError('must be a program and its arguments, such as ["npx", "-y", "some-server"]')
    return given


def _environment(given: dict[str, str]) -> dict[str, str]:
    for name, value in given.items():
        if not file.VARIABLE_NAME.fullmatch(name):
            raise ValueError(f"{toml_file.quoted(name)} is no name of an environment variable")
        if "\0" in value:
            raise ValueError(f"{name} holds what no environment variable can")
    return given


class _Tool(toml_file.Table):
    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: Annotated[str, Field(max_length=4_000), AfterValidator(file.check_description)] | None = None
    effect: Annotated[Effect, Field(strict=False)] = Effect.ONCE
    approval: Annotated[Approval, Field(strict=False)] | None = None
    timeout: Annotated[float, Field(ge=0.01, le=86_400), SECONDS] = TIMEOUT
    approval_timeout: Annotated[float, Field(ge=1, le=30 * 86_400), SECONDS] | None = None


class _Server(toml_file.Table):
    name: Annotated[str, AfterValidator(_name)]
    url: Annotated[str, AfterValidator(file.check_url)] | None = None
    command: Annotated[list[str], Field(max_length=100), AfterValidator(_command)] | None = None
    headers: Annotated[dict[str, str], Field(max_length=20), AfterValidator(file.check_headers)] = Field(
        default_factory=dict
    )
    environment: Annotated[dict[str, str], Field(max_length=100), AfterValidator(_environment)] = Field(
        default_factory=dict
    )
    internal: bool = False
    tools: Annotated[list[_Tool], Field(min_length=1, max_length=128)]


def read(path: Path, settings: Settings) -> list[McpServer]:
    """Read the servers from this file; `settings` has the variables that it names.

    Raises `InvalidSettings` with a line per error, without the values: they may be secrets.
    """
    tables = toml_file.document(path, SETTING).get("mcp", [])
    if not tables:
        return []
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InvalidSettings([f"{SETTING}: {path} must have a table [[mcp]] for each MCP server"])
    if len(tables) > _MOST_SERVERS:
        raise InvalidSettings([f"{SETTING}: {path} has more than {_MOST_SERVERS} MCP servers"])
    problems = [*_missing()]
    servers: list[_Server] = []
    for number, table in enumerate(tables, start=1):
        where = toml_file.named("MCP server", table, number)
        try:
            servers.append(_Server.model_validate(table))
        except ValidationError as exc:
            for error in exc.errors(include_url=False, include_input=False):
                kind = _Tool if error["loc"][0] == "tools" and len(error["loc"]) > 2 else _Server
                problems.append(f"{where}: {_explained(error, kind)}")
    problems += _contradictions(servers, settings)
    if problems:
        raise InvalidSettings([f"{SETTING}: {each}" for each in problems])
    return [_made(server, settings) for server in servers]


def _explained(error: Any, table: type[toml_file.Table]) -> str:
    if error["type"] == "too_short":
        return "tools: must have a table [[mcp.tools]] for each tool that a model may call"
    return toml_file.explain(error, table)


def _missing() -> Iterator[str]:
    """Errors for packages that are not installed. Nothing is imported."""
    try:
        version = metadata.version("mcp")
    except metadata.PackageNotFoundError:
        yield f"[[mcp]] needs a package that is not installed: {_EXTRA}"
        return
    if version.partition(".")[0] != "2":
        yield f"[[mcp]] needs version 2 of the package mcp, and not {version}: {_EXTRA}"


def _contradictions(servers: list[_Server], settings: Settings) -> Iterator[str]:
    """Errors between valid servers, one line each."""
    names = [server.name for server in servers]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield f"MCP server {toml_file.quoted(name)}: is there more than once"
    for server in servers:
        where = f"MCP server {toml_file.quoted(server.name)}"
        yield from (f"{where}: {problem}" for problem in _problems(server, settings))


def _problems(server: _Server, settings: Settings) -> Iterator[str]:
    if (server.url is None) is (server.command is None):
        yield "must have a url or a command, and not both"
    if server.url is not None:
        yield from file.address_problems(server.url, internal=server.internal)
    given: tuple[tuple[str, object, object], ...] = (
        ("headers", server.url, server.headers),
        ("internal", server.url, server.internal),
        ("environment", server.command, server.environment),
    )
    for field, belongs, value in given:
        if value and belongs is None:
            yield f"{field}: means nothing for {'a command' if server.url is None else 'a url'}"
    for header, value in server.headers.items():
        yield from file.variable_problems(f"headers.{header}", value, settings)
    for variable, value in server.environment.items():
        yield from file.variable_problems(f"environment.{variable}", value, settings, header=False)
    models = [_full_name(server, tool) for tool in server.tools]
    for tool, name in zip(server.tools, models, strict=True):
        where = f"tool {toml_file.quoted(tool.name)}"
        if models.count(name) > 1:
            yield f"{where}: is there more than once, as a model sees it"
        if len(name) > _LONGEST_NAME:
            yield f"{where}: has more than {_LONGEST_NAME} characters with the server's name before it: {name}"
        if tool.approval_timeout is not None and not _manner(tool).asks:
            yield f"{where}: approval_timeout: means nothing where nobody is asked: approval is never"


def _full_name(server: _Server, tool: _Tool) -> str:
    return f"{server.name}__{_NOT_IN_NAMES.sub('_', tool.name)}"


def _manner(tool: _Tool) -> Manner:
    approval_timeout = APPROVAL_TIMEOUT if tool.approval_timeout is None else tool.approval_timeout
    return Manner(effect=tool.effect, approval=tool.approval, timeout=tool.timeout, approval_timeout=approval_timeout)


def _made(server: _Server, settings: Settings) -> McpServer:
    return McpServer(
        name=server.name,
        url=server.url,
        command=tuple(server.command or ()),
        headers={name: file.filled(value, settings) for name, value in server.headers.items()},
        environment={name: file.filled(value, settings) for name, value in server.environment.items()},
        internal=server.internal,
        tools=tuple(
            McpTool(
                name=_full_name(server, tool),
                own_name=tool.name,
                description=tool.description and tool.description.strip(),
                manner=_manner(tool),
            )
            for tool in server.tools
        ),
    )
