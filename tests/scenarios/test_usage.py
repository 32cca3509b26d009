"""The usage of every attempt, however it ended, and the response to a stop."""

import asyncio
import json
from typing import Any

import pytest

from tests.conftest import MakeClient, StartServer
from tests.support.client import API, PATIENCE, Client
from tests.support.exposition import scrape
from tests.support.upstream import (
    DONE,
    Do,
    Upstream,
    answer,
    beginning,
    delta,
    ending,
    event,
    head,
    http_chunk,
    stream,
    whole,
)

QUESTION = "Tell me all that there is to be told of this match, please."
COUNTED = {
    "choices": [],
    "usage": {
        "prompt_tokens": 120,
        "completion_tokens": 40,
        "total_tokens": 160,
        "prompt_tokens_details": {"cached_tokens": 100},
        "completion_tokens_details": {"reasoning_tokens": 30},
    },
}


@pytest.mark.gen_test
async def test_what_the_model_counted_is_told_with_its_details(client: Client, upstream: Upstream) -> None:
    upstream.reply(stream(delta("Well."), delta(finish_reason="stop"), COUNTED, DONE))
    conversation = await client.create()
    expected = {
        "promptTokens": 120,
        "completionTokens": 40,
        "totalTokens": 160,
        "source": "exact",
        "cachedTokens": 100,
        "reasoningTokens": 30,
    }
    async with client.stream(conversation) as watched:
        await client.post(conversation, QUESTION)
        complete = await watched.until("llm_complete")
        assert complete.data["usage"] == expected
    assert (await client.answer(conversation))["usage"] == expected


@pytest.mark.parametrize(
    ("details", "told"),
    [
        ({"prompt_tokens_details": None}, {}),
        ({"prompt_tokens_details": {"cached_tokens": 0}}, {"cachedTokens": 0}),
        ({"prompt_tokens_details": {"cached_tokens": 121}}, {}),  # of 120
        ({"prompt_tokens_details": {"cached_tokens": "many"}, "completion_tokens_details": []}, {}),
    ],
)
@pytest.mark.gen_test
async def test_details_that_are_not_told_or_cannot_be_are_left_out(
    client: Client, upstream: Upstream, details: dict[str, Any], told: dict[str, int]
) -> None:
    counts = {"prompt_tokens": 120, "completion_tokens": 40, "total_tokens": 160, **details}
    upstream.reply(stream(delta("Well."), delta(finish_reason="stop"), {"choices": [], "usage": counts}, DONE))
    conversation = await client.create(initialMessage=QUESTION)
    usage = (await client.answer(conversation))["usage"]
    assert usage == {"promptTokens": 120, "completionTokens": 40, "totalTokens": 160, "source": "exact"} | told


def within(count: int, size: int) -> bool:
    """Whether a number of tokens is plausible for this many characters of English."""
    return size / 8 <= count <= size / 2 + 40


@pytest.mark.parametrize("how", ["stopped", "failed", "interrupted", "no usage"])
@pytest.mark.gen_test
async def test_it_is_estimated_where_no_model_counted(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, how: str
) -> None:
    text = "Half of an answer that is long enough. " * 20
    ends: dict[str, Do | bytes] = {"failed": Do.RESET, "no usage": ending()}
    end = ends.get(how, Do.HANG)
    upstream.reply(beginning(text), end)
    server = start_server(CHATSTREAM_DISCONNECT_GRACE="0", CHATSTREAM_PLUGINS="none")
    client = make_client(server)
    conversation = await client.create(systemPrompt="Be brief. " * 40)
    async with client.stream(conversation) as watched:
        await watched.next()  # who came later could miss the whole answer
        await client.post(conversation, QUESTION)
        await watched.until("llm_chunk")
        if how == "stopped":
            receipt = (await client.http.post(f"{API}/{conversation}/stop")).json()
        if how != "interrupted":
            told = (await watched.until("llm_complete")).data["usage"]
    stored = (await client.answer(conversation))["usage"]
    assert stored["source"] == "estimated"
    assert within(stored["promptTokens"], 400 + len(QUESTION))
    assert within(stored["completionTokens"], len(text))
    assert stored["totalTokens"] == stored["promptTokens"] + stored["completionTokens"]
    if how != "interrupted":
        assert told == stored
    if how == "stopped":
        assert receipt["usage"] == stored
    counted = ("chatstream_estimated_tokens_total", "completion")
    async with asyncio.timeout(PATIENCE):
        while not (samples := await scrape(client.http))[counted]:  # counted right after it is stored
            await asyncio.sleep(0.01)  # between two polls
    assert samples[counted] == stored["completionTokens"]
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    [line] = [line for line in lines if "prompt_tokens" in line]
    assert (line["prompt_tokens"], line["usage"]) == (stored["promptTokens"], "estimated")


