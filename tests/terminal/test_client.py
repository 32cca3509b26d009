"""One connection of the terminal's client, with a server that sends the bytes of the test."""

import asyncio
import contextlib

import pytest

from chatstream.terminal.client import Client
from tests.support.client import PATIENCE
from tests.support.listening import listening

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
FRAME = b'id: 1\ndata: {"type": "heartbeat"}\n\n'


@pytest.mark.gen_test
async def test_who_is_interrupted_while_frames_come_in_stops() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        with contextlib.suppress(ConnectionError):
            while not over.is_set():
                writer.write(FRAME)
                await writer.drain()
                await asyncio.sleep(0)

    async def watch() -> None:
        async for _ in client.frames("/1", "0"):
            seen.set()

    over = asyncio.Event()
    async with listening(flood) as port:
        client = Client(f"http://127.0.0.1:{port}", "token")
        for turns in range(8):  # turns of the event loop: some are between a frame's arrival and its reading
            seen = asyncio.Event()
            watching = asyncio.create_task(watch())
            await seen.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            watching.cancel()
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait({watching})
            assert watching.cancelled()
        over.set()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}  # abandoned requests end with their connection
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait(tasks)
