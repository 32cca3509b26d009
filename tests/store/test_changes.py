"""Documents of a later version, or edited by hand: the change stream continues, and all other documents are read."""

import asyncio
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import DatetimeMS, Decimal128, ObjectId
from bson.regex import Regex
from msgspec.structs import replace
from pymongo.change_stream import ChangeStream

from chatstream.errors import AnswerInProgress, ErrorCode, StorageUnavailable
from chatstream.metrics import Metrics
from chatstream.models import Answer, Conversation, Failure, Status
from chatstream.store.attempts import Checkpoint
from chatstream.store.changes import Change, Changes, Stored
from chatstream.store.conversations import Conversations
from chatstream.store.mongo import Mongo
from tests.support.client import PATIENCE
from tests.support.exposition import samples
from tests.support.storage import Storage, added, begun, ended

Fields = Mapping[str, Any]

# Each is inserted into a conversation, after all other messages if it has no `seq`.
STRANGE: dict[str, Fields] = {
    "another role": {"role": "tool", "content": "{}"},
    "an answer that answers nothing": {"role": "assistant", "status": "paused"},
    "no role": {},
    "content in parts": {"role": "user", "content": [{"type": "image"}], "createdAt": datetime(2026, 1, 1, tzinfo=UTC)},
    "roles": {"role": ["user"]},
    "no place": {"role": "user", "content": "Where am I?", "seq": None},
    "a place in words": {"role": "user", "content": "Where am I?", "seq": "last"},
    "half a place": {"role": "user", "content": "Where am I?", "seq": 100.5},
    "no place at all": {"role": "user", "content": "Where am I?", "seq": float("inf")},
    "a time that Python does not have": {"role": "user", "content": "When?", "createdAt": DatetimeMS(2**60)},
    "running, of nobody": {"role": "assistant", "status": "later", "beatAt": [], "length": "long", "owner": 7},
    "a pattern": {"role": Regex("user"), "content": Regex(".*")},
    "several parents": {"role": "user", "content": "Whose am I?", "parent": ["first", "second"]},
    "another kind of id": {"_id": {"of": "a later version"}, "role": "user", "content": "Who am I?"},
    "several places": {"role": "user", "content": "Where am I?", "seq": [3]},
    "a decimal place": {"role": "user", "content": "Where am I?", "seq": Decimal128("3")},
    "several decimal places": {"role": "user", "content": "Where am I?", "seq": [Decimal128("3"), Decimal128("2.5")]},
    "a place that is no number": {"role": "user", "content": "Where?", "seq": [float("nan"), Decimal128("sNaN"), 3]},
    "another kind of usage": {
        "role": "assistant",
        "replyTo": ObjectId(),
        "attempt": 1,
        "status": "complete",
        "usage": {"tokens": [1, 2]},
        "rounds": 2,
    },
    "a place out of reach": {"role": "user", "content": "Where am I?", "seq": 2**62},
}


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
        await mongo.messages.insert_one(in_it | {"seq": 101, "role": "assistant", "status": "paused"})
        await mongo.messages.insert_one({})
        await mongo.messages.delete_many(in_it)
        other = await Conversations(mongo).create("user")
        await begun(store, other)
        async with asyncio.timeout(PATIENCE):
            while not isinstance(change := await heard.get(), Stored) or change.key != other.key:
                pass
    finally:
        listening.cancel()
        await asyncio.wait([listening])
        await mongo.messages.delete_many({"role": {"$nin": ["user", "assistant"]}})


