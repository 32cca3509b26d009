"""What comes before any door: what is no HTTP, which Tornado answers with a bare status line or not at all."""

import contextlib
import logging
import time
import uuid
from typing import Any

from tornado.concurrent import Future
from tornado.httpserver import HTTPServer
from tornado.httputil import format_timestamp
from tornado.iostream import IOStream, UnsatisfiableReadError

from chatstream.errors import InvalidRequest
from chatstream.handlers import problems

log = logging.getLogger("chatstream.http")

# All that Tornado says to a malformed request: http1connection.py, `_read_message_inner`.
_BARE_REFUSAL = b"HTTP/1.1 400 Bad Request\r\n\r\n"


class ChatServer(HTTPServer):
    """An HTTP server whose every error is a problem document."""

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Serve a connection; nothing has been read from it yet."""
        connection = _Connection(
            stream.socket, max_buffer_size=self.max_buffer_size, read_chunk_size=self.read_chunk_size
        )
        super().handle_stream(connection, address)


class _Connection(IOStream):
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
