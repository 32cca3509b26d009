"""The commands of users: messages while an answer runs, further attempts, stops."""

import asyncio

import pytest
from msgspec import UNSET, UnsetType

from chatstream.errors import (
    AnswerInProgress,
    ErrorCode,
    InvalidContent,
    ModelError,
    NotFound,
    NothingRunning,
    NothingToAnswer,
    StopPending,
    StorageUnavailable,
)
from chatstream.events import Cursor
from chatstream.generations.commands import IfBusy
from chatstream.models import Status
from tests.support.client import PATIENCE
from tests.support.scripted_model import STOP, bench, following, turns

pytestmark = pytest.mark.usefixtures("short_pauses")

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
            stored, go_on = b.store.hold("finish", behind=True)
            await b.post(conversation, "1")
            await stored.wait()  # stored, but its process does not know that yet
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
        assert [turn.content for turn in b.model.calls[1].turns] == ["Be brief.", "1", "One.", "2\n\n3"]


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
            await b.interrupt(conversation)
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
            stored, go_on = b.store.hold("add", behind=True)
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
        async with asyncio.timeout(PATIENCE):
            while queued.message.id not in await seen.get():
                pass
        for b in (here, there):  # the faster process begins it
            b.model.reply("Two", STOP)
        async with there.viewer(conversation, Cursor(conversation.key, Cursor.START)) as watched:
            call.say(STOP)
            while [frame.data.get("content") for frame in watched.frames if frame.type == "llm_complete"] != [
                "One",
                "Two",
            ]:
                assert await watched.next() is not None
            assert watched.types == ["user_message", "llm_chunk", "llm_complete"] * 2


@pytest.mark.gen_test
async def test_a_message_queued_behind_an_answer_that_is_about_to_begin_comes_after_it(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        stored, go_on = b.store.hold("finish", behind=True)  # or: the result is lost, and the save repeated later
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
        stored, go_on = b.store.hold("finish", behind=True)
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


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize(
    ("parent", "asked"), [(UNSET, ["1", "One", "2\n\n3"]), (None, ["3"])], ids=["the same branch", "an edit"]
)
@pytest.mark.gen_test
async def test_interrupting_asks_nothing_for_a_message_that_waits(
    mongodb_uri: str, elsewhere: bool, parent: UnsetType | None, asked: list[str]
) -> None:
    async with bench(mongodb_uri) as b, bench(mongodb_uri) as there, following(b):
        conversation = await b.conversation()
        async with b.viewer(conversation) as watched:
            await b.post(conversation, "1")
            (await b.model.call(1)).say("One")
            await watched.until("llm_chunk")
            waits = await b.post(conversation, "2", if_busy=IfBusy.QUEUE)
            b.model.reply("Three.", STOP)
            asks = there if elsewhere else b
            posted = await asks.post(conversation, "3", if_busy=IfBusy.INTERRUPT, parent=parent)
            told = [await watched.until("llm_complete") for _ in range(2)]
            assert [(one["status"], one["content"]) for one in told] == [("stopped", "One"), ("complete", "Three.")]
            assert told[1]["replyTo"] == posted.message.id
        assert [turn.content for turn in b.model.calls[1].turns[1:]] == asked
        assert len(b.model.calls) + len(there.model.calls) == 2
        assert await b.reading.newest_attempt(conversation.key, waits.message.id) is None


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
async def test_a_stop_whose_process_is_gone_is_told_so(mongodb_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatstream.generations.commands._STOP_TIMEOUT", 0)
    async with bench(mongodb_uri) as b, bench(mongodb_uri) as other:
        conversation = await b.conversation()
        answer = (await other.posting.post(conversation, "Tell me.")).answer  # no process generates it
        assert answer is not None
        with pytest.raises(StopPending, match="will be stopped") as refused:
            await b.commands.stop(conversation, None)
        assert (refused.value.status, refused.value.retry_after) == (503, 10)
        (orphan,) = [one for one in await b.attempts.orphans() if one.answer_id == answer.id]
        assert orphan.stop_requested


@pytest.mark.gen_test
async def test_a_stop_that_comes_too_late_says_complete(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        b.model.reply("Yes.", STOP)
        saving, go_on = b.store.hold("finish")
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
        assert (await b.newest(conversation)).model == "m"  # this model was asked, though it sent nothing
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
        saving, go_on = b.store.hold("finish")
        looked = b.store.called["get"]
        with pytest.raises(StorageUnavailable):
            await b.commands.stop(conversation, None)
        assert saving.is_set()
        # The time limit holds even if the task has not ended by then: no second poll begins.
        assert b.store.called["get"] - looked <= 1
        go_on.set()
