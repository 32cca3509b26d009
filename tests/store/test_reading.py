"""Messages are read from the real database: pages and histories."""

import pytest
from bson import ObjectId

from chatstream.models import (
    Conversation,
    Message,
    Status,
)
from chatstream.store.conversations import Conversations
from chatstream.store.mongo import Mongo
from tests.support.storage import Storage, added, ended


@pytest.mark.gen_test
async def test_a_message_is_read_in_its_own_conversation_only(
    store: Storage, conversation: Conversation, key: str, mongo: Mongo
) -> None:
    other = await Conversations(mongo).create("user")
    posted = await store.posting.post(conversation, "Tell me.")
    assert posted.answer is not None
    assert await store.reading.get(other.key, posted.message.id) is None
    assert await store.reading.get(other.key, posted.answer.id) is None
    assert await store.reading.get(key, str(ObjectId())) is None
    assert (await store.reading.get(key, posted.message.id)) is not None


@pytest.mark.gen_test
async def test_pages_and_what_comes_after(store: Storage, conversation: Conversation, key: str) -> None:
    all_ = [await added(store, conversation, str(number)) for number in range(5)]

    def contents(page: list[Message]) -> list[str]:
        return [message.content for message in page]

    assert contents(await store.reading.page(key, limit=2, before=None)) == ["3", "4"]
    assert contents(await store.reading.page(key, limit=2, before=all_[3].seq)) == ["1", "2"]
    assert contents(await store.reading.page(key, limit=2, before=all_[0].seq)) == []
    assert contents(await store.reading.after(key, all_[1].seq, limit=2)) == ["2", "3"]
    assert contents(await store.reading.after(key, all_[4].seq, limit=2)) == []
    assert [m.content async for m in store.reading.newest_first(key, before=all_[4].seq)] == ["3", "2", "1", "0"]


@pytest.mark.gen_test
async def test_a_long_history_is_read_in_batches_without_gap_or_double(
    store: Storage, conversation: Conversation, key: str
) -> None:
    for number in range(120):
        await added(store, conversation, str(number))
    read = [message.content async for message in store.reading.newest_first(key, before=1_000)]
    assert read == [str(number) for number in reversed(range(120))]


@pytest.mark.gen_test
async def test_the_newest_question_comes_with_its_newest_attempt(
    store: Storage, conversation: Conversation, key: str
) -> None:
    assert await store.reading.newest_question(key) is None
    assert await store.reading.newest(key) is None
    posted = await store.posting.post(conversation, "One")
    assert posted.answer is not None
    interrupted = ended(posted.answer, status=Status.INTERRUPTED)
    await store.attempts.finish(conversation, interrupted)
    second = await store.attempts.begin(key, posted.message.id, previous=interrupted, newest_seq=2)
    question = await store.reading.newest_question(key)
    assert question is not None
    assert question[1] is not None
    assert (question[0].id, question[1].id) == (posted.message.id, second.id)
    waiting = await added(store, conversation, "Two")
    question = await store.reading.newest_question(key)
    assert question is not None
    assert (question[0].id, question[1]) == (waiting.id, None)
