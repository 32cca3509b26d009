"""The wire as a client has it: requests, and one connection of a stream."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple
from urllib.parse import quote

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse
from tornado.httputil import parse_response_start_line
from tornado.iostream import StreamClosedError

from chatstream.errors import ChatstreamError

# The server beats every 15 s: twice that, and a bit, is no silence but a dead connection.
_SILENCE = 40.0
# What is raised when a connection cannot be made, or ends too early; a `TimeoutError` is an `OSError`.
BROKEN = (OSError, StreamClosedError, HTTPClientError)
# Of the server and of the proxies before it: not now, but soon.
_PASSING = (429, 502, 503, 504)

NOTHING_COMES: dict[str, Any] = {"type": "nothing_comes"}  # not of the wire: what a 204 says


class ChatFailed(ChatstreamError):
    """The server refused, or could not be reached; the text is for whoever types."""


class Unreachable(ChatFailed):
    """No answer came."""


class Frame(NamedTuple):
    """One event of the stream, and its cursor if it has one."""

    cursor: str | None
    event: dict[str, Any]


class Client:
    """A user of one server."""

    def __init__(self, url: str, token: str) -> None:
        """`url` is the server's, without a path."""
        self.url = url.rstrip("/")
        self._token = token

    async def frames(self, conversation: str, cursor: str) -> AsyncGenerator[Frame, None]:
        """One connection: what comes after `cursor` up to an answer's end, or `NOTHING_COMES`.

        `conversation` is its path. Raises `ChatFailed` if it is refused, one of `BROKEN` if it breaks.
        """
        parts: asyncio.Queue[bytes | None] = (
            asyncio.Queue()
        )  # it has no bound of its own: the whole answer may be in it
        path = f"{conversation}/stream?once=true&last_event_id={quote(cursor)}"
        status = 0

        def head(line: str) -> None:
            nonlocal status
            if line.startswith("HTTP/"):
                status = parse_response_start_line(line.strip()).code

        request = self._prepared("GET", path, header_callback=head, streaming_callback=parts.put_nowait)
        # Tornado's client cannot be told to give up a request. One that is left ends with the answer, as `once` says.
        fetching = asyncio.ensure_future(AsyncHTTPClient().fetch(request, raise_error=False))

        def ended(done: asyncio.Future[HTTPResponse]) -> None:
            done.exception()  # seen, also if nobody waits any more
            parts.put_nowait(None)

        fetching.add_done_callback(ended)
        buffer = b""
        while True:
            # Python 3.11's `wait_for` forgets a cancellation, which is somebody's Ctrl-C, that comes just after a part.
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
        """The JSON that comes back. Raises `ChatFailed`; with `or_conflict` a 409 is an empty object."""
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
        timeout = 0 if "streaming_callback" in options else None  # a stream has no end; `_SILENCE` watches it
        return HTTPRequest(self.url + path, method, headers=headers, body=data, request_timeout=timeout, **options)


def _frame(text: bytes) -> Frame:
    fields = dict(line.split(": ", 1) for line in text.decode().split("\n") if ": " in line)
    return Frame(fields.get("id"), json.loads(fields["data"]))


def _refusal(response: HTTPResponse, body: bytes) -> ChatFailed:
    try:
        detail = json.loads(body)["detail"]
    except (ValueError, TypeError, KeyError):  # not from chatstream: a proxy's page, say
        detail = response.reason
    later = response.headers.get("Retry-After")
    return ChatFailed(f"{detail} ({response.code})" + (f" Try again in {later} s." if later else ""))
