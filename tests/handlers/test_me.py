"""``/api/v1/chat/me`` over REST: erasure and its receipt; afterwards the database and the log have no data of the
user.
"""

import asyncio

import pytest

from tests.conftest import MakeClient
from tests.support.client import API, PATIENCE, Client
from tests.support.processes import ServerProcess
from tests.support.upstream import Do, Upstream, answer, beginning

ME = "/api/v1/chat/me"


@pytest.mark.gen_test
async def test_a_user_is_erased_and_has_a_receipt(
    client: Client, make_client: MakeClient, shared_server: ServerProcess, upstream: Upstream
) -> None:
    upstream.reply(answer("Arsenal, I should think."))
    conversations = [await client.create(id=f"own-{number}") for number in range(3)]
    await client.post(conversations[0], "Who wins the derby on Sunday?")
    await client.answer(conversations[0])
    other = make_client(shared_server)
    kept = await other.create(id="own-0")

    response = await client.http.delete(ME)
    receipt = response.json()
    assert response.status_code == 200
    assert receipt["erased"] == {"conversations": 3, "messages": 2}
    assert receipt["status"] == "complete"
    assert receipt["requestedAt"] <= receipt["completedAt"]
    assert client.user not in response.text
    assert "RateLimit" in response.headers

    assert (await client.http.get(API)).json()["conversations"] == []
    for conversation in conversations:
        assert (await client.http.get(f"{API}/{conversation}")).status_code == 404
        assert (await client.post(conversation, "Still there?")).status_code == 404
    assert (await other.http.get(f"{API}/{kept}")).status_code == 200
    assert (await client.http.get(f"{ME}/erasure", params={"id": receipt["id"]})).json() == receipt
    assert await client.create(id="own-0") == "own-0"  # an erased user who returns starts without data


@pytest.mark.gen_test
async def test_what_runs_and_what_is_watched_ends(client: Client, upstream: Upstream) -> None:
    upstream.reply(beginning("Half an ans"), Do.HANG)
    conversation = await client.create()
    async with client.stream(conversation) as watched:
        await client.post(conversation, "Who wins?")
        await watched.until("llm_chunk")
        assert (await client.http.delete(ME)).json()["erased"] == {"conversations": 1, "messages": 2}
        last = (await watched.rest())[-1].data
        assert (last["type"], last["error"], last["retryable"]) == ("error", "conversation_deleted", False)
    async with asyncio.timeout(PATIENCE):
        await upstream.calls[0].aborted.wait()
    async with client.stream(conversation) as watched:  # an EventSource that reconnects gives up
        assert watched.response.status_code == 404


@pytest.mark.gen_test
async def test_a_ticket_is_worth_nothing_afterwards(client: Client) -> None:
    conversation = await client.create()
    ticket = (await client.http.post(f"{API}/{conversation}/stream-tickets")).json()["ticket"]
    await client.http.delete(ME)
    authorization = client.http.headers.pop("Authorization")
    response = await client.http.get(f"{API}/{conversation}/stream", params={"ticket": ticket})
    client.http.headers["Authorization"] = authorization
    assert response.status_code == 401


@pytest.mark.gen_test
async def test_who_keeps_on_erasing_is_refused(client: Client) -> None:
    statuses = [(await client.http.delete(ME)).status_code for _ in range(12)]
    assert {*statuses[:10]} == {200}
    assert statuses[-1] == 429


@pytest.mark.parametrize(("id_", "status"), [(None, 400), ("", 400), ("x", 400), ("A" * 24, 400), ("0" * 24, 404)])
@pytest.mark.gen_test
async def test_an_erasure_that_is_none(client: Client, id_: str | None, status: int) -> None:
    response = await client.http.get(f"{ME}/erasure", params={} if id_ is None else {"id": id_})
    assert response.status_code == status
