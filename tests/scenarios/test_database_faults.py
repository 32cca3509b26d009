"""A database that is killed or stopped in mid-answer: no acknowledged message is lost, and nothing is published before
it is stored.
"""

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from tornado.ioloop import IOLoop

from tests.conftest import MakeClient, StartServer
from tests.support.client import API, PATIENCE, Client
from tests.support.data_directory import data_directory
from tests.support.processes import ServerProcess
from tests.support.replica_set import ReplicaSet
from tests.support.upstream import Upstream, answer, beginning, delta, ending, event, http_chunk

pytestmark = pytest.mark.xdist_group("database-faults")  # they share a database


@pytest.fixture(scope="module")
def mongo() -> Iterator[ReplicaSet]:
    """A database for this module alone, which the tests kill and stop."""
    with data_directory() as directory, ReplicaSet(directory) as mongo:
        yield mongo


@pytest.fixture
def server(mongo: ReplicaSet, start_server: StartServer) -> ServerProcess:
    """A server on this database."""
    return start_server(MONGODB_URI=mongo.uri, CHATSTREAM_SAVE_DEADLINE="3")


@pytest.fixture
def client(server: ServerProcess, make_client: MakeClient) -> Client:
    """A client of this server."""
    return make_client(server)


@pytest.mark.gen_test
async def test_stopped_in_mid_answer(client: Client, mongo: ReplicaSet, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    upstream.reply(beginning("From "), go_on, http_chunk(event(delta("memory."))), ending())
    conversation = await client.create(initialMessage="Go on.")
    other = await client.create()
    async with client.stream(conversation) as watched:
        await watched.until("llm_chunk")
        mongo.nodes[0].signal(signal.SIGSTOP)
        try:
            go_on.set()
            assert (await watched.until("llm_chunk")).data["content"] == "memory."
            async with asyncio.timeout(PATIENCE):
                refused = await client.post(other, "Store this.")
            assert (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable")
            assert int(refused.headers["Retry-After"]) >= 1
            ready = await client.http.get("/readyz")
            assert ready.status_code == 503
            assert (await client.http.get("/healthz")).status_code == 200
            async with client.stream(other) as refusing:
                told = (await refusing.next()).data
                assert (told["error"], told["message"]) == ("storage_unavailable", refused.json()["detail"])
                assert refusing.types == ["error"]
            cursor = watched.cursor
            notice = await watched.until("error")
            assert (notice.data["error"], notice.data["retryable"]) == ("storage_unavailable", True)
            assert watched.cursor == cursor
            assert "llm_complete" not in watched.types
        finally:
            mongo.nodes[0].signal(signal.SIGCONT)
        complete = await watched.until("llm_complete")
        assert (complete.data["content"], complete.data["status"]) == ("From memory.", "complete")
    stored = await client.messages(conversation)
    assert [message["content"] for message in stored] == ["Go on.", "From memory."]
    # The refused message may have left an open transaction, which must not block the next message.
    async with asyncio.timeout(PATIENCE):
        while (response := await client.post(other, "Store that.")).status_code == 503:
            pass
    assert response.status_code == 201


@pytest.mark.gen_test
async def test_killed_in_mid_answer(client: Client, mongo: ReplicaSet, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    upstream.reply(beginning("Stored "), go_on, http_chunk(event(delta("once."))), ending())
    upstream.reply(answer("Sure."))
    conversation = await client.create(initialMessage="Remember this.")
    async with client.stream(conversation) as watched:
        await watched.until("llm_chunk")
        mongo.nodes[0].kill()
        go_on.set()
        await watched.until("llm_chunk")
        mongo.nodes[0].start()
        assert (await watched.until("llm_complete")).data["content"] == "Stored once."
        # The acknowledged message is stored exactly once, and the conversation continues.
        assert [message["content"] for message in await client.messages(conversation)] == [
            *("Remember this.", "Stored once."),
        ]
        assert (await client.post(conversation, "Do you?")).status_code == 201
        assert (await watched.until("llm_complete")).data["content"] == "Sure."


def test_a_failover_under_load(
    start_server: StartServer,
    make_client: MakeClient,
    upstream: Upstream,
    io_loop: IOLoop,
) -> None:
    """A replica set of three nodes: the primary is killed while messages are posted and answered."""
    upstream.reply(answer("Answered."))
    with data_directory() as directory, ReplicaSet(directory, size=3) as mongo:
        client = make_client(start_server(MONGODB_URI=mongo.uri))
        failed: Counter[str] = Counter()

        async def converse(number: int) -> tuple[str, list[str]]:
            """Post five messages, and repeat each until it is acknowledged."""
            conversation = await client.create(id=f"c{number}")
            contents = [f"Message {number}.{turn}" for turn in range(5)]
            async with client.stream(conversation) as watched:
                await watched.next()
                for content in contents:
                    if content == "Message 0.2":
                        await asyncio.to_thread(mongo.primary().kill)
                    key = {"Idempotency-Key": content.replace(" ", "-")}
                    while (response := await client.post(conversation, content, headers=key)).status_code == 503:
                        await asyncio.sleep(float(response.headers["Retry-After"]))  # the time that the server asks for
                    assert response.status_code in (200, 201), response.text
                    ended = await watched.next()
                    while ended.type != "llm_complete" and not (ended.type == "error" and ended.data["messageId"]):
                        ended = await watched.next()
                    # An answer whose history could not be read has failed, with an error event.
                    assert ended.type == "llm_complete" or ended.data["error"] == "storage_unavailable"
                    failed[conversation] += ended.type == "error"
            return conversation, contents

        async def all_of_them() -> None:
            for conversation, contents in await asyncio.gather(*map(converse, range(8))):
                stored = await client.messages(conversation)
                assert [one["content"] for one in stored if one["role"] == "user"] == contents
                statuses = Counter(one["status"] for one in stored if one["role"] == "assistant")
                assert statuses == Counter(complete=5 - failed[conversation], failed=failed[conversation])

        io_loop.run_sync(all_of_them, timeout=110)
    assert len(upstream.calls) == 40 - failed.total()


@pytest.mark.gen_test
async def test_a_deleted_conversation_ends_its_streams(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Yes."))
    conversation = await client.create(initialMessage="Delete me.")
    async with client.stream(conversation) as watched:
        await watched.until("llm_complete")
        assert (await client.http.delete(f"{API}/{conversation}")).status_code == 204
        assert (await watched.until("error")).data["error"] == "conversation_deleted"
    assert (await client.http.get(f"{API}/{conversation}")).status_code == 404


@pytest.mark.gen_test
async def test_streams_beyond_a_users_own_are_refused_without_the_database(
    client: Client, server: ServerProcess, mongo: ReplicaSet, make_client: MakeClient
) -> None:
    """300 streams opened by one user: ten are open."""
    conversation = await client.create()
    other = make_client(server)
    theirs = await other.create()
    async with contextlib.AsyncExitStack() as stack:
        open_streams = [await stack.enter_async_context(client.stream(conversation)) for _ in range(10)]
        assert [(await stream.next()).type for stream in open_streams] == ["connected"] * 10
        mongo.nodes[0].signal(signal.SIGSTOP)  # whatever asked it would be told `storage_unavailable`, after 2 s
        try:
            for _ in range(290):
                async with client.stream(conversation) as refused:
                    [error] = await refused.rest()
                assert error.data["error"] == "too_many_streams"
        finally:
            mongo.nodes[0].signal(signal.SIGCONT)
        # Other requests have noticed that the database had stopped. New ones are accepted as soon as it has answered
        # one ping.
        async with asyncio.timeout(PATIENCE):
            while True:
                async with other.stream(theirs) as unaffected:
                    if (first := await unaffected.next()).type == "connected":
                        break
                    assert first.data["error"] == "storage_unavailable"
                await asyncio.sleep(0.1)  # shorter than its `Retry-After`
