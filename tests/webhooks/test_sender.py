"""Due events are sent, signed, retried and given up, with a real receiver and a real database."""

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import DatetimeMS, ObjectId
from msgspec.structs import replace
from pymongo import MongoClient
from tornado.ioloop import IOLoop

from chatstream.metrics import Metrics
from chatstream.models import Answer, Budget, Conversation, Status, Usage
from chatstream.store.attempts import Attempts
from chatstream.store.conversations import Conversations
from chatstream.store.erasures import Erasures
from chatstream.store.leases import Leases
from chatstream.store.ledger import Ledger, Spending
from chatstream.store.mongo import Mongo
from chatstream.store.outbox import Outbox
from chatstream.store.posting import Posting
from chatstream.webhooks.sender import Webhooks, client
from tests.support import exposition
from tests.support.receiver import WEBHOOK_SECRET, Receiver, receiving

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
USAGE = Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7)


class Process:
    """The parts of one process that send webhooks and end answers."""

    def __init__(self, uri: str, database: str, *, text: bool = False) -> None:
        self.database: Any = MongoClient(uri, tz_aware=True)[database]
        self.mongo = Mongo(uri, database)
        self.ledger = Ledger(self.mongo, webhooks=True)
        self.posting = Posting(self.mongo, owner="p", ledger=self.ledger)
        self.attempts = Attempts(self.mongo, owner="p", ledger=self.ledger, webhook_delay=timedelta(0))
        self.conversations = Conversations(self.mongo, self.ledger)
        self.outbox = Outbox(self.mongo, text=text)
        self.metrics = Metrics()

    @contextlib.asynccontextmanager
    async def sender(self, receiver: Receiver) -> AsyncIterator[Webhooks]:
        leases = Leases(self.mongo, owner=uuid.uuid4().hex)
        webhooks = Webhooks(self.outbox, leases, client(receiver.url), receiver.url, WEBHOOK_SECRET, self.metrics)
        yield webhooks
        await webhooks.close()

    async def end(self, spending: Spending | None = None, **how: Any) -> tuple[Conversation, Answer]:
        """End an answer without viewers."""
        conversation = await self.conversations.create("user-1")
        posted = await self.posting.post(conversation, "Tell me.", spending=spending)
        assert posted.answer is not None
        fields = {"status": Status.COMPLETE, "content": "What nobody else may read.", "unseen": True, "usage": USAGE}
        stored = await self.attempts.finish(conversation, replace(posted.answer, **(fields | how)))
        assert stored is not None
        return conversation, stored

    async def erase(self, user: str) -> None:
        """Erase the user's data except conversations."""
        erasures = Erasures(self.mongo, self.ledger)
        erasure = await erasures.begin(user)
        await erasures.erase_rest(erasure.id)
        assert await erasures.complete(erasure.id)

    def change(self, update: dict[str, Any]) -> None:
        self.database["messages"].update_many({"webhook": {"$exists": True}}, update)

    def make_due(self) -> None:
        """Make all events due now."""
        self.change({"$set": {"webhook.dueAt": datetime.now(UTC) - timedelta(seconds=1)}})

    @property
    def kept(self) -> list[dict[str, Any]]:
        return [found["webhook"] for found in self.database["messages"].find({"webhook": {"$exists": True}})]

    @property
    def told(self) -> Counter[str]:
        """The numbers of webhooks by outcome."""
        exposed = exposition.samples(self.metrics.expose("")[1].decode())
        told: Counter[str] = Counter()
        for (name, *labels), count in exposed.items():
            if name == "chatstream_webhooks_total":
                told[labels[0]] += int(count)
        return told


@pytest.fixture
def process(io_loop: IOLoop, mongodb_uri: str) -> Iterator[Process]:
    process = Process(mongodb_uri, "webhooks")
    process.database.client.drop_database("webhooks")
    io_loop.run_sync(process.mongo.prepare)
    yield process
    process.mongo.close()
    process.database.client.close()


