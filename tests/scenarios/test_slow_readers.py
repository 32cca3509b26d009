"""Clients that stop reading: they are disconnected, pin little memory, and do not affect others."""

import asyncio
import contextlib
import re
import socket
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import MakeClient, StartServer
from tests.support.client import API, PATIENCE, Client
from tests.support.processes import ServerProcess
from tests.support.upstream import DONE, Upstream, answer, delta, event, head, http_chunk


def resident_kilobytes(server: ServerProcess) -> int:
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


async def frozen(client: Client, path: str) -> socket.socket:
    """Request a response and never read it, with a small receive buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = client.url.removeprefix("http://").split(":")
    sock.connect((host, int(port)))
    sock.sendall(f"GET {API}/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.token}\r\n\r\n".encode())
    return sock


@pytest.mark.gen_test
async def test_readers_that_never_read_are_cut_and_nobody_else_notices(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    # JSON escapes each of these characters in six bytes: 12 MB, more than the kernel's buffers hold for one connection.
    part = http_chunk(event(delta("\1" * 65_536)))
    go_on = [asyncio.Event() for _ in range(30)]
    upstream.reply(
        head() + http_chunk(event(delta("Begin."))),
        *(it for step in go_on for it in (step, part)),
        http_chunk(event(delta(finish_reason="stop"))) + http_chunk(event(DONE)) + http_chunk(b""),
    )
    server = start_server(
        CHATSTREAM_SLOW_READER_TIMEOUT="2",
        CHATSTREAM_ANSWER_CHARACTERS="3000000",
        CHATSTREAM_CONNECTION_BYTES="100000000",
        CHATSTREAM_STREAMS_PER_USER="15",
    )
    client = make_client(server)
    conversation = await client.create(initialMessage="A lot.")
    async with contextlib.AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(client.stream(conversation)) for _ in range(5)]
        for reader in readers:
            await reader.until("llm_chunk")
        before = resident_kilobytes(server)
        frozen_ones = [await frozen(client, f"{conversation}/stream") for _ in range(10)]
        for sock in frozen_ones:
            assert await asyncio.to_thread(sock.recv, 12) == b"HTTP/1.1 200"
        for step in go_on:
            step.set()
            await asyncio.gather(*(reader.until("llm_chunk") for reader in readers))
        completes = await asyncio.gather(*(reader.until("llm_complete") for reader in readers))
        assert all(complete.data["content"] == reader.text for complete, reader in zip(completes, readers, strict=True))
        while server.log.count('"end": "does_not_read"') < len(frozen_ones):
            await asyncio.sleep(0.05)  # between two polls; there is no event to wait for in another process
        assert (resident_kilobytes(server) - before) / len(frozen_ones) < 8 * 1024
        for sock in frozen_ones:
            sock.close()
        await asyncio.gather(*(reader.until("heartbeat") for reader in readers))


def answered_in_part(sock: socket.socket) -> bool:
    """Whether the connection ends before the end of the body."""
    received = b"".join(iter(partial(sock.recv, 65_536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    return length is not None and len(body) < int(length[1])


@pytest.mark.gen_test
async def test_a_response_that_is_not_taken_in_is_not_kept(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    # As JSON six megabytes, more than the kernel's buffers ever hold for one connection (4 MB by default).
    upstream.reply(answer(*["\1" * 500_000] * 2))
    server = start_server(CHATSTREAM_SLOW_READER_TIMEOUT="1", CHATSTREAM_ANSWER_CHARACTERS="1000000")
    client = make_client(server)
    conversation = await client.create(initialMessage="A lot.")
    assert (await client.answer(conversation))["status"] == "complete"
    sock = await frozen(client, f"{conversation}/messages")
    assert await asyncio.to_thread(sock.recv, 12) == b"HTTP/1.1 200"
    async with asyncio.timeout(PATIENCE):
        while served(sock):
            await asyncio.sleep(0.05)  # between two polls; there is no event to wait for in another process
    assert await asyncio.to_thread(answered_in_part, sock)
    sock.close()


def served(sock: socket.socket) -> bool:
    """Whether the server still has its end of the connection open (Linux)."""
    # Both ports: connections to other servers, such as the database, may have the same port at this end.
    theirs, ours = (f":{port:04X}" for (_, port) in (sock.getpeername(), sock.getsockname()))
    ends = [line.split()[1:4] for line in Path("/proc/net/tcp").read_text().splitlines()]
    return any(local.endswith(theirs) and remote.endswith(ours) and state == "01" for local, remote, state in ends)


@pytest.mark.gen_test
async def test_connections_rotate_between_answers(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    go_on = asyncio.Event()
    upstream.reply(
        head() + http_chunk(event(delta("Not in "))),
        go_on,
        http_chunk(event(delta("mid-answer."))) + http_chunk(event(delta(finish_reason="stop"))) + http_chunk(b""),
    )
    server = start_server(CHATSTREAM_CONNECTION_TIMEOUT="2")
    client = make_client(server)
    conversation = await client.create(initialMessage="Rotate.")
    async with client.stream(conversation) as watched:
        await watched.until("llm_chunk")
        await watched.until("heartbeat", 3)  # the connection is older than its maximum age
        go_on.set()
        await watched.until("llm_complete")
        told = len(watched.frames)
        assert {frame.type for frame in (await watched.rest())[told:]} <= {"heartbeat"}
