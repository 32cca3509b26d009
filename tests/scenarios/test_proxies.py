"""The proxies of ``conf/``, real ones in front of real servers: a stream through a proxy works as well as without
one.
"""

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import MakeClient, StartServer
from tests.support import exposition, node
from tests.support.client import API, PATIENCE, Client, Stream
from tests.support.processes import ServerProcess, free_port
from tests.support.program import program
from tests.support.proxies import RECIPES, Proxy, proxy
from tests.support.upstream import Do, Upstream, answer, beginning, delta, ending, event, http_chunk

Pair = tuple[ServerProcess, ServerProcess]

pytestmark = pytest.mark.xdist_group("proxies")  # they share servers

EVENT_STREAM = {"Accept": "text/event-stream"}


def measured(server: ServerProcess, name: str) -> float:
    """The value of one of the server's metrics."""
    return exposition.samples(httpx.get(f"{server.url}/metrics").text)[f"chatstream_{name}",]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Pair]:
    """Two processes on one database."""
    directory, settings = tmp_path_factory.mktemp("servers"), environment | {"MONGODB_DATABASE": "proxies"}
    first, second = ServerProcess(directory, settings).start(), ServerProcess(directory, settings).start()
    yield first.wait_until_ready(), second.wait_until_ready()
    assert first.stop() == second.stop() == 0


