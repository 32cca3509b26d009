"""Posting messages in a real database: no duplicates, refusals, queued messages."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from bson import ObjectId
from msgspec.structs import replace

from chatstream.errors import AnswerInProgress, InvalidContent, NotFound
from chatstream.models import (
    Answer,
    Conversation,
    Status,
    UserMessage,
)
from chatstream.store.conversations import Conversations
from chatstream.store.mongo import Mongo
from tests.support.storage import Storage, added, begun, ended, stored


@pytest.fixture
def lossy(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose the result of every transaction, so that each is repeated as a whole with the same ids."""
    transaction = mongo.transaction

    async def twice(body: Callable[[Any], Awaitable[Any]]) -> Any:
        await transaction(body)
        return await transaction(body)

    monkeypatch.setattr(mongo, "transaction", twice)


@pytest.mark.gen_test
async def test_a_post_stores_the_message_and_its_attempt(store: Storage, conversation: Conversation, key: str) -> None:
    posted = await store.posting.post(conversation, "Tell me.")
    assert posted.answer is not None
    message, answer = await stored(store, key)
    assert isinstance(message, UserMessage)
    assert isinstance(answer, Answer)
    assert (message.id, message.content) == (posted.message.id, "Tell me.")
    assert (answer.id, answer.reply_to, answer.attempt) == (posted.answer.id, message.id, 1)
    assert answer.status is Status.STREAMING
    assert message.seq < answer.seq
    assert not posted.repeated


@pytest.mark.gen_test
async def test_a_post_while_an_answer_runs_stores_nothing(store: Storage, conversation: Conversation, key: str) -> None:
    first = await store.posting.post(conversation, "One")
    assert first.answer is not None
    with pytest.raises(AnswerInProgress):
        await store.posting.post(conversation, "Two")
    assert [message.id for message in await stored(store, key)] == [first.message.id, first.answer.id]
    await store.attempts.finish(conversation, ended(first.answer))
    assert (await store.posting.post(conversation, "Three")).message.seq == first.answer.seq + 1


