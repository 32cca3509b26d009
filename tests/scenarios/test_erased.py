"""After an erasure: a dump of the database and all logs have no byte of the user's words, ids or names."""

import asyncio
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
# Whatever a user can write, or call things by.
TITLE, PROMPT, QUESTION, ANSWER = (f"{WORDS} {place}" for place in ("title", "prompt", "question", "answer"))
CONVERSATION = f"{WORDS}-conversation"


@pytest.mark.gen_test
async def test_nothing_of_a_user_is_left_in_the_database_or_in_any_log(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path
) -> None:
    server = start_server(MONGODB_URI="", MONGODB_DATABASE="mine", CHATSTREAM_LOG_LEVEL="DEBUG")
    client = make_client(server, USER)
    upstream.reply(answer(ANSWER))
    await client.create(id=CONVERSATION, title=TITLE, systemPrompt=PROMPT, model="some/model")
    async with client.stream(CONVERSATION, params={"access_token": client.token}) as watched:
        await client.post(CONVERSATION, QUESTION, headers={"Idempotency-Key": f"{WORDS}-key"})
        await watched.until("llm_complete")
    upstream.reply(whole("400 Bad Request", {"error": {"message": f"you said: {QUESTION}"}}))
    await client.post(CONVERSATION, QUESTION)
    await client.answer(CONVERSATION)
    # What is wrong, in many ways, is logged, too.
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
    assert left
    server.stop()
    written = {path.name: path.read_text(errors="replace") for path in tmp_path.rglob("*.log*")}
    assert {server.log_path.name, "mongod.log"} <= {*written}
    for name, text in {"the database": left, "output": server.output, **written}.items():
        for secret in (USER, WORDS, "zebedee"):
            assert secret not in text.lower(), (name, secret)


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
