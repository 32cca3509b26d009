"""A terminal, and who sits at it."""

import asyncio
import os
import pty
from typing import Any

from tests.support.client import PATIENCE


class Screen:
    """What a process writes to its terminal."""

    def __init__(self) -> None:
        self._terminal, self._end_of_process = pty.openpty()
        self._read = 0  # how much of `text` is behind what was waited for last
        self.text = ""
        # For whoever starts the process.
        self.ends: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), self._end_of_process)

    def started(self) -> None:
        """The process has its ends: with it, the terminal ends."""
        os.close(self._end_of_process)

    async def until(self, wanted: str) -> None:
        """Until `wanted` is there, behind what was waited for before."""
        async with asyncio.timeout(PATIENCE):
            while (found := self.text.find(wanted, self._read)) < 0:
                self.text += (await asyncio.to_thread(os.read, self._terminal, 4096)).decode()
        self._read = found + len(wanted)

    def type(self, keys: bytes) -> None:
        """Press them, one after the other."""
        os.write(self._terminal, keys)

    def close(self) -> None:
        """Nobody looks at it any more."""
        os.close(self._terminal)