@pytest.mark.gen_test
async def test_a_conversation_is_measured_by_itself(client: Client, upstream: Upstream) -> None:
    """This conversation's earlier answer had one token per two characters; in another conversation it is one per
    four.
    """
    text = "abcdefghij" * 100
    usage = {"prompt_tokens": 10, "completion_tokens": 500, "total_tokens": 510}
    upstream.reply(stream(delta(text), delta(finish_reason="stop"), {"choices": [], "usage": usage}, DONE))
    upstream.reply(beginning(text), Do.HANG)
    conversation = await client.create(initialMessage=QUESTION)
    await client.answer(conversation)
    async with client.stream(conversation) as watched:
        await client.post(conversation, QUESTION)
        await watched.until("llm_chunk")
        receipt = (await client.http.post(f"{API}/{conversation}/stop")).json()
    assert receipt["usage"]["completionTokens"] == 500
    assert receipt["usage"]["promptTokens"] >= 500


@pytest.mark.gen_test
async def test_what_the_model_counted_so_far_is_better_than_an_estimate(client: Client, upstream: Upstream) -> None:
    so_far = {"prompt_tokens": 77, "completion_tokens": 3, "total_tokens": 80}
    upstream.reply(head() + http_chunk(event(delta("So far") | {"usage": so_far})), Do.HANG)
    conversation = await client.create(initialMessage=QUESTION)
    async with client.stream(conversation) as watched:
        await watched.until("llm_chunk")
        receipt = (await client.http.post(f"{API}/{conversation}/stop")).json()
    assert receipt["usage"] == {"promptTokens": 77, "completionTokens": 3, "totalTokens": 80, "source": "partial"}


@pytest.mark.gen_test
async def test_what_was_refused_takes_nothing(client: Client, upstream: Upstream) -> None:
    upstream.reply(whole("400 Bad Request", {"error": {"message": "no", "type": "invalid_request_error"}}))
    conversation = await client.create(initialMessage=QUESTION)
    stored = await client.answer(conversation)
    assert (stored["status"], stored["usage"]) == ("failed", None)


