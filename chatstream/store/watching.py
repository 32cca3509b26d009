"""Reads a change stream in a thread of its own, for which the process does not wait at its end.

A read waits up to a second for a change, and MongoDB does not end it earlier when its cursor is killed. Python waits at
its end for the threads of every pool, motor's included, so each stop of a server would take that second.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from pymongo.change_stream import ChangeStream

from chatstream.store.gate import Document

T = TypeVar("T")


class Reader:
    """A thread that makes one call after the other, until `end`."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="change stream", daemon=True).start()

    async def run(self, function: Callable[[], T]) -> T:
        """Call `function` in the thread. Raises what it raises. On cancellation the call runs on."""
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function()
            except BaseException as exc:  # noqa: BLE001 - it is raised where the result is awaited
                future.set_exception(exc)
            else:
                future.set_result(result)

        self._calls.put(call)
        return await asyncio.wrap_future(future)

    def end(self) -> None:
        """End the thread after the current call."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


class Watching:
    """The events of an open change stream, as an asynchronous iterator. Raises the driver's errors."""

    def __init__(self, stream: ChangeStream[Any], reader: Reader) -> None:
        self._stream = stream
        self._reader = reader

    async def try_next(self) -> Document | None:
        """The next event; None if there is none within the stream's waiting time."""
        return await self._reader.run(self._stream.try_next)

    def __aiter__(self) -> "Watching":
        return self

    async def __anext__(self) -> Document:
        while self._stream.alive:
            event = await self.try_next()
            if event is not None:
                return event
        raise StopAsyncIteration
