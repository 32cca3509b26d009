"""Input before authentication costs time in proportion to its length: double the input takes twice as long, not four
times.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest

from tests.support.client import API, PATIENCE
from tests.support.doors import Doors, doors_alone

# Bytes of a header: a request's head may have at most 16 KB.
HALF, WHOLE = 7_600, 15_200
# Highest ratio of the time for the whole to the time for the half. Linear time gives at most 2, quadratic time 4.
MOST_GROWTH = 3.0
# Highest ratio to the time of a harmless request of the same length: quadratic time would take a thousand times as
# long.
MOST_COST = 12.0

HERE = ip_network("127.0.0.0/8")

SHAPES = [
    *("eyJ-", "eyJ.", "eyJhbGciOiJIUzI1NiJ9.", "eyJ%2E", "%61", "%", "%ff", "..", "-", "_", "a", "\xff", "\x80"),
    *(",", "a,", ";", "a=b&", "=", '"', '\\"', 'for="', "for=1.1.1.1,", "127.0.0.1,", "[::1]:1,", "x-a,"),
    *("[", ":", "1.", "::", "/", "a/", 'W/"', " x"),
]
HEADERS = [
    *("Accept", "Access-Control-Request-Headers", "Authorization", "Connection", "Content-Encoding", "Content-Type"),
    *("Cookie", "Forwarded", "Idempotency-Key", "If-None-Match", "Last-Event-ID", "Origin", "X-Forwarded-For"),
    *("X-Request-Id", "Host", "Range", "Transfer-Encoding"),
]


def path(filling: str) -> bytes:
    return f"GET /{filling} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1")


def conversation(filling: str) -> bytes:
    return f"GET {API}/{filling.replace('/', 'x')}/stream HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1")


def query(filling: str) -> bytes:
    return f"GET {API}/a/stream?access_token={filling} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1")


def parameters(filling: str) -> bytes:
    return f"GET {API}/a/stream?{filling} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1")


def bearer(filling: str) -> bytes:
    return f"GET {API} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {filling}\r\n\r\n".encode("latin-1")


def in_header(name: str, method: str, filling: str) -> bytes:
    host = "" if name == "Host" else "Host: x\r\n"
    token = "Authorization: Bearer x\r\n"  # a bad token, so the client's address is determined
    return f"{method} {API} HTTP/1.1\r\n{host}{token}{name}: {filling}\r\n\r\n".encode("latin-1")


async def seconds(doors: Doors, request: bytes) -> float:
    """The CPU time of this process, which is both server and client."""
    reader, writer = await asyncio.open_connection("127.0.0.1", doors.port)
    begun = time.process_time()
    writer.write(request)
    async with asyncio.timeout(PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
    took = time.process_time() - begun
    assert head.startswith(b"HTTP/1.1 ")
    writer.close()
    return took


async def cost(doors: Doors, request: bytes) -> float:
    """The least time of several tries: other work of the process only adds to it."""
    return min([await seconds(doors, request) for _ in range(2)])


@pytest.mark.timeout(300)
@pytest.mark.gen_test(timeout=280)
async def test_before_anybody_is_known_time_grows_with_length_alone() -> None:
    trusting: dict[str, Any] = {"trusted_proxies": (HERE,), "cors_origins": ("https://app.example",)}
    async with doors_alone(**trusting, failures_per_minute=1_000_000) as doors:
        await cost(doors, path("a" * WHOLE))
        honest = await cost(doors, in_header("X-Honest", "GET", "a" * WHOLE))
        targets = [path, conversation, query, parameters, bearer]
        suspects: list[tuple[str, Callable[[str], bytes]]] = [(maker.__name__, maker) for maker in targets]
        for name in HEADERS:
            method = "OPTIONS" if name in ("Origin", "Access-Control-Request-Headers") else "GET"
            suspects.append((f"{method} {name}", partial(in_header, name, method)))
        for name, maker in suspects:
            for shape in SHAPES:
                if maker in targets and " " in shape:
                    continue
                requests = [maker(shape * (length // len(shape))) for length in (HALF, WHOLE)]
                half, whole = [await cost(doors, request) for request in requests]
                if whole > MOST_COST * honest or (whole > 3 * honest and whole > MOST_GROWTH * half):
                    half, whole = [min([await seconds(doors, one) for _ in range(20)]) for one in requests]  # again
                assert whole < MOST_COST * honest, (name, shape, whole / honest)
                assert whole < 3 * honest or whole < MOST_GROWTH * half, (name, shape, whole / half)


@pytest.mark.gen_test
async def test_so_it_does_with_many_fields() -> None:
    async with doors_alone(trusted_proxies=(HERE,)) as doors:
        honest = await cost(doors, in_header("X-Honest", "GET", "a" * WHOLE))
        for field in ("X-Forwarded-For: 127.0.0.1\r\n", "Forwarded: for=127.0.0.1\r\n", "Cookie: a=b\r\n", "A:\r\n"):
            half, whole = [
                await cost(doors, f"GET {API} HTTP/1.1\r\nHost: x\r\n{field * (n // len(field))}\r\n".encode())
                for n in (HALF, WHOLE)
            ]
            assert whole < 3 * honest or whole < MOST_GROWTH * half, (field, whole / half)
