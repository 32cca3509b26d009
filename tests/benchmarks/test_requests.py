"""The cost of one answer in Python, as a count and not a time: the function calls on the event loop's thread.

A call costs about a microsecond on an idle machine. The counts hardly differ from run to run; `scripts/bench` measures
the time.
"""

import concurrent.futures
import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from types import FrameType, ModuleType

import httpx2
import openai
import pytest

import chatstream
from chatstream.llm.catalogue import Deadlines
from chatstream.llm.model import Turn
from chatstream.llm.openai_model import OpenAIModel
from chatstream.metrics import Metrics
from chatstream.store.gate import Gate
from tests.support.scripted_model import STOP, bench
from tests.support.upstream import Upstream, answer

_ANSWERS = 5
# 1.5 times the counts of November 2026: 430 calls in the hub and the store for an answer of one chunk, and 111 in
# the HTTP client for a request to the model (420, and 160 in the SDK, when the SDK built each request anew).
_MOST_IN_AN_ANSWER = 650
_MOST_TO_ASK = 170


@contextlib.contextmanager
def counted() -> Iterator[Counter[str]]:
    """The files whose functions are called in this thread, with the numbers of calls."""
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            calls[frame.f_code.co_filename] += 1

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def calls_in(package: ModuleType, calls: Counter[str]) -> int:
    """The number of calls of the package's functions."""
    [folder] = package.__path__
    return sum(times for file, times in calls.items() if file.startswith(f"{folder}/"))


@pytest.mark.gen_test
async def test_an_answer_costs_what_it_did(mongodb_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatstream.generations.checkpointer.CHECKPOINT_INTERVAL", 3600)
    steps, run = Counter[str](), Gate.run

    async def noted(gate: Gate, *args: object, **options: object) -> object:
        steps["of threads"] += 1
        return await run(gate, *args, **options)  # type: ignore[arg-type]

    async with bench(mongodb_uri) as b:
        conversations = [await b.conversation(waiting="Who wins?") for _ in range(1 + _ANSWERS)]

        async def one() -> None:
            b.model.reply("Ireland.", STOP)
            async with b.viewer(conversations.pop(), reads_ahead=True, once=True) as viewer:
                await viewer.rest()
            assert viewer.text == "Ireland."

        await one()  # the first answer also loads modules, so it is not counted
        monkeypatch.setattr(Gate, "run", noted)
        with counted() as calls:
            for _ in range(_ANSWERS):
                await one()
    assert calls_in(chatstream, calls) < _ANSWERS * _MOST_IN_AN_ANSWER
    # A hand-over through `ThreadPoolExecutor` costs twice as much (see `chatstream.store.threads`).
    assert calls_in(concurrent.futures, calls) == 0
    # Three per answer: one reads the conversation with its question; one stores the answer's beginning; one stores its
    # end and the time of the conversation's last use.
    assert steps["of threads"] == _ANSWERS * 3


@pytest.mark.gen_test
async def test_the_sdk_prepares_nothing_anew_for_each_request(upstream: Upstream) -> None:
    upstream.reply(answer("Ireland."))
    model = OpenAIModel(
        api_key="sk-1", base_url=upstream.url, model="m", metrics=Metrics(), deadlines=Deadlines(60, 60, 60, 60)
    )

    async def one() -> None:
        async with contextlib.aclosing(model.stream([Turn("user", "Who wins?")])) as deltas:
            text = [piece async for delta in deltas for piece in delta.pieces]
        assert text == ["Ireland."]

    try:
        await one()
        with counted() as calls:
            for _ in range(_ANSWERS):
                await one()
    finally:
        await model.close()
    assert calls_in(openai, calls) <= _ANSWERS  # only the check whether the client is closed
    assert calls_in(httpx2, calls) < _ANSWERS * _MOST_TO_ASK
