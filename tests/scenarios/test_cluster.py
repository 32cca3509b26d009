"""Two processes on one database: viewers at one process see what happens in the other."""

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from tests.conftest import MakeClient, StartServer
from tests.support.client import API, PATIENCE, Client
from tests.support.exposition import scrape
from tests.support.processes import ServerProcess
from tests.support.upstream import Do, Upstream, answer, beginning, delta, ending, event, http_chunk

pytestmark = pytest.mark.xdist_group("cluster")  # they share servers


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Two processes on one database."""
    directory, settings = tmp_path_factory.mktemp("cluster"), environment | {"MONGODB_DATABASE": "cluster"}
    first, second = ServerProcess(directory, settings).start(), ServerProcess(directory, settings).start()
    yield first.wait_until_ready(), second.wait_until_ready()
    assert first.stop() == second.stop() == 0


@pytest.fixture
def pair(servers: tuple[ServerProcess, ServerProcess], make_client: MakeClient) -> tuple[Client, Client]:
    """One user's clients, one for each process."""
    here = make_client(servers[0])
    return here, make_client(servers[1], here.user)


@pytest.mark.gen_test
async def test_an_answer_is_followed_in_another_process(pair: tuple[Client, Client], upstream: Upstream) -> None:
    here, there = pair
    go_on = asyncio.Event()
    upstream.reply(beginning("Here "), go_on, http_chunk(event(delta("and there."))), ending())
    conversation = await here.create()
    async with here.stream(conversation) as first, there.stream(conversation) as second:
        await first.next()
        await second.next()
        await here.post(conversation, "Where?")
        assert (await second.until("user_message")).data["content"] == "Where?"
        await first.until("llm_chunk")
        await second.until("llm_chunk")
        go_on.set()
        for watched in (first, second):
            assert (await watched.until("llm_complete")).data["content"] == "Here and there."
            assert watched.text == "Here and there."
            assert watched.types == ["connected", "user_message", "llm_chunk", "llm_complete"]
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_viewers_elsewhere_keep_an_answer_alive(pair: tuple[Client, Client], upstream: Upstream) -> None:
    here, there = pair
    go_on = asyncio.Event()
    upstream.reply(beginning("Still "), go_on, http_chunk(event(delta("here."))), ending())
    conversation = await here.create()
    async with there.stream(conversation) as watched:
        await watched.next()
        async with here.stream(conversation) as first:
            await here.post(conversation, "Are you there?")
            await first.until("llm_chunk")
            await watched.until("llm_chunk")
        # The grace is one second; a heartbeat comes each second.
        await watched.until("heartbeat", 4)
        assert not upstream.calls[0].aborted.is_set()
        go_on.set()
        assert (await watched.until("llm_complete")).data["content"] == "Still here."


@pytest.mark.gen_test
async def test_stop_and_deletion_work_from_another_process(pair: tuple[Client, Client], upstream: Upstream) -> None:
    here, there = pair
    upstream.reply(beginning("So far"), Do.HANG)
    conversation = await here.create()
    async with here.stream(conversation) as watched:
        await here.post(conversation, "Go on for ever.")
        await watched.until("llm_chunk")
        stopped = (await there.http.post(f"{API}/{conversation}/stop")).json()
        assert (stopped["status"], stopped["contentLength"], stopped["upstreamCancelled"]) == ("stopped", 6, True)
        assert (await watched.until("llm_complete")).data["status"] == "stopped"
        assert (await there.http.delete(f"{API}/{conversation}")).status_code == 204
        assert (await watched.until("error")).data["error"] == "conversation_deleted"
        with pytest.raises(StopAsyncIteration):
            await watched.next()


@pytest.mark.gen_test
async def test_a_cursor_is_good_in_another_process(pair: tuple[Client, Client], upstream: Upstream) -> None:
    here, there = pair
    go_on = asyncio.Event()
    upstream.reply(beginning("Grüße, ", "👩‍👩‍👧 ", "und "), go_on, http_chunk(event(delta("Tschüß."))), ending())
    conversation = await here.create()
    async with here.stream(conversation) as first:
        await here.post(conversation, "Sag was.")
        await first.until("llm_chunk", 3)
    # The text received here is in no checkpoint yet, so the cursor lies beyond the text that the other process knows.
    async with there.stream(conversation, headers={"Last-Event-ID": first.cursor}) as second:
        assert (await second.next()).data["resumed"] is True
        go_on.set()
        assert (await second.until("llm_complete")).data["content"] == first.text + second.text


