"""HTTP with a wrong or ambiguous length: no request can be smuggled behind another one."""

import contextlib
import json
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.conftest import Target
from tests.support.client import API, PATIENCE
from tests.support.examples import examples

pytestmark = pytest.mark.xdist_group("hostile")  # one server for all of them

CONNECTIONS = 40  # concurrent connections
EXAMPLES = examples(15)


def replies(port: int, attacks: list[bytes], *, half_close: bool = False) -> Iterator[list[tuple[int, bytes]]]:
    """Send each on its own connection, all at the same time; returns the status and the rest of each response.
    `half_close`: close the client's side after sending, so that the server does not wait for missing bytes; it may then
    close without a response.
    """
    sockets = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in attacks]
    try:
        for each, attack in zip(sockets, attacks, strict=True):
            with contextlib.suppress(OSError):  # it has closed the connection already
                each.sendall(attack)
                if half_close:
                    each.shutdown(socket.SHUT_WR)
        for each in sockets:
            received = b""
            with contextlib.suppress(ConnectionResetError):  # the server closed before it had read everything
                while part := each.recv(65536):
                    received += part
            yield [
                (int(response[:3]), response)
                for response in received.split(b"HTTP/1.1 ")[1:]
                if not response.startswith(b"100 ")
            ]
    finally:
        for each in sockets:
            each.close()


def assert_no_server_error(responses: list[tuple[int, bytes]]) -> None:
    for status, response in responses:
        assert status < 500, response
        if status >= 400:
            head, _, body = response.partition(b"\r\n\r\n")
            assert b"\r\nContent-Type: application/problem+json\r\n" in head
            assert b"\r\nServer:" not in head
            assert not body or json.loads(body)["status"] == status


