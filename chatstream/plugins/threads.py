"""Threads for blocking methods of plug-ins: a few per method, so that a hanging method blocks only itself."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

_THREADS = 4  # concurrent calls of one method; most of them wait for I/O
_LOST = 28  # abandoned calls that still hang; each is replaced by another thread
_WAITING = 64  # calls that may wait for a thread; more would miss their deadlines


class TooBusy(Exception):
    """Raised when too many calls wait already, so that this one would miss its deadline."""


class Threads:
    """Daemon threads, started as needed. The process does not wait for them at its end; with the standard library's
    pool, a plug-in that never returns would keep the server from stopping."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._started = 0
        self._unfinished = 0
        self._lost = 0

    async def run(self, function: Callable[..., Result], *args: object) -> Result:
        """Call `function` in a thread. Raises what it raises, and `TooBusy`. On cancellation the call runs on."""
        if self._unfinished - self._lost >= _THREADS + _WAITING:
            raise TooBusy
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def finish(result: Any, exc: BaseException | None) -> None:
            self._unfinished -= 1
            self._lost -= lost
            if future.done():  # the caller was cancelled
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
                except BaseException as exc:  # noqa: BLE001 - a plug-in's `sys.exit` must not end the server
                    raised = exc if isinstance(exc, Exception) else RuntimeError(type(exc).__name__)
                    if isinstance(raised, StopIteration):  # a future does not accept StopIteration
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
        """Start another thread if there are fewer threads than calls that need one."""
        if self._started < min(self._unfinished, _THREADS + self._lost):
            self._started += 1
            threading.Thread(target=self._work, name=f"plugin {self._name}", daemon=True).start()

    def _work(self) -> None:
        while True:
            self._calls.get()()
