"""Trimming of a conversation that has become too long: the removed messages, and a stable beginning of the rest."""

import random

import pytest

from chatstream.errors import ErrorCode, ModelError
from chatstream.events import Cursor
from chatstream.generations.trimming import Exchange, Window
from chatstream.llm.model import Turn
from chatstream.models import Conversation, Status
from chatstream.pieces import ContextTrimmed
from tests.support.scripted_model import STOP, Bench, bench


def exchanges(*sizes: int) -> list[Exchange]:
    """Exchanges, each with a question of one character and an answer."""
    last = len(sizes) - 1
    return [
        Exchange(2 * place + 1, [Turn("user", "?"), *([Turn("assistant", "a" * size)] if place < last else [])])
        for place, size in enumerate(sizes)
    ]


@pytest.mark.parametrize(
    ("sizes", "over", "first", "moved_to"),
    [
        ([10, 10, 0], False, 1, None),
        ([30, 30, 40, 0], False, 5, 5),  # 104 of 100: cut to 50
        ([96, 0], False, 1, None),  # exactly
        ([99, 0], False, 3, 3),  # only the question
        ([10, 10, 0], True, 1, 1),  # everything that was read; older messages exist
        ([0], True, 1, 1),
        ([0], False, 1, None),
        ([20, 60, 20, 20, 0], False, 5, 5),
    ],
)
def test_it_is_cut_to_the_low_mark_only_if_it_passes_the_high_one(
    sizes: list[int], over: bool, first: int, moved_to: int | None
) -> None:
    window = Window(exchanges(*sizes), over=over)
    window.fit(98)
    assert (window.exchanges[0].seq, window.moved_to) == (first, moved_to)
    assert window.exchanges[-1].seq == 2 * len(sizes) - 1


def test_a_question_that_is_too_long_by_itself_stays() -> None:
    window = Window([*exchanges(5, 0)[:1], Exchange(3, [Turn("user", "x" * 500)])])
    window.fit(100)
    assert [exchange.seq for exchange in window.exchanges] == [3]


def test_of_many_conversations_none_is_over_the_mark_and_prompts_mostly_go_on() -> None:
    chance = random.Random(1)  # noqa: S311 - cases, not secrets
    for _ in range(20):
        told: list[Exchange] = []
        begin, moves = None, 0
        for place in range(200):
            told.append(Exchange(place, [Turn("user", "q" * chance.randint(1, 40))]))
            window = Window([one for one in told if begin is None or one.seq >= begin], begin=begin)
            window.fit(2000)
            assert sum(one.size for one in window.exchanges) <= 2000
            if window.moved_to is not None:
                begin, moves = window.moved_to, moves + 1
            told[-1].turns.append(Turn("assistant", "a" * chance.randint(1, 60)))
        assert 4 <= moves <= 15


def test_what_a_plug_in_adds_stands_before_the_question_and_counts_for_no_place() -> None:
    window = Window(exchanges(3, 3, 0))
    window.arrange([Turn("user", "fact"), Turn("assistant", "noted")])
    assert [turn.content for turn in window.turns] == ["?", "aaa", "?", "aaa", "fact", "noted", "?"]
    window.told_from(4)
    assert window.moved_to == 5


async def grown(b: Bench, conversation: Conversation, turns: int) -> list[int]:
    """The numbers of turns that the model got."""
    lengths = []
    for number in range(turns):
        b.model.reply("a" * 900, STOP)
        await b.post(await b.conversations.get("user", conversation.id), f"{number} " + "q" * 90)
        await b.ended(conversation)
        lengths.append(len(b.model.calls[-1].turns) - 1)
    return lengths


@pytest.mark.gen_test
async def test_it_is_told_once_and_shown_in_history_and_to_who_comes_back(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:  # its models get at most 10,000 characters
        conversation = await b.conversation()
        async with b.viewer(conversation) as watched:
            lengths = await grown(b, conversation, 11)
            trimmed = await watched.until("context_trimmed")
        assert lengths == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 9]
        assert {name: trimmed[name] for name in ("dropped", "attempt")} == {"dropped": 12, "attempt": 1}
        messages = await b.reading.page(conversation.key, limit=99, before=None)
        answer = messages[-1]
        assert len(messages) - 1 - lengths[-1] == trimmed["dropped"]
        assert (answer.id, getattr(answer, "context_trimmed", None)) == (trimmed["messageId"], 12)
        assert (answer.content, getattr(answer, "length", 0)) == ("a" * 900, 901)
        async with b.viewer(conversation, Cursor(messages[-2].id, Cursor.USER)) as late:
            assert (await late.until("context_trimmed"))["dropped"] == 12
            assert (await late.until("llm_chunk"))["offset"] == 0
            assert (await late.until("llm_complete"))["content"] == "a" * 900
        async with b.viewer(conversation, Cursor(answer.id, 1)) as later:
            assert (await later.until("llm_chunk"))["content"] == "a" * 900
        # Until the context is full again, nothing is reported, and each prompt begins like the one before.
        assert await grown(b, conversation, 5) == [11, 13, 15, 17, 19]
        for before, call in zip(b.model.calls[10:], b.model.calls[11:], strict=False):
            assert call.turns[: len(before.turns)] == before.turns
            assert call.cache_key == before.cache_key == conversation.key
        assert (await grown(b, conversation, 1)) == [9]


@pytest.mark.gen_test
async def test_what_no_model_could_hold_is_remembered_too(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        await grown(b, conversation, 4)
        b.model.reply(ModelError(ErrorCode.CONTEXT_TOO_LONG, "x"))
        [kept] = await grown(b, conversation, 1)
        assert kept < 9
        newest = (await b.reading.page(conversation.key, limit=1, before=None))[-1]
        assert getattr(newest, "context_trimmed", None) == 9 - kept
        refused = len(b.model.calls)
        assert await grown(b, conversation, 2) == [kept + 2, kept + 4]  # the window grows again from there
        assert len(b.model.calls) == refused + 2


@pytest.mark.gen_test
async def test_an_answer_that_failed_before_its_first_word_tells_nothing(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        await grown(b, conversation, 10)
        b.model.reply(ModelError(ErrorCode.UPSTREAM_UNAVAILABLE, "x"))
        await b.post(await b.conversations.get("user", conversation.id), "q" * 100)
        failed = await b.ended(conversation)
        assert (failed.status, failed.mixed, failed.usage) == (Status.FAILED, (), None)
        await grown(b, conversation, 1)
        newest = (await b.reading.page(conversation.key, limit=1, before=None))[-1]
        assert [piece for piece in getattr(newest, "mixed", ()) if isinstance(piece, ContextTrimmed)] != []
