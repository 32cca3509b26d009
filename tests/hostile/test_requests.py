"""All parts of a request except its body: ids, cursors, parameters, headers, tokens."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.conftest import MARK, Target
from tests.support.client import API
from tests.support.examples import examples

pytestmark = pytest.mark.xdist_group("hostile")  # one server for all of them

REQUESTS = 20  # per example: making an example takes longer than the server takes to refuse a request
EXAMPLES = examples(10)  # some ten seconds of each test; each run has others

# CR and LF would end a line: test_framing tests that.
anything = st.binary(max_size=40).map(lambda raw: raw.replace(b"\r", b"").replace(b"\n", b"").decode("latin-1"))
nasty = st.sampled_from(
    [
        *("", " ", "\t", "..", "../..", "%00", "%2e%2e%2f", "null", "undefined", "true", "-1", "1e9", "9" * 40),
        *("{$gt:''}", '{"$gt":""}', "[$ne]=1", "__proto__", "constructor", "<script>", "a%0d%0aSet-Cookie:x", "\x7f"),
        *("000000000000000000000000.0", "ffffffffffffffffffffffff.complete", "0" * 24 + ".system999", "a" * 8000, MARK),
    ]
)
texts = nasty | anything
encoded = texts.map(lambda text: quote(text, safe="", encoding="latin-1"))
# Unescaped, except the characters that would end the request line.
literal = texts.map(lambda text: "".join(character for character in text if "!" <= character <= "~"))
in_targets = encoded | literal


def attack(target: Target, requests: st.SearchStrategy[Any], send: Callable[[Any], None]) -> None:
    """`send` many `requests`; they change nothing that is stored."""
    before, begun = target.everything(), target.http.sent

    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(requests, min_size=REQUESTS, max_size=REQUESTS))
    def each(some: list[Any]) -> None:
        for one in some:
            send(one)

    each()
    assert target.http.sent - begun >= REQUESTS * EXAMPLES
    assert target.everything() == before


@pytest.mark.timeout(300)
def test_ids(target: Target) -> None:
    suffixes = st.sampled_from(["", "/stream?once=true", "/messages", "/stop", "/regenerate"])
    methods = st.sampled_from(["GET", "POST", "PATCH", "DELETE", "HEAD", "PUT", "OPTIONS", "TRACE"])

    def send(request: tuple[str, str, str]) -> None:
        method, id_, suffix = request
        reply = target.http.exchange(target.request(method, f"{API}/{id_}{suffix}"))
        assert method in ("HEAD", "OPTIONS") or not reply.accepted, reply

    # The log has the path, so it must have no secrets. A text that begins with a question mark is not an id.
    ids = in_targets.filter(lambda id_: MARK not in id_ and not id_.startswith(("?", "#")))
    attack(target, st.tuples(methods, ids, suffixes), send)


@pytest.mark.timeout(300)
def test_cursors(target: Target) -> None:
    def send(request: tuple[str, str, str]) -> None:
        name, in_query, in_header = request
        path = f"{API}/{target.conversation}/stream?once=true&{name}={in_query}"
        reply = target.http.exchange(target.request("GET", path, f"Last-Event-ID: {in_header}"))
        # An invalid cursor is no error; invalid HTTP or UTF-8 is one.
        assert reply.accepted or reply.status == 400, reply

    attack(target, st.tuples(st.sampled_from(["last_event_id", "lastEventId"]), in_targets, texts), send)


@pytest.mark.timeout(300)
def test_parameters(target: Target) -> None:
    names = st.sampled_from(["limit", "before", "once", "ifBusy", "access_token", "token", "ticket", "%00", "$where"])
    queries = st.lists(st.tuples(names | in_targets, in_targets), max_size=4)
    paths = st.sampled_from(["", "/messages", "/stream", "/regenerate"])

    def send(request: tuple[str, list[tuple[str, str]]]) -> None:
        path, query = request
        url = API + (f"/{target.conversation}{path}" if path else "")
        parameters = "&".join(f"{name}={value}" for name, value in [*query, ("once", "true")])
        method = "POST" if path == "/regenerate" else "GET"
        assert target.http.exchange(target.request(method, f"{url}?{parameters}")).accepted in (True, False)

    attack(target, st.tuples(paths, queries), send)


@pytest.mark.timeout(300)
def test_headers(target: Target) -> None:
    names = st.sampled_from(
        [
            *("Accept", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Origin", "X-Request-Id", "If-None-Match"),
            *("Cookie", "Range", "X-Forwarded-For", "X-Real-Ip", "X-Forwarded-Proto", "X-HTTP-Method-Override"),
            *("Accept-Encoding", "Content-Encoding", "Upgrade", "TE", "Host", "Connection", "__proto__", "$gt"),
        ]
    )
    paths = st.sampled_from(["/", "/docs", "/readyz", API, f"{API}/{target.conversation}/messages", "/nowhere"])

    def send(request: tuple[str, list[tuple[str, str]]]) -> None:
        path, headers = request
        lines = [f"{name}: {value}" for name, value in headers]
        reply = target.http.exchange(target.request("GET", path, *lines))
        assert reply.accepted or reply.status in (400, 404), reply
        assert "set-cookie" not in reply.headers
        assert "access-control-allow-origin" not in reply.headers

    attack(target, st.tuples(paths, st.lists(st.tuples(names | anything, texts), max_size=5)), send)


@pytest.mark.timeout(300)
def test_tokens(target: Target) -> None:
    head, claims, signature = target.token.split(".")

    @st.composite
    def altered(draw: st.DrawFn) -> str:
        """The valid token with one character changed. Not the last character, as some of its bits are unused."""
        place = draw(st.integers(0, len(target.token) - 2))
        character = draw(st.sampled_from("ABCabc019-_.=+/ \t\0é").filter(lambda c: c != target.token[place]))
        return target.token[:place] + character + target.token[place + 1 :]

    pieces = st.sampled_from([head, claims, signature, "", "e30", "eyJhbGciOiJub25lIn0", MARK])
    tokens = altered() | texts | st.lists(pieces, max_size=5).map(".".join).filter(lambda text: text != target.token)
    schemes = st.sampled_from(["Bearer", "bearer", "BEARER", "Basic", "Digest", "", "Bearer Bearer", "Bearer,"])

    def send(request: tuple[str, str, bool]) -> None:
        scheme, token, query = request
        path = f"{API}/{target.conversation}/stream?once=true"
        if query:
            path += f"&access_token={quote(token, safe='', encoding='latin-1')}"
        line = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {'' if query else scheme} {token}\r\n\r\n"
        reply = target.http.exchange(line.encode("latin-1"))
        assert not reply.accepted
        assert reply.status in (400, 401), reply

    attack(target, st.tuples(schemes, tokens, st.booleans()), send)
