"""Checkpoints of many answers at once. `test_generation` has the effects of a checkpoint on one answer."""

import asyncio
from collections.abc import Sequence

import pytest

from chatstream.models import Answer, Conversation, Status
from chatstream.store.attempts import Checkpoint, CheckpointResult
from tests.support.exposition import samples
from tests.support.scripted_model import STOP, Bench, Call, beats, bench

pytestmark = pytest.mark.usefixtures("short_pauses")

MANY = 12


class Talk:
    """A conversation with a running answer, and the model's call for it."""

    def __init__(self, b: Bench, conversation: Conversation, answer: Answer, call: Call) -> None:
        self._b = b
        self.conversation = conversation
        self.answer = answer
        self.call = call

    async def stored(self) -> str:
        """The stored text so far, which other processes see."""
        running = await self._b.reading.running(self.conversation.key)
        assert running is not None
        return running.content

    async def goes_on(self) -> None:
        """Check that the answer still runs and can end normally."""
        self.call.say("!", STOP)
        ended = await self._b.ended(self.conversation)
        assert (ended.status, ended.content[-1]) == (Status.COMPLETE, "!")


async def talks(b: Bench, count: int = MANY) -> list[Talk]:
    """Begin this many answers."""
    found = []
    for number in range(1, count + 1):
        conversation = await b.conversation()
        posted = await b.post(conversation)
        assert posted.answer is not None
        found.append(Talk(b, conversation, posted.answer, await b.model.call(number)))
    return found


async def before_checkpoint(b: Bench) -> asyncio.Event:
    """Wait until a checkpoint is about to begin; returns the event that lets it begin."""
    arrived: asyncio.Event
    go_on: asyncio.Event
    arrived, go_on = b.store.hold("checkpoint")
    await arrived.wait()
    return go_on


def commands(b: Bench) -> tuple[float, float]:
    """The number of writes and reads sent to the database."""
    found = samples(b.metrics.expose("")[1].decode())
    name = "chatstream_database_command_duration_seconds_count"
    return found[name, "update"], found[name, "find"]


@pytest.mark.gen_test
async def test_however_many_they_are_a_beat_is_one_write_and_one_read(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        running = await talks(b)
        go_on = await before_checkpoint(b)
        begun, (writes, reads) = b.store.called["checkpoint"], commands(b)
        for talk in running:
            talk.call.say("a", "b")
        go_on.set()
        await beats(b, 5)
        await before_checkpoint(b)
        made = b.store.called["checkpoint"] - begun
        assert commands(b) == (writes + made, reads + made)
        assert [await talk.stored() for talk in running] == ["ab"] * MANY


@pytest.mark.gen_test
async def test_when_no_answer_runs_there_is_no_beat(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        for _ in range(2):  # and when one runs again, there is
            (talk,) = await talks(b, 1)
            await beats(b, 2)
            await talk.goes_on()
            b.model.calls.clear()
            made = b.store.called["checkpoint"]
            for _ in range(100):  # longer than several intervals
                await b.mongo.ping()
            assert b.store.called["checkpoint"] == made


@pytest.mark.gen_test
async def test_one_that_was_ended_elsewhere_is_cut_and_the_others_go_on(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        fenced, gone, *others = await talks(b)
        await b.interrupt(fenced.conversation)
        await b.conversations.delete("user", gone.conversation.id)
        for talk in (fenced, gone):
            await asyncio.wait_for(talk.call.closed.wait(), 10)
        await beats(b, 2)
        for talk in others:
            await talk.goes_on()
        assert (await b.newest(fenced.conversation)).status is Status.INTERRUPTED


@pytest.mark.gen_test
async def test_one_whose_result_was_lost_goes_on_behind_what_is_stored(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        ahead, *_ = running = await talks(b)
        go_on = await before_checkpoint(b)
        for talk in running:
            talk.call.say("ab", "c🏟", "d")
        # An earlier write arrives late.
        assert ahead.answer.id in await b.attempts.checkpoint(
            [Checkpoint(ahead.conversation.key, ahead.answer.id, 0, ["abc🏟"])]
        )
        go_on.set()
        await beats(b, 4)
        assert [await talk.stored() for talk in running] == ["abc🏟d"] * MANY
        for talk in running:
            await talk.goes_on()
            assert (await b.newest(talk.conversation)).content == "abc🏟d!"


@pytest.mark.gen_test
async def test_when_all_results_are_lost_all_go_on_behind_what_is_stored(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        running = await talks(b)
        for kind in (b.store.lost, b.store.refused, b.store.lost):
            kind["checkpoint"] = 2
            for talk in running:
                talk.call.say("abc", "d🏟")
            await beats(b, 5)
        assert [await talk.stored() for talk in running] == ["abcd🏟" * 3] * MANY
        for talk in running:
            await talk.goes_on()


@pytest.mark.gen_test
async def test_one_that_another_process_stops_is_stopped_and_the_others_go_on(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        stopped, *others = await talks(b)
        await b.attempts.request_stop(stopped.conversation.key, stopped.answer.id)
        assert (await b.ended(stopped.conversation)).status is Status.STOPPED
        for talk in others:
            await talk.goes_on()


@pytest.mark.gen_test
async def test_a_slow_database_is_asked_one_thing_at_a_time(mongodb_uri: str, caplog: pytest.LogCaptureFixture) -> None:
    async with bench(mongodb_uri) as b:
        first, *others = await talks(b)
        go_on = await before_checkpoint(b)
        begun = b.store.called["checkpoint"]
        for _ in range(100):  # longer than several intervals
            await b.mongo.ping()
        assert b.store.called["checkpoint"] == begun
        await first.goes_on()
        go_on.set()
        await beats(b, 3)
        assert not caplog.records  # the one that ended meanwhile is not told that it is not running
        for talk in others:
            await talk.goes_on()


@pytest.mark.parametrize("bound", ["_BATCH", "_BATCH_CHARACTERS"])
@pytest.mark.gen_test
async def test_more_than_fit_into_one_write_are_stored_in_several(
    mongodb_uri: str, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(f"chatstream.generations.checkpointer.{bound}", 5)
    async with bench(mongodb_uri) as b:
        running = await talks(b)
        sizes: list[int] = []
        checkpoint = b.attempts.checkpoint

        async def spy(checkpoints: Sequence[Checkpoint]) -> dict[str, CheckpointResult]:
            sizes.append(len(checkpoints))
            return await checkpoint(checkpoints)

        go_on = await before_checkpoint(b)
        monkeypatch.setattr(b.attempts, "checkpoint", spy)
        for talk in running:
            talk.call.say("abc")
        b.store.refused["checkpoint"] = 1  # only for the first batch
        go_on.set()
        await beats(b, 12)
        assert max(sizes) <= (5 if bound == "_BATCH" else MANY)
        assert 2 in sizes
        assert [await talk.stored() for talk in running] == ["abc"] * MANY
        for talk in running:
            await talk.goes_on()


@pytest.mark.gen_test
async def test_a_fault_of_ours_does_not_end_it(
    mongodb_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(mongodb_uri) as b:
        running = await talks(b)
        with monkeypatch.context() as faulty:
            faulty.setattr(b.attempts, "checkpoint", None)
            await beats(b, 2)
        assert f"no checkpoint of {MANY} answers: TypeError" in caplog.text
        for talk in running:
            talk.call.say("a")
        await beats(b, 3)
        assert [await talk.stored() for talk in running] == ["a"] * MANY
