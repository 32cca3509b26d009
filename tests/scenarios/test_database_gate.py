"""Many concurrent requests while the database is stopped or slow: each is answered in time, and no queue builds up."""

import asyncio
import json
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from tornado.ioloop import IOLoop

from tests.conftest import MakeClient, StartServer
from tests.stress.faults import FaultProxy
from tests.support.client import API, Client
from tests.support.data_directory import data_directory
from tests.support.processes import ServerProcess
from tests.support.replica_set import ReplicaSet

pytestmark = pytest.mark.xdist_group("database-gate")  # they share a database

# The contract: a request is answered within 5 s, whatever the database does; `/readyz` within 3 s.
ANSWERED, READY = 5.0, 3.0
MANY = 200
# Concurrent requests: few enough that even a busy machine serves them before the gate refuses waiting ones. Another
# test covers those refusals.
TOGETHER = 20


class Outcome(NamedTuple):
    """One request's answer, and how long it took."""

    status: int
    text: str
    retry_after: str | None
    seconds: float


class Crowd:
    """Many clients of one user. All connections are opened before the first request. Not httpx: sending 200 requests
    with it takes longer than the server may take to answer them.
    """

    def __init__(self, client: Client) -> None:
        self._port = urlsplit(client.url).port
        self._token = client.token
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def gather(self, count: int) -> None:
        """Open this many connections."""
        await asyncio.gather(*(self._connect() for _ in range(count)))

    async def _connect(self) -> None:
        # Kept here and not in the result of `gather`: if that is cancelled, nobody could close the open connections.
        self._free.append(await asyncio.open_connection("127.0.0.1", self._port))

    async def ask(self, method: str, path: str, body: object = None, accept: str = "*/*") -> Outcome:
        """Send one request over an unused connection, or over a new one."""
        while not self._free:
            await self.gather(1)  # another request may take the new connection first
        reader, writer = self._free.pop()
        content = b"" if body is None else json.dumps(body).encode()
        lines = [
            *(f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", f"Accept: {accept}"),
            *(f"Authorization: Bearer {self._token}", "Content-Type: application/json"),
            *(f"Content-Length: {len(content)}", "", ""),
        ]
        begun = time.monotonic()
        writer.write("\r\n".join(lines).encode() + content)
        try:
            reply = (await reader.read()).decode()
            seconds = time.monotonic() - begun
        finally:
            writer.transport.abort()
        retry_after = re.search(r"^Retry-After: (.+?)\r$", reply, re.MULTILINE)
        return Outcome(int(reply.split(" ", 2)[1]), reply, retry_after and retry_after[1], seconds)

    def close(self) -> None:
        """Close the unused connections."""
        for _, writer in self._free:
            writer.transport.abort()


@pytest.fixture(scope="module")
def mongo() -> Iterator[ReplicaSet]:
    """A database for this module alone, which the tests stop."""
    with data_directory() as directory, ReplicaSet(directory) as mongo:
        yield mongo


@pytest.fixture
def server(mongo: ReplicaSet, start_server: StartServer) -> ServerProcess:
    """A server on it."""
    return start_server(MONGODB_URI=mongo.uri, CHATSTREAM_STREAMS_PER_USER="1000")


@pytest.fixture
def client(server: ServerProcess, make_client: MakeClient) -> Client:
    """Its client."""
    return make_client(server)


@asynccontextmanager
async def crowd(client: Client, count: int = 0) -> AsyncIterator[Crowd]:
    """A `Crowd` with open connections."""
    crowd = Crowd(client)
    await crowd.gather(count)
    try:
        yield crowd
    finally:
        crowd.close()
        await asyncio.sleep(0)  # the transports close themselves in the next turn


class Beside:
    """A monitor that runs beside the requests. It requests `/readyz`; and `/healthz`, which needs no database, so its
    time shows how busy the machine is.
    """

    def __init__(self, http: Crowd) -> None:
        self.ready: list[Outcome] = []
        self.busy = 0.0
        self._http = http

    async def ask(self) -> None:
        """Send requests until cancelled."""
        while True:
            health, ready = await asyncio.gather(self._http.ask("GET", "/healthz"), self._http.ask("GET", "/readyz"))
            self.busy = max(self.busy, health.seconds)
            self.ready.append(ready)
            await asyncio.sleep(0.1)  # the pause of a load balancer


@asynccontextmanager
async def beside(http: Crowd) -> AsyncIterator[Beside]:
    """Run the monitor while the context is open."""
    beside = Beside(http)
    asking = asyncio.create_task(beside.ask())
    try:
        yield beside
    finally:
        asking.cancel()
        await asyncio.wait((asking,))


async def seconds_of_all(http: Crowd, path: str) -> float:
    """Seconds that this machine now takes for this many requests without a fault; added to each bound. An idle machine
    takes a fraction of a second.
    """
    begun = time.monotonic()
    await asyncio.gather(*(http.ask("GET", path) for _ in range(MANY)))
    return time.monotonic() - begun


async def recovered(within: float, request: Callable[[], Awaitable[Outcome]]) -> None:
    """Repeat until it succeeds."""
    async with asyncio.timeout(within):
        while (await request()).status >= 500:
            await asyncio.sleep(0.05)  # between two requests


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.gen_test(timeout=120)
async def test_with_a_stopped_database_all_of_many_requests_are_refused_in_time(
    client: Client, mongo: ReplicaSet, method: str
) -> None:
    conversation = await client.create()
    async with crowd(client, 2 * MANY) as http:
        slowness = await seconds_of_all(http, f"{API}/{conversation}")
        mongo.nodes[0].signal(signal.SIGSTOP)
        try:
            path = f"{API}/{conversation}/messages"
            body = {"content": "Store this."} if method == "POST" else None
            async with beside(http) as monitor:
                outcomes = await asyncio.gather(*(http.ask(method, path, body) for _ in range(MANY)))
            assert {outcome.status for outcome in outcomes} == {503}
            assert all(int(outcome.retry_after or 0) >= 1 for outcome in outcomes)
            assert max(outcome.seconds for outcome in outcomes) < ANSWERED + monitor.busy + slowness
            assert {outcome.status for outcome in monitor.ready} == {503}
            assert max(outcome.seconds for outcome in monitor.ready) < READY + monitor.busy + slowness
            # By now the server knows that the database is gone.
            assert (await http.ask(method, path, body)).seconds < 1 + monitor.busy + slowness
        finally:
            mongo.nodes[0].signal(signal.SIGCONT)
        for path in ("/readyz", f"{API}/{conversation}/messages"):
            await recovered(ANSWERED + monitor.busy + slowness, partial(http.ask, "GET", path))
        for _ in range(MANY // TOGETHER):
            again = await asyncio.gather(*(http.ask("GET", f"{API}/{conversation}") for _ in range(TOGETHER)))
            assert {outcome.status for outcome in again} == {200}


@pytest.mark.gen_test(timeout=120)
async def test_with_a_stopped_database_all_of_many_streams_are_refused_so_that_an_event_source_survives_it(
    client: Client, mongo: ReplicaSet
) -> None:
    conversation = await client.create()
    async with crowd(client, 2 * MANY) as http:
        slowness = await seconds_of_all(http, f"{API}/{conversation}")
        mongo.nodes[0].signal(signal.SIGSTOP)
        try:
            async with beside(http) as monitor:
                outcomes = await asyncio.gather(
                    *(http.ask("GET", f"{API}/{conversation}/stream", accept="text/event-stream") for _ in range(MANY))
                )
            assert {outcome.status for outcome in outcomes} == {200}
            assert all('"storage_unavailable"' in outcome.text for outcome in outcomes)
            assert all("retry: " in outcome.text for outcome in outcomes)
            assert max(outcome.seconds for outcome in outcomes) < ANSWERED + monitor.busy + slowness
            assert {outcome.status for outcome in monitor.ready} == {503}
        finally:
            mongo.nodes[0].signal(signal.SIGCONT)
        await recovered(ANSWERED + monitor.busy + slowness, lambda: http.ask("GET", f"{API}/{conversation}"))
        async with client.stream(conversation) as watched:
            assert (await watched.next()).type == "connected"


@pytest.mark.gen_test(timeout=120)
async def test_an_idle_server_whose_database_stops_says_in_time_that_it_is_not_ready(
    client: Client, mongo: ReplicaSet
) -> None:
    async with crowd(client, MANY) as http:
        slowness = await seconds_of_all(http, API)
        assert (await http.ask("GET", "/readyz")).status == 200
        mongo.nodes[0].signal(signal.SIGSTOP)
        try:
            first = await http.ask("GET", "/readyz")
            assert (first.status, first.seconds < READY + slowness) == (503, True)
            # A new request is refused at once, without waiting for the database.
            refused = await http.ask("GET", API)
            assert (refused.status, refused.seconds < 1 + slowness) == (503, True)
        finally:
            mongo.nodes[0].signal(signal.SIGCONT)
        await recovered(ANSWERED + slowness, lambda: http.ask("GET", "/readyz"))
        assert (await http.ask("GET", API)).status == 200


@pytest.mark.gen_test(timeout=120)
async def test_what_a_transaction_held_when_the_database_stopped_is_let_go(client: Client, mongo: ReplicaSet) -> None:
    """MongoDB itself would hold it for a minute."""
    conversations = [await client.create() for _ in range(20)]
    async with crowd(client) as http:

        async def post(conversation: str) -> Outcome:
            return await http.ask("POST", f"{API}/{conversation}/messages?ifBusy=queue", {"content": "Hold."})

        posts = [asyncio.create_task(post(conversation)) for conversation in conversations * 3]
        await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
        mongo.nodes[0].signal(signal.SIGSTOP)
        try:
            await asyncio.wait(posts)
        finally:
            mongo.nodes[0].signal(signal.SIGCONT)
        await asyncio.gather(*(recovered(15, partial(post, id_)) for id_ in conversations))


@pytest.mark.gen_test(timeout=120)
async def test_told_to_end_just_when_the_database_stops_the_server_ends(
    mongo: ReplicaSet, start_server: StartServer
) -> None:
    server = start_server(MONGODB_URI=mongo.uri)
    mongo.nodes[0].signal(signal.SIGSTOP)
    try:
        server.signal(signal.SIGTERM)
        assert await server.ended() == 0
    finally:
        mongo.nodes[0].signal(signal.SIGCONT)


@pytest.fixture
def slow(io_loop: IOLoop, mongo: ReplicaSet) -> Iterator[FaultProxy]:
    """A proxy in front of the database that can be made slow."""
    proxy = io_loop.run_sync(FaultProxy(lambda: mongo.nodes[0].port).start)
    yield proxy

    async def close() -> None:
        await proxy.close()
        await asyncio.sleep(0)  # the transports close themselves in the next turn

    io_loop.run_sync(close)


@pytest.mark.gen_test(timeout=180)
async def test_before_a_slow_database_nothing_piles_up(
    slow: FaultProxy, start_server: StartServer, make_client: MakeClient
) -> None:
    uri = f"mongodb://127.0.0.1:{slow.port}/?directConnection=true"
    server = start_server(MONGODB_URI=uri, ready=False)
    await asyncio.to_thread(server.wait_until_ready)
    client = make_client(server)
    async with crowd(client, 500) as http:
        conversation = await client.create()
        slowness = await seconds_of_all(http, f"{API}/{conversation}")
        slow.delay(0.15)  # seconds, in each direction
        paths = [f"{API}/{conversation}", f"{API}/{conversation}/messages", API]
        async with beside(http) as monitor:
            outcomes = await asyncio.gather(*(http.ask("GET", paths[number % 3]) for number in range(500)))
        statuses = Counter(outcome.status for outcome in outcomes)
        assert statuses.keys() == {200, 503}
        assert max(outcome.seconds for outcome in outcomes) < ANSWERED + monitor.busy + slowness
        assert all(int(outcome.retry_after or 0) >= 1 for outcome in outcomes if outcome.status == 503)
        # Requests after the flood are served, although the database is still slow.
        await recovered(ANSWERED + monitor.busy + slowness, lambda: http.ask("GET", paths[1]))
        assert (await client.post(conversation, "Is it slow?")).status_code == 201
        slow.heal()
        assert {(await http.ask("GET", path)).status for path in paths} == {200}
    await asyncio.to_thread(server.stop)  # while the proxy still runs, which then closes its connections
