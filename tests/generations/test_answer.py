"""What the model is told of the conversation, and what becomes of a call that is not read to its end."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from chatstream.errors import ErrorCode, ModelError
from chatstream.generations.answer import context, write_answer
from chatstream.llm.model import Turn
from chatstream.models import Answer, Message, Status, UserMessage
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

    def answer(self, reply_to: str, content: str, status: Status = Status.COMPLETE) -> Answer:
        answer = Answer(
            id=f"a{len(self.messages)}",
            seq=len(self.messages),
            reply_to=reply_to,
            attempt=1,
            status=status,
            content=content,
            created_at=NOW,
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
    assistant = [("assistant", counts)] if counts else []
    assert await history.context(history.user("Two")) == [("user", "One"), *assistant, ("user", "Two")]


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
        ("user", "Two"),
        ("user", "Three"),
    ]


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
    assert history.read == 3  # and a long history is not read to its end


@pytest.mark.gen_test
async def test_the_prompt_is_the_conversations_own_else_the_servers(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        for own, expected in ((None, "Be brief."), ("Be kind.", "Be kind.")):
            b.model.reply("Yes.", STOP)
            conversation = await b.conversations.create("user", system_prompt=own, model="m1")
            await b.post(conversation, "One")
            await b.ended(conversation)
            assert b.model.calls[-1].turns == [Turn("system", expected), Turn("user", "One")]
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
            system_prompt="",
            context_characters=100,
        )
        async with aclosing(deltas):
            assert (await anext(deltas)).texts == ["a"]
            assert b.model.open == 1
        assert b.model.open == 0
