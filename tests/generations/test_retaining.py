"""Retention in a process: only one process deletes, batch by batch, and viewers are informed."""

import uuid
from datetime import timedelta

import pytest

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
