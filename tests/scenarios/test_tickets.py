"""Tickets as an EventSource uses them, against whole processes."""

import asyncio
import re
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from chatstream.auth import mint
from tests.conftest import MakeClient, StartServer
from tests.support.client import API, PATIENCE, Client
from tests.support.processes import SECRET, ServerProcess
from tests.support.routes import methods, routes
from tests.support.upstream import Do, Upstream, answer, beginning

EVENT_STREAM = {"Accept": "text/event-stream"}


async def ticket_for(client: Client, conversation: str) -> dict[str, Any]:
    response = await client.http.post(f"{API}/{conversation}/stream-tickets")
    assert response.status_code == 201, response.text
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["RateLimit-Policy"].startswith('"tickets"')
    found: dict[str, Any] = response.json()
    return found


async def refused(client: Client, conversation: str, status: int, **params: Any) -> httpx.Response:
    """An EventSource is refused for good: it never reconnects after a status other than 200."""
    response = await client.http.get(f"{API}/{conversation}/stream", params=params, headers=EVENT_STREAM)
    assert response.status_code == status, response.text
    return response


@pytest.mark.gen_test
async def test_a_ticket_opens_its_stream_once(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Hello."))
    conversation, other = await client.create(), await client.create()
    made = await ticket_for(client, conversation)
    assert {*made} == {"ticket", "expiresAt"}
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", made["ticket"])
    lasts = (datetime.fromisoformat(made["expiresAt"]) - datetime.now(UTC)).total_seconds()
    assert 50 < lasts <= 61
    authorization = client.http.headers.pop("Authorization")
    unused = {"ticket": made["ticket"]}
    # A refused request has not used up the ticket.
    assert (
        (await refused(client, other, 401, **unused))
        .headers["WWW-Authenticate"]
        .endswith('error="invalid_token", error_description="The ticket is not valid, or was used before."')
    )
    await refused(client, conversation, 400, ticket=[made["ticket"], "other"])
    await refused(client, conversation, 400, **unused, access_token=authorization)
    client.http.headers["Authorization"] = authorization
    await refused(client, conversation, 400, **unused)  # another token in the header
    del client.http.headers["Authorization"]
    for path, door in routes().items():
        for method in () if door.public else methods(door) - {"get"} if door.accepts_query_token else methods(door):
            url = path.replace("{id}", conversation)
            assert (await client.http.request(method, url, params=unused)).status_code == 401, (method, path)
    async with client.stream(conversation, params=unused) as watched:
        assert (await watched.next()).type == "connected"
        await refused(client, conversation, 401, **unused)
        client.http.headers["Authorization"] = authorization
        await client.post(conversation, "Hi")
        assert (await watched.until("llm_complete")).data["content"] == "Hello."


@pytest.mark.gen_test
async def test_tickets_are_for_ones_own_conversations(
    client: Client, make_client: MakeClient, shared_server: ServerProcess
) -> None:
    stranger = make_client(shared_server)
    conversation = await client.create()
    for id_ in (conversation, "nowhere"):
        response = await stranger.http.post(f"{API}/{id_}/stream-tickets")
        assert (response.status_code, response.json()["detail"]) == (404, "There is no such conversation.")
    made = await ticket_for(client, conversation)
    assert (await client.http.delete(f"{API}/{conversation}")).status_code == 204
    del client.http.headers["Authorization"]
    await refused(client, conversation, 404, ticket=made["ticket"])


@pytest.mark.gen_test
async def test_of_twenty_who_come_at_once_with_one_ticket_one_gets_in(client: Client) -> None:
    conversation = await client.create()
    made = await ticket_for(client, conversation)
    del client.http.headers["Authorization"]
    statuses: list[int] = []
    all_know = asyncio.Event()

    async def come() -> None:
        async with client.stream(conversation, params={"ticket": made["ticket"]}) as watched:
            statuses.append(watched.response.status_code)
            if len(statuses) == 20:
                all_know.set()
            await all_know.wait()

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(come() for _ in range(20)))
    assert sorted(statuses) == [200] + [401] * 19


