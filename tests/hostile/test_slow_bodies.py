"""Slow bodies: the server waits while they progress, and refuses them with an error when they do not."""

import asyncio
import contextlib
import json
import logging
import time

import pytest

from chatstream import auth
from chatstream.handlers import base
from tests.support.client import API, PATIENCE
from tests.support.doors import doors_alone
from tests.support.processes import SECRET
from tests.support.routes import methods, routes

TOKEN = auth.mint(SECRET, "slow", 3600)


async def refused(reader: asyncio.StreamReader) -> dict[str, object]:
    """The problem document of a response after which the connection is closed."""
    async with asyncio.timeout(PATIENCE):
        try:
            response = await reader.read(-1)
        except ConnectionError:  # a byte was sent after the server had closed the connection
            response = bytes(reader._buffer)  # type: ignore[attr-defined]  # what had come before
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n"), head
    assert b"\r\nConnection: close" in head
    problem: dict[str, object] = json.loads(body)
    assert (problem["status"], problem["code"]) == (408, "request_timeout")
    assert f"X-Request-Id: {problem['requestId']}".encode() in head
    return problem


def head(method: str, path: str, length: str, token: str | None = TOKEN) -> bytes:
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{authorization}{length}\r\n\r\n".encode()


@pytest.mark.gen_test
async def test_a_body_that_does_not_come_is_408_on_every_route(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(base, "BODY_SECONDS", 0.2)

    async def stall(port: int, request: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        await refused(reader)
        writer.close()

    async with doors_alone() as (server, port, _), asyncio.TaskGroup() as clients:
        for path, door in routes().items():
            for method in methods(door) - {"head"}:
                for token in (TOKEN, None, "none"):
                    for length in ("Content-Length: 1000", "Transfer-Encoding: chunked"):
                        target = path.replace("{id}", "none-such")
                        clients.create_task(stall(port, head(method.upper(), target, length, token) + b"3\r\n{"))
    assert server._open == 0
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.gen_test
async def test_a_byte_now_and_then_is_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "BODY_SECONDS", 0.2)
    async with doors_alone() as (_, port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head("POST", "/api/v1/chat/conversations", "Content-Length: 1000"))
        for _ in range(1000):
            writer.write(b" ")
            with contextlib.suppress(ConnectionResetError):  # it was refused, and closed, before
                await writer.drain()
            if reader.at_eof() or reader._buffer:  # type: ignore[attr-defined]  # whether a response has come
                break
            await asyncio.sleep(0.01)  # the client is this slow
        await refused(reader)
        writer.close()


@pytest.mark.gen_test
async def test_who_gets_on_is_waited_for_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(base, "BODY_BYTES_PER_SECOND", 100)
    async with doors_alone() as (_, port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head("POST", "/healthz", "Content-Length: 5001") + b" " * 5000)  # wait 50 s for the last byte
        await writer.drain()
        began = time.monotonic()
        while time.monotonic() - began < 0.5:  # twice the time limit for the first bytes
            await asyncio.sleep(0.1)
        writer.write(b" ")
        async with asyncio.timeout(PATIENCE):
            assert (await reader.readline()).startswith(b"HTTP/1.1 405 ")
        writer.close()

        monkeypatch.setattr(base, "LONGEST_BODY_SECONDS", 0.3)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head("POST", "/healthz", "Content-Length: 5001") + b" " * 5000)
        await refused(reader)
        writer.close()


@pytest.mark.gen_test
async def test_what_a_user_has_begun_to_send_is_bounded_and_nobody_elses_matter() -> None:
    body = b"x" * 700_000  # complete, but not JSON

    async def begin(port: int, token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = head("POST", API, f"Content-Type: application/json\r\nContent-Length: {len(body)}", token)
        writer.write(request + body[:-1])
        await writer.drain()
        return reader, writer

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        writer.write(body[-1:])
        async with asyncio.timeout(PATIENCE):
            status = int((await reader.readline()).split()[1])
        writer.close()
        return status

    async with doors_alone() as doors:
        uploads = doors.limits.uploads

        async def held(size: int) -> None:
            async with asyncio.timeout(PATIENCE):
                while uploads.total != size:
                    await asyncio.sleep(0.01)  # the server reads the remaining bytes some time later

        begun = [await begin(doors.port, TOKEN) for _ in range(14)]
        fit = 8 * 1024 * 1024 // (len(body) - 1)
        async with asyncio.timeout(PATIENCE):
            while uploads.total < fit * (len(body) - 1) or uploads.total > 8 * 1024 * 1024:
                await asyncio.sleep(0.01)
        other = await begin(doors.port, auth.mint(SECRET, "somebody-else", 3600))
        assert await end(*other) == 400
        statuses = [await end(*one) for one in begun]
        assert statuses.count(429) >= 14 - fit - 1
        assert statuses.count(400) >= fit - 1
        await held(0)
        left = [await begin(doors.port, TOKEN) for _ in range(fit)]
        await held(fit * (len(body) - 1))
        for _, writer in left:
            writer.transport.abort()
        await held(0)
        assert await end(*await begin(doors.port, TOKEN)) == 400
