"""How requests reach the model: HTTP/1.1 (RFC 9112) on asyncio's transports, parsed by httptools.

A transport is httpx2's own seam, and whatever the openai package does stands above it. This one is here for what a
server of streams spends its time on: a response that arrives in hundreds of small pieces. Beside aiohttp's, the faster
of the two that openai brings, a chunk costs 17 % less CPU of the whole server, or 11 % if each comes alone.
"""

import asyncio
import functools
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Final, cast

import aiohappyeyeballs
import httptools
import httpx2

# As others have it: more than any server sends, and nothing to fill the memory with.
_MAX_HEAD_BYTES: Final = 64 * 1024
# With more unread bytes than this, stop reading: TCP flow control then makes the endpoint wait. As much as the largest
# event that is accepted, so that it is rare: if reading is paused just before the end, uvloop loses what comes over TLS
# (a tenth of the responses of 2 MB did not come in whole with 256 KiB).
_MAX_HELD_BYTES: Final = 4 * 1024 * 1024
# How long one address may stay silent before the next one is tried, too (RFC 8305, section 5).
_NEXT_ADDRESS_AFTER: Final = 0.25
# Seconds without data until TCP keepalive asks whether the endpoint is still there: a model may think for minutes, and
# routers forget idle connections. openai's own transport has the same number.
_KEEPALIVE_IDLE: Final = 60

_PORTS: Final = {"http": 80, "https": 443}

_Origin = tuple[str, str, int]

before_sending: ContextVar[Callable[[], Awaitable[None]] | None] = ContextVar("chatstream_before_sending", default=None)
"""What a request waits for when it is ready to be sent on an open connection. It comes this way because httpx2 and the
openai package hand nothing else on to a transport."""


class MalformedResponse(httpx2.RemoteProtocolError):
    """What came is not HTTP as it should be. It tells nothing of what came."""