@pytest.mark.gen_test
async def test_of_many_posts_at_once_exactly_one_is_stored(
    store: Storage, conversation: Conversation, key: str
) -> None:
    results = await asyncio.gather(
        *(store.posting.post(conversation, str(n)) for n in range(6)), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert sum(isinstance(result, AnswerInProgress) for result in results) == 5
    assert len(await stored(store, key)) == 2


@pytest.mark.gen_test
async def test_the_same_client_message_id_is_stored_once(store: Storage, conversation: Conversation, key: str) -> None:
    first = await store.posting.post(conversation, "Tell me.", client_message_id="c1")
    again = await store.posting.post(conversation, "Tell me.", client_message_id="c1")
    assert again.repeated
    assert first.answer is not None
    assert again.answer is not None
    assert (again.message, again.answer.id) == (await store.reading.get(key, first.message.id), first.answer.id)
    await store.attempts.finish(conversation, ended(first.answer, "Yes."))
    later = await store.posting.post(conversation, "Tell me.", client_message_id="c1")
    assert later.answer is not None
    assert (later.repeated, later.answer.content) == (True, "Yes.")
    assert len(await stored(store, key)) == 2


@pytest.mark.gen_test
async def test_the_same_client_message_id_twice_at_once_is_stored_once(
    store: Storage, conversation: Conversation, key: str
) -> None:
    posts = await asyncio.gather(
        *(store.posting.post(conversation, "Tell me.", client_message_id="c1") for _ in range(4))
    )
    assert sorted(post.repeated for post in posts) == [False, True, True, True]
    assert len({post.message.id for post in posts}) == 1
    assert len({post.answer.id if post.answer else None for post in posts}) == 1
    assert len(await stored(store, key)) == 2


@pytest.mark.gen_test
async def test_a_client_message_id_with_other_content_is_refused(
    store: Storage, conversation: Conversation, key: str
) -> None:
    await store.posting.post(conversation, "Tell me.", client_message_id="c1")
    with pytest.raises(InvalidContent):
        await store.posting.post(conversation, "Tell me more.", client_message_id="c1")
    assert len(await stored(store, key)) == 2


@pytest.mark.gen_test
async def test_a_client_message_id_belongs_to_its_conversation(
    store: Storage, conversation: Conversation, mongo: Mongo
) -> None:
    other = await Conversations(mongo).create("user")
    await store.posting.post(conversation, "One", client_message_id="c1")
    assert not (await store.posting.post(other, "Two", client_message_id="c1")).repeated


@pytest.mark.gen_test
async def test_nothing_is_posted_where_there_is_no_conversation(store: Storage, conversation: Conversation) -> None:
    nowhere = replace(conversation, key=str(ObjectId()))
    with pytest.raises(NotFound):
        await store.posting.post(nowhere, "Tell me.")
    with pytest.raises(NotFound):
        await store.posting.add(nowhere, "Tell me.")
    assert await stored(store, nowhere.key) == []


@pytest.mark.usefixtures("lossy")
@pytest.mark.gen_test
async def test_a_post_whose_result_was_lost_is_stored_once_and_is_no_repeat(
    store: Storage, conversation: Conversation, key: str
) -> None:
    posted = await store.posting.post(conversation, "Tell me.", client_message_id="c1")
    assert not posted.repeated  # otherwise no process would generate its answer
    assert posted.answer is not None
    assert [message.id for message in await stored(store, key)] == [posted.message.id, posted.answer.id]
    assert posted.answer.status is Status.STREAMING


@pytest.mark.usefixtures("lossy")
@pytest.mark.gen_test
async def test_an_added_message_whose_result_was_lost_is_stored_once(
    store: Storage, conversation: Conversation, key: str
) -> None:
    message = await added(store, conversation, "Tell me.")
    assert [message.id for message in await stored(store, key)] == [message.id]


@pytest.mark.gen_test
async def test_an_attempt_whose_result_was_lost_is_begun_once(
    store: Storage, conversation: Conversation, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = await added(store, conversation, "Tell me.")
    insert_one = store.attempts._messages.insert_one

    async def twice(document: dict[str, Any]) -> None:
        await insert_one(document)
        await insert_one(document)

    monkeypatch.setattr(store.attempts._messages, "insert_one", twice)
    answer = await store.attempts.begin(key, message.id, previous=None, newest_seq=message.seq)
    assert [message.id for message in await stored(store, key)] == [message.id, answer.id]
    assert answer.attempt == 1


@pytest.mark.gen_test
async def test_a_message_waits_behind_the_running_answer_and_that_one_knows(
    store: Storage, conversation: Conversation, key: str
) -> None:
    assert await store.posting.add(conversation, "Two", behind_running=True) is None
    answer = await begun(store, conversation, "One")
    waiting = await store.posting.add(conversation, "Two", client_message_id="c2", behind_running=True)
    assert waiting is not None
    assert (waiting.answer, waiting.message.seq) == (None, answer.seq + 1)
    again = await store.posting.add(conversation, "Two", client_message_id="c2", behind_running=True)
    assert again is not None
    assert (again.message.id, again.repeated) == (waiting.message.id, True)
    finished = await store.attempts.finish(conversation, ended(answer))
    assert finished is not None
    assert finished.queued
    assert len(await stored(store, key)) == 3
    assert await store.posting.add(conversation, "Three", behind_running=True) is None


@pytest.mark.gen_test
async def test_an_end_and_a_message_that_waits_for_it_cannot_miss_each_other(
    store: Storage, conversation: Conversation
) -> None:
    for number in range(10):
        answer = await begun(store, conversation, str(number))
        waiting, finished = await asyncio.gather(
            store.posting.add(conversation, "And?", behind_running=True),
            store.attempts.finish(conversation, ended(answer)),
        )
        assert finished is not None
        assert finished.queued == (waiting is not None)


@pytest.mark.gen_test
async def test_a_waiting_message_whose_result_was_lost_is_known_although_the_answer_has_ended(
    store: Storage, conversation: Conversation, mongo: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await begun(store, conversation)
    transaction = mongo.transaction

    async def lost_until_it_has_ended(body: Callable[[Any], Awaitable[Any]]) -> Any:
        await transaction(body)
        await store.attempts.finish(conversation, ended(answer))
        return await transaction(body)

    monkeypatch.setattr(mongo, "transaction", lost_until_it_has_ended)
    waiting = await store.posting.add(conversation, "And?", behind_running=True)
    assert waiting is not None  # otherwise it would be posted again, and stored twice
    assert not waiting.repeated


@pytest.mark.gen_test
async def test_a_message_without_an_id_of_the_clients_is_no_repetition_of_another_one_without(
    store: Storage, conversation: Conversation, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.attempts.finish(conversation, ended(await begun(store, conversation)))

    async def taken(_conversation: Conversation, _session: Any) -> tuple[int, None, None]:
        return 1, None, None

    monkeypatch.setattr(store.posting, "_newest", taken)  # as if another message came first
    with pytest.raises(AnswerInProgress):
        await store.posting.post(conversation, "Tell me.")
    assert len(await stored(store, key)) == 2
