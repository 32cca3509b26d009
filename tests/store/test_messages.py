"""Messages, in the real database: the lock, the beats, what is stored once and what is final."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from bson import ObjectId
from msgspec.structs import replace
from pymongo import UpdateOne
from tornado.ioloop import IOLoop

from chatstream.errors import AnswerInProgress, ErrorCode, InvalidContent, NotFound
from chatstream.models import (
    Answer,
    Conversation,
    Failure,
    Message,
    Recommendation,
    Status,
    Usage,
    UserMessage,
)
from chatstream.store.conversations import Conversations
from chatstream.store.messages import Beat, Checkpoint, Messages, Posted
from chatstream.store.mongo import Mongo


@pytest.fixture
def mongo(io_loop: IOLoop, mongodb_uri: str) -> Iterator[Mongo]:
    mongo = Mongo(mongodb_uri, "store")
    io_loop.run_sync(mongo.prepare)
    yield mongo
    mongo.close()


@pytest.fixture
def messages(mongo: Mongo) -> Messages:
    return Messages(mongo, owner="test")


@pytest.fixture
def conversation(io_loop: IOLoop, mongo: Mongo) -> Conversation:
    conversation: Conversation = io_loop.run_sync(lambda: Conversations(mongo).create("user"))
    return conversation


@pytest.fixture
def key(conversation: Conversation) -> str:
    return conversation.key


@pytest.fixture
def lossy(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result of every transaction is lost, so that it is begun again as a whole, with the same ids."""
    transaction = mongo.transaction

    async def twice(body: Callable[[Any], Awaitable[Any]]) -> Any:
        await transaction(body)
        return await transaction(body)

    monkeypatch.setattr(mongo, "transaction", twice)


def ended(answer: Answer, content: str = "", status: Status = Status.COMPLETE) -> Answer:
    return replace(answer, status=status, content=content)


async def begun(messages: Messages, key: str, content: str = "Tell me.", **options: Any) -> Answer:
    """The running answer to a message that is posted."""
    answer = (await messages.post(key, content, **options)).answer
    assert answer is not None
    return answer


async def checkpoint(messages: Messages, answer: Answer, length: int, text: str) -> Beat | None:
    """One checkpoint alone."""
    return (await messages.checkpoint([Checkpoint(answer.id, length, text)])).get(answer.id)


async def added(messages: Messages, key: str, content: str = "Tell me.") -> UserMessage:
    """A message that waits."""
    posted = await messages.add(key, content)
    assert posted is not None
    return posted.message


async def stored(messages: Messages, key: str) -> list[Message]:
    return await messages.page(key, limit=1000, before=None)


# Posting --------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_post_stores_the_message_and_its_attempt(messages: Messages, key: str) -> None:
    posted = await messages.post(key, "Tell me.")
    assert posted.answer is not None
    message, answer = await stored(messages, key)
    assert isinstance(message, UserMessage)
    assert isinstance(answer, Answer)
    assert (message.id, message.content) == (posted.message.id, "Tell me.")
    assert (answer.id, answer.reply_to, answer.attempt) == (posted.answer.id, message.id, 1)
    assert answer.status is Status.STREAMING
    assert message.seq < answer.seq
    assert not posted.repeated


@pytest.mark.gen_test
async def test_a_post_while_an_answer_runs_stores_nothing(messages: Messages, key: str) -> None:
    first = await messages.post(key, "One")
    assert first.answer is not None
    with pytest.raises(AnswerInProgress):
        await messages.post(key, "Two")
    assert [message.id for message in await stored(messages, key)] == [first.message.id, first.answer.id]
    await messages.finish(key, ended(first.answer))
    assert (await messages.post(key, "Three")).message.seq == first.answer.seq + 1


