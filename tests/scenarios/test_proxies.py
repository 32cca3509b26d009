"""The proxies of ``conf/``, each a real one in front of real servers: a stream through them is as good as without."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import MakeClient, StartServer
from tests.support import exposition, node
from tests.support.client import API, PATIENCE, Client
from tests.support.processes import ServerProcess, free_port
from tests.support.program import program
from tests.support.proxies import RECIPES, Proxy, proxy
from tests.support.upstream import Do, Upstream, beginning, delta, ending, event, http_chunk

Pair = tuple[ServerProcess, ServerProcess]

pytestmark = pytest.mark.xdist_group("proxies")  # they share servers

EVENT_STREAM = {"Accept": "text/event-stream"}


def measured(server: ServerProcess, name: str) -> float:
    """One of its metrics."""
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
    """A proxy in front of the two."""
    directory = tmp_path_factory.mktemp(request.param) / "proxy"
    with proxy(request.param, directory, *(server.port for server in servers)) as running:
        yield running


@pytest.fixture
def client(through: Proxy, make_client: MakeClient) -> Client:
    """Somebody who knows only the proxy's address."""
    return make_client(through)


@pytest.mark.gen_test
async def test_nothing_is_held_back_and_a_cursor_gets_through(client: Client, upstream: Upstream) -> None:
    go_on, end = asyncio.Event(), asyncio.Event()
    upstream.reply(beginning("First"), go_on, http_chunk(event(delta(", second"))), end, ending())
    conversation = await client.create(initialMessage="Count.")
    async with client.stream(conversation) as watched:
        await watched.until("llm_chunk")  # which comes while the model says no more
    async with client.stream(conversation, headers={"Last-Event-ID": watched.cursor}) as again:
        assert (await again.next()).data["resumed"] is True
        go_on.set()
        await again.until("llm_chunk")
        end.set()
        assert (await again.until("llm_complete")).data["content"] == "First, second"
        assert watched.text + again.text == "First, second"


async def delay(client: Client, upstream: Upstream) -> float:
    """In seconds, the median from letting the model say a word to reading it."""
    words, took = [asyncio.Event() for _ in range(30)], []
    said = [step for word in words for step in (word, http_chunk(event(delta("word "))))]
    upstream.reply(beginning("First "), *said, ending())
    conversation = await client.create()
    async with client.stream(conversation) as watched:
        await client.post(conversation, "Count.")  # once it has a name, all of it is with one process
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
    """Where one is held back it is for 40 ms and more; without a proxy it takes one or two, on a busy machine some."""
    straight = await delay(make_client(servers[0]), upstream)
    assert await delay(client, upstream) < 15 * straight


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
        for server in servers:  # as soon as it has noticed who left in the tests before
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


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.gen_test
async def test_when_a_process_dies_its_viewers_come_back_to_the_other(
    name: str, start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path
) -> None:
    """npm's `eventsource` gives up on any status but 200, as the browsers' do."""
    node.install()
    first, second = start_server(ready=False), start_server(ready=False)
    ports = first.wait_until_ready().port, second.wait_until_ready().port
    upstream.reply(beginning("Before the end. "), Do.HANG)
    with proxy(name, tmp_path / name, *ports) as through:
        client = make_client(through)
        conversation = await client.create(initialMessage="Survive.")
        url = f"{through.url}{API}/{conversation}/stream?access_token={client.token}"
        async with program(*node.command("seed_example.mjs", url, "connected", "2")) as running:
            await running.read_until("llm_chunk")
            dying = first if measured(first, "streams_open") else second
            assert dying.process is not None
            dying.process.kill()
            await running.read_until("State: ")
    assert running.printed.count('"resumed":true') == 1
