"""The npm package: its units under Node.js' own test runner, its types, and what is packed."""

import json
import subprocess
from pathlib import Path

import pytest

import chatstream
from chatstream.handlers.assets import CLIENT
from tests.support import node


@pytest.fixture(autouse=True)
def _packages() -> None:
    node.install()


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=node.CLIENTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", sorted(path.name for path in node.CLIENTS.glob("*.test.mjs")))
def test_its_units(script: str) -> None:
    run(*node.command(script))


def test_its_types() -> None:
    run(*node.command("node_modules/typescript/bin/tsc"))


def test_it_has_the_servers_version_and_nothing_but_what_is_served() -> None:
    package = json.loads((node.PACKAGE / "package.json").read_text())
    assert package["version"] == chatstream.__version__
    (packed,) = json.loads(node.npm("pack", "--dry-run", "--json", cwd=node.PACKAGE))
    assert {file["path"] for file in packed["files"]} == {"package.json", "README.md", *CLIENT}


def test_an_import_finds_what_is_exported(tmp_path: Path) -> None:
    """Packed, unpacked and imported by name, as somebody else's program does it."""
    (packed,) = json.loads(node.npm("pack", "--json", "--pack-destination", str(tmp_path), cwd=node.PACKAGE))
    modules = tmp_path / "node_modules"
    (modules / "chatstream").mkdir(parents=True)
    (modules / "react").symlink_to(node.CLIENTS / "node_modules" / "react")
    run("tar", "-xf", str(tmp_path / packed["filename"]), "-C", str(modules / "chatstream"), "--strip-components=1")
    program = tmp_path / "program.mjs"
    program.write_text(
        'import { ChatStream } from "chatstream"; import { useChatSSE } from "chatstream/use-chat-sse";'
        "new ChatStream({ conversationId: 'c', token: 't' }); if (!useChatSSE) process.exit(1);"
    )
    run(*node.command(str(program)))
