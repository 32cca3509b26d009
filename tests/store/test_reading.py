"""Reading messages from a real database: pages and histories."""

import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from bson import ObjectId
from pymongo.monitoring import CommandSucceededEvent

from chatstream.errors import ErrorCode
from chatstream.generations.answer import exchanges
from chatstream.metrics import Metrics
from chatstream.models import Answer, Conversation, Failure, Message, Status, UserMessage
from chatstream.store.conversations import Conversations
from chatstream.store.documents import answer_document, user_message_document
from chatstream.store.measuring import Commands
from chatstream.store.mongo import Mongo
from chatstream.store.reading import Reading
from tests.support.storage import Storage, added, ended


@pytest.mark.gen_test
async def test_a_message_is_read_in_its_own_conversation_only(
    store: Storage, conversation: Conversation, key: str, mongo: Mongo
) -> None:
    other = await Conversations(mongo).create("user")
    posted = await store.posting.post(conversation, "Tell me.")
    assert posted.answer is not None
    assert await store.reading.get(other.key, posted.message.id) is None
    assert await store.reading.get(other.key, posted.answer.id) is None
    assert await store.reading.get(key, str(ObjectId())) is None
    assert (await store.reading.get(key, posted.message.id)) is not None


@pytest.mark.gen_test
async def test_pages_and_what_comes_after(store: Storage, conversation: Conversation, key: str) -> None:
    all_ = [await added(store, conversation, str(number)) for number in range(5)]

    def contents(page: list[Message]) -> list[str]:
        return [message.content for message in page]

    assert contents(await store.reading.page(key, limit=2, before=None)) == ["3", "4"]
    assert contents(await store.reading.page(key, limit=2, before=all_[3].seq)) == ["1", "2"]
    assert contents(await store.reading.page(key, limit=2, before=all_[0].seq)) == []
    assert contents(await store.reading.after(key, all_[1].seq, limit=2)) == ["2", "3"]
    assert contents(await store.reading.after(key, all_[4].seq, limit=2)) == []
    assert [m.content async for m in store.reading.newest_first(key, before=all_[4].seq)] == ["3", "2", "1", "0"]


@pytest.mark.gen_test
async def test_a_long_history_is_read_in_batches_without_gap_or_double(
    store: Storage, conversation: Conversation, key: str
) -> None:
    for number in range(120):
        await added(store, conversation, str(number))
    read = [message.content async for message in store.reading.newest_first(key, before=1_000)]
    assert read == [str(number) for number in reversed(range(120))]


@pytest.mark.gen_test
async def test_the_newest_question_comes_with_its_newest_attempt(
    store: Storage, conversation: Conversation, key: str
) -> None:
    assert await store.reading.newest_question(key) is None
    assert await store.reading.newest(key) is None
    posted = await store.posting.post(conversation, "One")
    assert posted.answer is not None
    interrupted = ended(posted.answer, status=Status.INTERRUPTED)
    await store.attempts.finish(conversation, interrupted)
    second = await store.attempts.begin(key, posted.message.id, previous=interrupted, newest_seq=2)
    question = await store.reading.newest_question(key)
    assert question is not None
    assert question[1] is not None
    assert (question[0].id, question[1].id) == (posted.message.id, second.id)
    waiting = await added(store, conversation, "Two")
    question = await store.reading.newest_question(key)
    assert question is not None
    assert (question[0].id, question[1]) == (waiting.id, None)


# What a model is told of: of many attempts at one message only those that count ---------------------------------------


class Past:
    """A conversation whose messages are inserted directly, in any order and form."""

    def __init__(self, mongo: Mongo, conversation: Conversation) -> None:
        self.mongo = mongo
        self.key = conversation.key
        self.documents: list[dict[str, Any]] = []

    def ask(self, content: str = "Tell me.", **fields: Any) -> ObjectId:
        message = UserMessage(id=str(ObjectId()), seq=len(self.documents) + 1, content=content, created_at=NOW)
        self.documents.append(user_message_document(self.key, message, owner="test") | fields)
        return ObjectId(message.id)

    def answer(self, question: ObjectId, attempt: int, content: str, status: Status, **fields: Any) -> ObjectId:
        answer = Answer(
            id=str(ObjectId()),
            seq=len(self.documents) + 1,
            reply_to=str(question),
            attempt=attempt,
            status=status,
            content=content,
            created_at=NOW,
            **fields,
        )
        self.documents.append(answer_document(self.key, answer))
        return ObjectId(answer.id)

    async def store(self) -> None:
        await self.mongo.messages.insert_many(self.documents)

    async def told(self, messages: AsyncGenerator[Message, None], budget: int = 10_000) -> list[tuple[str, str]]:
        async with aclosing(messages):
            return [(turn.role, turn.content) for turn in (await exchanges(messages, None, budget=budget)).history]


