"""Connections to the model, as its endpoint sees them. `test_openai_model` tests the answers."""

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme
import uvloop
from tornado.ioloop import IOLoop
from tornado.platform.asyncio import AsyncIOLoop

from chatstream.llm import transport as transport_module
from chatstream.llm.transport import MalformedResponse, Transport
from tests.stress.faults import FaultProxy
from tests.support.client import PATIENCE
from tests.support.listening import listening
from tests.support.upstream import END, Do, Step, Upstream, head, http_chunk, silent

WHOLE = head() + http_chunk(b"whole") + END
LARGE = b"x" * 2_000_000
FLOOD = http_chunk(b"x" * 1_000_000)

Connect = Callable[..., httpx2.AsyncClient]


async def in_parts() -> AsyncIterator[bytes]:
    """A request's body without a known length."""
    yield b"part"


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def io_loop(request: pytest.FixtureRequest) -> Iterator[IOLoop]:
    """Each event loop that a server can use."""
    loop = AsyncIOLoop(asyncio_loop=request.param())
    loop.make_current()
    yield loop
    loop.clear_current()
    loop.close(all_fds=True)


@pytest.fixture
def connect(io_loop: IOLoop) -> Iterator[Connect]:
    """A function that makes clients with a `Transport`."""
    clients = []

    def connect(keepalive: float = 3600) -> httpx2.AsyncClient:
        clients.append(
            httpx2.AsyncClient(transport=Transport(keepalive=keepalive, on_repeat=lambda: None), timeout=PATIENCE)
        )
        return clients[-1]

    yield connect
    for client in clients:
        io_loop.run_sync(client.aclose)


async def post(client: httpx2.AsyncClient, url: str) -> bytes:
    """The body of a response."""
    return (await client.post(url, json={})).content


async def closed(upstream: Upstream, number: int) -> None:
    """Wait until only this many connections are open."""
    async with asyncio.timeout(PATIENCE):
        while upstream.open > number:
            await asyncio.sleep(0)


@pytest.mark.gen_test
async def test_a_request_as_it_is_sent(upstream: Upstream, connect: Connect) -> None:
    upstream.reply(WHOLE)
    response = await connect().post(f"{upstream.url}/a%20b?c=d", json={"e": "f"}, headers={"X-Key": "a: b"})
    assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream")
    [call] = upstream.calls
    assert call.request_line == "POST /v1/a%20b?c=d HTTP/1.1"
    assert call.headers["host"] == httpx2.URL(upstream.url).netloc.decode()
    assert call.headers["x-key"] == "a: b"
    assert call.body == {"e": "f"}


@pytest.mark.parametrize("name", ["X-Key", "X-Key\r\nX-Forged"])
@pytest.mark.parametrize("value", ["a\r\nX-Forged: b", "a\nb", "a\0b"])
@pytest.mark.gen_test
async def test_no_header_smuggles_another_one(upstream: Upstream, connect: Connect, name: str, value: str) -> None:
    with pytest.raises(httpx2.LocalProtocolError) as raised:
        await connect().post(upstream.url, json={}, headers={name: value})
    assert "Forged" not in str(raised.value)
    assert upstream.calls == []


