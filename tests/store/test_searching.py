"""Search, in a real database."""

import asyncio
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import DatetimeMS, ObjectId

from chatstream.models import Conversation, Status
from chatstream.pieces import OpenReasoning, OpenText
from chatstream.store import searching
from chatstream.store.conversations import Conversations
from chatstream.store.mongo import Mongo
from chatstream.store.searching import Search
from chatstream.store.terms import terms
from tests.support.storage import Storage, begun, ended


@pytest.fixture
def conversations(mongo: Mongo) -> Conversations:
    return Conversations(mongo)


@pytest.fixture
def user() -> str:
    return f"user-{uuid.uuid4().hex}"


async def find(mongo: Mongo, user: str, text: str) -> set[str]:
    """The keys of the found conversations. A busy machine may need several searches until all are searched."""
    complete = False
    while not complete:
        keys, complete = await Search(mongo).find(user, set(terms(text, sought=True)))
    return {str(key) for key in keys}


async def exchange(store: Storage, conversation: Conversation, question: str, said: str) -> None:
    """Store a question and its answer."""
    answer = await begun(store, conversation, question)
    await store.attempts.finish(conversation, ended(answer, said))


@pytest.mark.gen_test
async def test_titles_questions_and_answers_are_found(
    mongo: Mongo, store: Storage, conversations: Conversations, user: str
) -> None:
    one = await conversations.create(user, title="Holidays")
    other = await conversations.create(user)
    await exchange(store, one, "Where is it warm in March?", "In Lisbon.")
    await exchange(store, other, "What is warm?", "A blanket.")
    assert await find(mongo, user, "holiday") == {one.key}
    assert await find(mongo, user, "lisbon march holidays") == {one.key}  # the words in any order; all must match
    assert await find(mongo, user, "WARM") == {one.key, other.key}
    assert await find(mongo, user, "lisbon blanket") == set()
    assert await find(mongo, f"{user}-other", "warm") == set()


@pytest.mark.gen_test
async def test_what_comes_later_is_found_later(
    mongo: Mongo, store: Storage, conversations: Conversations, user: str
) -> None:
    one = await conversations.create(user, title="Before")
    answer = await begun(store, one, "A question about turtles")
    assert await find(mongo, user, "turtles") == {one.key}
    assert await find(mongo, user, "tortoise") == set()
    await store.attempts.finish(one, ended(answer, "You mean a tortoise."))  # the answer still runs during the search
    assert await find(mongo, user, "tortoise turtles") == {one.key}
    await exchange(store, one, "And snails?", "Slow.")
    assert await find(mongo, user, "snails slow turtles") == {one.key}
    await conversations.update(user, one.id, {"title": "Afterwards"})
    assert await find(mongo, user, "before") == set()
    assert await find(mongo, user, "afterwards turtles") == {one.key}


@pytest.mark.gen_test
async def test_what_a_stopped_or_a_failed_answer_said_is_found(
    mongo: Mongo, store: Storage, conversations: Conversations, user: str
) -> None:
    one = await conversations.create(user)
    for status in (Status.STOPPED, Status.FAILED, Status.INTERRUPTED):
        answer = await begun(store, one, "Go on.")
        await store.attempts.finish(one, ended(answer, f"half of {status.value}", status))
        assert await find(mongo, user, status.value) == {one.key}


@pytest.mark.gen_test
async def test_what_the_model_thought_is_not_found(
    mongo: Mongo, store: Storage, conversations: Conversations, user: str
) -> None:
    one = await conversations.create(user)
    answer = await begun(store, one)
    thought = ended(answer).made_of([OpenReasoning(), "suspicious", OpenText(), "obvious"])
    assert thought.content == "obvious"
    await store.attempts.finish(one, thought)
    assert await find(mongo, user, "obvious") == {one.key}
    assert await find(mongo, user, "suspicious") == set()


@pytest.mark.gen_test
async def test_nothing_of_what_is_deleted_stays(
    mongo: Mongo, store: Storage, conversations: Conversations, user: str
) -> None:
    one, other = await conversations.create(user, title="Same"), await conversations.create(user, title="Same")
    assert await find(mongo, user, "same") == {one.key, other.key}
    await conversations.delete(user, one.id)
    assert await find(mongo, user, "same") == {other.key}
    assert await mongo.search.count_documents({"_id": ObjectId(one.key)}) == 0
    await mongo.conversations.delete_one({"_id": ObjectId(other.key)})  # as a process of a version without search does
    assert await find(mongo, user, "same") == set()
    assert await mongo.search.count_documents({"userId": user, "terms": "same"}) == 0


