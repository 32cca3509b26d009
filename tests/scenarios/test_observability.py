"""The metrics and the log of a real server that answers, fails, and loses its database."""

import asyncio
import contextlib
import json
from typing import Any

import httpx
import pytest

from chatstream import auth
from chatstream.logs import Pseudonyms
from tests.conftest import MakeClient, StartServer
from tests.support.client import API, PATIENCE, Client
from tests.support.exposition import eventually, scrape
from tests.support.processes import SECRET, ServerProcess, free_port
from tests.support.upstream import DONE, END, USAGE, Upstream, answer, beginning, delta, event, http_chunk, whole


async def lines(server: ServerProcess, **facts: Any) -> list[dict[str, Any]]:
    """The lines of the log with these facts."""
    logged = map(json.loads, (await server.logged()).splitlines())
    return [line for line in logged if line.items() >= facts.items()]


@pytest.mark.gen_test
async def test_a_stream_and_its_answers_from_beginning_to_end(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    server = start_server()
    client = make_client(server)
    go_on = asyncio.Event()
    upstream.reply(whole("429 Too Many Requests", {"error": {"message": "slow down"}}, retry_after="0"))
    rest = [delta("may log."), delta(finish_reason="stop"), USAGE, DONE]
    upstream.reply(beginning("What nobody "), go_on, *(http_chunk(event(chunk)) for chunk in rest), END)
    upstream.reply(whole("400 Bad Request", {"error": {"message": "what the model said of it"}}))

    conversation = await client.create(model="my-model")
    async with client.stream(conversation) as watched:
        posted = await client.post(conversation, "What nobody may log, either.")
        await watched.until("llm_chunk")
        exposed = await scrape(client.http)
        assert exposed["chatstream_streams_open",] == 1
        assert exposed["chatstream_answers_running",] == 1
        go_on.set()
        complete = await watched.until("llm_complete")
        failed = await client.post(conversation, "And this fails.")
        await watched.until("error")
        exposed = await eventually(client.http, lambda now: now["chatstream_answers_running",] == 0)
    assert exposed["chatstream_answers_finished_total", "", "complete"] == 1
    assert exposed["chatstream_answers_finished_total", "upstream_rejected", "failed"] == 1
    assert exposed["chatstream_answer_duration_seconds_count",] == 2
    assert exposed["chatstream_time_to_first_token_seconds_count",] == 1
    assert exposed["chatstream_tokens_total", "prompt"] == 5
    assert exposed["chatstream_tokens_total", "completion"] == 2
    assert exposed["chatstream_model_retries_total", "upstream_rate_limited"] == 1
    assert exposed["chatstream_model_response_seconds_count",] == 1
    assert exposed["chatstream_chunk_lag_seconds_count",] >= 1
    assert exposed["chatstream_event_loop_lag_seconds_count",] >= 1
    for command in ("find", "insert", "findAndModify", "commitTransaction"):
        assert exposed["chatstream_database_command_duration_seconds_count", command] >= 1
    await eventually(client.http, lambda now: now.get(("chatstream_streams_ended_total", "client_left")) == 1)
    assert (await scrape(client.http))["chatstream_streams_open",] == 0

    ids = {"user": Pseudonyms.derived(SECRET).user(client.user), "conversation": conversation}
    [told] = await lines(server, answer=complete.data["messageId"])
    assert told == told | ids | {
        "level": "info",
        "message": "answer complete",
        "request": posted.headers["X-Request-Id"],
        "model": "my-model",
        "chunks": 2,
        "characters": len("What nobody may log."),
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "viewers": 1,
    }
    assert 0 < told["first_token"] <= told["seconds"]
    [told] = await lines(server, request=failed.headers["X-Request-Id"], logger="chatstream.generations")
    assert told == told | ids | {"level": "warning", "code": "upstream_rejected", "characters": 0}
    [told] = await lines(server, request=watched.response.headers["X-Request-Id"])
    assert told == told | ids | {"end": "client_left", "logger": "chatstream.http"}
    assert len(await lines(server, request=posted.headers["X-Request-Id"], logger="chatstream.http")) == 1
    for secret in ("nobody may", "what the model said", "And this"):
        assert secret not in server.log


@pytest.mark.gen_test
async def test_tokens_are_counted_by_what_they_were(start_server: StartServer, make_client: MakeClient) -> None:
    client = make_client(start_server())
    for token in (client.token, auth.mint(SECRET, client.user, -60), "no token"):
        await client.http.get(API, headers={"Authorization": f"Bearer {token}"})
    outcomes = {
        name[1]: n for name, n in (await scrape(client.http)).items() if name[0].endswith("verifications_total")
    }
    assert outcomes == {"accepted": 1, "expired": 1, "malformed": 1}


@pytest.mark.gen_test
async def test_a_token_in_the_wrong_place_is_not_logged(client: Client, shared_server: ServerProcess) -> None:
    for path in (f"/stream/{client.token}", f"{API}/{client.token}/stream"):
        response = await client.http.get(path)
        [told] = await lines(shared_server, request=response.headers["X-Request-Id"])
        assert told["message"].startswith(f"GET {path.replace(client.token, '[token]')} 40")


@pytest.mark.gen_test
async def test_a_long_path_makes_no_long_line(client: Client, shared_server: ServerProcess) -> None:
    response = await client.http.get(f"/{'x' * 15_000}")
    [told] = await lines(shared_server, request=response.headers["X-Request-Id"])
    assert told["message"].startswith("GET /xxx")
    assert "x... 404 " in told["message"]
    assert len(told["message"]) < 350


@pytest.mark.parametrize(
    ("settings", "options", "reason"),
    [
        ({"CHATSTREAM_CONNECTION_TIMEOUT": "1"}, {}, "had_its_share"),
        ({}, {"params": {"once": "true"}}, "answered"),
    ],
)
@pytest.mark.gen_test
async def test_why_a_stream_ended(
    start_server: StartServer,
    make_client: MakeClient,
    upstream: Upstream,
    settings: dict[str, str],
    options: dict[str, Any],
    reason: str,
) -> None:
    server = start_server(**settings)
    client = make_client(server)
    upstream.reply(answer("Yes."))
    conversation = await client.create(initialMessage="Well?")
    async with client.stream(conversation, **options) as watched:
        await watched.rest()
    await eventually(client.http, lambda now: now.get(("chatstream_streams_ended_total", reason)) == 1)
    [told] = await lines(server, request=watched.response.headers["X-Request-Id"])
    assert told["end"] == reason


@pytest.mark.gen_test
async def test_a_database_that_is_away_is_counted_while_nobody_asks(
    start_server: StartServer, make_client: MakeClient
) -> None:
    uri = f"mongodb://127.0.0.1:{free_port()}/?directConnection=true"
    client = make_client(start_server(ready=False, MONGODB_URI=uri))
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await scrape(client.http))["chatstream_database_heartbeat_failures_total",] >= 1:
                    return
            await asyncio.sleep(0.05)  # between two polls; there is no event to wait for in another process
