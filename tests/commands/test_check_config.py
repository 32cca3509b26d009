"""check-config --connect: it connects to a real database and a real endpoint, and reports faults with advice."""

import asyncio
import contextlib
import os
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import trustme
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, NetworkTimeout, PyMongoError, ServerSelectionTimeoutError

from chatstream.commands import connecting
from chatstream.settings import Settings
from chatstream.store.diagnosis import try_out, why_not
from chatstream.store.embedded import find_mongod
from chatstream.store.mongo import Mongo
from tests.conftest import NameProxies
from tests.support.endpoint import endpoint as model_endpoint
from tests.support.listening import listening
from tests.support.processes import SECRET, ServerProcess, chatstream, free_port


@pytest.fixture
def lone_mongod(tmp_path: Path) -> Iterator[int]:
    """Run a mongod for the replica set rs0, which is not initiated; yields its port."""
    port = free_port()
    (tmp_path / "db").mkdir()
    process = subprocess.Popen(
        [
            *(find_mongod(), "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket", "--quiet"),
            *("--dbpath", str(tmp_path / "db"), "--replSet", "rs0", "--oplogSize", "64"),
            *("--wiredTigerCacheSizeGB", "0.25", "--setParameter", "diagnosticDataCollectionEnabled=false"),
        ],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    with MongoClient[dict[str, object]]("127.0.0.1", port, directConnection=True) as client:
        client.admin.command("ping")
    yield port
    process.kill()
    process.wait(60)


def initiate(port: int, host: str = "127.0.0.1") -> None:
    with MongoClient[dict[str, object]]("127.0.0.1", port, directConnection=True) as client:
        members = [{"_id": 0, "host": f"{host}:{port}"}]
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})


