"""The HTTP server and its connections: corrects input that Tornado's parser handles wrongly, and answers invalid HTTP.

Tornado's parser reads through an `IOStream`, so our subclass removes valid HTTP that the parser does not know before
the parser sees it. Tornado answers invalid HTTP with a bare status line or not at all; here it gets a problem document.
"""

import asyncio
import contextlib
import logging
import math
import re
import socket
import sys
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from typing import Any, cast

from tornado.concurrent import Future
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
    format_timestamp,
)
from tornado.iostream import IOStream, StreamClosedError, UnsatisfiableReadError

from chatstream.errors import InvalidRequest
from chatstream.handlers import problems
from chatstream.handlers.listener import Listener

log = logging.getLogger("chatstream.http")

LAST_CHUNK = b"0\r\n\r\n"
"""The end of a body in chunks (RFC 9112, section 7.1), as Tornado writes it."""

# Tornado's whole response to a malformed request: http1connection.py, `_read_message_inner`.
_BARE_REFUSAL = b"HTTP/1.1 400 Bad Request\r\n\r\n"

# Our error text for each phrase that Tornado uses in its exceptions (http1connection.py, httputil.py).
_WORDS = {
    "Malformed HTTP request line": "The request's first line is not HTTP.",
    "Unexpected HTTP version": "The version of HTTP must be 1.0 or 1.1.",
    "Missing Host header": "The request has no Host.",
    "Invalid Host header": "The request's Host is not valid.",
    "Multiple host headers": "The request has more than one Host.",
    "Invalid header": "One of the request's header fields is not valid.",
    "no colon in header line": "One of the request's header fields has no colon.",
    "Invalid query string": "The query is not valid, or has too many parameters.",
    "Message with both": "The request has both a Content-Length and a Transfer-Encoding.",
    "Multiple unequal Content-Lengths": "The request has two different Content-Lengths.",
    "Only integer Content-Length": "The request's Content-Length is not a number.",
    "Content-Length too long": "The request's body is too large.",
    "chunked body too large": "The request's body is too large.",
    "Unsupported Transfer-Encoding": "The only Transfer-Encoding that is read here is chunked.",
    "invalid chunk size": "The length of one of the body's chunks is not valid.",
    "improperly terminated chunk": "The body's chunks do not end as they must.",
}
_NOT_HTTP = "This is not valid HTTP, or the head of the request is too large."

# The end of a request's head: an empty line after a non-empty one. Empty lines before the request are skipped
# (RFC 9112, section 2.2); Tornado alone would take two of them for a whole head.
_END_OF_HEAD = rb"[^\r\n]\r*\n\r?\n"
# A chunk's length line. Chunk extensions are ignored (RFC 9112, section 7.1.1), and so are trailers (7.1.2).
_CHUNK_LENGTH = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n")
# Maximum number of bytes of one chunk line, and of all chunk extensions and trailers of a body, which are ignored. No
# known client sends extensions or trailers.
_LONGEST_CHUNK_LINE = 1024
_MOST_IGNORED_BYTES = 16 * 1024
_ABSOLUTE = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
# Seconds after a stream begins until a client that had already closed its sending side is known to be gone or not:
# some round trips.
_GONE_AFTER = 2.0

# Seconds that a connection without a request keeps its slot when the server is full: a few round trips to anywhere,
# and the longest lag of this event loop before it starts no more answers.
_SAY_SOMETHING_WITHIN = 2.0
# Share of the connection limit above which keep-alive is switched off.
_SCARCE = 0.75


