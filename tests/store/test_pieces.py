"""Answers stored as pieces in a real database, and answers of versions before pieces."""

import asyncio

import pytest
from bson import ObjectId

from chatstream.models import Answer, Conversation, Status
from chatstream.pieces import OpenReasoning, OpenText, Piece
from chatstream.store.attempts import Checkpoint
from chatstream.store.changes import Appended, Change, Changes, Ended
from chatstream.store.mongo import Mongo
from tests.support.client import PATIENCE
from tests.support.storage import Storage, begun, ended, stored

FIRST: list[Piece] = [OpenReasoning(), "Hm. 👩‍👩‍👧"]
SECOND: list[Piece] = [" No.", OpenText(), "Yes."]


@pytest.mark.gen_test(timeout=60)
async def test_pieces_are_stored_told_and_read_back(
    store: Storage, conversation: Conversation, key: str, mongo: Mongo
) -> None:
    heard: asyncio.Queue[Change] = asyncio.Queue()
    opened = asyncio.Event()

    async def on_gap() -> None:
        opened.set()

    listening = asyncio.create_task(Changes(mongo, owner="another").listen(heard.put, on_gap))
    try:
        await opened.wait()
        answer = await begun(store, conversation)
        for length, more in ((0, FIRST), (10, SECOND)):
            await store.attempts.checkpoint([Checkpoint(key, answer.id, length, more)])
        running = await store.reading.running(key)
        assert running is not None
        assert (running.content, running.pieces, running.length) == (
            "Yes.",
            (*FIRST[:1], "Hm. 👩‍👩‍👧 No.", *SECOND[1:]),
            19,
        )
        await store.attempts.finish(conversation, ended(answer).made_of([*FIRST, *SECOND]))
        changes: list[Change] = []
        while not isinstance(changes[-1:][0] if changes else None, Ended):
            async with asyncio.timeout(PATIENCE):
                changes.append(await heard.get())
        appended = [change for change in changes if isinstance(change, Appended)]
        assert [(change.pieces, change.length) for change in appended] == [(FIRST, 10), (SECOND, 19)]
    finally:
        listening.cancel()
        await asyncio.wait([listening])
    document = await mongo.messages.find_one({"_id": ObjectId(answer.id), "conversationId": ObjectId(key)})
    assert document["content"] == "Yes."
    assert document["length"] == 19
    assert document["pieces"] == [{"mark": "reasoning"}, "Hm. 👩‍👩‍👧 No.", {"mark": "text"}, "Yes."]
    (_, finished) = await stored(store, key)
    assert isinstance(finished, Answer)
    assert finished.pieces == running.pieces


@pytest.mark.gen_test
async def test_what_was_stored_before_reads_as_it_did(
    store: Storage, conversation: Conversation, key: str, mongo: Mongo
) -> None:
    """Documents of the version before: a finished answer and a running one."""
    posted = await begun(store, conversation)
    which = {"_id": ObjectId(posted.id), "conversationId": ObjectId(key)}
    await mongo.messages.update_one(
        which, {"$set": {"parts": ["I'd back ", "Arsenal 👩‍👩‍👧"], "length": 22}, "$unset": {"pieces": ""}}
    )
    running = await store.reading.running(key)
    assert running is not None
    assert (running.content, running.mixed, running.length) == ("I'd back Arsenal 👩‍👩‍👧", (), 22)
    await store.attempts.finish(conversation, ended(running, running.content))
    document = await mongo.messages.find_one(which)
    assert "parts" not in document
    assert "pieces" not in document
    (_, finished) = await stored(store, key)
    assert isinstance(finished, Answer)
    assert (finished.content, finished.status, finished.length) == (running.content, Status.COMPLETE, 22)


@pytest.mark.gen_test
async def test_a_mark_of_a_later_version_leaves_the_text(
    store: Storage, conversation: Conversation, key: str, mongo: Mongo
) -> None:
    answer = await begun(store, conversation)
    await store.attempts.finish(conversation, ended(answer).made_of([*FIRST, *SECOND]))
    await mongo.messages.update_one(
        {"_id": ObjectId(answer.id), "conversationId": ObjectId(key)}, {"$push": {"pieces": {"mark": "hologram"}}}
    )
    (_, finished) = await stored(store, key)
    assert isinstance(finished, Answer)
    assert finished.pieces == ("Yes.",)