@pytest.mark.gen_test
async def test_an_end_is_told_once_signed_and_without_its_text(process: Process) -> None:
    async with receiving() as receiver, process.sender(receiver) as sender:
        conversation, answer = await process.end()
        assert await sender.look() == 1
        assert await sender.look() == 0
        [one] = receiver.received
        assert one.path == "/hook?of=chat"
        assert one.headers["content-type"] == "application/json"
        event = one.event
        assert datetime.fromisoformat(event.pop("timestamp")) <= datetime.now(UTC)
        assert event == {
            "type": "answer.ended",
            "data": {
                "userId": "user-1",
                "conversationId": conversation.id,
                "messageId": answer.id,
                "replyTo": answer.reply_to,
                "attempt": 1,
                "status": "complete",
                "finishReason": None,
                "error": None,
                "usage": {"promptTokens": 5, "completionTokens": 2, "totalTokens": 7, "source": "exact"},
            },
        }
    assert process.kept == []
    assert process.told["delivered"] == 1


@pytest.mark.gen_test
async def test_the_text_goes_with_it_where_that_is_wanted(process: Process, mongodb_uri: str) -> None:
    process.outbox = Outbox(process.mongo, text=True)
    async with receiving() as receiver, process.sender(receiver) as sender:
        await process.end()
        await sender.look()
        assert receiver.received[0].event["data"]["content"] == "What nobody else may read."


@pytest.mark.gen_test
async def test_nobody_is_told_what_they_know(process: Process) -> None:
    async with receiving() as receiver, process.sender(receiver) as sender:
        await process.end(unseen=False)
        await process.end(status=Status.STOPPED)  # stopped by the user to whom it would be reported
        await process.end(status=Status.INTERRUPTED, next_model="another")  # another model replaces this answer
        conversation, _ = await process.end()
        await process.attempts.mark_seen(conversation.key)  # on another device, in any process
        conversation, _ = await process.end()
        process.change({"$set": {"unseen": False}})  # by a process of the version before
        conversation, _ = await process.end()
        await process.conversations.delete("user-1", conversation.id)
        assert await sender.look() == 0
        assert (receiver.received, process.kept) == ([], [])


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nRetry-After: never\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n" + b"x" * 100_000,
    ],
    ids=["500", "302", "401", "nonsense", "later", "endless"],
)
@pytest.mark.gen_test
async def test_what_is_not_taken_is_tried_again_under_the_same_id(process: Process, reply: bytes) -> None:
    async with receiving() as receiver, process.sender(receiver) as sender:
        receiver.replies = [reply, OK]
        await process.end()
        before = datetime.now(UTC)
        assert await sender.look() == 1
        assert await sender.look() == 0  # not at once
        [kept] = process.kept
        pause = (kept["dueAt"] - before).total_seconds()
        assert pause >= (3599 if b"3600" in reply else 14)
        assert process.told["failed"] == 1
        process.make_due()
        await sender.look()
        first, second = receiver.received
        assert first.id == second.id
        assert first.event == second.event
    assert process.kept == []


@pytest.mark.gen_test
async def test_a_receiver_that_is_not_there(process: Process) -> None:
    async with receiving() as receiver:
        pass
    async with process.sender(receiver) as sender:
        await process.end()
        await sender.look()
    assert [one["tries"] for one in process.kept] == [1]


