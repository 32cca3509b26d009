"""The MCP servers in the tools file: valid contents, and the errors for invalid ones."""

import asyncio
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from chatstream.commands import connecting
from chatstream.errors import ConfigurationError, InvalidSettings
from chatstream.pieces import Effect
from chatstream.settings import Settings
from chatstream.tools.configuration import configured_tools, read_file
from chatstream.tools.mcp_file import McpServer, read
from tests.support import settings_files
from tests.support.processes import REPOSITORY
from tests.support.settings_files import SECRET


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", SECRET)
    monkeypatch.delenv("UNSET_TOKEN", raising=False)


def reading(directory: Path, text: str) -> list[McpServer]:
    path = directory / "tools.toml"
    path.write_text(text, encoding="utf-8")
    return read(path, Settings())


def problems(directory: Path, text: str) -> list[str]:
    return settings_files.problems("CHATSTREAM_TOOLS_FILE", reading, directory, text)


TOOL = '[[mcp.tools]]\nname = "t"\n'
NAMED = '[[mcp]]\nname = "m"\nurl = "https://h.example/mcp?key=hunter2"\n'
OTHER = '[[mcp]]\nname = "n-1"\ncommand = ["npx", "hunter2"]\n'
PROGRAM = '[[mcp]]\nname = "m"\ncommand = ["npx", "hunter2"]\n'


