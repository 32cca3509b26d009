"""The behaviour that all handlers share: errors as problem documents, request ids, CORS, bodies and their limits."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from chatstream.auth import Authenticator, OneKey, Rules
from chatstream.capacity import Capacity
from chatstream.handlers.base import BaseHandler
from chatstream.handlers.door import Door
from chatstream.handlers.request_log import RequestLog
from chatstream.limits import Limits
from chatstream.logs import JSONFormatter, Pseudonyms
from chatstream.metrics import Metrics
from chatstream.settings import Settings
from chatstream.store.mongo import Mongo
from chatstream.store.tickets import Tickets
from tests.conftest import MakeClient, StartServer
from tests.support.client import API, PATIENCE, Client
from tests.support.processes import SECRET, ServerProcess
from tests.support.upstream import Upstream, answer

KIB = 1024
LIMIT = 768 * KIB
NOBODY = "0" * 24


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check for a problem document (RFC 9457) with our two further members; returns it."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    problem: dict[str, Any] = response.json()
    assert {*problem} - {"errors"} == {"type", "title", "status", "detail", "code", "requestId"}
    assert (problem["type"], problem["status"], problem["code"]) == ("about:blank", status, code)
    assert problem["title"]
    assert problem["detail"]
    assert problem["requestId"] == response.headers["X-Request-Id"]
    assert ("errors" in problem) <= (status == HTTPStatus.UNPROCESSABLE_ENTITY)
    return problem


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_an_unknown_path_is_a_problem_whoever_asks(client: Client) -> None:
    paths = ["/x", "/api", "/api/v1/chat", f"{API}/", f"{API}/a/b", f"{API}/a/stream/x", "/healthz/", "/favicon.ico"]
    for path in paths:
        for method in ("GET", "POST", "DELETE"):
            assert_problem(await client.http.request(method, path), 404, "not_found")
    del client.http.headers["Authorization"]
    assert_problem(await client.http.get("/x"), 404, "not_found")


@pytest.mark.gen_test
async def test_a_method_that_a_resource_lacks_is_405_and_says_which_it_has(client: Client) -> None:
    conversation = await client.create()
    one = f"{API}/{conversation}"
    for path, allowed in [
        (API, "GET, HEAD, OPTIONS, POST"),
        (one, "DELETE, GET, HEAD, OPTIONS, PATCH"),
        (f"{one}/stream", "GET, HEAD, OPTIONS"),
        (f"{one}/messages", "GET, HEAD, OPTIONS, POST"),
        (f"{one}/stop", "OPTIONS, POST"),
        (f"{one}/regenerate", "OPTIONS, POST"),
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("/readyz", "GET, HEAD, OPTIONS"),
        ("/", "GET, HEAD, OPTIONS"),
    ]:
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "BREW"} - {*allowed.split(", ")}:
            response = await client.http.request(method, path)
            assert_problem(response, 405, "method_not_allowed")
            assert response.headers["Allow"] == allowed, (method, path)


@pytest.mark.gen_test
async def test_a_path_that_is_no_text_is_400(client: Client) -> None:
    for path in (f"{API}/%ff", f"{API}/%ff/messages", f"{API}/%80/stream"):
        assert_problem(await client.http.get(path), 400, "invalid_request")


@pytest.mark.gen_test
async def test_parameters_that_are_not_acceptable_are_400(client: Client) -> None:
    conversation = await client.create()
    for path in (API, f"{API}/{conversation}/messages"):
        for limit in ("0", "201", "-1", "1.5", "", "ten", "٣", "1e2", "9" * 5000, "%ff", "%00"):
            assert_problem(await client.http.get(f"{path}?limit={limit}"), 400, "invalid_request")
        for before in ("", "x", "-1", "9" * 16, "%ff", "1-x", f"-{NOBODY}", f"{'9' * 15}-{NOBODY}"):
            assert_problem(await client.http.get(f"{path}?before={before}"), 400, "invalid_request")
    for once in ("1", "True", "", "%ff"):
        response = await client.http.get(f"{API}/{conversation}/stream?once={once}")
        assert_problem(response, 400, "invalid_request")


@pytest.mark.gen_test
async def test_what_is_no_id_is_400_and_what_is_not_there_404_on_every_route(client: Client) -> None:
    for id_, status, code in [
        (NOBODY, 404, "not_found"),
        ("nobody", 404, "not_found"),
        ("a" * 65, 400, "invalid_request"),
        ("a.b", 400, "invalid_request"),
        ("a%2Fb", 400, "invalid_request"),
        ("%00", 400, "invalid_request"),
        ("%7B%22$gt%22:%22%22%7D", 400, "invalid_request"),
        ("a%0a", 400, "invalid_request"),
        ("é", 400, "invalid_request"),
    ]:
        for response in await on_every_route(client, id_):
            assert_problem(response, status, code)


@pytest.mark.gen_test
async def test_what_belongs_to_someone_else_does_not_exist(
    client: Client, make_client: MakeClient, shared_server: ServerProcess
) -> None:
    theirs = await make_client(shared_server).create(title="Theirs")
    for response, unknown in zip(
        await on_every_route(client, theirs), await on_every_route(client, NOBODY), strict=True
    ):
        assert assert_problem(response, 404, "not_found") | {"requestId": ""} == unknown.json() | {"requestId": ""}
        differing = {"X-Request-Id", "Date"}
        assert {*response.headers.items()} - {*unknown.headers.items()} <= {
            (name.lower(), response.headers[name]) for name in differing
        }


async def on_every_route(client: Client, id_: str) -> list[httpx.Response]:
    """The responses of every route of one conversation."""
    one = f"{API}/{id_}"
    return [
        await client.http.get(one),
        await client.http.patch(one, json={"title": "Mine"}),
        await client.http.delete(one),
        await client.http.get(f"{one}/messages"),
        await client.http.post(f"{one}/messages", json={"content": "Hi"}),
        await client.http.post(f"{one}/messages", json={"content": "Hi"}, headers={"Accept": "text/event-stream"}),
        await client.http.post(f"{one}/stop"),
        await client.http.post(f"{one}/stop", json={"messageId": NOBODY}),
        await client.http.post(f"{one}/regenerate"),
        await client.http.get(f"{one}/stream"),
        await client.http.get(f"{one}/stream", headers={"Accept": "text/event-stream"}),
        await client.http.get(f"{one}/stream?once=true"),
    ]


CONFIDENTIAL = "the prompt, the key, the host"


class Broken(BaseHandler):
    """A handler that raises an unexpected exception."""

    public = True

    def get(self) -> None:
        raise RuntimeError(CONFIDENTIAL)


@pytest.mark.gen_test
async def test_our_own_faults_are_500_and_the_log_says_where_but_not_what(caplog: pytest.LogCaptureFixture) -> None:
    authenticator = Authenticator(OneKey(SECRET.encode()), Rules())
    limits = Limits.of(Settings(), Capacity.of(1024), lambda: 0)
    door = Door(
        authenticator, (), limits, tickets=Tickets(Mongo("mongodb://127.0.0.1:1", "none")), slow_reader_timeout=20
    )
    server = HTTPServer(Application([("/", Broken, {"door": door})], log_function=RequestLog(Metrics(), {})))
    listening, port = bind_unused_port()
    server.add_sockets([listening])
    try:
        async with httpx.AsyncClient() as http:
            response = await http.get(f"http://127.0.0.1:{port}/")
    finally:
        server.stop()
    problem = assert_problem(response, 500, "internal_server_error")
    assert CONFIDENTIAL not in response.text
    fault, request = caplog.records
    assert fault.levelno == logging.ERROR
    assert "RuntimeError" in fault.getMessage()
    assert "in get" in fault.getMessage()
    assert request.getMessage().startswith("GET / 500 ")
    for record in caplog.records:
        assert CONFIDENTIAL not in JSONFormatter().format(record)
        assert problem["requestId"] in JSONFormatter().format(record)


# Bodies ---------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_what_is_not_json_is_400(client: Client) -> None:
    conversation = await client.create()
    for body in (
        b"",
        b"{",
        b"nope",
        b'{"content": "a"} x',
        b"{'content': 'a'}",
        b'{"content": "\xff"}',
        b'{"content": "\\ud800"}',  # a lone surrogate cannot be stored
        b'{"content": "\\udc00\\ud800"}',
        b'{"\\ud800": 1}',
        b"\xef\xbb\xbf",
        b'{"content": ' + b"[" * 5000,
        "{}".encode("utf-16"),
    ):
        for method, path in [
            ("POST", API),
            ("PATCH", f"{API}/{conversation}"),
            ("POST", f"{API}/{conversation}/messages"),
        ]:
            response = await client.http.request(
                method, path, content=body, headers={"Content-Type": "application/json"}
            )
            assert_problem(response, 400, "invalid_request")
    assert await client.messages(conversation) == []


@pytest.mark.gen_test
async def test_what_does_not_call_itself_json_is_415(client: Client) -> None:
    conversation = await client.create()
    for type_ in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json"):
        for path in (API, f"{API}/{conversation}/messages", f"{API}/{conversation}/stop"):
            response = await client.http.post(path, content=b'{"content": "a"}', headers={"Content-Type": type_})
            assert_problem(response, 415, "unsupported_media_type")
    for type_ in ("application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8"):
        response = await client.http.post(API, content=b"{}", headers={"Content-Type": type_})
        assert response.status_code == 201


@pytest.mark.gen_test
async def test_what_is_json_but_not_acceptable_is_422_field_by_field(client: Client) -> None:
    conversation = await client.create()
    for method, path, body, fields in [
        ("POST", API, [], {"body"}),
        ("POST", API, "text", {"body"}),
        ("POST", API, {"id": "a b", "title": 1, "model": "../x"}, {"id", "title", "model"}),
        ("POST", API, {"title": "a" * 201, "systemPrompt": "a" * 8001}, {"title", "systemPrompt"}),
        ("POST", API, {"id": "a" * 65}, {"id"}),
        ("POST", API, {"id": "a\n"}, {"id"}),
        ("POST", API, {"id": ""}, {"id"}),
        ("POST", API, {"id": {"$gt": ""}}, {"id"}),
        ("POST", API, {"initialMessage": ""}, {"initialMessage"}),
        ("POST", API, {"initialMessage": "a" * 32_001}, {"initialMessage"}),
        ("POST", API, {"role": "system", "userId": "u2", "status": "complete"}, {"role", "userId", "status"}),
        ("POST", API, {"system_prompt": "the name in Python"}, {"system_prompt"}),
        ("PATCH", f"{API}/{conversation}", {"id": "other"}, {"id"}),
        ("PATCH", f"{API}/{conversation}", {"userId": "u2", "updatedAt": "2026-11-22"}, {"userId", "updatedAt"}),
        ("POST", f"{API}/{conversation}/messages", {}, {"content"}),
        ("POST", f"{API}/{conversation}/messages", {"content": ""}, {"content"}),
        ("POST", f"{API}/{conversation}/messages", {"content": None}, {"content"}),
        ("POST", f"{API}/{conversation}/messages", {"content": ["a"]}, {"content"}),
        ("POST", f"{API}/{conversation}/messages", {"content": "a" * 32_001}, {"content"}),
        ("POST", f"{API}/{conversation}/messages", {"content": "a", "role": "system"}, {"role"}),
        ("POST", f"{API}/{conversation}/messages", {"content": "a", "clientMessageId": "ä"}, {"clientMessageId"}),
        ("POST", f"{API}/{conversation}/messages", {"content": "a", "clientMessageId": ""}, {"clientMessageId"}),
        ("POST", f"{API}/{conversation}/stop", {"messageId": "x"}, {"messageId"}),
        ("POST", f"{API}/{conversation}/stop", {"status": "complete"}, {"status"}),
    ]:
        response = await client.http.request(method, path, json=body)
        errors = assert_problem(response, 422, "invalid_content")["errors"]
        assert {*errors} == fields, body
        assert all(errors.values())
        assert not [text for text in errors.values() if "nput should" in text or "tring should" in text], "a library's"
    assert await client.messages(conversation) == []


@pytest.mark.gen_test
async def test_a_refusal_is_not_as_long_as_what_it_refuses(client: Client) -> None:
    for body in ({f"k{number}": 0 for number in range(20_000)}, {"a" * 250_000: 0}, {"id": "a" * 250_000}):
        response = await client.http.post(API, json=body)
        assert_problem(response, 422, "invalid_content")
        assert len(response.content) < KIB
    errors = (await client.http.post(API, json={"a" * 65: 0, "b" * 64: 0})).json()["errors"]
    assert {*errors} == {"a" * 63 + "…", "b" * 64}


@pytest.mark.gen_test
async def test_a_body_over_the_limit_is_413_declared_or_not(client: Client) -> None:
    conversation = await client.create()
    headers = {"Content-Type": "application/json"}
    for size in (LIMIT + 1, 4 * LIMIT, 10 * LIMIT):
        for path in (API, f"{API}/{conversation}/messages", f"{API}/{conversation}/stop"):
            assert_problem(await client.http.post(path, content=b" " * size, headers=headers), 413, "too_large")
            assert_problem(await client.http.post(path, content=pieces(size), headers=headers), 413, "too_large")
    # A body of exactly the maximum size is only refused because it is not JSON.
    for content in (b" " * LIMIT, pieces(LIMIT)):
        assert_problem(await client.http.post(API, content=content, headers=headers), 400, "invalid_request")


async def pieces(size: int) -> AsyncIterator[bytes]:
    """A body without a known length: httpx sends it in chunks."""
    while size > 0:
        yield b" " * min(size, 16 * KIB)
        size -= 16 * KIB


@pytest.mark.gen_test
async def test_a_body_as_large_as_a_film_is_413_before_it_is_sent(shared_server: ServerProcess, client: Client) -> None:
    head = f"POST {API} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.token}\r\n"
    head += "Content-Length: 999999999999\r\n\r\n"
    [response] = await exchange(shared_server.port, head.encode())
    assert response.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nConnection: close\r\n" in response
    assert json.loads(response.partition(b"\r\n\r\n")[2])["code"] == "too_large"


@pytest.mark.gen_test
async def test_the_longest_message_fits_however_it_is_written(client: Client, upstream: Upstream) -> None:
    for text in ("Long.", "Longer.", "Longest."):
        upstream.reply(answer(text))
    conversation = await client.create()
    for content in ("⚽" * 32_000, "🏆" * 32_000):
        escaped = json.dumps({"content": content}).encode()
        response = await client.http.post(
            f"{API}/{conversation}/messages", content=escaped, headers={"Content-Type": "application/json"}
        )
        assert (response.status_code, response.json()["content"]) == (201, content)
        await client.answer(conversation)
    longest = {"initialMessage": "🏆" * 32_000, "systemPrompt": "🏆" * 8_000, "title": "🏆" * 200}
    created = await client.http.post(
        API, content=json.dumps(longest).encode(), headers={"Content-Type": "application/json"}
    )
    assert created.status_code == 201


@pytest.mark.gen_test
async def test_a_refused_request_is_read_to_its_end_and_the_connection_goes_on(
    client: Client, shared_server: ServerProcess
) -> None:
    """Otherwise a client that sends everything before it reads gets a reset instead of the response (RFC 9112, section
    9.6).
    """
    body = b" " * (2 * LIMIT)
    length = f"Content-Length: {len(body)}\r\n\r\n".encode()
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    for head, status in [
        (f"POST {API} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer garbage\r\n", 401),
        (f"GET {API}/a/stream HTTP/1.1\r\nHost: x\r\n", 401),
        (f"POST {API} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.token}\r\n", 413),
        ("POST /nowhere HTTP/1.1\r\nHost: x\r\n", 404),
        ("POST / HTTP/1.1\r\nHost: x\r\n", 405),
    ]:
        refused, healthy = await exchange(shared_server.port, head.encode() + length + body, last)
        assert refused.startswith(f"HTTP/1.1 {status} ".encode()), head
        assert b"\r\nConnection: close" not in refused
        assert healthy.startswith(b"HTTP/1.1 200 ")


async def exchange(port: int, *requests: bytes) -> list[bytes]:
    """Send requests over one connection, each after the response to the one before; returns the responses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    responses = []
    try:
        async with asyncio.timeout(PATIENCE):
            for request in requests:
                writer.write(request)
                await writer.drain()
                head = await reader.readuntil(b"\r\n\r\n")
                [length] = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
                responses.append(head + await reader.readexactly(int(length.split(b":")[1])))
    finally:
        writer.close()
    return responses


