"""Leases for work that only one process at a time may do."""

import asyncio
import uuid

import pytest

from chatstream.store.leases import SECONDS, Leases
from chatstream.store.mongo import Mongo


@pytest.mark.gen_test
async def test_one_process_has_it_and_may_go_on(mongo: Mongo) -> None:
    name = f"work-{uuid.uuid4().hex}"
    processes = [Leases(mongo, owner=f"process-{number}") for number in range(8)]
    got = await asyncio.gather(*(process.take(name) for process in processes))
    assert sum(got) == 1
    holder = processes[got.index(True)]
    assert await holder.take(name)
    assert [await process.take(name) for process in processes if process is not holder] == [False] * 7
    await processes[got.index(False)].release(name)  # it holds no lease
    assert not await processes[got.index(False)].take(name)
    await holder.release(name)
    assert await processes[got.index(False)].take(name)


@pytest.mark.gen_test
async def test_that_of_a_dead_process_is_free_after_its_time(mongo: Mongo) -> None:
    name = f"work-{uuid.uuid4().hex}"
    dead, alive = Leases(mongo, owner="$dead"), Leases(mongo, owner="alive")
    assert await dead.take(name)
    assert not await alive.take(name)
    longer = {"$dateSubtract": {"startDate": "$heldUntil", "unit": "second", "amount": SECONDS + 1}}
    await mongo.leases.update_one({"_id": name}, [{"$set": {"heldUntil": longer}}])
    assert await alive.take(name)
    assert not await dead.take(name)