class Transport(httpx2.AsyncBaseTransport):
    """Connections to any number of endpoints, each kept for the next request as long as it was not idle for too long.

    Of the timeouts of a request only ``connect`` counts: how long reading may take is its reader's business. There is
    no limit of connections: how many answers run at once is decided where they start. It asks no proxy.

    It sends what has its body in memory; it knows no HEAD, whose response has a length and no body.
    """

    def __init__(self, *, keepalive: float) -> None:
        """`keepalive` is how long an idle connection stays open, in seconds."""
        self._keepalive = keepalive
        self._tls: ssl.SSLContext | None = None
        self._open: set[_Connection] = set()
        self._idle: dict[_Origin, list[_Connection]] = {}
        self._closed = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it; returns when the head of the response is there. Raises `httpx2.TransportError`."""
        url = request.url
        if url.scheme not in _PORTS or request.method == "HEAD" or "transfer-encoding" in request.headers:
            raise httpx2.UnsupportedProtocol("not a request for this transport")
        message = _head(request) + await request.aread()
        origin = url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme]
        while True:
            reused = self._reused(origin)
            connection = reused or await self._connect(origin, request.extensions["timeout"]["connect"])
            if (wait := before_sending.get()) is not None:
                await self._held(origin, connection, wait)
                if connection.closing:  # meanwhile
                    continue
            response = _Response(connection, functools.partial(self._release, origin, connection))
            try:
                connection.begin(message, response)
                await response.head()
                break
            except BaseException as exc:
                await response.aclose()
                # The endpoint was closing what it had kept for too long, and has not seen the request. Each time there
                # is one kept connection less, and a new one is not tried again.
                if reused is None or response.answered or not isinstance(exc, httpx2.ReadError):
                    raise
        return httpx2.Response(response.status, headers=response.headers, stream=response)

    async def aclose(self) -> None:
        """Close all connections. Responses that are being read break off."""
        self._closed = True
        for connection in list(self._open):
            connection.abort()

    def _reused(self, origin: _Origin) -> "_Connection | None":
        while idle := self._idle.get(origin):
            connection = idle.pop()  # the one that the endpoint is least likely to be about to close
            connection.busy()
            if not connection.closing:
                return connection
        return None

    async def _held(self, origin: _Origin, connection: "_Connection", wait: Callable[[], Awaitable[None]]) -> None:
        """Wait with the connection in hand; if nothing is to be sent after all, the next request may have it."""
        try:
            await wait()
        except BaseException:
            if not connection.closing:
                self._release(origin, connection)
            raise

    def _release(self, origin: _Origin, connection: "_Connection") -> None:
        self._idle.setdefault(origin, []).append(connection)
        connection.idle(self._keepalive)

    def _lost(self, origin: _Origin, connection: "_Connection") -> None:
        self._open.discard(connection)
        idle = self._idle.get(origin, [])
        if connection in idle:
            idle.remove(connection)
        if not idle:
            self._idle.pop(origin, None)

    async def _connect(self, origin: _Origin, timeout: float | None) -> "_Connection":
        scheme, host, port = origin
        loop = asyncio.get_running_loop()
        try:
            if scheme == "https" and self._tls is None:
                self._tls = httpx2.create_ssl_context()
                self._tls.set_alpn_protocols(["http/1.1"])
            async with asyncio.timeout(timeout):
                addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                sock = await aiohappyeyeballs.start_connection(
                    addresses, happy_eyeballs_delay=_NEXT_ADDRESS_AFTER, loop=loop
                )
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                if hasattr(socket, "TCP_KEEPIDLE"):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE)
                _, connection = await loop.create_connection(
                    lambda: _Connection(lambda it: self._lost(origin, it)),
                    sock=sock,
                    ssl=self._tls if scheme == "https" else None,
                    server_hostname=host if scheme == "https" else None,
                )
        except TimeoutError as exc:
            raise httpx2.ConnectTimeout("not connected in time") from exc
        except (OSError, UnicodeError, RuntimeError) as exc:  # a name that cannot be one; what uvloop raises at times
            raise httpx2.ConnectError("not connected") from exc
        if self._closed:  # meanwhile
            connection.abort()
            raise httpx2.ConnectError("closed")
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

    def eof_received(self) -> None:
        if self._response is not None:
            self._response.end_of_file()

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
        """It is being closed, or is closed."""
        return self._transport.is_closing()

    @property
    def usable(self) -> bool:
        """Another request can be sent: the one before has left, which an early response does not wait for."""
        return not self.closing and self._transport.get_write_buffer_size() == 0


class _Response(httpx2.AsyncByteStream):
    """One response: what the parser calls on the one side, the body as a stream of bytes on the other."""

    def __init__(self, connection: _Connection, on_done: Callable[[], None]) -> None:
        """`on_done` is called if the connection may carry another one."""
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.answered = False  # with a byte at least
        self._connection = connection
        self._on_done = on_done
        self._parser = httptools.HttpResponseParser(self)
        # As lenient as browsers are: there is one response for each request, and none to be smuggled in.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._unread_bytes = 0  # of a head, of what stands between the chunks, of trailers
        self._begun = False  # the head is there
        self._end_of_file = False
        self._ended = False
        self._reusable = False
        self._closed = False
        self._parts: list[bytes] = []
        self._held = 0
        self._paused = False
        self._error: httpx2.TransportError | None = None
        self._waiter: asyncio.Future[None] | None = None

    # What the connection tells ----------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """More of it."""
        if self._closed or self._error is not None:
            return
        self.answered = True
        self._unread_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._fail(MalformedResponse(type(exc).__name__))
        if self._unread_bytes > _MAX_HEAD_BYTES:
            self._fail(MalformedResponse("too much that is no body"))
        if self._held > _MAX_HELD_BYTES and not self._paused:
            self._paused = True
            self._connection.pause()
        self._wake()

    def end_of_file(self) -> None:
        """The endpoint sends no more."""
        self._end_of_file = True

    def lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        if self._begun and self._end_of_file and self._until_closed and self._error is None:
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
        codings = [value for name, value in self.headers if name.lower() == b"transfer-encoding"]
        if codings:
            return not codings[-1].lower().endswith(b"chunked")
        return not any(name.lower() == b"content-length" for name, _ in self.headers)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the parser calls --------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._begun:  # else it is a trailer
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 100:
            raise MalformedResponse("no status")
        self._begun = self.status >= 200  # before it may come any number of others (RFC 9110, section 15.2)
        if not self._begun:
            self.headers.clear()

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)
        self._held += len(data)
        self._unread_bytes = 0

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
        if self._closed:
            return
        self._closed = True
        del self._parser  # which calls us: without it, nothing is left for the garbage collector
        if self._reusable and not self._paused and self._connection.usable:
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
