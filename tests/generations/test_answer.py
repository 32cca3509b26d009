"""The turns that a model gets of a conversation, and the closing of a model's stream that is not read to its end."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest

from chatstream.errors import ErrorCode, ModelError
from chatstream.generations.answer import context, write_answer
from chatstream.llm.model import Turn
from chatstream.models import Answer, Failure, Message, Status, UserMessage
from tests.support.scripted_model import STOP, bench

NOW = datetime.now(UTC)


class History:
    """Messages in the order in which they were stored."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.read = 0

    def user(self, content: str) -> str:
        message = UserMessage(id=f"u{len(self.messages)}", seq=len(self.messages), content=content, created_at=NOW)
        self.messages.append(message)
        return message.id

    def answer(self, reply_to: str, content: str, status: Status = Status.COMPLETE, **fields: Any) -> Answer:
        answer = Answer(
            id=f"a{len(self.messages)}",
            seq=len(self.messages),
            reply_to=reply_to,
            attempt=1,
            status=status,
            content=content,
            created_at=NOW,
            **fields,
        )
        self.messages.append(answer)
        return answer

    async def newest_first(self) -> AsyncIterator[Message]:
        for message in reversed(self.messages):
            self.read += 1
            yield message

    async def context(self, reply_to: str, budget: int = 1000) -> list[tuple[str, str]]:
        answer = self.answer(reply_to, "", Status.STREAMING)
        self.messages.pop()
        return [(turn.role, turn.content) for turn in await context(self.newest_first(), answer, budget=budget)]


@pytest.mark.gen_test
async def test_the_oldest_comes_first() -> None:
    history = History()
    history.answer(history.user("One"), "Yes.")
    history.answer(history.user("Two"), "No.")
    assert await history.context(history.user("Three")) == [
        ("user", "One"),
        ("assistant", "Yes."),
        ("user", "Two"),
        ("assistant", "No."),
        ("user", "Three"),
    ]


@pytest.mark.parametrize(
    ("attempts", "counts"),
    [
        ([("old", Status.COMPLETE), ("new", Status.COMPLETE)], "new"),
        ([("old", Status.COMPLETE), ("new", Status.FAILED)], "old"),
        ([("old", Status.COMPLETE), ("", Status.COMPLETE)], "old"),
        ([("old", Status.STOPPED), ("new", Status.INTERRUPTED), ("", Status.FAILED)], "new"),
        ([("older", Status.COMPLETE), ("old", Status.COMPLETE), ("new", Status.STOPPED)], "old"),
        ([("old", Status.FAILED), ("new", Status.COMPLETE)], "new"),
        ([("", Status.FAILED), ("", Status.INTERRUPTED)], None),
        ([], None),
    ],
)
@pytest.mark.gen_test
async def test_of_several_attempts_the_newest_complete_one_counts_else_the_newest_with_text(
    attempts: list[tuple[str, Status]], counts: str | None
) -> None:
    history = History()
    question = history.user("One")
    for content, status in attempts:
        history.answer(question, content, status)
    told = [("user", "One"), ("assistant", counts), ("user", "Two")] if counts else [("user", "One\n\nTwo")]
    assert await history.context(history.user("Two")) == told


@pytest.mark.gen_test
async def test_earlier_attempts_at_the_same_message_are_not_told() -> None:
    history = History()
    question = history.user("One")
    history.answer(question, "Half an", Status.INTERRUPTED)
    history.answer(question, "Yes.")
    assert await history.context(question) == [("user", "One")]


@pytest.mark.gen_test
async def test_messages_that_waited_together_are_all_told() -> None:
    history = History()
    first = history.user("One")
    history.answer(first, "Yes.")
    history.user("Two")
    assert await history.context(history.user("Three")) == [
        ("user", "One"),
        ("assistant", "Yes."),
        ("user", "Two\n\nThree"),
    ]


def failed(code: ErrorCode) -> dict[str, Any]:
    return {"status": Status.FAILED, "failure": Failure(code=code, request_id=None)}


