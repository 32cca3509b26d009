"""Attempts in the real database: the lock, the checkpoints, and ends that are final."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from msgspec.structs import replace

from chatstream.errors import AnswerInProgress, ErrorCode
from chatstream.models import (
    Annotation,
    Answer,
    Conversation,
    Failure,
    Status,
    Usage,
    recommendation,
)
from chatstream.pieces import CallState, OpenToolCall, ToolState
from chatstream.store.attempts import Checkpoint, CheckpointResult
from chatstream.store.conversations import Conversations
from chatstream.store.documents import outcome
from chatstream.store.mongo import Mongo
from chatstream.store.posting import Posted
from tests.support.storage import Storage, added, begun, checkpoint, ended, stored

# Beginning ------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_of_many_that_begin_an_answer_exactly_one_does(
    store: Storage, conversation: Conversation, key: str
) -> None:
    message = await added(store, conversation, "Tell me.")
    results = await asyncio.gather(
        *(store.attempts.begin(key, message.id, previous=None, newest_seq=message.seq) for _ in range(5)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Answer) for result in results) == 1
    assert sum(isinstance(result, AnswerInProgress) for result in results) == 4
    assert len(await stored(store, key)) == 2


@pytest.mark.parametrize("is_running", [True, False])
@pytest.mark.gen_test
async def test_who_has_read_that_nothing_runs_meets_an_answer_of_a_later_version(
    mongo: Mongo, store: Storage, conversation: Conversation, key: str, is_running: bool
) -> None:
    message = await added(store, conversation, "Tell me.")
    later = {"conversationId": ObjectId(key), "seq": message.seq + 1, "role": "assistant", "replyTo": ObjectId()}
    await mongo.messages.insert_one(later | {"attempt": 1, "status": "pondering" if is_running else "complete"})
    begin = store.attempts.begin(key, message.id, previous=None, newest_seq=message.seq, nothing_runs=True)
    if is_running:
        with pytest.raises(AnswerInProgress):
            await begin
    else:
        assert (await begin).seq == message.seq + 2


@pytest.mark.gen_test
async def test_an_attempt_is_begun_once_also_after_it_has_ended(
    store: Storage, conversation: Conversation, key: str
) -> None:
    message = await added(store, conversation, "Tell me.")
    first = await store.attempts.begin(key, message.id, previous=None, newest_seq=message.seq)
    await store.attempts.finish(conversation, ended(first, status=Status.INTERRUPTED))
    for newest in (message, first):
        with pytest.raises(AnswerInProgress):
            await store.attempts.begin(key, message.id, previous=None, newest_seq=newest.seq)
    second = await store.attempts.begin(
        key, message.id, previous=ended(first, status=Status.INTERRUPTED), newest_seq=first.seq
    )
    assert (second.attempt, second.seq) == (2, first.seq + 1)


@pytest.mark.gen_test
async def test_messages_and_answers_that_come_at_once_stand_in_one_order(
    store: Storage, conversation: Conversation, key: str
) -> None:
    for number in range(10):
        message = await added(store, conversation, f"{number}?")
        begun_, posted = await asyncio.gather(
            store.attempts.begin(key, message.id, previous=None, newest_seq=message.seq),
            store.posting.post(conversation, f"{number}!"),
            return_exceptions=True,
        )
        answer = posted.answer if isinstance(posted, Posted) else begun_
        assert isinstance(answer, Answer)
        assert [type(outcome) for outcome in (begun_, posted)].count(AnswerInProgress) == 1
        await store.attempts.finish(conversation, ended(answer))
    log = await stored(store, key)
    assert [message.seq for message in log] == list(range(1, len(log) + 1))


@pytest.mark.gen_test
async def test_a_post_whose_place_is_taken_by_an_answer_meanwhile_is_refused(
    store: Storage, conversation: Conversation, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await begun(store, conversation)
    await store.attempts.finish(conversation, ended(first, status=Status.INTERRUPTED))
    newest: Any = store.posting._newest
    begun_: list[Answer] = []

    async def taken(conversation: Conversation, session: Any) -> Any:
        place = await newest(conversation, session)
        if not begun_:
            begun_.append(
                await store.attempts.begin(
                    key, first.reply_to, previous=ended(first, status=Status.INTERRUPTED), newest_seq=first.seq
                )
            )
        return place

    monkeypatch.setattr(store.posting, "_newest", taken)
    with pytest.raises(AnswerInProgress):
        await store.posting.post(conversation, "And?")
    assert [message.seq for message in await stored(store, key)] == [1, 2, 3]


@pytest.mark.gen_test
async def test_no_answer_begins_while_another_runs(store: Storage, conversation: Conversation, key: str) -> None:
    posted = await store.posting.post(conversation, "One")
    waiting = await added(store, conversation, "Two")
    with pytest.raises(AnswerInProgress):
        await store.attempts.begin(key, waiting.id, previous=None, newest_seq=waiting.seq)
    with pytest.raises(AnswerInProgress):
        await store.attempts.begin(key, posted.message.id, previous=posted.answer, newest_seq=waiting.seq)


# Checkpoints ----------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_checkpoints_append(store: Storage, conversation: Conversation, key: str) -> None:
    answer = await begun(store, conversation)
    assert await checkpoint(store, key, answer, 0, "e\u0301🏟") is not None
    assert await checkpoint(store, key, answer, 3, "") is not None
    assert await checkpoint(store, key, answer, 3, "!") is not None
    running = await store.reading.running(key)
    assert running is not None
    assert (running.id, running.content) == (answer.id, "e\u0301🏟!")


@pytest.mark.gen_test
async def test_a_checkpoint_of_another_length_stores_nothing(
    store: Storage, conversation: Conversation, key: str
) -> None:
    answer = await begun(store, conversation)
    await checkpoint(store, key, answer, 0, "abc")
    for length in (0, 2, 4):
        for text in ("x", ""):
            beat = await checkpoint(store, key, answer, length, text)
            assert beat is not None
            assert beat.length == 3
    running = await store.reading.running(key)
    assert running is not None
    assert running.content == "abc"


@pytest.mark.gen_test
async def test_an_answer_that_has_ended_takes_no_checkpoint(
    store: Storage, conversation: Conversation, key: str
) -> None:
    answer = await begun(store, conversation)
    await store.attempts.finish(conversation, ended(answer, "", Status.STOPPED))
    assert await checkpoint(store, key, answer, 0, "x") is None
    assert await store.reading.get(key, answer.id) == await store.attempts.finish(conversation, ended(answer, "other"))


@pytest.mark.gen_test
async def test_a_checkpoint_moves_the_beat_and_brings_back_a_stop(
    store: Storage, conversation: Conversation, key: str
) -> None:
    answer = await begun(store, conversation)
    (before,) = [orphan for orphan in await store.attempts.orphans() if orphan.answer_id == answer.id]
    beat = await checkpoint(store, key, answer, 0, "a")
    assert beat is not None
    assert beat == CheckpointResult(1, stop_requested=False, polled_at=None)
    (after,) = [orphan for orphan in await store.attempts.orphans() if orphan.answer_id == answer.id]
    assert after.key == key
    assert (after.length, before.length) == (1, 0)
    await store.attempts.request_stop(key, answer.id)
    beat = await checkpoint(store, key, answer, 1, "")
    assert beat is not None
    assert beat.stop_requested


@pytest.mark.gen_test
async def test_of_many_checkpoints_each_counts_for_itself(store: Storage, mongo: Mongo) -> None:
    answers = []
    for _ in range(6):
        conversation = await Conversations(mongo).create("user")
        answers.append((conversation, await begun(store, conversation)))
    (of_stopped, stopped), (_, gone), (of_ahead, ahead), *others = answers
    await store.attempts.finish(of_stopped, ended(stopped, "", Status.STOPPED))
    await mongo.messages.delete_one({"_id": ObjectId(gone.id)})
    await checkpoint(store, of_ahead.key, ahead, 0, "longer")

    beats = await store.attempts.checkpoint([Checkpoint(of.key, answer.id, 0, ["text"]) for of, answer in answers])
    assert {id_: beat.length for id_, beat in beats.items()} == {ahead.id: 6} | {answer.id: 4 for _, answer in others}
    assert [running.content for of, _ in answers if (running := await store.reading.running(of.key))] == [
        *("longer", "text", "text", "text")
    ]
    assert await store.reading.get(of_stopped.key, stopped.id) == await store.attempts.finish(
        of_stopped, ended(stopped, "other")
    )


# Endings --------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_everything_about_an_end_is_stored(store: Storage, conversation: Conversation, key: str) -> None:
    answer = await begun(store, conversation)
    await checkpoint(store, key, answer, 0, "Back")
    found_besides = Annotation(kind="ticket", id="t", message="A ticket was opened", data={"number": 7})
    whole = replace(
        answer,
        status=Status.COMPLETE,
        content="Back Arsenal at odds of 2.10 \u0000🏟",
        finish_reason="stop",
        usage=Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7),
        annotations=(recommendation({"betId": "b", "odds": 2.1, "stake": "1 unit", "selection": None}), found_besides),
        unseen=True,
    )
    assert await store.attempts.finish(conversation, whole) == whole
    found = await store.reading.get(key, answer.id)
    assert isinstance(found, Answer)
    assert replace(found, created_at=whole.created_at) == whole
    # The form that processes of earlier versions write and read.
    document = outcome(whole)
    assert document["recommendations"] == [{"betId": "b", "odds": 2.1, "stake": "1 unit", "selection": None}]
    assert [one["kind"] for one in document["annotations"]] == ["ticket"]

    failed = replace(
        await begun(store, conversation, "And now?"),
        status=Status.FAILED,
        failure=Failure(code=ErrorCode.UPSTREAM_RATE_LIMITED, request_id="r", retry_after_ms=1500),
    )
    await store.attempts.finish(conversation, failed)
    found = await store.reading.get(key, failed.id)
    assert isinstance(found, Answer)
    assert found.failure == failed.failure


@pytest.mark.gen_test
async def test_the_first_end_is_final(store: Storage, conversation: Conversation, key: str) -> None:
    answer = await begun(store, conversation)
    first = await store.attempts.finish(conversation, ended(answer, "First", Status.STOPPED))
    second = await store.attempts.finish(conversation, ended(answer, "Second"))
    assert first is not None
    assert second is not None
    assert (second.status, second.content) == (Status.STOPPED, "First")
    assert await store.reading.get(key, answer.id) == second


@pytest.mark.gen_test
async def test_of_two_ends_at_once_both_are_told_the_one_that_counts(
    store: Storage, conversation: Conversation
) -> None:
    answer = await begun(store, conversation)
    first, second = await asyncio.gather(
        store.attempts.finish(conversation, ended(answer, "First")),
        store.attempts.finish(conversation, ended(answer, "Second", Status.STOPPED)),
    )
    assert first is not None
    assert second is not None
    assert (first.status, first.content) == (second.status, second.content)


@pytest.mark.gen_test
async def test_the_end_of_what_was_deleted_is_none(
    store: Storage, conversation: Conversation, key: str, mongo: Mongo
) -> None:
    answer = await begun(store, conversation)
    await Conversations(mongo).delete("user", conversation.id)
    assert await checkpoint(store, key, answer, 0, "x") is None
    assert await store.attempts.finish(conversation, ended(answer)) is None
    assert await stored(store, conversation.key) == []


@pytest.mark.parametrize("end", ["finish", "finish_orphan"])
@pytest.mark.gen_test
async def test_nothing_is_left_of_an_answer_that_began_while_its_conversation_was_deleted(
    store: Storage, conversation: Conversation, key: str, mongo: Mongo, end: str
) -> None:
    key = conversation.key
    message = await added(store, conversation)
    await Conversations(mongo).delete("user", conversation.id)
    answer = await store.attempts.begin(key, message.id, previous=None, newest_seq=message.seq)
    assert await checkpoint(store, key, answer, 0, "a") is not None
    if end == "finish":
        assert await store.attempts.finish(conversation, ended(answer, "ab")) is None
    else:
        (orphan,) = [orphan for orphan in await store.attempts.orphans() if orphan.answer_id == answer.id]
        assert await store.attempts.finish_orphan(orphan, ended(answer, "a")) is False
    assert await stored(store, key) == []


@pytest.mark.gen_test
async def test_an_orphan_is_ended_only_if_nothing_happened_to_it(
    store: Storage, conversation: Conversation, key: str
) -> None:
    answer = await begun(store, conversation)
    (before,) = [orphan for orphan in await store.attempts.orphans() if orphan.answer_id == answer.id]
    await checkpoint(store, key, answer, 0, "a")
    interrupted = ended(answer, "a", Status.INTERRUPTED)
    assert await store.attempts.finish_orphan(before, interrupted) is False
    (now,) = [orphan for orphan in await store.attempts.orphans() if orphan.answer_id == answer.id]
    assert await store.attempts.finish_orphan(now, interrupted) is True
    assert await store.attempts.finish_orphan(now, interrupted) is False
    assert await store.reading.running(key) is None
    assert await store.attempts.interruptions(key, answer.reply_to) == 1


@pytest.mark.gen_test
async def test_what_was_seen_is_not_unseen(store: Storage, conversation: Conversation, key: str, mongo: Mongo) -> None:
    other = await Conversations(mongo).create("user")
    for each in (conversation, other):
        answer = await begun(store, each)
        await store.attempts.finish(each, replace(ended(answer), unseen=True))
    await store.attempts.mark_seen(key)
    newest, of_other = await store.reading.newest(key), await store.reading.newest(other.key)
    assert isinstance(newest, Answer)
    assert isinstance(of_other, Answer)
    assert (newest.unseen, of_other.unseen) == (False, True)


@pytest.mark.gen_test
async def test_who_has_read_a_question_before_it_was_taken_back_begins_no_answer(
    store: Storage, conversation: Conversation, key: str
) -> None:
    running = await begun(store, conversation)
    question = await added(store, conversation, "And then?")
    await store.posting.withdraw(conversation, question.id)
    await store.attempts.finish(conversation, ended(running))
    with pytest.raises(AnswerInProgress):
        await store.attempts.begin(key, question.id, previous=None, newest_seq=question.seq)
    assert [message.id for message in await stored(store, key)] == [running.reply_to, running.id]
    await begun(store, conversation, "Something else")


@pytest.mark.gen_test
async def test_checkpoints_without_a_pause_do_not_keep_a_message_from_being_taken_back(
    store: Storage, conversation: Conversation, key: str
) -> None:
    running = await begun(store, conversation)
    withdrawn = asyncio.Event()

    async def save_on() -> None:
        while not withdrawn.is_set():
            await checkpoint(store, key, running, 0, "")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(save_on())
        try:
            for _ in range(10):
                question = await added(store, conversation, "And then?")
                await store.posting.withdraw(conversation, question.id)
        finally:
            withdrawn.set()
    assert [message.id for message in await stored(store, key)] == [running.reply_to, running.id]


@pytest.mark.gen_test
async def test_an_answer_that_has_gone_on_does_not_wait_for_the_same_decision_again(
    store: Storage, conversation: Conversation, key: str
) -> None:
    running = await begun(store, conversation)
    until = datetime.now(UTC) + timedelta(days=1)
    waiting = replace(running.made_of([OpenToolCall(id="1", name="pay"), "{}"]), waits_until=until)
    waiting = replace(waiting, status=Status.WAITING)
    parked = await store.attempts.park(conversation, waiting)
    assert parked is not None
    gone_on = await store.attempts.move_on(key, parked, [ToolState(id="1", state=CallState.DENIED)], until=None)
    assert gone_on is not None
    await store.attempts.park(conversation, waiting)  # its result was lost the first time
    assert await store.reading.running(key) == gone_on