class ChatServer(HTTPServer):
    """An HTTP server with a connection limit. It answers every error with a problem document."""

    def initialize(self, *args: Any, room: int, **kwargs: Any) -> None:  # type: ignore[override]  # one more argument
        """`room`: the connection limit; the other arguments are `HTTPServer`'s."""
        super().initialize(*args, **kwargs)
        self._room = room
        self._open = 0
        self._silent: OrderedDict[Connection, float] = OrderedDict()  # connections without a request, and since when
        self._listeners: list[Listener] = []

    def listen_on(self, listeners: Sequence[Listener]) -> None:
        """Accept connections up to the limit."""
        self._listeners += listeners
        for listener in listeners:
            listener.wait_for_room = self._wait_for_room
        self.add_sockets(listeners)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Tornado's hook for a new request: wrap its delegate."""
        return _Request(super().start_request(server_conn, request_conn), request_conn)

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Serve a new connection."""
        self._count(1)
        connection = Connection(
            self._silent, stream.socket, max_buffer_size=self.max_buffer_size, read_chunk_size=self.read_chunk_size
        )
        super().handle_stream(connection, address)

    def on_close(self, server_conn: object) -> None:
        """Count a connection that has ended, and let the listeners accept again."""
        super().on_close(server_conn)
        self._count(-1)
        for listener in self._listeners:
            listener.wake()

    def _count(self, change: int) -> None:
        self._open += change
        # Nearly full: close each connection after its response, so that other clients get a slot.
        self.conn_params.no_keep_alive = self._open > self._room * _SCARCE

    def _wait_for_room(self) -> float:
        """Seconds until one more connection can be accepted. Closes an idle connection to make room."""
        if self._open < self._room:
            return 0
        if not self._silent:
            return math.inf
        connection, since = next(iter(self._silent.items()))
        wait = since + _SAY_SOMETHING_WITHIN - connection.io_loop.time()
        if wait > 0:
            return wait
        del self._silent[connection]
        connection.close()
        return 0


class _Request(HTTPMessageDelegate):
    """Passes a request on with its target in origin form (path and query)."""

    def __init__(self, application: HTTPMessageDelegate, connection: HTTPConnection) -> None:
        self._application = application
        self._connection = connection

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, RequestStartLine)  # noqa: S101 - for the type checker
        # `close` may be one of several options (RFC 9110, section 7.6.1); Tornado reads only a single one, and has no
        # public name for the attribute.
        if "close" in (word.strip().lower() for word in headers.get("Connection", "").split(",")):
            self._connection._disconnect_on_finish = True  # type: ignore[attr-defined]
        if absolute := _ABSOLUTE.match(start_line.path):  # RFC 9112, section 3.2.2
            target = start_line.path[absolute.end() :]
            if not target and start_line.method == "OPTIONS":
                target = "*"
            elif not target.startswith("/"):
                target = f"/{target}"
            start_line = start_line._replace(path=target)
        return self._application.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._application.data_received(chunk)

    def finish(self) -> None:
        self._application.finish()

    def on_connection_close(self) -> None:
        self._application.on_connection_close()


class Connection(IOStream):
    """A connection to this server."""

    def __init__(self, silent: "OrderedDict[Connection, float]", *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._silent = silent
        self._streams = False
        self._body_ended = False
        self._said_all = False
        self._ignored_bytes = 0
        self._trailers_are_next = False

    def begin_stream(self) -> None:
        """From now on, treat end of file as the client's disconnect."""
        self._streams = True
        if self._said_all:  # the client closed its sending side earlier: a write will show whether it is gone
            asyncio.get_running_loop().call_later(_GONE_AFTER, self._close_if_gone)

    def end_body(self) -> None:
        """Drop the next `LAST_CHUNK`: the handler writes it together with the last frames, as a write costs a tenth of
        a millisecond.
        """
        self._body_ended = True

    def _close_if_gone(self) -> None:
        if not self.closed() and self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.close()

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        """Read from the socket, as `IOStream` does, but hide a half-close from Tornado.

        A client may close its sending side and still wait for the response (RFC 9112, section 9.6; `nc -N` does).
        Tornado would take the half-close for a closed connection. So after a complete request, end of file is returned
        as an empty line: HTTP ignores one before a request, and Tornado looks for no other end while it is unread.
        """
        count = super().read_from_fd(buf)
        if count == 0 and not self.reading() and not self._streams:
            if self._said_all:
                return None  # no more for now: else Tornado would read on until its buffer is full
            self._said_all = True
            buf[:1] = b"\n"
            return 1
        return count

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> "Future[bytes]":
        """Read the head of a request. Until it arrives, this connection counts as idle."""
        self._streams = False
        self._ignored_bytes = 0
        head = cast("Future[bytes]", super().read_until_regex(_END_OF_HEAD, max_bytes))
        self._silent[self] = self.io_loop.time()
        if head.done():
            self._head_ended(head)
        else:
            head.add_done_callback(self._head_ended)
        return head

    def read_until(self, delimiter: bytes, max_bytes: int | None = None) -> "Future[bytes]":
        """Read a chunk's length line."""
        self._end_is_no_line()
        return asyncio.ensure_future(self._read_length())

    async def _read_length(self) -> bytes:
        line = await super().read_until(b"\r\n", _LONGEST_CHUNK_LINE)
        found = _CHUNK_LENGTH.fullmatch(line)
        if found is None:
            return line  # Tornado refuses it
        self._ignored_bytes += len(line) - len(found[1]) - 2
        if self._ignored_bytes > _MOST_IGNORED_BYTES:
            return b"too much\r\n"
        self._trailers_are_next = not found[1].strip(b"0")
        return found[1] + b"\r\n"

    def read_bytes(self, num_bytes: int, partial: bool = False) -> "Future[bytes]":
        """Read a part of a body, or the line after its last chunk."""
        self._end_is_no_line()
        if self._trailers_are_next:
            self._trailers_are_next = False
            return asyncio.ensure_future(self._pass_trailers())
        return cast("Future[bytes]", super().read_bytes(num_bytes, partial))

    def _end_is_no_line(self) -> None:
        """Remove the empty line that stood for end of file: here it would be read as input. See `read_from_fd`."""
        if self._said_all and self._read_buffer.endswith(b"\n"):  # Tornado's buffer: it has no public name
            self._said_all = False
            del self._read_buffer[-1:]
            self._read_buffer_size -= 1

    async def _pass_trailers(self) -> bytes:
        while True:
            self._end_is_no_line()
            line = await super().read_until(b"\r\n", _LONGEST_CHUNK_LINE)
            self._ignored_bytes += len(line)
            if line == b"\r\n":
                return line
            if self._ignored_bytes > _MOST_IGNORED_BYTES or not _TRAILER.fullmatch(line):
                return b""  # Tornado refuses it

    def _head_ended(self, head: "Future[bytes]") -> None:
        waited = self._silent.pop(self, None) is not None  # False if it was closed to make room
        broke_off = not head.cancelled() and isinstance(head.exception(), StreamClosedError)
        if waited and broke_off and self._read_buffer.strip(b"\r\n"):  # Tornado's buffer: it has no public name
            log.info("a client left before the whole head of its request had come")

    def write(self, data: bytes | memoryview) -> "Future[None]":
        if data == _BARE_REFUSAL:
            data = _refusal(_words(sys.exc_info()[1]))  # Tornado writes this inside its `except` block
        elif self._body_ended and data == LAST_CHUNK:
            self._body_ended = False
            data = b""
        return super().write(data)

    def close(self, exc_info: Any = False) -> None:
        # The head or a chunk's length line is malformed or too long. If the kernel still holds unread input, closing
        # sends a reset, and the client may not get this response. It is sent anyway, as it often arrives.
        if isinstance(exc_info, UnsatisfiableReadError) and not self.closed():
            with contextlib.suppress(OSError):
                self.socket.send(_refusal(_NOT_HTTP))
        super().close(exc_info)


def _words(error: BaseException | None) -> str:
    if isinstance(error, HTTPInputError):
        for begins, words in _WORDS.items():
            if str(error).startswith(begins):
                return words
    return _NOT_HTTP


def _refusal(words: str) -> bytes:
    request_id = uuid.uuid4().hex
    log.info("refused what is not HTTP", extra={"facts": {"request": request_id}})  # not quoted: it may hold a token
    body = problems.document(InvalidRequest(words), request_id)
    head = [
        "HTTP/1.1 400 Bad Request",
        f"Date: {format_timestamp(time.time())}",
        f"Content-Type: {problems.MEDIA_TYPE}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "Cache-Control: no-store",
        "Referrer-Policy: no-referrer",
        "X-Content-Type-Options: nosniff",
        f"X-Request-Id: {request_id}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body