@pytest.mark.parametrize(
    ("content", "outcome", "told"),
    [
        pytest.param("", {"status": Status.STOPPED}, True, id="stopped before the first token"),
        pytest.param("", {"status": Status.INTERRUPTED}, True, id="interrupted"),
        pytest.param("", {"finish_reason": "stop"}, True, id="an empty answer"),
        pytest.param(" \u200b\n", {"finish_reason": "stop"}, True, id="a blank answer"),
        pytest.param("", failed(ErrorCode.UPSTREAM_UNAVAILABLE), True, id="failed"),
        pytest.param("", failed(ErrorCode.UPSTREAM_REJECTED), False, id="a prompt that was refused"),
        pytest.param("", failed(ErrorCode.CONTEXT_TOO_LONG), False, id="a prompt that was too long"),
        pytest.param("", {"finish_reason": "content_filter"}, False, id="filtered"),
        pytest.param("Half an", {"finish_reason": "content_filter"}, False, id="filtered in the middle"),
    ],
)
@pytest.mark.gen_test
async def test_a_turn_that_went_wrong_is_no_turn_of_its_own(content: str, outcome: dict[str, Any], told: bool) -> None:
    history = History()
    history.answer(history.user("One"), "Yes.")
    history.answer(history.user("Two"), content, **outcome)
    assert await history.context(history.user("Three")) == [
        ("user", "One"),
        ("assistant", "Yes."),
        ("user", "Two\n\nThree" if told else "Three"),
    ]


@pytest.mark.gen_test
async def test_a_question_that_was_refused_is_told_while_it_is_asked_again() -> None:
    history = History()
    question = history.user("One")
    history.answer(question, "", **failed(ErrorCode.UPSTREAM_REJECTED))
    assert await history.context(question) == [("user", "One")]


@pytest.mark.gen_test
async def test_a_question_that_was_refused_once_and_answered_once_is_told() -> None:
    history = History()
    question = history.user("One")
    history.answer(question, "Yes.")
    history.answer(question, "", **failed(ErrorCode.UPSTREAM_REJECTED))
    assert await history.context(history.user("Two")) == [("user", "One"), ("assistant", "Yes."), ("user", "Two")]


@pytest.mark.gen_test
async def test_a_refusal_is_an_answer() -> None:
    history = History()
    history.answer(history.user("One"), "I cannot.", finish_reason="refusal")
    assert len(await history.context(history.user("Two"))) == 3


@pytest.mark.gen_test
async def test_a_blank_message_of_earlier_days_is_not_told() -> None:
    history = History()
    history.answer(history.user(" \n"), "What do you mean?")
    assert await history.context(history.user("Two")) == [("user", "Two")]


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        (13, ["123", "456", "789", "0", "abc"]),
        (12, ["789", "0", "abc"]),
        (7, ["789", "0", "abc"]),
        (6, ["abc"]),
        (0, ["abc"]),
    ],
)
@pytest.mark.gen_test
async def test_it_is_trimmed_from_the_oldest(budget: int, told: list[str]) -> None:
    history = History()
    history.answer(history.user("123"), "456")
    history.answer(history.user("789"), "0")
    assert [content for _, content in await history.context(history.user("abc"), budget=budget)] == told


@pytest.mark.gen_test
async def test_what_lies_before_the_first_that_does_not_fit_is_not_told_although_it_would() -> None:
    history = History()
    history.answer(history.user("1"), "2")
    history.answer(history.user("3"), "much too long for this")
    question = history.user("4")
    assert await history.context(question, budget=10) == [("user", "4")]
    assert history.read == 3  # a long history is not read completely


