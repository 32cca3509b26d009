"""Commands that fail because of concurrent writes leave no user's id in MongoDB's own log. Of a failed `findAndModify`,
MongoDB logs the whole command at every log level.
"""

import asyncio
import uuid
from typing import Any

import pytest
from msgspec.structs import replace
from pymongo import MongoClient

from chatstream.errors import BudgetExhausted, OverBudget
from chatstream.models import Budget, Conversation, Status, Usage
from chatstream.store.conversations import Conversations
from chatstream.store.erasures import Erasures
from chatstream.store.ledger import Spending
from chatstream.store.mongo import Mongo
from tests.support.storage import Storage, added, begun

TOOK = Usage(prompt_tokens=40, completion_tokens=20, total_tokens=60)


@pytest.fixture
def user() -> str:
    return f"user-{uuid.uuid4().hex}"


def told_of(user: str, uri: str) -> list[str]:
    """The lines of MongoDB's log that name the user."""
    with MongoClient[dict[str, Any]](uri) as client:
        lines: list[str] = client.admin.command("getLog", "global")["log"]
        assert lines  # MongoDB returns the newest thousand lines
    return [line for line in lines if user in line]


@pytest.mark.gen_test
async def test_a_refusal_and_answers_that_begin_at_once(
    store: Storage, mongo: Mongo, mongodb_uri: str, user: str
) -> None:
    conversations = Conversations(mongo, store.ledger)
    spending = Spending(user, Budget(tokens_per_day=300), lambda before: TOOK)

    async def begin(process: Storage, conversation: Conversation) -> None:
        answer = await begun(process, conversation, spending=spending)
        await process.attempts.finish(conversation, replace(answer, status=Status.STOPPED, usage=TOOK))

    processes = [Storage(mongo, owner=f"process-{number}") for number in range(6)]
    each = [await conversations.create(user) for _ in processes]
    results = await asyncio.gather(*map(begin, processes, each), return_exceptions=True)
    assert all(one is None or isinstance(one, OverBudget) for one in results)
    with pytest.raises(BudgetExhausted):
        await begin(store, each[0])
    assert told_of(user, mongodb_uri) == []


@pytest.mark.gen_test
async def test_messages_and_deletions_at_once(store: Storage, mongo: Mongo, mongodb_uri: str, user: str) -> None:
    conversations = Conversations(mongo, store.ledger)
    for _ in range(5):
        conversation = await conversations.create(user)
        answer = await begun(store, conversation)
        waiting = await added(store, conversation)
        await asyncio.gather(
            *(store.posting.post(conversation, "Tell me.") for _ in range(4)),
            *(added(store, conversation, "And now?") for _ in range(3)),
            store.posting.withdraw(conversation, waiting.id),
            store.attempts.finish(conversation, replace(answer, status=Status.STOPPED)),
            return_exceptions=True,
        )
        await asyncio.gather(
            *(added(store, conversation, "And now?") for _ in range(4)),
            *(conversations.delete(user, conversation.id) for _ in range(3)),
            return_exceptions=True,
        )
    assert told_of(user, mongodb_uri) == []


@pytest.mark.gen_test
async def test_erasures_at_once(mongo: Mongo, mongodb_uri: str, user: str) -> None:
    for _ in range(10):
        erasures = Erasures(mongo)
        begun_at_once = await asyncio.gather(*(erasures.begin(user) for _ in range(8)))
        assert len({one.id for one in begun_at_once}) == 1
        assert await erasures.complete(begun_at_once[0].id)
    assert told_of(user, mongodb_uri) == []
