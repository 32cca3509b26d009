"""A script of `clients/` that reports its events to a test as lines of JSON, and carries out commands."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.support import node
from tests.support.client import PATIENCE

Line = dict[str, Any]


class Script:
    """A running script; `lines` is its output so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._read = 0  # the number of lines that `until` and `call` have read
        self._answered = 0
        self._grumbling = ""  # its standard error: warnings, a traceback
        self.lines: list[Line] = []

    async def until(self, wanted: Callable[[Line], object]) -> Line:
        """Wait for the next line for which `wanted` is true; the lines before it count as read."""
        line, self._read = await self._find(wanted, self._read)
        return line

    async def event(self, type_: str, count: int = 1) -> Line:
        """The next event of this type, or the `count`-th."""
        for _ in range(count):
            line = await self.until(lambda line: line.get("event", {}).get("type") == type_)
        return line

    async def state(self, state: str) -> None:
        """Wait until the client is in this state."""
        await self.until(lambda line: line.get("state") == state)

    async def call(self, name: str, *values: object) -> Any:
        """Call a function of the script, or read a value; returns the result. Raises `AssertionError` if it failed."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, *values]).encode() + b"\n")
        line, self._answered = await self._find(lambda line: "result" in line or "rejected" in line, self._answered)
        assert "result" in line, line
        return line["result"]

    async def _find(self, wanted: Callable[[Line], object], begin: int) -> tuple[Line, int]:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    for index in range(begin, len(self.lines)):
                        if wanted(self.lines[index]):
                            return self.lines[index], index + 1
                    begin = len(self.lines)
                    text = await self._process.stdout.readline()
                    assert text, f"the script ended:\n{self._grumbling}"
                    if text.startswith(b"{"):
                        self.lines.append(json.loads(text))
                    else:
                        self._grumbling += text.decode()
        except TimeoutError:
            last = "\n".join(map(str, self.lines[-3:]))
            raise AssertionError(f"not seen; it said at last:\n{last}\n{self._grumbling}") from None

    @property
    def requests(self) -> list[str]:
        """The URLs requested so far, if the script reports them."""
        return [line["request"] for line in self.lines if "request" in line]

    def events(self, type_: str | None = None) -> list[Line]:
        """The events so far, without heartbeats; with `type`, only those of this type."""
        events: list[Line] = [line["event"] for line in self.lines if "event" in line]
        return [event for event in events if event["type"] == type_ or (type_ is None and event["type"] != "heartbeat")]


@asynccontextmanager
async def script(name: str, *arguments: object) -> AsyncIterator[Script]:
    """Run it with `arguments`, as JSON; it is ended with the context."""
    node.install()
    process = await asyncio.create_subprocess_exec(
        *node.command(name, *map(json.dumps, arguments)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1024 * 1024,  # bytes: a line may have whole answers
    )
    try:
        yield Script(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()