@pytest.mark.gen_test
async def test_every_kind_of_stream_ends_with_its_token_also_where_heartbeats_are_rare(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    for _ in range(2):
        upstream.reply(beginning("So far"), Do.HANG)
    client = make_client(start_server(CHATSTREAM_HEARTBEAT_INTERVAL="3600", CHATSTREAM_CONNECTION_TIMEOUT="7200"))
    watched, by_ticket, posted, formatted = [await client.create() for _ in range(4)]
    expires_at = time.time() + 3
    client.http.headers["Authorization"] = f"Bearer {mint(SECRET, client.user, 3)}"
    ticket = (await ticket_for(client, by_ticket))["ticket"]
    question: dict[str, Any] = {"method": "POST", "json": {"content": "Go on."}}
    responses = await asyncio.gather(
        client.http.get(f"{API}/{watched}/stream", headers=EVENT_STREAM),
        client.http.get(f"{API}/{by_ticket}/stream?ticket={ticket}", headers=EVENT_STREAM | {"Authorization": ""}),
        client.http.request(url=f"{API}/{posted}/messages", headers=EVENT_STREAM, **question),
        client.http.request(url=f"{API}/{formatted}/messages?format=ui-message-stream", **question),
    )
    assert expires_at - 1.1 < time.time() < expires_at + 5  # an `exp` has no fractions
    assert [response.status_code for response in responses] == [200] * 4
    assert ["token has expired" in response.text for response in responses] == [True] * 4


@pytest.mark.gen_test
async def test_a_stream_ends_with_the_token_its_ticket_was_asked_for_with(
    client: Client, upstream: Upstream, shared_server: ServerProcess
) -> None:
    upstream.reply(answer("First."))
    conversation = await client.create(initialMessage="One.")
    expires_at = time.time() + 3
    client.http.headers["Authorization"] = f"Bearer {mint(SECRET, client.user, 3)}"
    late, made = await ticket_for(client, conversation), await ticket_for(client, conversation)
    del client.http.headers["Authorization"]
    async with client.stream(conversation, params={"ticket": made["ticket"]}) as watched:
        await watched.until("llm_complete")
        *_, last = await watched.rest()
    assert (last.type, last.data["error"], last.data["retryable"]) == ("error", "token_expired", True)
    assert expires_at - 1.1 < time.time() < expires_at + 5  # an `exp` has no fractions
    await refused(client, conversation, 401, ticket=late["ticket"])
    # With a new token the stream continues.
    params = {"access_token": client.token, "last_event_id": watched.cursor}
    async with client.stream(conversation, params=params) as resumed:
        assert (await resumed.next()).data["resumed"] is True
    assert made["ticket"] not in await shared_server.logged()


@pytest.mark.gen_test
async def test_another_process_takes_it_also_where_tokens_in_the_address_are_off(
    start_server: StartServer, make_client: MakeClient
) -> None:
    one = start_server(ready=False)
    other = start_server(ready=False, CHATSTREAM_QUERY_TOKENS="off", CHATSTREAM_OPENINGS_PER_MINUTE="2")
    here = make_client(one.wait_until_ready())
    there = make_client(other.wait_until_ready(), here.user)
    conversation = await here.create()
    made = await ticket_for(here, conversation)
    # The rate limit for tickets is that for opening streams.
    for _ in range(2):
        await ticket_for(there, conversation)
    limited = await there.http.post(f"{API}/{conversation}/stream-tickets")
    assert (limited.status_code, limited.json()["code"]) == (429, "rate_limited")
    # A token in the header still counts; one in the URL is ignored.
    async with there.stream(conversation, params={"access_token": "other"}) as watched:
        assert (await watched.next()).type == "connected"
    del there.http.headers["Authorization"]
    for name in ("access_token", "token"):
        response = await refused(there, conversation, 401, **{name: there.token})
        assert response.json()["code"] == "unauthenticated"
    async with there.stream(conversation, params={"ticket": made["ticket"], "token": "x"}) as watched:
        assert (await watched.next()).type == "connected"
    await refused(there, conversation, 401, ticket=made["ticket"])
