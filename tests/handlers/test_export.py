"""``GET /api/v1/chat/me/export``, and its import with ``chatstream seed``: the history stays the same."""

import asyncio
import contextlib
import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from chatstream.store.mongo import Mongo
from chatstream.store.plugin_documents import PluginDocuments
from tests.conftest import MakeClient, StartServer
from tests.handlers.test_client_tools import PICK, picking
from tests.support.client import API, Client
from tests.support.processes import chatstream
from tests.support.upstream import DONE, USAGE, Do, Upstream, answer, beginning, delta, stream, whole

ME = "/api/v1/chat/me"


def lines(text: str) -> list[dict[str, Any]]:
    assert text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]  # U+2028 does not end a line here


def seed(directory: Path, uri: str, file: str, database: str = "shared") -> subprocess.CompletedProcess[str]:
    (directory / "export.ndjson").write_text(file)
    options = ("--file", "export.ndjson", "--json")
    return chatstream(directory, "seed", *options, MONGODB_URI=uri, MONGODB_DATABASE=database)


async def history(client: Client) -> list[Any]:
    """A conversation's whole history over REST, with numbers in place of the messages' ids."""
    listed = (await client.http.get(API)).json()["conversations"]
    told: list[Any] = []
    for conversation in listed:
        messages = await client.messages(conversation["id"])
        numbers = {message["id"]: number for number, message in enumerate(messages)}
        told.append(conversation)
        for message in messages:
            message["id"] = numbers[message["id"]]
            if "replyTo" in message:
                message["replyTo"] = numbers[message["replyTo"]]
            if "siblings" in message:
                message["siblings"] = [numbers.get(id_) for id_ in message["siblings"]]
            told.append(message)
    return told


async def live(client: Client, upstream: Upstream) -> None:
    """Create a history with every kind of content."""
    upstream.reply(answer("I'd recommend a bet on **Leeds to win** at odds of 2.10, with a stake of €10."))
    first = await client.create(
        id="first", title="Sunday ⚽", systemPrompt="Be brief.", model="some/model", background=True
    )
    await client.post(first, "Who wins?", headers={"Idempotency-Key": "once"})
    await client.answer(first)
    upstream.reply(
        stream(delta(reasoning_content="Let me think."), delta("Well."), delta(finish_reason="stop"), USAGE, DONE)
    )
    await client.http.post(f"{API}/{first}/regenerate")
    await client.answer(first)
    second = await client.create(id="second")
    upstream.reply(beginning("Half an "), Do.HANG)
    async with client.stream(second) as watched:
        await client.post(second, "Go on.")
        await watched.until("llm_chunk")
        await client.http.post(f"{API}/{second}/stop")
    upstream.reply(whole("400 Bad Request", {"error": {"message": "no", "type": "invalid_request_error"}}))
    await client.post(second, "And now?\n\u2028")
    await client.answer(second)
    await client.create(id="empty")


@pytest.mark.gen_test
async def test_export_erase_and_import_give_the_same_history(
    client: Client, upstream: Upstream, tmp_path: Path, mongodb_uri: str
) -> None:
    await live(client, upstream)
    before = await history(client)
    mongo = Mongo(mongodb_uri, "shared")
    kept = await PluginDocuments(mongo).put("bets", client.user, "a.1", {"stake": "€10"})
    statuses = sorted(one["status"] for one in before if one.get("role") == "assistant")
    assert statuses == ["complete", "complete", "failed", "stopped"]
    response = await client.http.get(f"{ME}/export")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/x-ndjson"
    exported = lines(response.text)
    assert (exported[0]["type"], exported[0]["userId"]) == ("export", client.user)
    assert exported[-1] == {"type": "end", "complete": True, "conversations": 3, "messages": 7, "documents": 1}
    assert (exported[-2]["type"], exported[-2]["plugin"], exported[-2]["key"]) == ("document", "bets", "a.1")
    [thinking] = [one for one in exported if one.get("pieces")]
    assert thinking["pieces"] == [{"mark": "reasoning"}, "Let me think.", {"mark": "text"}, "Well."]

    assert (await client.http.delete(ME)).json()["erased"] == {"conversations": 3, "messages": 7}
    assert await history(client) == []
    assert await PluginDocuments(mongo).get("bets", client.user, "a.1") is None
    done = await asyncio.to_thread(seed, tmp_path, mongodb_uri, response.text)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["messages"] == 7
    assert await history(client) == before
    assert await PluginDocuments(mongo).newest("bets", client.user, 9) == [kept]
    mongo.close()
    again = lines((await client.http.get(f"{ME}/export")).text)
    assert [one["type"] for one in again] == [one["type"] for one in exported]
    # The imported conversation continues: an idempotency key finds its message, and the next question has its context.
    repeated = await client.post("first", "Who wins?", headers={"Idempotency-Key": "once"})
    assert repeated.status_code == 200
    twice = await asyncio.to_thread(seed, tmp_path, mongodb_uri, response.text)
    assert (twice.returncode, "are there already" in twice.stderr) == (1, True)


