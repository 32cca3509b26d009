"""A reader of a channel: one connection and its position in the log."""

import asyncio
import random
from collections import deque
from collections.abc import Callable

from chatstream.errors import ErrorCode
from chatstream.formats.format import Format
from chatstream.generations.channel import Channel
from chatstream.generations.entries import Entry, Notice, Place
from chatstream.generations.replay import Replay
from chatstream.models import Status

# Bytes per flush. Large enough to be efficient; also the most memory a stalled client can pin, besides the kernel's
# socket buffer.
_FLUSH_BYTES = 64 * 1024
# A reader this many bytes behind the log is disconnected, as it would not catch up. When it reconnects with its cursor,
# it gets the missed text as one chunk.
_MAX_LAG_BYTES = 4 * 1024 * 1024

Push = Callable[[bytes], bool]
"""Writes frames at once; returns False if not all of them have left. Must not block or raise."""


def reconnect_delay() -> int:
    """Return how long a client should wait before it reconnects, in milliseconds. Random, so that clients do not all
    return at once."""
    return random.randint(1000, 3000)  # noqa: S311 - jitter


class Follower:
    """Reads the log from the end of its `replay`. One coroutine calls `next` until it returns None."""

    def __init__(
        self,
        channel: Channel,
        wire: Format,
        *,
        once: bool,
        rotate_at: float,
        rotate_after_bytes: int,
        expires_at: float,
        request_id: str,
        observe_lag: Callable[[float], None],
    ) -> None:
        """Registers at the end of the live log. Call `join` with the replay to set the real position. `wire` is the
        reader's format.

        `observe_lag` is called at most once between two ticks, with the seconds between the append of an entry and its
        sending.

        `rotate_at` and `expires_at` are times on the event loop's clock. With `once` the stream ends after one answer.
        """
        self._channel = channel
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._once = once
        self._rotate_at = rotate_at
        self._bytes_left = rotate_after_bytes
        self._expires_at = expires_at
        self._request_id = request_id
        self._observe_lag = observe_lag
        self._sampling = False  # the next lag is to be measured ...
        self._woken_at: float | None = None  # ... from this time on
        self._behind: deque[Entry] = deque()
        self._joined = False
        self._place: Place | None = None
        self.reason: str | None = None  # why the stream ended
        self.over = False  # nothing more is read, except what `next` already has
        self._waiter: asyncio.Future[None] | None = None
        self._push: Push | None = None
        self._last = b""  # the last frames, which are not pushed
        self._pushed_short = False
        self._written_at = self._loop.time()
        self._heartbeat_due = False
        self.index = channel.end
        self._bytes_read = channel.bytes_appended
        channel.readers.add(self)

    def join(self, replay: Replay) -> None:
        """Read `replay`, then the live log after it."""
        if self.over:
            return  # for example, the conversation was deleted meanwhile
        self._behind.extend(replay.entries)
        self._place = replay.place
        self._joined = True

    def wake(self) -> None:
        """The log has a new entry: push it at once, or wake `next`."""
        if self._waiter is None or self._waiter.done():
            return
        if self._sampling:
            self._sampling = False
            self._woken_at = self._loop.time()
        try:
            if self._push is None or not self._push_on(self._push):
                self._waiter.set_result(None)
        except Exception as exc:  # noqa: BLE001 - `next` raises it for this stream; the other readers continue
            self._waiter.set_exception(exc)

    def _push_on(self, push: Push) -> bool:
        """Push the available frames. Returns False if `next` must be woken: the reader is slow, the
        stream has ended, or a heartbeat is due."""
        while frames := self._take():
            if self.has_ended:  # `next` must be woken in any case; its caller writes the response's end with them
                self._last = frames
                return False
            self._note(frames)
            if not push(frames):
                self._pushed_short = True
                return False
            if self.index == self._channel.end and not self._behind:  # usually everything is sent now
                break
        self._observe()
        return not self.over and not self._heartbeat_due

    def _note(self, frames: bytes) -> None:
        self._written_at = self._loop.time()
        self._heartbeat_due = False
        self._bytes_left -= len(frames)

    def _observe(self) -> None:
        if self._woken_at is not None:  # the last write has left
            self._observe_lag(self._loop.time() - self._woken_at)
            self._woken_at = None

    @property
    def has_ended(self) -> bool:
        """Whether everything was taken, so that what `next` has just returned was the last."""
        return self.over and not self._behind and not self._last

    @property
    def answer_runs(self) -> bool:
        """Whether an answer is running in the conversation. One that waits does not count: it may wait for days."""
        running = self._channel.running
        return running is not None and running.answer.status is not Status.WAITING

    @property
    def reads_on(self) -> bool:
        """Whether the reader continues with the live log after the replay."""
        return not self.over and not (self._once and any(entry.ends_answer(self._wire) for entry in self._behind))

    def end(self, code: ErrorCode | None = None, *, reason: str | None = None) -> None:
        """End the stream, with the error `code` if there is one to send. The client can read the rest with its cursor.

        `reason` is a word for the metrics and the log, where there is no code.
        """
        if self.over:
            return
        self.over = True
        self.reason = reason or code
        self._behind.clear()
        if code is not None:
            self._behind.append(Notice(code, request_id=self._request_id, retry_ms=reconnect_delay()))
        self.wake()

    def leave(self) -> None:
        """Stop reading and leave the channel."""
        self._channel.readers.discard(self)
        self.end(reason="client_left")

    async def next(self, push: Push | None = None) -> bytes | None:
        """Return the next unread frames, or a heartbeat after a long silence; None when it is over.

        While `next` waits, it gives frames to `push`, which writes them at once and returns whether all have left. So
        no task has to be woken for each frame. If some have not left, the caller waits for that, and gets no further
        frames.
        """
        self._observe()
        while True:
            frames, self._last = self._last or self._take(), b""
            if frames:
                self._note(frames)
                return frames
            if self.over:
                return None
            if self._heartbeat_due:
                self._heartbeat_due = False
                self._written_at = self._loop.time()
                return self._wire.heartbeat()
            self._waiter, self._push = self._loop.create_future(), push
            await self._waiter
            self._waiter = None
            if self._pushed_short:
                self._pushed_short = False
                return b""

    def tick(self, now: float, heartbeat_interval: float) -> None:
        """Check the clock: is a heartbeat due, is the connection's time over, has the token expired?"""
        if self.over:
            return
        self._sampling = True
        if now >= self._expires_at:
            self.end(ErrorCode.TOKEN_EXPIRED)
        elif self._channel.bytes_before_last - self._bytes_read > _MAX_LAG_BYTES:
            self.end(reason="far_behind")
        elif self._may_rotate(now):
            self.end(reason="had_its_share")
        elif now - self._written_at >= heartbeat_interval:
            self._heartbeat_due = True
            self.wake()

    def _may_rotate(self, now: float) -> bool:
        had_its_share = now >= self._rotate_at or self._bytes_left <= 0
        return had_its_share and not self.answer_runs and self.index == self._channel.end

    def _take(self) -> bytes:
        """Return the next frames, at most one flush."""
        taken: list[bytes] = []
        size = 0
        while size < _FLUSH_BYTES and (entry := self._next_entry()) is not None:
            frames = entry.frames(self._wire)
            taken.append(frames)
            size += len(frames)
        return b"".join(taken)

    def _next_entry(self) -> Entry | None:
        """Return the next entry to send; None if there is none, or none yet."""
        while True:
            if self._behind:
                entry = self._behind.popleft()
            elif self._joined and not self.over and (live := self._channel.read(self.index)) is not None:
                entry = live
                self.index += 1
                self._bytes_read += entry.size
                if entry.place is not None and self._place is not None:
                    if entry.place <= self._place:
                        continue  # the entry was in the replay
                    entry = entry.after(self._place)
                    self._place = None
            else:
                return None
            if self._once and entry.ends_answer(self._wire):
                self.over = True
                self.reason = "answered"
                self._behind.clear()
            return entry
