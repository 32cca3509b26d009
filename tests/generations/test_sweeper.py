"""The sweeper ends answers whose process is gone, and no others. Each test has its own database, as the sweeper polls
all answers.
"""

import asyncio
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from chatstream.errors import BudgetExhausted, BudgetReserved, ErrorCode
from chatstream.events import Cursor
from chatstream.generations.commands import IfBusy
from chatstream.generations.sweeper import Lost, Sweeper
from chatstream.models import Answer, Conversation, Status, Usage, UserMessage
from chatstream.store.attempts import Checkpoint
from tests.support.scripted_model import PATIENCE, STOP, Bench, bench, polled
from tests.support.storage import begun, ended


class Clock:
    """A replacement for the event loop's clock in the sweeper."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    async def looks(self, sweeper: Sweeper, count: int, every: float = 2.0) -> None:
        """Poll this many times, each time this long after the last."""
        for _ in range(count):
            self.now += every
            await sweeper.look()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()

    class Asyncio:
        get_running_loop = staticmethod(lambda: clock)

    monkeypatch.setattr("chatstream.generations.sweeper.asyncio", Asyncio)
    return clock


@pytest.fixture
def database(mongodb_uri: str) -> str:
    return f"sweeper-{uuid.uuid4().hex}"


async def orphan(b: Bench, text: str = "So far") -> Answer:
    """A running answer that no process generates."""
    conversation = await b.conversation()
    answer = await begun(b, conversation)
    await b.attempts.checkpoint([Checkpoint(conversation.key, answer.id, 0, [text])])
    return answer


async def status(b: Bench, answer: Answer) -> Status:
    (document,) = await b.mongo.messages.find({"replyTo": {"$exists": True}}).sort("attempt", 1).to_list(1)
    assert str(document["_id"]) == answer.id
    return Status(document["status"])


@pytest.mark.gen_test
async def test_six_looks_without_a_sign_of_life_end_it(mongodb_uri: str, database: str, clock: Clock) -> None:
    async with bench(mongodb_uri, database) as b:
        sweeper = Sweeper(b.store, b.store, b.hub, b.metrics)
        answer = await orphan(b)
        await clock.looks(sweeper, 5)
        assert await status(b, answer) is Status.STREAMING
        await clock.looks(sweeper, 1)
        assert await status(b, answer) is Status.INTERRUPTED
        (document,) = await b.mongo.messages.find({"status": "interrupted"}).to_list(1)
        assert (document["content"], document["unseen"]) == ("So far", True)
        assert document["error"]["code"] == ErrorCode.ANSWER_INTERRUPTED
        assert "pieces" not in document


@pytest.mark.gen_test
async def test_what_is_lost_is_counted_with_its_model(
    mongodb_uri: str, database: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def lost(conversation: Conversation, answer: Answer) -> Lost:
        return Lost(Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7), "the-model")

    async with bench(mongodb_uri, database) as b:
        sweeper = Sweeper(b.store, b.store, b.hub, b.metrics, lost)
        await orphan(b)
        await clock.looks(sweeper, 6)
        (document,) = await b.mongo.messages.find({"status": "interrupted"}).to_list(1)
        assert (document["model"], document["usage"]["totalTokens"]) == ("the-model", 7)
        (facts,) = [vars(one)["facts"] for one in caplog.records if "process is gone" in one.message]
        assert (facts["model"], facts["prompt_tokens"], facts["usage"]) == ("the-model", 5, "exact")
        assert (facts["cached_tokens"], facts["cost_micros"]) == (None, None)  # no model has counted them


@pytest.mark.gen_test
async def test_a_beat_starts_the_count_again(mongodb_uri: str, database: str, clock: Clock) -> None:
    async with bench(mongodb_uri, database) as b:
        sweeper = Sweeper(b.store, b.store, b.hub, b.metrics)
        answer = await orphan(b, "a")
        for _ in range(3):
            await clock.looks(sweeper, 5)
            (seen,) = await b.attempts.orphans()
            assert await b.attempts.checkpoint([Checkpoint(seen.key, answer.id, 1, [])])
        await clock.looks(sweeper, 5)
        assert await status(b, answer) is Status.STREAMING


@pytest.mark.gen_test
async def test_a_failed_look_starts_the_count_again(mongodb_uri: str, database: str, clock: Clock) -> None:
    async with bench(mongodb_uri, database) as b:
        sweeper = Sweeper(b.store, b.store, b.hub, b.metrics)
        answer = await orphan(b)
        await clock.looks(sweeper, 5)
        b.store.refused["orphans"] = 1
        await clock.looks(sweeper, 6)
        assert await status(b, answer) is Status.STREAMING
        await clock.looks(sweeper, 1)
        assert await status(b, answer) is Status.INTERRUPTED


@pytest.mark.gen_test
async def test_a_late_look_starts_the_count_again(mongodb_uri: str, database: str, clock: Clock) -> None:
    async with bench(mongodb_uri, database) as b:
        sweeper = Sweeper(b.store, b.store, b.hub, b.metrics)
        answer = await orphan(b)
        await clock.looks(sweeper, 5)
        await clock.looks(sweeper, 1, every=4.5)
        await clock.looks(sweeper, 4)
        assert await status(b, answer) is Status.STREAMING
        await clock.looks(sweeper, 1)
        assert await status(b, answer) is Status.INTERRUPTED


@pytest.mark.gen_test
async def test_looks_at_the_most_patient_pace_count(mongodb_uri: str, database: str, clock: Clock) -> None:
    async with bench(mongodb_uri, database) as b:
        sweeper = Sweeper(b.store, b.store, b.hub, b.metrics)
        answer = await orphan(b)
        await clock.looks(sweeper, 6, every=4)
        assert await status(b, answer) is Status.INTERRUPTED


@pytest.mark.gen_test
async def test_a_beat_in_the_last_moment_saves_it(mongodb_uri: str, database: str, clock: Clock) -> None:
    async with bench(mongodb_uri, database) as b:
        sweeper = Sweeper(b.store, b.store, b.hub, b.metrics)
        answer = await orphan(b, "a")
        await clock.looks(sweeper, 5)
        interruptions = b.attempts.interruptions

        async def beat_meanwhile(key: str, reply_to: str) -> int:
            await b.attempts.checkpoint([Checkpoint(key, answer.id, 1, [])])
            return await interruptions(key, reply_to)

        b.store.interruptions = beat_meanwhile
        await clock.looks(sweeper, 1)
        assert await status(b, answer) is Status.STREAMING


@pytest.mark.gen_test
async def test_the_third_interruption_is_a_failure(mongodb_uri: str, database: str, clock: Clock) -> None:
    async with bench(mongodb_uri, database) as b:
        sweeper = Sweeper(b.store, b.store, b.hub, b.metrics)
        answer = await orphan(b)
        statuses = []
        for attempt in (1, 2, 3):
            assert await sweeper.end_all() == 1
            (document,) = await b.mongo.messages.find({"attempt": attempt}).to_list(1)
            statuses.append(document["status"])
            ended = await b.reading.get(str(document["conversationId"]), str(document["_id"]))
            assert isinstance(ended, Answer)
            if attempt < 3:
                await b.attempts.begin(
                    str(document["conversationId"]), answer.reply_to, previous=ended, newest_seq=ended.seq
                )
        assert statuses == ["interrupted", "interrupted", "failed"]
        assert await sweeper.end_all() == 0


@pytest.mark.gen_test
async def test_who_watches_is_told_and_gets_another_attempt(mongodb_uri: str, database: str, clock: Clock) -> None:
    async with bench(mongodb_uri, database) as dead, bench(mongodb_uri, database) as b:
        conversation = await dead.conversation()
        cut = await begun(dead, conversation)
        await dead.attempts.checkpoint([Checkpoint(conversation.key, cut.id, 0, ["So far"])])
        b.model.reply("Again.", STOP)
        sweeper = Sweeper(b.store, b.store, b.hub, b.metrics)
        async with b.viewer(conversation) as watched:
            await watched.until("llm_chunk")
            await clock.looks(sweeper, 6)
            assert (await watched.until("llm_complete"))["status"] == "interrupted"
            complete = await watched.until("llm_complete")
            assert (complete["content"], complete["attempt"]) == ("Again.", 2)
            assert watched.types == ["llm_chunk", "llm_complete", "llm_chunk", "llm_complete"]


@pytest.mark.gen_test
async def test_who_watches_is_told_although_the_result_of_the_end_was_lost(
    mongodb_uri: str, database: str, clock: Clock, short_pauses: None
) -> None:
    async with bench(mongodb_uri, database) as dead, bench(mongodb_uri, database) as b:
        conversation = await dead.conversation()
        await dead.posting.post(conversation, "Tell me.")
        b.model.reply("Again.", STOP)
        b.store.lost["finish_orphan"] = 1
        sweeper = Sweeper(b.store, b.store, b.hub, b.metrics)
        async with b.viewer(conversation) as watched:
            await clock.looks(sweeper, 8)
            await polled(b)
            assert (await watched.until("llm_complete"))["content"] == "Again."


@pytest.mark.gen_test
async def test_a_message_that_waits_behind_an_orphan_is_answered_also_if_nobody_watches(
    mongodb_uri: str, database: str, clock: Clock
) -> None:
    async with bench(mongodb_uri, database) as dead, bench(mongodb_uri, database) as b:
        conversation = await dead.conversation()
        await dead.posting.post(conversation, "One")
        await dead.posting.add(conversation, "Two", behind_running=True)
        b.model.reply("Yes.", STOP)
        await clock.looks(Sweeper(b.store, b.store, b.hub, b.metrics), 6)
        newest = await b.reading.newest(conversation.key)
        assert isinstance(newest, Answer)  # it began when the answer before it ended


# Queued questions that the ending process has left --------------------------------------------------------------------


async def left_queued(b: Bench, *, background: bool = True) -> Conversation:
    """A conversation whose answer was ended by a process that then did nothing more. A question is queued behind it."""
    conversation = await b.conversation()
    first = await begun(b, conversation, "One")
    await b.posting.add(conversation, "Two", behind_running=True, background=background)
    await b.attempts.finish(conversation, ended(first, "Yes."))
    return conversation


async def marks(b: Bench) -> int:
    return int(await b.mongo.messages.count_documents({"queued": {"$exists": True}}))


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.gen_test
async def test_a_question_that_was_left_queued_is_answered_once_also_if_nobody_watches(
    mongodb_uri: str, database: str, clock: Clock, background: bool
) -> None:
    async with (
        bench(mongodb_uri, database) as dead,
        bench(mongodb_uri, database) as b,
        bench(mongodb_uri, database) as c,
    ):
        conversation = await left_queued(dead, background=background)
        sweepers = [Sweeper(one.store, one.store, one.hub, one.metrics) for one in (b, c)]
        for one in (b, c):
            one.model.reply("Yes, too.", STOP)
        for _ in range(2):
            await asyncio.gather(*(clock.looks(sweeper, 1) for sweeper in sweepers))
        for one in (b, c):
            newest = await one.ended(conversation)
        assert (newest.status, newest.content, newest.background) == (Status.COMPLETE, "Yes, too.", background)
        assert len(b.model.calls) + len(c.model.calls) == 1
        await clock.looks(sweepers[0], 2)
        assert len(b.model.calls) + len(c.model.calls) == 1
        assert await marks(b) == 0


@pytest.mark.gen_test
async def test_what_is_queued_at_a_process_that_shuts_down_is_answered_by_another(
    mongodb_uri: str, database: str, clock: Clock
) -> None:
    async with bench(mongodb_uri, database) as ending, bench(mongodb_uri, database) as b:
        conversation = await ending.conversation()
        await ending.post(conversation, "One")
        call = await ending.model.call(1)
        await ending.post(conversation, "Two", if_busy=IfBusy.QUEUE)
        draining = asyncio.create_task(ending.hub.drain(PATIENCE))
        while not ending.hub.draining:
            await asyncio.sleep(0)
        call.say("Yes.", STOP)
        await draining
        b.model.reply("Yes, too.", STOP)
        await clock.looks(Sweeper(ending.store, ending.store, ending.hub, ending.metrics), 2)  # it leaves it to others
        assert isinstance(await b.reading.newest(conversation.key), UserMessage)
        await clock.looks(Sweeper(b.store, b.store, b.hub, b.metrics), 2)
        await b.ended(conversation)
        stored = [message.content async for message in b.reading.all_of(conversation.key)]
        assert stored == ["One", "Yes.", "Two", "Yes, too."]


@pytest.mark.gen_test
async def test_who_watches_gets_the_answer_to_a_question_that_was_left_queued(
    mongodb_uri: str, database: str, clock: Clock
) -> None:
    async with bench(mongodb_uri, database) as dead, bench(mongodb_uri, database) as b:
        conversation = await dead.conversation()
        first = await begun(dead, conversation, "One")
        b.model.reply("Yes, too.", STOP)
        async with b.viewer(conversation) as watched:  # no change arrives, and nothing is polled
            await dead.posting.add(conversation, "Two", behind_running=True)
            await dead.attempts.finish(conversation, ended(first, "Yes."))
            await clock.looks(Sweeper(b.store, b.store, b.hub, b.metrics), 2)
            await watched.until("llm_complete")
            await watched.until("llm_complete")
            types = ["llm_chunk", "llm_complete", "user_message", "llm_chunk", "llm_complete"]
            assert (watched.types, watched.text) == (types, "Yes.Yes, too.")


@pytest.mark.gen_test
async def test_a_question_that_was_taken_back_or_is_answered_or_is_old_is_left_alone(
    mongodb_uri: str, database: str, clock: Clock
) -> None:
    async with bench(mongodb_uri, database) as dead, bench(mongodb_uri, database) as b:
        taken_back = await dead.conversation()
        first = await begun(dead, taken_back, "One")
        queued = await dead.posting.add(taken_back, "Two", behind_running=True)
        assert queued is not None
        await dead.posting.withdraw(taken_back, queued.message.id)
        await dead.attempts.finish(taken_back, ended(first, "Yes."))
        answered, old = await left_queued(dead), await left_queued(dead)
        async with dead.viewer(answered):
            await dead.model.call(1)
        month = {"$set": {"createdAt": datetime.now(UTC) - timedelta(days=30)}}
        await b.mongo.messages.update_many({"conversationId": ObjectId(old.key)}, month)
        await clock.looks(Sweeper(b.store, b.store, b.hub, b.metrics), 2)
        assert (len(b.model.calls), await marks(b)) == (0, 0)


@pytest.mark.gen_test
async def test_a_question_that_was_left_queued_is_answered_after_an_outage(
    mongodb_uri: str, database: str, clock: Clock
) -> None:
    async with bench(mongodb_uri, database) as dead, bench(mongodb_uri, database) as b:
        conversation = await left_queued(dead)
        sweeper = Sweeper(b.store, b.store, b.hub, b.metrics)
        await clock.looks(sweeper, 1)
        b.model.reply("Yes, too.", STOP)
        b.store.refused.update({"ended_before_queued": 1, "newest": 1, "begin": 1})
        await clock.looks(sweeper, 3)
        assert isinstance(await b.reading.newest(conversation.key), UserMessage)
        await clock.looks(sweeper, 1)
        assert (await b.ended(conversation)).content == "Yes, too."


@pytest.mark.gen_test
async def test_a_question_for_which_the_budget_has_no_room_waits_for_its_user(
    mongodb_uri: str, database: str, clock: Clock
) -> None:
    async with bench(mongodb_uri, database) as dead, bench(mongodb_uri, database) as b:
        conversation, refused = await left_queued(dead), await left_queued(dead)
        begin, tried, now = b.attempts.begin, Counter[str](), datetime.now(UTC)

        async def over_budget(key: str, *args: Any, **options: Any) -> Answer:
            tried[key] += 1
            if key == refused.key:
                raise BudgetExhausted("tokensPerDay", 9, begins=now, resets_at=now + timedelta(days=1), now=now)
            if tried[key] == 1:  # until another answer has ended, which may use less
                raise BudgetReserved("tokensPerDay", 9, begins=now, resets_at=now + timedelta(days=1))
            return await begin(key, *args, **options)

        b.attempts.begin = over_budget  # type: ignore[method-assign]
        b.model.reply("Yes, too.", STOP)
        await clock.looks(Sweeper(b.store, b.store, b.hub, b.metrics), 4)
        await b.ended(conversation)
        assert tried == {conversation.key: 2, refused.key: 1}
        assert await marks(b) == 0


@pytest.mark.gen_test
async def test_an_answer_that_is_alive_is_left_alone(
    mongodb_uri: str, database: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatstream.generations.checkpointer.CHECKPOINT_INTERVAL", 0.001)
    async with bench(mongodb_uri, database) as b:
        conversation = await b.conversation()
        await b.post(conversation)
        call = await b.model.call(1)
        call.say("Yes")
        sweeper = Sweeper(b.store, b.store, b.hub, b.metrics)
        for _ in range(10):
            beaten = b.store.called["checkpoint"]
            while b.store.called["checkpoint"] < beaten + 2:
                await b.mongo.ping()
            await clock.looks(sweeper, 1)
        call.say("!", STOP)
        ended = await b.ended(conversation)
        assert (ended.status, ended.content) == (Status.COMPLETE, "Yes!")


@pytest.mark.gen_test
async def test_what_was_queued_behind_an_orphan_is_told_after_its_end(
    mongodb_uri: str, database: str, clock: Clock
) -> None:
    async with bench(mongodb_uri, database) as dead, bench(mongodb_uri, database) as b:
        conversation = await dead.conversation()
        orphan = await begun(dead, conversation, "One")
        # The process that stores the message has no viewers yet, so it knows of no running answer.
        await b.post(conversation, "Two", if_busy=IfBusy.QUEUE)
        b.model.reply("Yes.", STOP)
        async with b.viewer(conversation, Cursor(orphan.id, 0)) as watched:
            await clock.looks(Sweeper(b.store, b.store, b.hub, b.metrics), 6)
            await watched.until("llm_complete")
            assert watched.types == ["user_message", "llm_chunk", "llm_complete"]


@pytest.mark.parametrize("at_the_start", [False, True])
@pytest.mark.gen_test
async def test_what_cannot_be_ended_does_not_keep_the_others(
    mongodb_uri: str, database: str, clock: Clock, at_the_start: bool
) -> None:
    """At the start, it must not keep the server from starting, either."""
    async with bench(mongodb_uri, database) as b:
        strange, plain = [await orphan(b) for _ in range(3)], await orphan(b)
        for answer, stop_at in zip(strange, (["end"], "end", {}), strict=True):
            change = {"$set": {"stopAt": stop_at, "stopRequested": True}}  # as a later version may say where to cut
            await b.mongo.messages.update_one({"_id": ObjectId(answer.id)}, change)

        async def lost(conversation: Conversation, answer: Answer) -> None:
            assert answer.id != strange[0].id, "whatever goes wrong with one"

        sweeper = Sweeper(b.store, b.store, b.hub, b.metrics, lost)
        if at_the_start:
            assert await sweeper.end_all() == 4
        else:
            await clock.looks(sweeper, 6)
        found = {str(one["_id"]): one["status"] async for one in b.mongo.messages.find({"status": {"$exists": True}})}
        assert found == {
            strange[0].id: "streaming",
            strange[1].id: "stopped",
            strange[2].id: "stopped",
            plain.id: "interrupted",
        }