@pytest.mark.gen_test
async def test_the_prompt_is_the_conversations_own_else_the_servers(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        for own, expected in ((None, ["Be brief."]), ("Be kind.", ["Be kind."]), ("", []), (" ", [])):
            b.model.reply("Yes.", STOP)
            conversation = await b.conversations.create("user", system_prompt=own, model="m1")
            await b.post(conversation, "One")
            await b.ended(conversation)
            assert b.model.calls[-1].turns == [*[Turn("system", text) for text in expected], Turn("user", "One")]
            assert b.model.calls[-1].model == "m1"


@pytest.mark.gen_test
async def test_closing_it_closes_the_model(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        posted = await b.posting.post(conversation, "One")
        assert posted.answer is not None
        b.model.reply("a", ModelError(ErrorCode.UPSTREAM_TIMEOUT, "x"))
        deltas = write_answer(
            conversation,
            posted.answer,
            posted.message,
            reading=b.reading,
            model=b.model,
            plugins=b.plugins,
            calling=b.calling,
            system_prompt="",
            context_characters=100,
            remember=lambda seq: b.contexts.begin_at(conversation, seq),
        )
        async with aclosing(deltas):
            assert (await anext(deltas)).estimate is not None
            assert (await anext(deltas)).pieces == ["a"]
            assert b.model.open == 1
        assert b.model.open == 0


TOO_LONG = ModelError(ErrorCode.CONTEXT_TOO_LONG, "x")


@pytest.mark.gen_test
async def test_a_model_that_holds_less_is_asked_with_what_it_can_hold(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        for number in range(4):
            b.model.reply("Yes." * 10, STOP)
            await b.post(conversation, f"Question {number} " * 3)
            await b.ended(conversation)
        calls = len(b.model.calls)
        b.model.reply(TOO_LONG)
        b.model.reply(TOO_LONG)
        b.model.reply("At last.", STOP)
        await b.post(conversation, "Last")
        assert (await b.ended(conversation)).content == "At last."
        sizes = [len(call.turns) for call in b.model.calls[calls:]]
        assert sizes == sorted(sizes, reverse=True)
        assert len(set(sizes)) == 3
        for call in b.model.calls:
            roles = [turn.role for turn in call.turns]
            assert roles == ["system", *["user", "assistant"] * (len(roles) // 2 - 1), "user"]


@pytest.mark.gen_test
async def test_a_message_that_no_model_can_hold_does_not_end_the_conversation(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        b.model.reply("Yes.", STOP)
        await b.post(conversation, "One")
        await b.ended(conversation)
        b.model.reply(TOO_LONG)
        b.model.reply(TOO_LONG)
        await b.post(conversation, "Long" * 100)
        failure = (await b.ended(conversation)).failure
        assert failure is not None
        assert failure.code is ErrorCode.CONTEXT_TOO_LONG
        assert len(b.model.calls) == 3  # the last try has only the newest message
        b.model.reply("Yes.", STOP)
        await b.post(conversation, "Two")
        assert (await b.ended(conversation)).status is Status.COMPLETE
        assert [turn.content for turn in b.model.calls[-1].turns] == ["Be brief.", "One", "Yes.", "Two"]


@pytest.mark.parametrize(
    ("pieces", "content", "code"),
    [
        pytest.param(["x" * 99, "y"], "x" * 99 + "y", None, id="as long as it may be"),
        pytest.param(["x" * 60, "🏆" * 60, "z"], "x" * 60 + "🏆" * 40, "answer_too_long", id="cut in a piece"),
        pytest.param(["x" * 100, "y"], "x" * 100, "answer_too_long", id="cut between pieces"),
        pytest.param(["x" * 3_000_000], "x" * 100, "answer_too_long", id="in one piece"),
    ],
)
@pytest.mark.gen_test
async def test_an_answer_is_cut_where_it_is_too_long(
    mongodb_uri: str, pieces: list[str], content: str, code: str | None
) -> None:
    async with bench(mongodb_uri, answer_characters=100) as b:
        conversation = await b.conversation()
        b.model.reply(*pieces, STOP)
        await b.post(conversation, "One")
        answer = await b.ended(conversation)
        assert answer.content == content
        assert (answer.failure.code if answer.failure else None) == code
        assert b.model.open == 0