NOW = datetime(2026, 11, 28, tzinfo=UTC)
OUTCOMES: list[tuple[str, Status, dict[str, Any]]] = [
    ("Yes.", Status.COMPLETE, {}),
    (" \n\u200b", Status.COMPLETE, {}),
    ("", Status.STOPPED, {}),
    ("Half", Status.STOPPED, {}),
    ("Filtered", Status.COMPLETE, {"finish_reason": "content_filter"}),
    ("", Status.FAILED, {"failure": Failure(code=ErrorCode.UPSTREAM_REJECTED, request_id=None)}),
    ("Some", Status.FAILED, {"failure": Failure(code=ErrorCode.UPSTREAM_MISCONFIGURED, request_id=None)}),
    ("Cut", Status.INTERRUPTED, {"failure": Failure(code=ErrorCode.ANSWER_INTERRUPTED, request_id=None)}),
]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.gen_test
async def test_what_is_not_read_would_not_have_been_told(
    store: Storage, conversation: Conversation, mongo: Mongo, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("chatstream.store.reading._OUTLINES", 4)  # so that a page ends between attempts at one message
    rng = random.Random(seed)  # noqa: S311 - which is to be had again
    past = Past(mongo, conversation)
    for _ in range(5):
        question = past.ask(rng.choice(["One?", "Two?", " "]))
        for attempt in range(1, rng.choice([1, 2, 2, 4, 14])):
            content, status, fields = rng.choice(OUTCOMES)
            past.answer(question, attempt, content and f"{content} {attempt}" * bool(content.strip()), status, **fields)
        if rng.random() < 0.3:
            past.ask("I waited.")
    await past.store()
    for budget in (10_000, 25):
        wanted = await past.told(store.reading.newest_first(past.key, before=None), budget)
        assert await past.told(store.reading.newest_that_count(past.key, before=None), budget) == wanted


@pytest.mark.gen_test
async def test_an_attempt_from_which_a_message_goes_on_is_read_wherever_it_is(
    store: Storage, conversation: Conversation, mongo: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatstream.store.reading._OUTLINES", 4)
    past = Past(mongo, conversation)
    question = past.ask()
    made = [
        past.answer(question, 1, "Attempt 1", Status.COMPLETE),
        past.answer(question, 2, "Attempt 2", Status.STOPPED),
    ]
    past.ask("And now?", parent=made[1])
    made += [past.answer(question, number, f"Attempt {number}", Status.COMPLETE) for number in range(3, 20)]
    past.ask("And then?", parent=made[6])
    await past.store()
    messages = store.reading.newest_that_count(past.key, before=None, also=[str(made[4])])
    assert [message.content async for message in messages] == [
        *("And then?", "Attempt 19", "Attempt 7", "Attempt 5", "And now?", "Attempt 2", "Tell me."),
    ]


@pytest.mark.parametrize(
    ("status", "told"),
    [(Status.COMPLETE, "Attempt 600."), (Status.FAILED, "Attempt 1.")],
    ids=["each of them good", "none but the first"],
)
@pytest.mark.gen_test
async def test_a_question_with_many_attempts_costs_a_bounded_number_of_bytes(
    conversation: Conversation,
    mongo: Mongo,
    mongodb_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    status: Status,
    told: str,
) -> None:
    past = Past(mongo, conversation)
    question = past.ask("One?")
    past.answer(question, 1, "Attempt 1." + " " * 2_000, Status.COMPLETE)
    for number in range(2, 601):
        text = f"Attempt {number}." if status is Status.COMPLETE else ""
        past.answer(question, number, text + " " * 2_000, status)
    past.ask("Two?")
    await past.store()
    sent = 0

    def succeeded(_: Commands, event: CommandSucceededEvent) -> None:
        nonlocal sent
        sent += len(bson.encode(event.reply))

    monkeypatch.setattr(Commands, "succeeded", succeeded)
    measured = Mongo(mongodb_uri, "store", Metrics())
    reading = Reading(measured)
    turns = await past.told(reading.newest_that_count(past.key, before=None))
    newest = await reading.behind(past.key, after=0, messages=1_000, characters=10_000)
    measured.close()
    assert [(role, content.strip()) for role, content in turns] == [
        *(("user", "One?"), ("assistant", told), ("user", "Two?")),
    ]
    assert newest is not None
    assert [message.content.strip() for message in newest] == ["One?", past.documents[-2]["content"].strip(), "Two?"]
    assert sent < 300_000  # all of them are 1.5 MB; an outline is 200 bytes
