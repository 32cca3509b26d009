"""The answer of a plug-in, read by a task of its own.

The generator runs in one task from its first line to its last: timeouts, task groups and clients of services that are
open across a ``yield`` need that. It is never more than one piece ahead of who reads.
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

_CLOSING = 2.0  # seconds: to close a request to a service takes none


class Answering:
    """What a generator yields; at its end, that it is the end. The task begins with the first `next`."""

    def __init__(
        self,
        said: AsyncGenerator[Any, None],
        name: str,
        check: Callable[[object], object],
        blocked: Callable[[float], None],
    ) -> None:
        """`check` returns what is taken of a piece, before the generator goes on and may change it; or it raises.
        `blocked` is told for how many seconds the generator held up the event loop."""
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
        except Exception as exc:  # noqa: BLE001 - the reader is told
            await self._pieces.put(_Raised(exc))
        except GeneratorExit:
            raise
        except BaseException as exc:  # noqa: BLE001 - which would end the server, or nobody would be told
            await self._pieces.put(_Raised(RuntimeError(type(exc).__name__)))

    async def close(self) -> None:
        """Nobody reads any more. One that takes no notice is left behind."""
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