@pytest.mark.parametrize(
    ("steps", "connections"),
    [
        pytest.param([WHOLE], [1, 1], id="chunked"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole"], [1, 1], id="a length"),
        pytest.param([WHOLE[:-2] + b"X-Trailer: a\r\n\r\n"], [1, 1], id="trailers"),
        pytest.param([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n" + WHOLE], [1, 1], id="1xx"),
        pytest.param([bytes([byte]) for byte in WHOLE], [1, 1], id="byte by byte"),
        pytest.param([WHOLE.replace(b"\r\n\r\n", b"\n\n", 1)], [1, 1], id="bare line feeds"),
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\nwho", b"le", Do.CLOSE], [1, 2], id="up to the end of the connection"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nwhole", Do.CLOSE],
            [1, 2],
            id="a coding without end",
        ),
        pytest.param([head(Connection="close") + WHOLE.partition(b"\r\n\r\n")[2]], [1, 2], id="not to be kept"),
        pytest.param([b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nwhole"], [1, 2], id="HTTP/1.0"),
        pytest.param([WHOLE + b"HTTP/1.1 200 OK\r\n"], [1, 2], id="more than was asked for"),
        pytest.param([WHOLE + WHOLE.replace(b"200", b"500")], [1, 2], id="two responses"),
    ],
)
@pytest.mark.gen_test
async def test_a_body_and_its_connection(
    upstream: Upstream, connect: Connect, steps: list[Step], connections: list[int]
) -> None:
    upstream.reply(*steps)
    client = connect()
    for _ in connections:
        assert await post(client, upstream.url) == b"whole"
    assert [call.connection for call in upstream.calls] == connections


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        pytest.param([b"SSH-2.0-OpenSSH\r\n\r\n", Do.HANG], MalformedResponse, id="not HTTP"),
        pytest.param([b"HTTP/1.1 101 No\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"], MalformedResponse, id="101"),
        pytest.param([b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000, Do.HANG], MalformedResponse, id="an endless head"),
        pytest.param([b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000, Do.HANG], MalformedResponse, id="endless headers"),
        pytest.param([b"HTTP/1.1 000 No\r\nContent-Length: 0\r\n\r\n", Do.HANG], MalformedResponse, id="no status"),
        pytest.param([head(), b"zz\r\n", Do.HANG], MalformedResponse, id="bad framing"),
        pytest.param([head(), b"0\r\nA: " + b"b" * 70_000, Do.HANG], MalformedResponse, id="an endless trailer"),
        pytest.param([Do.CLOSE], httpx2.ReadError, id="closed"),
        pytest.param([head(), http_chunk(b"a"), Do.CLOSE], httpx2.ReadError, id="closed in the body"),
        pytest.param([head(), http_chunk(b"a"), Do.RESET], httpx2.ReadError, id="reset in the body"),
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\na", Do.RESET], httpx2.ReadError, id="reset, not closed"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na", Do.CLOSE], httpx2.ReadError, id="too short"),
    ],
)
@pytest.mark.gen_test
async def test_a_response_that_breaks_off(
    upstream: Upstream, connect: Connect, steps: list[Step], error: type[Exception]
) -> None:
    upstream.reply(*steps)
    with pytest.raises(error):
        await post(connect(), upstream.url)
    await closed(upstream, 0)


@pytest.mark.parametrize(
    ("method", "url", "options"),
    [
        ("POST", "ftp://model.test/", {}),
        ("HEAD", "http://model.test/", {}),
        ("POST", "http://model.test/", {"content": in_parts()}),
    ],
)
@pytest.mark.gen_test
async def test_what_it_cannot_send(connect: Connect, method: str, url: str, options: dict[str, Any]) -> None:
    with pytest.raises(httpx2.UnsupportedProtocol):
        await connect().request(method, url, **options)


@pytest.mark.gen_test
async def test_an_idle_connection_that_its_endpoint_closes(upstream: Upstream, connect: Connect) -> None:
    upstream.reply(WHOLE, Do.CLOSE)
    client = connect()
    for _ in range(2):
        assert await post(client, upstream.url) == b"whole"
        await closed(upstream, 0)
    assert [call.connection for call in upstream.calls] == [1, 2]


@pytest.mark.gen_test
async def test_a_request_that_is_lost_on_an_idle_connection_is_repeated_once(
    upstream: Upstream, connect: Connect
) -> None:
    """However many other connections are idle: it may be the request that the endpoint fails at."""
    for _ in range(3):
        upstream.reply(WHOLE)
    upstream.reply(Do.CLOSE)
    client = connect()
    await asyncio.gather(*(post(client, upstream.url) for _ in range(3)))
    with pytest.raises(httpx2.ReadError):
        await post(client, upstream.url)
    assert len(upstream.calls) == 5
    assert upstream.calls[-1].connection == 4  # a new one


@pytest.mark.gen_test
async def test_a_request_that_the_endpoint_may_have_worked_on_is_not_repeated(
    upstream: Upstream, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "_CLOSED_BEFORE_ARRIVAL", 0.0)
    upstream.reply(WHOLE)
    upstream.reply(Do.CLOSE)
    client = connect()
    assert await post(client, upstream.url) == b"whole"
    with pytest.raises(httpx2.ReadError):
        await post(client, upstream.url)
    assert len(upstream.calls) == 2


@pytest.mark.gen_test
async def test_an_idle_connection_on_which_something_comes(upstream: Upstream, connect: Connect) -> None:
    late = asyncio.Event()
    upstream.reply(WHOLE, late, b"HTTP/1.1 408 Request Timeout\r\n\r\n", Do.HANG)
    client = connect()
    assert await post(client, upstream.url) == b"whole"
    late.set()
    await closed(upstream, 0)
    assert await post(client, upstream.url) == b"whole"


@pytest.mark.gen_test
async def test_an_idle_connection_is_not_kept_for_ever(upstream: Upstream, connect: Connect) -> None:
    upstream.reply(WHOLE)
    client = connect(keepalive=0.05)
    assert await post(client, upstream.url) == b"whole"
    await closed(upstream, 0)
    assert await post(client, upstream.url) == b"whole"


