"""Writing a conversation's stream to a client: one writer per socket."""

import asyncio
import contextlib
import logging
import socket
import time
from functools import partial
from http import HTTPStatus
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace
from tornado.iostream import StreamClosedError

from chatstream import events
from chatstream.errors import ErrorCode, InvalidRequest, OverBudget, RequestError, StorageUnavailable, Unavailable
from chatstream.events import Connected, Cursor
from chatstream.formats.format import Format
from chatstream.formats.registry import FRAMES, HIDING
from chatstream.generations.ahead import ReadAhead
from chatstream.generations.follower import Follower, reconnect_delay
from chatstream.generations.hub import Hub, Stream
from chatstream.handlers.bodies import JSONHandler
from chatstream.handlers.connection import Connection
from chatstream.handlers.door import Door
from chatstream.models import Conversation
from chatstream.store.gate import answer_within

log = logging.getLogger("chatstream.http")

# A phone that fell asleep says nothing: after 30 s the kernel asks, three times in 30 s, and gives up; and it gives up
# 30 s after the last byte it could not deliver.
_KEEPALIVE_IDLE, _KEEPALIVE_INTERVAL, _KEEPALIVE_PROBES = 30, 10, 3
_USER_TIMEOUT_MS = 30_000
# The longest that a client is told to wait before it connects again, in seconds. Browsers' timers end at 24 days, and a
# budget that is used up for a month may be raised tomorrow.
_LONGEST_WAIT = 3600.0


class StreamingHandler(JSONHandler):
    """A door that may answer with an event stream."""

    wire: Format = HIDING.default  # until it is negotiated
    _follower: Follower | None = None
    _ends_connection = False

    def initialize(  # type: ignore[override]  # each door gets exactly its own collaborators
        self, door: Door, hub: Hub
    ) -> None:
        """The hub has the streams."""
        super().initialize(door)
        self.hub = hub

    def negotiate(self) -> None:
        """Write what `format`, `version` and `frames` of the query name. Raises `InvalidRequest` for what there is not.

        What another format has means nothing, as a parameter does that is not known.
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
        """Whether `Accept` names an event stream, or the query a format of one."""
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
        """Write what comes after `cursor` until the client leaves or the stream is over.

        `accepted`: the request has been stored, and is not refused any more; what goes wrong is told on the stream.
        `ahead`: what was read of the conversation already. Raises `RequestError` as long as nothing was written.
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
                stream.follower.leave()  # the client left; so do we
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
        self.request.headers.clear()  # kept as long as the stream is open, and nobody asks for them again
        await self.hub.start(stream)
        seen = False
        while (frames := await stream.follower.next(self._push)) is not None:
            await self._send(frames)
            if not seen:
                seen = True
                await self.hub.seen(stream)

    async def _send(self, frames: bytes) -> None:
        """Write and wait until it has left; `TimeoutError` if it does not in time."""
        if self._headers_written:
            sent = self._send_on(frames)
        else:
            self.write(frames)
            sent = self.flush()
        if sent is not None and not sent.done():  # the common case is done, and needs no timer
            await asyncio.wait_for(sent, self.door.slow_reader_timeout)

    def _push(self, frames: bytes) -> bool:
        """Write for the waiting writer, from where the frames came about; false if it has to wait until they leave."""
        try:
            return self._send_on(frames) is None
        except StreamClosedError:
            return False  # which the writer finds out

    def _send_on(self, frames: bytes) -> "asyncio.Future[None] | None":
        """What `write` and `flush` do after the headers, for half of their cost: 8 us a chunk and viewer, not 16.

        The framing is done here, and what fits into the socket's buffer goes there at once; None if that is all.
        """
        stream = self.connection_stream()
        if not frames:  # only wait for what is on its way
            return stream.write(frames)
        if self.request.version == "HTTP/1.1":  # else the body ends with the connection
            frames = b"%x\r\n%b\r\n" % (len(frames), frames)
        if not stream.closed() and not stream.writing():
            with contextlib.suppress(OSError):  # it is full, or broken: the stream finds out, and knows what to do
                frames = frames[stream.socket.send(frames) :]
            if not frames:
                return None
        return stream.write(frames)

    def refuse(self, error: RequestError, code: ErrorCode) -> None:
        """A refusal that an EventSource survives: it gives up for good on any status but 200."""
        self.error_code = error.code
        self.set_status(HTTPStatus.OK)
        self._begin()
        self.finish(self._error(code, _milliseconds(error.retry_after), words=error.detail))

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> "asyncio.Future[None]":
        """See `BaseHandler`."""
        connection, finished = self.connection_stream(), super().finish(chunk)
        if self._ends_connection:
            finished.add_done_callback(lambda _: connection.close())
        return finished

    def on_connection_close(self) -> None:
        """The client left: wake the writer, which leaves the conversation."""
        super().on_connection_close()
        if self._follower is not None:
            self._follower.leave()

    def _begin(self) -> None:
        self.answered_at = time.monotonic()
        answer_within(None)  # from now on it is open for hours
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("Cache-Control", "no-cache, no-store, no-transform")
        self.set_header("X-Accel-Buffering", "no")
        for header, text in self.wire.headers.items():
            self.set_header(header, text)
        connection = self.connection_stream()
        if isinstance(connection, Connection):
            connection.begin_stream()
        if self.request.version == "HTTP/1.0":  # without chunks only the end of the connection ends the stream
            self._ends_connection = True
            self.request.headers.pop("Connection", None)  # or Tornado would promise to keep it
            self.set_header("Connection", "close")
        if connection.closed():  # the client has just left; the first write says so
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
        """`words`, if they say more than those that belong to the code: those of the same refusal by REST."""
        event = events.error(code, request_id=self.request_id, retry_after_ms=retry_after_ms)
        if words is not None:
            event = replace(event, message=words)
        return self.wire.error(event, (retry_after_ms or 0) + reconnect_delay())


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(min(seconds, _LONGEST_WAIT) * 1000)
