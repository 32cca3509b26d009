"""The stream as its clients see it, with a whole server process, a real database and a scripted model."""

import asyncio

import pytest

from tests.support.client import API, PATIENCE, Client
from tests.support.upstream import DONE, Do, Upstream, answer, beginning, delta, ending, event, http_chunk, stream


@pytest.mark.gen_test
async def test_an_answer_streams_and_the_stream_stays_open_for_the_next(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Bet on ", "**Arsenal** at odds of 2.10."))
    upstream.reply(answer("No bet."))
    conversation = await client.create()
    async with client.stream(conversation) as watched:
        assert (await watched.next()).data["resumed"] is False
        message = (await client.post(conversation, "Who wins?")).json()
        assert (await watched.next()).data == watched.frames[-1].data | {
            "type": "user_message",
            "messageId": message["id"],
            "content": "Who wins?",
        }
        complete = await watched.until("llm_complete")
        assert complete.data["content"] == watched.text == "Bet on **Arsenal** at odds of 2.10."
        assert complete.data["status"] == "complete"
        assert complete.data["finishReason"] == "stop"
        assert complete.data["usage"]["totalTokens"] == 7
        system = await watched.next()
        assert system.data["metadata"]["odds"] == 2.1

        await client.post(conversation, "And on Monday?")
        assert (await watched.until("llm_complete")).data["content"] == "No bet."
        assert watched.types == [
            *("connected", "user_message", "llm_chunk", "llm_complete", "system"),
            *("user_message", "llm_chunk", "llm_complete"),
        ]
    assert [turn["content"] for turn in upstream.calls[1].body["messages"]] == [
        "You are a helpful sports betting assistant.",
        "Who wins?",
        "Bet on **Arsenal** at odds of 2.10.",
        "And on Monday?",
    ]


@pytest.mark.gen_test
async def test_three_viewers_see_one_answer_from_one_model_call(client: Client, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    upstream.reply(beginning("One ", "two "), go_on, http_chunk(event(delta("three"))), ending())
    conversation = await client.create(initialMessage="Count.")
    async with client.stream(conversation) as first, client.stream(conversation) as second:
        await first.until("llm_chunk")
        await second.until("llm_chunk")
        async with client.stream(conversation) as third:
            assert (await third.next()).data["activeMessageId"] is not None
            await third.until("llm_chunk")
            go_on.set()
            for watched in (first, second, third):
                assert (await watched.until("llm_complete")).data["content"] == "One two three"
                assert watched.text == "One two three"
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_an_answer_that_lost_its_viewers_is_cut_after_the_grace(client: Client, upstream: Upstream) -> None:
    upstream.reply(beginning("So far"), Do.HANG)
    conversation = await client.create(initialMessage="Tell me.")
    async with client.stream(conversation) as watched:
        await watched.until("llm_chunk")
    async with asyncio.timeout(PATIENCE):
        await upstream.calls[0].aborted.wait()
    stored = await client.answer(conversation)
    assert (stored["status"], stored["content"]) == ("interrupted", "So far")
    assert stored["error"]["error"] == "answer_interrupted"


@pytest.mark.gen_test
async def test_who_comes_back_within_the_grace_finds_the_answer_going_on(client: Client, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    upstream.reply(beginning("Before. "), go_on, http_chunk(event(delta("After."))), ending())
    conversation = await client.create(initialMessage="Tell me.")
    async with client.stream(conversation) as watched:
        await watched.until("llm_chunk")
    async with client.stream(conversation, headers={"Last-Event-ID": watched.cursor}) as again:
        assert (await again.next()).data["resumed"] is True
        go_on.set()
        await again.until("llm_complete")
        assert again.text == "After."
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_a_message_nobody_watches_is_answered_and_told_once(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Here it is."))
    conversation = await client.create()
    await client.post(conversation, "Answer me.")
    async with asyncio.timeout(PATIENCE):
        await upstream.until_called()
    async with client.stream(conversation) as watched:
        assert (await watched.until("llm_complete")).data["content"] == "Here it is."
        await watched.until("heartbeat")  # by now the server has stored that the end was seen
    async with client.stream(conversation) as again:
        assert (await again.next()).type == "connected"
        assert (await again.next()).type == "heartbeat"


@pytest.mark.gen_test
async def test_stop_stores_the_text_so_far_and_closes_the_upstream(client: Client, upstream: Upstream) -> None:
    upstream.reply(beginning("So far"), Do.HANG)
    conversation = await client.create(initialMessage="Tell me.")
    async with client.stream(conversation) as watched:
        await watched.until("llm_chunk")
        stopped = await client.http.post(f"{API}/{conversation}/stop")
        assert stopped.status_code == 200
        receipt = stopped.json()
        assert receipt.pop("usage")["source"] == "estimated"
        assert receipt == {
            "messageId": watched.frames[-1].data["messageId"],
            "status": "stopped",
            "contentLength": 6,
            "upstreamCancelled": True,
        }
        assert upstream.calls[0].aborted.is_set()
        complete = await watched.next()
        assert (complete.type, complete.data["status"], complete.data["content"]) == (
            "llm_complete",
            "stopped",
            "So far",
        )
        again = await client.http.post(f"{API}/{conversation}/stop", json={"messageId": complete.data["messageId"]})
        assert again.json()["status"] == "stopped"
        assert (await client.http.post(f"{API}/{conversation}/stop")).status_code == 409


@pytest.mark.gen_test
async def test_regenerate_supersedes_the_answer(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("First."))
    upstream.reply(answer("Second."))
    conversation = await client.create()
    async with client.stream(conversation) as watched:
        await client.post(conversation, "Say something.")
        await watched.until("llm_complete")
        again = await client.http.post(f"{API}/{conversation}/regenerate")
        assert again.status_code == 202
        complete = await watched.until("llm_complete")
        assert (complete.data["content"], complete.data["attempt"]) == ("Second.", 2)
    assert [turn["content"] for turn in upstream.calls[1].body["messages"]][1:] == ["Say something."]


@pytest.mark.gen_test
async def test_once_ends_after_one_answer_and_says_204_when_nothing_comes(client: Client, upstream: Upstream) -> None:
    upstream.reply(stream(delta("Yes."), delta(finish_reason="stop"), DONE))
    conversation = await client.create()
    async with client.http.stream(
        "POST",
        f"{API}/{conversation}/messages",
        json={"content": "Really?"},
        headers={"Accept": "text/event-stream"},
    ) as response:
        body = await response.aread()
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert b'"llm_complete"' in body
    again = await client.http.get(f"{API}/{conversation}/stream", params={"once": "true"})
    assert again.status_code == 204


@pytest.mark.gen_test
async def test_once_after_the_end_of_an_interrupted_answer_brings_the_next_one_that_is_asked_for(
    client: Client, upstream: Upstream
) -> None:
    upstream.reply(beginning("So far"), Do.HANG)
    upstream.reply(answer("All of it."))
    conversation = await client.create(initialMessage="Really?")
    async with client.stream(conversation) as watched:
        await watched.until("llm_chunk")
    interrupted = await client.answer(conversation)
    assert interrupted["status"] == "interrupted"
    cursor = {"once": "true", "last_event_id": f"{interrupted['id']}.complete"}
    assert (await client.http.get(f"{API}/{conversation}/stream", params=cursor)).status_code == 204
    await client.http.post(f"{API}/{conversation}/regenerate")
    async with client.stream(conversation, params=cursor) as watched:
        assert (await watched.until("llm_complete")).data["content"] == "All of it."


@pytest.mark.gen_test
async def test_a_page_without_the_running_answer_has_a_cursor_that_does_not_skip_it(
    client: Client, upstream: Upstream
) -> None:
    go_on = asyncio.Event()
    upstream.reply(beginning("First"), go_on, http_chunk(event(delta(" and more."))), ending())
    upstream.reply(answer("Second."))
    conversation = await client.create()
    async with client.stream(conversation) as watched:
        await client.post(conversation, "One?")
        await watched.until("llm_chunk")
    await client.post(conversation, "Two?", params={"ifBusy": "queue"})
    page = (await client.http.get(f"{API}/{conversation}/messages", params={"limit": 1})).json()
    assert [message["content"] for message in page["messages"]] == ["Two?"]
    async with client.stream(conversation, headers={"Last-Event-ID": page["streamCursor"]}) as resumed:
        go_on.set()
        assert (await resumed.until("llm_complete")).data["content"] == "First and more."
        assert (await resumed.until("llm_complete")).data["content"] == "Second."
        assert resumed.text == "First and more.Second."
