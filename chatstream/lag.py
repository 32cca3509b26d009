"""How late the event loop is: the one number that says whether this process still streams in time."""

import asyncio
from collections import deque
from collections.abc import Callable
from statistics import median

# Ten timers a second cost nothing that can be measured; and a second is how fast overload must be noticed.
_INTERVAL = 0.1
_SAMPLES = 10


class LoopLag:
    """Samples the loop while `run` runs."""

    def __init__(self, observe: Callable[[float], None]) -> None:
        """`observe` is told each sample, in seconds."""
        self._observe = observe
        self._samples: deque[float] = deque(maxlen=_SAMPLES)

    @property
    def seconds(self) -> float:
        """How late the loop comes to what is due: the median of the last ten samples, which no single hiccup moves."""
        return median(self._samples) if self._samples else 0.0

    async def run(self) -> None:
        """Sample for ever."""
        now = asyncio.get_running_loop().time
        while True:
            due = now() + _INTERVAL
            await asyncio.sleep(_INTERVAL)
            lag = max(0.0, now() - due)
            self._samples.append(lag)
            self._observe(lag)