# Headers --------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_every_response_has_a_request_id_and_the_caller_may_choose_it(client: Client) -> None:
    conversation = await client.create()
    responses = [
        await client.http.get("/healthz"),
        await client.http.get("/"),
        await client.http.get(API),
        await client.http.options(API),
        await client.http.get("/nowhere"),
        await client.http.put(API),
        await client.http.request("BREW", API),
        await client.http.get(f"{API}/%ff"),
        await client.http.get(API, headers={"Authorization": "Bearer x"}),
        await client.http.post(API, content=b"{"),
        await client.http.get(f"{API}/{conversation}/stream?once=true"),
        await client.http.delete(f"{API}/{conversation}"),
    ]
    ids = [response.headers["X-Request-Id"] for response in responses]
    assert len({*ids}) == len(responses)
    for given in ("my-own_Id.1", "a" * 64):
        for path in ("/healthz", API, "/nowhere", f"{API}/%ff"):
            response = await client.http.get(path, headers={"X-Request-Id": given})
            assert response.headers["X-Request-Id"] == given
    for insane in (b"a" * 65, b"a b", b"a,b", b"<script>", b'"', b"", "é".encode()):
        response = await client.http.get("/healthz", headers={b"X-Request-Id": insane})
        assert response.headers["X-Request-Id"].encode("latin-1") not in (insane, b"")


