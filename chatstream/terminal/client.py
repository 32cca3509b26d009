"""HTTP client of the terminal: requests, and one connection of a stream."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple
from urllib.parse import quote

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse
from tornado.httputil import parse_response_start_line
from tornado.iostream import StreamClosedError

from chatstream.errors import ChatstreamError

# A stream that is silent for this many seconds is dead: the server sends a heartbeat every 15 s.
_SILENCE = 40.0
# Exceptions for a connection that cannot be opened or ends too early. `TimeoutError` is an `OSError`.
BROKEN = (OSError, StreamClosedError, HTTPClientError)
# HTTP statuses, of the server or a proxy, after which the same request may succeed soon.
_PASSING = (429, 502, 503, 504)

NOTHING_COMES: dict[str, Any] = {"type": "nothing_comes"}  # our own event for a 204


class ChatFailed(ChatstreamError):
    """The server has refused, or could not be reached. The text is shown to the user. `status`: of its response."""

    status: int | None = None


class Unreachable(ChatFailed):
    """The server has not answered."""


class Frame(NamedTuple):
    """One event of the stream, with its cursor if it has one."""

    cursor: str | None
    event: dict[str, Any]


class Client:
    """A user of one server."""

    def __init__(self, url: str, token: str) -> None:
        """`url` is the server's, without a path."""
        self.url = url.rstrip("/")
        self._token = token

    async def frames(self, conversation: str, cursor: str) -> AsyncGenerator[Frame, None]:
        """Open one stream and yield the events after `cursor` up to the end of an answer, or `NOTHING_COMES`.

        `conversation` is the conversation's path. Raises `ChatFailed` if the server refuses, one of `BROKEN` if the
        connection breaks.
        """
        parts: asyncio.Queue[bytes | None] = asyncio.Queue()  # unbounded, as the whole answer may be in it
        path = f"{conversation}/stream?once=true&last_event_id={quote(cursor)}"
        status = 0

        def head(line: str) -> None:
            nonlocal status
            if line.startswith("HTTP/"):
                status = parse_response_start_line(line.strip()).code

        request = self._prepared("GET", path, header_callback=head, streaming_callback=parts.put_nowait)
        # Tornado's client cannot cancel a request. An abandoned one ends with the answer, because of `once`.
        fetching = asyncio.ensure_future(AsyncHTTPClient().fetch(request, raise_error=False))

        def ended(done: asyncio.Future[HTTPResponse]) -> None:
            done.exception()  # mark as retrieved, even if abandoned
            parts.put_nowait(None)

        fetching.add_done_callback(ended)
        buffer = b""
        while True:
            # Not `wait_for`: in Python 3.11 it can lose a cancellation (Ctrl-C) that comes right after a chunk.
            async with asyncio.timeout(_SILENCE):
                part = await parts.get()
            if part is None:
                break
            buffer += part
            if status == 200:
                *whole, buffer = buffer.split(b"\n\n")
                for frame in whole:
                    yield _frame(frame)
        response = await fetching
        if response.code in _PASSING:
            raise ConnectionError(_refusal(response, buffer))
        if response.code >= 400 and response.code != 599:
            raise _refusal(response, buffer)
        response.rethrow()
        if response.code == 204:
            yield Frame(None, NOTHING_COMES)

    async def request(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, or_conflict: bool = False
    ) -> dict[str, Any]:
        """Send a request; returns its JSON. Raises `ChatFailed`; with `or_conflict`, a 409 gives an empty object."""
        try:
            response = await AsyncHTTPClient().fetch(self._prepared(method, path, body), raise_error=False)
            if response.code == 409 and or_conflict:
                return {}
            if response.code >= 400 and response.code != 599:
                raise _refusal(response, response.body)
            response.rethrow()
        except BROKEN as exc:
            reason = (isinstance(exc, OSError) and exc.strerror) or exc  # without its number
            raise Unreachable(f"{self.url} cannot be reached: {reason}") from exc
        return dict(json.loads(response.body))

    def _prepared(self, method: str, path: str, body: dict[str, Any] | None = None, **options: Any) -> HTTPRequest:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        data = json.dumps(body or {}) if method in ("POST", "PATCH") else None
        timeout = 0 if "streaming_callback" in options else None  # no limit for a stream; `_SILENCE` ends a dead one
        return HTTPRequest(self.url + path, method, headers=headers, body=data, request_timeout=timeout, **options)


def _frame(text: bytes) -> Frame:
    fields = dict(line.split(": ", 1) for line in text.decode().split("\n") if ": " in line)
    return Frame(fields.get("id"), json.loads(fields["data"]))


def _refusal(response: HTTPResponse, body: bytes) -> ChatFailed:
    try:
        detail = json.loads(body)["detail"]
    except (ValueError, TypeError, KeyError):  # not from chatstream: for example a proxy's page
        detail = response.reason
    later = response.headers.get("Retry-After")
    failed = ChatFailed(f"{detail} ({response.code})" + (f" Try again in {later} s." if later else ""))
    failed.status = response.code
    return failed
