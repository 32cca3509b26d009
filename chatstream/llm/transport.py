"""How requests reach the model: HTTP/1.1 (RFC 9112) on asyncio's transports, parsed by httptools.

A transport is httpx2's own seam, and whatever the openai package does stands above it. This one is here for what a
server of streams spends its time on: a response that arrives in hundreds of small pieces. Beside aiohttp's, the faster
of the two that openai brings, a chunk costs 17 % less CPU of the whole server, or 11 % if each comes alone.
"""

import asyncio
import socket
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Final, cast

import aiohappyeyeballs
import httptools
import httpx2

# As others have it: more than any server sends, and nothing to fill the memory with.
_MAX_HEAD_BYTES: Final = 64 * 1024
# A reader this far behind lets the endpoint wait: the kernel and TCP do the rest.
_MAX_HELD_BYTES: Final = 256 * 1024
# How long one address may stay silent before the next one is tried, too (RFC 8305, section 5).
_NEXT_ADDRESS_AFTER: Final = 0.25

_PORTS: Final = {"http": 80, "https": 443}

_Origin = tuple[str, str, int]


class MalformedResponse(httpx2.RemoteProtocolError):
    """What came is not HTTP as it should be. It tells nothing of what came."""


class Transport(httpx2.AsyncBaseTransport):
    """Connections to any number of endpoints, each kept for the next request as long as it was not idle for too long.

    Of the timeouts of a request only ``connect`` counts: how long reading may take is its reader's business. There is
    no limit of connections: how many answers run at once is decided where they start. It asks no proxy.
    """

    def __init__(self, *, keepalive: float) -> None:
        """`keepalive` is how long an idle connection stays open, in seconds."""
        self._keepalive = keepalive
        self._tls: ssl.SSLContext | None = None
        self._open: set[_Connection] = set()
        self._idle: defaultdict[_Origin, list[_Connection]] = defaultdict(list)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it; returns when the head of the response is there. Raises `httpx2.TransportError`."""
        message = _head(request) + await request.aread()
        url = request.url
        origin = url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme]
        connection = self._reused(origin) or await self._connect(origin, request.extensions["timeout"]["connect"])
        response = _Response(connection, lambda: self._release(origin, connection))
        try:
            connection.begin(message, response)
            await response.head()
        except BaseException:
            connection.abort()
            raise
        return httpx2.Response(response.status, headers=response.headers, stream=response)

    async def aclose(self) -> None:
        """Close all connections. Responses that are being read break off."""
        for connection in list(self._open):
            connection.abort()

    def _reused(self, origin: _Origin) -> "_Connection | None":
        idle = self._idle[origin]
        while idle:
            connection = idle.pop()  # the one that the endpoint is least likely to be about to close
            connection.busy()
            if not connection.closing:
                return connection
        return None

    def _release(self, origin: _Origin, connection: "_Connection") -> None:
        self._idle[origin].append(connection)
        connection.idle(self._keepalive)

    def _lost(self, origin: _Origin, connection: "_Connection") -> None:
        self._open.discard(connection)
        if connection in self._idle[origin]:
            self._idle[origin].remove(connection)

    async def _connect(self, origin: _Origin, timeout: float | None) -> "_Connection":
        scheme, host, port = origin
        if scheme == "https" and self._tls is None:
            self._tls = httpx2.create_ssl_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                sock = await aiohappyeyeballs.start_connection(
                    addresses, happy_eyeballs_delay=_NEXT_ADDRESS_AFTER, loop=loop
                )
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a model may think for minutes
                _, connection = await loop.create_connection(
                    lambda: _Connection(lambda it: self._lost(origin, it)),
                    sock=sock,
                    ssl=self._tls if scheme == "https" else None,
                    server_hostname=host if scheme == "https" else None,
                )
        except TimeoutError as exc:
            raise httpx2.ConnectTimeout("not connected in time") from exc
        except OSError as exc:
            raise httpx2.ConnectError("not connected") from exc
        self._open.add(connection)
        return connection


class _Connection(asyncio.Protocol):
    """One connection, and the response that it carries now."""

    def __init__(self, on_lost: Callable[["_Connection"], None]) -> None:
        self._on_lost = on_lost
        self._transport: asyncio.Transport
        self._response: _Response | None = None
        self._expiry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def begin(self, message: bytes, response: "_Response") -> None:
        """Send a request, and read its `response`."""
        self._response = response
        self._transport.write(message)

    def data_received(self, data: bytes) -> None:
        if self._response is None:  # nobody has asked: say, that the request did not come in time
            self.abort()
        else:
            self._response.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.busy()
        self._on_lost(self)
        if self._response is not None:
            self._response.lost(exc)

    def idle(self, seconds: float) -> None:
        """It has no response any more, and is closed if it does not get one in so long."""
        self._response = None
        self._expiry = asyncio.get_running_loop().call_later(seconds, self.abort)

    def busy(self) -> None:
        """It is not to be closed any more."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def pause(self) -> None:
        """Read no more for now."""
        if not self.closing:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if not self.closing:
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close it at once."""
        self._transport.abort()

    @property
    def closing(self) -> bool:
        """It cannot be used again."""
        return self._transport.is_closing()


class _Response(httpx2.AsyncByteStream):
    """One response: what the parser calls on the one side, the body as a stream of bytes on the other."""

    def __init__(self, connection: _Connection, on_done: Callable[[], None]) -> None:
        """`on_done` is called if the connection may carry another one."""
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._connection = connection
        self._on_done = on_done
        self._parser = httptools.HttpResponseParser(self)
        # As lenient as browsers are: there is one response for each request, and none to be smuggled in.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._head_bytes = 0
        self._begun = False  # the head is there
        self._ended = False
        self._reusable = False
        self._parts: list[bytes] = []
        self._held = 0
        self._paused = False
        self._error: httpx2.TransportError | None = None
        self._waiter: asyncio.Future[None] | None = None

    # What the connection tells ----------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """More of it."""
        if self._error is not None:
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._fail(MalformedResponse(type(exc).__name__))
        if not self._begun:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self._fail(MalformedResponse("the head is too large"))
        if self._held > _MAX_HELD_BYTES and not self._paused:
            self._paused = True
            self._connection.pause()
        self._wake()

    def lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        if self._begun and exc is None and self._until_closed:
            self._ended = True
        elif not self._ended and self._error is None:
            self._error = httpx2.ReadError("the connection was lost")
            self._error.__cause__ = exc
        self._wake()

    def _fail(self, error: httpx2.TransportError) -> None:
        self._error = error
        self._connection.abort()

    @property
    def _until_closed(self) -> bool:
        """The body ends with the connection (RFC 9112, section 6.3)."""
        return not any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self.headers)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the parser calls --------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._begun:  # else it is a trailer
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._begun = self.status >= 200  # before it may come any number of others (RFC 9110, section 15.2)
        if not self._begun:
            self.headers.clear()

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)
        self._held += len(data)

    def on_message_begin(self) -> None:
        if self._ended:
            raise MalformedResponse("a second response")  # whose body must not become part of the first one's

    def on_message_complete(self) -> None:
        if self._begun:
            self._ended = True
            self._reusable = self._parser.should_keep_alive()

    # What the reader calls --------------------------------------------------------------------------------------------

    async def head(self) -> None:
        """Wait for `status` and `headers`."""
        while not self._begun:
            await self._wait()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, as it comes: each time all that is there."""
        while True:
            while not self._parts:
                if self._ended:
                    return
                await self._wait()
            data = b"".join(self._parts)
            self._parts.clear()
            self._held = 0
            if self._paused:
                self._paused = False
                self._connection.resume()
            yield data

    async def aclose(self) -> None:
        """Nobody reads on."""
        if self._reusable and not self._paused and not self._connection.closing:
            self._reusable = False
            self._on_done()
        else:
            self._connection.abort()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


def _head(request: httpx2.Request) -> bytes:
    """The request line and the headers. Raises `httpx2.LocalProtocolError` if a header is not one line."""
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b" % header for header in request.headers.raw]
    if any(byte in line for line in lines for byte in (b"\r", b"\n", b"\0")):
        raise httpx2.LocalProtocolError("a header that is not one line")
    return b"\r\n".join([*lines, b"", b""])
