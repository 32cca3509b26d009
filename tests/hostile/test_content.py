"""Texts of users and models stay text: they end no frame, begin no event and move no cursor."""

import asyncio
import itertools
import json
import re
from typing import Any

import pytest

from tests.support.client import API, PATIENCE, Client
from tests.support.upstream import Upstream, answer, beginning, ending

PIECES = [
    *(
        "\n\nevent: x\ndata: ",
        "\r\n\r\n",
        "\r",
        "\n",
        "\u2028",
        "\u2029",
        "\x85",
        "\0",
        "\x0b",
        "\x1c",
        "\x1b[2J",
        "\ufeff",
    ),
    *(
        "id: 0\n",
        "retry: 0\n",
        ": comment\n\n",
        'data: {"type":"error"}\n\n',
        "data: [DONE]\n\n",
        "\\n\\n",
        '"}',
        "\\u000a",
    ),
]
# Halves of a surrogate pair, which an endpoint can send as escapes. They are not valid text: a replacement character is
# sent and stored.
HALVES = ["\ud83d", "\udca9"]
FRAME = re.compile(rb"(?:retry: [0-9]+\n)?(?:id: [A-Za-z0-9._-]{1,128}\n)?data: (\{[^\r\n]+\})\n\n")


def frames(raw: bytes) -> list[dict[str, Any]]:
    """The events of a stream; every byte of it must belong to a frame."""
    found, place = [], 0
    while place < len(raw):
        frame = FRAME.match(raw, place)
        assert frame, raw[place : place + 300]
        assert len(frame[1].decode().splitlines()) == 1  # the lines as `requests` and `httpx` split them
        found.append(json.loads(frame[1]))
        place = frame.end()
    return found


def as_text(written: str) -> str:
    """The text with a replacement character for each lone surrogate."""
    return written.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@pytest.mark.gen_test
async def test_nothing_the_model_writes_is_more_than_text(client: Client, upstream: Upstream) -> None:
    deltas = ["".join(pieces) for pieces in itertools.product([*PIECES, *HALVES], repeat=2)]
    upstream.reply(beginning(*deltas) + ending())
    conversation = await client.create()
    response = await client.post(conversation, "Hi", headers={"Accept": "text/event-stream"})
    assert response.status_code == 200
    events = [event for event in frames(response.content) if event["type"] != "heartbeat"]
    content = as_text("".join(deltas))
    assert "".join(event["content"] for event in events if event["type"] == "llm_chunk") == content
    assert [event["type"] for event in events if event["type"] != "llm_chunk"] == ["connected", "llm_complete"]
    assert events[-1]["content"] == content
    assert [message["content"] for message in await client.messages(conversation)] == ["Hi", content]
    # The replay from the database is the same.
    stored = await client.http.get(
        f"{API}/{conversation}/stream?once=true&last_event_id={await first_cursor(client, conversation)}"
    )
    assert [event.get("content") for event in frames(stored.content) if event["type"] == "llm_complete"] == [content]


async def first_cursor(client: Client, conversation: str) -> str:
    """The cursor before the answer."""
    [question, _] = await client.messages(conversation)
    return f"{question['id']}.user"


@pytest.mark.gen_test
async def test_nothing_a_user_writes_is_more_than_text(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Yes."))
    conversation = await client.create()
    # Blank texts are refused, so each text ends with a full stop.
    contents = ["".join(pieces) + "." for pieces in itertools.product(PIECES, PIECES[:6])]
    raw = bytearray()

    async def watch(opened: asyncio.Event) -> None:
        async with client.stream(conversation) as watched:
            async for part in watched.response.aiter_raw():
                raw.extend(part)
                opened.set()
                if raw.count(b'"type":"user_message"') == len(contents) and raw.endswith(b"\n\n"):
                    return

    opened = asyncio.Event()
    watching = asyncio.create_task(watch(opened))
    async with asyncio.timeout(PATIENCE):
        await opened.wait()
        for content in contents:
            response = await client.post(conversation, content, params={"ifBusy": "queue"})
            assert (response.status_code, response.json()["content"]) == (201, content)
        await watching
    events = frames(bytes(raw))
    assert [event["content"] for event in events if event["type"] == "user_message"] == contents
    assert {event["type"] for event in events} <= {
        "connected",
        "heartbeat",
        "user_message",
        "llm_chunk",
        "llm_complete",
    }
    assert {event["content"] for event in events if event["type"] == "llm_complete"} <= {"Yes."}
