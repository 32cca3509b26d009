"""Reads a change stream in a thread of its own, for which the process does not wait at its end.

A read waits up to a second for a change, and MongoDB does not end it earlier when its cursor is killed. Python waits at
its end for the threads of every pool, motor's included, so each stop of a server would take that second.
"""

from typing import Any

from pymongo.change_stream import ChangeStream

from chatstream.store.gate import Document
from chatstream.store.threads import Threads


class Watching:
    """The events of an open change stream, as an asynchronous iterator. Raises the driver's errors."""

    def __init__(self, stream: ChangeStream[Any], thread: Threads) -> None:
        self._stream = stream
        self._thread = thread

    async def try_next(self) -> Document | None:
        """The next event; None if there is none within the stream's waiting time."""
        return await self._thread.run(self._stream.try_next)

    def __aiter__(self) -> "Watching":
        return self

    async def __anext__(self) -> Document:
        while self._stream.alive:
            event = await self.try_next()
            if event is not None:
                return event
        raise StopAsyncIteration