def test_servers_and_their_tools(tmp_path: Path) -> None:
    text = (
        f'{NAMED}headers = {{ Authorization = "Bearer ${{SHOP_TOKEN}}" }}\n{TOOL}[[mcp.tools]]\nname = "a.b/c"\n'
        f'effect = "none"\ndescription = " Ours. "\ntimeout = 5\n{OTHER}'
        f'environment = {{ TOKEN = "${{SHOP_TOKEN}}" }}\n{TOOL}'
    )
    http, program = reading(tmp_path, text)
    assert http.headers == {"Authorization": f"Bearer {SECRET}"}
    careful, reads = http.tools
    # Without a setting, the worst effect is assumed.
    assert (careful.name, careful.own_name, careful.manner.effect, careful.manner.asks) == (
        "m__t",
        "t",
        Effect.ONCE,
        True,
    )
    assert (reads.name, reads.description, reads.manner.effect, reads.manner.asks, reads.manner.timeout) == (
        *("m__a_b_c", "Ours.", Effect.NONE, False, 5),
    )
    assert (program.command, program.environment) == (("npx", "hunter2"), {"TOKEN": SECRET})
    assert [str(each) for each in (http, careful, program)] == [
        "m: MCP server at https://h.example/mcp",
        "m__t: effect once, after a person's approval",
        "n-1: MCP server, started as npx",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mcp = 1", "{} must have a table [[mcp]] for each MCP server"),
        (NAMED, 'MCP server "m": tools: is missing'),
        (
            NAMED + "tools = []",
            'MCP server "m": tools: must have a table [[mcp.tools]] for each tool that a model may call',
        ),
        ('[[mcp]]\nname = "m"\n' + TOOL, 'MCP server "m": must have a url or a command, and not both'),
        (NAMED + 'command = ["x"]\n' + TOOL, 'MCP server "m": must have a url or a command, and not both'),
        (NAMED + TOOL + NAMED + TOOL, 'MCP server "m": is there more than once'),
        (
            NAMED.replace('"m"', '"a__b"') + TOOL,
            'MCP server "a__b": name: must be up to 31 ASCII letters, digits, - or single _: it stands before the '
            "tools' names",
        ),
        (
            NAMED.replace("https", "http") + TOOL,
            'MCP server "m": url: must begin with https://: what is sent says who talks, and holds your headers. In '
            "your own network, write internal = true",
        ),
        (NAMED + 'environment = { A = "b" }\n' + TOOL, 'MCP server "m": environment: means nothing for a url'),
        (PROGRAM + 'headers = { A = "b" }\n' + TOOL, 'MCP server "m": headers: means nothing for a command'),
        (
            '[[mcp]]\nname = "m"\ncommand = []\n' + TOOL,
            'MCP server "m": command: must be a program and its arguments, such as ["npx", "-y", "some-server"]',
        ),
        (
            NAMED + 'headers = { A = "${UNSET_TOKEN}" }\n' + TOOL,
            'MCP server "m": headers.A: the environment variable UNSET_TOKEN is not set',
        ),
        (
            NAMED + 'headers = { Idempotency-Key = "1" }\n' + TOOL,
            'MCP server "m": headers: must not set Idempotency-Key: chatstream does',
        ),
        (
            PROGRAM + 'environment = { A = "${UNSET_TOKEN}" }\n' + TOOL,
            'MCP server "m": environment.A: the environment variable UNSET_TOKEN is not set',
        ),
        (NAMED + TOOL + 'effect = "maybe"', 'MCP server "m": tools.0.effect: must be one of none, idempotent or once'),
        (
            NAMED + TOOL + 'efect = "none"',
            'MCP server "m": "tools.0.efect": there is no such setting; did you mean effect?',
        ),
        (NAMED + TOOL + TOOL, 'MCP server "m": tool "t": is there more than once, as a model sees it'),
        (
            NAMED + TOOL.replace('"t"', f'"{"t" * 70}"'),
            f'MCP server "m": tool "{"t" * 70}": has more than 64 characters with the server\'s name before it: '
            f"m__{'t' * 70}",
        ),
        (
            NAMED + TOOL + 'effect = "none"\napproval_timeout = 9',
            'MCP server "m": tool "t": approval_timeout: means nothing where nobody is asked: approval is never',
        ),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(tmp_path: Path, text: str, problem: str) -> None:
    found = problems(tmp_path, text)
    assert problem.replace("{}", str(tmp_path / "tools.toml")) in found, found


def test_all_that_is_wrong_with_the_file_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "tools.toml"
    path.write_text('[[tool]]\nname = "t"\n' + NAMED + "tols = 1")
    with pytest.raises(InvalidSettings) as refused:
        read_file(Settings(tools_file=path))
    assert any('tool "t": url: is missing' in line for line in refused.value.problems)
    assert any('MCP server "m": "tols"' in line for line in refused.value.problems)


@pytest.mark.parametrize("version", [None, "1.30.0"])
def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    def found(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", found)
    [problem] = problems(tmp_path, NAMED + TOOL)
    assert problem.startswith("[[mcp]] needs ")
    assert problem.endswith('pip install "chatstream[mcp]"')


@pytest.mark.gen_test
async def test_a_name_belongs_to_one_tool(tmp_path: Path) -> None:
    path = tmp_path / "tools.toml"
    tool = '[[tool]]\nname = "m__t"\ndescription = "d"\nurl = "https://h.example/"\n'
    path.write_text(tool + NAMED + TOOL)
    with pytest.raises(
        ConfigurationError, match="the tool t of the MCP server m has the same name as one of CHATSTREAM_TOOLS"
    ):
        async with configured_tools(Settings(tools_file=path), [], connect=False):
            pass


@pytest.mark.gen_test(timeout=110)
async def test_the_servers_are_tried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    path = tmp_path / "tools.toml"
    command = [sys.executable, "-m", "tests.support.mcp_server", "modern"]
    path.write_text(
        f'[[mcp]]\nname = "good"\ncommand = {command!r}\nenvironment = {{ PYTHONPATH = "{REPOSITORY}" }}\n'
        '[[mcp.tools]]\nname = "add"\n[[mcp]]\nname = "bad"\ncommand = ["/nowhere/at-all"]\n' + TOOL
    )
    told: list[tuple[str, str]] = []
    for name in ("_database", "_models", "_keys"):

        async def nothing(settings: Settings) -> list[Any]:
            return []

        monkeypatch.setattr(connecting, name, nothing)
    async with asyncio.timeout(100):
        good = await connecting.check(Settings(tools_file=path), lambda *line: told.append(line))
    assert not good
    assert told == [
        ("tools", "ok: good: 1 tools (protocol 2026-07-28)"),
        ("tools", "WRONG: bad: there is no such program"),
    ]


@pytest.mark.parametrize("with_file", [True, False])
def test_nothing_of_the_package_is_imported_where_no_server_is_configured(tmp_path: Path, with_file: bool) -> None:
    """Without a tools file, the modules that read and check schemas are not imported either: both are slow to
    import.
    """
    path = tmp_path / "tools.toml"
    path.write_text('[[tool]]\nname = "t"\ndescription = "d"\nurl = "https://h.example/"\n')
    unwanted = {"mcp", "mcp_types", "starlette"} | (set() if with_file else {"jsonschema_rs", "jsonschema"})
    script = (
        "import asyncio, sys, chatstream.server\nfrom pathlib import Path\nfrom chatstream.settings import Settings\n"
        "from chatstream.tools.configuration import configured_tools\n"
        "async def main():\n"
        f"    settings = Settings(tools_file=Path({str(path)!r}) if {with_file} else None)\n"
        "    async with configured_tools(settings, []) as tools:\n"
        f"        there = [name for name in sys.modules if name.partition('.')[0] in {unwanted}]\n"
        "        print(len(tools.offered), there)\n"
        "asyncio.run(main())"
    )
    told = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == f"{int(with_file)} []"
