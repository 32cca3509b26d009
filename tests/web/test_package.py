"""The npm package: its unit tests with Node.js' test runner, its types, and its packed files."""

import json
import re
import subprocess
from pathlib import Path

import pytest

import chatstream
from chatstream.handlers.assets import CLIENT
from tests.scenarios.test_use_chat import VERSIONS
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


def check_types(directory: Path, example: str, **packages: str) -> None:
    """Check types in the strictest mode; of other packages only the used parts. `packages` replace others."""
    modules = node.CLIENTS / "node_modules"
    paths = {name: [str(path)] for name, path in packages.items()} | {
        "chatstream": [f"{node.PACKAGE}/chatstream.d.ts"],
        "chatstream/*": [f"{node.PACKAGE}/*"],
        "react": [f"{modules}/@types/react"],
        "react/*": [f"{modules}/@types/react/*"],
        "react-native-sse": [f"{modules}/react-native-sse"],
        "react-native": [f"{node.CLIENTS}/react-native.d.ts"],
    }
    strict = {"noUncheckedIndexedAccess": True, "noPropertyAccessFromIndexSignature": True, "noUnusedLocals": True}
    project = {
        "extends": f"{node.CLIENTS}/tsconfig.json",
        "compilerOptions": {**strict, "skipLibCheck": True, "paths": paths},
        "files": [f"{node.PACKAGE}/examples/{example}"],
    }
    (directory / "tsconfig.json").write_text(json.dumps(project))
    run(*node.command("node_modules/typescript/bin/tsc", "-p", str(directory)))


@pytest.mark.parametrize("example", ["use-chat-sse.tsx", "use-chat-sse.native.tsx"])
def test_the_types_of_its_examples(tmp_path: Path, example: str) -> None:
    check_types(tmp_path, example)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_types_of_its_example_for_the_ai_sdk(tmp_path: Path, version: str) -> None:
    modules = node.CLIENTS / "node_modules"
    packages = {"ai": f"{modules}/ai-{version}", "@ai-sdk/react": f"{modules}/ai-react-{version}"}
    check_types(tmp_path, "use-chat.tsx", **packages)


@pytest.mark.parametrize("readme", ["README.md", "chatstream/web/README.md"])
def test_what_the_readme_shows_stands_in_an_example(readme: str) -> None:
    """Each line of the README's code is in a tested example, apart from its indentation."""
    repository = node.PACKAGE.parents[1]
    examples = [lines(path.read_text()) for path in (node.PACKAGE / "examples").iterdir()]
    snippets = re.findall(r"^```[jt]sx?\n(.+?)^```", (repository / readme).read_text(), re.DOTALL | re.MULTILINE)
    assert snippets
    for snippet in snippets:
        assert any(lines(snippet) in example for example in examples), snippet


def lines(text: str) -> str:
    return "".join(f"{line.strip()}\n" for line in text.splitlines())


def test_it_has_the_servers_version_and_nothing_but_what_is_served() -> None:
    package = json.loads((node.PACKAGE / "package.json").read_text())
    assert package["version"] == chatstream.__version__
    (packed,) = json.loads(node.npm("pack", "--dry-run", "--json", cwd=node.PACKAGE))
    examples = {f"examples/{path.name}" for path in (node.PACKAGE / "examples").iterdir()}
    assert {file["path"] for file in packed["files"]} == {"package.json", "README.md", "LICENSE", *CLIENT, *examples}
    assert (node.PACKAGE / "LICENSE").read_bytes() == (node.PACKAGE.parents[1] / "LICENSE").read_bytes()


def test_a_server_component_of_next_may_name_the_hook() -> None:
    """Next reads the first statement of a file."""
    assert (node.PACKAGE / "use-chat-sse.js").read_text().splitlines()[0] == '"use client";'


def test_an_import_finds_what_is_exported(tmp_path: Path) -> None:
    """The package is packed, unpacked and imported by name, as in another program."""
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