@pytest.mark.gen_test
async def test_after_a_day_it_is_kept_as_dead(process: Process) -> None:
    async with receiving() as receiver, process.sender(receiver) as sender:
        receiver.replies = [b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"] * 9
        await process.end()
        process.change({"$set": {"webhook.since": datetime.now(UTC) - timedelta(hours=25)}})
        await sender.look()
        process_kept = process.kept
        assert len(process_kept) == 1
        assert "dueAt" not in process_kept[0]
        assert process_kept[0]["deadAt"] <= datetime.now(UTC) + timedelta(seconds=1)
        assert await sender.look() == 0
    assert process.told["dead"] == 1


@pytest.mark.gen_test
async def test_of_two_who_believe_that_they_have_the_lease_one_sends(process: Process) -> None:
    async with receiving() as receiver, process.sender(receiver) as one, process.sender(receiver) as other:
        for _ in range(5):
            await process.end()
        await asyncio.gather(one.look(), other.look())
        assert len({each.id for each in receiver.received}) == len(receiver.received) == 5


@pytest.mark.gen_test
async def test_what_a_later_version_noted_is_left_to_it(process: Process) -> None:
    async with receiving() as receiver, process.sender(receiver) as sender:
        await process.end()
        process.change({"$set": {"webhook.type": "answer.dreamt"}})
        assert await sender.look() == 0
        await process.end()
        assert await sender.look() == 1
        assert len(process.kept) == 1


@pytest.mark.gen_test
async def test_of_an_erased_user_nothing_is_told(process: Process) -> None:
    spending = Spending("user-1", Budget(tokens_per_day=5), lambda before: USAGE)
    conversation, _ = await process.end(spending, status=Status.STOPPED, unseen=False)
    with pytest.raises(Exception, match="used up"):
        await process.posting.post(conversation, "And now?", spending=spending)
    assert process.database.ledger.count_documents({"webhook": {"$exists": True}}) == 1
    await process.erase("user-1")
    (account,) = process.database.ledger.find()
    assert "webhook" not in account
    assert "user-1" not in repr(account)
    # An erased user who returns in the same month is refused, and this event has the user's own id.
    process.database.ledger.update_one({}, {"$unset": {"told": ""}})
    with pytest.raises(Exception, match="used up"):
        await process.posting.post(conversation, "And now?", spending=spending)
    [event] = await process.outbox.due()
    assert event.data["userId"] == "user-1"
    # The returned user is erased again, with the event about them.
    await process.erase("user-1")
    assert await process.outbox.due() == []
    assert "user-1" not in repr([*process.database.ledger.find()])


@pytest.mark.gen_test
async def test_what_is_never_delivered_keeps_no_id_of_a_user_who_was_erased_before(process: Process) -> None:
    spending = Spending("user-1", Budget(tokens_per_day=5), lambda before: USAGE)
    conversation, _ = await process.end(spending, status=Status.STOPPED, unseen=False)
    await process.erase("user-1")
    with pytest.raises(Exception, match="used up"):
        await process.posting.post(conversation, "And now?", spending=spending)
    long_ago = datetime.now(UTC) - timedelta(hours=25)
    process.database.ledger.update_one({}, {"$set": {"webhook.since": long_ago}})
    async with receiving() as receiver, process.sender(receiver) as sender:
        receiver.replies = [b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"]
        assert await sender.look() == 1
    (account,) = process.database.ledger.find()
    assert account["webhook"]["deadAt"]
    assert "user-1" not in repr(account)
    # An earlier version has left this event.
    process.database.ledger.update_one({}, {"$set": {"webhook.userId": "user-1"}})
    await process.erase("user-1")
    assert "user-1" not in repr([*process.database.ledger.find()])


@pytest.mark.gen_test
async def test_what_a_later_version_noted_of_an_account_holds_up_nothing(process: Process) -> None:
    event = {"type": "budget.dreamt", "since": datetime.now(UTC), "dueAt": datetime.now(UTC), "tries": 0}
    process.database.ledger.insert_one({"_id": "a", "webhook": event})
    async with receiving() as receiver, process.sender(receiver) as sender:
        await process.end()
        assert await sender.look() == 1
        assert len(receiver.received) == 1


@pytest.mark.parametrize("spent", [False, True])
@pytest.mark.gen_test
async def test_the_first_refusal_of_a_limit_of_nothing_is_told(process: Process, spent: bool) -> None:
    conversation = await process.conversations.create("user-1")
    if spent:
        some = Spending("user-1", Budget(tokens_per_month=1000), lambda before: USAGE)
        posted = await process.posting.post(conversation, "Tell me.", spending=some)
        assert posted.answer is not None
        await process.attempts.finish(conversation, replace(posted.answer, status=Status.STOPPED, usage=USAGE))
    spending = Spending("user-1", Budget(cost_per_month=0), lambda before: USAGE)
    async with receiving() as receiver, process.sender(receiver) as sender:
        for _ in range(3):
            with pytest.raises(Exception, match="used up"):
                await process.posting.post(conversation, "And now?", spending=spending)
            await sender.look()
        [one] = receiver.received
        data = one.event["data"]
        assert (data["userId"], data["name"], data["limit"]) == ("user-1", "costPerMonth", 0)
    await process.erase("user-1")
    (account,) = process.database.ledger.find()
    assert "user-1" not in repr(account)


@pytest.mark.gen_test
async def test_the_first_refusal_of_a_day_is_told(process: Process) -> None:
    spending = Spending("user-1", Budget(tokens_per_day=5), lambda before: USAGE)
    async with receiving() as receiver, process.sender(receiver) as sender:
        conversation = await process.conversations.create("user-1")
        posted = await process.posting.post(conversation, "Tell me.", spending=spending)
        assert posted.answer is not None
        # A budget that is only reserved is not used up, so no event is sent.
        other = await process.conversations.create("user-1")
        with pytest.raises(Exception, match="reserved"):
            await process.posting.post(other, "And now?", spending=spending)
        assert await sender.look() == 0
        await process.attempts.finish(conversation, replace(posted.answer, status=Status.STOPPED, usage=USAGE))
        for _ in range(3):
            other = await process.conversations.create("user-1")
            with pytest.raises(Exception, match="used up"):
                await process.posting.post(other, "And now?", spending=spending)
            await sender.look()
        [one] = receiver.received
        event = one.event
        account = process.database.ledger.find_one({"userId": "user-1"})
        assert account["_id"].partition(":")[2] not in one.id  # the id does not lead to the erased user
        assert event["type"] == "budget.exhausted"
        resets_at = datetime.fromisoformat(event["data"].pop("resetsAt"))
        assert event["data"] == {"userId": "user-1", "name": "tokensPerDay", "limit": 5}
        assert resets_at > datetime.now(UTC)


STRANGE: dict[str, dict[str, Any]] = {
    "no type": {"$unset": {"webhook.type": ""}},
    "a type of a later version": {"$set": {"webhook.type": ["answer.ended"]}},
    "no beginning": {"$unset": {"webhook.since": ""}},
    "a beginning that Python does not have": {"$set": {"webhook.since": DatetimeMS(2**60)}},
    "tries without number": {"$set": {"webhook.tries": "often"}},
    "more tries than there were moments": {"$set": {"webhook.tries": 2**40}},
    "several": {"$set": {"webhook": [{"type": "answer.ended", "dueAt": datetime(2026, 1, 1, tzinfo=UTC), "tries": 0}]}},
    "no conversation": {"$unset": {"conversationId": ""}},
    "a status of a later version": {"$set": {"status": "complete", "replyTo": "all"}},
}


@pytest.mark.gen_test(timeout=60)
async def test_what_a_later_version_has_noted_holds_up_nothing(process: Process) -> None:
    async with receiving() as receiver, process.sender(receiver) as sender:
        for update in STRANGE.values():
            _, strange = await process.end()
            process.database["messages"].update_one({"_id": ObjectId(strange.id)}, update)
        accounts: list[dict[str, Any]] = [{"type": "budget.exhausted"}, {"type": "budget.exhausted", "budget": 7}, {}]
        for webhook in accounts:
            due = {"dueAt": datetime(2026, 1, 1, tzinfo=UTC), "since": datetime(2026, 1, 1, tzinfo=UTC), "tries": 0}
            process.database["ledger"].insert_one({"webhook": due | webhook})
        _, answer = await process.end()
        assert await sender.look() == 1
        assert [one.event["data"]["messageId"] for one in receiver.received] == [answer.id]