@pytest.mark.gen_test
async def test_connections_that_are_busy_together_are_idle_together(upstream: Upstream, connect: Connect) -> None:
    client = connect()
    upstream.reply(WHOLE)
    for _ in range(2):
        bodies = await asyncio.gather(*(post(client, upstream.url) for _ in range(20)))
        assert bodies == [b"whole"] * 20
    assert upstream.open == 20
    await client.aclose()
    await closed(upstream, 0)


@pytest.mark.gen_test
async def test_a_connection_whose_request_was_answered_too_early(connect: Connect) -> None:
    """The rest of a large request would be sent before the next one."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(WHOLE)
        await asyncio.Event().wait()

    accepted: list[asyncio.StreamWriter] = []
    client = connect()
    async with listening(refuse) as port:
        for _ in range(2):
            response = await client.post(f"http://127.0.0.1:{port}", content=b"x" * 20_000_000)
            assert response.content == b"whole"
        assert len(accepted) == 2
        await client.aclose()


@pytest.mark.gen_test
async def test_a_response_that_is_closed_twice(upstream: Upstream, connect: Connect) -> None:
    """At the second time its connection has another response."""
    upstream.reply(WHOLE)
    go_on = asyncio.Event()
    upstream.reply(go_on, WHOLE)
    client = connect()
    response = await client.post(upstream.url, json={})
    reading = asyncio.create_task(post(client, upstream.url))
    await upstream.until_called(2)
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    await response.stream.aclose()
    go_on.set()
    assert await reading == b"whole"
    assert [call.connection for call in upstream.calls] == [1, 1]


@pytest.mark.gen_test
async def test_nothing_is_left_for_the_garbage_collector(upstream: Upstream, connect: Connect) -> None:
    upstream.reply(WHOLE)
    client = connect()
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            await post(client, upstream.url)
        left = [it for it in gc.get_objects() if type(it) is transport_module._Response]
    finally:
        gc.enable()
    assert left == []


@pytest.mark.gen_test
async def test_closing_it_ends_what_is_being_connected(
    upstream: Upstream, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve() -> list[Any]:
        asked.set()
        await answer.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", httpx2.URL(upstream.url).port))]

    asked, answer = asyncio.Event(), asyncio.Event()
    resolving(monkeypatch, resolve)
    client = connect()
    connecting = asyncio.create_task(post(client, "http://model.test/v1"))
    await asked.wait()
    await client.aclose()
    answer.set()
    with pytest.raises(httpx2.ConnectError):
        await connecting
    await closed(upstream, 0)
    assert upstream.calls == []


@pytest.mark.parametrize("steps", [[Do.HANG], [head(), Do.HANG], [b"HTTP/1.1 200 OK\r\n\r\nwho", Do.HANG]])
@pytest.mark.gen_test
async def test_closing_it_ends_what_is_being_read(upstream: Upstream, connect: Connect, steps: list[Step]) -> None:
    upstream.reply(*steps)
    client = connect()
    reading = asyncio.create_task(post(client, upstream.url))
    await upstream.until_called()
    await upstream.calls[0].hanging.wait()
    await client.aclose()
    with pytest.raises(httpx2.ReadError):
        await reading


@pytest.mark.parametrize("steps", [[Do.HANG], [head(), Do.HANG]])
@pytest.mark.gen_test
async def test_who_is_cancelled_leaves_no_connection(upstream: Upstream, connect: Connect, steps: list[Step]) -> None:
    upstream.reply(*steps)
    reading = asyncio.create_task(post(connect(), upstream.url))
    await upstream.until_called()
    await upstream.calls[0].hanging.wait()
    reading.cancel()
    await asyncio.wait({reading})
    assert reading.cancelled()
    await upstream.calls[0].aborted.wait()
    await closed(upstream, 0)


@pytest.mark.gen_test
async def test_an_endpoint_waits_for_a_slow_reader(upstream: Upstream, connect: Connect) -> None:
    client = connect()
    upstream.reply(head(), *[FLOOD] * 64, END, Do.HANG)
    upstream.reply(WHOLE)
    async with client.stream("POST", upstream.url, json={}) as response:
        parts = response.aiter_raw()
        size = len(await anext(parts))
        for _ in range(50):  # run the loop for a while: the flood is not read
            assert await post(client, upstream.url) == b"whole"
        assert not upstream.calls[0].hanging.is_set()
        async for part in parts:
            assert len(part) < 6_000_000
            size += len(part)
    assert size == 64_000_000


@pytest.mark.gen_test
async def test_a_reader_who_leaves_in_the_middle(upstream: Upstream, connect: Connect) -> None:
    upstream.reply(head(), *[FLOOD] * 64, END)
    async with connect().stream("POST", upstream.url, json={}) as response:
        await anext(response.aiter_raw())
    await upstream.calls[0].aborted.wait()
    await closed(upstream, 0)


@pytest.mark.gen_test
async def test_a_reader_who_leaves_before_a_large_end(
    upstream: Upstream, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole response has arrived, but reading was paused for its size. That must not delay the next response."""
    monkeypatch.setattr(transport_module, "_MAX_HELD_BYTES", 3)
    client = connect()
    upstream.reply(WHOLE)
    upstream.reply(WHOLE)
    async with client.stream("POST", upstream.url, json={}):
        pass
    assert await post(client, upstream.url) == b"whole"


