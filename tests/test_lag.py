"""The event loop's lag, of a real loop."""

import asyncio
import time

import pytest

from chatstream.lag import LoopLag


@pytest.mark.gen_test
async def test_a_loop_that_is_kept_busy_is_late() -> None:
    samples: list[float] = []
    enough = asyncio.Event()

    def observe(lag: float) -> None:
        samples.append(lag)
        if len(samples) == 3:
            enough.set()

    lag = LoopLag(observe)
    assert lag.seconds == 0
    sampling = asyncio.create_task(lag.run())
    while not enough.is_set():
        time.sleep(0.15)  # noqa: ASYNC251 - what a loop must not do
        await asyncio.sleep(0)
    sampling.cancel()
    # A timer that was due after 0.1 s could only run after 0.15 s.
    assert min(samples) > 0.04
    assert lag.seconds == sorted(samples)[1]
