"""Messages over REST: post, list, stop, regenerate."""

import asyncio

import httpx
import pytest
from httpx_sse import EventSource

from tests.support.client import API, PATIENCE, Client
from tests.support.upstream import DONE, Do, Upstream, answer, delta, event, head, http_chunk


def status_and_code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def beginning(text: str) -> bytes:
    """The head of an answer and its first delta; it does not end."""
    return head() + http_chunk(event(delta(text)))


END = http_chunk(event(delta(finish_reason="stop"))) + http_chunk(event(DONE)) + http_chunk(b"")


# Posting --------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_posted_message_comes_back_with_a_cursor_to_its_answer(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Arsenal."))
    conversation = await client.create()
    response = await client.post(conversation, "Who wins?")
    assert response.status_code == 201
    message = response.json()
    assert {*message} == {"id", "role", "content", "createdAt", "streamCursor"}
    assert (message["role"], message["content"]) == ("user", "Who wins?")
    async with client.stream(conversation, params={"last_event_id": message["streamCursor"]}) as watched:
        assert (await watched.next()).data["resumed"] is True
        complete = await watched.until("llm_complete")
        assert complete.data["replyTo"] == message["id"]
        assert watched.text == "Arsenal."
        assert "user_message" not in watched.types


@pytest.mark.gen_test
async def test_content_is_kept_to_the_character(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Ok."))
    for content in (
        "a\0b",
        "\u2028\u2029\r\n\n.",
        " . ",
        "e\u0301é",
        "\N{FAMILY}\u200d⚽",
        '"\\',
        "<script>",
        "$where",
    ):
        conversation = await client.create()
        beginning_cursor = (await client.http.get(f"{API}/{conversation}/messages")).json()["streamCursor"]
        assert (await client.post(conversation, content)).json()["content"] == content
        await client.answer(conversation)
        assert (await client.messages(conversation))[0]["content"] == content
        assert upstream.calls[-1].body["messages"][-1] == {"role": "user", "content": content}
        async with client.stream(conversation, params={"last_event_id": beginning_cursor}) as watched:
            assert (await watched.until("user_message")).data["content"] == content


@pytest.mark.gen_test
async def test_a_message_while_an_answer_runs_is_refused_and_not_stored(client: Client, upstream: Upstream) -> None:
    upstream.reply(beginning("So far"), Do.HANG)
    conversation = await client.create(initialMessage="First")
    assert status_and_code(await client.post(conversation, "Second")) == (409, "answer_in_progress")
    refused = await client.post(conversation, "Second", headers={"Accept": "text/event-stream"})
    assert status_and_code(refused) == (409, "answer_in_progress")
    assert [message["role"] for message in await client.messages(conversation)] == ["user", "assistant"]
    await client.http.post(f"{API}/{conversation}/stop")
    assert (await client.post(conversation, "Second")).status_code == 201
    await client.http.post(f"{API}/{conversation}/stop")


@pytest.mark.gen_test
async def test_the_same_key_again_is_the_first_result(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Once."))
    conversation, other = await client.create(), await client.create()
    first = await client.post(conversation, "Hi", headers={"Idempotency-Key": "k1"})
    assert (first.status_code, first.json()["clientMessageId"]) == (201, "k1")
    await client.answer(conversation)
    path = f"{API}/{conversation}/messages"
    for again in [
        await client.post(conversation, "Hi", headers={"Idempotency-Key": "k1"}),
        await client.http.post(path, json={"content": "Hi", "clientMessageId": "k1"}),
        await client.http.post(
            path, json={"content": "Hi", "clientMessageId": "k1"}, headers={"Idempotency-Key": "k1"}
        ),
    ]:
        assert (again.status_code, again.json()) == (200, first.json())
    assert len(await client.messages(conversation)) == 2
    assert len(upstream.calls) == 1
    # An idempotency key is unique within its conversation.
    assert (await client.post(other, "Hi", headers={"Idempotency-Key": "k1"})).status_code == 201
    await client.answer(other)


@pytest.mark.gen_test
async def test_the_same_key_while_its_answer_runs_is_no_conflict(client: Client, upstream: Upstream) -> None:
    upstream.reply(beginning("So far"), Do.HANG)
    conversation = await client.create()
    first = await client.post(conversation, "Hi", headers={"Idempotency-Key": "k1"})
    again = await client.post(conversation, "Hi", headers={"Idempotency-Key": "k1"})
    assert (again.status_code, again.json()) == (200, first.json())
    async with client.stream(conversation) as watched:
        await watched.until("llm_chunk")  # otherwise the stop could come before the model's call
    await client.http.post(f"{API}/{conversation}/stop")
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_the_same_key_at_the_same_time_is_stored_once(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Once."))
    conversation = await client.create()
    responses = await asyncio.gather(
        *(client.post(conversation, "Hi", headers={"Idempotency-Key": "k1"}) for _ in range(8))
    )
    assert sorted(response.status_code for response in responses) == [200] * 7 + [201]
    assert len({response.json()["id"] for response in responses}) == 1
    await client.answer(conversation)
    assert len(await client.messages(conversation)) == 2
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_a_key_under_which_something_else_was_posted_is_refused(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Once."))
    conversation = await client.create()
    await client.post(conversation, "Hi", headers={"Idempotency-Key": "k1"})
    await client.answer(conversation)
    assert status_and_code(await client.post(conversation, "Ho", headers={"Idempotency-Key": "k1"})) == (
        422,
        "invalid_content",
    )
    differing = {"content": "Hi", "clientMessageId": "k2"}
    response = await client.http.post(
        f"{API}/{conversation}/messages", json=differing, headers={"Idempotency-Key": "k1"}
    )
    assert status_and_code(response) == (422, "invalid_content")
    assert len(await client.messages(conversation)) == 2


@pytest.mark.gen_test
async def test_a_key_has_up_to_128_printable_characters(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Ok."))
    conversation = await client.create()
    for bad in (b"", b"a" * 129, b"a b", "é".encode(), b"\xff"):
        response = await client.post(conversation, "Hi", headers={b"Idempotency-Key": bad})
        assert status_and_code(response) == (400, "invalid_request"), bad
    for key in ("~", "a" * 128, '"8e03978e-40d5-43dd-bc93-6894a57f9324"'):
        assert (await client.post(conversation, "Hi", headers={"Idempotency-Key": key})).status_code == 201
        await client.answer(conversation)


@pytest.mark.gen_test
async def test_with_accept_event_stream_the_response_is_that_answer(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Bet on **Arsenal** ", "at odds of 2.10."))
    conversation = await client.create()
    path, headers = f"{API}/{conversation}/messages", {"Accept": "text/event-stream", "Idempotency-Key": "k1"}
    for repeat in range(2):
        async with client.http.stream("POST", path, json={"content": "Who wins?"}, headers=headers) as response:
            assert response.status_code == 200
            assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            types = [event.json()["type"] async for event in EventSource(response).aiter_sse()]
        seen = [type_ for type_ in types if type_ not in ("heartbeat", "llm_chunk")]
        assert seen == ["connected", "llm_complete", "system"]
        assert types.count("llm_chunk") >= 1, repeat
    assert len(upstream.calls) == 1


# While an answer runs -------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_queued_messages_wait_and_get_one_answer(client: Client, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    upstream.reply(beginning("First."), go_on, END)
    upstream.reply(answer("Both."))
    conversation = await client.create()
    async with client.stream(conversation) as watched:
        await client.post(conversation, "One?")
        await watched.until("llm_chunk")
        for content in ("Two?", "Three?"):
            queued = await client.post(conversation, content, params={"ifBusy": "queue"})
            assert (queued.status_code, queued.json()["content"]) == (201, content)
        go_on.set()
        complete = await watched.until("llm_complete", 2)
        assert (complete.data["content"], complete.data["replyTo"]) == ("Both.", queued.json()["id"])
        assert [frame.data["content"] for frame in watched.frames if frame.type == "user_message"] == [
            *("One?", "Two?", "Three?")
        ]
    told = [turn["content"] for turn in upstream.calls[1].body["messages"]]
    assert told[1:] == ["One?", "First.", "Two?\n\nThree?"]
    assert len(upstream.calls) == 2


@pytest.mark.gen_test
async def test_an_interrupting_message_stops_the_running_answer_first(client: Client, upstream: Upstream) -> None:
    upstream.reply(beginning("So far"), Do.HANG)
    upstream.reply(answer("Instead."))
    conversation = await client.create()
    async with client.stream(conversation) as watched:
        await client.post(conversation, "One?")
        await watched.until("llm_chunk")
        response = await client.post(conversation, "Two?", params={"ifBusy": "interrupt"})
        assert response.status_code == 201
        assert upstream.calls[0].aborted.is_set()
        assert (await watched.until("llm_complete")).data["status"] == "stopped"
        assert (await watched.until("llm_complete")).data["replyTo"] == response.json()["id"]
    # If nothing runs, the message is like any other.
    assert (await client.post(conversation, "Three?", params={"ifBusy": "interrupt"})).status_code == 201
    await client.answer(conversation)


@pytest.mark.gen_test
async def test_what_to_do_if_busy_is_one_of_three(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Ok."))
    conversation = await client.create()
    for choice in ("wait", "Queue", "true", "%00"):
        for path in ("messages", "regenerate"):
            url = f"{API}/{conversation}/{path}?ifBusy={choice}"
            assert status_and_code(await client.http.post(url, json={"content": "Hi"})) == (400, "invalid_request")
    # A second attempt cannot be queued.
    response = await client.http.post(f"{API}/{conversation}/regenerate?ifBusy=queue")
    assert status_and_code(response) == (400, "invalid_request")
    assert await client.messages(conversation) == []


# Listing --------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_the_list_shows_messages_and_answers_oldest_first(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Bet on **Arsenal** at odds of 2.10."))
    conversation = await client.create(initialMessage="Who wins?")
    await client.answer(conversation)
    response = await client.http.get(f"{API}/{conversation}/messages")
    page = response.json()
    assert {*page} == {"messages", "nextCursor", "streamCursor"}
    assert page["nextCursor"] is None
    question, reply = page["messages"]
    assert (question["role"], question["content"]) == ("user", "Who wins?")
    assert {*reply} == {
        *("id", "role", "content", "createdAt", "replyTo", "attempt", "status", "finishReason", "usage", "error"),
        *("recommendations", "model"),
    }
    assert reply == reply | {
        "role": "assistant",
        "content": "Bet on **Arsenal** at odds of 2.10.",
        "replyTo": question["id"],
        "attempt": 1,
        "status": "complete",
        "finishReason": "stop",
        "usage": {"promptTokens": 5, "completionTokens": 2, "totalTokens": 7, "source": "exact"},
        "error": None,
    }
    [recommendation] = reply["recommendations"]
    assert {*recommendation} == {"betId", "odds", "oddsText", "selection", "stake"}
    assert recommendation["odds"] == 2.1


@pytest.mark.gen_test
async def test_an_answer_that_failed_says_so_and_nothing_more(client: Client, upstream: Upstream) -> None:
    secret = {"error": {"message": "key sk-secret is over quota at 10.0.0.1", "code": "insufficient_quota"}}
    upstream.reply(head() + http_chunk(event(delta("So far"))) + http_chunk(event(secret)), Do.CLOSE)
    conversation = await client.create()
    response = await client.post(conversation, "Hi", headers={"X-Request-Id": "the-id"})
    assert response.status_code == 201
    failed = await client.answer(conversation)
    assert (failed["status"], failed["content"]) == ("failed", "So far")
    assert {*failed["error"]} == {"error", "message", "retryable", "requestId"}
    assert failed["error"]["error"].startswith("upstream_")
    assert failed["error"]["requestId"] == "the-id"
    assert "secret" not in str(failed)
    assert "10.0.0.1" not in str(failed)


@pytest.mark.gen_test
async def test_a_page_of_long_messages_is_shorter(client: Client, upstream: Upstream) -> None:
    upstream.reply(beginning("Not yet "), Do.HANG)
    conversation = await client.create(initialMessage="Wait.")
    sent = [f"{number:2}" * 16_000 for number in range(20)]
    for content in sent:
        assert (await client.post(conversation, content, params={"ifBusy": "queue"})).status_code == 201
    read: list[str] = []
    sizes = []
    before: dict[str, str] = {}
    while True:
        response = await client.http.get(f"{API}/{conversation}/messages", params={"limit": "200", **before})
        sizes.append(len(response.content))
        page = response.json()
        read = [message["content"] for message in page["messages"] if message["role"] == "user"] + read
        if page["nextCursor"] is None:
            break
        before = {"before": page["nextCursor"]}
    assert read == ["Wait.", *sent]
    assert len(sizes) > 1
    assert max(sizes) < 600_000


@pytest.mark.gen_test
async def test_pages_go_back_without_a_gap(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Ok."))
    conversation = await client.create()
    for number in range(4):
        await client.post(conversation, f"Message {number}")
        await client.answer(conversation)
    everything = await client.messages(conversation)
    assert len(everything) == 8
    for limit in (1, 3, 7, 8, 200):
        seen: list[object] = []
        params: dict[str, str] = {"limit": str(limit)}
        while True:
            page = (await client.http.get(f"{API}/{conversation}/messages", params=params)).json()
            assert len(page["messages"]) <= limit
            assert (page["streamCursor"] is None) == ("before" in params)
            seen[:0] = page["messages"]
            if page["nextCursor"] is None:
                break
            params["before"] = page["nextCursor"]
        assert seen == everything


@pytest.mark.gen_test
async def test_a_stream_joins_on_to_an_empty_list(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Ok."))
    conversation = await client.create()
    page = (await client.http.get(f"{API}/{conversation}/messages")).json()
    assert (page["messages"], page["nextCursor"]) == ([], None)
    message = (await client.post(conversation, "Hi")).json()
    await client.answer(conversation)
    async with client.stream(conversation, params={"last_event_id": page["streamCursor"]}) as watched:
        assert (await watched.next()).data["resumed"] is True
        assert (await watched.next()).data["messageId"] == message["id"]
        await watched.until("llm_complete")
        assert watched.types == ["connected", "user_message", "llm_chunk", "llm_complete"]


@pytest.mark.gen_test
async def test_a_stream_joins_on_to_a_list_with_a_running_answer(client: Client, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    upstream.reply(beginning("Before. "), go_on, http_chunk(event(delta("After."))), END)
    conversation = await client.create(initialMessage="Tell me.")
    async with asyncio.timeout(PATIENCE):
        while True:  # the first checkpoint; there is no event to wait for over REST
            page = (await client.http.get(f"{API}/{conversation}/messages")).json()
            running = page["messages"][-1]
            assert running["status"] == "streaming"
            if running["content"] == "Before. ":
                break
            await asyncio.sleep(0.05)
    async with client.stream(conversation, params={"last_event_id": page["streamCursor"]}) as watched:
        assert (await watched.next()).data["activeMessageId"] == running["id"]
        go_on.set()
        await watched.until("llm_complete")
        assert watched.text == "After."


@pytest.mark.gen_test
async def test_a_stream_joins_on_to_a_list_that_is_complete(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Bet on **Arsenal** at odds of 2.10."))
    conversation = await client.create(initialMessage="Who wins?")
    await client.answer(conversation)
    cursor = (await client.http.get(f"{API}/{conversation}/messages")).json()["streamCursor"]
    response = await client.http.get(f"{API}/{conversation}/stream", params={"last_event_id": cursor, "once": "true"})
    assert (response.status_code, response.content) == (204, b"")


# Stopping and regenerating --------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_nothing_to_stop_is_409_and_no_such_answer_404(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Done."))
    conversation = await client.create()
    stop = f"{API}/{conversation}/stop"
    assert status_and_code(await client.http.post(stop)) == (409, "no_answer_running")
    assert status_and_code(await client.http.post(stop, json={})) == (409, "no_answer_running")
    message = (await client.post(conversation, "Hi")).json()
    done = await client.answer(conversation)
    assert status_and_code(await client.http.post(stop)) == (409, "no_answer_running")
    response = await client.http.post(stop, json={"messageId": done["id"]})
    assert response.status_code == 200
    assert response.json() == {
        "messageId": done["id"],
        "status": "complete",
        "contentLength": 5,
        "upstreamCancelled": False,
        "usage": done["usage"],
    }
    # The id of a user message, or of another conversation's answer, is refused.
    assert status_and_code(await client.http.post(stop, json={"messageId": message["id"]})) == (404, "not_found")
    other = await client.create()
    response = await client.http.post(f"{API}/{other}/stop", json={"messageId": done["id"]})
    assert status_and_code(response) == (404, "not_found")


@pytest.mark.gen_test
async def test_stop_is_the_same_however_often(client: Client, upstream: Upstream) -> None:
    upstream.reply(beginning("⚽ far"), Do.HANG)
    conversation = await client.create(initialMessage="Tell me.")
    async with client.stream(conversation) as watched:
        chunk = await watched.until("llm_chunk")
        body = {"messageId": chunk.data["messageId"]}
        stop = f"{API}/{conversation}/stop"
        responses = await asyncio.gather(*(client.http.post(stop, json=body) for _ in range(4)))
    usage = responses[0].json()["usage"]
    assert usage["source"] == "estimated"
    for response in [*responses, await client.http.post(stop, json=body)]:
        assert response.status_code == 200
        assert response.json() | {"upstreamCancelled": None} == {
            **body,
            "status": "stopped",
            "contentLength": 5,  # code points
            "upstreamCancelled": None,
            "usage": usage,
        }


@pytest.mark.gen_test
async def test_regenerate_needs_a_question_and_no_running_answer(client: Client, upstream: Upstream) -> None:
    upstream.reply(beginning("So far"), Do.HANG)
    upstream.reply(beginning("Again so far"), Do.HANG)
    upstream.reply(answer("Again."))
    conversation = await client.create()
    regenerate = f"{API}/{conversation}/regenerate"
    assert status_and_code(await client.http.post(regenerate)) == (409, "nothing_to_answer")
    await client.post(conversation, "Hi")
    assert status_and_code(await client.http.post(regenerate)) == (409, "answer_in_progress")
    for number in (2, 3):
        response = await client.http.post(regenerate, params={"ifBusy": "interrupt"})
        assert response.status_code == 202
        attempt = response.json()
        assert (attempt["role"], attempt["status"], attempt["attempt"]) == ("assistant", "streaming", number)
    async with client.stream(conversation, params={"last_event_id": attempt["streamCursor"]}) as watched:
        assert (await watched.until("llm_complete")).data["messageId"] == attempt["id"]
        assert watched.text == "Again."
    assert [message.get("attempt") for message in await client.messages(conversation)] == [None, 1, 2, 3]
