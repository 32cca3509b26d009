"""The command line, as whoever starts the server sees it."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chatstream import __version__
from tests.conftest import StartServer
from tests.support.processes import REPOSITORY

SECRET = "0123456789abcdef0123456789abcdef"
PRODUCTION = {
    "CHATSTREAM_ENV": "production",
    "JWT_SECRET": SECRET,
    "MONGODB_URI": "mongodb://user:the-password@127.0.0.1:1/",
    "OPENAI_API_KEY": "sk-the-key",
}

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``python -m chatstream`` in an empty directory, with these variables and no others."""

    def run(*arguments: str, **variables: str) -> Result:
        inherited = {
            name: value for name, value in os.environ.items() if name == "PATH" or name.startswith(("COVERAGE", "COV_"))
        }
        return subprocess.run(
            [sys.executable, "-m", "chatstream", *arguments],
            cwd=tmp_path,
            env={**inherited, "PYTHONPATH": str(REPOSITORY), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_help_says_what_there_is(run: Run) -> None:
    result = run("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for word in ("serve", "check-config", "--version", "conf/chatstream.env.example"):
        assert word in result.stdout


def test_version(run: Run) -> None:
    result = run("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"chatstream {__version__}\n", "")
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


@pytest.mark.parametrize("arguments", [("bogus",), ("--bogus",), ("serve", "3000")])
def test_what_there_is_not_is_a_usage_error(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: chatstream")


@pytest.mark.parametrize("variables", [{}, PRODUCTION])
def test_a_good_configuration_is_said_to_be(run: Run, tmp_path: Path, variables: dict[str, str]) -> None:
    result = run("check-config", **variables)
    assert (result.returncode, result.stdout, result.stderr) == (0, "The configuration is valid.\n", "")
    assert not [*tmp_path.iterdir()]  # it only looks


@pytest.mark.parametrize("command", ["check-config", "serve", ""])
def test_everything_wrong_with_the_configuration_is_said_at_once(run: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / ".env").write_text("CHATSTREAM_PORT=http\nJWT_SECRET=short-secret\n")
    result = run(*filter(None, [command]), CHATSTREAM_PROT="1", DATABASE_URL="postgres://user:the-password@db")
    assert (result.returncode, result.stdout) == (1, "")
    heading, *lines = result.stderr.splitlines()
    assert heading == "The configuration is not valid:"
    assert [line.strip().split(":")[0] for line in sorted(lines)] == [
        "CHATSTREAM_PORT",
        "CHATSTREAM_PROT",
        "JWT_SECRET",
        "MONGODB_URI (or its alias DATABASE_URL)",
    ]
    assert "short-secret" not in result.stderr
    assert "the-password" not in result.stderr


def test_production_without_secrets_does_not_start(run: Run) -> None:
    result = run(CHATSTREAM_ENV="production")
    assert (result.returncode, result.stdout) == (1, "")
    for name in ("JWT_SECRET", "MONGODB_URI", "OPENAI_API_KEY"):
        assert name in result.stderr
    assert "Traceback" not in result.stderr


def test_a_port_in_use_is_said_plainly(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = run(CHATSTREAM_PORT=port, **PRODUCTION)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"127.0.0.1:{port}" in result.stderr
    assert "CHATSTREAM_PORT" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_host_that_is_not_ours_is_said_plainly(run: Run) -> None:
    # 192.0.2.0/24 is for documentation (RFC 5737): nobody has it.
    result = run(CHATSTREAM_HOST="192.0.2.1", **PRODUCTION)
    assert result.returncode == 1
    assert "192.0.2.1" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_database_address_that_cannot_be_read_is_said_without_its_password(run: Run) -> None:
    uri = "mongodb://user:the-p@ssword@127.0.0.1/"
    result = run(**PRODUCTION | {"MONGODB_URI": uri, "CHATSTREAM_PORT": "0"})
    assert result.returncode == 1
    assert "MONGODB_URI" in result.stderr
    assert "ssword" not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_data_directory_that_cannot_be_written_is_said_plainly(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run(CHATSTREAM_DATA_DIR=str(tmp_path / "file" / "data"), CHATSTREAM_PORT="0")
    assert result.returncode == 1
    assert "CHATSTREAM_DATA_DIR" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_started_server_says_where_it_is(start_server: StartServer) -> None:
    server = start_server()
    assert server.stop() == 0
    assert f"http://localhost:{server.port}/" in server.output
    assert SECRET not in server.output
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert [line["message"] for line in lines if line["logger"] == "chatstream.server"] == [
        f"chatstream {__version__} listens on 127.0.0.1:{server.port}",
        "stopping; a running answer has 30 s to finish",
    ]


def test_in_production_it_prints_nothing(start_server: StartServer) -> None:
    server = start_server(CHATSTREAM_ENV="production")
    assert server.stop() == 0
    assert server.output == ""
