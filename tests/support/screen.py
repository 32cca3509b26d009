"""A pseudo-terminal, and the person at it."""

import asyncio
import os
import pty
from typing import Any

from tests.support.client import PATIENCE


class Screen:
    """The output of a process on its terminal."""

    def __init__(self) -> None:
        self._terminal, self._end_of_process = pty.openpty()
        self._read = 0  # the length of `text` up to the end of the last match
        self.text = ""
        # Arguments for the start of the process: the terminal as its input and output.
        self.ends: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), self._end_of_process)

    def started(self) -> None:
        """Close our copies of the process's ends: then the terminal closes when the process ends."""
        os.close(self._end_of_process)

    async def until(self, wanted: str) -> None:
        """Wait until `wanted` appears after the last match."""
        async with asyncio.timeout(PATIENCE):
            while (found := self.text.find(wanted, self._read)) < 0:
                self.text += (await asyncio.to_thread(os.read, self._terminal, 4096)).decode()
        self._read = found + len(wanted)

    def type(self, keys: bytes) -> None:
        """Press these keys, one after the other."""
        os.write(self._terminal, keys)

    def close(self) -> None:
        """Close the terminal."""
        os.close(self._terminal)