@pytest.mark.gen_test
async def test_what_waited_there_waits_for_nobody_here_and_the_conversation_goes_on(
    client: Client, upstream: Upstream, tmp_path: Path, mongodb_uri: str
) -> None:
    conversation = await client.create()
    await client.http.patch(f"{API}/{conversation}", json={"clientTools": [PICK]})
    upstream.reply(picking('{"album": "Cats"}'))
    await client.post(conversation, "Which?")
    while (waits := await client.answer(conversation))["status"] != "waiting":
        pass
    kept_back = {"extra": "SECRET signature", "carry": "SECRET state", "heldBy": "SECRET process"}
    with MongoClient[dict[str, Any]](mongodb_uri) as mongo:
        messages = mongo["shared"]["messages"]
        stored = messages.find_one({"_id": ObjectId(waits["id"])}) or {}
        for piece in stored["pieces"]:
            if not isinstance(piece, str):
                names = {"tool_call": ("extra",), "tool_state": ("carry", "heldBy")}.get(piece["mark"], ())
                piece.update({name: kept_back.pop(name, "SECRET again") for name in names})
        messages.update_one({"_id": stored["_id"]}, {"$set": {"pieces": stored["pieces"]}})
    assert not kept_back
    response = await client.http.get(f"{ME}/export")
    assert "SECRET" not in response.text
    assert '"arguments":' in response.text
    await client.http.delete(ME)
    assert (await client.http.get(API, params={"waiting": "true"})).json()["conversations"] == []
    done = await asyncio.to_thread(seed, tmp_path, mongodb_uri, response.text)
    assert done.returncode == 0, done.stderr
    newest = (await client.messages(conversation))[-1]
    [call] = [part for part in newest["parts"] if part["type"] == "tool_call"]
    assert (newest["status"], call["state"], call["failed"]) == ("interrupted", "done", True)
    assert call["arguments"] == waits["parts"][0]["arguments"]
    path = f"{API}/{conversation}/tool-calls"
    for id_ in (call["toolCallId"], waits["parts"][0]["toolCallId"]):
        assert (await client.http.post(f"{path}/{id_}", json={"output": 1})).status_code in (404, 409)
    upstream.reply(answer("As you like."))
    await client.post(conversation, "Never mind.")
    assert (await client.answer(conversation))["content"] == "As you like."


