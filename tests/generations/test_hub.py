"""The hub: viewers, and the answers that they watch."""

import asyncio
import contextlib
import math

import pytest

from chatstream.errors import (
    ErrorCode,
    StorageUnavailable,
)
from chatstream.formats.registry import DEFAULT
from chatstream.models import Answer, Conversation, Status
from tests.support.client import PATIENCE
from tests.support.scripted_model import STOP, Bench, Viewer, beats, bench, turns

pytestmark = pytest.mark.usefixtures("short_pauses")

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
            assert await b.reading.running(conversation.key) is None
        assert len(b.model.calls) == 1


@pytest.mark.gen_test
async def test_an_owed_answer_is_not_begun_any_more_when_a_newer_message_was_answered(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        b.model.reply("Yes.", STOP)
        conversation = await b.conversation(waiting="One")
        async with b.viewer(conversation, start=False) as slow, b.viewer(conversation, start=False) as watched:
            posted = await b.post(conversation, "Two")
            await watched.until("llm_complete")
            await b.hub.start(slow.stream)  # writing its `connected` took long
            assert await b.reading.running(conversation.key) is None
            assert (await b.newest(conversation)).reply_to == posted.message.id


@pytest.mark.gen_test
async def test_without_a_user_message_there_is_no_model_call(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        async with b.viewer(conversation) as watched:
            assert watched.stream.replay.nothing_comes(DEFAULT)
            assert await b.reading.running(conversation.key) is None
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
        b.store.refused["page"] = 1
        with pytest.raises(StorageUnavailable):
            async with b.viewer(conversation):
                pass
        assert not b.hub._rooms
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
        for kept in (hub._rooms, hub._services.remote, hub._followers):
            assert not kept


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
    async with bench(mongodb_uri, disconnect_grace=1) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation) as watched:
            call = await b.model.call(1)
            call.say("Before. ")
            await watched.until("llm_chunk")
        async with b.viewer(conversation, watched.cursor) as again:
            await asyncio.sleep(1.2)  # nothing may happen in this time, which is longer than the grace
            call.say("After.", STOP)
            complete = await again.until("llm_complete")
            assert (complete["status"], again.text) == ("complete", "After.")
        assert len(b.model.calls) == 1


@pytest.mark.gen_test
async def test_who_comes_back_saves_it_also_after_two_left_in_the_same_moment(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, disconnect_grace=1) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation) as first, b.viewer(conversation) as second:
            call = await b.model.call(1)
            call.say("Before. ")
            await first.until("llm_chunk")
            first.hang_up()  # a laptop with two tabs loses its network: both leave before a handler notices
            second.hang_up()
        async with b.viewer(conversation, first.cursor) as again:
            await asyncio.sleep(1.2)  # nothing may happen in this time, which is longer than the grace
            assert not call.closed.is_set()
            call.say("After.", STOP)
            complete = await again.until("llm_complete")
            assert (complete["status"], again.text) == ("complete", "After.")
        assert len(b.model.calls) == 1


@pytest.mark.gen_test
async def test_what_we_cut_is_begun_again_by_who_comes_later(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation) as watched:
            (await b.model.call(1)).say("So far")
            await watched.until("llm_chunk")
        await beats(b, 2)  # the received text is stored
        await b.interrupt(conversation)
        await b.ended(conversation)
        b.model.reply("All of it.", STOP)
        async with b.viewer(conversation, watched.cursor) as again:
            assert (await again.until("llm_complete"))["status"] == "interrupted"
            complete = await again.until("llm_complete")
            assert (complete["content"], complete["attempt"]) == ("All of it.", 2)
            assert again.types == ["llm_complete", "llm_chunk", "llm_complete"]


@pytest.mark.gen_test
async def test_what_was_cut_because_nobody_watched_is_not_begun_again_by_who_comes_later(mongodb_uri: str) -> None:
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
        async with b.viewer(conversation) as later:
            assert later.stream.replay.nothing_comes(DEFAULT)
        b.model.reply("All of it.", STOP)
        second = await b.commands.regenerate(conversation, request_id="request")
        assert (second.attempt, second.background) == (2, True)
        assert (await b.ended(conversation)).content == "All of it."


@pytest.mark.gen_test
async def test_who_reads_one_answer_is_given_the_attempt_that_follows_one_we_cut(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation, once=True) as watched:
            (await b.model.call(1)).say("So far")
            await watched.until("llm_chunk")
            await beats(b, 2)  # the received text is stored
            b.model.reply("All of it.", STOP)
            await b.interrupt(conversation)
            await watched.rest()
            assert watched.types == ["llm_chunk", "llm_complete", "llm_chunk", "llm_complete"]
            assert watched.frames[-1].data["content"] == "All of it."