@pytest.mark.gen_test
async def test_the_request_id_is_that_of_the_log(client: Client, shared_server: ServerProcess) -> None:
    response = await client.http.get(f"{API}/nobody")
    lines = map(json.loads, (await shared_server.logged()).splitlines())
    [line] = [line for line in lines if line.get("request") == response.json()["requestId"]]
    assert line["message"].startswith(f"GET {API}/{{id}} 404")
    names = Pseudonyms.derived(SECRET)
    assert (line["user"], line["conversation"]) == (names.user(client.user), names.conversation("nobody"))


@pytest.mark.gen_test
async def test_a_path_ends_no_line_of_the_log_and_moves_no_cursor(shared_server: ServerProcess) -> None:
    """Bytes of a path that are not ASCII arrive unchanged, and may be a terminal's control sequences."""
    head = b"GET /\x9b2J\x85forged\xe9 HTTP/1.1\r\nHost: x\r\nX-Request-Id: path-of-bytes\r\n\r\n"
    await exchange(shared_server.port, head)
    lines = map(json.loads, (await shared_server.logged()).splitlines())
    [line] = [line for line in lines if line.get("request") == "path-of-bytes"]
    assert line["message"].startswith(r"GET /\x9b2J\x85forged\xe9 404")


@pytest.mark.gen_test
async def test_no_response_says_what_it_was_made_with(client: Client) -> None:
    conversation = await client.create()
    for path in ("/", "/healthz", API, "/nowhere", f"{API}/%ff", f"{API}/{conversation}/stream?once=true"):
        response = await client.http.get(path)
        assert "Server" not in response.headers
        assert "ornado" not in response.text
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Vary"].split(", ")[0] == "Origin"  # the page also varies with what it is packed in