@pytest.mark.gen_test
async def test_the_second_address_is_tried_while_the_first_is_silent(
    upstream: Upstream, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host with a broken IPv6 is common; here its first address has a full backlog."""
    upstream.reply(WHOLE)
    port = httpx2.URL(upstream.url).port
    monkeypatch.setattr(transport_module, "_NEXT_ADDRESS_AFTER", 0.01)
    with silent() as address:
        resolved = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", where) for where in (address, ("127.0.0.1", port))]
        resolving(monkeypatch, lambda: asyncio.sleep(0, resolved))
        assert await post(connect(), "http://model.test/v1") == b"whole"


@pytest.mark.parametrize("name", ["model.invalid", "a..b", "a" * 64 + ".test"])
@pytest.mark.gen_test
async def test_a_name_that_nobody_has(connect: Connect, name: str) -> None:
    with pytest.raises(httpx2.ConnectError):
        await post(connect(), f"http://{name}/v1")


@pytest.mark.gen_test
async def test_an_address_that_is_too_slow(connect: Connect) -> None:
    with silent() as (host, port), pytest.raises(httpx2.ConnectTimeout):
        await connect().post(f"http://{host}:{port}", json={}, timeout=0.01)


def resolving(monkeypatch: pytest.MonkeyPatch, resolve: Callable[[], Awaitable[Any]]) -> None:
    """Resolve `model.test` to the addresses from `resolve`."""
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> Awaitable[Any]:
        return resolve() if host == "model.test" else real(host, *arguments, **options)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)


# TLS ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[trustme.CA], None]:
    """Trust only this certificate authority."""

    def trust(authority: trustme.CA) -> None:
        authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))

    return trust


@contextlib.asynccontextmanager
async def behind_tls(upstream: Upstream, certificate: trustme.LeafCert) -> AsyncIterator[str]:
    """The URL of a TLS endpoint that passes the decrypted bytes on to `upstream`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    certificate.configure_cert(context)
    proxy = await FaultProxy(lambda: httpx2.URL(upstream.url).port or 0).start(context)
    yield f"https://localhost:{proxy.port}"
    await proxy.close()


@pytest.mark.parametrize(
    ("steps", "body", "connections"),
    [
        pytest.param([WHOLE], b"whole", [1, 1], id="chunked"),
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\nwho", b"le", Do.CLOSE], b"whole", [1, 2], id="up to the end"),
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\n" + LARGE, Do.CLOSE], LARGE, [1, 2], id="large, up to the end"),
        pytest.param([head(Connection="close") + http_chunk(LARGE) + END, Do.CLOSE], LARGE, [1, 2], id="large, closed"),
    ],
)
@pytest.mark.gen_test
async def test_tls(
    upstream: Upstream,
    connect: Connect,
    authority: trustme.CA,
    trust: Callable[[trustme.CA], None],
    steps: list[Step],
    body: bytes,
    connections: list[int],
) -> None:
    trust(authority)
    upstream.reply(*steps)
    async with behind_tls(upstream, authority.issue_cert("localhost")) as url:
        client = connect()
        for _ in connections:
            assert await post(client, url) == body
        await client.aclose()
        await closed(upstream, 0)
    assert [call.connection for call in upstream.calls] == connections


@pytest.mark.parametrize("host", ["localhost", "another.test"], ids=["an unknown authority", "another host"])
@pytest.mark.gen_test
async def test_tls_that_cannot_be_trusted(
    upstream: Upstream, connect: Connect, authority: trustme.CA, trust: Callable[[trustme.CA], None], host: str
) -> None:
    trust(trustme.CA() if host == "localhost" else authority)
    async with behind_tls(upstream, authority.issue_cert(host)) as url:
        with pytest.raises(httpx2.ConnectError):
            await post(connect(), url)
    assert upstream.calls == []