@pytest.mark.gen_test
async def test_one_that_is_deleted_while_it_is_made_ready_is_not_kept(
    mongo: Mongo, conversations: Conversations, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await conversations.create(user, title="Gone")
    changed = Search._changed

    async def then_deleted(self: Search, *args: Any) -> list[dict[str, Any]]:
        found = await changed(self, *args)
        await conversations.delete(user, one.id)
        return found

    monkeypatch.setattr(Search, "_changed", then_deleted)
    assert await find(mongo, user, "gone") == set()
    assert await mongo.search.count_documents({"userId": user, "terms": "gone"}) == 0


@pytest.mark.gen_test
async def test_several_search_at_once(mongo: Mongo, store: Storage, conversations: Conversations) -> None:
    for _ in range(10):  # in some of them, each of several searches finds no document of the user, and inserts it
        user = f"user-{uuid.uuid4().hex}"
        made = [await conversations.create(user, title=f"Number {number}") for number in range(5)]
        keys = {one.key for one in made}
        assert await asyncio.gather(*(find(mongo, user, "number") for _ in range(4))) == [keys] * 4
    await exchange(store, made[0], "A question", "An answer")
    found = await asyncio.gather(*(find(mongo, user, "number answer") for _ in range(4)))
    assert found == [{made[0].key}] * 4


@pytest.mark.gen_test
async def test_what_there_is_no_time_for_is_said_and_done_next_time(
    mongo: Mongo, conversations: Conversations, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [await conversations.create(user, title="Many") for _ in range(3)]
    with monkeypatch.context() as without_time:
        without_time.setattr(searching, "_UPDATE_SECONDS", 0.0)
        search = Search(mongo)
        search._places = asyncio.Semaphore(100)
        await search._places.acquire()
        assert await search._update(user) is False
    assert await find(mongo, user, "many") == {one.key for one in made}


@pytest.mark.gen_test
async def test_only_what_was_used_since_is_looked_at_again(
    mongo: Mongo, conversations: Conversations, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await conversations.create(user, title="Many")
    await find(mongo, user, "many")
    looked_at: list[object] = []
    index = Search._index

    async def note(self: Search, *args: Any) -> bool:
        looked_at.append(args)
        return await index(self, *args)

    monkeypatch.setattr(Search, "_index", note)
    await find(mongo, user, "many")
    assert looked_at == []
    await conversations.create(user, title="Many more")
    await find(mongo, user, "many")
    assert len(looked_at) == 1


@pytest.mark.gen_test
async def test_a_search_reads_an_index_and_nothing_else(mongo: Mongo, conversations: Conversations, user: str) -> None:
    await conversations.create(user, title="Whatever")
    await find(mongo, user, "what")
    pipeline = [{"$match": {"userId": user, "terms": {"$regex": "^what"}}}, {"$group": {"_id": "$_id"}}]
    explained = await mongo._database.command(
        "explain", {"aggregate": "search", "pipeline": pipeline, "cursor": {}}, verbosity="executionStats"
    )
    stats = str(explained)
    assert "IXSCAN" in stats
    assert "COLLSCAN" not in stats


@pytest.mark.gen_test
async def test_what_a_later_version_has_stored_is_searched_around(
    mongo: Mongo, store: Storage, conversations: Conversations, user: str
) -> None:
    one = await conversations.create(user, title="Holidays")
    strange: list[dict[str, Any]] = [{"title": ["Holidays"]}, {"title": 7}, {"updatedAt": DatetimeMS(2**60)}]
    for number, fields in enumerate(strange):
        document = {"userId": user, "id": str(number), "updatedAt": datetime.now(UTC)}
        await mongo.conversations.insert_one(document | fields)
    assert one.key in await find(mongo, user, "holidays")
    await exchange(store, one, "Where is it warm?", "In Lisbon.")
    await mongo.search.update_many({"userId": user}, {"$set": {"until": "now", "seq": ["last"]}})
    assert one.key in await find(mongo, user, "lisbon")


@pytest.mark.gen_test
async def test_the_texts_are_split_without_holding_up_the_event_loop(
    mongo: Mongo, store: Storage, conversations: Conversations, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await conversations.create(user)
    for number in range(4):
        await exchange(store, one, f"Question {number}", f"word{number} " * 1000)
    turns, split = 0, list[tuple[int, bool, int]]()

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    def recorded(text: str, *, sought: bool = False) -> Iterator[str]:
        if text:
            split.append((len(text), threading.current_thread() is threading.main_thread(), turns))
        return terms(text, sought=sought)

    monkeypatch.setattr(searching, "terms", recorded)
    running = asyncio.create_task(others())
    try:
        assert await find(mongo, user, "word3") == {one.key}
    finally:
        running.cancel()
        await asyncio.wait((running,))
    assert {in_loop for length, in_loop, _ in split if length > 1000} == {False}
    at = [turn for length, _, turn in split if length <= 1000]
    assert len({*at}) == len(at) == 4  # the loop had a turn between any two


@pytest.mark.gen_test
async def test_a_text_that_takes_longer_than_a_search_may_is_begun_once(
    mongo: Mongo, store: Storage, conversations: Conversations, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await conversations.create(user)
    await exchange(store, one, "slow " * 1000, "An answer")
    loop, begun = asyncio.get_running_loop(), 0
    monkeypatch.setattr(searching, "_UPDATE_SECONDS", 0.5)

    def slow(text: str, *, sought: bool = False) -> Iterator[str]:
        nonlocal begun
        if threading.current_thread() is not threading.main_thread():
            begun += 1
            late = loop.time() + searching._UPDATE_SECONDS  # after the search's deadline
            while loop.time() < late:
                threading.Event().wait(late - loop.time())
        return terms(text, sought=sought)

    monkeypatch.setattr(searching, "terms", slow)
    found: list[ObjectId] = []
    while not begun:
        found, _ = await Search(mongo).find(user, {"slow"})
    assert found == [ObjectId(one.key)]
    await Search(mongo).find(user, {"slow"})
    assert begun == 1


@pytest.mark.gen_test
async def test_a_search_does_not_wait_for_a_thread_without_a_bound(
    mongo: Mongo, store: Storage, conversations: Conversations, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await conversations.create(user, title="The title")
    await exchange(store, one, "long " * 1000, "An answer")
    monkeypatch.setattr(searching, "_UPDATE_SECONDS", 0.2)
    monkeypatch.setattr(searching, "_FIRST_TEXT_SECONDS", 0.1)
    released = threading.Event()
    with ThreadPoolExecutor(1) as busy:
        monkeypatch.setattr(asyncio, "to_thread", lambda function: asyncio.wrap_future(busy.submit(function)))
        busy.submit(released.wait)
        try:
            assert await Search(mongo).find(user, {"title"}) == ([ObjectId(one.key)], False)
        finally:
            released.set()
    monkeypatch.undo()
    assert await find(mongo, user, "long title") == {one.key}