# CORS -----------------------------------------------------------------------------------------------------------------

ORIGIN = "https://app.example"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "GET",
    "Access-Control-Request-Headers": "authorization,cache-control,last-event-id",
}


def listed(value: str) -> set[str]:
    return {item.strip().lower() for item in value.split(",")}


@pytest.fixture
def open_client(start_server: StartServer, make_client: MakeClient) -> Client:
    """A client of a server that two origins may call."""
    return make_client(start_server(CHATSTREAM_CORS_ORIGINS=f"{ORIGIN}, http://localhost:8081"))


@pytest.mark.gen_test
async def test_listed_origins_may_call_and_others_may_not(open_client: Client, upstream: Upstream) -> None:
    http = open_client.http
    conversation = await open_client.create()
    one = f"{API}/{conversation}"

    for path in (API, one, f"{one}/stream", f"{one}/messages", f"{one}/stop", f"{one}/regenerate", "/healthz"):
        # A browser sends no token with a preflight.
        response = await http.options(path, headers=PREFLIGHT | {"Authorization": ""})
        assert (response.status_code, response.content) == (204, b"")
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        assert listed(response.headers["Access-Control-Allow-Headers"]) == {
            *("authorization", "cache-control", "content-type", "idempotency-key", "last-event-id", "x-requested-with")
        }
        assert int(response.headers["Access-Control-Max-Age"]) > 0
        assert response.headers["Vary"] == "Origin"
    preflight = await http.options(one, headers=PREFLIGHT)
    assert {"get", "patch", "delete"} <= listed(preflight.headers["Access-Control-Allow-Methods"])

    for origin in (ORIGIN, "http://localhost:8081"):
        for response in [
            await http.get(API, headers={"Origin": origin}),
            await http.get("/healthz", headers={"Origin": origin}),
            await http.get("/nowhere", headers={"Origin": origin}),
            await http.put(API, headers={"Origin": origin}),
            await http.get(f"{API}/%ff", headers={"Origin": origin}),
            await http.get(f"{API}/nobody", headers={"Origin": origin}),
            await http.get(API, headers={"Origin": origin, "Authorization": "Bearer x"}),
            await http.post(API, headers={"Origin": origin}, content=b" " * (LIMIT + 1)),
        ]:
            assert_open_to(origin, response)
        async with open_client.stream(conversation, headers={"Origin": origin}) as watched:
            await watched.next()
            assert_open_to(origin, watched.response)

    for origin in ("https://evil.example", "null", "*", f"{ORIGIN}/", ORIGIN.upper(), f"{ORIGIN}.evil.example", ""):
        for method in ("GET", "OPTIONS"):
            response = await http.request(method, API, headers=PREFLIGHT | {"Origin": origin})
            assert "Access-Control-Allow-Origin" not in response.headers, origin
            assert "Access-Control-Allow-Credentials" not in response.headers
            assert response.headers["Vary"] == "Origin"


