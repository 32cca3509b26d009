"""A request for a stream reads the conversation and its newest messages together, before the room exists that receives
changes. No change in between may be lost.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chatstream.errors import StorageUnavailable
from chatstream.events import Cursor
from chatstream.formats import registry
from chatstream.generations.ahead import ReadAhead, Unheard
from chatstream.generations.commands import IfBusy
from chatstream.generations.replay import NEWEST
from chatstream.models import Conversation
from chatstream.store.changes import Deleted, Stored
from tests.support.scripted_model import STOP, Bench, Viewer, bench

Meanwhile = Callable[[Bench, Bench, Conversation], Awaitable[None]]


async def _posted_elsewhere(here: Bench, there: Bench, conversation: Conversation) -> None:
    there.model.reply("From there.", STOP)
    posted = await there.post(conversation, "And now?")
    await there.ended(conversation)
    await here.hub.changed(Stored(conversation.key, posted.message))
    assert posted.answer is not None
    await here.hub.changed(Stored(conversation.key, posted.answer))


async def _answered_here(here: Bench, there: Bench, conversation: Conversation) -> None:
    here.model.reply("From here.", STOP)
    await here.post(conversation, "And now?")
    await here.ended(conversation)


async def _stored_without_a_result(here: Bench, there: Bench, conversation: Conversation) -> None:
    here.store.lost["post"] = 1
    with pytest.raises(StorageUnavailable):
        await here.post(conversation, "And now?")


async def _not_heard(here: Bench, there: Bench, conversation: Conversation) -> None:
    there.model.reply("From there.", STOP)
    await there.post(conversation, "And now?")
    await there.ended(conversation)
    await here.hub.resync()  # the change stream had a gap


async def _queued_elsewhere(here: Bench, there: Bench, conversation: Conversation) -> None:
    await there.post(conversation, "And now?")
    queued = await there.post(conversation, "And then?", if_busy=IfBusy.QUEUE)
    await here.hub.changed(Stored(conversation.key, queued.message))


@pytest.mark.parametrize(
    "meanwhile", [_posted_elsewhere, _answered_here, _stored_without_a_result, _not_heard, _queued_elsewhere]
)
@pytest.mark.gen_test
async def test_what_happens_before_the_room_is_there_is_not_missed(mongodb_uri: str, meanwhile: Meanwhile) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there:
        conversation = await here.conversation()
        ahead = await _read(here, conversation)
        assert not ahead.newest
        await meanwhile(here, there, conversation)
        async with here.hub.follow(conversation, None, registry.DEFAULT, **_options(), ahead=ahead) as stream:
            assert stream.replay.place > (0, Cursor.START)
            newest = await here.reading.newest(conversation.key)
            assert newest is not None
            assert newest.seq - stream.replay.place[0] <= 1  # a question that waits for its turn comes with its answer


@pytest.mark.gen_test
async def test_a_conversation_that_is_deleted_before_the_room_is_there_is_not_answered(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here:
        conversation = await here.conversation(waiting="And now?")
        ahead = await _read(here, conversation)
        assert len(ahead.newest) == 1
        await here.conversations.delete(conversation.user_id, conversation.id)
        await here.hub.changed(Deleted(conversation.key))
        async with here.hub.follow(conversation, None, registry.DEFAULT, **_options(), ahead=ahead) as stream:
            assert stream.replay.pending is None


@pytest.mark.gen_test
async def test_what_is_current_is_not_read_again(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here:
        conversation = await here.conversation(waiting="And now?")
        here.model.reply("Now.", STOP)
        async with here.viewer(conversation, reads_ahead=True, once=True) as viewer:
            await viewer.rest()
        assert viewer.text == "Now."
        assert (here.store.called["get_with_newest"], here.store.called["page"]) == (1, 0)


@pytest.mark.gen_test
async def test_who_comes_to_a_room_that_is_there_reads_with_it(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here:
        conversation = await here.conversation()
        ahead = await _read(here, conversation)
        async with here.viewer(conversation) as first:
            call = await _asked(here, conversation, first)
            async with here.hub.follow(conversation, None, registry.DEFAULT, **_options(), ahead=ahead) as stream:
                second = Viewer(stream)
                call.say("Now.", STOP)
                assert (await second.until("llm_complete"))["content"] == "Now."


def test_what_is_noted_takes_the_same_memory_whatever_happens() -> None:
    unheard = Unheard()
    before = unheard.moment
    for number in range(20_000):
        unheard.happened(str(number))
    assert all(unheard.since(before, str(number)) for number in range(20_000))
    assert not unheard.since(unheard.moment, "0")
    assert len(unheard._last) < 20_000
    after = unheard.moment
    unheard.happened_to_any()
    assert unheard.since(after, "never heard of")


async def _read(b: Bench, conversation: Conversation) -> ReadAhead:
    moment = b.hub.moment
    _, newest = await b.conversations.get_with_newest(conversation.user_id, conversation.id, NEWEST)
    assert newest is not None
    return ReadAhead(moment, newest)


async def _asked(b: Bench, conversation: Conversation, viewer: Viewer) -> Any:
    await b.post(conversation, "And now?")
    await viewer.until("user_message")
    return await b.model.call(1)


def _options() -> dict[str, Any]:
    return {"once": False, "expires_at": float("inf"), "request_id": "request"}
