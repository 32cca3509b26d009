"""Retention in a process: only one process deletes, batch by batch, and viewers are informed."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient

from chatstream.generations.retaining import Retaining
from chatstream.store.leases import Leases
from chatstream.store.retention import Retention
from tests.support.scripted_model import Bench, bench


def retaining(b: Bench) -> Retaining:
    return Retaining(Retention(b.mongo), Leases(b.mongo, owner=b.owner), b.hub, b.metrics, days=3)


@pytest.mark.gen_test
async def test_one_process_deletes_them_and_tells_who_watches(mongodb_uri: str) -> None:
    database = f"retaining-{uuid.uuid4().hex}"
    async with bench(mongodb_uri, database) as here, bench(mongodb_uri, database) as there:
        made = [await here.conversations.create("user") for _ in range(60)]
        async with here.viewer(made[0]) as watched:
            await here.mongo.conversations.update_many(
                {}, {"$set": {"updatedAt": await here.mongo.time() - timedelta(days=4)}}
            )
            recent = await here.conversations.create("user")
            assert await Leases(there.mongo, owner=there.owner).take("retention")
            await retaining(here).look()
            assert await here.mongo.conversations.count_documents({}) == 61
            await Leases(there.mongo, owner=there.owner).release("retention")
            await retaining(here).look()
            assert (await watched.until("error"))["error"] == "conversation_deleted"
        assert [one.key for one in (await here.conversations.page("user", limit=9, before=None))[0]] == [recent.key]
        text = here.metrics.expose("")[1].decode()
        assert 'chatstream_erased_total{what="conversations",why="retention"} 60.0' in text
        await retaining(there).look()  # the lease is free
        assert await there.mongo.conversations.count_documents({}) == 1


@pytest.mark.gen_test
async def test_one_that_cannot_be_deleted_does_not_keep_the_others(
    mongodb_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = f"retaining-{uuid.uuid4().hex}"
    async with bench(mongodb_uri, database) as b:
        held, other = await b.conversations.create("user"), await b.conversations.create("user")
        moment = await b.mongo.time() - timedelta(days=4)
        for age, conversation in enumerate((other, held)):
            await b.mongo.conversations.update_one(
                {"_id": ObjectId(conversation.key)}, {"$set": {"updatedAt": moment - timedelta(days=age)}}
            )
        with MongoClient[dict[str, Any]](mongodb_uri) as client, client.start_session() as session:
            session.start_transaction()
            held_now = {"_id": ObjectId(held.key)}, {"$set": {"held": 1}}
            client[database]["conversations"].update_one(*held_now, session=session)
            await retaining(b).look()
        kept, _ = await b.conversations.page("user", limit=9, before=None)
        assert [one.key for one in kept] == [held.key]
        assert "could not be deleted, and are tried again: 1" in caplog.text
        await retaining(b).look()
        assert await b.mongo.conversations.count_documents({}) == 0