@pytest.mark.gen_test
async def test_branches_what_is_left_out_and_what_is_unread_come_back_too(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path, mongodb_uri: str
) -> None:
    server = start_server(CHATSTREAM_CONTEXT_CHARACTERS="1000", CHATSTREAM_PLUGINS="none")
    client = make_client(server)
    for number in range(1, 9):
        upstream.reply(answer(f"Answer {number}. " + "word " * 60))
    conversation = await client.create(id="tree")
    posted: list[str] = []

    async def ask(content: str, **body: Any) -> None:
        response = await client.http.post(f"{API}/{conversation}/messages", json={"content": content, **body})
        posted.append(response.json()["id"])
        await client.answer(conversation)

    for number in range(1, 5):
        await ask(f"Question {number}?")
    first_answer = (await client.messages(conversation))[1]["id"]
    await ask("Question 2, edited?", parent=first_answer)
    await ask("Question 1, edited?", parent=None)
    await client.http.patch(f"{API}/{conversation}", json={"head": posted[3]})
    thumb = {"messageId": first_answer, "rating": "down"}
    assert (await client.http.put(f"{API}/{conversation}/rating", json=thumb)).status_code == 200
    await ask("Question 5?")
    unread = await client.create(id="unread", initialMessage="Nobody waits for this.")
    async with asyncio.timeout(60):
        while not [one for one in (await client.http.get(API)).json()["conversations"] if one["unread"]]:
            await asyncio.sleep(0.05)  # between two polls; there is no event to wait for over REST

    async def told() -> list[Any]:
        """All branches of both conversations, with positions in place of ids; the shown branch first."""
        listed = (await client.http.get(API)).json()["conversations"]
        exported = lines((await client.http.get(f"{ME}/export")).text)[1:]
        ids = {line["message"]["id"]: place for place, line in enumerate(exported) if line["type"] == "message"}
        leaves = [id_ for id_, place in ids.items() if exported[place]["message"]["content"].endswith("?")]
        branches = [
            (await client.http.get(f"{API}/tree/messages", params={"leaf": id_})).json()["messages"]
            for id_ in leaves
            if ids[id_] < ids[leaves[-1]]
        ]
        shown = (await client.http.get(f"{API}/tree/messages")).json()
        return [in_places(one, ids) for one in (listed, exported, branches, shown["messages"], shown["head"])]

    before = await told()
    assert [one["unread"] for one in before[0]] == [True, False]
    assert [line["contextBegins"] for line in before[1] if "contextBegins" in line] == [True]
    assert [line["message"]["rating"] for line in before[1] if "rating" in line.get("message", ())] == ["down"]
    file = (await client.http.get(f"{ME}/export")).text
    await client.http.delete(ME)
    done = await asyncio.to_thread(seed, tmp_path, mongodb_uri, file, server._environment["MONGODB_DATABASE"])
    assert done.returncode == 0, done.stderr
    assert await told() == before
    # The model gets no more of the conversation than before.
    last = upstream.calls[-2].body["messages"]
    assert [turn["content"] for turn in last if turn["role"] == "user"][-1] == "Question 5?"
    upstream.reply(answer("Answer 9."))
    await ask("Question 6?")
    [*turns] = [turn["content"] for turn in upstream.calls[-1].body["messages"] if turn["role"] == "user"]
    assert turns[-1] == "Question 6?"
    assert "Question 1?" not in turns
    assert unread == "unread"


def in_places(value: Any, ids: dict[str, int]) -> Any:
    """Replace each message's id by a number."""
    if isinstance(value, dict):
        return {name: in_places(one, ids) for name, one in value.items()}
    if isinstance(value, list):
        return [in_places(one, ids) for one in value]
    return ids.get(value, value) if isinstance(value, str) else value


@pytest.mark.gen_test
async def test_what_is_cut_off_or_wrong_is_not_stored(
    client: Client, upstream: Upstream, tmp_path: Path, mongodb_uri: str
) -> None:
    await live(client, upstream)
    whole_file = (await client.http.get(f"{ME}/export")).text
    split = [f"{line}\n" for line in whole_file.split("\n")[:-1]]
    await client.http.delete(ME)
    answered = next(number for number, line in enumerate(split) if '"assistant"' in line)
    wrong = {
        "cut off: its last line": "".join(split[:-1]),
        "was cut off, in line": whole_file[:-20],
        "does not say that it is complete": "".join(split[:-1]) + split[-1].replace("true", "false"),
        "answer stands before its question": "".join(split[: answered - 1] + split[answered:]),
        "other numbers of lines than its end says": "".join(line for line in split if '"id":"empty"' not in line),
        "goes on behind its end": whole_file + split[-1],
        "by a later version": whole_file.replace('"version":1', '"version":2', 1),
        "there twice": "".join(split[:-1] + [line for line in split if '"id":"first"' in line] + split[-1:]),
        "is not what it is made of": whole_file.replace('"content":"Well."', '"content":"Ill."', 1),
    }
    for reason, file in wrong.items():
        done = await asyncio.to_thread(seed, tmp_path, mongodb_uri, file)
        assert done.returncode == 1, reason
        assert reason in done.stderr
        assert "Who wins" not in done.stderr
        assert await history(client) == []


