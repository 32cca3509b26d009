"""Runs an app's coroutines, which may ignore cancellation and may block the event loop."""

import asyncio
import time
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

Result = TypeVar("Result")

# Report a coroutine that runs longer than this many seconds between two `await`s. Good code takes a millisecond, on a
# busy machine ten.
_LONG_STEP = 0.04


async def in_time(task: "asyncio.Future[object]", seconds: float) -> object:
    """Wait for `task` and return its result. On timeout or cancellation, cancel the task, but do not wait for its end.

    Raises what the task raises; `TimeoutError` after `seconds`; `RuntimeError` if the task has cancelled itself or has
    raised something other than an `Exception`.
    """
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(forget)
    if not task.done():
        raise TimeoutError
    if task.cancelled():
        raise RuntimeError("it was cancelled by itself")
    exc = task.exception()
    if exc is not None and not isinstance(exc, Exception):  # callers do not expect such exceptions
        raise RuntimeError(type(exc).__name__) from exc
    return task.result()


def forget(task: "asyncio.Future[Any]") -> None:
    """Read the exception of an abandoned task, or asyncio logs that it was never retrieved."""
    if not task.cancelled():
        task.exception()


@types.coroutine
def watched(work: Coroutine[Any, Any, Result], blocked: Callable[[float], None]) -> Generator[Any, Any, Result]:
    """Run `work`, and call `blocked(seconds)` for each step that has blocked the event loop for long."""
    step: Callable[[Any], Any] = work.send
    given: Any = None
    while True:
        began = time.perf_counter()
        try:
            waits_for = step(given)
        except StopIteration as end:
            result: Result = end.value
            return result
        finally:
            if (took := time.perf_counter() - began) > _LONG_STEP:
                blocked(took)
        try:
            given = yield waits_for
            step = work.send
        except GeneratorExit:
            work.close()
            raise
        except BaseException as exc:  # noqa: BLE001 - the task is cancelled: it is thrown into the work
            step, given = work.throw, exc