def assert_open_to(origin: str, response: httpx.Response) -> None:
    assert response.headers["Access-Control-Allow-Origin"] == origin
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert response.headers["Vary"] == "Origin"
    assert listed(response.headers["Access-Control-Expose-Headers"]) == {
        *("content-type", "cache-control", "location", "retry-after", "ratelimit", "ratelimit-policy", "x-request-id")
    }


@pytest.mark.gen_test
async def test_what_a_page_of_a_listed_origin_asks_for_is_allowed(open_client: Client) -> None:
    asked = "authorization,content-type, User-Agent,baggage,sentry-trace,traceparent,x-request-id,x_y,~!#"
    these = {"user-agent", "baggage", "sentry-trace", "traceparent", "x-request-id", "x_y", "~!#"}
    for origin, more in ((ORIGIN, these), ("https://evil.example", set[str]())):
        headers = PREFLIGHT | {"Origin": origin, "Access-Control-Request-Headers": asked}
        response = await open_client.http.options(API, headers=headers)
        allowed = listed(response.headers["Access-Control-Allow-Headers"])
        assert allowed == more | {
            *("authorization", "cache-control", "content-type", "idempotency-key", "last-event-id", "x-requested-with")
        }
    # Only valid field names are accepted, and not more than the maximum.
    for nonsense in ('*,a b,a:b,a/b,"a",(a),<a>,é,,a\tb,' + "x" * 101, ",".join(["bad name"] * 800)):
        headers = PREFLIGHT | {"Access-Control-Request-Headers": nonsense}
        response = await open_client.http.options(
            API, headers={name.encode(): value.encode() for name, value in headers.items()}
        )
        assert len(listed(response.headers["Access-Control-Allow-Headers"]) - {"*"}) == 6
    many = ",".join(f"x-{number}" for number in range(1000))
    response = await open_client.http.options(API, headers=PREFLIGHT | {"Access-Control-Request-Headers": many})
    assert len(listed(response.headers["Access-Control-Allow-Headers"])) == 56


