"""Tasks of an app's code, which may take no notice of its cancellation, and may block the event loop."""

import asyncio
import time
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

Result = TypeVar("Result")

# Seconds between two `await`s. A step of honest code takes a millisecond, and on a busy machine ten.
_LONG_STEP = 0.04


async def in_time(task: "asyncio.Future[object]", seconds: float) -> object:
    """What `task` returns; it is cancelled if nobody waits for it any more, and left behind if it does not end then.

    Raises what it raises, `TimeoutError` after so many `seconds`, and `RuntimeError` if it was cancelled by itself or
    raised what is no `Exception`.
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
    if exc is not None and not isinstance(exc, Exception):  # nobody who waits for an answer looks for these
        raise RuntimeError(type(exc).__name__) from exc
    return task.result()


def forget(task: "asyncio.Future[Any]") -> None:
    """Look at how a task ended that nobody waits for, or asyncio says that nobody did."""
    if not task.cancelled():
        task.exception()


@types.coroutine
def watched(work: Coroutine[Any, Any, Result], blocked: Callable[[float], None]) -> Generator[Any, Any, Result]:
    """The same as `work`; `blocked` is told how many seconds a step of it took that was long: nothing else ran then."""
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
