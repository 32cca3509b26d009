"""Single functions of the server; scenarios/ tests the server as a whole."""

import asyncio
import time

import pytest
from tornado.ioloop import PeriodicCallback

from chatstream.server import _MonotonicIOLoop


def test_what_is_periodic_goes_on_when_the_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()

    async def ticks() -> None:
        _MonotonicIOLoop()
        ticked = asyncio.Event()
        periodic = PeriodicCallback(ticked.set, 10)
        periodic.start()
        await asyncio.wait_for(ticked.wait(), 5)
        monkeypatch.setattr(time, "time", lambda: now - 3600)
        for _ in range(3):
            ticked.clear()
            await asyncio.wait_for(ticked.wait(), 5)
        periodic.stop()

    asyncio.run(ticks())
