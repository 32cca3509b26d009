"""The viewers of one process, while another process generates the answer. `test_cluster` tests two whole processes."""

import asyncio
import contextlib
import uuid
from typing import Any

import pytest
from bson import ObjectId
from msgspec.structs import replace

from chatstream.errors import StorageUnavailable, TooManyRequests
from chatstream.events import Cursor
from chatstream.generations.commands import IfBusy
from chatstream.models import Answer, Conversation, Status
from chatstream.store.changes import Deleted, Ended, Stored, Withdrawn
from chatstream.store.conversations import moved_head
from chatstream.store.erasures import Erasures
from tests.support.scripted_model import STOP, Bench, Call, beats, bench, following, polled, turns

pytestmark = pytest.mark.usefixtures("short_pauses", "soon_published_to_viewers_only")


@pytest.fixture
def soon_published_to_viewers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish checkpoints only to processes with viewers, as for answers that began long ago."""
    monkeypatch.setattr("chatstream.generations.generation._PUBLISHED_TO_ALL_FOR", 0)


async def saying(b: Bench, conversation: Conversation) -> Call:
    """Ask a question whose answer so far, "First", is stored. Returns the model's call, which goes on."""
    await b.post(conversation, "One?")
    call = await b.model.call(1)
    call.say("First")
    await beats(b, 2)
    return call


