"""Clients made by code generators from the server's document: their types are right, and their calls work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support import node
from tests.support.client import Client
from tests.support.upstream import Upstream, answer

# Timeout in seconds. The programs take a few seconds; on a busy machine more.
PATIENCE = 100
EXPECTED = {"content": "Hello.", "first": "Hello.", "status": 404}

PYTHON_PROGRAM = """
import json
import sys

from chatstream_client import AuthenticatedClient
from chatstream_client.api.conversations import create_conversation, get_conversation
from chatstream_client.api.messages import post_message
from chatstream_client.models import NewConversation, NewConversationView, NewMessage, PostedMessage

url, token = sys.argv[1:]
with AuthenticatedClient(url, token) as client:
    created = create_conversation.sync(client=client, body=NewConversation())
    assert isinstance(created, NewConversationView)
    posted = post_message.sync(created.id, client=client, body=NewMessage(content="Hello."))
    assert isinstance(posted, PostedMessage)
    missing = get_conversation.sync_detailed("nobody", client=client)
    assert not isinstance(missing.parsed, PostedMessage)
    cursor: str = posted.stream_cursor
    print(json.dumps({"content": posted.content, "first": bool(cursor), "status": missing.status_code}))
"""

pytestmark = pytest.mark.timeout(300)


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command; returns its output."""
    result = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture
def project(tmp_path: Path, client: Client) -> Path:
    """A directory for a program, with the OpenAPI document."""
    (tmp_path / "openapi.json").write_text(httpx.get(f"{client.url}/openapi.json").text)
    return tmp_path


@pytest.fixture
def typescript(project: Path) -> Path:
    """A directory with the TypeScript programs and a link to their packages."""
    node.install(node.GENERATORS)
    for name in ("tsconfig.json", "package.json", "openapi_fetch.ts", "hey_api.ts"):
        (project / name).write_text((node.GENERATORS / name).read_text())
    (project / "node_modules").symlink_to(node.GENERATORS / "node_modules")
    return project


@pytest.mark.gen_test
async def test_openapi_typescript_with_openapi_fetch_and_hey_api(
    typescript: Path, client: Client, upstream: Upstream
) -> None:
    upstream.reply(answer("Yes."))
    generated, packages = typescript / "generated", node.GENERATORS / "node_modules"
    generated.mkdir()
    run(
        *node.command(f"{packages}/openapi-typescript/bin/cli.js", "openapi.json", "-o", "generated/openapi_fetch.ts"),
        cwd=typescript,
    )
    run(
        *node.command(f"{packages}/@hey-api/openapi-ts/bin/run.js", "-i", "openapi.json", "-o", "generated/hey_api"),
        cwd=typescript,
    )
    run(*node.command(f"{packages}/typescript/bin/tsc", "-p", "."), cwd=typescript)
    said = run(*node.command(str(typescript / "openapi_fetch.ts"), client.url, client.token), cwd=typescript)
    assert json.loads(said) == EXPECTED


@pytest.mark.gen_test
async def test_openapi_python_client(project: Path, client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Yes."))
    tools = Path(sys.executable).parent
    said = run(
        tools / "openapi-python-client",
        *("generate", "--path", "openapi.json", "--output-path", "generated", "--fail-on-warning"),
        cwd=project,
        PATH=f"{tools}:{os.environ['PATH']}",  # it formats with the first ruff on the PATH
    )
    assert "arning" not in said
    program = project / "program.py"
    program.write_text(PYTHON_PROGRAM)
    package = {"MYPYPATH": str(project / "generated"), "PYTHONPATH": str(project / "generated")}
    run(sys.executable, "-m", "mypy", "--strict", "--config-file=", program, cwd=project, **package)
    said = run(sys.executable, program, client.url, client.token, cwd=project, **package)
    assert json.loads(said) == EXPECTED | {"first": True}
