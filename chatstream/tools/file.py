"""Reads the tools file (`CHATSTREAM_TOOLS_FILE`): TOML, a table `[[tool]]` for each tool of an endpoint or the app.

Its tables `[[mcp]]` are read in `mcp_file`.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from msgspec import Struct
from pydantic import AfterValidator, Field

from chatstream import hosts
from chatstream.config import toml_file, values
from chatstream.config.words import SECONDS
from chatstream.errors import InvalidSettings
from chatstream.pieces import Effect
from chatstream.plugins.tool import APPROVAL_TIMEOUT, TIMEOUT, Approval, Manner
from chatstream.settings import Settings
from chatstream.tools import client, schema
from chatstream.tools.tool import Where

SETTING: Final = "CHATSTREAM_TOOLS_FILE"
# Maximum number of tools: each request sends all of them to the model, and models choose well among some dozens.
_MOST_TOOLS: Final = 128
_MOST_HEADERS: Final = 20
_MONTH: Final = 30 * 86_400
_VARIABLE: Final = re.compile(r"\$\{([^}]*)\}?")
VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
# Header names and values (RFC 9110, sections 5.6.2 and 5.5), ASCII only.
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_HEADER_VALUE: Final = re.compile(r"[!-~](?:[ -~]{0,4000}[!-~])?")
# Settings that only tools of an endpoint have.
_OF_ENDPOINTS: Final = ("url", "effect", "headers", "internal")
# Headers that may not be set: chatstream sets them, or they belong to the connection.
_OURS: Final = (
    *("accept", "accept-encoding", "content-type", "idempotency-key", "x-conversation-id", "x-message-id", "x-user-id"),
    *("connection", "content-encoding", "content-length", "expect", "host", "keep-alive", "te", "trailer"),
    *("transfer-encoding", "upgrade"),
)


# Valid values for wrong settings, so that the rest of the table can be checked; see `read_table`.
_STAND_INS: Final = {
    "name": "tool",
    "description": "It is not described.",
    "url": "https://localhost/",
    "internal": True,
    "approval": "always",
    "effect": "once",
}


class HttpTool(Struct, frozen=True, kw_only=True):
    """A tool from the file that an HTTP endpoint carries out."""

    name: str
    description: str
    url: str
    manner: Manner
    headers: Mapping[str, str]
    parameters: Mapping[str, Any]
    internal: bool  # its host may be in the operator's network

    def __str__(self) -> str:
        parts = urlsplit(self.url)  # a query may hold a key
        post = f"POST {parts.scheme}://{parts.netloc}{parts.path}, effect {self.manner.effect}"
        return f"{self.name}: {post}, {_asks(self.manner)}"


class AppTool(Struct, frozen=True, kw_only=True):
    """A tool from the file that the client app carries out, in every conversation."""

    name: str
    description: str
    manner: Manner
    parameters: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.name}: the app answers within {self.manner.timeout:g} s, {_asks(self.manner)}"


def _asks(manner: Manner) -> str:
    return "after a person's approval" if manner.asks else "asks nobody"


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text):
        raise ValueError("must be 1 to 64 ASCII letters, digits, _ or -: models' endpoints take no others")
    return text


def check_description(text: str) -> str:
    if not text.strip():
        raise ValueError("must say what the tool does and when to call it: a model knows nothing else of it")
    values.check_text(text, lines=True)
    return text


def check_url(text: str) -> str:
    return values.url(text, query=True)


def check_headers(given: dict[str, str]) -> dict[str, str]:
    seen: set[str] = set()
    for name, value in given.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{toml_file.quoted(name)} is no name of a header")
        if name.lower() in _OURS:
            raise ValueError(f"must not set {name}: chatstream does")
        if name.lower() in seen:
            raise ValueError(f"{name} is there twice: capitals make no difference")
        seen.add(name.lower())
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"{name} must be 1 to 4,000 visible ASCII characters, with spaces between them only")
        for variable in _VARIABLE.finditer(value):
            if not VARIABLE_NAME.fullmatch(variable[1]) or not variable[0].endswith("}"):
                raise ValueError(f"{name} must name environment variables as ${{NAME}}")
    return given


def _parameters(given: dict[str, Any]) -> dict[str, Any]:
    toml_file.check_json("it", given)
    schema.checking(given)
    return given


class _Tool(toml_file.Table):
    name: Annotated[str, AfterValidator(_name)]
    description: Annotated[str, Field(max_length=4_000), AfterValidator(check_description)]
    where: Annotated[Where, Field(strict=False)] = Where.SERVER
    url: Annotated[str, AfterValidator(check_url)] | None = None
    effect: Annotated[Effect, Field(strict=False)] = Effect.ONCE
    approval: Annotated[Approval, Field(strict=False)] | None = None
    timeout: Annotated[float, Field(ge=0.01, le=86_400), SECONDS] = TIMEOUT
    approval_timeout: Annotated[float, Field(ge=1, le=_MONTH), SECONDS] | None = None
    headers: Annotated[dict[str, str], Field(max_length=_MOST_HEADERS), AfterValidator(check_headers)] = Field(
        default_factory=dict
    )
    parameters: Annotated[dict[str, Any], AfterValidator(_parameters)] = Field(
        default_factory=lambda: {"type": "object", "properties": {}, "additionalProperties": False}
    )
    internal: bool = False


def read(path: Path, settings: Settings) -> list[HttpTool | AppTool]:
    """Read the tools from this file; `settings` has the variables that it names.

    Raises `InvalidSettings` with a line per error, without the values: they may be secrets.
    """
    document = toml_file.document(path, SETTING)
    problems = [*toml_file.strangers(document, ("tool", "mcp"))]
    tables = document.get("tool", [] if "mcp" in document else None)
    empty = not tables and "mcp" not in document
    if not isinstance(tables, list) or empty or not all(isinstance(table, dict) for table in tables):
        raise InvalidSettings(
            [f"{SETTING}: {one}" for one in (*problems, f"{path} must have a table [[tool]] for each tool")]
        )
    if len(tables) > _MOST_TOOLS:
        raise InvalidSettings([f"{SETTING}: {path} has more than {_MOST_TOOLS} tools"])
    tools: list[_Tool] = []
    for number, table in enumerate(tables, start=1):
        where = toml_file.named("tool", table, number)
        tool, errors = toml_file.read_table(_Tool, table, _STAND_INS)
        problems += [f"{where}: {toml_file.explain(error, _Tool)}" for error in errors]
        if tool is not None:
            if not any(error["loc"][:1] == ("where",) for error in errors):  # the required settings depend on `where`
                problems += [f"{where}: {problem}" for problem in _problems(tool, settings)]
            tools.append(tool)
    names = [name for table in tables if isinstance(name := table.get("name"), str)]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        problems.append(f"tool {toml_file.quoted(name)}: is there more than once")
    if problems:
        raise InvalidSettings([f"{SETTING}: {each}" for each in problems])
    return [_made(tool, settings) for tool in tools]


def _problems(tool: _Tool, settings: Settings) -> Iterator[str]:
    manner = _manner(tool)
    if tool.approval_timeout is not None and not manner.asks:
        yield "approval_timeout: means nothing where nobody is asked: approval is never"
    if tool.where is Where.CLIENT:
        for name in _OF_ENDPOINTS:
            if name in tool.model_fields_set:
                yield f'{name}: means nothing where the app carries the tool out: where = "client"'
        return
    if tool.url is None:
        yield "url: is missing"
        return
    yield from address_problems(tool.url, internal=tool.internal)
    for header, value in tool.headers.items():
        yield from variable_problems(f"headers.{header}", value, settings)


def address_problems(address: str, *, internal: bool) -> Iterator[str]:
    """Errors in a URL that is requested on behalf of users."""
    parts = urlsplit(address)
    if parts.scheme != "https" and not internal and not hosts.is_inside(parts.hostname or ""):
        yield (
            "url: must begin with https://: what is sent says who talks, and holds your headers. In your own network, "
            "write internal = true"
        )


def variable_problems(field: str, value: str, settings: Settings, *, header: bool = True) -> Iterator[str]:
    """Errors in the environment variables that a value names."""
    for variable in _VARIABLE.finditer(value):
        found = settings.variable(variable[1])
        # A name without an underscore may be the secret itself, so it is not shown.
        shown = variable[1] if "_" in variable[1] else "that it names"
        if found is None:
            yield f"{field}: the environment variable {shown} is not set"
        elif header and not _HEADER_VALUE.fullmatch(found):
            yield f"{field}: the environment variable {shown} holds what no HTTP header can carry"
        elif settings.is_production and values.is_placeholder(found):
            yield f"{field}: the environment variable {shown} is an example's, and no secret"


def filled(value: str, settings: Settings) -> str:
    """A value with the environment variables filled in."""
    return _VARIABLE.sub(lambda variable: settings.variable(variable[1]) or "", value)


def _manner(tool: _Tool) -> Manner:
    approval_timeout = APPROVAL_TIMEOUT if tool.approval_timeout is None else tool.approval_timeout
    approval, timeout = tool.approval, tool.timeout
    if tool.where is Where.CLIENT:  # the app decides itself
        approval = tool.approval or Approval.NEVER
        timeout = tool.timeout if "timeout" in tool.model_fields_set else client.TIMEOUT
    return Manner(effect=tool.effect, approval=approval, timeout=timeout, approval_timeout=approval_timeout)


def _made(tool: _Tool, settings: Settings) -> HttpTool | AppTool:
    description = tool.description.strip()
    if tool.url is None:
        return AppTool(name=tool.name, description=description, manner=_manner(tool), parameters=tool.parameters)
    return HttpTool(
        name=tool.name,
        description=description,
        url=tool.url,
        manner=_manner(tool),
        headers={name: filled(value, settings) for name, value in tool.headers.items()},
        parameters=tool.parameters,
        internal=tool.internal,
    )