@pytest.mark.gen_test(timeout=90)
async def test_it_can_be_cancelled_while_the_database_goes_away(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    close = ChangeStream.close

    def no_answer(stream: ChangeStream[Any]) -> None:
        """As the driver does if the last read of the stream times out in another thread at that moment."""
        close(stream)
        raise AttributeError("mark_dirty")

    monkeypatch.setattr(ChangeStream, "close", no_answer)
    opened = asyncio.Event()

    async def on_gap() -> None:
        opened.set()

    async def on_change(_: Change) -> None:
        pass

    listening = asyncio.create_task(Changes(mongo, owner="another").listen(on_change, on_gap))
    await opened.wait()
    listening.cancel()
    done, _ = await asyncio.wait((listening,), timeout=60)
    while not listening.done():  # each test ends what it began
        listening.cancel()
        await asyncio.sleep(0)
    assert done


@pytest.mark.gen_test(timeout=90)
async def test_neither_its_end_nor_that_of_the_process_waits_for_a_read(
    mongo: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    reading, released = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def read(_: object) -> None:
        threads.append(threading.current_thread())
        loop.call_soon_threadsafe(reading.set)
        released.wait(60)

    monkeypatch.setattr(ChangeStream, "try_next", read)
    listening = asyncio.create_task(Changes(mongo, owner="another").listen(_nothing, _nothing))
    try:
        await reading.wait()
        listening.cancel()
        await asyncio.wait((listening,))
        assert [(thread.is_alive(), thread.daemon) for thread in threads] == [(True, True)]
    finally:
        released.set()
    threads[0].join(60)
    assert not threads[0].is_alive()


async def _nothing(*_: object) -> None:
    pass


@pytest.mark.gen_test
async def test_what_is_passed_over_is_counted(mongodb_uri: str) -> None:
    metrics = Metrics()
    mongo = Mongo(mongodb_uri, "store", metrics)
    store, conversation = Storage(mongo), await Conversations(mongo).create("user")
    await mongo.messages.insert_one({"conversationId": ObjectId(conversation.key), "seq": 1, "role": "tool"})
    assert await store.reading.page(conversation.key, limit=10, before=None) == []
    assert samples(metrics.expose("")[1].decode())["chatstream_passed_over_total", "document"] == 1
    mongo.close()


# Reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.gen_test
async def test_a_conversation_goes_on_around_what_is_not_understood(
    store: Storage, conversation: Conversation, key: str, mongo: Mongo, strange: str
) -> None:
    first = await begun(store, conversation, "One.")
    await store.attempts.finish(conversation, ended(first, "First."))
    await put(mongo, key, **{"seq": 3, **STRANGE[strange]})
    await store.attempts.finish(conversation, ended(await begun(store, conversation, "Two."), "Second."))
    told = ["One.", "First.", "Two.", "Second."]
    page = await store.reading.page(key, limit=4, before=None)
    assert [message.content for message in page] == told
    assert await store.reading.after(key, 0, limit=4) == page
    assert [message async for message in store.reading.newest_first(key, before=None)] == page[::-1]
    assert [message async for message in store.reading.newest_that_count(key, before=None)] == page[::-1]
    assert await store.reading.behind(key, after=0, messages=10, characters=100) == page
    assert (await store.reading.newest_seqs([key]))[key] >= page[-1].seq
    assert await store.reading.newest(key) == page[-1]
    assert await store.attempts.orphans() is not None


@pytest.mark.gen_test
async def test_a_page_is_as_long_as_it_was_asked_for_whatever_lies_between(
    store: Storage, conversation: Conversation, key: str, mongo: Mongo
) -> None:
    await added(store, conversation, "One.")
    for seq in range(2, 100):
        await put(mongo, key, seq=seq, role="tool")
    await added(store, conversation, "Two.")
    await put(mongo, key, seq=101, role="tool")
    assert [message.seq for message in await store.reading.page(key, limit=2, before=None)] == [1, 100]
    assert [message.seq for message in await store.reading.after(key, 0, limit=2)] == [1, 100]
    assert [message.seq for message in await store.reading.after(key, 1, limit=1)] == [100]
    newest = await store.reading.newest(key)
    assert newest is not None
    assert newest.seq == 100


@pytest.mark.gen_test
async def test_conversations_are_listed_around_one_that_is_not_understood(store: Storage, mongo: Mongo) -> None:
    conversations, user = Conversations(mongo), str(ObjectId())
    kept = [await conversations.create(user) for _ in range(4)]
    for number, updated_at in enumerate((None, "today", DatetimeMS(2**60), datetime(2020, 1, 1, tzinfo=UTC))):
        await mongo.conversations.insert_one({"userId": user, "id": f"strange-{number}", "updatedAt": updated_at})
    await mongo.conversations.insert_one({"_id": "x", "userId": user, "updatedAt": datetime(2020, 1, 1, tzinfo=UTC)})
    found: list[Conversation] = []
    cursor: str | None = None
    for _ in range(5):
        page, cursor = await conversations.page(user, limit=2, before=cursor)
        found += page
        if cursor is None:
            break
    assert {each.key for each in found} == {each.key for each in kept}
    await mongo.conversations.delete_many({"userId": user})


# Answers that are waiting for what only a later version knows ---------------------------------------------------------


async def waiting(store: Storage, conversation: Conversation, mongo: Mongo) -> Answer:
    """Give the newest answer a status of a later version, which this one does not know."""
    answer = await begun(store, conversation)
    which = {"_id": ObjectId(answer.id), "conversationId": ObjectId(conversation.key)}
    await mongo.messages.update_one(which, {"$set": {"status": "paused", "schema": 9}})
    return answer


async def put(mongo: Mongo, key: str, **fields: Any) -> None:
    """Insert a document into the conversation, without the store."""
    await mongo.messages.insert_one({"conversationId": ObjectId(key)} | fields)


@pytest.mark.gen_test
async def test_an_answer_in_an_unknown_status_counts_as_running(
    store: Storage, conversation: Conversation, key: str, mongo: Mongo
) -> None:
    answer = await waiting(store, conversation, mongo)
    running = await store.reading.running(key)
    assert running is not None
    assert (running.id, running.status) == (answer.id, Status.STREAMING)
    with pytest.raises(AnswerInProgress):
        await store.posting.post(conversation, "Another.")
    assert len(await store.reading.page(key, limit=10, before=None)) == 2

    queued = [await store.posting.add(conversation, f"Wait {number}.", behind_running=True) for number in range(2)]
    assert all(queued)
    with pytest.raises(AnswerInProgress):
        await store.posting.post(conversation, "Another.")
    question = queued[1]
    assert question is not None
    with pytest.raises(AnswerInProgress):  # no second answer may begin beside it
        await store.attempts.begin(key, question.message.id, previous=None, newest_seq=question.message.seq)
    running = await store.reading.running(key)
    assert running is not None
    assert (running.id, running.queued) == (answer.id, True)

    await store.attempts.request_stop(key, answer.id)
    document = await mongo.messages.find_one({"_id": ObjectId(answer.id), "conversationId": ObjectId(key)})
    assert document["stopRequested"] is True  # the process of the waiting answer finds the request
    assert answer.id not in [orphan.answer_id for orphan in await store.attempts.orphans()]  # not ours to end


@pytest.mark.gen_test
async def test_a_repeated_message_is_found_beside_it(store: Storage, conversation: Conversation, mongo: Mongo) -> None:
    posted = await store.posting.post(conversation, "Once.", client_message_id="one")
    await mongo.messages.update_many({"conversationId": ObjectId(conversation.key)}, {"$set": {"status": "paused"}})
    again = await store.posting.post(conversation, "Once.", client_message_id="one")
    assert (again.message.id, again.repeated) == (posted.message.id, True)


@pytest.mark.gen_test
async def test_a_message_of_a_later_version_is_not_taken_for_its_repetition(
    store: Storage, conversation: Conversation, key: str, mongo: Mongo
) -> None:
    await put(mongo, key, seq=1, role="user", content=["parts"], clientMessageId="one")
    with pytest.raises(StorageUnavailable):  # a client that retries may reach a process that can read the document
        await store.posting.post(conversation, "Once.", client_message_id="one")


@pytest.mark.gen_test
async def test_an_attempt_begins_behind_what_is_not_understood(
    store: Storage, conversation: Conversation, key: str, mongo: Mongo
) -> None:
    answer = await begun(store, conversation)
    await store.attempts.finish(conversation, ended(answer, status=Status.INTERRUPTED))
    interrupted = replace(answer, status=Status.INTERRUPTED)
    await put(mongo, key, seq=3, role="tool")
    await put(mongo, key, seq=4, role="tool")
    second = await store.attempts.begin(key, answer.reply_to, previous=interrupted, newest_seq=2)
    assert (second.seq, second.attempt) == (5, 2)
    with pytest.raises(AnswerInProgress):
        await store.attempts.begin(key, answer.reply_to, previous=interrupted, newest_seq=2)


@pytest.mark.parametrize("strange", [{"status": "paused"}, {"status": "complete"}, {"status": ["complete"]}, {}])
@pytest.mark.gen_test
async def test_a_poll_keeps_what_was_known_of_an_answer_that_is_not_understood_any_more(
    store: Storage, conversation: Conversation, key: str, mongo: Mongo, strange: Fields
) -> None:
    known = replace(await begun(store, conversation), content="So far")
    which = {"_id": ObjectId(known.id), "conversationId": ObjectId(key)}
    await mongo.messages.update_one(which, {"$set": {"status": None} | dict(strange), "$unset": {"pieces": ""}})
    polled = await store.attempts.poll(key, known)
    status = Status.COMPLETE if strange.get("status") == "complete" else Status.STREAMING
    assert polled == replace(known, status=status)
    await mongo.messages.delete_one(which)
    assert await store.attempts.poll(key, known) is None


@pytest.mark.parametrize("strange", [{"status": "paused"}, {"status": "complete", "content": ["parts"]}, {"seq": "x"}])
@pytest.mark.gen_test
async def test_the_end_of_what_is_not_understood_any_more_is_ours_and_not_a_deletion(
    store: Storage, conversation: Conversation, key: str, mongo: Mongo, strange: Fields
) -> None:
    answer = await begun(store, conversation)
    which = {"_id": ObjectId(answer.id), "conversationId": ObjectId(key)}
    await mongo.messages.update_one(which, {"$set": {"status": "paused"} | dict(strange), "$unset": {"pieces": ""}})
    failure = Failure(code=ErrorCode.ANSWER_INTERRUPTED, request_id=None)
    ours = replace(ended(answer, "So far", Status.INTERRUPTED), failure=failure)
    assert await store.attempts.finish(conversation, ours) == ours


@pytest.mark.gen_test
async def test_one_strange_answer_costs_the_others_no_checkpoint(
    store: Storage, conversation: Conversation, key: str, mongo: Mongo
) -> None:
    other = await Conversations(mongo).create("user")
    strange, plain = await begun(store, conversation), await begun(store, other)
    which = {"_id": ObjectId(strange.id), "conversationId": ObjectId(key)}
    await mongo.messages.update_one(which, {"$set": {"length": "long", "beatAt": ["now"]}})
    both = [Checkpoint(key, strange.id, 0, ["a"]), Checkpoint(other.key, plain.id, 0, ["b"])]
    assert [*await store.attempts.checkpoint(both)] == [plain.id]
    assert plain.id in [orphan.answer_id for orphan in await store.attempts.orphans()]
    await mongo.messages.delete_one(which)
