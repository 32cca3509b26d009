"""The way to an MCP server that is a program of this machine: JSON lines on its standard input and output.

As `mcp`'s own, but bounded: no line may be longer than `_MOST_LINE`, nor may a server send more than `_MOST_BYTES`, or
`_MOST_LINES`, in `_WINDOW` seconds.
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
_MOST_LINES: Final = 2_000  # each takes some of the event loop's time, whatever it says
_WINDOW: Final = 10.0
# A line that is too long, or half a last one; or nobody is there any more.
_ENDS: Final = (
    asyncio.LimitOverrunError,
    asyncio.IncompleteReadError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    OSError,
)
# How long a program may take to end when its input has, and again when it is asked to.
_ENDING: Final = 2.0


@asynccontextmanager
async def connection(
    command: Sequence[str], environment: Mapping[str, str], ended: asyncio.Event
) -> AsyncIterator[TransportStreams]:
    """The streams of a program that runs meanwhile; `ended` is set when it says nothing any more.

    It is given `environment`, and of this process's own variables only those that any program needs: no secrets. What
    it writes to its standard error is not read: it may be anything. Raises `OSError` if it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=get_default_environment() | dict(environment),
        start_new_session=True,  # so that processes which it starts are ended with it
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
            except ValueError:  # something that is not meant for us
                continue
            if not isinstance(message, JSONRPCNotification):  # of what it does or has: nobody listens
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
    """Let it end, ask it to, and make it: at most twice `_ENDING`."""
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
        _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))  # also what it has left behind
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ENDING):
            await _gone(process)


async def _gone(process: asyncio.subprocess.Process) -> None:
    """Until it is not there any more. Its output, which nobody reads now, must not keep it from ending."""
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
