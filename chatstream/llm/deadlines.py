"""How long an answer may take, and the clock that sees to it."""

import asyncio
from types import TracebackType
from typing import Self

from msgspec import Struct

from chatstream.errors import ErrorCode
from chatstream.llm.faults import Fault


class Deadlines(Struct, frozen=True):
    """How long an answer may take, in seconds.

    `connect` is for one connection. `first_token` and `total` count from the call, retries included. `idle` is the
    silence between tokens. Reasoning and tool calls are tokens, too, comments and empty chunks are not.
    """

    connect: float
    first_token: float
    idle: float
    total: float


class Clock:
    """The deadlines of one answer: ``with clock:`` stands around each wait for the model and raises `TimeoutError`.

    It works as `asyncio.timeout` does, by cancelling the waiting task, but costs a tenth: one timer for the answer, not
    one for each read. It never stays open over a ``yield``: the cancellation would hit the reader. Close it at the end.
    """

    def __init__(self, deadlines: Deadlines) -> None:
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._idle = deadlines.idle
        self._end = now + deadlines.total
        self._due = min(now + deadlines.first_token, self._end)
        self._waits_for = "first"
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._late = False
        self._broken_off = False
        self._timer: asyncio.TimerHandle | None = self._loop.call_at(self._due, self._look)

    def token(self) -> None:
        """A token came; the next one is due."""
        self._due = min(self._loop.time() + self._idle, self._end)
        self._waits_for = "next"
        if self._timer is not None and self._timer.when() > self._due:
            self._arm()

    def left(self) -> float:
        """Seconds until the token is due."""
        return self._due - self._loop.time()

    def break_off(self) -> None:
        """Nobody wants the answer any more: whoever waits now, or next, gets the `TimeoutError`."""
        self._broken_off = True
        self._due = self._end = self._loop.time()
        self._arm()

    def fault(self) -> Fault:
        """What to say when it did not come in time."""
        if self._broken_off:
            return Fault(ErrorCode.UPSTREAM_UNAVAILABLE, "the model was closed")
        late = "the end" if self._due == self._end else f"the {self._waits_for} token"
        return Fault(ErrorCode.UPSTREAM_TIMEOUT, f"waited too long for {late}")

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __enter__(self) -> Self:
        if self._timer is None:  # it went off while nobody waited
            if self.left() <= 0:
                raise TimeoutError
            self._arm()
        task = asyncio.current_task(self._loop)  # without the loop, finding it is most of the cost
        assert task is not None  # noqa: S101 - for the type checker: coroutines run in tasks
        self._cancelling = task.cancelling()
        self._task = task
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        late, self._late = self._late, False
        # Who else cancelled the task meant it: theirs wins.
        if late and task is not None and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from exc

    def _arm(self) -> None:
        self.close()
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._timer = None
        if self.left() > 0:
            self._arm()
        elif self._task is not None:
            self._late = True
            self._task.cancel()