@pytest.mark.timeout(300)
def test_no_request_hides_in_anothers_body(target: Target) -> None:
    """CL.TE, TE.CL, TE.TE and their kin (RFC 9112, section 11.2): refused, and nothing after it is read."""
    smuggled = target.request("POST", API, "Content-Type: application/json", body=b'{"title": "smuggled"}')
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(smuggled), smuggled)
    ambiguous = [
        ["Content-Length: 4", "Transfer-Encoding: chunked"],
        [f"Content-Length: {len(smuggled)}", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 0"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding: identity, chunked"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding: \x0bchunked"],
        ["Transfer-Encoding:\x00chunked"],
        ["Transfer-Encoding : chunked"],
        [" Transfer-Encoding: chunked"],
        ["X: x\r\n Transfer-Encoding: chunked"],  # obs-fold
        ["Content-Length: 0", "Content-Length: 5"],
        ["Content-Length: 0, 5"],
        ["Content-Length: +5"],
        ["Content-Length: -1"],
        ["Content-Length: 0x5"],
        ["Content-Length: 5 5"],
        ["Content-Length: \u0665"],
        ["Content-Length: 1_0"],
        ["Content-Length: 1e1"],
        [f"Content-Length: {'9' * 5000}"],
        ["Content-Length : 5"],
        ["Content_Length: 5", "Transfer-Encoding: chunked;x"],
    ]
    last = target.request("GET", "/healthz", "Connection: close")
    before = target.everything()
    attacks = []
    for headers in ambiguous:
        for body in (smuggled, chunked, b"0\r\n\r\n" + smuggled, b"5;x=y\r\nhello\r\n" + chunked):
            head = "\r\n".join(["POST /nowhere HTTP/1.1", "Host: x", *headers, "", ""])
            attacks.append(head.encode() + body + last)
    for start in range(0, len(attacks), CONNECTIONS):
        batch = attacks[start : start + CONNECTIONS]
        for attack, responses in zip(batch, replies(target.server.port, batch), strict=True):
            assert_no_server_error(responses)
            assert [status for status, _ in responses] == [400], (attack, responses)
    assert target.everything() == before


@pytest.mark.timeout(300)
def test_requests_behind_one_another_are_answered_in_order(target: Target) -> None:
    """Pipelining (RFC 9112, section 9.3.2), also after a request that is refused with its body unread."""
    ids = [f"order-{number}" for number in range(20)]
    requests = [target.request("GET", f"{API}/{id_}", f"X-Request-Id: {id_}") for id_ in ids]
    requests[7] = target.request("POST", API, f"X-Request-Id: {ids[7]}", body=b" " * 900_000)
    requests[11] = target.request("GET", f"{API}/{ids[11]}", f"X-Request-Id: {ids[11]}", "Connection: close")
    with socket.create_connection(("127.0.0.1", target.server.port), PATIENCE) as connection:
        connection.sendall(b"".join(requests))
        received = b""
        while part := connection.recv(65536):
            received += part
    responses = received.split(b"HTTP/1.1 ")[1:]
    assert [int(response[:3]) for response in responses] == [404] * 7 + [413] + [404] * 4
    for id_, response in zip(ids, responses, strict=False):
        assert b"\r\nX-Request-Id: %b\r\n" % id_.encode() in response


# Pieces of requests, combined at random: mostly almost valid, which tests the parser more deeply than noise. {n}: this
# many letters.
START = st.sampled_from(
    [
        *(b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"GET / HTTP/0.9", b"GET /", b"GET  /  HTTP/1.1", b"get / HTTP/1.1"),
        *(b"GET http://evil.example/healthz HTTP/1.1", b"GET //evil.example/ HTTP/1.1", b"OPTIONS * HTTP/1.1"),
        *(b"CONNECT evil.example:443 HTTP/1.1", b"TRACE / HTTP/1.1", b"PRI * HTTP/2.0", b"POST /readyz HTTP/1.1"),
        *(b"GET /api/v1/chat/conversations HTTP/1.1", b"GET /\x00 HTTP/1.1"),
        *(b"GET /\xff HTTP/1.1", b"\x16\x03\x01\x02"),
        *(b"GET /{70000} HTTP/1.1", b"GET / HTTP/1.1\r\n", b""),
        *(b"\r\n\r\nGET / HTTP/1.1", b"GET / HTTP/9.9"),
    ]
)
HEADER = st.sampled_from(
    [
        *(b"Host: x", b"Host: ", b"Host: a b", b"Host: x:99999"),
        *(b"Host: [::1", b"Host: \xff", b"HOST:x", b"Host: x, y"),
        *(b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: 999999", b"Content-Length: -1"),
        *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip"),
        *(b"Expect: 100-continue", b"Connection: keep-alive"),
        *(b"Connection: close, te", b"Upgrade: websocket", b" folded", b"\tfolded"),
        *(b": empty name", b"no colon", b"A:"),
        *(b"Content-Encoding: gzip", b"Content-Type: multipart/form-data; boundary="),
        *(b"Cookie: a=b; a=\x01", b"\x00: a"),
        *(b"Large: {15000}", b"Large: {100000}", b"Authorization: Bearer \xff\xfe", b"Very-\xd6: a"),
    ]
)
END_OF_LINE = st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\0\r\n"])
BODY = st.sampled_from(
    [
        *(b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n"),
        *(b"0\r\nTrailer: x\r\n\r\n", b"-1\r\n\r\n", b"g\r\n\r\n"),
        *(b"5\nhello\n0\n\n", b"5 \r\nhello\r\n", b"0x5\r\nhello\r\n0\r\n\r\n"),
        *(b"ffffffffffffffff\r\n", b"5\r\nhelloX\r\n0\r\n\r\n"),
        *(b"5;a=b\r\nhello\r\n0\r\n\r\n", b"0" * 200),
        *(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 3, b"\x1f\x8b\x08\x00"),
    ]
)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A request made of such pieces; half of the requests have a valid Host."""
    lines = [draw(START), *draw(st.sampled_from([[], [b"Host: x"]])), *draw(st.lists(HEADER, max_size=4)), b""]
    return b"".join(line + draw(END_OF_LINE) for line in lines) + draw(BODY | st.binary(max_size=30))


def inflated(attack: bytes) -> bytes:
    return re.sub(rb"\{(\d+)\}", lambda size: b"a" * int(size[1]), attack)


@pytest.mark.timeout(300)
def test_what_is_almost_http_is_refused_or_answered(target: Target) -> None:
    before, sent, answered = target.everything(), 0, 0

    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(broken(), min_size=CONNECTIONS, max_size=CONNECTIONS))
    def attack(attacks: list[bytes]) -> None:
        nonlocal sent, answered
        sent += len(attacks)
        for responses in replies(target.server.port, [inflated(each) for each in attacks], half_close=True):
            assert_no_server_error(responses)
            answered += bool(responses)

    attack()
    assert sent >= CONNECTIONS * EXAMPLES
    assert answered > sent / 2  # the others end too early, or are too large for a response to arrive
    assert target.everything() == before
    # The server still works.
    assert target.http.exchange(target.request("GET", "/readyz")).status == 200
