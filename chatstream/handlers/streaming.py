"""Writes a conversation's stream to a client; each socket has one writer task."""

import asyncio
import logging
import socket
import time
from functools import partial
from http import HTTPStatus
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace
from tornado.iostream import IOStream, StreamClosedError

from chatstream import events
from chatstream.errors import ErrorCode, InvalidRequest, OverBudget, RequestError, StorageUnavailable, Unavailable
from chatstream.events import Connected, Cursor
from chatstream.formats.format import Format
from chatstream.formats.registry import FRAMES, HIDING
from chatstream.generations.ahead import ReadAhead
from chatstream.generations.follower import Follower, reconnect_delay
from chatstream.generations.hub import Hub, Stream
from chatstream.handlers.bodies import JSONHandler
from chatstream.handlers.connection import LAST_CHUNK, Connection
from chatstream.handlers.door import Door
from chatstream.models import Conversation
from chatstream.store.gate import answer_within

log = logging.getLogger("chatstream.http")

# TCP keepalive: a sleeping phone does not close its connection. After 30 s idle the kernel sends a probe every 10 s and
# closes after three without a reply. It also closes 30 s after unacknowledged data.
_KEEPALIVE_IDLE, _KEEPALIVE_INTERVAL, _KEEPALIVE_PROBES = 30, 10, 3
_USER_TIMEOUT_MS = 30_000
# Longest reconnection delay sent to a client, in seconds. Browser timers end at 24 days, and a monthly budget that is
# used up may be raised tomorrow.
_LONGEST_WAIT = 3600.0


