"""Invalid HTTP is refused with a problem document, too. The log reports it without quoting it."""

import asyncio
import json

import pytest

from chatstream.handlers.base import BaseHandler
from chatstream.handlers.connection import LAST_CHUNK, Connection
from tests.support.client import API, PATIENCE, Client
from tests.support.doors import doors_alone
from tests.support.processes import ServerProcess
from tests.support.upstream import Upstream, answer

SECRET = "Bearer-of-a-secret"


async def send(port: int, request: bytes) -> tuple[list[bytes], bytes]:
    """Send bytes on a new connection; returns the lines of the response's head, and the rest."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(PATIENCE):
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    finally:
        writer.close()
    return head.split(b"\r\n"), body


@pytest.mark.gen_test
async def test_what_is_not_http_is_refused_with_a_problem(shared_server: ServerProcess) -> None:
    for request in (
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA header without a colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization : " + SECRET.encode() + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnot a length\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 2000,
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Large: " + b"a" * 20_000 + b"\r\n\r\n",
    ):
        [status, *headers], body = await send(shared_server.port, request)
        assert status == b"HTTP/1.1 400 Bad Request", request
        fields = dict(header.decode().split(": ", 1) for header in headers)
        assert fields["Content-Type"] == "application/problem+json"
        assert fields["X-Content-Type-Options"] == "nosniff"
        assert fields["Referrer-Policy"] == "no-referrer"
        assert (fields["Cache-Control"], fields["Connection"]) == ("no-store", "close")
        assert "Server" not in fields
        assert int(fields["Content-Length"]) == len(body)
        problem = json.loads(body)
        assert (problem["status"], problem["code"]) == (400, "invalid_request")
        assert problem["requestId"] == fields["X-Request-Id"]
        assert fields["X-Request-Id"] in shared_server.log
    assert SECRET not in shared_server.log
    assert "Traceback" not in shared_server.log


@pytest.mark.gen_test
async def test_the_end_of_what_a_client_says_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a request is handled, nothing is read. Reading the end of file again and again took 60 ms of CPU time."""
    reads: list[int | None] = []
    read = Connection.read_from_fd

    def counted(self: Connection, buf: bytearray | memoryview) -> int | None:
        reads.append(read(self, buf))
        return reads[-1]

    async def at_work(self: BaseHandler) -> None:
        begun.set()
        await go_on.wait()

    begun, go_on = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(Connection, "read_from_fd", counted)
    monkeypatch.setattr(BaseHandler, "prepare", at_work)
    async with doors_alone() as (_, port, _limits):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await begun.wait()
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            while 1 not in reads:
                await asyncio.sleep(0)
        go_on.set()
        async with asyncio.timeout(PATIENCE):
            assert (await reader.read()).startswith(b"HTTP/1.1 ")
        writer.close()
    assert len(reads) < 10


@pytest.mark.gen_test
async def test_a_stream_ends_once_and_its_connection_serves_on(
    client: Client, upstream: Upstream, shared_server: ServerProcess
) -> None:
    """The end of the body is written together with the last event, and not a second time."""
    upstream.reply(answer("Ireland."))
    conversation = await client.create()
    assert (await client.post(conversation, "Who wins?")).is_success
    await client.answer(conversation)
    [question, _] = await client.messages(conversation)
    head = f"Host: x\r\nAuthorization: Bearer {client.token}\r\n\r\n"
    path = f"{API}/{conversation}/stream?once=true&last_event_id={question['id']}.user"
    for version in ("1.1", "1.0"):
        reader, writer = await asyncio.open_connection("127.0.0.1", shared_server.port)
        async with asyncio.timeout(PATIENCE):
            for _ in range(2 if version == "1.1" else 1):
                writer.write(f"GET {path} HTTP/{version}\r\n{head}".encode())
                assert b" 200 OK\r\n" in await reader.readuntil(b"\r\n\r\n")
                if version == "1.1":
                    body = await reader.readuntil(b"\r\n" + LAST_CHUNK)
                    assert body.count(b'"type":"llm_complete"') == 1
            if version == "1.1":
                writer.write(f"GET /healthz HTTP/1.1\r\nConnection: close\r\n{head}".encode())
                assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")  # nothing is left of the stream
            else:
                body = await reader.read()
                assert body.endswith(b"\n\n")  # a body without chunks has no last chunk
                assert body.count(b'"type":"llm_complete"') == 1
        writer.close()
