"""A reader of a channel: one connection's place in the log."""

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
# A reader this far behind the log will not catch up; coming back with its cursor it gets one slice of the text instead.
_MAX_LAG_BYTES = 4 * 1024 * 1024

Push = Callable[[bytes], bool]
"""Writes frames at once; false if not all of them have left. Must not block or raise."""


def reconnect_delay() -> int:
    """How long a client should wait before it comes back, in milliseconds: jittered, so that no stampede follows."""
    return random.randint(1000, 3000)  # noqa: S311 - jitter


class Follower:
    """Reads the log from where its `replay` ends. One coroutine calls `next` until it returns None."""

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
        """Registers at the end of the live log. Call `join` with the replay to set the real position. `wire` is what it
        reads.

        `observe_lag` is told, once between two ticks, how many seconds after being appended something had left.

        `rotate_at` and `expires_at` are on the event loop's clock. With `once` it is over after the end of one answer.
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
        self._sampling = False  # the next lag is to be observed ...
        self._woken_at: float | None = None  # ... counting from here
        self._behind: deque[Entry] = deque()
        self._joined = False
        self._place: Place | None = None
        self.reason: str | None = None  # why it is over
        self.over = False  # nothing more will be read than what `next` has in hand
        self._waiter: asyncio.Future[None] | None = None
        self._push: Push | None = None
        self._pushed_short = False
        self._written_at = self._loop.time()
        self._heartbeat_due = False
        self.index = channel.end
        self._bytes_read = channel.bytes_appended
        channel.readers.add(self)

    def join(self, replay: Replay) -> None:
        """Read `replay`, then what the live log has after it."""
        if self.over:
            return  # the conversation was deleted meanwhile, say
        self._behind.extend(replay.entries)
        self._place = replay.place
        self._joined = True

    def wake(self) -> None:
        """There is something to do for `next`, or at once for whoever it has to push to."""
        if self._waiter is None or self._waiter.done():
            return
        if self._sampling:
            self._sampling = False
            self._woken_at = self._loop.time()
        try:
            if self._push is None or not self._push_on(self._push):
                self._waiter.set_result(None)
        except Exception as exc:  # noqa: BLE001 - raised where this stream is written: the other readers go on
            self._waiter.set_exception(exc)

    def _push_on(self, push: Push) -> bool:
        """Push what there is; false if there is something to do for `next` all the same."""
        while frames := self._take():
            self._note(frames)
            if not push(frames):
                self._pushed_short = True
                return False
        self._observe()
        return not self.over and not self._heartbeat_due

    def _note(self, frames: bytes) -> None:
        self._written_at = self._loop.time()
        self._heartbeat_due = False
        self._bytes_left -= len(frames)

    def _observe(self) -> None:
        if self._woken_at is not None:  # what was written the last time has left
            self._observe_lag(self._loop.time() - self._woken_at)
            self._woken_at = None

    @property
    def answer_runs(self) -> bool:
        """An answer is running in the conversation. One that waits may do so for days, and is no reason to stay."""
        running = self._channel.running
        return running is not None and running.answer.status is not Status.WAITING

    @property
    def reads_on(self) -> bool:
        """It will not be over with what lies behind its cursor."""
        return not self.over and not (self._once and any(entry.ends_answer(self._wire) for entry in self._behind))

    def end(self, code: ErrorCode | None = None, *, reason: str | None = None) -> None:
        """It is over, because of `code` if there is something to say; what was not read can be had with the cursor.

        `reason` is a word for whoever looks after the server, where there is no code.
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
        """Read no more."""
        self._channel.readers.discard(self)
        self.end(reason="client_left")

    async def next(self, push: Push | None = None) -> bytes | None:
        """Whole frames that were not read yet, or a heartbeat if there were none for long; None when it is over.

        While it waits, it hands frames to `push`, which writes them at once and says whether all of them have left: no
        task has to be woken for each. What has not left is waited for by whoever called, who gets no further frames.
        """
        self._observe()
        while True:
            if frames := self._take():
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
        """Look at the clock: is a heartbeat due, has the connection had its time, has the token?"""
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
        """What comes next, up to one flush."""
        taken: list[bytes] = []
        size = 0
        while size < _FLUSH_BYTES and (entry := self._next_entry()) is not None:
            frames = entry.frames(self._wire)
            taken.append(frames)
            size += len(frames)
        return b"".join(taken)

    def _next_entry(self) -> Entry | None:
        entry = self._behind.popleft() if self._behind else self._next_live_entry()
        if entry is not None and self._once and entry.ends_answer(self._wire):
            self.over = True
            self.reason = "answered"
            self._behind.clear()
        return entry

    def _next_live_entry(self) -> Entry | None:
        while self._joined and not self.over and (entry := self._channel.read(self.index)) is not None:
            self.index += 1
            self._bytes_read += entry.size
            if entry.place is not None and self._place is not None:
                if entry.place <= self._place:
                    continue  # it was in the replay
                entry = entry.after(self._place)
                self._place = None
            return entry
        return None