@pytest.mark.gen_test
async def test_an_answer_whose_process_is_gone_is_counted_too(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    """An answer that its user had stopped before is not begun again."""
    text = "Half of an answer that is long enough. " * 20
    for _ in range(2):
        upstream.reply(beginning(text), Do.HANG)
    upstream.reply(answer("Again."))
    server = start_server()
    client = make_client(server)
    left, stopped = await client.create(), await client.create()
    async with client.stream(left) as watched, client.stream(stopped) as watched_too:
        for conversation, stream in ((left, watched), (stopped, watched_too)):
            await client.post(conversation, QUESTION)
            await stream.until("llm_chunk")
            await client.saved(conversation)
        await server.kill()
    start_server(server.port)
    # Before the new process knows that the answers' process is gone. It takes longer than a stop's 3 s.
    told = await client.http.post(f"{API}/{stopped}/stop", json={"seenLength": 10})
    assert (told.status_code, told.json()["code"]) == (503, "stop_pending")
    assert told.headers["Retry-After"] == "10"
    for conversation, status in ((left, "interrupted"), (stopped, "stopped")):
        stored = await client.answer(conversation)
        assert stored["model"] == upstream.calls[0].body["model"]
        assert (stored["usage"]["source"], stored["status"]) == ("estimated", status)
        assert within(stored["usage"]["completionTokens"], len(text))
        assert within(stored["usage"]["promptTokens"], len(QUESTION))
    assert stored["content"] == text[:10]
    once = await client.http.get(f"{API}/{stopped}/stream", params={"once": "true"})
    assert once.status_code in (200, 204)
    assert len(upstream.calls) == 2


# A stop where the screen ended ----------------------------------------------------------------------------------------


SCREENS = [(0, ""), (2, "a👍"), (4, "a👍bc"), (900, "a👍bcd")]


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.gen_test
async def test_the_text_ends_where_the_screen_did(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, elsewhere: bool
) -> None:
    first, second = start_server(ready=False), start_server(ready=False)
    here = make_client(first.wait_until_ready())
    there = make_client(second.wait_until_ready(), here.user)
    for seen, kept in SCREENS:
        await ends_where_the_screen_did(here, there, upstream, seen, kept, elsewhere=elsewhere)


async def ends_where_the_screen_did(
    here: Client, there: Client, upstream: Upstream, seen: int, kept: str, *, elsewhere: bool
) -> None:
    upstream.reply(beginning("a👍", "bcd"), Do.HANG)
    upstream.reply(answer("Next."))
    conversation = await here.create()
    async with here.stream(conversation) as watched, there.stream(conversation) as other:
        await here.post(conversation, "Tell me.")
        while watched.text != "a👍bcd":
            await watched.next()
        asker = there if elsewhere else here
        receipt = (await asker.http.post(f"{API}/{conversation}/stop", json={"seenLength": seen})).json()
        assert (receipt["status"], receipt["contentLength"]) == ("stopped", len(kept))
        assert receipt["upstreamCancelled"] is True
        assert receipt["usage"]["completionTokens"] >= 1  # of all that was generated
        for stream_ in (watched, other):
            assert (await stream_.until("llm_complete")).data["content"] == kept
        assert (await there.answer(conversation))["content"] == kept
        late = await asker.http.post(
            f"{API}/{conversation}/stop", json={"messageId": receipt["messageId"], "seenLength": 1}
        )
        assert late.json()["contentLength"] == len(kept)
        await here.post(conversation, "And now?")
        await watched.until("llm_complete")
    told = [turn["content"] for turn in upstream.calls[-1].body["messages"]]
    assert told[1:] == (["Tell me.", kept, "And now?"] if kept else ["Tell me.\n\nAnd now?"])


@pytest.mark.parametrize("wrong", [-1, 1.5, "3", True, 10**12])
@pytest.mark.gen_test
async def test_a_length_that_cannot_be_stops_nothing(client: Client, upstream: Upstream, wrong: object) -> None:
    go_on = asyncio.Event()
    upstream.reply(beginning("So far, "), go_on, http_chunk(event(delta("so good."))), ending())
    conversation = await client.create(initialMessage="Tell me.")
    refused = await client.http.post(f"{API}/{conversation}/stop", json={"seenLength": wrong})
    assert refused.status_code == 422
    go_on.set()
    stored = await client.answer(conversation)
    assert (stored["status"], stored["content"]) == ("complete", "So far, so good.")


@pytest.mark.gen_test
async def test_an_answer_that_has_ended_keeps_what_it_has(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("All of it."))
    conversation = await client.create(initialMessage="Tell me.")
    ended = await client.answer(conversation)
    body = {"messageId": ended["id"], "seenLength": 3}
    receipt = (await client.http.post(f"{API}/{conversation}/stop", json=body)).json()
    assert receipt == {
        "messageId": ended["id"],
        "status": "complete",
        "contentLength": 10,
        "upstreamCancelled": False,
        "usage": ended["usage"],
    }
    assert (await client.answer(conversation))["content"] == "All of it."
