"""After an erasure: a dump of the database, all logs and, once they are written anew, the database's files have no
byte of the user's words, ids or names."""

import asyncio
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from chatstream.store.seeding import _running
from tests.conftest import MakeClient, StartServer
from tests.support.client import API
from tests.support.upstream import Upstream, answer, whole

USER = "zebedee.quixote@example.com"
WORDS = "zebedeequixote"
# The texts and names that a user can write.
TITLE, PROMPT, QUESTION, ANSWER = (f"{WORDS} {place}" for place in ("title", "prompt", "question", "answer"))
CONVERSATION = f"{WORDS}-conversation"


@pytest.mark.gen_test
async def test_nothing_of_a_user_is_left_in_the_database_or_in_any_log(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path
) -> None:
    server = start_server(
        MONGODB_URI="",
        MONGODB_DATABASE="mine",
        CHATSTREAM_LOG_LEVEL="DEBUG",
        CHATSTREAM_USER_TOKENS_PER_MONTH="1000000",
    )
    client, other = make_client(server, USER), make_client(server)
    upstream.reply(answer("Somebody else's answer."))
    await other.answer(await other.create(id="another", initialMessage="Somebody else's question."))
    upstream.reply(answer(ANSWER))
    await client.create(id=CONVERSATION, title=TITLE, systemPrompt=PROMPT, model="some/model")
    async with client.stream(CONVERSATION, params={"access_token": client.token}) as watched:
        await client.post(CONVERSATION, QUESTION, headers={"Idempotency-Key": f"{WORDS}-key"})
        await watched.until("llm_complete")
    upstream.reply(whole("400 Bad Request", {"error": {"message": f"you said: {QUESTION}"}}))
    await client.post(CONVERSATION, QUESTION)
    await client.answer(CONVERSATION)
    # Invalid requests are logged, too.
    await client.http.get(f"{API}/{WORDS}")
    await client.http.get(f"{API}/{USER}/messages")
    await client.http.get(f"{API}/{CONVERSATION}/messages", params={"before": WORDS})
    await client.http.post(f"{API}/{CONVERSATION}/stop")
    await client.http.post(f"{API}/{CONVERSATION}/stream-tickets")
    await client.http.post(f"{API}/{CONVERSATION}/messages", content=f'{{"content": {WORDS}')
    await client.http.get(f"{API}/{CONVERSATION}/stream", params={"ticket": WORDS})
    await client.http.get("/api/v1/chat/me/export")
    uri = await _running(tmp_path / "var")
    assert uri is not None
    assert WORDS in await asyncio.to_thread(dump, uri)

    receipt = await client.http.delete("/api/v1/chat/me")
    assert (receipt.status_code, receipt.json()["status"]) == (200, "complete")
    left = await asyncio.to_thread(dump, uri)
    assert "erased-" in left  # the account: a user who returns gets no new budget
    server.stop()
    written = {path.name: path.read_text(errors="replace") for path in tmp_path.rglob("*.log*")}
    assert {server.log_path.name, "mongod.log"} <= {*written}
    for name, text in {"the database": left, "output": server.output, **written}.items():
        for secret in (USER, WORDS, "zebedee", hashlib.sha256(USER.encode()).hexdigest()):
            assert secret not in text.lower(), (name, secret)
    # MongoDB's files still contain the deleted data, until they are rewritten.
    data = tmp_path / "var"
    assert await asyncio.to_thread(files_with, data, b"zebedee")
    refused = await asyncio.to_thread(scrub, server._environment | {"MONGODB_URI": "mongodb://db.test"}, tmp_path)
    assert (refused.returncode, "of your own" in refused.stderr) == (1, True)
    done = await asyncio.to_thread(scrub, server._environment, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert await asyncio.to_thread(files_with, data, b"zebedee") == []
    assert sorted(path.name for path in data.iterdir() if "mongod" in path.name or "db" in path.name) == ["db"]
    # All other data is unchanged, with its indexes, and the conversations continue.
    upstream.reply(answer("And another."))
    server.start().wait_until_ready()
    assert [one["content"] for one in await other.messages("another")] == [
        "Somebody else's question.",
        "Somebody else's answer.",
    ]
    await other.post("another", "And now?")
    assert (await other.answer("another"))["content"] == "And another."
    busy = await asyncio.to_thread(scrub, server._environment, tmp_path)
    assert (busy.returncode, "Another chatstream server is using" in busy.stderr) == (1, True)


def scrub(environment: dict[str, str], directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chatstream", "scrub"],
        env=environment, cwd=directory, capture_output=True, text=True, check=False,
    )  # fmt: skip


def files_with(directory: Path, secret: bytes) -> list[str]:
    """The files that contain the text, unchanged or in capitals."""
    return [str(path) for path in directory.rglob("*") if path.is_file() and secret in path.read_bytes().lower()]


def dump(uri: str) -> str:
    """All collections but MongoDB's own: the oplog has what was written until it is overwritten."""
    client: MongoClient[dict[str, Any]]
    with MongoClient(uri) as client:
        found: list[str] = []
        for database in {*client.list_database_names()} - {"local", "config", "admin"}:
            for name in client[database].list_collection_names():
                documents: list[Any] = list(client[database][name].find())
                found += [f"{database}.{name}: {document}" for document in documents]
        return "\n".join(found)
