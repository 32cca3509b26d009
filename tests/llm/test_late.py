"""A model that is not there yet when its first answers begin."""

import asyncio
from contextlib import aclosing

import pytest

from chatstream.llm.late import LateModel
from chatstream.llm.model import Turn
from chatstream.pieces import text as text_of
from tests.support.scripted_model import STOP, ScriptedModel

TURNS = [Turn("user", "Tell me.")]


async def text(late: LateModel) -> str:
    async with aclosing(late.stream(TURNS, model="m")) as deltas:
        return text_of([piece async for delta in deltas for piece in delta.pieces])


@pytest.mark.gen_test
async def test_an_answer_that_begins_before_the_model_is_there_waits_for_it() -> None:
    scripted = ScriptedModel()
    scripted.reply("a", "b", STOP)
    importing = asyncio.Event()

    async def make() -> ScriptedModel:
        await importing.wait()
        return scripted

    late = LateModel(make)
    early = asyncio.create_task(text(late))
    loading = asyncio.create_task(late.load())
    await asyncio.sleep(0)
    assert scripted.calls == []
    importing.set()
    await loading
    assert await early == "ab"
    assert (scripted.calls[0].turns, scripted.calls[0].model, scripted.open) == (TURNS, "m", 0)


@pytest.mark.gen_test
async def test_an_answer_that_is_cut_while_it_waits_never_calls_the_model() -> None:
    scripted = ScriptedModel()

    async def make() -> ScriptedModel:
        return scripted

    late = LateModel(make)
    early = asyncio.create_task(text(late))
    await asyncio.sleep(0)
    early.cancel()
    await asyncio.wait([early])
    await late.load()
    scripted.reply("a", STOP)
    assert await text(late) == "a"
    assert len(scripted.calls) == 1


@pytest.mark.gen_test
async def test_it_can_be_closed_before_it_is_there() -> None:
    async def make() -> ScriptedModel:
        return ScriptedModel()

    await LateModel(make).close()
