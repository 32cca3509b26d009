"""Where those who watch meet what is generated."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from chatstream.errors import (
    AnswerInProgress,
    ErrorCode,
    InvalidContent,
    ModelError,
    NotFound,
    NothingRunning,
    NothingToAnswer,
    StorageUnavailable,
)
from chatstream.events import Cursor
from chatstream.formats.registry import DEFAULT
from chatstream.generations.commands import IfBusy
from chatstream.models import Answer, Conversation, Failure, Status
from chatstream.store.changes import Change, Changes
from tests.support.scripted_model import STOP, Bench, Viewer, bench


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a second by default takes a hundredth here."""
    monkeypatch.setattr("chatstream.generations.generation.BEAT_INTERVAL", 0.01)
    monkeypatch.setattr("chatstream.generations.generation._SAVE_PAUSE", 0.01)
    monkeypatch.setattr("chatstream.generations.commands._STOP_LOOK_INTERVAL", 0.01)
    monkeypatch.setattr("chatstream.generations.hub._SHUTDOWN_SPREAD", 0.01)


async def turns() -> None:
    """Let everything happen that is about to happen."""
    for _ in range(10):
        await asyncio.sleep(0)


async def interrupt(b: Bench, conversation: Conversation) -> None:
    """Another process takes this one's for dead, and ends its answer."""
    running = await b.store.running(conversation.key)
    assert running is not None
    failure = Failure(code=ErrorCode.ANSWER_INTERRUPTED, request_id=None)
    await b.store.finish(conversation.key, replace(running, status=Status.INTERRUPTED, failure=failure))


# Watching -------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_two_who_open_an_unanswered_conversation_at_once_see_one_answer(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        b.model.reply("Yes.", STOP)
        conversation = await b.conversation(waiting="Tell me.")
        async with (
            b.viewer(conversation, start=False) as first,
            b.viewer(conversation, start=False) as second,
        ):
            await asyncio.gather(*(b.hub.start(one.stream) for one in (first, second)))
            for watched in (first, second):
                await watched.until("llm_complete")
                assert watched.types == ["llm_chunk", "llm_complete"]
        assert len(b.model.calls) == 1


@pytest.mark.gen_test
async def test_an_owed_answer_is_not_begun_again_by_who_is_slow_to_start(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        b.model.reply("Yes.", STOP)
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation, start=False) as slow, b.viewer(conversation) as fast:
            await fast.until("llm_complete")
            await b.hub.start(slow.stream)
            await slow.until("llm_complete")
            assert await b.store.running(conversation.key) is None
        assert len(b.model.calls) == 1


