"""From an empty environment to the first streamed token, by the README's commands."""

import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.support.endpoint import endpoint
from tests.support.processes import REPOSITORY, ServerProcess, free_port
from tests.support.replica_set import ReplicaSet

pytestmark = pytest.mark.xdist_group("installation")  # these tests share an installation


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` directory of an environment with the installed program; its dependencies come from this environment."""
    directory = tmp_path_factory.mktemp("installed")
    source = directory / "source"
    for name in ("pyproject.toml", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, source)
    shutil.copytree(REPOSITORY / "chatstream", source / "chatstream", ignore=shutil.ignore_patterns("__pycache__"))
    venv.create(directory / "venv", with_pip=False)
    site = next((directory / "venv" / "lib").glob("python3*")) / "site-packages"
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    python = directory / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", source)
    subprocess.run(pip, check=True, timeout=100, cwd=directory)
    return directory / "venv" / "bin"


def test_production_with_a_replica_set_of_ones_own(installed: Path, tmp_path: Path) -> None:
    environment = {"PATH": f"{installed}:{os.environ['PATH']}"}

    def told(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    file, port = tmp_path / "chatstream.env", free_port()
    file.write_text(told("chatstream", "settings"))
    with ReplicaSet(tmp_path / "mongo") as replica_set, endpoint() as model, file.open("a") as settings:
        print("CHATSTREAM_ENV=production", f"JWT_SECRET={'0123456789abcdef' * 2}", sep="\n", file=settings)
        print(f"MONGODB_URI={replica_set.uri.replace('/?', '/shop?')}", file=settings)
        print("OPENAI_API_KEY=sk-1", f"OPENAI_BASE_URL={model}", sep="\n", file=settings, flush=True)
        assert "WRONG" not in told("chatstream", "check-config", "--connect", "--env-file", "chatstream.env")
        command = (str(installed / "chatstream"), "serve", "--port", str(port), "--env-file", "chatstream.env")
        server = ServerProcess(tmp_path, {"PYTHONPATH": ""}, port, command).start().wait_until_ready()
        try:
            token = told("chatstream", "token", "--env-file", "chatstream.env", "--user", "ada").strip()
            api, bearer = f"{server.url}/api/v1/chat/conversations", f"Authorization: Bearer {token}"
            body = '{"id": "first", "initialMessage": "Who wins on Sunday?"}'
            told(
                "curl", "-sS", "-f", "-X", "POST", "-H", bearer, "-H", "Content-Type: application/json", "-d", body, api
            )
            streamed = told("curl", "-sS", "-f", "-N", "-H", bearer, f"{api}/first/stream?once=true")
            assert '"type":"llm_complete"' in streamed
            assert '"content":"ok"' in streamed
        finally:
            assert server.stop() == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix not in (".log", ".out")) == [
        "chatstream.env",
        "mongo",
    ]


# Usual first mistakes, and the part of the advice that must be printed.
MISTAKES = {
    "CHATSTREAM_ENV=prod": "production",
    "JWT_SECRET=short": "openssl rand",
    "MONGODB_URI=mongo://localhost/shop": "mongodb://",
    "OPENAI_BASE_URL=https://api.openai.com/v1/chat/completions": "leave out /chat/completions",
    "OPENAI_MODLE=gpt-4o": "did you mean OPENAI_MODEL?",
    "CHATSTREAM_PORT=eighty": "whole number",
    "CHATSTREAM_HEARTBEAT_INTERVAL=1h": "without a unit",
    "CHATSTREAM_CORS_ORIGINS=https://shop.example/app": "without a path",
    "CHATSTREAM_PLUGINS=my_shop:plugin": "my_shop.py must be in the directory",
    "CHATSTREAM_MODELS_FILE=models.toml": "does not exist",
    "CHATSTREAM_LOGIN_URL=shop.example/login": "https://",
}


def test_mistakes_on_the_way_are_each_explained_in_a_line(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "chatstream.env").write_text("\n".join([*MISTAKES, "OPENAI_API_KEY=sk-1"]))
    done = subprocess.run(
        [installed / "chatstream", "check-config", "--env-file", "chatstream.env"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    heading, *lines = done.stderr.splitlines()
    assert heading == "The configuration is not valid:"
    said = {line.split()[0].rstrip(":"): line for line in lines}
    assert len(said) == len(lines) == len(MISTAKES)
    for mistake, mend in MISTAKES.items():
        assert mend in said[mistake.partition("=")[0]]
    assert [path.name for path in tmp_path.iterdir()] == ["chatstream.env"]


def test_without_a_database_nothing_is_made(installed: Path, tmp_path: Path) -> None:
    """If no mongod is found, the command names the package to install, and leaves no directory behind."""
    hidden = "import sys; sys.modules['fiftyone'] = None; from chatstream.__main__ import main; sys.exit(main([]))"
    environment = {"PATH": str(tmp_path / "nowhere")}
    done = subprocess.run(
        [installed / "python", "-c", hidden], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "pip install '.[embedded]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert [*tmp_path.iterdir()] == []