THOUGHT = "Form 👩‍👩‍👧 first, \N{LOCK} then odds."


def thinking(gates: list[asyncio.Event]) -> list[Any]:
    """The script of an answer with four parts of reasoning, each held back by a gate."""
    steps: list[Any] = [beginning(f"<think>{THOUGHT[:6]}")]
    for gate, text in zip(gates, (THOUGHT[6:20], f"{THOUGHT[20:]}</think>Take ", "Leeds."), strict=True):
        steps += [gate, http_chunk(event(delta(text)))]
    return [*steps, ending()]


@pytest.mark.gen_test
async def test_thinking_is_followed_and_resumed_in_mid_thought_in_another_process(
    pair: tuple[Client, Client], upstream: Upstream
) -> None:
    here, there = pair
    gates = [asyncio.Event() for _ in range(3)]
    upstream.reply(*thinking(gates))
    conversation = await here.create()
    frames = []
    async with there.stream(conversation) as first:
        await first.next()
        await here.post(conversation, "Who wins?")
        await first.until("reasoning_chunk")
        cursor = first.cursor
        frames += first.frames
    gates[0].set()
    async with here.stream(conversation, headers={"Last-Event-ID": cursor}) as second:  # the generating process
        await second.until("reasoning_chunk")
        cursor = second.cursor
        frames += second.frames
    async with there.stream(conversation, headers={"Last-Event-ID": cursor}) as third:
        gates[1].set()
        await third.until("llm_chunk")
        gates[2].set()
        complete = (await third.until("llm_complete")).data
        frames += third.frames
    parts = {"reasoning_chunk": "", "llm_chunk": ""}
    for frame in frames:
        if (kind := frame.data["type"]) in parts:
            assert frame.data["offset"] == len(parts[kind])
            parts[kind] += frame.data["content"]
    assert parts == {"reasoning_chunk": THOUGHT, "llm_chunk": "Take Leeds."}
    assert complete["parts"] == [{"type": "reasoning", "text": THOUGHT}, {"type": "text", "text": "Take Leeds."}]
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_hidden_thinking_does_not_leave_another_process_either(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    settings = {"MONGODB_DATABASE": "cluster-hidden", "CHATSTREAM_REASONING": "hide"}
    here = make_client(start_server(**settings))
    there = make_client(start_server(**settings), here.user)
    gates = [asyncio.Event() for _ in range(3)]
    upstream.reply(*thinking(gates))
    conversation = await here.create()
    cursor = (await here.post(conversation, "Who wins?")).json()["streamCursor"]
    left = ""
    for gate in (*gates, None):
        watched = [
            asyncio.create_task(one.http.get(f"{API}/{conversation}/stream", params=params | {"last_event_id": cursor}))
            for one in (here, there)
            for params in ({"once": "true"}, {"format": "ui-message-stream"})
        ]
        left += (await there.http.get(f"{API}/{conversation}/messages")).text
        if gate is not None:
            gate.set()
        if gate in (gates[2], None):
            left += "".join([one.text for one in await asyncio.gather(*watched)])
        else:
            for one in watched:  # these leave in the middle of the reasoning
                one.cancel()
            await asyncio.gather(*watched, return_exceptions=True)
    assert "Leeds." in left
    assert "\\ud83d\\udd12" not in left
    assert "\N{LOCK}" not in left
    assert "reasoning" not in left
    assert (await there.answer(conversation))["content"] == "Take Leeds."


@pytest.mark.gen_test
async def test_one_idempotency_key_is_one_message_and_one_call(pair: tuple[Client, Client], upstream: Upstream) -> None:
    here, there = pair
    upstream.reply(answer("Once."))
    conversation = await here.create()
    key = {"Idempotency-Key": "the-same"}
    responses = await asyncio.gather(
        *(client.post(conversation, "Only once.", headers=key) for client in (here, there, here, there))
    )
    assert sorted(response.status_code for response in responses) == [200, 200, 200, 201]
    assert len({response.json()["id"] for response in responses}) == 1
    assert (await here.answer(conversation))["content"] == "Once."
    assert len(await there.messages(conversation)) == 2
    assert len(upstream.calls) == 1
    other = await there.post(conversation, "Something else.", headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "invalid_content")


@pytest.mark.gen_test
async def test_a_message_in_mid_answer(pair: tuple[Client, Client], upstream: Upstream) -> None:
    here, there = pair
    go_on = asyncio.Event()
    upstream.reply(beginning("First, "), go_on, http_chunk(event(delta("done."))), ending())
    upstream.reply(beginning("To both"), Do.HANG)
    upstream.reply(answer("Interrupted."))
    conversation = await here.create()
    async with here.stream(conversation) as watched, there.stream(conversation) as elsewhere:
        await here.post(conversation, "One.")
        await watched.until("llm_chunk")
        refused = await there.post(conversation, "Two.")
        assert (refused.status_code, refused.json()["code"]) == (409, "answer_in_progress")
        for client, content in ((there, "Two."), (here, "Three.")):
            assert (await client.post(conversation, content, params={"ifBusy": "queue"})).status_code == 201
        go_on.set()
        for stream in (watched, elsewhere):
            await stream.until("llm_complete")
            assert [(await stream.next()).data["content"] for _ in range(2)] == ["Two.", "Three."]
            await stream.until("llm_chunk")
        assert [turn["content"] for turn in upstream.calls[1].body["messages"]][1:] == [
            *("One.", "First, done.", "Two.\n\nThree."),
        ]
        interrupting = await there.post(conversation, "Stop that.", params={"ifBusy": "interrupt"})
        assert interrupting.status_code == 201
        assert (await watched.until("llm_complete")).data["status"] == "stopped"
        assert (await watched.until("llm_complete")).data["content"] == "Interrupted."
    assert len(upstream.calls) == 3


@pytest.mark.gen_test
async def test_a_process_that_dies_leaves_nothing_streaming(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    first, second = start_server(ready=False), start_server(ready=False)
    here = make_client(first.wait_until_ready())
    there = make_client(second.wait_until_ready(), here.user)
    upstream.reply(beginning("Before the end. "), Do.HANG)
    upstream.reply(answer("After it."))
    conversation = await here.create(initialMessage="Survive.")
    async with there.stream(conversation) as watched, here.stream(conversation) as dying:
        await dying.until("llm_chunk")
        await watched.until("llm_chunk")  # so it has been stored
        await first.kill()
        interrupted = await watched.until("llm_complete")
        assert (interrupted.data["status"], interrupted.data["content"]) == ("interrupted", "Before the end. ")
        complete = await watched.until("llm_complete")
        assert (complete.data["content"], complete.data["attempt"]) == ("After it.", 2)


@pytest.mark.gen_test(timeout=100)
async def test_who_watches_goes_on_hearing_while_one_process_ends(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    settings = {"CHATSTREAM_HEARTBEAT_INTERVAL": "0.5", "CHATSTREAM_DISCONNECT_GRACE": "1"}
    ending_one, staying = start_server(ready=False, **settings), start_server(ready=False, **settings)
    here = make_client(ending_one.wait_until_ready())
    there = make_client(staying.wait_until_ready(), here.user)
    go_on = asyncio.Event()
    for text in ("Of the one that ends", "Of the one that stays"):
        upstream.reply(beginning(text), go_on, http_chunk(event(delta("."))), ending())
    own, other, idle = await here.create(), await here.create(), await here.create()
    async with here.stream(own) as watched, here.stream(other) as remote, here.stream(idle) as quiet:
        await here.post(own, "One?")
        await watched.until("llm_chunk")
        await there.post(other, "Two?")
        await remote.until("llm_chunk")
        await quiet.next()
        ending_one.signal(signal.SIGTERM)
        # Streams without an answer of this process are ended at once; their clients continue at the other process.
        for stream in (remote, quiet):
            assert (await stream.until("error")).data["error"] == "server_shutdown"
            assert stream.retries[-1] >= 1000
        async with there.stream(other, headers={"Last-Event-ID": remote.cursor}) as resumed:
            await watched.until("heartbeat", 6)  # longer than the grace, and than a poll of the other process
            await resumed.until("heartbeat", 3)
            go_on.set()
            assert (await resumed.until("llm_complete")).data["status"] == "complete"
            assert (await watched.until("llm_complete")).data["status"] == "complete"
            assert (await watched.until("error")).data["error"] == "server_shutdown"
    assert await ending_one.ended() == 0


@pytest.mark.gen_test(timeout=100)
async def test_a_viewer_elsewhere_of_a_process_that_ends_misses_nothing(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    ending_one, staying = start_server(ready=False), start_server(ready=False)
    here = make_client(ending_one.wait_until_ready())
    there = make_client(staying.wait_until_ready(), here.user)
    later, last = asyncio.Event(), asyncio.Event()
    two, three = (http_chunk(event(delta(text))) for text in ("two, ", "three."))
    upstream.reply(beginning("One, "), later, two, last, three, ending())
    conversation = await here.create()
    async with there.stream(conversation) as watched:
        await watched.next()
        await here.post(conversation, "Count.")
        await watched.until("llm_chunk")
        ending_one.signal(signal.SIGTERM)
        later.set()
        await watched.until("llm_chunk")
        last.set()
        complete = await watched.until("llm_complete")
        assert (complete.data["content"], complete.data["status"]) == ("One, two, three.", "complete")
    assert await ending_one.ended() == 0


@pytest.mark.parametrize("alone", [False, True], ids=["another process", "the same after its restart"])
@pytest.mark.gen_test(timeout=100)
async def test_what_was_queued_at_a_process_that_ends_is_answered_although_nobody_watches(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, alone: bool
) -> None:
    ending_one = start_server()
    here = make_client(ending_one)
    staying = None if alone else start_server()
    go_on = asyncio.Event()
    upstream.reply(beginning("First, "), go_on, http_chunk(event(delta("done."))), ending())
    upstream.reply(answer("Second, done."))
    conversation = await here.create()
    assert (await here.post(conversation, "One.")).status_code == 201
    await upstream.until_called()
    assert (await here.post(conversation, "Two.", params={"ifBusy": "queue"})).status_code == 201
    ending_one.signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        while "stopping" not in ending_one.log:
            await asyncio.sleep(0.01)  # between two polls of a file
    go_on.set()
    assert await ending_one.ended() == 0
    there = make_client(staying or start_server(ending_one.port), here.user)
    await upstream.until_called(2)
    assert (await there.answer(conversation))["content"] == "Second, done."
    contents = [message["content"] for message in await there.messages(conversation)]
    assert contents == ["One.", "First, done.", "Two.", "Second, done."]
    assert len(upstream.calls) == 2


# The number of watched answers in the rolling restart, over all three processes.
WATCHED = 50


@pytest.mark.gen_test(timeout=110)
async def test_a_rolling_restart_interrupts_no_answer_of_a_process_that_stays(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    settings = {
        "CHATSTREAM_DISCONNECT_GRACE": "5",
        "CHATSTREAM_STREAMS_PER_USER": str(WATCHED),
        "CHATSTREAM_ANSWERS_PER_USER": str(WATCHED),
        "CHATSTREAM_OPENINGS_PER_MINUTE": "1000",
    }
    servers = [start_server(ready=False, **settings) for _ in range(3)]
    first = make_client(servers[0].wait_until_ready())
    clients = [first, *(make_client(server.wait_until_ready(), first.user) for server in servers[1:])]
    go_on = asyncio.Event()
    conversations = [await first.create() for _ in range(WATCHED)]
    for number, conversation in enumerate(conversations):
        upstream.reply(beginning(f"Answer {number}"), go_on, http_chunk(event(delta("."))), ending())
        assert (await clients[2].post(conversation, "Go on.")).status_code == 201  # the last one stays
        await upstream.until_called(number + 1)  # their order is that of the replies

    async def watch(conversation: str, which: int) -> dict[str, Any]:
        """Watch as a client does: at any process that accepts it, and again with the cursor after a disconnect."""
        headers: dict[str, str] = {}
        while True:
            try:
                async with clients[which].stream(conversation, headers=headers) as stream:
                    while True:
                        frame = await stream.next()
                        if frame.id is not None:
                            headers["Last-Event-ID"] = frame.id
                            watching[conversation].set()
                        if frame.type == "llm_complete":
                            return frame.data
            except (StopAsyncIteration, httpx.TransportError):
                which = (which + 1) % 3

    watching = {conversation: asyncio.Event() for conversation in conversations}
    watches = [asyncio.create_task(watch(one, number % 3)) for number, one in enumerate(conversations)]
    for event_ in watching.values():
        await event_.wait()
    for number in (0, 1):
        servers[number].signal(signal.SIGTERM)
        assert await servers[number].ended() == 0
        servers[number] = start_server(servers[number].port, **settings)
    go_on.set()
    for number, ended in enumerate(await asyncio.gather(*watches)):
        assert (ended["content"], ended["status"]) == (f"Answer {number}.", "complete")


@pytest.fixture
def stored(mongodb_uri: str, servers: object) -> Iterator[Database[dict[str, Any]]]:
    """The database of both processes, into which the test writes documents of a later version."""
    with MongoClient[dict[str, Any]](mongodb_uri) as mongo:
        yield mongo["cluster"]


@pytest.mark.gen_test(timeout=120)
async def test_documents_of_a_later_version_stop_nobody(
    pair: tuple[Client, Client], upstream: Upstream, stored: Database[dict[str, Any]]
) -> None:
    here, there = pair
    for number in range(4):
        upstream.reply(answer(f"Answer {number}."))
    conversation = await here.create()
    known = stored.conversations.find_one({"userId": here.user, "id": conversation})
    assert known is not None
    in_it = {"conversationId": known["_id"]}
    waiting = {"role": "assistant", "status": "paused"}
    # Documents to insert after each answer; their `seq` is the next one.
    strange: list[list[dict[str, Any]]] = [
        [in_it | {"seq": 0, "role": "tool"}, in_it | {"role": "tool"}, {"conversationId": 1, "role": "tool"}],
        [{"conversationId": 2} | waiting, in_it | {"seq": 0} | waiting],
        [{}, in_it | {"seq": 0}, in_it | {"_id": "x", "role": "user", "seq": {"a": [None]}, "content": 7}],
    ]
    cursors: list[str] = []
    async with here.stream(conversation) as first, there.stream(conversation) as second:
        await first.next()
        await second.next()
        for number in range(4):
            assert (await here.post(conversation, f"Question {number}?")).status_code == 201
            for watched in (first, second):
                assert (await watched.until("user_message")).data["content"] == f"Question {number}?"
                assert (await watched.until("llm_complete")).data["content"] == f"Answer {number}."
            cursors.append(first.cursor)
            for document in strange[number] if number < len(strange) else ():
                newest = max(message["seq"] for message in stored.messages.find(in_it | {"seq": {"$type": "int"}}))
                stored.messages.insert_one(document | ({"seq": newest + 1} if document.get("seq") == 0 else {}))
        told = [text for number in range(4) for text in (f"Question {number}?", f"Answer {number}.")]
        for client in (here, there):
            assert [message["content"] for message in await client.messages(conversation)] == told
            async with client.stream(conversation, headers={"Last-Event-ID": cursors[0]}) as again:
                for number in range(1, 4):
                    assert (await again.until("llm_complete")).data["content"] == f"Answer {number}."
        passed_over = await scrape(there.http)
        assert passed_over["chatstream_passed_over_total", "change"] >= 6
        assert passed_over["chatstream_passed_over_total", "document"] >= 3
    stored.messages.delete_many({"conversationId": {"$in": [known["_id"], 1, 2, None]}})


@pytest.mark.gen_test(timeout=120)
async def test_an_answer_that_waits_in_a_later_version_is_followed_and_no_other_begins(
    pair: tuple[Client, Client], upstream: Upstream, stored: Database[dict[str, Any]]
) -> None:
    here, there = pair
    upstream.reply(answer("So far"))
    upstream.reply(answer("Then this."))
    conversation = await here.create()
    async with here.stream(conversation) as watched:
        await here.post(conversation, "One?")
        ended = await watched.until("llm_complete")
    which = {"_id": ObjectId(ended.data["messageId"])}
    stored.messages.update_one(which, {"$set": {"status": "paused", "content": "So far", "schema": 9}})
    async with here.stream(conversation) as first, there.stream(conversation) as second:
        for client, stream in ((here, first), (there, second)):
            assert (await stream.until("llm_chunk")).data["content"] == "So far"
            refused = await client.post(conversation, "Two?")
            assert (refused.status_code, refused.json()["code"]) == (409, "answer_in_progress")
        assert (await there.post(conversation, "Two?", params={"ifBusy": "queue"})).status_code == 201
        assert len(upstream.calls) == 1
        end = {"status": "complete", "content": "So far, so good.", "writtenBy": "a later version#1"}
        stored.messages.update_one(which, {"$set": end})
        for stream in (first, second):
            assert (await stream.until("llm_complete")).data["content"] == "So far, so good."
            assert (await stream.until("user_message")).data["content"] == "Two?"
            assert (await stream.until("llm_complete")).data["content"] == "Then this."
    assert len(upstream.calls) == 2