@pytest.mark.gen_test
async def test_nobody_but_the_caller_is_in_it(client: Client, make_client: MakeClient, shared_server: Any) -> None:
    other = make_client(shared_server)
    await other.create(title="Nobody else's business")
    exported = lines((await client.http.get(f"{ME}/export")).text)
    assert [one["type"] for one in exported] == ["export", "end"]
    assert exported[-1]["complete"] is True
    headers = (await client.http.head(f"{ME}/export")).headers
    assert headers["Content-Type"] == "application/x-ndjson"


def fill(uri: str, database: str, user: str, places: range) -> None:
    """Store messages at these positions, 20 KB each."""
    client: MongoClient[dict[str, Any]]
    with MongoClient(uri) as client:
        found: Database[dict[str, Any]] = client[database]
        one = found.conversations.find_one({"userId": user})
        assert one is not None
        messages = [
            {
                "_id": ObjectId(),
                "conversationId": one["_id"],
                "seq": seq,
                "role": "user",
                "content": f"{seq} " + "word " * 4000,
                "createdAt": one["createdAt"],
                "owner": "test",
            }
            for seq in places
        ]
        found.messages.insert_many(messages)


async def export_slowly(client: Client) -> tuple[int, dict[str, Any]]:
    """Read an export slowly; returns the number of bytes and the last line."""
    received = 0
    last = b""
    async with client.http.stream("GET", f"{ME}/export") as response:
        second = await client.http.get(f"{ME}/export")
        assert (second.status_code, "Retry-After" in second.headers) == (429, True)
        async for part in response.aiter_raw():
            received += len(part)
            last = (last + part)[-200:]
            await asyncio.sleep(0)
    return received, json.loads(last.splitlines()[-1])


@pytest.mark.gen_test
async def test_a_slow_reader_costs_no_memory_and_one_that_does_not_read_is_cut_off(
    start_server: StartServer, make_client: MakeClient, mongodb_uri: str
) -> None:
    server = start_server(CHATSTREAM_SLOW_READER_TIMEOUT="1", CHATSTREAM_REASONING="hide")
    client = make_client(server)
    await client.create()
    assert server.process is not None
    pid = server.process.pid

    async def grow(places: range) -> tuple[int, int]:
        """Add these messages and export; returns the export's bytes, and by how much the peak memory grew."""
        await asyncio.to_thread(fill, mongodb_uri, server._environment["MONGODB_DATABASE"], client.user, places)
        before = memory(pid)
        received, end = await export_slowly(client)
        assert end == {"type": "end", "complete": True, "conversations": 1, "messages": places.stop - 1}
        return received, memory(pid) - before

    received, _ = await grow(range(1, 601))
    assert received > 11_000_000  # by now the reading threads have allocated their own memory
    received, grown = await grow(range(601, 3601))
    assert received > 70_000_000
    assert grown < 60_000_000  # as objects the data would take twice its size; threads keep some 50 MB
    before = memory(pid)
    request = f"GET {ME}/export HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {client.token}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stuck:
        stuck.sendall(request.encode())
        async with asyncio.timeout(60):
            while "does_not_read" not in await server.logged():
                await asyncio.sleep(0.1)  # between two polls; there is no event to wait for in another process
        assert b'"type":"end"' not in await asyncio.to_thread(everything, stuck)
    assert memory(pid) - before < 45_000_000


def everything(sock: socket.socket) -> bytes:
    """Read until the connection ends in any way."""
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(65_536):
            received += part
    return bytes(received)


def memory(pid: int) -> int:
    """The peak memory of a process, in bytes."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
