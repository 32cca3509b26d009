"""Liveness, readiness, and the refusals of a server that is not ready, after which an EventSource reconnects."""

import asyncio
import contextlib
import json
import time
from typing import Any

import httpx
import pytest

from chatstream.errors import StorageUnavailable
from chatstream.handlers.operations import OneAtATime
from tests.conftest import MakeClient, StartServer
from tests.support.client import API, PATIENCE, Client
from tests.support.exposition import eventually, samples, scrape
from tests.support.processes import ServerProcess, free_port


@pytest.mark.gen_test
async def test_alive_and_ready_without_a_token(client: Client) -> None:
    del client.http.headers["Authorization"]
    for path, status in (("/healthz", "ok"), ("/readyz", "ready")):
        response = await client.http.get(path)
        assert (response.status_code, response.json()) == (200, {"status": status})
        assert response.headers["Cache-Control"] == "no-store"
        response = await client.http.head(path)
        assert (response.status_code, response.content) == (200, b"")


@pytest.mark.gen_test
async def test_the_database_is_asked_once_for_all_who_want_to_know_at_the_same_time() -> None:
    asked: list[asyncio.Future[None]] = []

    async def ask() -> None:
        asked.append(asyncio.get_running_loop().create_future())
        await asked[-1]

    ready = OneAtATime(ask)
    for number, answer in enumerate((StorageUnavailable(), None), 1):
        waiting = [asyncio.create_task(ready(PATIENCE)) for _ in range(3)]
        while len(asked) < number:
            await asyncio.sleep(0)
        waiting[0].cancel()  # a cancelled caller does not cancel the shared call
        await asyncio.wait(waiting[:1])
        if answer is None:
            asked[-1].set_result(None)
        else:
            asked[-1].set_exception(answer)
        assert await asyncio.gather(*waiting[1:], return_exceptions=True) == [answer, answer]
        assert len(asked) == number


@pytest.mark.gen_test
async def test_a_database_that_says_nothing_is_not_waited_for() -> None:
    answer = asyncio.get_running_loop().create_future()
    ready = OneAtATime(lambda: answer)
    for seconds in (0.01, 0, -1):  # the last one waited this long for its turn
        with pytest.raises(StorageUnavailable):
            await ready(seconds)
    answer.set_result(None)
    await ready(0)


@pytest.mark.gen_test
async def test_a_stream_begins_with_the_headers_of_the_protocol(client: Client) -> None:
    conversation = await client.create()
    for accept in ("text/event-stream", "*/*", "application/json"):
        headers = {"Accept": accept, "Accept-Encoding": "gzip, br", "Cache-Control": "no-cache"}
        async with client.stream(conversation, headers=headers) as watched:
            connected = await watched.next()
            response = watched.response
        assert (connected.type, connected.id) == ("connected", None)
        assert connected.data == connected.data | {
            "conversationId": conversation,
            "resumed": False,
            "activeMessageId": None,
        }
        assert len(watched.retries) == 1
        assert 1000 <= watched.retries[0] <= 3000
        assert response.status_code == 200
        assert {*response.headers.items()} >= {
            ("content-type", "text/event-stream; charset=utf-8"),
            ("cache-control", "no-cache, no-store, no-transform"),
            ("x-accel-buffering", "no"),
            ("referrer-policy", "no-referrer"),
            ("vary", "Origin"),
        }
        for name in ("Content-Encoding", "Content-Length", "Connection", "Etag", "Server"):
            assert name not in response.headers


@pytest.mark.gen_test
async def test_the_first_bytes_of_a_stream_are_what_the_seeds_clients_split(client: Client) -> None:
    conversation = await client.create()
    async with client.stream(conversation) as watched:
        first = await anext(watched.response.aiter_raw())
    assert b"\r" not in first
    retry, data, *rest = first.split(b"\n")
    assert retry.startswith(b"retry: ")
    assert data.startswith(b'data: {"type":"connected","timestamp":"')
    assert rest == [b"", b""]


