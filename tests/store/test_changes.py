"""The change stream goes on behind what it does not understand."""

import asyncio

import pytest
from bson import ObjectId

from chatstream.errors import AnswerInProgress
from chatstream.models import Conversation
from chatstream.store.changes import Change, Changes, Stored
from chatstream.store.conversations import Conversations
from chatstream.store.mongo import Mongo
from tests.support.storage import Storage, begun


@pytest.mark.gen_test(timeout=60)
async def test_documents_of_a_later_version_do_not_end_it(
    store: Storage, conversation: Conversation, mongo: Mongo
) -> None:
    heard: asyncio.Queue[Change] = asyncio.Queue()
    opened = asyncio.Event()

    async def on_gap() -> None:
        opened.set()

    listening = asyncio.create_task(Changes(mongo, owner="another").listen(heard.put, on_gap))
    try:
        await opened.wait()
        in_it = {"conversationId": ObjectId(conversation.key), "seq": 100}
        await mongo.messages.insert_one(in_it | {"role": "tool"})
        await mongo.messages.insert_one(in_it | {"seq": 101, "role": "assistant", "status": "waiting"})
        await mongo.messages.insert_one({})
        await mongo.messages.delete_many(in_it)
        other = await Conversations(mongo).create("user")
        await begun(store, other)
        async with asyncio.timeout(30):
            while not isinstance(change := await heard.get(), Stored) or change.key != other.key:
                pass
    finally:
        listening.cancel()
        await asyncio.wait([listening])
        await mongo.messages.delete_many({"role": {"$nin": ["user", "assistant"]}})


@pytest.mark.gen_test
async def test_a_history_with_documents_of_a_later_version_is_read(
    store: Storage, conversation: Conversation, key: str, mongo: Mongo
) -> None:
    answer = await begun(store, conversation)
    in_it = {"conversationId": ObjectId(key)}
    await mongo.messages.insert_one(in_it | {"seq": 3, "role": "tool"})
    await mongo.messages.insert_one(in_it | {"seq": 4, "role": "user", "content": ["not", "text"]})
    await mongo.messages.update_one({"_id": ObjectId(answer.id), **in_it}, {"$set": {"status": "waiting", "schema": 9}})
    assert [message.seq for message in await store.reading.page(key, limit=10, before=None)] == [1, 2]
    assert [message.seq for message in await store.reading.after(key, 0, limit=10)] == [1, 2]
    assert [message.seq async for message in store.reading.newest_first(key, before=None)] == [2, 1]
    waiting = await store.reading.newest_attempt(key, answer.reply_to)
    with pytest.raises(AnswerInProgress):  # not a second one beside it
        await store.attempts.begin(key, answer.reply_to, previous=waiting, newest_seq=4)