def check(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    production = {"CHATSTREAM_ENV": "production", "JWT_SECRET": SECRET}
    return chatstream(directory, "check-config", "--connect", **production | environment)


def line(output: str, name: str) -> str:
    """The result of a check: the last line that begins with its name."""
    return [line for line in output.splitlines() if line.startswith(f"{name} ")][-1]


@pytest.fixture
def endpoint() -> Iterator[str]:
    with model_endpoint() as url:
        yield url


def test_all_is_well(tmp_path: Path, mongodb_uri: str, endpoint: str) -> None:
    told = check(
        tmp_path, MONGODB_URI=mongodb_uri, OPENAI_BASE_URL=endpoint, OPENAI_API_KEY="sk-1", MONGODB_DATABASE="ask"
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "ok: a transaction and a change stream work" in line(told.stdout, "database")
    assert "ok: it answers" in line(told.stdout, "model")
    assert "ok: " in line(told.stdout, "tokens")
    assert SECRET not in told.stdout + told.stderr
    with MongoClient[dict[str, object]](mongodb_uri) as client:
        assert client.ask.conversations.count_documents({}) == 0


@pytest.mark.gen_test
async def test_a_database_that_does_not_answer_is_told_apart(lone_mongod: int, tmp_path: Path) -> None:
    there, nobody = f"127.0.0.1:{lone_mongod}", f"127.0.0.1:{free_port()}"
    assert await why_not(f"mongodb://{nobody}/?replicaSet=rs0") == f"nobody listens at {nobody}"
    assert await why_not("mongodb://no-such-host.invalid/") == "the name no-such-host.invalid is not known here"
    said = await why_not(f"mongodb://u:hunter2@{there}/?replicaSet=rs0")
    assert said == (
        f"{there} answers, but its replica set is not initiated: run once: mongosh --port {lone_mongod} --eval "
        "'rs.initiate()'"
    )
    assert "does not speak TLS as MONGODB_URI asks" in await why_not(f"mongodb://{there}/?tls=true")
    await asyncio.to_thread(initiate, lone_mongod)
    said = await why_not(f"mongodb://{there}/?replicaSet=rs9")
    assert said == f"{there} is in the set rs0, not rs9: write replicaSet=rs0 in MONGODB_URI"


@pytest.mark.parametrize("error", [NetworkTimeout, AutoReconnect, ServerSelectionTimeoutError])
@pytest.mark.gen_test
async def test_a_database_that_is_too_slow_is_told_in_words(mongodb_uri: str, error: type[PyMongoError]) -> None:
    class Slow:
        async def check(self) -> None:
            raise error("timed out")

    slow = cast("Mongo", Slow())
    assert "takes too long" in str(await try_out(slow, mongodb_uri, "any"))
    nobody = f"mongodb://127.0.0.1:{free_port()}/?replicaSet=rs0"
    assert "nobody listens at" in str(await try_out(slow, nobody, "any"))


@pytest.mark.gen_test
async def test_a_database_that_is_slow_at_first_is_asked_again(mongodb_uri: str) -> None:
    class SlowAtFirst(Mongo):
        asked = 0

        async def check(self) -> None:
            self.asked += 1
            if self.asked == 1:
                raise NetworkTimeout("timed out")
            await super().check()

    # Creating a collection on a busy disk may take longer than the time limit of an operation, so create it first.
    usual = Mongo(mongodb_uri, "any")
    await usual.prepare()
    usual.close()
    mongo = SlowAtFirst(mongodb_uri, "any")
    try:
        # On a busy machine it may be slow by itself, too.
        assert await try_out(mongo, mongodb_uri, "any", tries=20) is None
    finally:
        mongo.close()


@pytest.mark.gen_test
async def test_what_listens_there_may_be_no_database() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with listening(silent) as port:
        assert "is it a MongoDB at all?" in await why_not(f"mongodb://127.0.0.1:{port}/")


def test_a_server_that_waits_says_for_what_and_starts_when_it_is_there(lone_mongod: int, tmp_path: Path) -> None:
    environment = {
        "CHATSTREAM_ENV": "production",
        "JWT_SECRET": SECRET,
        "MONGODB_URI": f"mongodb://127.0.0.1:{lone_mongod}/waits?replicaSet=rs0",
        "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
    }
    server = ServerProcess(tmp_path, environment).start()
    try:
        deadline = time.monotonic() + 60
        while "is not initiated" not in server.log and time.monotonic() < deadline:
            time.sleep(0.1)  # the log is a file: nothing says when a line comes
        assert f"127.0.0.1:{lone_mongod} answers, but its replica set is not initiated" in server.log
        initiate(lone_mongod)
        server.wait_until_ready()
    finally:
        assert server.stop() == 0
    with MongoClient[dict[str, object]]("127.0.0.1", lone_mongod, directConnection=True) as client:
        assert "waits" in client.list_database_names()  # as the path of the URI has it


@pytest.mark.parametrize(
    ("changed", "mend"),
    [
        ({"OPENAI_API_KEY": "sk-hunter2"}, "is OPENAI_API_KEY right?"),
        ({"OPENAI_BASE_URL": "/v1"}, "it usually ends in /v1"),
        ({"OPENAI_MODEL": "gpt-99"}, "gpt-99 is not in its list of models, which has gpt-4, gpt-5: set OPENAI_MODEL"),
    ],
)
def test_a_model_that_refuses(
    tmp_path: Path, mongodb_uri: str, endpoint: str, changed: dict[str, str], mend: str
) -> None:
    if "OPENAI_BASE_URL" in changed:  # the usual mistake
        changed = {"OPENAI_BASE_URL": endpoint.removesuffix(changed["OPENAI_BASE_URL"])}
    good = {"MONGODB_URI": mongodb_uri, "OPENAI_BASE_URL": endpoint, "OPENAI_API_KEY": "sk-1"}
    told = check(tmp_path, **good | changed)
    assert told.returncode == 1
    assert "WRONG" in line(told.stdout, "model")
    assert mend in line(told.stdout, "model")
    assert "hunter2" not in told.stdout + told.stderr
    assert "Traceback" not in told.stderr


def test_keys_and_a_database_that_are_not_there(tmp_path: Path, endpoint: str) -> None:
    port = free_port()
    told = check(
        tmp_path,
        JWT_SECRET="",
        CHATSTREAM_JWKS_URL=f"http://127.0.0.1:{port}/keys",
        CHATSTREAM_JWT_ALGORITHMS="RS256",
        MONGODB_URI=f"mongodb://u:hunter2@127.0.0.1:{port}/?replicaSet=rs0",
        OPENAI_BASE_URL=endpoint,
        OPENAI_API_KEY="sk-1",
    )
    assert told.returncode == 1
    assert "WRONG: CHATSTREAM_JWKS_URL: the keys cannot be had" in line(told.stdout, "tokens")
    assert f"GET http://127.0.0.1:{port}/keys: nobody listens there" in line(told.stdout, "tokens")
    assert f"WRONG: nobody listens at 127.0.0.1:{port}" in line(told.stdout, "database")
    assert told.stderr == ""  # one line each
    assert "hunter2" not in told.stdout + told.stderr


def response(status: str, kind: str, body: str = "", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}"
    return f"{head}\r\n{body}".encode()


# By name: the response to any request at `/NAME/…`, and the expected messages about a model and about keys there.
ODD: dict[str, tuple[bytes, str, str]] = {
    "401": (response("401 Unauthorized", "text/plain"), "HTTP 401; is OPENAI_API_KEY right?", "HTTP 401: whoever asks"),
    "403": (
        response("403 Forbidden", "text/html", "<html>"),
        "HTTP 403; is OPENAI_API_KEY right?",
        "HTTP 403: it is not",
    ),
    "404": (
        response("404 Not Found", "text/plain"),
        "is OPENAI_BASE_URL right (it usually ends in /v1)",
        "HTTP 404: is the",
    ),
    "html": (
        response("200 OK", "text/html", "<!doctype html><p>Hi"),
        "a web page instead of an answer. Check OPENAI_BASE_URL",
        "it is a web page, and no JWK Set",
    ),
    "302": (
        response("302 Found", "text/html", more="Location: https://login.example/\r\n"),
        "a redirect, HTTP 302. Redirects are not followed: set OPENAI_BASE_URL",
        "HTTP 302: it redirects, which is not followed",
    ),
    "429": (
        response("429 Too Many", "application/json", '{"error": {"code": "insufficient_quota"}}'),
        "The account of OPENAI_API_KEY has no credit",
        "HTTP 429",
    ),
    "502": (
        response("502 Bad Gateway", "text/html", "<html>"),
        "HTTP 502; is there an OpenAI-compatible API",
        "HTTP 502",
    ),
    "closes": (b"", "it hangs up without an answer; does it want https://", "it hangs up without an answer"),
    "ssh": (b"SSH-2.0-OpenSSH_9.6\r\n", "what answers there is no HTTP", "it hangs up without an answer"),
}


@pytest.mark.gen_test
async def test_why_a_model_or_the_keys_cannot_be_had_is_said_in_our_words(
    proxies: NameProxies, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            if length := re.search(rb"content-length: (\d+)", head.lower()):
                await reader.readexactly(int(length[1]))
            writer.write(ODD[head.split(b"/")[1].decode()][0])
            await writer.drain()
        writer.close()

    proxies()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hunter2")
    monkeypatch.setenv("CHATSTREAM_JWT_ALGORITHMS", "RS256")
    monkeypatch.setenv("CHATSTREAM_MODEL_RETRIES", "0")
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost", "127.0.0.1").configure_cert(ours)
    async with (
        await asyncio.start_server(odd, "127.0.0.1", 0) as plain,
        await asyncio.start_server(odd, "127.0.0.1", 0, ssl=ours) as behind_tls,
    ):
        port, secure = (server.sockets[0].getsockname()[1] for server in (plain, behind_tls))
        nobody = free_port()
        trusted = "its certificate is of nobody who is trusted here"
        right = "; is OPENAI_BASE_URL right, and does it run?"
        cases = {f"http://127.0.0.1:{port}/{name}": (model, keys) for name, (_, model, keys) in ODD.items()} | {
            f"http://127.0.0.1:{nobody}": (f"nobody listens there{right}", "nobody listens there"),
            f"http://127.0.0.1:{secure}": ("it hangs up without an answer; does it want https://", "it hangs up"),
            f"https://127.0.0.1:{secure}": (trusted, trusted),
            "https://no-such-host.invalid": (f"no host has this name{right}", "no host has this name"),
        }
        for address, (model, keys) in cases.items():
            monkeypatch.setenv("OPENAI_BASE_URL", f"{address}/v1")
            monkeypatch.setenv("CHATSTREAM_JWKS_URL", f"{address}/keys?key=hunter2")
            told: dict[str, str] = {}
            assert not await connecting.check(Settings.load(os.environ, None), told.__setitem__)
            assert told["model"].startswith("WRONG: ")
            assert f"{address}/v1" in told["model"]
            assert model in told["model"], told
            assert told["tokens"].startswith(
                f"WRONG: CHATSTREAM_JWKS_URL: the keys cannot be had: GET {address}/keys: "
            )
            assert keys in told["tokens"], told
            for text in told.values():
                assert "hunter2" not in text
                assert not re.search(r"Error\b|Exception|Errno|\n", text), text
    assert caplog.text == ""


def test_each_model_of_a_catalogue_is_asked(tmp_path: Path, endpoint: str) -> None:
    (tmp_path / "models.toml").write_text(
        f'[[models]]\nname = "Good"\nmodel = "gpt-4"\nbase_url = "{endpoint}"\nkey = "GOOD_KEY"\n'
        'fallbacks = ["Other"]\n'
        f'[[models]]\nname = "Bad"\nmodel = "gpt-4"\nbase_url = "{endpoint}"\nkey = "BAD_KEY"\n'
        f'[[models]]\nname = "Other"\nmodel = "gpt-99"\nbase_url = "{endpoint}"\nkey = "GOOD_KEY"\n'
    )
    told = check(
        tmp_path,
        MONGODB_URI=f"mongodb://127.0.0.1:{free_port()}/?replicaSet=rs0",
        CHATSTREAM_MODELS_FILE="models.toml",
        GOOD_KEY="sk-1",
        BAD_KEY="sk-hunter2",
    )
    assert told.returncode == 1
    lines = [line.removeprefix("model     ") for line in told.stdout.splitlines() if line.startswith("model ")]
    assert lines[:2] == [
        "those of models.toml",
        f"Good: gpt-4 at {endpoint}, key in GOOD_KEY, then Other, the default",
    ]
    assert "ok: Good: it answers; its list of models has it" in lines
    assert any("WRONG: Bad: " in line and line.endswith("is BAD_KEY right?") for line in lines)
    assert any("WRONG: Other: " in line and line.endswith("set its model") for line in lines)
    assert "hunter2" not in told.stdout + told.stderr


def test_the_tools_are_told_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    file = tmp_path / "tools.toml"
    file.write_text(
        '[[tool]]\nname = "pick"\ndescription = "d"\nwhere = "client"\n'
        '[[tool]]\nname = "look"\ndescription = "d"\nurl = "https://h.example/t?key=hunter2"\neffect = "none"\n'
        'headers = { X-Key = "${SHOP_TOKEN}" }\n'
    )
    settings = {"CHATSTREAM_ENV": "development", "CHATSTREAM_TOOLS_FILE": "tools.toml"}
    told = check(tmp_path, SHOP_TOKEN="sk-hunter2", **settings)
    assert told.returncode == 0, told.stderr
    assert (
        line(told.stdout, "tool").split(" ", 1)[1].strip() == "look: POST https://h.example/t, effect none, asks nobody"
    )
    assert "tool      pick: the app answers within 600 s, asks nobody" in told.stdout
    assert "hunter2" not in told.stdout + told.stderr
    told = check(tmp_path, CHATSTREAM_REVOCATION="nowhere:nothing", **settings)
    assert told.returncode == 2
    assert 'tool "look": headers.X-Key: the environment variable SHOP_TOKEN is not set' in told.stderr
    assert "CHATSTREAM_REVOCATION: " in told.stderr  # all at once
    file.write_text(file.read_text().replace('"look"', '"recommend_bet"').replace("${SHOP_TOKEN}", "x"))
    told = check(tmp_path, **settings)
    assert told.returncode == 2
    assert (
        "the tool recommend_bet of CHATSTREAM_TOOLS_FILE has the same name as one of chatstream.plugins" in told.stderr
    )
