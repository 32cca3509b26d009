"""Threads for what blocks: a few for each method of a plug-in, so that one that hangs harms only itself."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

_THREADS = 4  # calls of one method at a time; they wait for something, mostly
_LOST = 28  # calls that hang after nobody waits for them any more, each of which leaves its thread to another one
_WAITING = 64  # calls that may wait for a thread: with the deadlines as they are, no more would be served in time


class TooBusy(Exception):
    """So many calls wait that this one would not be served in time."""


class Threads:
    """They are started when needed, and end with the process without being waited for: the standard library's pool
    would keep a server from ending that has a plug-in that never returns."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._started = 0
        self._unfinished = 0
        self._lost = 0

    async def run(self, function: Callable[..., Result], *args: object) -> Result:
        """Call `function` in a thread. Raises what it raises, and `TooBusy`. Whoever is cancelled leaves it running."""
        if self._unfinished - self._lost >= _THREADS + _WAITING:
            raise TooBusy
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def finish(result: Any, exc: BaseException | None) -> None:
            self._unfinished -= 1
            self._lost -= lost
            if future.done():  # nobody waits any more
                return
            if exc is None:
                future.set_result(result)
            else:
                future.set_exception(exc)

        running = lost = False

        def call() -> None:
            nonlocal running
            result, raised = None, None
            if not future.done():
                running = True
                try:
                    result = function(*args)
                except BaseException as exc:  # noqa: BLE001 - a plug-in's `sys.exit` ends nothing of ours
                    raised = exc if isinstance(exc, Exception) else RuntimeError(type(exc).__name__)
                    if isinstance(raised, StopIteration):  # which no future takes
                        raised = RuntimeError("StopIteration")
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(finish, result, raised)

        self._unfinished += 1
        self._start()
        self._calls.put(call)
        try:
            return await future
        finally:
            if future.cancelled() and running and self._lost < _LOST:
                lost = True
                self._lost += 1
                self._start()

    def _start(self) -> None:
        """Another thread, if there are fewer than calls that need one."""
        if self._started < min(self._unfinished, _THREADS + self._lost):
            self._started += 1
            threading.Thread(target=self._work, name=f"plugin {self._name}", daemon=True).start()

    def _work(self) -> None:
        while True:
            self._calls.get()()
