"""A program whose output a test reads while it runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.client import PATIENCE


class Program:
    """A running program, with its output so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.printed = ""

    async def read_until(self, text: str) -> None:
        """Wait until the program has printed `text`."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while text not in self.printed:
                line = await self._process.stdout.readline()
                assert line, self.printed
                self.printed += line.decode()


@asynccontextmanager
async def program(*command: str) -> AsyncIterator[Program]:
    """Run a program; it is ended with the context."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()