def alive(server: ServerProcess) -> ServerProcess:
    """Poll ``/healthz`` until the server is alive."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            assert httpx.get(f"{server.url}/healthz").status_code == 200
            return server
        time.sleep(0.05)  # between two polls; there is no event to wait for in another process
    raise AssertionError(f"the server is not alive:\n{server.log}")


@pytest.fixture
def waiting_client(start_server: StartServer, make_client: MakeClient) -> Client:
    """A client of a server whose database does not answer."""
    uri = f"mongodb://127.0.0.1:{free_port()}/?directConnection=true"
    server = start_server(ready=False, MONGODB_URI=uri, CHATSTREAM_CORS_ORIGINS="https://app.example")
    return make_client(alive(server))


@pytest.mark.gen_test
async def test_a_server_without_its_database_is_alive_but_not_ready(waiting_client: Client) -> None:
    http = waiting_client.http
    assert (await http.get("/healthz")).status_code == 200
    assert (await http.get("/")).status_code == 200
    one = f"{API}/c1"
    for response in [
        await http.get("/readyz"),
        await http.get(API),
        await http.post(API, json={}),
        await http.get(one),
        await http.get(f"{one}/messages"),
        await http.post(f"{one}/messages", json={"content": "Hi"}),
        # A client that posts is not an EventSource, and can read a status.
        await http.post(f"{one}/messages", json={"content": "Hi"}, headers={"Accept": "text/event-stream"}),
        await http.post(f"{one}/stop"),
        await http.post(f"{one}/regenerate"),
        await http.get(f"{one}/stream"),
        await http.get(f"{one}/stream", headers={"Accept": "application/json"}),
    ]:
        assert response.status_code == 503
        assert response.headers["Content-Type"] == "application/problem+json"
        assert int(response.headers["Retry-After"]) >= 1
        assert response.json()["status"] == 503
    # Permanent errors are reported at once, whatever the server's state.
    for headers, path, status in [
        ({"Authorization": "Bearer x"}, f"{one}/stream", 401),
        ({"Authorization": "Bearer x"}, API, 401),
        ({}, f"{API}/a.b/stream", 400),
        ({}, "/nowhere", 404),
    ]:
        response = await http.get(path, headers={"Accept": "text/event-stream", **headers})
        assert response.status_code == status


@pytest.mark.gen_test
async def test_an_event_source_is_refused_with_a_stream(waiting_client: Client) -> None:
    for accept in ("text/event-stream", "text/event-stream, */*;q=0.1"):
        headers = {"Accept": accept, "Origin": "https://app.example"}
        response = await waiting_client.http.get(f"{API}/c1/stream", headers=headers)
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-cache, no-store, no-transform"
        assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
        frame = refusal(response.text)
        assert frame == frame | {
            "type": "error",
            "error": "storage_unavailable",
            "retryable": True,
            "requestId": response.headers["X-Request-Id"],
            "messageId": None,
        }
        assert frame["retryAfterMs"] >= 1000


def refusal(body: str) -> dict[str, Any]:
    """The only event of a refusal; it has the time until a retry."""
    retry, data, *rest = body.split("\n")
    assert rest == ["", ""]
    event: dict[str, Any] = json.loads(data.removeprefix("data: "))
    assert int(retry.removeprefix("retry: ")) >= max(1000, event["retryAfterMs"])
    assert event["timestamp"]
    return event


@pytest.mark.gen_test
async def test_a_server_that_waits_can_be_ended(start_server: StartServer) -> None:
    server = alive(start_server(ready=False, MONGODB_URI=f"mongodb://127.0.0.1:{free_port()}/?directConnection=true"))
    assert server.stop() == 0
    assert "Traceback" not in server.log


@pytest.mark.gen_test
async def test_requests_are_measured_by_route_and_refusals_by_code(client: Client) -> None:
    conversation = await client.create()
    before = await scrape(client.http)
    await client.http.get(f"{API}/{conversation}")
    await client.http.get(f"{API}/{'0' * 24}")
    await client.http.get("/nowhere/at/all")
    await client.http.request("INVENTED", "/healthz")
    response = await client.http.get("/metrics")
    after = samples(response.text)
    grown = {key for key, value in after.items() if key[0].endswith("_count") and value > before.get(key, 0)}
    request = "chatstream_request_duration_seconds_count"
    assert grown >= {
        (request, "GET", f"{API}/{{id}}", "2xx"),
        (request, "GET", f"{API}/{{id}}", "4xx"),
        (request, "GET", "none", "4xx"),
        (request, "other", "/healthz", "4xx"),
        (request, "GET", "/metrics", "2xx"),
    }
    for code, count in (("not_found", 2), ("method_not_allowed", 1)):
        refused = ("chatstream_refusals_total", code)
        assert after[refused] - before.get(refused, 0) == count
    for told in (conversation, client.user, "nowhere", "INVENTED"):
        assert told not in response.text


@pytest.mark.gen_test
async def test_a_streams_latency_ends_where_the_stream_begins(client: Client) -> None:
    conversation = await client.create()
    seconds = ("chatstream_request_duration_seconds_sum", "GET", f"{API}/{{id}}/stream", "2xx")
    before = await scrape(client.http)
    asked = time.monotonic()
    async with client.stream(conversation) as watched:
        await watched.next()
        begun = time.monotonic()
        await watched.until("heartbeat")  # a second later
    after = await eventually(client.http, lambda now: seconds in now and now[seconds] != before.get(seconds))
    assert after[seconds] - before.get(seconds, 0) < begun - asked


@pytest.mark.gen_test
async def test_metrics_in_the_format_that_is_asked_for(client: Client) -> None:
    del client.http.headers["Authorization"]
    for accept, content_type in (
        ("*/*", "text/plain; version="),
        ("application/openmetrics-text; version=1.0.0, text/plain;q=0.5", "application/openmetrics-text; version="),
    ):
        response = await client.http.get("/metrics", headers={"Accept": accept})
        assert response.headers["Content-Type"].startswith(content_type)
        head = await client.http.head("/metrics", headers={"Accept": accept})
        assert (head.status_code, head.content) == (200, b"")


@pytest.mark.gen_test
async def test_metrics_on_a_port_of_their_own(start_server: StartServer, make_client: MakeClient) -> None:
    port = free_port()
    client = make_client(start_server(CHATSTREAM_METRICS_PORT=str(port)))
    assert (await client.http.get("/metrics")).status_code == 404
    exposed = await scrape(client.http, f"http://127.0.0.1:{port}/metrics")
    assert exposed["chatstream_request_duration_seconds_count", "GET", "/readyz", "2xx"] == 1
    for path in ("/", "/healthz", API):
        assert (await client.http.get(f"http://127.0.0.1:{port}{path}")).status_code == 404
