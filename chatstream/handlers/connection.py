"""What comes before any door: what is no HTTP, which Tornado answers with a bare status line or not at all."""

import contextlib
import logging
import math
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

from tornado.concurrent import Future
from tornado.httpserver import HTTPServer
from tornado.httputil import format_timestamp
from tornado.iostream import IOStream, StreamClosedError, UnsatisfiableReadError

from chatstream.errors import InvalidRequest
from chatstream.handlers import problems
from chatstream.handlers.listener import Listener

log = logging.getLogger("chatstream.http")

# All that Tornado says to a malformed request: http1connection.py, `_read_message_inner`.
_BARE_REFUSAL = b"HTTP/1.1 400 Bad Request\r\n\r\n"

# When there is no room, a connection keeps its place without a request for so long: a few round trips to anywhere, and
# as late as this process may be before it begins no more answers.
_SAY_SOMETHING_WITHIN = 2.0
# As many connections of all that there may be: below it, nobody need connect for each request anew.
_SCARCE = 0.75


class ChatServer(HTTPServer):
    """An HTTP server whose every error is a problem document, and which has room for so many connections."""

    def initialize(self, *args: Any, room: int, **kwargs: Any) -> None:  # type: ignore[override]  # one more argument
        """`room`: how many connections it may have; the others are `HTTPServer`'s."""
        super().initialize(*args, **kwargs)
        self._room = room
        self._open = 0
        self._silent: OrderedDict[_Connection, float] = OrderedDict()  # that ask for nothing, and since when
        self._listeners: list[Listener] = []

    def listen_on(self, listeners: Sequence[Listener]) -> None:
        """Accept what comes, as long as there is room."""
        self._listeners += listeners
        for listener in listeners:
            listener.wait_for_room = self._wait_for_room
        self.add_sockets(listeners)

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Serve a connection; nothing has been read from it yet."""
        self._count(1)
        connection = _Connection(
            self._silent, stream.socket, max_buffer_size=self.max_buffer_size, read_chunk_size=self.read_chunk_size
        )
        super().handle_stream(connection, address)

    def on_close(self, server_conn: object) -> None:
        """A connection has ended."""
        super().on_close(server_conn)
        self._count(-1)
        for listener in self._listeners:
            listener.wake()

    def _count(self, change: int) -> None:
        self._open += change
        # When room gets scarce, who was answered goes, and lets others have an answer.
        self.conn_params.no_keep_alive = self._open > self._room * _SCARCE

    def _wait_for_room(self) -> float:
        """In how many seconds there is room for one more: a connection that asks for nothing is closed for it."""
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


class _Connection(IOStream):
    def __init__(self, silent: "OrderedDict[_Connection, float]", *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._silent = silent

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> "Future[bytes]":
        """Read the head of a request; until there is one, this connection asks for nothing."""
        head = cast("Future[bytes]", super().read_until_regex(regex, max_bytes))
        if head.done():
            self._head_ended(head)
        else:
            self._silent[self] = self.io_loop.time()
            head.add_done_callback(self._head_ended)
        return head

    def _head_ended(self, head: "Future[bytes]") -> None:
        self._silent.pop(self, None)
        broke_off = not head.cancelled() and isinstance(head.exception(), StreamClosedError)
        if broke_off and self._read_buffer_size:  # Tornado's, which has no public name for it
            log.info("a client left before the whole head of its request had come")

    def write(self, data: bytes | memoryview) -> "Future[None]":
        return super().write(_refusal() if data == _BARE_REFUSAL else data)

    def close(self, exc_info: Any = False) -> None:
        # The head, or a chunk's length, does not end where it must. The kernel may hold more of it than was read, and
        # then throws the answer away with it: still better than none.
        if isinstance(exc_info, UnsatisfiableReadError) and not self.closed():
            with contextlib.suppress(OSError):
                self.socket.send(_refusal())
        super().close(exc_info)


def _refusal() -> bytes:
    request_id = uuid.uuid4().hex
    log.info("refused what is not HTTP", extra={"facts": {"request": request_id}})  # to quote it could tell a token
    body = problems.document(
        InvalidRequest("This is not valid HTTP, or the head of the request is too large."), request_id
    )
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