@pytest.mark.gen_test
async def test_of_what_nobody_watches_elsewhere_other_processes_hear_the_end_alone(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there, following(there) as seen:
        conversation = await here.conversation()
        async with here.viewer(conversation) as watched:
            posted = await here.post(conversation)
            call = await here.model.call(1)
            for text in ("One ", "two "):
                call.say(text)
                await beats(here, 2)
            call.say("three.", STOP)
            await watched.until("llm_complete")
        assert posted.answer is not None
        ours = posted.answer.id
        changes: list[str] = []
        while not changes or not changes[-1].startswith("Ended"):
            change = await seen.get()
            changes += [change] if ours in change else []
        assert [change.partition("(")[0] for change in changes] == ["Stored", "Ended"]


@pytest.mark.gen_test
async def test_who_comes_later_and_from_elsewhere_misses_nothing(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there, following(there):
        conversation = await here.conversation()
        await here.post(conversation)
        call = await here.model.call(1)
        call.say("One ")
        await beats(here, 2)
        arrived, go_on = here.store.hold("checkpoint")
        call.say("two ")
        await arrived.wait()
        async with there.viewer(conversation) as watched:
            go_on.set()  # this checkpoint is not published
            await beats(here, 2)
            await polled(there)
            while watched.text != "One two ":
                assert await watched.next() is not None
            call.say("three.")  # this one is, to the process with viewers
            while watched.text != "One two three.":
                assert await watched.next() is not None
            call.say(STOP)
            assert (await watched.until("llm_complete"))["content"] == "One two three."


# What two processes once lost or doubled between them ----------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_slow_poll_drops_nothing_of_what_a_returning_viewer_follows(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there, following(there):
        first, second = await here.conversation(), await here.conversation()
        await here.post(first, "1?")
        await here.post(second, "2?")
        one, two = await here.model.call(1), await here.model.call(2)
        one.say("a")
        two.say("b")
        await beats(here, 2)
        async with there.viewer(first):
            await polled(there)
            stack = contextlib.AsyncExitStack()
            await stack.enter_async_context(there.viewer(second))
            arrived, go_on = there.store.hold("poll")
            there.hub.poll()
            await arrived.wait()
            del there.store.gates["poll"]  # only these polls are slow
            await stack.aclose()  # the client disconnects and reconnects at once
            async with there.viewer(second) as again:
                go_on.set()
                two.say("c", STOP)
                assert (await again.until("llm_complete"))["content"] == "bc"


@pytest.mark.gen_test
async def test_the_end_of_a_remote_answer_is_published_before_the_next_one_begins_here(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there:  # no change arrives
        conversation = await here.conversation()
        call = await saying(here, conversation)
        async with there.viewer(conversation) as watched:
            call.say(" and more.")
            await beats(here, 3)
            await polled(there)
            call.say(STOP)
            await here.ended(conversation)
            there.model.reply("Second.", STOP)
            await there.post(conversation, "Two?")
            assert (await watched.until("llm_complete"))["content"] == "First and more."
            assert (await watched.until("llm_complete"))["content"] == "Second."
            assert watched.types == ["llm_chunk", "llm_complete", "user_message", "llm_chunk", "llm_complete"]


@pytest.mark.gen_test
async def test_who_missed_more_than_a_page_is_disconnected_and_reads_it_by_cursor(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there:
        conversation = await here.conversation()
        contents = [f"Question {number}" for number in range(25)]
        asked: list[str] = []
        start = Cursor(conversation.key, Cursor.START)
        async with there.viewer(conversation, start) as watched:
            for number, content in enumerate(contents, 1):
                here.model.reply("Yes.", STOP)
                await here.post(conversation, content)
                await here.model.call(number)
                await here.ended(conversation)
            await there.hub.resync()
            assert await watched.rest() == []  # the stream ends without an event
        async with there.viewer(conversation, watched.cursor or start) as again:
            while len(asked) < len(contents):
                asked.append((await again.until("user_message"))["content"])
        assert asked == contents


@pytest.mark.gen_test
async def test_two_who_join_at_the_same_moment_both_get_all_of_it(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there, contextlib.AsyncExitStack() as stack:
        conversation = await here.conversation()
        posted = await here.post(conversation)
        assert posted.answer is not None
        call = await here.model.call(1)
        call.say("0123456789")
        await beats(here, 2)
        arrived, go_on = there.store.hold("behind")  # the second read of a viewer that resumes
        cursor = Cursor(posted.answer.id, 4)
        joining = asyncio.create_task(stack.enter_async_context(there.viewer(conversation, cursor)))
        await arrived.wait()
        call.say("ABCDEFGHIJ")
        await beats(here, 3)
        async with there.viewer(conversation) as second:
            go_on.set()
            first = await joining
            call.say("xyz")
            await beats(here, 3)
            await polled(there)
            while first.text != "456789ABCDEFGHIJxyz":
                frame = await first.next()
                assert frame is not None
                assert frame.data["offset"] + len(frame.data["content"]) == 4 + len(first.text)
            while second.text != "0123456789ABCDEFGHIJxyz":
                assert await second.next() is not None


# One room is one conversation's alone --------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_conversation_whose_reads_are_slow_delays_no_other(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there, following(there):
        slow, fast = await here.conversation(), await here.conversation()
        async with there.viewer(slow) as delayed, there.viewer(fast) as watched:
            arrived, go_on = there.store.hold("poll")
            await here.post(slow)
            call = await here.model.call(1)
            await arrived.wait()
            del there.store.gates["poll"]
            here.model.reply("Fast.", STOP)
            await here.post(fast)
            assert (await watched.until("llm_complete"))["content"] == "Fast."
            go_on.set()
            call.say("Slow.", STOP)
            assert (await delayed.until("llm_complete"))["content"] == "Slow."


@pytest.mark.gen_test
async def test_after_a_gap_nothing_is_read_for_those_who_missed_nothing(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b, contextlib.AsyncExitStack() as stack:
        conversations = [await b.conversation() for _ in range(5)]
        for conversation in conversations[1:]:
            b.model.reply("Yes.", STOP)
            await b.post(conversation)
            await b.ended(conversation)
        for conversation in conversations:
            await stack.enter_async_context(b.viewer(conversation))
        before = b.store.called.copy()
        await b.hub.resync()
        assert b.store.called - before == {"newest_seqs": 1, "shown": 1}


@pytest.mark.gen_test
@pytest.mark.parametrize("waiting", [None, "Tell me."])
async def test_a_gap_in_which_a_conversation_was_deleted_ends_its_streams(
    mongodb_uri: str, waiting: str | None
) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there:
        conversation = await here.conversation(waiting)
        async with there.viewer(conversation, start=False) as watched:
            await here.conversations.delete("user", conversation.id)
            await there.hub.resync()
            assert [frame.data["error"] for frame in await watched.rest()] == ["conversation_deleted"]


@pytest.mark.gen_test
async def test_a_gap_in_which_an_erasure_has_begun_ends_the_streams(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there:
        user = f"user-{uuid.uuid4().hex}"
        conversation = await here.conversations.create(user)
        here.model.reply("Yes.", STOP)
        await here.post(conversation)
        await here.ended(conversation)
        erasures = Erasures(here.mongo)
        async with there.viewer(conversation) as watched:
            erasure = await erasures.begin(user)
            batch = await erasures.next_batch(erasure.id)
            assert batch is not None
            await erasures.erase_conversations(erasure.id, batch)  # its messages are deleted later
            await there.hub.resync()
            assert [frame.data["error"] for frame in await watched.rest()] == ["conversation_deleted"]


@pytest.mark.gen_test
async def test_after_a_gap_viewers_are_told_a_new_title_once(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there:
        conversation = await here.conversations.create("user", title="First")
        async with there.viewer(conversation) as watched:
            there.hub.titled(await there.conversations.update("user", conversation.id, {"title": "Second"}))
            await here.conversations.update("user", conversation.id, {"title": "Third"})
            for _ in range(2):
                await there.hub.resync()
            await here.conversations.update("user", conversation.id, {"title": None})
            await there.hub.resync()
            assert [(await watched.until("title"))["title"] for _ in range(3)] == ["Second", "Third", None]


@pytest.mark.gen_test
async def test_after_a_gap_viewers_are_told_what_others_have_read_meanwhile(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there:
        conversation = await here.conversations.create("user", title="First")
        here.model.reply("Yes.", STOP)
        posted = await here.post(conversation)
        await here.ended(conversation)
        async with there.viewer(conversation) as watched:
            head = moved_head(posted.message.id, here.owner)
            changed = await here.conversations.update("user", conversation.id, {"title": "Second"}, head=head)
            async with there.viewer(changed):
                await there.hub.resync()
                assert (await watched.until("branch"))["head"] == posted.message.id
                assert (await watched.until("title"))["title"] == "Second"


@pytest.mark.gen_test
async def test_after_a_gap_no_title_is_told_that_was_changed_here_during_the_read(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there:
        conversation = await here.conversations.create("user", title="First")
        async with there.viewer(conversation) as watched:
            await here.conversations.update("user", conversation.id, {"title": "Second"})
            read, go_on = there.store.hold("shown", behind=True)
            resync = asyncio.create_task(there.hub.resync())
            await read.wait()
            there.hub.titled(await there.conversations.update("user", conversation.id, {"title": "Third"}))
            go_on.set()
            await resync
            await here.conversations.update("user", conversation.id, {"title": "Fourth"})
            await there.hub.resync()
            assert [(await watched.until("title"))["title"] for _ in range(2)] == ["Third", "Fourth"]


@pytest.mark.gen_test
@pytest.mark.parametrize("at_the_end", [False, True])
async def test_after_a_gap_viewers_are_told_which_messages_were_taken_back(mongodb_uri: str, at_the_end: bool) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there:
        conversation = await here.conversation()
        call = await saying(here, conversation)
        async with there.viewer(conversation) as watched:
            await watched.until("llm_chunk")
            queued = await there.post(conversation, "Two?", if_busy=IfBusy.QUEUE)
            await here.commands.withdraw(conversation, queued.message.id)
            if at_the_end:  # within the gap
                call.say(STOP)
                await here.ended(conversation)
            await there.hub.resync()
            assert (await watched.until("withdrawn"))["messageId"] == queued.message.id
            assert there.store.called["withdrawn_after"] == 1
            if not at_the_end:
                call.say(STOP)
                await here.ended(conversation)
                await there.hub.resync()
            assert (await watched.until("llm_complete"))["content"] == "First"


@pytest.mark.gen_test
async def test_what_still_comes_for_a_room_that_is_closed_is_dropped(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there:
        conversation = await here.conversation()
        async with there.viewer(conversation) as watched:
            room = watched.stream.room
        posted = await here.post(conversation)
        assert posted.answer is not None
        for change in (Stored(conversation.key, posted.message), Ended(posted.answer.id), Deleted(conversation.key)):
            room.heard(change)
        room.tick(float("inf"))
        assert not there.hub._rooms
        assert "poll" not in there.store.called


@pytest.mark.gen_test
async def test_an_end_that_cannot_be_read_at_first_is_read_later(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there, following(there):
        conversation = await here.conversation()
        async with there.viewer(conversation) as watched:
            await here.post(conversation)
            call = await here.model.call(1)
            call.say("Yes.")
            await beats(here, 2)
            await polled(there)
            await watched.until("llm_chunk")
            there.store.refused["after"] = 3
            call.say(STOP)
            await here.ended(conversation)
            reading = asyncio.create_task(watched.until("llm_complete"))
            while not reading.done():
                there.hub.poll()
                await asyncio.sleep(0.005)  # until the next try is due
            assert reading.result()["content"] == "Yes."


@pytest.mark.gen_test
async def test_a_question_that_is_heard_of_after_it_was_taken_back_keeps_nobody_out(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there:
        conversation = await here.conversation()
        await there.post(conversation, "1")
        call = await there.model.call(1)
        queued = await there.post(conversation, "2", if_busy=IfBusy.QUEUE)
        await there.commands.withdraw(conversation, queued.message.id)
        call.say("One.", STOP)
        await there.ended(conversation)
        async with here.viewer(conversation) as watched:
            await here.hub.changed(Stored(conversation.key, queued.message))
            await here.hub.changed(Withdrawn(conversation.key, queued.message.id))
            assert (await watched.until("withdrawn"))["messageId"] == queued.message.id
            async with here.viewer(conversation, Cursor(conversation.key, Cursor.START)) as other:
                assert (await other.until("llm_complete"))["content"] == "One."
                here.model.reply("Three.", STOP)
                await here.post(conversation, "3")
                for viewer in (watched, other):
                    assert (await viewer.until("llm_complete"))["content"] == "Three."


# A field of an answer in a shape that only a later version can read.
UNREADABLE: list[dict[str, Any]] = [{"createdAt": "2026"}, {"owner": {"host": "x"}}]


async def make_unreadable(b: Bench, answer: Answer | None, change: dict[str, Any]) -> None:
    """Change the stored answer as a later version may."""
    assert answer is not None
    await b.mongo.messages.update_one({"_id": ObjectId(answer.id)}, {"$set": change})


@pytest.mark.parametrize("change", UNREADABLE, ids=str)
@pytest.mark.parametrize("queued", [False, True], ids=["nothing queued", "a question queued"])
@pytest.mark.gen_test
async def test_a_remote_answer_that_becomes_unreadable_ends_the_streams_and_keeps_nobody_out(
    mongodb_uri: str, change: dict[str, Any], queued: bool
) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there, following(there):
        conversation = await here.conversation()
        start = Cursor(conversation.key, Cursor.START)
        async with there.viewer(conversation, start) as watched, here.viewer(conversation) as own:
            posted = await here.post(conversation, "1")
            call = await here.model.call(1)
            call.say("One")
            await beats(here, 2)
            await polled(there)
            await watched.until("llm_chunk")
            await make_unreadable(here, posted.answer, change)
            async with here.viewer(conversation, start) as other:  # here, its text is known
                for one in (here, there, here, there):  # either may answer what is queued
                    one.model.reply("Next.", STOP)
                if queued:
                    await there.post(conversation, "2", if_busy=IfBusy.QUEUE)
                call.say(".", STOP)
                for viewer in (own, other):
                    assert (await viewer.until("llm_complete"))["content"] == "One."
            assert [frame.type for frame in await watched.rest()][-1] == "llm_chunk"  # it ends without an event
        async with there.viewer(conversation, watched.cursor) as again, there.viewer(conversation) as fresh:
            await here.post(conversation, "3", if_busy=IfBusy.QUEUE)
            for viewer in (again, fresh):
                while (await viewer.until("user_message"))["content"] != "3":
                    pass
                assert (await viewer.until("llm_complete"))["content"] == "Next."
        assert len(here.model.calls) + len(there.model.calls) <= 2 + queued


@pytest.mark.parametrize("change", [*UNREADABLE, {"usage": ["9 tokens"]}, {"role": "agent"}], ids=str)
@pytest.mark.gen_test
async def test_an_answer_that_becomes_unreadable_after_its_end_keeps_nobody_out(
    mongodb_uri: str, change: dict[str, Any]
) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        start = Cursor(conversation.key, Cursor.START)
        b.model.reply("One.", STOP)
        async with b.viewer(conversation) as watched:
            posted = await b.post(conversation, "1")
            await watched.until("llm_complete")
            await make_unreadable(b, posted.answer, change)
            async with (
                b.viewer(conversation) as fresh,
                b.viewer(conversation, start) as whole,
                b.viewer(conversation, watched.cursor) as again,
            ):
                assert (await whole.until("user_message"))["content"] == "1"
                b.model.reply("Two.", STOP)
                await b.post(conversation, "2")
                for viewer in (watched, fresh, whole, again):
                    assert (await viewer.until("user_message"))["content"] == "2"
                    assert (await viewer.until("llm_complete"))["content"] == "Two."
        assert len(b.model.calls) == 2


@pytest.mark.gen_test
async def test_an_answer_that_gets_an_unknown_status_after_its_end_keeps_nobody_out(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        b.model.reply("One.", STOP)
        async with b.viewer(conversation) as watched:
            posted = await b.post(conversation, "1")
            await watched.until("llm_complete")
            await make_unreadable(b, posted.answer, {"status": "moderated"})
            for cursor in (None, Cursor(conversation.key, Cursor.START)):
                async with b.viewer(conversation, cursor) as other:
                    assert (await other.until("llm_chunk"))["content"] == "One."


# What is answered, and with what --------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_queued_message_is_answered_with_the_conversation_as_it_is_then(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        await b.post(conversation, "1")
        call = await b.model.call(1)
        await b.post(conversation, "2", if_busy=IfBusy.QUEUE)
        await b.conversations.update("user", conversation.id, {"model": "other", "system_prompt": "Be long."})
        call.say(STOP)
        second = await b.model.call(2)
        assert (second.model, second.turns[0].content) == ("other", "Be long.")


@pytest.mark.gen_test
async def test_a_cursor_behind_a_queued_message_does_not_hide_the_running_answer_from_others(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there, following(there):
        conversation = await here.conversation()
        await here.post(conversation, "1")
        call = await here.model.call(1)
        call.say("One")
        await beats(here, 2)
        queued = await here.post(conversation, "2", if_busy=IfBusy.QUEUE)
        for b in (here, there):
            b.model.reply("Two.", STOP)
        async with there.viewer(conversation, Cursor(queued.message.id, Cursor.USER), once=True) as own:
            async with there.viewer(conversation) as other:
                call.say(".", STOP)
                assert (await other.until("llm_complete"))["content"] == "One."
                assert (await other.until("llm_complete"))["content"] == "Two."
            await own.rest()
            assert own.text == "Two."


@pytest.mark.gen_test
async def test_an_end_that_cannot_be_marked_as_seen_closes_no_stream(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        b.model.reply("Yes.", STOP)
        await b.post(conversation)
        await b.ended(conversation)
        async with b.viewer(conversation) as watched:
            await watched.until("llm_complete")
            b.store.refused["mark_seen"] = 1
            await b.hub.seen(watched.stream)
            b.model.reply("More.", STOP)
            await b.post(conversation)
            assert (await watched.until("llm_complete"))["content"] == "More."


@pytest.mark.gen_test
async def test_a_stream_that_was_accepted_with_its_message_is_not_refused_for_the_limit(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation(waiting="Tell me.")
        answers = b.hub._services.answers
        slots = [answers.grant("user") for _ in range(1000)]
        with pytest.raises(TooManyRequests):
            async with b.viewer(conversation):
                pass
        b.model.reply("Yes.", STOP)
        async with b.viewer(conversation, accepted=True) as watched:
            assert (await watched.until("llm_complete"))["status"] == Status.COMPLETE
        for slot in slots:
            slot.release()


# What this process has begun and knows nothing of, because the result of the write was lost -------------------------


@pytest.mark.parametrize("hears", [True, False], ids=["by a change", "by a poll"])
@pytest.mark.gen_test
async def test_the_end_of_a_forgotten_answer_is_told_whoever_ends_it(mongodb_uri: str, hears: bool) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there, contextlib.AsyncExitStack() as stack:
        if hears:
            await stack.enter_async_context(following(here))
        conversation = await here.conversation()
        here.store.lost["post"] = 1
        with pytest.raises(StorageUnavailable):
            await here.post(conversation)
        async with here.viewer(conversation, Cursor(conversation.key, Cursor.START)) as watched:
            await watched.until("user_message")
            running = await there.reading.running(conversation.key)
            assert running is not None
            await there.attempts.finish(conversation, replace(running, status=Status.STOPPED))
            told = asyncio.create_task(watched.until("llm_complete"))
            while not told.done():
                if not hears:
                    here.hub.poll()
                await asyncio.sleep(0.005)  # a poll of its own may have come before
            assert told.result()["status"] == "stopped"
        assert here.model.calls == []


@pytest.mark.gen_test
async def test_a_forgotten_answer_that_is_watched_is_given_when_its_message_is_posted_again(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here:
        conversation = await here.conversation()
        here.store.lost["post"] = 1
        with pytest.raises(StorageUnavailable):
            await here.post(conversation, client_message_id="m1")
        async with here.viewer(conversation, Cursor(conversation.key, Cursor.START)) as watched:
            here.model.reply("Here ", "it is.", STOP)
            assert (await here.post(conversation, client_message_id="m1")).repeated
            assert (await watched.until("llm_complete"))["content"] == "Here it is."
            assert watched.text == "Here it is."
            assert watched.types == ["user_message", "llm_chunk", "llm_complete"]


@pytest.mark.gen_test
async def test_those_who_watch_are_told_a_message_whose_result_was_lost(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here:
        conversation = await here.conversation()
        async with here.viewer(conversation) as watched:
            here.store.lost["post"] = 1
            with pytest.raises(StorageUnavailable):
                await here.post(conversation, "Was it stored?")
            await polled(here)
            assert (await watched.until("user_message"))["content"] == "Was it stored?"


@pytest.mark.gen_test
async def test_who_joins_while_an_answer_ends_misses_nothing_of_what_it_had_before(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, contextlib.AsyncExitStack() as stack:
        conversation = await here.conversation()
        here.store.hold("checkpoint")  # nothing of its text is stored before it ends
        await here.post(conversation)
        call = await here.model.call(1)
        call.say("Early ")
        room = here.hub._rooms[conversation.key]
        while room.channel.running is None or room.channel.running.length < len("Early "):
            await asyncio.sleep(0)
        arrived, go_on = here.store.hold("behind", behind=True)
        start = Cursor(conversation.key, Cursor.START)
        joining = asyncio.create_task(stack.enter_async_context(here.viewer(conversation, start)))
        await arrived.wait()
        call.say("and late.", STOP)
        await here.ended(conversation)
        go_on.set()
        watched = await joining
        assert (await watched.until("llm_complete"))["content"] == "Early and late."
        assert watched.text == "Early and late."


# Before an answer is known to be stored -------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_no_model_is_asked_before_the_beginning_is_known_to_be_stored(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here:
        conversation = await here.conversation(waiting="Who wins?")
        arrived, go_on = here.store.hold("begin", behind=True)
        async with here.viewer(conversation, start=False, once=True) as viewer:
            starting = asyncio.create_task(here.hub.start(viewer.stream))
            await arrived.wait()
            await turns()
            assert not here.model.calls
            go_on.set()
            await starting
            (await here.model.call(1)).say("Ireland.", STOP)
            await viewer.rest()
            assert viewer.text == "Ireland."
        assert len(here.model.calls) == 1


@pytest.mark.parametrize("fate", ["refused", "lost"])
@pytest.mark.gen_test
async def test_no_model_is_asked_where_the_beginning_is_not_known_to_be_stored(mongodb_uri: str, fate: str) -> None:
    async with bench(mongodb_uri) as here:
        conversation = await here.conversation(waiting="Who wins?")
        getattr(here.store, fate)["begin"] = 1
        async with here.viewer(conversation, start=False) as viewer:
            with pytest.raises(StorageUnavailable):
                await here.hub.start(viewer.stream)
        await turns()
        assert not here.model.calls
        assert not here.hub._rooms


@pytest.mark.gen_test
async def test_of_two_processes_that_prepare_an_answer_one_asks(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there:
        conversation = await here.conversation(waiting="Who wins?")
        async with (
            here.viewer(conversation, start=False, reads_ahead=True) as one,
            there.viewer(conversation, start=False, reads_ahead=True) as other,
        ):
            await asyncio.gather(here.hub.start(one.stream), there.hub.start(other.stream))
            asked, idle = (here, there) if here.hub.generates_in(conversation) else (there, here)
            await asked.model.call(1)
            await turns()
            assert not idle.model.calls


@pytest.mark.gen_test
async def test_what_was_changed_while_the_beginning_was_stored_counts(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here:
        conversation = await here.conversation(waiting="Who wins?")
        arrived, go_on = here.store.hold("begin", behind=True)
        async with here.viewer(conversation, start=False) as viewer:
            starting = asyncio.create_task(here.hub.start(viewer.stream))
            await arrived.wait()
            changed = await here.conversations.update("user", conversation.id, {"system_prompt": "Be kind."})
            async with here.viewer(changed, start=False):
                go_on.set()
                await starting
                call = await here.model.call(1)
                assert call.turns[0].content == "Be kind."
