"""Raw HTTP: sends bytes that no client library would send, over a reused connection, and checks each reply's form."""

import json
import socket
import time
from collections.abc import Mapping
from typing import NamedTuple

from tests.support.client import PATIENCE

# Seconds after which a connection is not used again: the server closes it after 30 without a request.
_IDLE = 20


class Reply(NamedTuple):
    """A response. The names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def accepted(self) -> bool:
        """Whether the request was fulfilled. If it was not, the reply must say so in a whole problem document."""
        assert self.status < 500, self
        if self.status < 400:
            return True
        assert self.headers["content-type"] == "application/problem+json", self
        problem = json.loads(self.body)
        assert {*problem} - {"errors"} == {"type", "title", "status", "detail", "code", "requestId"}
        assert (problem["status"], problem["requestId"]) == (self.status, self.headers["x-request-id"])
        return False


class RawClient:
    """Sends one request after the other; `sent` counts them."""

    def __init__(self, port: int) -> None:
        self.sent = 0
        self._port = port
        self._socket: socket.socket | None = None
        self._used_at = 0.0

    def exchange(self, request: bytes) -> Reply:
        """Send a request with a clear end, and read the response."""
        if time.monotonic() - self._used_at > _IDLE:
            self.close()
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), PATIENCE)
            self._reader = self._socket.makefile("rb")
        try:
            self._socket.sendall(request)
            self.sent += 1
            reply = self._read(has_body=not request.startswith(b"HEAD "))
        except BaseException:  # after any error, the rest of this reply must not be read as the next reply
            self.close()
            raise
        self._used_at = time.monotonic()
        if reply.headers.get("connection") == "close":
            self.close()
        return reply

    def _read(self, *, has_body: bool) -> Reply:
        status = int(self._reader.readline().split(b" ", 2)[1])
        headers = {}
        while line := self._reader.readline().rstrip(b"\r\n"):
            name, _, value = line.decode("latin-1").partition(": ")
            headers[name.lower()] = value
        body = b""
        if not has_body or status in (204, 304):
            pass
        elif "content-length" in headers:
            body = self._reader.read(int(headers["content-length"]))
        else:
            assert headers["transfer-encoding"] == "chunked"
            while size := int(self._reader.readline(), 16):
                body += self._reader.read(size)
                self._reader.readline()
            self._reader.readline()
        return Reply(status, headers, body)

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._socket is not None:
            self._reader.close()
            self._socket.close()
            self._socket = None
