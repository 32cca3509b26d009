"""Retention deletes unused conversations, and nothing else."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from msgspec.structs import replace
from tornado.ioloop import IOLoop

from chatstream.models import NO_BUDGET, Conversation, Status, Usage
from chatstream.store.conversations import Conversations, touch
from chatstream.store.ledger import Spending
from chatstream.store.mongo import Mongo
from chatstream.store.retention import Retention
from chatstream.store.searching import Search
from chatstream.store.thinning import AT_ONCE
from tests.support.storage import Storage, begun, ended, stored


@pytest.fixture
def mongo(io_loop: IOLoop, mongodb_uri: str) -> Iterator[Mongo]:
    """A separate database, since retention deletes everything that is old."""
    mongo = Mongo(mongodb_uri, f"retention-{uuid.uuid4().hex}")
    io_loop.run_sync(mongo.prepare)
    yield mongo
    mongo.close()


async def aged(mongo: Mongo, days: float, *, ends: bool = True) -> Conversation:
    """Store a conversation with a question and its answer, last used this many days ago."""
    conversation = await Conversations(mongo).create("user")
    store = Storage(mongo)
    answer = await begun(store, conversation)
    if ends:
        await store.attempts.finish(conversation, ended(answer, "Well."))
    await age(mongo, conversation, days)
    return conversation


async def age(mongo: Mongo, conversation: Conversation, days: float) -> None:
    moment = await mongo.time() - timedelta(days=days)
    await mongo.conversations.update_one({"_id": ObjectId(conversation.key)}, {"$set": {"updatedAt": moment}})


@pytest.mark.gen_test
async def test_the_oldest_first_page_by_page(mongo: Mongo) -> None:
    conversations = [await aged(mongo, days) for days in (5, 2.9, 7, 3.1, 0)]
    retention = Retention(mongo)
    first = await retention.idle(3, after=None, limit=2)
    second = await retention.idle(3, after=first[-1], limit=2)
    assert [one.key for one in (*first, *second)] == [conversations[place].key for place in (2, 0, 3)]
    assert await retention.idle(3, after=second[-1], limit=2) == []


@pytest.mark.gen_test
async def test_many_of_the_same_moment_are_all_found(mongo: Mongo) -> None:
    moment: Any = await mongo.time() - timedelta(days=9)
    keys = {(await Conversations(mongo).create("user")).key for _ in range(7)}
    await mongo.conversations.update_many({}, {"$set": {"updatedAt": moment}})
    found, after = [], None
    while page := await Retention(mongo).idle(3, after=after, limit=3):
        found += [one.key for one in page]
        after = page[-1]
    assert ({*found}, len(found)) == (keys, 7)


@pytest.mark.gen_test
async def test_it_goes_with_its_messages(mongo: Mongo) -> None:
    old, new = await aged(mongo, 5), await aged(mongo, 1)
    retention = Retention(mongo)
    [idle] = await retention.idle(3, after=None, limit=9)
    assert (await Search(mongo).find("user", ["tell"]))[0]
    assert await retention.delete(idle) == 2
    assert await retention.delete(idle) is None
    assert [one["_id"] async for one in mongo.search.find({"_id": ObjectId(old.key)})] == []
    assert await stored(Storage(mongo), old.key) == []
    assert len(await stored(Storage(mongo), new.key)) == 2
    assert await mongo.conversations.count_documents({}) == 1


@pytest.mark.gen_test
async def test_a_large_one_goes_step_by_step_unless_it_was_used(mongo: Mongo) -> None:
    gone, used = await aged(mongo, 6), await aged(mongo, 5)
    for conversation in (gone, used):
        await mongo.messages.insert_many(
            {"conversationId": ObjectId(conversation.key), "seq": seq} for seq in range(3, 2 * AT_ONCE)
        )
    retention = Retention(mongo)
    found = await retention.idle(3, after=None, limit=9)
    await touch(mongo, used)
    assert [await retention.delete(one) for one in found] == [2 * AT_ONCE - 1, None]
    assert await mongo.messages.count_documents({"conversationId": ObjectId(used.key)}) == 2 * AT_ONCE - 1
    assert await mongo.messages.count_documents({"conversationId": ObjectId(gone.key)}) == 0


@pytest.mark.gen_test
async def test_what_was_touched_meanwhile_stays_and_so_does_what_runs(mongo: Mongo) -> None:
    used, running = await aged(mongo, 5), await aged(mongo, 6, ends=False)
    retention = Retention(mongo)
    found = await retention.idle(3, after=None, limit=9)
    await touch(mongo, used)
    assert [await retention.delete(one) for one in found] == [None, None]
    for conversation in (used, running):
        assert len(await stored(Storage(mongo), conversation.key)) == 2
    assert await mongo.conversations.count_documents({}) == 2


@pytest.mark.gen_test
async def test_what_waits_stays_and_is_charged_when_it_has_ended(mongo: Mongo) -> None:
    store = Storage(mongo)
    conversation = await Conversations(mongo, store.ledger).create("user")
    taken = Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7)
    answer = await begun(store, conversation, spending=Spending("user", NO_BUDGET, lambda before: taken))
    until = await mongo.time() + timedelta(days=9)
    waiting = replace(answer, status=Status.WAITING, usage=taken, waits_until=until)
    assert await store.attempts.park(conversation, waiting) is not None
    await age(mongo, conversation, 5)
    retention = Retention(mongo, store.ledger)
    [idle] = await retention.idle(3, after=None, limit=9)
    assert await retention.delete(idle) is None
    whole = replace(taken, completion_tokens=95, total_tokens=100)
    assert await store.attempts.end_waiting(conversation, waiting, replace(waiting, status=Status.STOPPED, usage=whole))
    spent = await store.ledger.balances("user", NO_BUDGET, await mongo.time())
    assert [(one.used, one.reserved) for one in spent if one.name == "tokensPerMonth"] == [(100, 0)]


@pytest.mark.gen_test
async def test_it_is_found_by_the_index(mongo: Mongo) -> None:
    await aged(mongo, 5)
    plan = await mongo._database.command(
        "explain",
        {
            "find": "conversations",
            "filter": {"updatedAt": {"$lt": await mongo.time()}},
            "sort": {"updatedAt": 1, "_id": 1},
        },
    )
    assert "activity" in str(plan["queryPlanner"]["winningPlan"])