@pytest.mark.gen_test
async def test_the_third_cut_is_a_failure_and_ends_it(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation(waiting="Tell me.")
        statuses = []
        for number in (1, 2, 3):
            async with b.viewer(conversation):
                await b.model.call(number)
            for room in b.hub._rooms.values():
                assert room.generation is not None
                room.generation.cut(Status.INTERRUPTED)  # as at the end of a process
            statuses.append((await b.ended(conversation)).status)
        assert statuses == [Status.INTERRUPTED, Status.INTERRUPTED, Status.FAILED]
        async with b.viewer(conversation) as watched:
            assert (await watched.until("error"))["error"] == "answer_interrupted"
            assert await b.reading.running(conversation.key) is None
        assert len(b.model.calls) == 3


@pytest.mark.gen_test
async def test_what_was_cut_while_somebody_watches_begins_again(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation) as watched:
            (await b.model.call(1)).say("So far")
            await watched.until("llm_chunk")
            await beats(b, 2)  # the received text is stored
            b.model.reply("Again.", STOP)
            await b.interrupt(conversation)
            assert (await watched.until("llm_complete"))["status"] == "interrupted"
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
        assert await b.reading.page(conversation.key, limit=10, before=None) == []


@pytest.mark.gen_test
async def test_deletion_is_said_once_to_who_reads_slowly(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation) as watched:
            call = await b.model.call(1)
            await delete(b, conversation)
            await watched.until("error")  # this is being written when the answer's own end finds the viewer gone
            await asyncio.wait_for(call.closed.wait(), 10)
            while b.hub.generates_in(conversation):
                await b.mongo.ping()
            await watched.rest()
            assert codes(watched) == ["conversation_deleted"]


@pytest.mark.gen_test
async def test_deletion_ends_also_the_stream_that_is_just_being_opened(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        reading, go_on = b.store.hold("page", behind=True)

        async def watch() -> list[str]:
            async with b.viewer(conversation) as watched:
                async with asyncio.timeout(PATIENCE):
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
            assert codes(watched) == ["server_shutdown"]
            assert watched.types == ["llm_chunk", "llm_complete", "error"]
        newest = await b.newest(conversation)
        assert (newest.status, newest.content) == (Status.INTERRUPTED, "So far")
        assert len(b.model.calls) == 1
        assert b.model.open == 0


@pytest.mark.gen_test
async def test_who_had_left_when_a_deploy_cut_it_is_not_made_to_pay_twice(mongodb_uri: str) -> None:
    """The grace period was not over, but no user has asked for another attempt."""
    async with bench(mongodb_uri, disconnect_grace=60) as b:
        conversation = await b.conversation(waiting="Tell me.")
        async with b.viewer(conversation) as watched:
            (await b.model.call(1)).say("So far")
            await watched.until("llm_chunk")
        await b.hub.drain(0.01)
        newest = await b.newest(conversation)
        assert isinstance(newest, Answer)
        assert (newest.status, newest.content, newest.begins_again) == (Status.INTERRUPTED, "So far", False)
    async with bench(mongodb_uri) as after:
        async with after.viewer(conversation) as watched:
            assert (await watched.until("error"))["error"] == "answer_interrupted"
        assert after.model.calls == []


@pytest.mark.gen_test
async def test_the_shutdown_is_said_once_to_who_reads_slowly(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        quiet, busy = await b.conversation(), await b.conversation(waiting="Tell me.")
        async with b.viewer(quiet) as watched:
            await b.reading.running(busy.key)
            await b.post(quiet)
            call = await b.model.call(1)
            call.say(STOP)
            await watched.until("llm_complete")
            draining = asyncio.create_task(b.hub.drain(30))
            await watched.until("error")  # the frame is being written until the drain is over
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

        b.store.finish = broken
        b.model.reply("Yes.", STOP)
        async with b.viewer(conversation) as watched:
            await watched.rest()
            assert codes(watched) == ["internal"]
        assert "lost" in caplog.text
        assert not b.hub._rooms


@pytest.mark.gen_test
async def test_of_many_quiet_streams_each_has_its_heartbeat(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, heartbeat_interval=0) as b, contextlib.AsyncExitStack() as stack:
        conversation = await b.conversation()
        many = 250  # more streams than one tick handles at once
        viewers = [await stack.enter_async_context(b.viewer(conversation)) for _ in range(many)]
        reading = [asyncio.create_task(viewer.until("heartbeat")) for viewer in viewers]
        await turns()
        await b.hub.tick()
        await asyncio.gather(*reading)
