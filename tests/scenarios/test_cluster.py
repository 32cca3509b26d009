"""Two processes on one database: what happens in one is seen in the other."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.conftest import MakeClient, StartServer
from tests.support.client import API, Client
from tests.support.processes import ServerProcess
from tests.support.upstream import Do, Upstream, answer, beginning, delta, ending, event, http_chunk


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
    """One user's clients of the two."""
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
    # That process has no checkpoint yet of what was received here: the cursor lies beyond what the other one knows.
    async with there.stream(conversation, headers={"Last-Event-ID": first.cursor}) as second:
        assert (await second.next()).data["resumed"] is True
        go_on.set()
        assert (await second.until("llm_complete")).data["content"] == first.text + second.text


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
        assert first.process is not None
        first.process.kill()
        interrupted = await watched.until("llm_complete")
        assert (interrupted.data["status"], interrupted.data["content"]) == ("interrupted", "Before the end. ")
        complete = await watched.until("llm_complete")
        assert (complete.data["content"], complete.data["attempt"]) == ("After it.", 2)