PRODUCTION = {"CHATSTREAM_ENV": "production", "CHATSTREAM_HEARTBEAT_INTERVAL": "15"}


@pytest.mark.gen_test
async def test_without_a_list_no_origin_may_call_and_the_log_says_what_to_do(
    start_server: StartServer, make_client: MakeClient
) -> None:
    server = start_server(**PRODUCTION)
    client = make_client(server)
    for origin in (ORIGIN, server.url, "null", "http://localhost:5173", "x" * 3000, "https://a b", "<script>"):
        for method in ("GET", "OPTIONS", "GET"):
            response = await client.http.request(method, API, headers={"Origin": origin})
            assert response.is_success
            assert "Access-Control-Allow-Origin" not in response.headers
    told = [json.loads(line) for line in (await server.logged()).splitlines() if "CHATSTREAM_CORS_ORIGINS" in line]
    assert [line["level"] for line in told] == ["warning"] * 3
    # Each refused origin is logged once. The server's own page needs no permission, and no browser sends an invalid
    # origin.
    for origin, line in zip((ORIGIN, "null", "http://localhost:5173"), told, strict=True):
        assert f" {origin} " in line["message"]


@pytest.mark.gen_test
async def test_made_up_origins_do_not_fill_the_log(start_server: StartServer, make_client: MakeClient) -> None:
    server = start_server(**PRODUCTION)
    client = make_client(server)
    for number in range(300):
        await client.http.get("/healthz", headers={"Origin": f"https://{number}.example"})
    assert (await server.logged()).count("CHATSTREAM_CORS_ORIGINS") <= 100


