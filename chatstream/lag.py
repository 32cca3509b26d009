"""Measures how late the event loop is: it shows whether this process still streams in time."""

import asyncio
from collections import deque
from collections.abc import Callable

# Seconds between samples. Ten timers a second cost almost nothing; overload must be noticed within a second.
_INTERVAL = 0.1
_SAMPLES = 10


class LoopLag:
    """Samples the event loop's lag while `run` runs."""

    def __init__(self, observe: Callable[[float], None]) -> None:
        """`observe` is called with each sample, in seconds."""
        self._observe = observe
        self._samples: deque[float] = deque(maxlen=_SAMPLES)

    @property
    def seconds(self) -> float:
        """The event loop's lag: the median of the last ten samples, so that one outlier does not count."""
        return sorted(self._samples)[len(self._samples) // 2] if self._samples else 0.0

    async def run(self) -> None:
        """Take samples until cancelled."""
        now = asyncio.get_running_loop().time
        while True:
            due = now() + _INTERVAL
            await asyncio.sleep(_INTERVAL)
            lag = max(0.0, now() - due)
            self._samples.append(lag)
            self._observe(lag)
