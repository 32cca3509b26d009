"""One answer in every format, with a whole server process, a real database and a scripted model."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent

from chatstream.formats.registry import DEFAULT, FORMATS, VERSIONS
from tests.support.client import API, PATIENCE, Client
from tests.support.upstream import Do, Upstream, answer, beginning, delta, ending, event, http_chunk

# For each format, a function that reads the text from the data of one frame.
TEXTS: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "chat-events": lambda data: data["content"] if data["type"] == "llm_chunk" else "",
    "ui-message-stream": lambda data: data["delta"] if data["type"] == "text-delta" else "",
}


def text(format_: str, frames: list[ServerSentEvent]) -> str:
    return "".join(TEXTS[format_](frame.json()) for frame in frames if frame.data not in ("", "[DONE]"))


@asynccontextmanager
async def opened(client: Client, conversation: str, format_: str, cursor: str = "") -> AsyncIterator[httpx.Response]:
    """Open a stream of one answer."""
    url = f"{API}/{conversation}/stream"
    params = {"format": format_, "once": "true", "last_event_id": cursor}
    async with asyncio.timeout(PATIENCE), client.http.stream("GET", url, params=params) as response:
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert FORMATS[format_].headers.items() <= response.headers.items()
        yield response


async def read(response: httpx.Response) -> list[ServerSentEvent]:
    """Read to the end of the stream."""
    return [frame async for frame in EventSource(response).aiter_sse()]


@pytest.mark.gen_test
async def test_all_formats_tell_the_same_answer_of_one_run(client: Client, upstream: Upstream) -> None:
    assert TEXTS.keys() == FORMATS.keys()
    go_on = asyncio.Event()
    upstream.reply(beginning("One ", "run,\n"), go_on, http_chunk(event(delta("many tongues: ⚽"))), ending())
    conversation = await client.create(initialMessage="Say it.")
    whole = "One run,\nmany tongues: ⚽"
    async with AsyncExitStack() as stack:
        watching = {
            format_: [await stack.enter_async_context(opened(client, conversation, format_)) for _ in range(2)]
            for format_ in FORMATS
        }
        go_on.set()
        for format_, responses in watching.items():
            for response in responses:
                assert text(format_, await read(response)) == whole
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_every_format_can_be_resumed_behind_each_of_its_ids(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("I'd back ", "**Arsenal** at odds ", "of 2.10: take it."))
    conversation = await client.create()
    cursor = (await client.post(conversation, "Who wins?")).json()["streamCursor"]
    answer_id = (await client.answer(conversation))["id"]
    for format_ in FORMATS:
        async with opened(client, conversation, format_, cursor) as response:
            frames = await read(response)
        ids = [frame.id for frame in frames if frame.id]
        whole = text(format_, frames)
        assert whole == "I'd back **Arsenal** at odds of 2.10: take it."
        async with opened(client, conversation, format_, f"{answer_id}.11") as response:
            rest = await read(response)
        assert text(format_, rest) == whole[11:]
        assert [frame.id for frame in rest][-1] == ids[-1]
        response = await client.http.get(
            f"{API}/{conversation}/stream",
            params={"format": format_, "once": "true"},
            headers={"Last-Event-ID": ids[-1]},
        )
        assert response.status_code == 204


@pytest.mark.gen_test
async def test_a_format_is_told_for_each_of_its_versions(client: Client, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    upstream.reply(beginning("Half"), go_on, Do.HANG)
    conversation = await client.create(initialMessage="Go on.")
    url = f"{API}/{conversation}/stream"
    for format_, versions in VERSIONS.items():
        async with AsyncExitStack() as stack:
            watching = {
                version: await stack.enter_async_context(
                    client.http.stream("GET", url, params={"format": format_, "version": version})
                )
                for version in versions
            }
            await client.http.post(f"{API}/{conversation}/stop")
            ends = {version: (await read(response))[-2].json() for version, response in watching.items()}
    assert [ends[version]["type"] for version in ("5", "6", "7")] == ["abort", "abort", "finish"]
    assert ends["7"]["finishReason"] == "other"


@pytest.mark.parametrize(
    ("params", "refusal"),
    [
        ({"format": "ui-message-stream", "version": "4"}, "`version` must be one of: 5, 6, 7."),
        ({"format": "ui-message-stream", "version": ""}, "`version` must be one of: 5, 6, 7."),
        ({"format": "ui-message-stream", "version": "5.0.0"}, "`version` must be one of: 5, 6, 7."),
        ({"format": "chat-events", "version": "4"}, "`version` must be one of: 5, 6, 7."),
        ({"version": "4"}, "`version` must be one of: 5, 6, 7."),
    ],
)
@pytest.mark.gen_test
async def test_an_unknown_version_is_refused_and_changes_nothing(
    client: Client, params: dict[str, str], refusal: str
) -> None:
    conversation = await client.create()
    for method, route in (("GET", "stream"), ("POST", "messages"), ("POST", "regenerate")):
        body = {"content": "Who wins?"} if route == "messages" else None
        response = await client.http.request(method, f"{API}/{conversation}/{route}", json=body, params=params)
        assert (response.status_code, response.json()["detail"]) == (400, refusal)
    assert await client.messages(conversation) == []


@pytest.mark.gen_test
async def test_a_history_for_the_ai_sdk_joins_its_stream(client: Client, upstream: Upstream) -> None:
    """While an answer runs, the stream has the whole answer; otherwise it has only later events."""
    go_on = asyncio.Event()
    upstream.reply(beginning("One, "), go_on, http_chunk(event(delta("two."))), ending())
    conversation = await client.create()
    await client.http.post(f"{API}/{conversation}/messages", json={"content": "Count.", "clientMessageId": "mine"})
    async with client.stream(conversation) as watching:
        await watching.until("llm_chunk")
        await client.http.post(f"{API}/{conversation}/messages?ifBusy=queue", json={"content": "And on?"})
        history = (await client.http.get(f"{API}/{conversation}/ui-messages")).json()
        assert history["messages"][0]["id"] == "mine"
        assert [message["parts"] for message in history["messages"]] == [
            [{"type": "text", "text": "Count."}],
            [{"type": "text", "text": "And on?"}],
        ]
        upstream.reply(answer("Three."))
        go_on.set()
        async with opened(client, conversation, "ui-message-stream", history["streamCursor"]) as response:
            assert text("ui-message-stream", await read(response)) == "One, two."
        await watching.until("llm_complete", 2)
    older = (await client.http.get(f"{API}/{conversation}/ui-messages?limit=1")).json()
    assert [message["parts"][0]["text"] for message in older["messages"]] == ["Three."]
    assert older["messages"][0]["metadata"]["status"] == "complete"
    params = {"format": "ui-message-stream", "last_event_id": older["streamCursor"]}
    assert (await client.http.get(f"{API}/{conversation}/stream", params=params)).status_code == 204
    before = (await client.http.get(f"{API}/{conversation}/ui-messages?before={older['nextCursor']}")).json()
    assert len(before["messages"]) == 3
    assert before["streamCursor"] is None


@pytest.mark.parametrize("route", ["stream", "messages", "regenerate"])
@pytest.mark.gen_test
async def test_an_unknown_format_is_refused_and_changes_nothing(client: Client, route: str) -> None:
    conversation = await client.create()
    method, body = ("GET", None) if route == "stream" else ("POST", {"content": "Who wins?"})
    response = await client.http.request(method, f"{API}/{conversation}/{route}", json=body, params={"format": "morse"})
    assert response.status_code == 400
    assert response.json()["detail"] == f"`format` must be one of: {', '.join(FORMATS)}."
    assert await client.messages(conversation) == []


@pytest.mark.gen_test
async def test_lean_frames_are_refused_by_another_name_and_mean_nothing_to_another_format(
    client: Client, upstream: Upstream
) -> None:
    conversation = await client.create()
    response = await client.http.get(f"{API}/{conversation}/stream", params={"frames": "thin"})
    assert (response.status_code, response.json()["detail"]) == (400, "`frames` must be one of: full, lean.")
    upstream.reply(answer("An ", "answer."))
    asked: dict[str, Any] = {"json": {"content": "Who wins?"}, "headers": {"Accept": "text/event-stream"}}
    chunks: list[str] = []
    async with client.http.stream("GET", f"{API}/{conversation}/stream", params={"frames": "lean"}) as watched:
        lines = watched.aiter_lines()
        while "connected" not in await anext(lines):
            pass
        await client.http.post(f"{API}/{conversation}/messages", json={"content": "Who wins?"})
        while "llm_complete" not in (line := await anext(lines)):
            chunks += [line] if "llm_chunk" in line else []
    assert json.loads(chunks[0].removeprefix("data: "))["offset"] == 0
    assert chunks[1:] == ['data: {"type":"llm_chunk","content":"answer."}']
    params = {"frames": "lean", "format": "ui-message-stream"}
    other = await client.http.post(f"{API}/{conversation}/messages", params=params, **asked)
    assert '"text-delta"' in other.text


@pytest.mark.gen_test
async def test_to_name_a_format_is_to_ask_for_the_answers_stream(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("An answer."))
    conversation = await client.create()
    for route, body in (("messages", {"content": "Who wins?"}), ("regenerate", None)):
        for params, headers in (({"format": DEFAULT.name}, {}), ({}, {"Accept": "text/event-stream"})):
            path = f"{API}/{conversation}/{route}"
            response: httpx.Response = await client.http.post(path, json=body, params=params, headers=headers)
            assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert '"type":"llm_complete"' in response.text