@pytest.mark.gen_test
async def test_an_owed_answer_is_not_begun_any_more_when_a_newer_message_was_answered(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        b.model.reply("Yes.", STOP)
        conversation = await b.conversation(waiting="One")
        async with b.viewer(conversation, start=False) as slow, b.viewer(conversation, start=False) as watched:
            posted = await b.post(conversation, "Two")
            await watched.until("llm_complete")
            await b.hub.start(slow.stream)  # its `connected` took long to be written
            assert await b.store.running(conversation.key) is None
            assert (await b.newest(conversation)).reply_to == posted.message.id


@pytest.mark.gen_test
async def test_without_a_user_message_there_is_no_model_call(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        async with b.viewer(conversation) as watched:
            assert watched.stream.replay.nothing_comes(DEFAULT)
            assert await b.store.running(conversation.key) is None
        assert b.model.calls == []


@pytest.mark.gen_test
async def test_each_viewer_gets_all_of_it_whenever_they_come(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation) as first:
            call = await b.model.call(1)
            call.say("One, ")
            await first.until("llm_chunk")
            async with b.viewer(conversation) as second:
                call.say("two, ")
                await second.until("llm_chunk")
                async with b.viewer(conversation) as third:
                    call.say("three.", STOP)
                    for watched in (first, second, third):
                        complete = await watched.until("llm_complete")
                        assert complete["content"] == watched.text == "One, two, three."
        assert len(b.model.calls) == 1


@pytest.mark.gen_test
async def test_an_unseen_end_is_told_to_the_next_one_only(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        b.model.reply("Yes.", STOP)
        await b.post(conversation)
        assert (await b.ended(conversation)).unseen
        async with b.viewer(conversation) as watched:
            assert (await watched.until("llm_complete"))["content"] == "Yes."
            await b.hub.seen(watched.stream)
        async with b.viewer(conversation) as again:
            assert again.stream.replay.nothing_comes(DEFAULT)
        assert len(b.model.calls) == 1


@pytest.mark.gen_test
async def test_a_stream_that_cannot_be_begun_leaves_nothing_behind(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        b.messages.refused["page"] = 1
        with pytest.raises(StorageUnavailable):
            async with b.viewer(conversation):
                pass
        assert not b.hub._channels
        assert not b.hub._followers


@pytest.mark.gen_test
async def test_nothing_is_kept_of_what_is_over(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, disconnect_grace=60) as b:
        for _ in range(3):
            conversation = await b.conversation()
            b.model.reply("Yes.", STOP)
            async with b.viewer(conversation) as watched:
                await b.post(conversation)
                await watched.until("llm_chunk")
                await watched.until("llm_complete")
        await b.post(conversation)
        (await b.model.call(4)).say(STOP)
        await b.ended(conversation)
        await turns()
        hub = b.hub
        for kept in (hub._channels, hub._generations, hub._tasks, hub._followers):
            assert not kept


# Several turns --------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_post_right_after_an_end_comes_after_it(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        async with b.viewer(conversation) as watched:
            for number in range(20):
                b.model.reply(f"Answer {number}.", STOP)
                while True:
                    try:
                        await b.post(conversation, f"Question {number}")
                        break
                    except AnswerInProgress:
                        pass
            while watched.types.count("llm_complete") < 20:
                await watched.next()
            assert watched.types == ["user_message", "llm_chunk", "llm_complete"] * 20
            assert watched.text == "".join(f"Answer {number}." for number in range(20))


@pytest.mark.gen_test
async def test_the_next_message_waits_for_the_end_to_be_told(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        async with b.viewer(conversation) as watched:
            b.model.reply("One.", STOP)
            b.model.reply("Two.", STOP)
            stored, go_on = b.messages.hold("finish", behind=True)
            await b.post(conversation, "1")
            await stored.wait()  # stored, but the one who stores it does not know yet
            await b.post(conversation, "2")
            await turns()
            go_on.set()
            await watched.until("llm_complete")
            await watched.until("llm_complete")
            assert watched.types == ["user_message", "llm_chunk", "llm_complete"] * 2


@pytest.mark.gen_test
async def test_a_post_while_an_answer_runs_is_refused(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        await b.post(conversation)
        with pytest.raises(AnswerInProgress):
            await b.post(conversation)
        with pytest.raises(AnswerInProgress):
            await b.commands.regenerate(conversation, request_id="r")


@pytest.mark.gen_test
async def test_a_repeated_post_starts_and_tells_nothing(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        async with b.viewer(conversation) as watched:
            b.model.reply("Yes.")
            first = await b.post(conversation, client_message_id="c1")
            await watched.until("llm_chunk")
            for if_busy in IfBusy:
                again = await b.post(conversation, client_message_id="c1", if_busy=if_busy)
                assert (again.message.id, again.repeated) == (first.message.id, True)
                with pytest.raises(InvalidContent):
                    await b.post(conversation, "Other", client_message_id="c1", if_busy=if_busy)
            b.model.calls[0].say(STOP)
            await watched.until("llm_complete")
            assert watched.types == ["user_message", "llm_chunk", "llm_complete"]
        assert len(b.model.calls) == 1


@pytest.mark.gen_test
async def test_queued_messages_are_told_after_the_running_answer_and_get_one_answer(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        async with b.viewer(conversation) as watched:
            await b.post(conversation, "1")
            call = await b.model.call(1)
            call.say("One")
            await watched.until("llm_chunk")
            for content in ("2", "3"):
                await b.post(conversation, content, if_busy=IfBusy.QUEUE)
            b.model.reply("Both.", STOP)
            call.say(".", STOP)
            await watched.until("llm_complete")
            assert (await watched.until("llm_complete"))["content"] == "Both."
            assert watched.types == [
                *("user_message", "llm_chunk", "llm_complete"),
                *("user_message", "user_message", "llm_chunk", "llm_complete"),
            ]
        assert [turn.content for turn in b.model.calls[1].turns] == ["Be brief.", "1", "One.", "2", "3"]


@pytest.mark.parametrize("how", ["complete", "fault", "stop", "interrupt"])
@pytest.mark.gen_test
async def test_a_queued_message_is_answered_however_the_one_before_it_ends(mongodb_uri: str, how: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        await b.post(conversation, "1")
        call = await b.model.call(1)
        queued = await b.post(conversation, "2", if_busy=IfBusy.QUEUE)
        b.model.reply("Yes.", STOP)
        if how == "complete":
            call.say(STOP)
        elif how == "fault":
            call.say(ModelError(ErrorCode.UPSTREAM_TIMEOUT, "x"))
        elif how == "stop":
            await b.commands.stop(conversation, None)
        else:
            await interrupt(b, conversation)
        await b.model.call(2)
        newest = await b.ended(conversation)
        assert (newest.reply_to, newest.content) == (queued.message.id, "Yes.")


@pytest.mark.gen_test
async def test_a_queued_message_is_told_before_its_answer_however_late_its_result_comes(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        async with b.viewer(conversation) as watched:
            await b.post(conversation, "1")
            call = await b.model.call(1)
            stored, go_on = b.messages.hold("add", behind=True)
            posting = asyncio.create_task(b.post(conversation, "2", if_busy=IfBusy.QUEUE))
            await stored.wait()
            b.model.reply("Yes.", STOP)
            call.say(STOP)
            await watched.until("llm_complete")
            await watched.until("llm_chunk")
            go_on.set()
            await posting
            await watched.until("llm_complete")
            assert watched.types == ["user_message", "llm_complete", "user_message", "llm_chunk", "llm_complete"]


@pytest.mark.gen_test
async def test_a_message_that_was_queued_before_somebody_came_is_told_to_them_in_every_process(
    mongodb_uri: str,
) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there, following(there) as seen:
        conversation = await here.conversation()
        await here.post(conversation, "1")
        call = await here.model.call(1)
        call.say("One")
        queued = await here.post(conversation, "2", if_busy=IfBusy.QUEUE)
        async with asyncio.timeout(10):
            while queued.message.id not in await seen.get():
                pass
        for b in (here, there):  # whoever is faster begins it
            b.model.reply("Two", STOP)
        async with there.viewer(conversation, Cursor(conversation.key, Cursor.START)) as watched:
            call.say(STOP)
            while [frame.data.get("content") for frame in watched.frames if frame.type == "llm_complete"] != [
                "One",
                "Two",
            ]:
                assert await watched.next() is not None
            assert watched.types == ["user_message", "llm_chunk", "llm_complete"] * 2


@contextlib.asynccontextmanager
async def following(b: Bench) -> AsyncIterator["asyncio.Queue[str]"]:
    """Bring to `b` what other processes do; the queue has every change, as text."""
    seen: asyncio.Queue[str] = asyncio.Queue()
    opened = asyncio.Event()

    async def on_change(change: Change) -> None:
        await b.hub.elsewhere.changed(change)
        seen.put_nowait(str(change))

    async def on_gap() -> None:
        opened.set()

    listening = asyncio.create_task(Changes(b.mongo, owner=b.owner).listen(on_change, on_gap))
    await opened.wait()
    try:
        yield seen
    finally:
        listening.cancel()
        await asyncio.wait([listening])


@pytest.mark.gen_test
async def test_a_message_queued_behind_an_answer_that_is_about_to_begin_comes_after_it(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        stored, go_on = b.messages.hold("finish", behind=True)  # or: the result is lost, and the save repeated later
        for text in ("One.", "Two.", "Three."):
            b.model.reply(text, STOP)
        async with b.viewer(conversation) as watched:
            await b.post(conversation, "1")
            await stored.wait()
            await b.post(conversation, "2")  # its answer waits for the last one's end to be told
            await b.post(conversation, "3", if_busy=IfBusy.QUEUE)
            go_on.set()
            while "Three." not in watched.text:
                assert await watched.next() is not None
            await watched.until("llm_complete")
            assert watched.types == ["user_message", "llm_chunk", "llm_complete"] * 3
            assert watched.text == "One.Two.Three."


@pytest.mark.gen_test
async def test_what_waits_is_told_in_order_also_if_somebody_was_faster(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        stored, go_on = b.messages.hold("finish", behind=True)
        b.model.reply("One.")
        for text in ("Three.", "Four."):
            b.model.reply(text, STOP)
        async with b.viewer(conversation) as watched:
            await b.post(conversation, "1")
            await b.post(conversation, "2", if_busy=IfBusy.QUEUE)
            (await b.model.call(1)).say(STOP)
            await stored.wait()
            await b.post(conversation, "3")
            await b.post(conversation, "4", if_busy=IfBusy.QUEUE)
            go_on.set()
            while "Four." not in watched.text:
                assert await watched.next() is not None
            await watched.until("llm_complete")
            one = ["user_message", "llm_chunk", "llm_complete"]
            assert watched.types == [*one, "user_message", *one, *one]
            assert watched.text == "One.Three.Four."


@pytest.mark.gen_test
async def test_a_cursor_of_a_queued_message_begins_with_its_answer(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        await b.post(conversation, "1")
        call = await b.model.call(1)
        queued = await b.post(conversation, "2", if_busy=IfBusy.QUEUE)
        b.model.reply("Two.", STOP)
        async with b.viewer(conversation, Cursor(queued.message.id, Cursor.USER), once=True) as watched:
            call.say("One.", STOP)
            await watched.rest()
            assert watched.types == ["llm_chunk", "llm_complete"]
            assert watched.text == "Two."


@pytest.mark.gen_test
async def test_interrupting_stops_then_posts(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        async with b.viewer(conversation) as watched:
            await b.post(conversation, "1")
            (await b.model.call(1)).say("On and on")
            await watched.until("llm_chunk")
            b.model.reply("Two.", STOP)
            await b.post(conversation, "2", if_busy=IfBusy.INTERRUPT)
            assert (await watched.until("llm_complete"))["status"] == "stopped"
            assert (await watched.until("llm_complete"))["content"] == "Two."
            assert watched.types == ["user_message", "llm_chunk", "llm_complete"] * 2


@pytest.mark.gen_test
async def test_regenerating_is_another_attempt(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        with pytest.raises(NothingToAnswer):
            await b.commands.regenerate(conversation, request_id="r")
        b.model.reply("One.", STOP)
        b.model.reply("Another.", STOP)
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            first = await watched.until("llm_complete")
            await b.commands.regenerate(conversation, request_id="r")
            second = await watched.until("llm_complete")
            assert (second["attempt"], second["replyTo"]) == (2, first["replyTo"])
            assert watched.types == ["user_message", "llm_chunk", "llm_complete", "llm_chunk", "llm_complete"]
        assert [turn.content for turn in b.model.calls[1].turns] == ["Be brief.", "Tell me."]


# Stopping -------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_stop_ends_it_and_says_how(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        with pytest.raises(NothingRunning):
            await b.commands.stop(conversation, None)
        posted = await b.post(conversation)
        assert posted.answer is not None
        async with b.viewer(conversation) as watched:
            (await b.model.call(1)).say("So f🏟r")
            await watched.until("llm_chunk")
            stopped = await b.commands.stop(conversation, posted.answer.id)
            assert (stopped.status, stopped.content_length, stopped.upstream_cancelled) == (Status.STOPPED, 6, True)
            assert b.model.open == 0
            assert (await b.newest(conversation)).content == "So f🏟r"
            assert (await watched.until("llm_complete"))["status"] == "stopped"
            assert "error" not in watched.types
        again = await b.commands.stop(conversation, posted.answer.id)
        assert (again.status, again.content_length) == (Status.STOPPED, 6)
        with pytest.raises(NotFound):
            await b.commands.stop(conversation, posted.message.id)


@pytest.mark.gen_test
async def test_a_stop_that_comes_too_late_says_complete(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        b.model.reply("Yes.", STOP)
        saving, go_on = b.messages.hold("finish")
        posted = await b.post(conversation)
        assert posted.answer is not None
        await saving.wait()
        stopping = asyncio.create_task(b.commands.stop(conversation, None))
        await turns()
        go_on.set()
        stopped = await stopping
        assert (stopped.status, stopped.upstream_cancelled) == (Status.COMPLETE, False)


@pytest.mark.gen_test
async def test_what_was_stopped_earlier_is_not_our_doing_because_another_answer_runs(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        first = await b.post(conversation)
        assert first.answer is not None
        await b.model.call(1)
        await b.commands.stop(conversation, None)
        alone = await b.commands.stop(conversation, first.answer.id)
        await b.post(conversation)
        beside_another = await b.commands.stop(conversation, first.answer.id)
        assert beside_another == alone
        assert b.model.open == 1 or not b.model.calls[1:]  # the new one goes on


@pytest.mark.gen_test
async def test_stop_before_the_model_was_called_calls_no_model(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        await b.post(conversation)
        stopped = await b.commands.stop(conversation, None)
        assert stopped.status is Status.STOPPED
        assert b.model.open == 0


@pytest.mark.gen_test
async def test_stop_does_not_wait_longer_than_it_says(mongodb_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatstream.generations.commands._STOP_TIMEOUT", 0.2)
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        await b.post(conversation)
        saving, go_on = b.messages.hold("finish")
        looked = b.messages.called["get"]
        with pytest.raises(StorageUnavailable):
            await b.commands.stop(conversation, None)
        assert saving.is_set()
        # The time is up when the task has not ended by then: no second one begins.
        assert b.messages.called["get"] - looked <= 1
        go_on.set()


# Abandonment ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grace", [0, 0.05])
@pytest.mark.gen_test
async def test_an_answer_that_lost_its_last_viewer_is_cut_after_the_grace(mongodb_uri: str, grace: float) -> None:
    async with bench(mongodb_uri, disconnect_grace=grace) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation) as watched:
            call = await b.model.call(1)
            call.say("So far")
            await watched.until("llm_chunk")
            async with b.viewer(conversation):
                pass
            await turns()
            assert not call.closed.is_set()
        await asyncio.wait_for(call.closed.wait(), 10)
        ended = await b.ended(conversation)
        assert (ended.status, ended.content, ended.unseen) == (Status.INTERRUPTED, "So far", True)
        assert ended.failure is not None
        assert ended.failure.code is ErrorCode.ANSWER_INTERRUPTED


@pytest.mark.gen_test
async def test_with_an_infinite_grace_it_always_finishes(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, disconnect_grace=math.inf) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation):
            call = await b.model.call(1)
        await turns()
        call.say("Yes.", STOP)
        assert (await b.ended(conversation)).status is Status.COMPLETE


@pytest.mark.gen_test
async def test_an_answer_that_nobody_has_watched_runs_to_its_end(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, disconnect_grace=0) as b:
        conversation = await b.conversation()
        await b.post(conversation)
        call = await b.model.call(1)
        await turns()
        call.say("Yes.", STOP)
        ended = await b.ended(conversation)
        assert (ended.status, ended.unseen) == (Status.COMPLETE, True)


@pytest.mark.gen_test
async def test_who_comes_back_within_the_grace_was_never_gone(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, disconnect_grace=0.1) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation) as watched:
            call = await b.model.call(1)
            call.say("Before. ")
            await watched.until("llm_chunk")
        async with b.viewer(conversation, watched.cursor) as again:
            await asyncio.sleep(0.2)  # nothing is to happen in this time, which is longer than the grace
            call.say("After.", STOP)
            complete = await again.until("llm_complete")
            assert (complete["status"], again.text) == ("complete", "After.")
        assert len(b.model.calls) == 1


@pytest.mark.gen_test
async def test_who_comes_back_saves_it_also_after_two_left_in_the_same_moment(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, disconnect_grace=0.1) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation) as first, b.viewer(conversation) as second:
            call = await b.model.call(1)
            call.say("Before. ")
            await first.until("llm_chunk")
            first.hang_up()  # a laptop with two tabs loses its network: both are gone before either handler knows
            second.hang_up()
        async with b.viewer(conversation, first.cursor) as again:
            await asyncio.sleep(0.2)  # nothing is to happen in this time, which is longer than the grace
            assert not call.closed.is_set()
            call.say("After.", STOP)
            complete = await again.until("llm_complete")
            assert (complete["status"], again.text) == ("complete", "After.")
        assert len(b.model.calls) == 1


@pytest.mark.gen_test
async def test_what_was_cut_is_begun_again_by_who_comes_later(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, disconnect_grace=0) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation) as watched:
            (await b.model.call(1)).say("So far")
            await watched.until("llm_chunk")
        await b.ended(conversation)
        b.model.reply("All of it.", STOP)
        async with b.viewer(conversation, watched.cursor) as again:
            assert (await again.until("llm_complete"))["status"] == "interrupted"
            complete = await again.until("llm_complete")
            assert (complete["content"], complete["attempt"]) == ("All of it.", 2)
            assert again.types == ["error", "llm_complete", "llm_chunk", "llm_complete"]


@pytest.mark.gen_test
async def test_who_reads_one_answer_and_is_told_the_end_of_a_cut_one_begins_no_other(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, disconnect_grace=0) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation) as watched:
            (await b.model.call(1)).say("So far")
            await watched.until("llm_chunk")
        await b.ended(conversation)
        async with b.viewer(conversation, once=True) as again:
            await again.rest()
            assert again.types == ["error", "llm_complete"]
            await b.hub.seen(again.stream)
        assert len(b.model.calls) == 1
        b.model.reply("All of it.", STOP)
        async with b.viewer(conversation, once=True) as later:
            await later.rest()
            assert later.types == ["llm_chunk", "llm_complete"]


@pytest.mark.gen_test
async def test_the_third_cut_is_a_failure_and_ends_it(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, disconnect_grace=0) as b:
        conversation = await b.conversation(waiting="Tell me.")
        statuses = []
        for number in (1, 2, 3):
            async with b.viewer(conversation):
                await b.model.call(number)
            statuses.append((await b.ended(conversation)).status)
        assert statuses == [Status.INTERRUPTED, Status.INTERRUPTED, Status.FAILED]
        async with b.viewer(conversation) as watched:
            assert (await watched.until("error"))["error"] == "answer_interrupted"
            assert await b.store.running(conversation.key) is None
        assert len(b.model.calls) == 3


@pytest.mark.gen_test
async def test_what_was_cut_while_somebody_watches_begins_again(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation) as watched:
            (await b.model.call(1)).say("So far")
            await watched.until("llm_chunk")
            b.model.reply("Again.", STOP)
            await interrupt(b, conversation)
            assert (await watched.until("error"))["error"] == "answer_interrupted"
            await b.model.call(2)
            while "llm_complete" not in watched.types or watched.frames[-1].data.get("attempt") != 2:
                await watched.until("llm_complete")
            assert watched.frames[-1].data["content"] == "Again."
        assert b.model.calls[0].closed.is_set()


# Deletion and the end -------------------------------------------------------------------------------------------------


async def delete(b: Bench, conversation: Conversation) -> None:
    await b.conversations.delete("user", conversation.id)
    b.hub.deleted(conversation)


def codes(watched: Viewer) -> list[str]:
    return [frame.data["error"] for frame in watched.frames if frame.type == "error"]


@pytest.mark.gen_test
async def test_deletion_ends_the_answer_and_the_streams(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation) as first, b.viewer(conversation) as second:
            call = await b.model.call(1)
            call.say("So far")
            await first.until("llm_chunk")
            await delete(b, conversation)
            for watched in (first, second):
                await watched.rest()
                assert codes(watched) == ["conversation_deleted"]
            await asyncio.wait_for(call.closed.wait(), 10)
        assert await b.store.page(conversation.key, limit=10, before=None) == []


@pytest.mark.gen_test
async def test_deletion_is_said_once_to_who_reads_slowly(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation) as watched:
            call = await b.model.call(1)
            await delete(b, conversation)
            await watched.until("error")  # and now it is being written, while the answer's own end finds it gone
            await asyncio.wait_for(call.closed.wait(), 10)
            while b.hub._tasks:
                await b.mongo.ping()
            await watched.rest()
            assert codes(watched) == ["conversation_deleted"]


@pytest.mark.gen_test
async def test_deletion_ends_also_the_stream_that_is_just_being_opened(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        reading, go_on = b.messages.hold("page", behind=True)

        async def watch() -> list[str]:
            async with b.viewer(conversation) as watched:
                async with asyncio.timeout(3):
                    await watched.rest()
                return codes(watched)

        watching = asyncio.create_task(watch())
        await reading.wait()
        await delete(b, conversation)
        go_on.set()
        assert await watching == ["conversation_deleted"]


@pytest.mark.gen_test
async def test_draining_lets_answers_finish_and_then_ends_the_streams(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        busy, quiet = await b.conversation(waiting="Tell me."), await b.conversation()
        async with b.viewer(busy) as first, b.viewer(quiet) as second:
            call = await b.model.call(1)
            call.say("So far")
            await first.until("llm_chunk")
            draining = asyncio.create_task(b.hub.drain(30))
            await second.rest()
            assert codes(second) == ["server_shutdown"]
            assert not draining.done()
            call.say(", so good.", STOP)
            await first.rest()
            await draining
            assert first.types == ["llm_chunk", "llm_complete", "error"]
            assert codes(first) == ["server_shutdown"]
        assert (await b.newest(busy)).status is Status.COMPLETE


@pytest.mark.gen_test
async def test_draining_cuts_what_does_not_finish(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation) as watched:
            (await b.model.call(1)).say("So far")
            await watched.until("llm_chunk")
            reading = asyncio.create_task(watched.rest())
            await b.hub.drain(0.01)
            await reading
            assert codes(watched) == ["answer_interrupted", "server_shutdown"]
            assert watched.types == ["llm_chunk", "error", "llm_complete", "error"]
        newest = await b.newest(conversation)
        assert (newest.status, newest.content) == (Status.INTERRUPTED, "So far")
        assert len(b.model.calls) == 1
        assert b.model.open == 0


@pytest.mark.gen_test
async def test_the_shutdown_is_said_once_to_who_reads_slowly(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        quiet, busy = await b.conversation(), await b.conversation(waiting="Tell me.")
        async with b.viewer(quiet) as watched:
            await b.store.running(busy.key)
            await b.post(quiet)
            call = await b.model.call(1)
            call.say(STOP)
            await watched.until("llm_complete")
            draining = asyncio.create_task(b.hub.drain(30))
            await watched.until("error")  # it is being written until the drain is over
            await draining
            await watched.rest()
            assert codes(watched) == ["server_shutdown"]


@pytest.mark.gen_test
async def test_a_fault_of_ours_ends_the_streams_and_is_logged(
    mongodb_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation(waiting="Tell me.")

        async def broken(*args: object) -> Answer:
            raise ZeroDivisionError

        b.messages.finish = broken
        b.model.reply("Yes.", STOP)
        async with b.viewer(conversation) as watched:
            await watched.rest()
            assert codes(watched) == ["internal"]
        assert "lost" in caplog.text
        assert not b.hub._generations
