"""The stdio transport for MCP servers that are programs on this machine: JSON lines on standard input and output.

As `mcp`'s own, but with limits: a line has at most `_MOST_LINE` bytes, and a server sends at most `_MOST_BYTES` and
`_MOST_LINES` in `_WINDOW` seconds.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
import anyio.abc
from mcp.client._transport import TransportStreams
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, jsonrpc_message_adapter

_MOST_LINE: Final = 4 * 1024 * 1024
_MOST_BYTES: Final = 4 * _MOST_LINE
_MOST_LINES: Final = 2_000  # each line costs time on the event loop
_WINDOW: Final = 10.0
# The errors that end the connection: a line that is too long or incomplete, or the program has ended.
_ENDS: Final = (
    asyncio.LimitOverrunError,
    asyncio.IncompleteReadError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    OSError,
)
# Seconds for a program to exit: after its input is closed, after SIGTERM, and after SIGKILL.
_ENDING: Final = 2.0


@asynccontextmanager
async def connection(
    command: Sequence[str], environment: Mapping[str, str], ended: asyncio.Event
) -> AsyncIterator[TransportStreams]:
    """Run a program while the context is open; yields its streams. `ended` is set when its output ends.

    The program gets `environment`, and of this process's variables only the basic ones: no secrets. Its standard error
    is discarded. Raises `OSError` if it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=get_default_environment() | dict(environment),
        start_new_session=True,  # so that its child processes end with it
        limit=_MOST_LINE,
    )
    said, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write_stream, to_say = anyio.create_memory_object_stream[SessionMessage](0)
    tasks = [asyncio.create_task(_read(process, said, ended)), asyncio.create_task(_write(process, to_say))]
    try:
        yield read_stream, write_stream
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for stream in (said, read_stream, write_stream, to_say):
            stream.close()
        ended.set()
        await _end(process)


async def _read(
    process: asyncio.subprocess.Process,
    said: "anyio.abc.ObjectSendStream[SessionMessage | Exception]",
    ended: asyncio.Event,
) -> None:
    assert process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
    now = asyncio.get_running_loop().time
    since, size, lines = now(), 0, 0
    with contextlib.suppress(*_ENDS):
        while size <= _MOST_BYTES and lines <= _MOST_LINES:
            line = await process.stdout.readuntil(b"\n")
            if now() - since > _WINDOW:
                since, size, lines = now(), 0, 0
            size, lines = size + len(line), lines + 1
            try:
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError:  # not an MCP message
                continue
            # Of notifications, only those of a call's progress are used.
            if not isinstance(message, JSONRPCNotification) or message.method == "notifications/progress":
                await said.send(SessionMessage(message))
    ended.set()
    await said.aclose()


async def _write(process: asyncio.subprocess.Process, to_say: "anyio.abc.ObjectReceiveStream[SessionMessage]") -> None:
    assert process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
    with contextlib.suppress(OSError, anyio.ClosedResourceError):
        async for each in to_say:
            process.stdin.write(each.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await process.stdin.drain()


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the program: wait, then SIGTERM, then SIGKILL; takes at most three times `_ENDING`."""
    assert process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
    try:
        process.stdin.close()
        for sign in (None, signal.SIGTERM):
            if sign is not None:
                _signal(process, sign)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ENDING):
                    await _gone(process)
                break
    finally:
        _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))  # also its remaining children
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ENDING):
            await _gone(process)


async def _gone(process: asyncio.subprocess.Process) -> None:
    """Wait for the exit. Reads and drops the output, so that a full pipe does not block the program."""
    assert process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
    while process.returncode is None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                if not await process.stdout.read(65_536):
                    await process.wait()


def _signal(process: asyncio.subprocess.Process, sign: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, sign)
        else:
            process.send_signal(sign)