class StreamingHandler(JSONHandler):
    """A handler that can respond with an event stream."""

    wire: Format = HIDING.default  # until `negotiate` sets it
    _follower: Follower | None = None
    _connection: IOStream
    _ends_connection = False

    def initialize(  # type: ignore[override]  # each door gets exactly its own collaborators
        self, door: Door, hub: Hub
    ) -> None:
        """`hub`: opens the streams of conversations."""
        super().initialize(door)
        self.hub = hub

    def negotiate(self) -> None:
        """Choose the wire format by the query's `format`, `version` and `frames`. Raises `InvalidRequest` if unknown.

        A parameter that belongs to another format is ignored, like an unknown parameter.
        """
        name, version, frames = self.parameter("format"), self.parameter("version"), self.parameter("frames")
        formats = self.door.formats
        if name is not None and name not in formats.by_name:
            raise InvalidRequest(f"`format` must be one of: {', '.join(formats.by_name)}.")
        self.wire = formats.default if name is None else formats.by_name[name]
        if frames is not None and frames not in FRAMES:
            raise InvalidRequest(f"`frames` must be one of: {', '.join(FRAMES)}.")
        if frames == "lean":
            self.wire = formats.lean.get(self.wire.name, self.wire)
        if version is None:
            return
        known = dict.fromkeys(one for versions in formats.versions.values() for one in versions)
        if version not in known:
            raise InvalidRequest(f"`version` must be one of: {', '.join(known)}.")
        self.wire = formats.versions.get(self.wire.name, {}).get(version, self.wire)

    @property
    def accepts_stream(self) -> bool:
        """Whether `Accept` names an event stream."""
        return "text/event-stream" in self.request.headers.get("Accept", "")

    @property
    def wants_stream(self) -> bool:
        """Whether the client asks for a stream: by `Accept`, or by a `format` in the query."""
        return self.accepts_stream or self.parameter("format") is not None

    async def stream(
        self,
        conversation: Conversation,
        cursor: Cursor | None,
        *,
        once: bool,
        accepted: bool = False,
        ahead: ReadAhead | None = None,
    ) -> None:
        """Stream the events after `cursor` until the client leaves or the stream ends.

        `accepted`: the request has been stored, so errors are sent on the stream and not as an HTTP status.
        `ahead`: the part of the conversation that has already been read. Raises `RequestError` only before the first
        write.
        """
        if accepted:
            try:
                await self._stream(conversation, cursor, once=once, accepted=True)
            except StorageUnavailable as exc:
                self.refuse(exc, ErrorCode.STORAGE_UNAVAILABLE)
        else:
            await self._stream(conversation, cursor, once=once, accepted=False, ahead=ahead)

    async def _stream(
        self,
        conversation: Conversation,
        cursor: Cursor | None,
        *,
        once: bool,
        accepted: bool,
        ahead: ReadAhead | None = None,
    ) -> None:
        once = once or self.wire.one_answer
        expires_at = asyncio.get_running_loop().time() + self.user.token_expires_at - time.time()
        async with self.hub.follow(
            conversation,
            cursor,
            self.wire,
            once=once,
            expires_at=expires_at,
            request_id=self.request_id,
            accepted=accepted,
            ahead=ahead,
        ) as stream:
            if once and stream.replay.nothing_comes(self.wire):
                self.set_status(HTTPStatus.NO_CONTENT)
                return
            self._follower = stream.follower
            self._begin()
            try:
                revoked = partial(stream.follower.end, ErrorCode.TOKEN_EXPIRED)
                with self.door.authenticator.guard.watch(self.user, revoked):
                    await self._write(stream)
            except StreamClosedError:
                stream.follower.leave()  # the client has left
            except TimeoutError:
                stream.follower.end(reason="does_not_read")
                self.connection_stream().close()
            except (OverBudget, Unavailable) as exc:
                code = ErrorCode(exc.code)
                stream.follower.end(reason=code)
                retry_after = exc.retry_after if isinstance(exc, OverBudget) else None
                await self._send(self._error(code, _milliseconds(retry_after), words=exc.detail))
            except Exception as exc:  # noqa: BLE001 - too late for a status; the client must not take this for the end
                stream.follower.end(reason=ErrorCode.INTERNAL)
                self.log_exception(type(exc), exc, exc.__traceback__)
                await self._send(self._error(ErrorCode.INTERNAL))
            finally:
                self.stream_end = stream.follower.reason

    async def _write(self, stream: Stream) -> None:
        connected = Connected(
            timestamp=events.timestamp(),
            conversation_id=stream.conversation.id,
            resumed=stream.replay.resumed,
            active_message_id=running.id if (running := stream.replay.running) else None,
            head=stream.conversation.head or UNSET,
        )
        await self._send(self.wire.connected(connected, reconnect_delay()))
        self.request.headers.clear()  # not needed again: frees memory while the stream is open
        await self.hub.start(stream)
        seen = False
        while (frames := await stream.follower.next(self._push)) is not None:
            await self._send(frames, last=stream.follower.has_ended)
            if not seen:
                seen = True
                await self.hub.seen(stream)

    async def _send(self, frames: bytes, *, last: bool = False) -> None:
        """Write, and wait until the socket has taken it. Raises `TimeoutError` if the client reads too slowly.

        `last`: nothing comes after it but the end of the response.
        """
        if self._headers_written:
            sent = self._send_on(frames, last=last)
        else:
            self.write(frames)
            sent = self.flush()
        if sent is not None and not sent.done():  # usually the write is done: no timer needed
            await asyncio.wait_for(sent, self.door.slow_reader_timeout)

    def _push(self, frames: bytes) -> bool:
        """Write frames at once, without waking the writer task; false if the socket is full and the task must wait."""
        try:
            return self._send_on(frames) is None
        except StreamClosedError:
            return False  # the writer task will see that the connection is closed

    def _send_on(self, frames: bytes, *, last: bool = False) -> "asyncio.Future[None] | None":
        """A faster `write` and `flush` for use after the headers: 8 µs per chunk and viewer instead of 16.

        It does the chunked framing itself and writes straight to the socket. Returns None if the socket's buffer took
        everything, else a future.
        """
        stream = self._connection
        if not frames:  # only wait for earlier writes
            return stream.write(frames)
        if self.request.version == "HTTP/1.1":  # HTTP/1.0 has no chunks: the body ends with the connection
            frames = b"%x\r\n%b\r\n" % (len(frames), frames)
            if last and isinstance(stream, Connection):
                frames += LAST_CHUNK
                stream.end_body()
        if not stream.closed() and not stream.writing():
            try:
                sent = stream.socket.send(frames)
            except OSError:  # the socket is full or broken: `IOStream` below handles both
                sent = 0
            if sent == len(frames):
                return None
            frames = frames[sent:]
        return stream.write(frames)

    def refuse(self, error: RequestError, code: ErrorCode) -> None:
        """Send a refusal as a stream with status 200: EventSource never reconnects after any other status."""
        self.error_code = error.code
        self.set_status(HTTPStatus.OK)
        self._begin()
        self.finish(self._error(code, _milliseconds(error.retry_after), words=error.detail))

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> "asyncio.Future[None]":
        """As `BaseHandler.finish`."""
        connection, finished = self.connection_stream(), super().finish(chunk)
        if self._ends_connection:
            finished.add_done_callback(lambda _: connection.close())
        return finished

    def on_connection_close(self) -> None:
        """The client has left: wake the writer task, which then leaves the conversation."""
        super().on_connection_close()
        if self._follower is not None:
            self._follower.leave()

    def _begin(self) -> None:
        self.answered_at = time.monotonic()
        answer_within(None)  # no deadline: a stream stays open for hours
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("Cache-Control", "no-cache, no-store, no-transform")
        self.set_header("X-Accel-Buffering", "no")
        for header, text in self.wire.headers.items():
            self.set_header(header, text)
        connection = self._connection = self.connection_stream()
        if isinstance(connection, Connection):
            connection.begin_stream()
        if self.request.version == "HTTP/1.0":  # without chunks, the stream can end only with the connection
            self._ends_connection = True
            self.request.headers.pop("Connection", None)  # or Tornado would announce keep-alive
            self.set_header("Connection", "close")
        if connection.closed():  # the client has just left; the first write will raise so
            return
        connection.set_nodelay(True)
        options = [("SO_KEEPALIVE", socket.SOL_SOCKET, 1)]
        options += [
            ("TCP_KEEPIDLE", socket.IPPROTO_TCP, _KEEPALIVE_IDLE),
            ("TCP_KEEPINTVL", socket.IPPROTO_TCP, _KEEPALIVE_INTERVAL),
            ("TCP_KEEPCNT", socket.IPPROTO_TCP, _KEEPALIVE_PROBES),
            ("TCP_USER_TIMEOUT", socket.IPPROTO_TCP, _USER_TIMEOUT_MS),
        ]
        for name, level, value in options:
            if hasattr(socket, name):  # not every system has them all
                connection.socket.setsockopt(level, getattr(socket, name), value)

    def _error(self, code: ErrorCode, retry_after_ms: int | None = None, *, words: str | None = None) -> bytes:
        """Return an `error` event. `words` replace the code's general message by that of the same refusal in REST."""
        event = events.error(code, request_id=self.request_id, retry_after_ms=retry_after_ms)
        if words is not None:
            event = replace(event, message=words)
        return self.wire.error(event, (retry_after_ms or 0) + reconnect_delay())


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(min(seconds, _LONGEST_WAIT) * 1000)
