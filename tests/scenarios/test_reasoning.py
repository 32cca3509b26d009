"""A model's reasoning, from its endpoint's bytes to a client, with a whole server process and a real database."""

import asyncio
import json
from typing import Any

import pytest

from chatstream.formats.registry import FORMATS
from tests.conftest import MakeClient, StartServer
from tests.support.client import API, PATIENCE, Client
from tests.support.upstream import DONE, END, Upstream, delta, event, head, http_chunk

THOUGHTS = ("I'd recommend a bet on **Chelsea** 👩‍👩‍👧 ", "at odds of 2.10 \N{LOCK}.")
TEXTS = ("Good ", "luck, 👩‍👩‍👧!")
CHUNKS = {
    "fields": [*(delta(reasoning_content=one) for one in THOUGHTS), *(delta(one) for one in TEXTS)],
    "tags": [delta(one) for one in ("<thi", "nk>\n", *THOUGHTS, "</th", "ink>\n\n", *TEXTS)],
    "parts": [
        *(delta([{"type": "thinking", "thinking": [{"type": "text", "text": one}]}]) for one in THOUGHTS),
        *(delta([{"type": "text", "text": one}]) for one in TEXTS),
    ],
}
PARTS = [{"type": "reasoning", "text": "".join(THOUGHTS)}, {"type": "text", "text": "".join(TEXTS)}]
LENGTH = 1 + len("".join(THOUGHTS)) + 1 + len("".join(TEXTS))
# The positions at which an answer is resumed: all of them for the first form of reasoning, since the other forms are
# stored in the same way.
POSITIONS = {wrapping: range(0, LENGTH + 1, 7 if number else 1) for number, wrapping in enumerate(CHUNKS)}


def sent(wrapping: str, gate: asyncio.Event | None = None) -> list[Any]:
    """The answer's script; `gate` holds it back in the middle of the reasoning."""
    chunks = [http_chunk(event(chunk)) for chunk in CHUNKS[wrapping]]
    held = [gate] if gate else []
    end = http_chunk(event(delta(finish_reason="stop"))) + http_chunk(event(DONE)) + END
    return [head() + b"".join(chunks[:-3]), *held, b"".join(chunks[-3:]) + end]


def assembled(told: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The parts, as a simple client assembles them."""
    parts: list[dict[str, str]] = []
    for one in told:
        kind = {"llm_chunk": "text", "reasoning_chunk": "reasoning"}.get(one["type"])
        if kind is None:
            continue
        if not parts or parts[-1]["type"] != kind or (kind == "reasoning" and one["offset"] == 0):
            parts.append({"type": kind, "text": ""})
        before = "".join(part["text"] for part in parts if part["type"] == kind)
        assert one["offset"] == len(before)
        parts[-1]["text"] += one["content"]
    return parts


async def told(client: Client, conversation: str, cursor: str, format_: str = "chat-events") -> str:
    params = {"format": format_, "once": "true", "last_event_id": cursor}
    return (await client.http.get(f"{API}/{conversation}/stream", params=params)).text


def events(stream: str) -> list[tuple[str, dict[str, Any]]]:
    frames = [frame.split("\n") for frame in stream.split("\n\n") if "data: {" in frame]
    return [(frame[0].removeprefix("id: "), json.loads(frame[-1].removeprefix("data: "))) for frame in frames]


@pytest.mark.parametrize("wrapping", CHUNKS)
@pytest.mark.gen_test
async def test_thinking_is_told_apart_and_resumed_at_every_position(
    client: Client, upstream: Upstream, wrapping: str
) -> None:
    gate = asyncio.Event()
    upstream.reply(*sent(wrapping, gate))
    conversation = await client.create()
    cursor = (await client.post(conversation, "Who wins?")).json()["streamCursor"]
    async with client.stream(conversation, params={"last_event_id": cursor}) as stream:
        thinking = await stream.until("reasoning_chunk")  # while the model still thinks
        begun = (await client.messages(conversation))[-1]
        assert (begun["status"], begun["content"]) == ("streaming", "")
        gate.set()
        complete = (await stream.until("llm_complete")).data
    assert complete["parts"] == PARTS == assembled([frame.data for frame in stream.frames])
    assert complete["content"] == PARTS[1]["text"]
    answer_id = thinking.data["messageId"]
    whole = PARTS[0]["text"], PARTS[1]["text"]
    for position in POSITIONS[wrapping]:
        rest = [event for _, event in events(await told(client, conversation, f"{answer_id}.{position}"))]
        thought = max(position - 1, 0)
        text = max(position - 2 - len(whole[0]), 0)
        for type_, missing, offset in (
            ("reasoning_chunk", whole[0][thought:], thought),
            ("llm_chunk", whole[1][text:], text),
        ):
            chunks = [(one["content"], one["offset"]) for one in rest if one["type"] == type_]
            assert chunks == ([(missing, offset)] if missing else [])
    stored = (await client.messages(conversation))[-1]
    assert stored["parts"] == PARTS
    assert stored["content"] == whole[1]
    assert stored["recommendations"] == []  # a bet in the reasoning is not a recommendation
    # Reasoning is not sent back as text of the answer.
    upstream.reply(*sent(wrapping))
    await client.post(conversation, "And now?")
    await client.answer(conversation)
    asked = json.dumps(upstream.calls[-1].body, ensure_ascii=False)
    assert whole[1] in asked
    assert "\N{LOCK}" not in asked


@pytest.mark.gen_test
async def test_hidden_thinking_never_leaves(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    server = start_server(CHATSTREAM_REASONING="hide", CHATSTREAM_LOG_LEVEL="DEBUG")
    client = make_client(server)
    for wrapping in CHUNKS:
        gate = asyncio.Event()
        upstream.reply(*sent(wrapping, gate))
        conversation = await client.create()
        cursor = (await client.post(conversation, "Who wins?")).json()["streamCursor"]
        watching = [asyncio.create_task(told(client, conversation, cursor, format_)) for format_ in FORMATS]
        async with asyncio.timeout(PATIENCE):
            while (await client.messages(conversation))[-1]["role"] != "assistant":
                await asyncio.sleep(0.05)
        left = (await client.http.get(f"{API}/{conversation}/messages")).text
        gate.set()
        live = await asyncio.gather(*watching)
        answer_id = (await client.answer(conversation))["id"]
        resumed = [
            await told(client, conversation, f"{answer_id}.{position}", format_)
            for position in POSITIONS[wrapping]
            for format_ in FORMATS
        ]
        left += (await client.http.get(f"{API}/{conversation}/messages")).text
        left += (await client.http.get(f"{API}/{conversation}/ui-messages")).text
        everything = "".join([*live, *resumed, left])
        assert "\N{LOCK}" not in everything
        assert "reasoning" not in everything
        # Hidden reasoning still counts in the positions: the text continues at the right place.
        text = [one for _, one in events(live[0]) if one["type"] == "llm_chunk"]
        assert "".join(one["content"] for one in text) == PARTS[1]["text"]
        assert text[0]["offset"] == 0
        assert events(live[0])[-1][0].startswith(answer_id)
        last = [cursor for cursor, one in events(live[0]) if one["type"] == "llm_chunk"][-1]
        assert last == f"{answer_id}.{LENGTH}"
    assert "\N{LOCK}" not in server.log