@pytest.fixture(scope="module", params=RECIPES)
def through(request: pytest.FixtureRequest, servers: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy in front of both servers."""
    directory = tmp_path_factory.mktemp(request.param) / "proxy"
    with proxy(request.param, directory, *(server.port for server in servers)) as running:
        yield running


@pytest.fixture
def client(through: Proxy, make_client: MakeClient) -> Client:
    """A client that only knows the proxy's address."""
    return make_client(through)


@pytest.mark.gen_test
async def test_nothing_is_held_back_and_a_cursor_gets_through(client: Client, upstream: Upstream) -> None:
    go_on, end = asyncio.Event(), asyncio.Event()
    upstream.reply(beginning("First"), go_on, http_chunk(event(delta(", second"))), end, ending())
    conversation = await client.create(initialMessage="Count.")
    async with client.stream(conversation) as watched:
        await watched.until("llm_chunk")  # it arrives while the model sends nothing more
    async with client.stream(conversation, headers={"Last-Event-ID": watched.cursor}) as again:
        assert (await again.next()).data["resumed"] is True
        go_on.set()
        await again.until("llm_chunk")
        end.set()
        assert (await again.until("llm_complete")).data["content"] == "First, second"
        assert watched.text + again.text == "First, second"


async def delay(client: Client, upstream: Upstream) -> float:
    """The median delay, in seconds, from letting the model send a word to reading it."""
    words, took = [asyncio.Event() for _ in range(30)], []
    said = [step for word in words for step in (word, http_chunk(event(delta("word "))))]
    upstream.reply(beginning("First "), *said, ending())
    conversation = await client.create()
    async with client.stream(conversation) as watched:
        await client.post(conversation, "Count.")  # with an id, all requests of the conversation go to one process
        await watched.until("llm_chunk")
        for word in words:
            begun = time.perf_counter()
            word.set()
            await watched.until("llm_chunk")
            took.append(time.perf_counter() - begun)
        await watched.until("llm_complete")
    return statistics.median(took)


@pytest.mark.gen_test
async def test_no_frame_waits_for_the_next_one(
    servers: Pair, client: Client, make_client: MakeClient, upstream: Upstream
) -> None:
    """If a proxy holds back a frame, it takes 40 ms or more; without a proxy one or two ms, on a busy machine some
    more.
    """
    straight = await delay(make_client(servers[0]), upstream)
    assert await delay(client, upstream) < 0.02 + 15 * straight


@pytest.mark.gen_test
async def test_the_server_is_told_that_the_last_viewer_left(client: Client, upstream: Upstream) -> None:
    upstream.reply(beginning("So far"), Do.HANG)
    conversation = await client.create()
    async with client.stream(conversation) as watched:
        await client.post(conversation, "Tell me.")
        await watched.until("llm_chunk")
    async with asyncio.timeout(PATIENCE):
        await upstream.calls[0].aborted.wait()
    assert (await client.answer(conversation))["status"] == "interrupted"


@pytest.mark.gen_test
async def test_a_conversation_and_all_who_watch_it_are_with_one_process(
    servers: Pair, client: Client, make_client: MakeClient, upstream: Upstream
) -> None:
    upstream.reply(beginning("So far"), Do.HANG)
    queries: tuple[dict[str, str], ...] = ({}, {"access_token": client.token}, {"last_event_id": "none-such"})
    streams = []
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            conversation = await client.create()
            for query in queries:
                streams.append(await stack.enter_async_context(client.stream(conversation, params=query)))
                await streams[-1].next()
            await client.post(conversation, "Tell me.")
            await streams[-1].until("llm_chunk")
        for server in servers:  # until the server has noticed that the clients of earlier tests have left
            await exposition.eventually(
                make_client(server).http,
                lambda exposed: (
                    exposed["chatstream_streams_open",] == len(queries) * exposed["chatstream_answers_running",]
                ),
            )
    await client.stop_all()


def test_metrics_are_for_operators(through: Proxy) -> None:
    assert httpx.get(f"{through.url}/readyz").status_code == 200
    assert httpx.get(f"{through.url}/metrics").status_code == 404


@pytest.mark.parametrize("name", RECIPES)
def test_while_no_server_is_up_an_event_source_is_told_to_come_back(name: str, tmp_path: Path) -> None:
    with proxy(name, tmp_path / name, free_port()) as alone:
        stream = f"{alone.url}{API}/123/stream?access_token=eyJhbGciOiJIUzI1NiJ9.secret"
        told = httpx.get(stream, headers=EVENT_STREAM)
        assert (told.status_code, told.text) == (200, "retry: 1500\n\n")
        assert told.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert told.headers["cache-control"] == "no-cache, no-store, no-transform"
        for others in (httpx.get(stream), httpx.post(f"{alone.url}{API}", headers=EVENT_STREAM)):
            assert others.status_code in (502, 503)
        assert httpx.get(stream).headers["retry-after"] == "2"


async def connected(stack: contextlib.AsyncExitStack, client: Client, conversation: str, cursor: str = "") -> Stream:
    """Open a stream as an `EventSource` does, which tries again and gives up on any status but 200."""
    headers = {"Last-Event-ID": cursor} if cursor else {}
    async with asyncio.timeout(PATIENCE):
        while True:
            attempt = contextlib.AsyncExitStack()
            stream = await attempt.enter_async_context(client.stream(conversation, headers=headers))
            assert stream.response.status_code == 200
            # httpx-sse makes an event without data of the proxy's `retry:` line.
            with contextlib.suppress(StopAsyncIteration, httpx.RemoteProtocolError, json.JSONDecodeError):
                await stream.next()
                stack.push_async_exit(attempt)
                return stream
            await attempt.aclose()
            await asyncio.sleep(0.2)  # the proxy asks for a retry; there is no event to wait for in it


async def both_watch_at(
    stack: contextlib.AsyncExitStack, server: ServerProcess, client: Client, before: int
) -> tuple[str, list[Stream]]:
    """Two streams of a conversation that the proxy sends to `server`, which already has `before` streams."""
    while True:
        attempt = contextlib.AsyncExitStack()
        conversation = await client.create()
        watching = [await connected(attempt, client, conversation) for _ in range(2)]
        if (there := measured(server, "streams_open") - before) != 0:
            assert there == 2
            stack.push_async_exit(attempt)
            return conversation, watching
        await attempt.aclose()


@pytest.mark.gen_test(timeout=110)
async def test_when_a_process_dies_those_who_watch_meet_at_the_other_and_go_on_exactly(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path
) -> None:
    """All three proxies in one test, since it takes a while until the database shows that the process is dead."""
    dying, staying = start_server(ready=False), start_server(ready=False)
    ports = dying.wait_until_ready().port, staying.wait_until_ready().port
    for _ in RECIPES:
        upstream.reply(beginning("Before the end. "), Do.HANG)
    upstream.reply(answer("After it."))
    async with contextlib.AsyncExitStack() as stack:
        watched: list[tuple[Client, str, list[Stream]]] = []
        for name in RECIPES:
            client = make_client(stack.enter_context(proxy(name, tmp_path / name, *ports)))
            conversation, streams = await both_watch_at(stack, dying, client, 2 * len(watched))
            await client.post(conversation, "Survive.")
            for stream in streams:
                await stream.until("llm_chunk")
            await client.saved(conversation)
            watched.append((client, conversation, streams))
        await dying.kill()
        back: list[Stream] = []  # keeps the streams open
        for client, conversation, streams in watched:
            back += [await connected(stack, client, conversation, stream.cursor) for stream in streams]
            for stream in back[-2:]:
                assert stream.frames[0].data["resumed"] is True
                cut = await stream.until("llm_complete")
                assert (cut.data["status"], cut.data["content"]) == ("interrupted", "Before the end. ")
                assert stream.text == ""  # no text is repeated
                new = await stream.until("llm_complete")
                assert (new.data["attempt"], new.data["content"]) == (2, "After it.")
                assert stream.text == "After it."
        assert measured(staying, "streams_open") == 2 * len(watched)
    assert len(upstream.calls) == 2 * len(RECIPES)


@pytest.mark.gen_test
async def test_npms_event_source_comes_back_through_a_proxy(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path
) -> None:
    """This client gives up on any status but 200, as browsers do."""
    node.install()
    server = start_server()
    with proxy("nginx", tmp_path / "nginx", server.port) as through:
        client = make_client(through)
        conversation = await client.create()
        url = f"{through.url}{API}/{conversation}/stream?access_token={client.token}"
        async with program(*node.command("seed_example.mjs", url, "connected", "2")) as running:
            await running.read_until('"connected"')
            await server.kill()
            start_server(server.port, ready=False)
            await running.read_until("State: ")