@pytest.mark.gen_test
async def test_in_development_pages_of_this_machine_may_call(client: Client, shared_server: ServerProcess) -> None:
    here = (
        "http://localhost:5173",
        "http://127.0.0.1:8081",
        "http://[::1]:3001",
        "https://localhost",
        "http://app.localhost:3000",
        "http://a.b.localhost",
        "http://127.0.0.5:80",
    )
    for origin in (*here, shared_server.url):
        assert_open_to(origin, await client.http.get(API, headers={"Origin": origin}))
    elsewhere = ("http://localhost.evil.example", "http://evil.example:80", "http://127.0.0.1.evil.example", ORIGIN)
    no_origins = (
        "http://localhost:5173/",
        "http://localhost:a",
        "http://localhost@evil.example",
        "null",
        "http://notlocalhost",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://128.0.0.1",
    )
    for origin in elsewhere + no_origins:
        response = await client.http.get(API, headers={"Origin": origin})
        assert "Access-Control-Allow-Origin" not in response.headers, origin


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "`content` is missing."),
        ({"content": 5}, "`content` must be a string."),
        ({"content": "Hi", "role": "system"}, "`role` is not a field that this takes."),
        ({"content": "x" * 32_001}, "`content` may have at most 32,000 characters."),
        ({"content": ""}, "`content` must have at least 1 characters."),
        ({"a": 1, "b": 1}, "`content` is missing. And 2 more fields are not acceptable."),
        ([], "The body must be a JSON object."),
        ({"content": "Hi", "background": "perhaps"}, "`background` must be true or false."),
        ({"content": "Hi", "parent": "c"}, "`parent` is too long, empty, or has characters that are not allowed"),
        ({"content": "Hi", "parent": "0" * 24}, "`parent` must be a message of this conversation."),
        ({"content": None}, "`content` must be a string."),
        ({"content": "\u0301"}, "The message is empty"),
    ],
)
@pytest.mark.gen_test
async def test_a_body_that_is_not_acceptable_is_told_why_in_a_sentence(
    client: Client, body: object, detail: str
) -> None:
    conversation = await client.create()
    response = await client.http.post(f"{API}/{conversation}/messages", json=body)
    problem = assert_problem(response, 422, "invalid_content")
    assert problem["detail"].startswith(detail)
    assert await client.messages(conversation) == []
