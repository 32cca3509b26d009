"""Enforces the deadlines of an answer."""

import asyncio
import math
from types import TracebackType
from typing import Self

from chatstream.errors import ErrorCode
from chatstream.llm.catalogue import Deadlines
from chatstream.llm.faults import Fault


class Clock:
    """The deadlines of one answer. Put ``with clock:`` around each wait for the model: it raises `TimeoutError`.

    It cancels the waiting task, as `asyncio.timeout` does, but at a tenth of the cost: one timer per answer instead of
    one per read. Never ``yield`` inside it: the cancellation would hit the generator's reader. Close it at the end.
    """

    def __init__(self, deadlines: Deadlines, *, begins: bool = True) -> None:
        """`begins`: start the deadlines now; otherwise `wait` starts them."""
        self._loop = asyncio.get_running_loop()
        self._deadlines = deadlines
        self._end = self._first_due = self._due = math.inf
        if begins:
            self._begin()
        self._waits_for = "the first byte"
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._late = False
        self._broken_off = False
        self._timer: asyncio.TimerHandle | None = None
        self._arm()

    def _begin(self) -> None:
        now, deadlines = self._loop.time(), self._deadlines
        self._end = now + deadlines.total
        first = deadlines.first_token if deadlines.first_byte is None else deadlines.first_byte
        self._first_due = min(now + first, self._end)
        self._due = self._first_due

    async def wait(self, may_ask: "asyncio.Future[None]") -> None:
        """Wait until the request may be sent, then start the deadlines."""
        await may_ask
        if not self._broken_off:
            self._begin()
        self._arm()

    def asked(self, *, whole: bool = False) -> None:
        """Note that a request is sent, for the first time or again. `whole`: the endpoint does not stream this
        answer.
        """
        self._wait_until(self._end if whole else self._first_due, "the first byte")

    def responded(self, *, whole: bool = False) -> None:
        """The response has begun: start the deadline of its first token."""
        if self._deadlines.first_byte is not None and not whole:
            self._wait_until(self._loop.time() + self._deadlines.first_token, "the first token")

    def token(self) -> None:
        """A token came: start the deadline of the next one."""
        self._wait_until(self._loop.time() + self._deadlines.idle, "the next token")

    def settle(self, seconds: float) -> None:
        """The answer looks complete: wait at most `seconds` for the rest."""
        self._wait_until(min(self._due, self._loop.time() + seconds), "the token counts")

    def left(self) -> float:
        """Seconds until the current deadline."""
        return self._due - self._loop.time()

    @property
    def is_over(self) -> bool:
        """Whether the current deadline is the one of the whole answer."""
        return self._due == self._end

    def break_off(self) -> None:
        """Abandon the answer: the current wait, or the next one, raises `TimeoutError`."""
        self._broken_off = True
        self._due = self._end = self._loop.time()
        self._arm()

    def fault(self) -> Fault:
        """The fault for the deadline that has passed."""
        if self._broken_off:
            return Fault(ErrorCode.UPSTREAM_UNAVAILABLE, "the model was closed")
        late = "the end" if self.is_over else self._waits_for
        return Fault(ErrorCode.UPSTREAM_TIMEOUT, f"waited too long for {late}")

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __enter__(self) -> Self:
        if self._timer is None:  # the deadline passed outside a wait
            if self.left() <= 0:
                raise TimeoutError
            self._arm()
        task = asyncio.current_task(self._loop)  # passing the loop makes the call much cheaper
        assert task is not None  # noqa: S101 - for the type checker: coroutines run in tasks
        self._cancelling = task.cancelling()
        self._task = task
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        late, self._late = self._late, False
        # If other code has also cancelled the task, that cancellation takes precedence.
        if late and task is not None and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from exc

    def _wait_until(self, due: float, what: str) -> None:
        if self._broken_off:
            return
        self._due = min(due, self._end)
        self._waits_for = what
        if self._timer is not None and self._timer.when() > self._due:
            self._arm()

    def _arm(self) -> None:
        self.close()
        if self._due < math.inf:
            self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._timer = None
        if self.left() > 0:
            self._arm()
        elif self._task is not None:
            self._late = True
            self._task.cancel()
