"""One answer from its first word to its stored end, with and without faults."""

import asyncio
import logging

import pytest
from msgspec.structs import replace

from chatstream.errors import ErrorCode, ModelError
from chatstream.llm.model import Delta, Finish, Turn
from chatstream.models import Answer, Conversation, Failure, Status, Usage
from chatstream.pieces import OpenReasoning, OpenText
from tests.support.client import PATIENCE
from tests.support.scripted_model import STOP, Bench, Viewer, beats, bench

pytestmark = pytest.mark.usefixtures("short_pauses")

USAGE = Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7)


async def told(watched: Viewer, *types: str) -> None:
    """Read this many events, where neighbouring chunks count as one, and return them; fails if there are others."""
    while len(watched.types) < len(types):
        assert await watched.next() is not None
    assert watched.types == list(types)


# How it ends ----------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_complete_with_what_the_model_said(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        b.model.reply("Back ", Delta(["Arsenal ", "at odds "]), Delta(["of 2.10."], Finish(reason="stop", usage=USAGE)))
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            await told(watched, "user_message", "llm_chunk", "llm_complete", "system")
            assert watched.text == "Back Arsenal at odds of 2.10."
            complete = watched.frames[-2].data
            assert (complete["status"], complete["finishReason"]) == ("complete", "stop")
            assert complete["usage"]["totalTokens"] == 7
        stored = await b.newest(conversation)
        assert (stored.status, stored.content, stored.finish_reason) == (Status.COMPLETE, watched.text, "stop")
        assert stored.usage == USAGE
        assert [bet["odds"] for bet in stored.recommendations] == [2.1]
        assert not stored.unseen
        assert b.model.open == 0


