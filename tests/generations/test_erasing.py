"""Erasure of a user while answers run, other processes erase the same user, or a process dies in the middle."""

import asyncio
import uuid
from typing import Any

import pytest

from chatstream.errors import NotFound
from chatstream.generations.erasing import Erasing
from chatstream.models import Conversation, User
from chatstream.store.erasures import Erasures
from chatstream.store.leases import Leases
from chatstream.store.mongo import Mongo
from chatstream.store.tickets import Tickets
from tests.support.scripted_model import PATIENCE, STOP, Bench, bench, following


@pytest.fixture(autouse=True)
def _whole_receipts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the whole erasure: how much is done within the usual seconds depends on the machine."""
    monkeypatch.setattr("chatstream.generations.erasing._RECEIPT_PATIENCE", PATIENCE)


def erasing(b: Bench, owner: str | None = None) -> Erasing:
    return Erasing(Erasures(b.mongo), Leases(b.mongo, owner=owner or b.owner), b.hub, b.metrics)


async def documents(mongo: Mongo) -> str:
    """Everything in the database, as text."""
    found = []
    for name in await mongo._database.list_collection_names():
        found += [f"{name}: {document}" async for document in mongo.collection(name).find()]
    return "\n".join(found)


async def told(b: Bench, user: str, count: int) -> list[Conversation]:
    """Create conversations, each with an answered question."""
    made = []
    for number in range(count):
        conversation = await b.conversations.create(user, title=f"Secret title {number} of {user}")
        b.model.reply(f"Secret answer {number} to {user}.", STOP)
        await b.post(conversation, f"Secret question {number} of {user}?")
        await b.ended(conversation)
        made.append(conversation)
    return made


@pytest.mark.gen_test
async def test_nothing_of_the_user_is_left_and_nothing_of_others_is_lost(mongodb_uri: str) -> None:
    user, other = f"user-{uuid.uuid4().hex}", f"user-{uuid.uuid4().hex}"
    async with bench(mongodb_uri, f"erasing-{uuid.uuid4().hex}") as b:
        await told(b, user, 3)
        [kept] = await told(b, other, 1)
        await Tickets(b.mongo).issue(User(user, 2e9), "c")
        erasure = await erasing(b).erase(user)
        assert erasure.completed_at is not None
        assert (erasure.erased.conversations, erasure.erased.messages) == (3, 6)
        left = await documents(b.mongo)
        assert user not in left
        assert "Secret question 0" in left
        assert await b.conversations.get(other, kept.id) == await b.reading.conversation(kept.key)
        assert await b.mongo.tickets.count_documents({"userId": user}) == 0
        again = await erasing(b).erase(user)
        assert (again.id != erasure.id, again.erased.conversations) == (True, 0)


@pytest.mark.gen_test
async def test_a_running_answer_is_stopped_here_and_elsewhere(mongodb_uri: str, short_pauses: None) -> None:
    user = f"user-{uuid.uuid4().hex}"
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there, following(there):
        conversations = [await b.conversations.create(user) for b in (here, there)]
        for b, conversation in zip((here, there), conversations, strict=True):
            b.model.reply("It goes on")
            await b.post(conversation, "Tell me.")
            await b.model.call(1)
        async with there.viewer(conversations[0]) as remote, there.viewer(conversations[1]) as own:
            erasure = await erasing(here).erase(user)
            assert (erasure.completed_at is not None, erasure.erased.messages) == (True, 4)
            for viewer in (remote, own):
                assert (await viewer.until("error"))["error"] == "conversation_deleted"
        for b in (here, there):
            async with asyncio.timeout(PATIENCE):
                await b.model.calls[0].closed.wait()
        assert user not in await documents(here.mongo)


@pytest.mark.parametrize("died", ["begun", "batch", "conversations", "belongings", "counted"])
@pytest.mark.gen_test
async def test_another_process_goes_on_where_one_has_died(mongodb_uri: str, died: str) -> None:
    user = f"user-{uuid.uuid4().hex}"
    async with bench(mongodb_uri, f"erasing-{uuid.uuid4().hex}") as b:
        await told(b, user, 2)
        erasures, dead = Erasures(b.mongo), Leases(b.mongo, owner="dead")
        begun = await erasures.begin(user)
        assert await dead.take(f"erasure {begun.id}")
        if died != "begun":
            batch = await erasures.next_batch(begun.id)
            assert batch is not None
            if died in ("conversations", "belongings", "counted"):
                await erasures.erase_conversations(begun.id, batch)
            if died in ("belongings", "counted"):
                async for _ in erasures.erase_belongings(batch):
                    pass
            if died == "counted":
                await erasures.finish_batch(begun.id, batch)
                await erasures.finish_batch(begun.id, batch)  # its result was lost
        survivor = erasing(b)
        await survivor.look()
        await survivor.close()
        assert (await survivor.get(begun.id)).completed_at is None  # the dead process still holds the lease
        await dead.release(f"erasure {begun.id}")  # its lease has expired
        erasure = await survivor.erase(user)
        assert (erasure.id, erasure.completed_at is not None) == (begun.id, True)
        assert (erasure.erased.conversations, erasure.erased.messages) == (2, 4)
        assert user not in await documents(b.mongo)


@pytest.mark.gen_test
async def test_what_is_sent_meanwhile_is_erased_too_and_what_is_sent_later_stays(mongodb_uri: str) -> None:
    user = f"user-{uuid.uuid4().hex}"
    async with bench(mongodb_uri, f"erasing-{uuid.uuid4().hex}") as b:
        [conversation] = await told(b, user, 1)
        erasures = Erasures(b.mongo)
        begun = await erasures.begin(user)
        batch = await erasures.next_batch(begun.id)
        assert batch is not None
        await erasures.erase_conversations(begun.id, batch)
        with pytest.raises(NotFound):
            await b.post(conversation, "Am I too late?")
        with pytest.raises(NotFound):
            await b.store.add(conversation, "Am I?")
        await told(b, user, 1)
        erasure = await erasing(b).erase(user)
        assert (erasure.completed_at is not None, erasure.erased.conversations) == (True, 2)
        [later] = await told(b, user, 1)
        assert (await b.conversations.get(user, later.id)).key == later.key
        assert len(await b.reading.page(later.key, limit=9, before=None)) == 2


@pytest.mark.gen_test
async def test_two_requests_share_one_erasure(mongodb_uri: str) -> None:
    user = f"user-{uuid.uuid4().hex}"
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there:
        await told(here, user, 3)
        both: list[Any] = [erasing(here), erasing(there)]
        receipts = await asyncio.gather(*(one.erase(user) for one in both))
        first, second = [await both[0].get(receipt.id) for receipt in receipts]
        for receipt in (first, second):  # the second may have come after the end
            assert receipt.id == first.id or receipt.erased.conversations == 0
        assert first.erased.conversations + (second.erased.conversations if second.id != first.id else 0) == 3


@pytest.mark.gen_test
async def test_more_than_one_batch(mongodb_uri: str) -> None:
    user = f"user-{uuid.uuid4().hex}"
    async with bench(mongodb_uri) as b:
        for _ in range(120):
            await b.conversations.create(user)
        erasure = await erasing(b).erase(user)
        assert (erasure.completed_at is not None, erasure.erased.conversations) == (True, 120)


@pytest.mark.gen_test
async def test_while_the_database_is_away_it_waits_and_then_goes_on(mongodb_uri: str) -> None:
    user = f"user-{uuid.uuid4().hex}"
    async with bench(mongodb_uri) as b:
        await told(b, user, 1)
        one = erasing(b)
        begun = await Erasures(b.mongo).begin(user)
        with pytest.raises(NotFound):
            await one.get("0" * 24)
        await one.look()
        async with asyncio.timeout(PATIENCE):
            while (await one.get(begun.id)).completed_at is None:
                await asyncio.sleep(0.01)


@pytest.mark.gen_test
async def test_what_a_later_version_has_stored_is_erased_too(mongodb_uri: str) -> None:
    user = f"user-{uuid.uuid4().hex}"
    async with bench(mongodb_uri, f"erasing-{uuid.uuid4().hex}") as b:
        await told(b, user, 1)
        for key in (f"key of {user}", {"of": user}):
            await b.mongo.conversations.insert_one({"_id": key, "userId": user, "id": str(key)})
            await b.mongo.messages.insert_one({"conversationId": key, "content": f"Secret of {user}"})
        await b.mongo.erasures.insert_one(
            {
                "userId": user,
                "requestedAt": "today",
                "erased": {"conversations": 0, "messages": 0, "files": 3},
                "batches": 0,
            }
        )
        erasure = await erasing(b).erase(user)
        assert (erasure.completed_at is not None, erasure.erased.messages) == (True, 2)
        assert user not in await documents(b.mongo)
