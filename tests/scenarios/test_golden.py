"""A text-only answer, byte by byte: on the wire, in the history, and as stored. The files in `golden/` were recorded
before answers had parts: for clients that only know text, nothing may have changed. Ids and times are replaced by
numbers in the order of their appearance. To record a file again, delete it: the test writes it, and fails.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from pymongo import AsyncMongoClient

from tests.support.client import API, PATIENCE, Client
from tests.support.upstream import DONE, END, USAGE, Upstream, beginning, delta, event, http_chunk

GOLDEN = Path(__file__).parent / "golden"
TEXTS = ("I'd back ", "**Arsenal** 👩‍👩‍👧 at odds ", "of 2.10,\n", "with a stake of €10.")
WHOLE = "".join(TEXTS)


class Names:
    """Replaces ids and times, which differ each time, by numbers."""

    _VARYING = re.compile(
        r"[0-9a-f]{24}|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}|\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)|retry: \d+"
    )

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def numbered(self, text: str) -> str:
        return self._VARYING.sub(self._name, text)

    def _name(self, match: re.Match[str]) -> str:
        found = match[0]
        if found.startswith("retry"):
            return "retry: <ms>"
        if "T" in found:
            return "<time>"
        return self._known.setdefault(found, f"<id {len(self._known) + 1}>")


def assert_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if not path.exists():
        path.write_text(text)
        pytest.fail(f"{path} was recorded")
    assert text == path.read_text()


def shown(document: dict[str, Any]) -> str:
    """A document as text, without the process that wrote it, which differs each time."""
    values = {name: "<process>" if name in ("owner", "writtenBy") else value for name, value in document.items()}
    return json.dumps(values, indent=1, ensure_ascii=False, default=lambda value: _plain(value)) + "\n"


def _plain(value: object) -> str:
    return str(value) if isinstance(value, ObjectId) else value.isoformat() + "Z"  # type: ignore[attr-defined]  # a time


@asynccontextmanager
async def documents(uri: str) -> AsyncIterator[Any]:
    """The message documents of the shared server."""
    async with AsyncMongoClient[dict[str, Any]](uri) as mongo:
        yield mongo["shared"]["messages"]


async def frames(
    client: Client, conversation: str, format_: str, cursor: str, opened: asyncio.Event | None = None
) -> str:
    """All frames of a stream, without heartbeats and comments. `opened` is set when it has begun."""
    url = f"{API}/{conversation}/stream"
    params = {"format": format_, "once": "true", "last_event_id": cursor}
    async with client.http.stream("GET", url, params=params) as response:
        if opened is not None:
            opened.set()
        told = (await response.aread()).decode().split("\n\n")
    return "\n\n".join(one for one in told if '"heartbeat"' not in one and ": keep-alive" not in one)


@pytest.mark.gen_test
async def test_a_text_only_answer_is_what_it_was(client: Client, upstream: Upstream, mongodb_uri: str) -> None:
    begin, go_on = asyncio.Event(), asyncio.Event()
    upstream.reply(
        begin,
        beginning(*TEXTS[:2]),
        go_on,
        *[http_chunk(event(delta(text))) for text in TEXTS[2:]],
        http_chunk(event(delta(finish_reason="stop"))) + http_chunk(event(USAGE)) + http_chunk(event(DONE)) + END,
    )
    conversation = await client.create()
    names = Names()
    cursor = (await client.post(conversation, "Who wins?")).json()["streamCursor"]
    opened = {format_: asyncio.Event() for format_ in ("chat-events", "ui-message-stream")}
    watching = [
        asyncio.create_task(frames(client, conversation, format_, cursor, begun)) for format_, begun in opened.items()
    ]
    async with documents(mongodb_uri) as messages, asyncio.timeout(PATIENCE):
        for one in opened.values():  # the streams are in the live log, and get each chunk as it arrives
            await one.wait()
        begin.set()
        while not (running := await messages.find_one({"status": "streaming", "length": {"$gt": 0}})):
            await asyncio.sleep(0.05)  # its first checkpoint comes within a second
        go_on.set()
        live = await asyncio.gather(*watching)
        finished = await messages.find_one({"_id": running["_id"]})
    # The network decides how the deltas are cut into chunks: only the joined text is compared.
    pieces = running.pop("pieces", None) or running.pop("parts")
    assert "".join(pieces) == WHOLE[: running["length"]]
    assert all(isinstance(piece, str) for piece in pieces)
    answer_id = str(running["_id"])
    assert_golden("running.json", names.numbered(shown({**running, "beatAt": running["createdAt"]})))
    assert_golden("finished.json", names.numbered(shown(finished)))
    assert_golden("chat-events.txt", names.numbered(live[0]))
    assert_golden("ui-message-stream.txt", names.numbered(live[1]))
    for format_ in ("chat-events", "ui-message-stream"):
        told = [
            f"{position}\n{await frames(client, conversation, format_, f'{answer_id}.{position}')}"
            for position in range(len(WHOLE) + 1)
        ]
        assert_golden(f"{format_}-resumed.txt", names.numbered("\n".join(told)))
    history = (await client.http.get(f"{API}/{conversation}/messages")).text
    assert_golden("history.json", names.numbered(history))
    ui_history = (await client.http.get(f"{API}/{conversation}/messages?format=ui-message-stream")).text
    assert_golden("ui-history.json", names.numbered(ui_history))
