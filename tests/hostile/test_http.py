"""HTTP as specified in RFC 9110 and RFC 9112, also in parts that few clients use."""

import contextlib
import gzip
import json
import socket

import pytest

from chatstream import auth
from tests.hostile.conftest import Target
from tests.support.client import API, PATIENCE
from tests.support.processes import SECRET

pytestmark = pytest.mark.xdist_group("hostile")  # one server for all of them

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def said(target: Target, request: bytes, *, half_close: bool = False) -> bytes:
    """All bytes until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", target.server.port), PATIENCE) as connection:
        connection.sendall(request)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def statuses(received: bytes) -> list[int]:
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


def test_empty_lines_before_a_request_are_passed_over(target: Target) -> None:
    for lines in (b"\r\n", b"\n", b"\r\n\r\n", b"\n\n\n", b"\r\n" * 50):
        assert statuses(said(target, lines + HEALTH + lines + LAST)) == [200, 200], lines


def test_a_target_may_be_absolute(target: Target) -> None:
    for url, status in [
        ("http://chat.example/healthz", 200),
        ("HTTPS://chat.example:8443/healthz?x=http://y/z", 200),
        ("http://[::1]:80/healthz", 200),
        ("http://chat.example/nowhere", 404),
        ("http://chat.example", 200),
        ("http://chat.example?x=y", 200),
        ("ftp://chat.example/healthz", 404),
        (f"http://chat.example{API}/x/stream?access_token=secret", 401),
    ]:
        request = f"GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert statuses(said(target, request.encode())) == [status], url


def test_options_may_ask_about_the_whole_server(target: Target) -> None:
    for url in ("*", "http://chat.example"):
        received = said(target, f"OPTIONS {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert statuses(received) == [204], url
        assert b"\r\nAllow: DELETE, GET, HEAD, OPTIONS, PATCH, POST\r\n" in received
    assert statuses(said(target, b"GET * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")) == [404]
    assert b"\r\nAllow: GET, HEAD, OPTIONS, POST\r\n" in said(
        target, f"OPTIONS {API} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )


def chunked(target: Target, *chunks: bytes) -> bytes:
    head = f"POST {API} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {target.token}\r\n"
    head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head.encode() + b"".join(chunks) + LAST


def test_chunk_extensions_and_trailers_are_ignored(target: Target) -> None:
    for size, trailers in [
        (b"2", b""),
        (b"2;a", b""),
        (b"2;a=b;c", b""),
        (b'2 ; a = "b;c"', b""),
        (b"00002;" + b"x" * 900, b""),
        (b"2", b"X: y\r\n"),
        (b"2;a=b", b"Content-Length: 99\r\nHost: evil\r\nX:\r\n"),
    ]:
        request = chunked(
            target, size, b"\r\n{}\r\n0", size[1:] if size[:1] == b"2" else b"", b"\r\n", trailers, b"\r\n"
        )
        assert statuses(said(target, request)) == [201, 200], (size, trailers)
    before = target.stored()
    for chunks in (
        b"2;a\nb\r\n{}\r\n0\r\n\r\n",  # a bare line feed does not end the line
        b"2;\x00\r\n{}\r\n0\r\n\r\n",
        b"2 \r\n{}\r\n0\r\n\r\n",
        b";a\r\n{}\r\n0\r\n\r\n",
        b"2;" + b"x" * 3000 + b"\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}\r\n0\r\nno colon\r\n\r\n",
        b"2\r\n{}\r\n0\r\n bad: x\r\n\r\n",
        b"2\r\n{}\r\n0\r\nX: a\nY: b\r\n\r\n",
        b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        b"1;%b\r\n \r\n" % (b"x" * 900) * 50 + b"2\r\n{}\r\n0\r\n\r\n",
    ):
        with contextlib.suppress(ConnectionResetError):  # the server did not read everything
            assert statuses(said(target, chunked(target, chunks))) == [400], chunks[:60]
    assert target.stored() == before


def test_who_says_no_more_still_listens(target: Target) -> None:
    post = target.request("POST", API, "Content-Type: application/json", body=b"{}")
    for request, expected in [
        (HEALTH, [200]),
        (HEALTH * 3, [200] * 3),
        (target.request("GET", API), [200]),
        (post, [201]),
        (HEALTH + post + target.request("GET", f"{API}/none-such/messages"), [200, 201, 404]),
        (target.request("GET", f"{API}/{target.conversation}/stream?once=true"), [204]),
        (target.request("GET", f"{API}/none-such/stream", "Accept: text/event-stream"), [404]),
    ]:
        assert statuses(said(target, request, half_close=True)) == expected, request[:60]
    received = said(target, target.request("GET", f"{API}/{target.conversation}/stream"), half_close=True)
    assert b'"type":"connected"' in received  # a stream, too; this server ends it soon
    assert received.endswith(b"\r\n0\r\n\r\n")
    # An incomplete request is not carried out.
    before = target.stored()
    for missing in (1, 2, 3):
        said(target, post[:-missing], half_close=True)
        said(target, chunked(target, b"2\r\n{}\r\n0\r\n\r\n")[: -len(LAST) - missing], half_close=True)
    assert target.stored() == before


def test_head_is_gets_twin_and_starts_nothing(target: Target) -> None:
    token = auth.mint(SECRET, "header", 3600)
    one = f"{API}/{target.create(token)}"
    before = target.everything()
    for path in (API, one, f"{one}/messages", f"{one}/stream", "/healthz", "/readyz", "/openapi.json", "/metrics"):
        got = target.http.exchange(target.request("GET", path, token=token))
        reply = target.http.exchange(target.request("HEAD", path, token=token))
        assert (reply.status, reply.body) == (200, b""), path
        for name in ("content-type", "cache-control", "vary", "x-accel-buffering"):
            assert reply.headers.get(name) == got.headers.get(name), (path, name)
        assert "content-length" not in reply.headers or "content-length" in got.headers
    for path, status in ((f"{API}/none-such/stream", 404), (f"{API}/a.b", 400), (f"{one}/stop", 405)):
        assert target.http.exchange(target.request("HEAD", path, token=token)).status == status
    assert target.everything() == before


def test_a_stream_without_chunks_ends_with_its_connection(target: Target) -> None:
    stream = f"{API}/{target.conversation}/stream"
    for connection in ("keep-alive", "Keep-Alive", "close", "te"):
        head = f"GET {stream} HTTP/1.0\r\nAuthorization: Bearer {target.token}\r\nConnection: {connection}\r\n\r\n"
        received = said(target, head.encode())
        assert b"\r\nConnection: close\r\n" in received
        assert b"eep-" not in received.partition(b"\r\n\r\n")[0]
        assert received.endswith(b"}\n\n")
    # A response with a length keeps the connection open.
    kept = b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    assert statuses(said(target, kept + LAST)) == [200, 200]


def test_a_compressed_body_is_refused_in_words(target: Target) -> None:
    body = gzip.compress(b"{}")
    for coding in ("gzip", "br", "GZIP", "deflate, gzip"):
        for path in (API, f"{API}/{target.conversation}/messages"):
            reply = target.http.exchange(
                target.request("POST", path, "Content-Type: application/json", f"Content-Encoding: {coding}", body=body)
            )
            assert not reply.accepted
            assert (reply.status, reply.headers["accept-encoding"]) == (415, "identity")
            assert "compressed" in json.loads(reply.body)["detail"]
    plain = target.request("POST", API, "Content-Type: application/json", "Content-Encoding: identity", body=b"{}")
    assert target.http.exchange(plain).status == 201


def test_a_byte_order_mark_is_ignored(target: Target) -> None:
    reply = target.http.exchange(
        target.request("POST", API, "Content-Type: application/json", body=b'\xef\xbb\xbf{"title": "\xef\xbb\xbfA"}')
    )
    assert (reply.status, json.loads(reply.body)["title"]) == (201, "\ufeffA")


def test_what_is_wrong_is_said(target: Target) -> None:
    for request, words in [
        (b"GET /\r\n\r\n", "first line"),
        (b"GET / HTTP/1.1\r\n\r\n", "no Host"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "Host is not valid"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "more than one Host"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", "colon"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n", "header fields is not valid"),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", "1.0 or 1.1"),
        (b"GET /?" + b"a&" * 3000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", "query"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", "not a number"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "both"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", "chunked"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n", "length of one"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", "too large"),
    ]:
        received = said(target, request)
        assert statuses(received) == [400], request[:60]
        assert words in json.loads(received.partition(b"\r\n\r\n")[2])["detail"], request[:60]


@pytest.mark.parametrize("words", ["close, te", "TE, Close", "te\r\nConnection: close"])
def test_a_connection_is_closed_for_whoever_asks_for_it_among_other_things(target: Target, words: str) -> None:
    response = said(target, LAST.replace(b"close", words.encode()))
    assert statuses(response) == [200]
    assert b"\r\nConnection: close\r\n" in response
