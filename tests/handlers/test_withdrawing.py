"""Taking back a question that is queued behind a running answer."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.conftest import MakeClient, StartServer
from tests.support.client import API, PATIENCE, Client
from tests.support.upstream import Upstream, answer, beginning, ending


async def queue(client: Client, conversation: str, content: str, **body: Any) -> str:
    """Post a message behind the running answer; returns its id."""
    path, message = f"{API}/{conversation}/messages?ifBusy=queue", {"content": content, **body}
    response = await client.http.post(path, json=message)
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


async def take_back(client: Client, conversation: str, message_id: str) -> httpx.Response:
    return await client.http.delete(f"{API}/{conversation}/messages/{message_id}")


async def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


@pytest.mark.gen_test(timeout=100)
async def test_a_question_that_waits_is_taken_back_for_all_who_watch(
    client: Client, upstream: Upstream, start_server: StartServer, make_client: MakeClient
) -> None:
    hold = asyncio.Event()
    upstream.reply(beginning("To one."), hold, ending())
    upstream.reply(answer("To three."))
    other = make_client(await asyncio.to_thread(start_server, MONGODB_DATABASE="shared"), client.user)
    conversation = await client.create()
    async with client.stream(conversation) as here, other.stream(conversation) as there:
        await here.next()
        await there.next()
        await client.post(conversation, "One")
        for watched in (here, there):
            await watched.until("llm_chunk")
        cursor = here.cursor
        two, three = [await queue(other, conversation, content) for content in ("Two", "Three")]
        four = await queue(client, conversation, "Four", clientMessageId="four")
        for message_id in (two, four):
            assert (await take_back(client, conversation, message_id)).status_code == 204
            for watched in (here, there):
                assert (await watched.until("withdrawn")).data["messageId"] == message_id
        assert (await take_back(other, conversation, two)).status_code == 204  # the same again
        assert [one["content"] for one in await other.messages(conversation)] == ["One", "To one.", "Three"]
        again = {"content": "Four", "clientMessageId": "four"}
        repeated = await client.http.post(f"{API}/{conversation}/messages?ifBusy=queue", json=again)
        assert await code(repeated) == (409, "withdrawn")
        hold.set()
        for watched in (here, there):
            assert (await watched.until("user_message")).data["content"] == "Three"
            assert (await watched.until("llm_complete")).data["content"] == "To three."
            assert not {two, four} & {
                frame.data.get("messageId") for frame in watched.frames if frame.type != "withdrawn"
            }
    told = [turn["content"] for turn in upstream.calls[-1].body["messages"] if turn["role"] == "user"]
    assert told == ["One", "Three"]
    assert [one["content"] for one in await client.messages(conversation)] == ["One", "To one.", "Three", "To three."]
    answered = (await client.messages(conversation))[1]["id"]
    for message_id, refusal in {
        three: (409, "not_queued"),
        answered: (404, "not_found"),
        "0" * 24: (404, "not_found"),
        "nonsense": (404, "not_found"),
    }.items():
        assert await code(await take_back(client, conversation, message_id)) == refusal
    # Every cursor continues exactly, and the next question has the right position.
    async with other.stream(conversation, headers={"Last-Event-ID": cursor}) as resumed:
        assert (await resumed.next()).data["resumed"] is True
        assert (await resumed.until("user_message")).data["content"] == "Three"
    upstream.reply(answer("To five."))
    await other.post(conversation, "Five")
    assert (await other.answer(conversation))["content"] == "To five."


@pytest.mark.gen_test
async def test_an_edit_that_waits_is_taken_back_and_the_branch_from_before_is_shown(
    client: Client, upstream: Upstream
) -> None:
    hold = asyncio.Event()
    upstream.reply(answer("To one."))
    upstream.reply(beginning("To two."), hold, ending())
    conversation = await client.create()
    await client.post(conversation, "One")
    first = await client.answer(conversation)
    await client.post(conversation, "Two")
    edit = await queue(client, conversation, "One, edited", parent=None)
    follow_up = await queue(client, conversation, "And then?")
    assert [one["content"] for one in await client.messages(conversation)] == ["One, edited", "And then?"]
    assert (await take_back(client, conversation, follow_up)).status_code == 204
    assert [one["content"] for one in await client.messages(conversation)] == ["One, edited"]
    assert (await take_back(client, conversation, edit)).status_code == 204
    *shown, running = await client.messages(conversation)
    assert [one["content"] for one in shown] == ["One", "To one.", "Two"]
    assert running["status"] == "streaming"
    # A message in the middle of a branch is taken back: its children now continue its parent.
    middle = await queue(client, conversation, "Two, edited", parent=first["id"])
    await queue(client, conversation, "Three")
    assert (await take_back(client, conversation, middle)).status_code == 204
    assert [one["content"] for one in await client.messages(conversation)] == ["One", "To one.", "Three"]
    upstream.reply(answer("To three."))
    hold.set()
    async with asyncio.timeout(PATIENCE):
        while (newest := (await client.messages(conversation))[-1])["content"] != "To three.":
            assert newest["content"] in ("Three", "", "To three.")
            await asyncio.sleep(0.05)
    told = [turn["content"] for turn in upstream.calls[-1].body["messages"] if turn["role"] != "system"]
    assert told == ["One", "To one.", "Three"]


@pytest.mark.gen_test
async def test_it_is_either_taken_back_or_answered(client: Client, upstream: Upstream) -> None:
    """At the same moment in which the answer before it ends."""
    conversation = await client.create()
    outcomes = set()
    for number in range(12):
        hold = asyncio.Event()
        upstream.reply(beginning("To one."), hold, ending())
        await client.post(conversation, f"One {number}")
        two = await queue(client, conversation, f"Two {number}")
        upstream.reply(answer("To two."))
        hold.set()
        for _ in range(number):
            await asyncio.sleep(0)
        response = await take_back(client, conversation, two)
        outcomes.add(response.status_code)
        taken_back = response.status_code == 204
        async with asyncio.timeout(PATIENCE):
            while True:
                messages = await client.messages(conversation)
                ended = messages[-1]["role"] == "assistant" and messages[-1]["status"] == "complete"
                if ended and (taken_back or messages[-2]["content"] == f"Two {number}"):
                    break
                await asyncio.sleep(0.02)
        assert (two in [one["id"] for one in messages]) is not taken_back
        if taken_back:
            del upstream.scripts[len(upstream.calls) :]
    assert outcomes <= {204, 409}
