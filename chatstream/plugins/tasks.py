"""Tasks of an app's code, which may take no notice of its cancellation."""

import asyncio
from typing import Any


async def in_time(task: "asyncio.Future[object]", seconds: float) -> object:
    """What `task` returns; it is cancelled if nobody waits for it any more, and left behind if it does not end then.

    Raises what it raises, `TimeoutError` after so many `seconds`, and `RuntimeError` if it was cancelled by itself.
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
    return task.result()


def forget(task: "asyncio.Future[Any]") -> None:
    """Look at how a task ended that nobody waits for, or asyncio says that nobody did."""
    if not task.cancelled():
        task.exception()
