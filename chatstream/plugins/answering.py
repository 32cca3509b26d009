"""Reads a plug-in's answer, an async generator, in a task of its own.

The generator runs in one task from start to end: timeouts, task groups and HTTP clients that stay open across a
``yield`` need that. It is at most one piece ahead of its reader.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from chatstream.llm.model import Finish
from chatstream.logs import describe
from chatstream.plugins.tasks import forget, watched

log = logging.getLogger("chatstream.plugins")

_CLOSING = 2.0  # seconds for a generator to clean up; closing a request takes much less


class Answering:
    """Reads a generator piece by piece. The first call of `next` starts the task."""

    def __init__(
        self,
        said: AsyncGenerator[Any, None],
        name: str,
        check: Callable[[object], object],
        blocked: Callable[[float], None],
    ) -> None:
        """`check` validates and copies a piece before the generator goes on and may change it; it may raise.
        `blocked(seconds)` is called when the generator has blocked the event loop."""
        self._said = said
        self._check = check
        self._blocked = blocked
        self._name = name
        self._pieces: asyncio.Queue[object] = asyncio.Queue(maxsize=1)
        self._task: asyncio.Task[None] | None = None

    async def next(self, deadline: float) -> object:
        """The next piece. Raises what the generator raises, and `TimeoutError` after `deadline` seconds."""
        if self._task is None:
            self._task = asyncio.create_task(watched(self._read(), self._blocked))
        async with asyncio.timeout(max(deadline, 0)):
            piece = await self._pieces.get()
        if isinstance(piece, _Raised):
            raise piece.exc
        return piece

    async def _read(self) -> None:
        try:
            async with aclosing(self._said) as said:
                async for piece in said:
                    await self._pieces.put(self._check(piece))
            await self._pieces.put(Finish(reason="stop", usage=None))
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]  # this is a task
                raise
            await self._pieces.put(_Raised(RuntimeError("it was cancelled by itself")))
        except Exception as exc:  # noqa: BLE001 - passed on to the reader
            await self._pieces.put(_Raised(exc))
        except GeneratorExit:
            raise
        except BaseException as exc:  # noqa: BLE001 - uncaught, it would end the server or block the reader
            await self._pieces.put(_Raised(RuntimeError(type(exc).__name__)))

    async def close(self) -> None:
        """Close the generator. If it does not stop in time, leave its task running."""
        task = self._task
        if task is None:
            return
        task.cancel()
        _, running = await asyncio.wait({task}, timeout=_CLOSING)
        if running:
            log.error("plug-in %s: answer does not end when it is cancelled", self._name)
            task.add_done_callback(forget)
        elif not task.cancelled() and (exc := task.exception()) is not None:
            log.error("plug-in %s: answer cannot be closed: %s", self._name, describe(exc))


class _Raised:
    def __init__(self, exc: Exception) -> None:
        self.exc = exc