@pytest.mark.gen_test
async def test_of_many_posts_at_once_exactly_one_is_stored(messages: Messages, key: str) -> None:
    results = await asyncio.gather(*(messages.post(key, str(n)) for n in range(6)), return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert sum(isinstance(result, AnswerInProgress) for result in results) == 5
    assert len(await stored(messages, key)) == 2


@pytest.mark.gen_test
async def test_the_same_client_message_id_is_stored_once(messages: Messages, key: str) -> None:
    first = await messages.post(key, "Tell me.", client_message_id="c1")
    again = await messages.post(key, "Tell me.", client_message_id="c1")
    assert again.repeated
    assert first.answer is not None
    assert again.answer is not None
    assert (again.message, again.answer.id) == (await messages.get(key, first.message.id), first.answer.id)
    await messages.finish(key, ended(first.answer, "Yes."))
    later = await messages.post(key, "Tell me.", client_message_id="c1")
    assert later.answer is not None
    assert (later.repeated, later.answer.content) == (True, "Yes.")
    assert len(await stored(messages, key)) == 2


@pytest.mark.gen_test
async def test_the_same_client_message_id_twice_at_once_is_stored_once(messages: Messages, key: str) -> None:
    posts = await asyncio.gather(*(messages.post(key, "Tell me.", client_message_id="c1") for _ in range(4)))
    assert sorted(post.repeated for post in posts) == [False, True, True, True]
    assert len({post.message.id for post in posts}) == 1
    assert len({post.answer.id if post.answer else None for post in posts}) == 1
    assert len(await stored(messages, key)) == 2


@pytest.mark.gen_test
async def test_a_client_message_id_with_other_content_is_refused(messages: Messages, key: str) -> None:
    await messages.post(key, "Tell me.", client_message_id="c1")
    with pytest.raises(InvalidContent):
        await messages.post(key, "Tell me more.", client_message_id="c1")
    assert len(await stored(messages, key)) == 2


@pytest.mark.gen_test
async def test_a_client_message_id_belongs_to_its_conversation(messages: Messages, mongo: Mongo, key: str) -> None:
    other = await Conversations(mongo).create("user")
    await messages.post(key, "One", client_message_id="c1")
    assert not (await messages.post(other.key, "Two", client_message_id="c1")).repeated


@pytest.mark.gen_test
async def test_nothing_is_posted_where_there_is_no_conversation(messages: Messages) -> None:
    nowhere = str(ObjectId())
    with pytest.raises(NotFound):
        await messages.post(nowhere, "Tell me.")
    with pytest.raises(NotFound):
        await messages.add(nowhere, "Tell me.")
    assert await stored(messages, nowhere) == []


@pytest.mark.usefixtures("lossy")
@pytest.mark.gen_test
async def test_a_post_whose_result_was_lost_is_stored_once_and_is_no_repeat(messages: Messages, key: str) -> None:
    posted = await messages.post(key, "Tell me.", client_message_id="c1")
    assert not posted.repeated  # else nobody would generate its answer
    assert posted.answer is not None
    assert [message.id for message in await stored(messages, key)] == [posted.message.id, posted.answer.id]
    assert posted.answer.status is Status.STREAMING


@pytest.mark.usefixtures("lossy")
@pytest.mark.gen_test
async def test_an_added_message_whose_result_was_lost_is_stored_once(messages: Messages, key: str) -> None:
    message = await added(messages, key, "Tell me.")
    assert [message.id for message in await stored(messages, key)] == [message.id]


@pytest.mark.gen_test
async def test_an_attempt_whose_result_was_lost_is_begun_once(
    messages: Messages, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = await added(messages, key, "Tell me.")
    insert_one = messages._messages.insert_one

    async def twice(document: dict[str, Any]) -> None:
        await insert_one(document)
        await insert_one(document)

    monkeypatch.setattr(messages._messages, "insert_one", twice)
    answer = await messages.begin(key, message.id, previous=None, newest_seq=message.seq)
    assert [message.id for message in await stored(messages, key)] == [message.id, answer.id]
    assert answer.attempt == 1


@pytest.mark.gen_test
async def test_a_message_waits_behind_the_running_answer_and_that_one_knows(messages: Messages, key: str) -> None:
    assert await messages.add(key, "Two", behind_running=True) is None
    answer = await begun(messages, key, "One")
    waiting = await messages.add(key, "Two", client_message_id="c2", behind_running=True)
    assert waiting is not None
    assert (waiting.answer, waiting.message.seq) == (None, answer.seq + 1)
    again = await messages.add(key, "Two", client_message_id="c2", behind_running=True)
    assert again is not None
    assert (again.message.id, again.repeated) == (waiting.message.id, True)
    finished = await messages.finish(key, ended(answer))
    assert finished is not None
    assert finished.queued
    assert len(await stored(messages, key)) == 3
    assert await messages.add(key, "Three", behind_running=True) is None


@pytest.mark.gen_test
async def test_an_end_and_a_message_that_waits_for_it_cannot_miss_each_other(messages: Messages, key: str) -> None:
    for number in range(10):
        answer = await begun(messages, key, str(number))
        waiting, finished = await asyncio.gather(
            messages.add(key, "And?", behind_running=True), messages.finish(key, ended(answer))
        )
        assert finished is not None
        assert finished.queued == (waiting is not None)


@pytest.mark.gen_test
async def test_a_waiting_message_whose_result_was_lost_is_known_although_the_answer_has_ended(
    messages: Messages, mongo: Mongo, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await begun(messages, key)
    transaction = mongo.transaction

    async def lost_until_it_has_ended(body: Callable[[Any], Awaitable[Any]]) -> Any:
        await transaction(body)
        await messages.finish(key, ended(answer))
        return await transaction(body)

    monkeypatch.setattr(mongo, "transaction", lost_until_it_has_ended)
    waiting = await messages.add(key, "And?", behind_running=True)
    assert waiting is not None  # else it is posted again, and stored twice
    assert not waiting.repeated


# Beginning ------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_of_many_that_begin_an_answer_exactly_one_does(messages: Messages, key: str) -> None:
    message = await added(messages, key, "Tell me.")
    results = await asyncio.gather(
        *(messages.begin(key, message.id, previous=None, newest_seq=message.seq) for _ in range(5)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Answer) for result in results) == 1
    assert sum(isinstance(result, AnswerInProgress) for result in results) == 4
    assert len(await stored(messages, key)) == 2


@pytest.mark.gen_test
async def test_an_attempt_is_begun_once_also_after_it_has_ended(messages: Messages, key: str) -> None:
    message = await added(messages, key, "Tell me.")
    first = await messages.begin(key, message.id, previous=None, newest_seq=message.seq)
    await messages.finish(key, ended(first, status=Status.INTERRUPTED))
    for newest in (message, first):
        with pytest.raises(AnswerInProgress):
            await messages.begin(key, message.id, previous=None, newest_seq=newest.seq)
    second = await messages.begin(key, message.id, previous=first, newest_seq=first.seq)
    assert (second.attempt, second.seq) == (2, first.seq + 1)


@pytest.mark.gen_test
async def test_messages_and_answers_that_come_at_once_stand_in_one_order(messages: Messages, key: str) -> None:
    for number in range(10):
        message = await added(messages, key, f"{number}?")
        begun_, posted = await asyncio.gather(
            messages.begin(key, message.id, previous=None, newest_seq=message.seq),
            messages.post(key, f"{number}!"),
            return_exceptions=True,
        )
        answer = posted.answer if isinstance(posted, Posted) else begun_
        assert isinstance(answer, Answer)
        assert [type(outcome) for outcome in (begun_, posted)].count(AnswerInProgress) == 1
        await messages.finish(key, ended(answer))
    log = await stored(messages, key)
    assert [message.seq for message in log] == list(range(1, len(log) + 1))


@pytest.mark.gen_test
async def test_a_post_whose_place_is_taken_by_an_answer_meanwhile_is_refused(
    messages: Messages, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await begun(messages, key)
    await messages.finish(key, ended(first, status=Status.INTERRUPTED))
    next_place = messages._next_place
    begun_: list[Answer] = []

    async def taken(key: str, session: Any) -> int:
        place = await next_place(key, session)
        if not begun_:
            begun_.append(await messages.begin(key, first.reply_to, previous=first, newest_seq=first.seq))
        return place

    monkeypatch.setattr(messages, "_next_place", taken)
    with pytest.raises(AnswerInProgress):
        await messages.post(key, "And?")
    assert [message.seq for message in await stored(messages, key)] == [1, 2, 3]


@pytest.mark.gen_test
async def test_no_answer_begins_while_another_runs(messages: Messages, key: str) -> None:
    posted = await messages.post(key, "One")
    waiting = await added(messages, key, "Two")
    with pytest.raises(AnswerInProgress):
        await messages.begin(key, waiting.id, previous=None, newest_seq=waiting.seq)
    with pytest.raises(AnswerInProgress):
        await messages.begin(key, posted.message.id, previous=posted.answer, newest_seq=waiting.seq)


# Checkpoints ----------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_checkpoints_append(messages: Messages, key: str) -> None:
    answer = await begun(messages, key)
    assert await checkpoint(messages, answer, 0, "e\u0301🏟") is not None
    assert await checkpoint(messages, answer, 3, "") is not None
    assert await checkpoint(messages, answer, 3, "!") is not None
    running = await messages.running(key)
    assert running is not None
    assert (running.id, running.content) == (answer.id, "e\u0301🏟!")


@pytest.mark.gen_test
async def test_a_checkpoint_of_another_length_stores_nothing(messages: Messages, key: str) -> None:
    answer = await begun(messages, key)
    await checkpoint(messages, answer, 0, "abc")
    for length in (0, 2, 4):
        for text in ("x", ""):
            beat = await checkpoint(messages, answer, length, text)
            assert beat is not None
            assert beat.length == 3
    running = await messages.running(key)
    assert running is not None
    assert running.content == "abc"


@pytest.mark.gen_test
async def test_an_answer_that_has_ended_takes_no_checkpoint(messages: Messages, key: str) -> None:
    answer = await begun(messages, key)
    await messages.finish(key, ended(answer, "", Status.STOPPED))
    assert await checkpoint(messages, answer, 0, "x") is None
    assert await messages.get(key, answer.id) == await messages.finish(key, ended(answer, "other"))


@pytest.mark.gen_test
async def test_a_checkpoint_moves_the_beat_and_brings_back_a_stop(messages: Messages, key: str) -> None:
    answer = await begun(messages, key)
    (before,) = [orphan for orphan in await messages.orphans() if orphan.answer_id == answer.id]
    beat = await checkpoint(messages, answer, 0, "a")
    assert beat is not None
    assert beat == Beat(1, stop_requested=False, watched_at=None)
    (after,) = [orphan for orphan in await messages.orphans() if orphan.answer_id == answer.id]
    assert after.key == key
    assert (after.length, before.length) == (1, 0)
    await messages.request_stop(answer.id)
    beat = await checkpoint(messages, answer, 1, "")
    assert beat is not None
    assert beat.stop_requested


@pytest.mark.gen_test
async def test_of_many_checkpoints_each_counts_for_itself(messages: Messages, mongo: Mongo) -> None:
    answers = []
    for _ in range(6):
        conversation = await Conversations(mongo).create("user")
        answers.append((conversation.key, await begun(messages, conversation.key)))
    (key_of_ended, stopped), (_, gone), (_, ahead), *others = answers
    await messages.finish(key_of_ended, ended(stopped, "", Status.STOPPED))
    await mongo.messages.delete_one({"_id": ObjectId(gone.id)})
    await checkpoint(messages, ahead, 0, "longer")

    beats = await messages.checkpoint([Checkpoint(answer.id, 0, "text") for _, answer in answers])
    assert {id_: beat.length for id_, beat in beats.items()} == {ahead.id: 6} | {answer.id: 4 for _, answer in others}
    assert [running.content for key, _ in answers if (running := await messages.running(key))] == [
        *("longer", "text", "text", "text")
    ]
    assert await messages.get(key_of_ended, stopped.id) == await messages.finish(key_of_ended, ended(stopped, "other"))


# Endings --------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_everything_about_an_end_is_stored(messages: Messages, key: str) -> None:
    answer = await begun(messages, key)
    await checkpoint(messages, answer, 0, "Back")
    whole = replace(
        answer,
        status=Status.COMPLETE,
        content="Back Arsenal at odds of 2.10 \u0000🏟",
        finish_reason="stop",
        usage=Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7),
        recommendations=(Recommendation(bet_id="b", odds=2.1, odds_text="2.10", selection=None, stake="1 unit"),),
        unseen=True,
    )
    assert await messages.finish(key, whole) == whole
    found = await messages.get(key, answer.id)
    assert isinstance(found, Answer)
    assert replace(found, created_at=whole.created_at) == whole

    failed = replace(
        await begun(messages, key, "And now?"),
        status=Status.FAILED,
        failure=Failure(code=ErrorCode.UPSTREAM_RATE_LIMITED, request_id="r", retry_after_ms=1500),
    )
    await messages.finish(key, failed)
    found = await messages.get(key, failed.id)
    assert isinstance(found, Answer)
    assert found.failure == failed.failure


@pytest.mark.gen_test
async def test_the_first_end_is_final(messages: Messages, key: str) -> None:
    answer = await begun(messages, key)
    first = await messages.finish(key, ended(answer, "First", Status.STOPPED))
    second = await messages.finish(key, ended(answer, "Second"))
    assert first is not None
    assert second is not None
    assert (second.status, second.content) == (Status.STOPPED, "First")
    assert await messages.get(key, answer.id) == second


@pytest.mark.gen_test
async def test_of_two_ends_at_once_both_are_told_the_one_that_counts(messages: Messages, key: str) -> None:
    answer = await begun(messages, key)
    first, second = await asyncio.gather(
        messages.finish(key, ended(answer, "First")), messages.finish(key, ended(answer, "Second", Status.STOPPED))
    )
    assert first is not None
    assert second is not None
    assert (first.status, first.content) == (second.status, second.content)


@pytest.mark.gen_test
async def test_the_end_of_what_was_deleted_is_none(
    messages: Messages, mongo: Mongo, conversation: Conversation
) -> None:
    answer = await begun(messages, conversation.key)
    await Conversations(mongo).delete("user", conversation.id)
    assert await checkpoint(messages, answer, 0, "x") is None
    assert await messages.finish(conversation.key, ended(answer)) is None
    assert await stored(messages, conversation.key) == []


@pytest.mark.parametrize("end", ["finish", "finish_orphan"])
@pytest.mark.gen_test
async def test_nothing_is_left_of_an_answer_that_began_while_its_conversation_was_deleted(
    messages: Messages, mongo: Mongo, conversation: Conversation, end: str
) -> None:
    key = conversation.key
    message = await added(messages, key)
    await Conversations(mongo).delete("user", conversation.id)
    answer = await messages.begin(key, message.id, previous=None, newest_seq=message.seq)
    assert await checkpoint(messages, answer, 0, "a") is not None
    if end == "finish":
        assert await messages.finish(key, ended(answer, "ab")) is None
    else:
        (orphan,) = [orphan for orphan in await messages.orphans() if orphan.answer_id == answer.id]
        assert await messages.finish_orphan(orphan, ended(answer, "a")) is False
    assert await stored(messages, key) == []


@pytest.mark.gen_test
async def test_an_orphan_is_ended_only_if_nothing_happened_to_it(messages: Messages, key: str) -> None:
    answer = await begun(messages, key)
    (before,) = [orphan for orphan in await messages.orphans() if orphan.answer_id == answer.id]
    await checkpoint(messages, answer, 0, "a")
    interrupted = ended(answer, "a", Status.INTERRUPTED)
    assert await messages.finish_orphan(before, interrupted) is False
    (now,) = [orphan for orphan in await messages.orphans() if orphan.answer_id == answer.id]
    assert await messages.finish_orphan(now, interrupted) is True
    assert await messages.finish_orphan(now, interrupted) is False
    assert await messages.running(key) is None
    assert await messages.interruptions(answer.reply_to) == 1


@pytest.mark.gen_test
async def test_what_was_seen_is_not_unseen(messages: Messages, mongo: Mongo, key: str) -> None:
    other = await Conversations(mongo).create("user")
    for each in (key, other.key):
        answer = await begun(messages, each)
        await messages.finish(each, replace(ended(answer), unseen=True))
    await messages.mark_seen(key)
    newest, of_other = await messages.newest(key), await messages.newest(other.key)
    assert isinstance(newest, Answer)
    assert isinstance(of_other, Answer)
    assert (newest.unseen, of_other.unseen) == (False, True)


# Reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_message_is_read_in_its_own_conversation_only(messages: Messages, mongo: Mongo, key: str) -> None:
    other = await Conversations(mongo).create("user")
    posted = await messages.post(key, "Tell me.")
    assert posted.answer is not None
    assert await messages.get(other.key, posted.message.id) is None
    assert await messages.get(other.key, posted.answer.id) is None
    assert await messages.get(key, str(ObjectId())) is None
    assert (await messages.get(key, posted.message.id)) is not None


@pytest.mark.gen_test
async def test_pages_and_what_comes_after(messages: Messages, key: str) -> None:
    all_ = [await added(messages, key, str(number)) for number in range(5)]

    def contents(page: list[Message]) -> list[str]:
        return [message.content for message in page]

    assert contents(await messages.page(key, limit=2, before=None)) == ["3", "4"]
    assert contents(await messages.page(key, limit=2, before=all_[3].seq)) == ["1", "2"]
    assert contents(await messages.page(key, limit=2, before=all_[0].seq)) == []
    assert contents(await messages.after(key, all_[1].seq, limit=2)) == ["2", "3"]
    assert contents(await messages.after(key, all_[4].seq, limit=2)) == []
    assert [m.content async for m in messages.newest_first(key, before=all_[4].seq)] == ["3", "2", "1", "0"]


@pytest.mark.gen_test
async def test_a_long_history_is_read_in_batches_without_gap_or_double(messages: Messages, key: str) -> None:
    for number in range(120):
        await added(messages, key, str(number))
    read = [message.content async for message in messages.newest_first(key, before=1_000)]
    assert read == [str(number) for number in reversed(range(120))]


@pytest.mark.gen_test
async def test_the_newest_question_comes_with_its_newest_attempt(messages: Messages, key: str) -> None:
    assert await messages.newest_question(key) is None
    assert await messages.newest(key) is None
    posted = await messages.post(key, "One")
    assert posted.answer is not None
    await messages.finish(key, ended(posted.answer, status=Status.INTERRUPTED))
    second = await messages.begin(key, posted.message.id, previous=posted.answer, newest_seq=posted.answer.seq)
    question = await messages.newest_question(key)
    assert question is not None
    assert question[1] is not None
    assert (question[0].id, question[1].id) == (posted.message.id, second.id)
    waiting = await added(messages, key, "Two")
    question = await messages.newest_question(key)
    assert question is not None
    assert (question[0].id, question[1]) == (waiting.id, None)


# Indexes --------------------------------------------------------------------------------------------------------------


def stages(plan: Any) -> set[str]:
    """The stages of a plan, however deep."""
    if isinstance(plan, list):
        return set().union(*map(stages, plan))
    if not isinstance(plan, dict):
        return set()
    found = set().union(*(stages(value) for value in plan.values()))
    return found | ({plan["stage"]} if isinstance(plan.get("stage"), str) else set())


class Spy:
    """A collection that remembers its queries."""

    def __init__(self, collection: Any) -> None:
        self.collection = collection
        self.asked: list[tuple[Mapping[str, Any], list[tuple[str, int]] | None]] = []

    def find(self, query: dict[str, Any], *args: Any) -> Any:
        self.asked.append((query, None))
        cursor = self.collection.find(query, *args)
        sort = cursor.sort

        def spy(*by: Any) -> Any:
            self.asked[-1] = (query, by[0] if isinstance(by[0], list) else [(by[0], by[1])])
            return sort(*by)

        cursor.sort = spy
        return cursor

    async def find_one(self, query: dict[str, Any], *args: Any, **options: Any) -> Any:
        self.asked.append((query, options.get("sort")))
        return await self.collection.find_one(query, *args, **options)

    async def count_documents(self, query: dict[str, Any]) -> Any:
        self.asked.append((query, None))
        return await self.collection.count_documents(query)

    async def update_many(self, query: dict[str, Any], update: Any) -> Any:
        self.asked.append((query, None))
        return await self.collection.update_many(query, update)

    async def update_one(self, query: dict[str, Any], update: Any) -> Any:
        self.asked.append((query, None))
        return await self.collection.update_one(query, update)

    async def bulk_write(self, updates: Sequence[UpdateOne], **options: Any) -> Any:
        self.asked += [(update._filter, None) for update in updates]
        return await self.collection.bulk_write(updates, **options)

    async def find_one_and_update(self, query: dict[str, Any], *args: Any, **options: Any) -> Any:
        self.asked.append((query, None))
        return await self.collection.find_one_and_update(query, *args, **options)


@pytest.mark.gen_test
async def test_every_query_uses_an_index_and_none_sorts_in_memory(
    mongo: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    spies = Spy(mongo.conversations), Spy(mongo.messages)
    conversations, messages = Conversations(mongo), Messages(mongo, owner="test")
    owned = [await conversations.create("indexed") for _ in range(4)]
    key = owned[0].key
    answer = await begun(messages, key)
    monkeypatch.setattr(mongo, "conversations", spies[0])
    monkeypatch.setattr(messages, "_messages", spies[1])
    monkeypatch.setattr(messages, "_just_written", spies[1])

    await conversations.get("indexed", owned[0].id)
    _, before = await conversations.page("indexed", limit=2, before=None)
    await conversations.page("indexed", limit=2, before=before)
    await conversations.update("indexed", owned[0].id, {"title": "T"})
    await messages.running(key)
    await messages.orphans()
    await messages.get(key, answer.id)
    await messages.page(key, limit=2, before=None)
    await messages.page(key, limit=2, before=answer.seq)
    await messages.after(key, 0, limit=2)
    [message async for message in messages.newest_first(key, before=answer.seq)]
    await messages.newest_question(key)
    await messages.interruptions(answer.reply_to)
    await checkpoint(messages, answer, 0, "a")
    await messages.watch(answer.id)
    await messages.request_stop(answer.id)
    await messages.finish(key, ended(answer))
    await messages.mark_seen(key)

    assert len(spies[0].asked) == 5
    assert len(spies[1].asked) == 16
    for spy in spies:
        for query, sort in spy.asked:
            found = spy.collection.find(query)
            plan = (await (found.sort(sort) if sort else found).explain())["queryPlanner"]["winningPlan"]
            assert stages(plan) & {"IXSCAN", "IDHACK"}, (query, plan)
            assert not stages(plan) & {"COLLSCAN", "SORT"}, (query, plan)


@pytest.mark.gen_test
async def test_that_answers_were_seen_is_stored_without_reading_the_whole_history(
    messages: Messages, mongo: Mongo, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        await added(messages, key, str(number))
    answer = await begun(messages, key)
    await messages.finish(key, replace(ended(answer), unseen=True))
    spy = Spy(mongo.messages)
    monkeypatch.setattr(messages, "_messages", spy)
    await messages.mark_seen(key)
    ((query, _),) = spy.asked
    await mongo.messages.update_one({"_id": ObjectId(answer.id)}, {"$set": {"unseen": True}})
    explained = await mongo.messages.find(query).explain()
    assert explained["executionStats"]["totalDocsExamined"] <= 2