@pytest.mark.parametrize("reason", ["length", "content_filter", "tool_calls", "an unknown word"])
@pytest.mark.gen_test
async def test_nothing_is_read_off_an_answer_that_did_not_come_to_a_plain_end(mongodb_uri: str, reason: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        b.model.reply("I'd back Arsenal to win at 2.10", Finish(reason=reason, usage=None))
        async with b.viewer(conversation, once=True) as watched:
            await b.post(conversation)
            assert (await watched.until("llm_complete"))["finishReason"] == reason
            assert "system" not in {frame.type for frame in await watched.rest()}
        assert (await b.newest(conversation)).recommendations == ()


@pytest.mark.parametrize("text", ["", "So far"])
@pytest.mark.gen_test
async def test_the_models_fault(mongodb_uri: str, text: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        fault = ModelError(ErrorCode.UPSTREAM_RATE_LIMITED, "secret detail", retry_after=1.5)
        b.model.reply(*([text] if text else []), fault)
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            await told(watched, "user_message", *(["llm_chunk", "error", "llm_complete"] if text else ["error"]))
            error = next(frame for frame in watched.frames if frame.type == "error")
            assert error.data["error"] == "upstream_rate_limited"
            assert error.data["retryAfterMs"] == 1500
            assert error.data["requestId"] == "request"
            assert "secret" not in str(error.data)
            assert error.id is not None
        stored = await b.newest(conversation)
        assert (stored.status, stored.content) == (Status.FAILED, text)
        assert stored.failure is not None
        assert stored.failure.code is ErrorCode.UPSTREAM_RATE_LIMITED
        assert stored.recommendations == ()


@pytest.mark.gen_test
async def test_half_a_recommendation_is_none(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        b.model.reply("Back Arsenal at odds of 2.10.", ModelError(ErrorCode.UPSTREAM_TIMEOUT, "x"))
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            await told(watched, "user_message", "llm_chunk", "error", "llm_complete")
        assert (await b.newest(conversation)).recommendations == ()


@pytest.mark.gen_test
async def test_an_end_without_a_reason_is_a_truncation(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            call = await b.model.call(1)
            call.say("So far")
            call.break_off()
            assert (await watched.until("error"))["error"] == "upstream_truncated"
            assert (await watched.until("llm_complete"))["status"] == "failed"


@pytest.mark.gen_test
async def test_a_fault_of_ours_is_internal_and_logged(mongodb_uri: str, caplog: pytest.LogCaptureFixture) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        b.model.reply("So far", ZeroDivisionError("oops"))
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            error = await watched.until("error")
            assert error["error"] == "internal"
            assert "oops" not in str(error)
        assert (await b.newest(conversation)).status is Status.FAILED
        assert [one.levelno for one in caplog.records if one.name.startswith("chatstream")] == [logging.ERROR]
        assert b.model.open == 0


@pytest.mark.gen_test
async def test_a_history_that_cannot_be_read(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        b.model.reply("Yes.", STOP)
        await b.post(conversation)
        await b.ended(conversation)
        b.store.refused["newest_that_count"] = 1
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            assert (await watched.until("error"))["error"] == "storage_unavailable"
        assert (await b.newest(conversation)).status is Status.FAILED
        assert len(b.model.calls) == 1


@pytest.mark.gen_test
async def test_the_first_question_is_answered_without_reading_the_history(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        waiting, new = await b.conversation(waiting="Tell me."), await b.conversation()
        b.store.refused["newest_that_count"] = 1
        b.model.reply("Yes.", STOP)
        async with b.viewer(waiting) as watched:
            await watched.until("llm_complete")
        b.model.reply("Yes.", STOP)
        await b.post(new, "Tell me.")
        await b.ended(new)
        assert [call.turns[1:] for call in b.model.calls] == 2 * [[Turn("user", "Tell me.")]]


@pytest.mark.gen_test
async def test_an_answer_has_a_greatest_length(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, answer_characters=10) as b:
        conversation = await b.conversation()
        b.model.reply("12345", "67890", "1", "2", STOP)
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            assert (await watched.until("error"))["error"] == "answer_too_long"
        assert (await b.newest(conversation)).content == "1234567890"
        assert b.model.open == 0


@pytest.mark.gen_test
async def test_too_much_thinking_is_left_out_and_the_answer_goes_on(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, reasoning_characters=104) as b:
        conversation = await b.conversation()
        think, text = OpenReasoning(), OpenText()
        b.model.reply(think, "Hm", "m, yes", text, "One.", think, "No.", text, "Two.", STOP)
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            await watched.until("llm_complete")
        newest = await b.newest(conversation)
        assert newest.status is Status.COMPLETE
        assert newest.pieces == (think, "Hmm,", text, "One.\n\nTwo.")


@pytest.mark.gen_test
async def test_what_was_thought_is_there_for_models_that_want_it_back_as_far_as_there_is_room(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        think, text = OpenReasoning(), OpenText()
        for thought in ("x" * 6_000, "y" * 6_000, "z"):
            b.model.reply(think, thought, text, "Yes.", STOP)
            await b.post(conversation)
            await b.ended(conversation)
        assert [turn.reasoning[:1] for turn in b.model.calls[1].turns] == ["", "", "x", ""]
        assert [turn.reasoning[:1] for turn in b.model.calls[2].turns] == ["", "", "", "", "y", ""]


@pytest.mark.gen_test
async def test_text_behind_the_first_comes_without_a_delta_of_its_own(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        think, text = OpenReasoning(), OpenText()
        b.model.reply(think, "Hm", "m.", text, "One, ", "two, ", "three.", STOP)
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            assert (await watched.until("llm_complete"))["content"] == watched.text == "One, two, three."
        assert b.model.told == 2  # neither the first text nor reasoning


@pytest.mark.gen_test
async def test_a_text_part_after_other_text_begins_with_a_blank_line(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        think, text = OpenReasoning(), OpenText()
        b.model.reply("One.", think, "Hm.", text, "\nTwo.", think, "No.", text, "\n\nThree.", STOP)
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            assert (await watched.until("llm_complete"))["content"] == "One.\n\nTwo.\n\nThree."
            assert watched.text == "One.\n\nTwo.\n\nThree."


@pytest.mark.gen_test
async def test_nothing_is_told_before_it_is_stored(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        async with b.viewer(conversation) as watched:
            saving, go_on = b.store.hold("finish")
            b.model.reply("Yes.", STOP)
            await b.post(conversation)
            await watched.until("llm_chunk")
            await saving.wait()
            reading = asyncio.create_task(watched.next())
            await beats_or_turns()
            assert not reading.done()
            go_on.set()
            frame = await reading
            assert frame is not None
            assert frame.type == "llm_complete"


async def beats_or_turns() -> None:
    """Wait for checkpoints, or for some turns of the event loop."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.gen_test
async def test_an_end_that_somebody_came_to_see_in_time_is_not_unseen(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        stored, go_on = b.store.hold("finish", behind=True)
        b.model.reply("Yes.", STOP)
        await b.post(conversation)
        await stored.wait()
        assert (await b.newest(conversation)).unseen
        async with b.viewer(conversation) as watched:
            go_on.set()
            await told(watched, "llm_chunk", "llm_complete")
            async with asyncio.timeout(PATIENCE):
                while (await b.newest(conversation)).unseen:
                    await asyncio.sleep(0.005)


# The database comes and goes ------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_the_final_save_is_repeated_until_it_is_done(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        b.store.refused["finish"] = 3
        b.model.reply("Yes.", STOP)
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            await told(watched, "user_message", "llm_chunk", "llm_complete")
        assert b.store.called["finish"] == 4


@pytest.mark.gen_test
async def test_a_final_save_whose_result_was_lost_is_told_as_it_was_stored(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        b.store.lost["finish"] = 1
        b.model.reply("Yes.", STOP)
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            await told(watched, "user_message", "llm_chunk", "llm_complete")
            assert watched.frames[-1].data["status"] == "complete"


@pytest.mark.gen_test
async def test_after_the_deadline_those_who_watch_are_told_once_and_get_the_end_when_it_is_stored(
    mongodb_uri: str,
) -> None:
    async with bench(mongodb_uri, save_deadline=0) as b:
        conversation = await b.conversation()
        b.store.refused["finish"] = 4
        b.model.reply("Yes.", STOP)
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            await told(watched, "user_message", "llm_chunk", "error", "llm_complete")
            notice = watched.frames[-2]
            assert (notice.data["error"], notice.data["retryable"]) == ("storage_unavailable", True)
            assert notice.id is None


@pytest.mark.gen_test
async def test_the_storage_notice_is_of_the_connection_not_the_end_of_the_answer(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, save_deadline=0) as b:
        conversation = await b.conversation()
        b.store.refused["finish"] = 1
        b.model.reply("Yes.", STOP)
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            # The protocol: an error with a messageId is an answer that ended badly, and has an id; without one, it is a
            # notice.
            assert (await watched.until("error"))["messageId"] is None


@pytest.mark.gen_test
async def test_checkpoints_store_the_text_as_it_grows(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        await b.post(conversation)
        call = await b.model.call(1)
        for expected, text in (("a", "a"), ("ab🏟", "b🏟")):
            call.say(text)
            await beats(b, 3)
            running = await b.reading.running(conversation.key)
            assert running is not None
            assert running.content == expected
        call.say(STOP)
        assert (await b.ended(conversation)).content == "ab🏟"


@pytest.mark.gen_test
async def test_checkpoints_go_on_after_some_failed_and_some_were_lost(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        await b.post(conversation)
        call = await b.model.call(1)
        for kind in (b.store.lost, b.store.refused, b.store.lost):
            call.say("abc", "d🏟")
            kind["checkpoint"] = 2
            await beats(b, 5)
        running = await b.reading.running(conversation.key)
        assert running is not None
        assert running.content == "abcd🏟" * 3
        call.say("!", STOP)
        ended = await b.ended(conversation)
        assert (ended.status, ended.content) == (Status.COMPLETE, "abcd🏟" * 3 + "!")


@pytest.mark.gen_test
async def test_a_checkpoint_in_flight_at_the_end_does_no_harm(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        await b.post(conversation)
        call = await b.model.call(1)
        arrived, go_on = b.store.hold("checkpoint", behind=True)
        call.say("abc")
        await arrived.wait()
        call.say("def", STOP)
        assert (await b.ended(conversation)).content == "abcdef"
        go_on.set()


# The fence ------------------------------------------------------------------------------------------------------------


async def end_elsewhere(b: Bench, conversation: Conversation, status: Status = Status.FAILED) -> Answer:
    """Another process ends the running attempt, in the store."""
    running = await b.reading.running(conversation.key)
    assert running is not None
    failure = Failure(code=ErrorCode.ANSWER_INTERRUPTED, request_id=None)
    stored = await b.attempts.finish(conversation, replace(running, status=status, failure=failure))
    assert stored is not None
    return stored


@pytest.mark.gen_test
async def test_an_attempt_that_another_process_ended_is_cut_and_told_as_it_is_stored(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            call = await b.model.call(1)
            call.say("So far")
            await watched.until("llm_chunk")
            await beats(b, 2)
            await end_elsewhere(b, conversation)
            await asyncio.wait_for(call.closed.wait(), 10)
            call.say(" and more", STOP)
            await told(watched, "user_message", "llm_chunk", "error", "llm_complete")
            assert watched.text == "So far"
            complete = watched.frames[-1].data
            assert (complete["status"], complete["content"]) == ("failed", "So far")
        assert (await b.newest(conversation)).content == "So far"


@pytest.mark.gen_test
async def test_it_is_found_out_at_the_end_at_the_latest(mongodb_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatstream.generations.checkpointer.CHECKPOINT_INTERVAL", 3600)
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            call = await b.model.call(1)
            call.say("So far")
            await watched.until("llm_chunk")
            await end_elsewhere(b, conversation)
            call.say(" and more", STOP)
            complete = await watched.until("error")
            assert complete["error"] == "answer_interrupted"
        assert (await b.newest(conversation)).status is Status.FAILED


@pytest.mark.gen_test
async def test_a_stop_that_another_process_asked_for_comes_with_the_beat(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        async with b.viewer(conversation) as watched:
            posted = await b.post(conversation)
            assert posted.answer is not None
            call = await b.model.call(1)
            call.say("So far")
            await watched.until("llm_chunk")
            await b.attempts.request_stop(conversation.key, posted.answer.id)
            await told(watched, "user_message", "llm_chunk", "llm_complete")
            assert watched.frames[-1].data["status"] == "stopped"
        assert b.model.open == 0


@pytest.mark.gen_test
async def test_a_deletion_by_another_process_is_found_out(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            call = await b.model.call(1)
            call.say("So far")
            await watched.until("llm_chunk")
            await b.conversations.delete("user", conversation.id)
            assert (await watched.until("error"))["error"] == "conversation_deleted"
            assert await watched.next() is None
        assert b.model.open == 0


@pytest.mark.gen_test
async def test_an_answer_watched_in_another_process_alone_is_cut_when_it_is_left_there(
    mongodb_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatstream.generations.generation._WATCHED_REMOTELY_FOR", 0.05)
    async with bench(mongodb_uri, disconnect_grace=0) as b:
        conversation = await b.conversation()
        posted = await b.post(conversation)
        assert posted.answer is not None
        call = await b.model.call(1)
        await b.attempts.poll(conversation.key, posted.answer)
        await beats(b, 2)
        # The other process has no viewers any more.
        await asyncio.wait_for(call.closed.wait(), 3)
        assert (await b.ended(conversation)).status is Status.INTERRUPTED
