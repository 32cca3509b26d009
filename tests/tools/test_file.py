"""The tools file: valid contents, and the errors for invalid ones."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from chatstream.errors import ConfigurationError, InvalidSettings
from chatstream.models import ClientTool
from chatstream.pieces import Effect
from chatstream.settings import Settings
from chatstream.tools import schema
from chatstream.tools.client import with_declared
from chatstream.tools.configuration import configured_tools
from chatstream.tools.file import HttpTool, read
from chatstream.tools.schema import checking
from chatstream.tools.tool import BadArguments, Tools, Where
from tests.support import settings_files
from tests.support.processes import REPOSITORY
from tests.support.settings_files import SECRET

NAMED = '[[tool]]\nname = "t"\ndescription = "d"\nurl = "https://h.example/t"\neffect = "none"\n'


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", f" {SECRET}\n")
    monkeypatch.setenv("TWO_LINES", f"{SECRET}\r\nX-User-Id: root")
    monkeypatch.delenv("UNSET_TOKEN", raising=False)


def reading(directory: Path, text: str) -> list[HttpTool]:
    path = directory / "tools.toml"
    path.write_text(text, encoding="utf-8")
    return [tool for tool in read(path, Settings()) if isinstance(tool, HttpTool)]


def problems(directory: Path, text: str) -> list[str]:
    return settings_files.problems("CHATSTREAM_TOOLS_FILE", reading, directory, text)


@pytest.mark.gen_test
async def test_the_example_is_a_file_of_tools() -> None:
    settings = Settings(tools_file=REPOSITORY / "conf" / "tools.toml.example")
    async with configured_tools(settings, []) as tools:
        assert [each.name for each in tools.offered] == ["order_status", "remind_me"]
        status, remind = tools.get("order_status"), tools.get("remind_me")
        assert status is not None
        assert remind is not None
        assert (status.manner.effect, status.manner.timeout, remind.manner.effect) == (
            Effect.NONE,
            5,
            Effect.IDEMPOTENT,
        )
        assert status.checked('{"number": "AB123456"}') == {"number": "AB123456"}
        with pytest.raises(BadArguments, match=r"\Abad arguments: number: what was given does not match"):
            status.checked('{"number": "AB1"}')
        with pytest.raises(BadArguments, match="at: what was given is not a"):
            remind.checked('{"text": "x", "at": "tomorrow"}')


def test_a_header_may_have_its_value_from_the_environment(tmp_path: Path) -> None:
    [tool] = reading(tmp_path, NAMED + 'headers = { Authorization = "Bearer ${SHOP_TOKEN}", X-Price = "$5" }')
    assert tool.headers == {"Authorization": f"Bearer {SECRET}", "X-Price": "$5"}
    assert "hunter2" not in str(tool)


def test_the_variable_may_stand_in_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "k" * 40)
    (tmp_path / ".env").write_text("IN_THE_FILE='sk-1'\n")
    path = tmp_path / "tools.toml"
    path.write_text(NAMED + 'headers = { X-Key = "${IN_THE_FILE}" }')
    [tool] = read(path, Settings.load(["JWT_SECRET"], tmp_path / ".env"))
    assert isinstance(tool, HttpTool)
    assert tool.headers == {"X-Key": "sk-1"}


@pytest.mark.parametrize(
    "host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "10.0.0.7", "backend", "a.internal"]
)
def test_what_can_only_be_in_the_operators_network_may_be_asked_without_tls(tmp_path: Path, host: str) -> None:
    [tool] = reading(tmp_path, NAMED.replace("https://h.example", f"http://{host}"))
    assert tool.url == f"http://{host}/t"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "{} must have a table [[tool]] for each tool"),
        ("tool = []", "{} must have a table [[tool]] for each tool"),
        ('[tool]\nname = "t"', "{} must have a table [[tool]] for each tool"),
        (f"[[tool]]\nurl = {SECRET}", "{} is no TOML at line 2, column 7 (texts stand in quotation marks)"),
        ('[[tools]]\nname = "x"\n' + NAMED, '"tools": there is no such setting; did you mean tool?'),
        (
            NAMED.replace('"t"', '"no spaces"'),
            'tool "no spaces": name: must be 1 to 64 ASCII letters, digits, _ or -: models\' endpoints take no others',
        ),
        (
            NAMED.replace('"t"', '"' + "x" * 65 + '"'),
            f'tool "{"x" * 65}": name: '
            "must be 1 to 64 ASCII letters, digits, _ or -: models' endpoints take no others",
        ),
        (NAMED.replace('name = "t"\n', ""), "tool 1, which has no name: name: is missing"),
        (NAMED.replace('url = "https://h.example/t"\n', ""), 'tool "t": url: is missing'),
        (
            NAMED.replace('"d"', '" "'),
            'tool "t": description: must say what the tool does and when to call it: a model knows nothing else of it',
        ),
        (NAMED + NAMED, 'tool "t": is there more than once'),
        (NAMED + "timout = 3", 'tool "t": "timout": there is no such setting; did you mean timeout?'),
        (
            NAMED + 'timeout = "3s"',
            'tool "t": timeout: must be seconds (0.01 to 86,400): a number without a unit',
        ),
        (NAMED + "timeout = 0", 'tool "t": timeout: must be seconds (0.01 to 86,400): a number without a unit'),
        (NAMED + "timeout = nan", 'tool "t": timeout: must be seconds (0.01 to 86,400): a number without a unit'),
        (NAMED.replace('"none"', '"read"'), 'tool "t": effect: must be one of none, idempotent or once'),
        (NAMED + 'approval = "hook"', 'tool "t": approval: must be one of never or always'),
        (
            NAMED.replace("https://h.example", f"https://u:{SECRET}@h.example"),
            'tool "t": url: must not hold a user name or a password',
        ),
        (NAMED.replace("https:", "ftp:"), 'tool "t": url: must begin with http:// or https://'),
        (
            NAMED.replace("https:", "http:"),
            'tool "t": url: must begin with https://: what is sent says who talks, and holds your headers. In your own '
            "network, write internal = true",
        ),
        (
            NAMED + "approval_timeout = 60",
            'tool "t": approval_timeout: means nothing where nobody is asked: approval is never',
        ),
        (
            NAMED + 'headers = { X-Key = "${UNSET_TOKEN}" }',
            'tool "t": headers.X-Key: the environment variable UNSET_TOKEN is not set',
        ),
        (
            NAMED + 'headers = { X-Key = "${hunter2}" }',
            'tool "t": headers.X-Key: the environment variable that it names is not set',
        ),
        (
            NAMED + 'headers = { X-Key = "${TWO_LINES}" }',
            'tool "t": headers.X-Key: the environment variable TWO_LINES holds what no HTTP header can carry',
        ),
        (
            NAMED + 'headers = { X-Key = "${a b}" }',
            'tool "t": headers: X-Key must name environment variables as ${NAME}',
        ),
        (
            NAMED + 'headers = { X-Key = "${SHOP_TOKEN" }',
            'tool "t": headers: X-Key must name environment variables as ${NAME}',
        ),
        (
            NAMED + 'headers = { X-Key = "a\\r\\nX-User-Id: root" }',
            'tool "t": headers: X-Key must be 1 to 4,000 visible ASCII characters, with spaces between them only',
        ),
        (NAMED + 'headers = { "a:b" = "c" }', 'tool "t": headers: "a:b" is no name of a header'),
        (NAMED + 'headers = { x-user-ID = "root" }', 'tool "t": headers: must not set x-user-ID: chatstream does'),
        (NAMED + 'headers = { Host = "h" }', 'tool "t": headers: must not set Host: chatstream does'),
        (
            NAMED + 'headers = { X-A = "1", x-a = "2" }',
            'tool "t": headers: x-a is there twice: capitals make no difference',
        ),
        (
            NAMED + 'parameters = { type = "string" }',
            'tool "t": parameters: must be the schema of an object: type = "object"',
        ),
        (
            NAMED + 'parameters = { type = "object", properties = { a = { type = "text" } } }',
            'tool "t": parameters: is no JSON Schema: properties.a.type is wrong',
        ),
        (
            NAMED + 'parameters = { type = "object", "$ref" = "http://127.0.0.1:1/schema" }',
            'tool "t": parameters: must only have references to its own parts: #/…',
        ),
        (
            NAMED + 'parameters = { type = "object", properties = { a = { const = 2026-11-28 } } }',
            'tool "t": parameters: it holds what JSON has no form for: a date, or a number that is none',
        ),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(tmp_path: Path, text: str, problem: str) -> None:
    assert problems(tmp_path, text) == [problem.format(tmp_path / "tools.toml") if "{} " in problem else problem]


APPS = '[[tool]]\nname = "pick"\ndescription = "d"\nwhere = "client"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (APPS + 'url = "https://h.example"', 'url: means nothing where the app carries the tool out: where = "client"'),
        (APPS + 'effect = "none"', 'effect: means nothing where the app carries the tool out: where = "client"'),
        (APPS + "headers = {}", 'headers: means nothing where the app carries the tool out: where = "client"'),
        (APPS + "internal = false", 'internal: means nothing where the app carries the tool out: where = "client"'),
        (APPS + "approval_timeout = 5", "approval_timeout: means nothing where nobody is asked: approval is never"),
        (APPS.replace('"client"', '"app"'), "where: must be one of server or client"),
        (APPS + 'parameters = { type = "array" }', 'parameters: must be the schema of an object: type = "object"'),
        (APPS + APPS, "is there more than once"),
    ],
)
def test_what_is_wrong_with_one_that_the_app_carries_out(tmp_path: Path, text: str, problem: str) -> None:
    assert problems(tmp_path, text) == [f'tool "pick": {problem}']


@pytest.mark.gen_test
async def test_the_app_carries_one_out_for_itself(tmp_path: Path) -> None:
    path = tmp_path / "tools.toml"
    path.write_text(NAMED + APPS + APPS.replace('"pick"', '"sign"') + 'approval = "always"\ntimeout = 60\n')
    assert [str(tool) for tool in read(path, Settings())][1:] == [
        "pick: the app answers within 600 s, asks nobody",
        "sign: the app answers within 60 s, after a person's approval",
    ]
    async with configured_tools(Settings(tools_file=path), []) as tools:
        found = [(tool.name, tool.where, tool.manner.asks, tool.manner.timeout) for tool in tools]
    assert found == [
        ("t", Where.SERVER, False, 30),
        ("pick", Where.CLIENT, False, 600),
        ("sign", Where.CLIENT, True, 60),
    ]


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path, NAMED + "timeout = 0\n" + '[[tool]]\nurl = "x"\n' + NAMED.replace('"t"', '"u"') + "x = 1"
    )
    assert len(found) == 5


def test_one_fault_hides_no_other(tmp_path: Path) -> None:
    text = (
        NAMED
        + 'timeout = 0\nheaders = { X-Key = "${UNSET_TOKEN}" }\n'
        + NAMED.replace("https:", "http:")
        + "internal = 1"
    )
    assert problems(tmp_path, text) == [
        'tool "t": timeout: must be seconds (0.01 to 86,400): a number without a unit',
        'tool "t": headers.X-Key: the environment variable UNSET_TOKEN is not set',
        'tool "t": internal: must be true or false',
        'tool "t": is there more than once',
    ]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe[", b"[[tool]]\nx = " + b"[" * 5000, b"#" * 1_100_000])
def test_a_file_that_is_something_else_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tools.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidSettings, match=r"CHATSTREAM_TOOLS_FILE: .*tools\.toml"):
        read(path, Settings())
    with pytest.raises(InvalidSettings, match="does not exist"):
        read(tmp_path / "nothing.toml", Settings())


@pytest.mark.gen_test
async def test_a_name_that_a_plug_in_has_already_is_refused(tmp_path: Path) -> None:
    from chatstream.plugins.loading import load

    path = tmp_path / "tools.toml"
    path.write_text(NAMED.replace('"t"', '"recommend_bet"'))
    with pytest.raises(
        ConfigurationError, match="recommend_bet of CHATSTREAM_TOOLS_FILE has the same name as one of chatst"
    ):
        async with configured_tools(Settings(tools_file=path), load(["chatstream.plugins.bets:plugin"])):
            pass


def test_patterns_take_linear_time(tmp_path: Path) -> None:
    check = checking({"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}})
    with pytest.raises(BadArguments):
        check({"a": "a" * 49_000 + "b"})  # with backtracking this would take for ever
    with pytest.raises(ValueError, match=r"\Ais no JSON Schema: properties.a.pattern is wrong\Z"):
        checking({"type": "object", "properties": {"a": {"pattern": "(?=a)"}}})


def leading(ways: int, length: int) -> dict[str, Any]:
    """A schema of definitions that lead to the next one in so many ways each."""
    definitions: dict[str, Any] = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * ways} for n in range(length)}
    definitions[f"d{length}"] = {"type": "integer"}
    return {"type": "object", "$defs": definitions, "properties": {"a": {"$ref": "#/$defs/d0"}}}


def test_references_of_a_schema_take_no_exponential_time() -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "$id": {"type": "string"}}}
    many = leading(80, 1)
    many["$defs"]["d1"] = {"enum": [*range(100)]}
    for good in (tree, tree | {"$id": "https://example.org/tree"}, leading(1, 30), leading(2, 7), many):
        checking(good)
    dynamic = {"type": "object", "properties": {"a": {"$dynamicRef": "#node"}}}
    named = {"type": "object", "$defs": {"d": {"$id": "d", "$ref": "#/x", "x": {}}}, "$ref": "#/$defs/d"}
    anchored = {"type": "object", "$defs": {"d": {"$anchor": "d"}}, "$ref": "#d"}
    escaped = leading(2, 20)
    escaped["properties"]["a"]["$ref"] = "#/%24defs/d0"
    for bad in (leading(2, 20), leading(40, 3), escaped, dynamic, named, anchored):
        with pytest.raises(ValueError, match=r"references|\$id"):
            checking(bad)


def test_a_part_is_not_walked_again_for_each_spelling_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    walked = 0
    follow = schema._References.follow

    def counted(self: schema._References, *args: Any, **options: Any) -> None:
        nonlocal walked
        walked += 1
        follow(self, *args, **options)

    monkeypatch.setattr(schema._References, "follow", counted)
    spelled = ["".join(letters) for letters in product(("a", "%61"), repeat=9)]
    large: dict[str, Any] = {"type": "object", "$defs": {"a" * 9: {"anyOf": [{}] * 4000}}}
    large["allOf"] = [{"$ref": f"#/$defs/{name}"} for name in spelled]
    with pytest.raises(ValueError, match=r"\Ais too large: its references may lead to at most 10,000 parts\Z"):
        checking(large)
    assert walked < 11_000


NODE = {"$ref": "#/$defs/node"}
TEXT = {"type": "string"}


def recursive(**node: Any) -> dict[str, Any]:
    """The schema of an object with one recursive definition."""
    return {"type": "object", "$defs": {"node": node}, "properties": {"a": NODE}}


@pytest.mark.parametrize(
    "node",
    [
        {"properties": {"next": {"anyOf": [{"type": "null"}, NODE]}}},
        {"properties": {"children": {"type": "array", "items": NODE}, "first": NODE, "last": {"allOf": [NODE]}}},
        {"anyOf": [TEXT, {"type": "array", "items": NODE}, {"type": "object", "additionalProperties": NODE}]},
        {"anyOf": [{"properties": {"and": {"items": NODE}}}, {"properties": {"or": {"items": NODE}}}, TEXT]},
        {"properties": {"properties": NODE, "$defs": NODE, "allOf": NODE}},
        {"prefixItems": [NODE, NODE]},
        {"if": {"properties": {"kind": {"const": "leaf"}}}, "else": {"properties": {"x": NODE}}},
    ],
)
def test_a_recursive_schema_that_leads_on_in_one_way_is_accepted(node: dict[str, Any]) -> None:
    checking(recursive(**node))({"a": {}})


X = {"properties": {"x": NODE}}
OTHER = {"properties": {"x": {"$ref": "#/$defs/other"}}}


@pytest.mark.parametrize(
    "node",
    [
        {"properties": {"x": {"allOf": [NODE, NODE]}}},
        {"properties": {"x": {"anyOf": [NODE, {"$ref": "#/%24defs/node"}]}}},
        {"oneOf": [X, X]},
        {"if": X, "then": X},
        {"not": X, "$ref": "#/$defs/other"},
        {**X, "dependentSchemas": {"x": X}},
        {**X, "patternProperties": {"^x": NODE}},
        {"patternProperties": {"^x": NODE, "x$": NODE}},
        {"patternProperties": {"properties": {"allOf": [NODE], "anyOf": [NODE]}}},
        {"items": NODE, "contains": NODE},
        {"prefixItems": [NODE], "contains": NODE},
        {"properties": {"x": {"items": NODE}}, "allOf": [{"properties": {"x": {"items": NODE}}}]},
        # Once into itself, and once into another one that is recursive: the ways are as many as the places to change.
        {"properties": {"x": {"allOf": [NODE, {"$ref": "#/$defs/other"}]}}},
        {**X, "allOf": [OTHER]},
    ],
)
def test_a_recursive_schema_that_multiplies_at_each_level_is_refused(node: dict[str, Any]) -> None:
    doubled = recursive(**node)
    doubled["$defs"]["other"] = OTHER
    with pytest.raises(ValueError, match=r"\Amust not be recursive in more than one way for the same part"):
        checking(doubled)


def test_a_declared_tool_that_an_earlier_version_accepted_is_left_out() -> None:
    declared = [
        ClientTool(name="a", description="A", parameters=recursive(oneOf=[X, X]), timeout=60),
        ClientTool(name="b", description="B", parameters=recursive(**X), timeout=60),
    ]
    assert [tool.name for tool in with_declared(Tools(), declared)] == ["b"]
