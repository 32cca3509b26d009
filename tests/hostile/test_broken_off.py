"""Clients that leave at every point of a request: no memory stays in use, and the log has a line for each."""

import asyncio
import contextlib
import gc
import json
import operator
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from chatstream import auth
from chatstream.handlers.base import BaseHandler
from tests.conftest import StartServer
from tests.support.client import API, PATIENCE
from tests.support.doors import doors_alone
from tests.support.processes import SECRET, ServerProcess
from tests.support.routes import methods, routes

BODY = json.dumps({"content": "x" * 30_000, "title": "y" * 60_000}).encode()  # refused once the whole body has arrived
# The most that the memory may grow, of some fifty megabytes: allocators keep some freed memory. An earlier version kept
# all of it.
MOST_GROWTH_KB = 32_768


class Upload(NamedTuple):
    """A request whose client leaves after `sent` bytes."""

    request: bytes
    head: int
    sent: int

    @property
    def calls_api(self) -> bool:
        """Whether it is for the API, whose requests are all logged."""
        return b" /api/" in self.request.partition(b"\r\n")[0]


def uploads(conversation: str) -> Iterator[Upload]:
    """Uploads on every route, with and without a token, cut in the head, after the head, in the body, and after the
    body.
    """
    token = auth.mint(SECRET, "leaver", 3600)
    for path, door in sorted(routes().items()):
        for method in sorted(methods(door) | {"post"}):
            for authorization in (f"Authorization: Bearer {token}\r\n", "", "Authorization: Bearer none\r\n"):
                head = (
                    f"{method.upper()} {path.replace('{id}', conversation)} HTTP/1.1\r\nHost: x\r\n{authorization}"
                    f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
                ).encode()
                whole = head + BODY
                for sent in (1, len(head) - 1, len(head), len(head) + 1, len(whole) // 2, len(whole) - 1, len(whole)):
                    yield Upload(whole, len(head), sent)


def lines(log: str) -> tuple[int, int, int]:
    """The numbers of logged requests whose clients left in the head, in the body, and after the body of one to the
    API.
    """
    whole = re.findall(r" /api/\S* (?!499)\d\d\d \d", log)
    return log.count("before the whole head"), log.count(" 499 "), len(whole)


def break_off(port: int, upload: Upload) -> None:
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
    with connection, contextlib.suppress(OSError):  # the server has already refused it and closed the connection
        connection.sendall(upload.request[: upload.sent])


def resident_kb(server: ServerProcess) -> int:
    assert server.process is not None
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found
    return int(found[1])


@pytest.mark.gen_test(timeout=110)
async def test_of_cut_uploads_nothing_stays_but_a_line_in_the_log(start_server: StartServer) -> None:
    server = start_server(OPENAI_BASE_URL="", OPENAI_API_KEY="")
    # Every route, every cut and every token, but not all combinations; the next test has those. The step and the number
    # of uploads have no common divisor, so that all are reached.
    everything = list(uploads("none-such"))
    first = everything[::4]
    rest = [upload for upload in everything if upload.sent > upload.head + 1][::2]
    assert sum(upload.sent for upload in rest) > 1.5 * MOST_GROWTH_KB * 1024

    def attack(some: list[Upload]) -> None:
        for upload in some:
            break_off(server.port, upload)

    await asyncio.to_thread(attack, first)  # the first attack brings the allocator to its peak
    before = resident_kb(server)
    await asyncio.to_thread(attack, rest)
    in_head = sum(upload.sent < upload.head for upload in first + rest)
    in_body = sum(upload.head <= upload.sent < len(upload.request) for upload in first + rest)
    whole = sum(upload.sent == len(upload.request) and upload.calls_api for upload in first + rest)
    expected = (in_head, in_body, whole)
    async with asyncio.timeout(2 * PATIENCE):  # until the log has a line for each of some thousand requests
        while any(map(operator.lt, found := lines(await server.logged()), expected)):
            await asyncio.sleep(0.1)  # between two polls of a file
    assert found == expected
    assert resident_kb(server) - before < MOST_GROWTH_KB
    assert await asyncio.to_thread(server.stop) == 0
    # A request that is still alive at shutdown is cancelled, and logged as our fault (500).
    assert " 500 " not in server.log
    assert "Traceback" not in server.log


@pytest.mark.gen_test
async def test_no_handler_and_no_task_stays() -> None:
    """The same in this process, where living objects can be counted."""
    async with doors_alone() as (server, port, _):
        tasks = asyncio.all_tasks()
        gc.collect()
        gc.disable()  # objects with reference cycles would then stay, and be counted
        try:
            for upload in uploads("none-such"):
                if upload.sent < len(upload.request):  # no database behind the handlers
                    await asyncio.to_thread(break_off, port, upload)
            async with asyncio.timeout(PATIENCE):
                while asyncio.all_tasks() - tasks or server._open:
                    await asyncio.sleep(0)
            bodies = [len(body) for one in handlers() if (body := getattr(one, "_received", b""))]
            assert bodies == []
            gc.collect()
            assert handlers() == []
        finally:
            gc.enable()


def handlers() -> list[BaseHandler]:
    """The handlers that are alive."""
    # Compare by type: `isinstance` would follow a weak proxy of another test, or fail if its object is gone.
    return [each for each in gc.get_objects() if issubclass(type(each), BaseHandler)]


@pytest.mark.gen_test
async def test_who_leaves_in_mid_stream_or_before_the_response_leaves_nothing(start_server: StartServer) -> None:
    server = start_server(OPENAI_BASE_URL="", OPENAI_API_KEY="")
    token = auth.mint(SECRET, "leaver", 3600)
    head = f"HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    body = b'{"id": "watched"}'
    requests = [
        f"GET {API}/watched/stream {head}\r\n",
        f"GET {API}/watched/messages {head}\r\n",
        f"POST {API}/watched/messages?ifBusy=interrupt {head}Accept: text/event-stream\r\n"
        'Content-Length: 16\r\n\r\n{"content":"Hi"}',
    ]

    def attack() -> None:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
            connection.sendall(f"POST {API} {head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert connection.recv(20).startswith(b"HTTP/1.1 201 ")
        for number in range(120):
            with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
                connection.sendall(requests[number % 3].encode())
                if number % 2:
                    connection.recv(64)

    await asyncio.to_thread(attack)
    async with asyncio.timeout(PATIENCE):
        # Ids chosen by clients are not in the log, so count the routes.
        while (await server.logged()).count("conversations/{id}/") < 120:
            await asyncio.sleep(0.1)  # between two polls of a file
    assert await asyncio.to_thread(server.stop) == 0
    assert " 500 " not in server.log
