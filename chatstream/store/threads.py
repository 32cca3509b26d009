"""Threads for what blocks: operations of the database in a row (see `Mongo.in_thread`), and a change stream's reads."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_Work = tuple[Callable[[], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class Threads:
    """A pool of threads for blocking work of an event loop.

    Not `ThreadPoolExecutor`, with which motor runs its operations: it makes a future of its own for each piece of work
    and passes its result on to asyncio's. Four locks and a condition later, that costs 75 µs of CPU more, with three
    pieces of work in a request 5 % of it. The price: nobody can cancel work that has not begun.
    """

    def __init__(self, most: int) -> None:
        """At most `most` threads, each started when all others have work."""
        self._most = most
        self._started = 0
        self._busy = 0  # pieces of work without a result yet; counted on the event loop
        self._waiting: SimpleQueue[_Work | None] = SimpleQueue()

    def run(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Run `work` in a thread. The future has its result or its exception, also if it was given up meanwhile."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._busy += 1
        self._waiting.put((work, loop, future))
        if self._started < min(self._busy, self._most):
            self._started += 1
            # A daemon: an operation on a stopped database must not hold up the end of the process.
            threading.Thread(target=self._serve, name=f"database-{self._started}", daemon=True).start()
        return future

    def close(self) -> None:
        """End each thread after the work that is waiting now."""
        for _ in range(self._started):
            self._waiting.put(None)
        self._started = 0

    def _serve(self) -> None:
        while (given := self._waiting.get()) is not None:
            work, loop, future = given
            result, error = _outcome(work)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._ended, future, result, error)
            del given, work, loop, future, result, error  # they would stay in memory until the next work

    def _ended(self, future: "asyncio.Future[Any]", result: object, error: BaseException | None) -> None:
        self._busy -= 1
        if future.done():  # cancelled
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _outcome(work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return work(), None
    except BaseException as exc:  # noqa: BLE001 - the caller raises it
        return None, exc
