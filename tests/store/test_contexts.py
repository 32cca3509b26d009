"""The number of messages left out of a prompt: only those on the branch that the model gets."""

from typing import Any

import pytest
from bson import ObjectId

from chatstream.models import Conversation, UserMessage
from chatstream.store.contexts import Contexts
from chatstream.store.conversations import Conversations
from chatstream.store.mongo import Mongo
from tests.support.storage import Storage, added, begun, ended, stored


async def turn(store: Storage, conversation: Conversation, parent: str | None = None, *, first: bool = False) -> str:
    """Store a question and its answer, after `parent` or after the newest message; returns the answer's id."""
    options: dict[str, Any] = {"parent": parent} if parent or first else {}
    answer = await begun(store, conversation, **options)
    await store.attempts.finish(conversation, ended(answer, "Yes."))
    return answer.id


async def again(store: Storage, conversation: Conversation) -> None:
    """Another attempt at the newest question."""
    newest = await store.reading.newest_attempt(conversation.key, (await questions(store, conversation))[-1].id)
    assert newest is not None
    answer = await store.attempts.begin(conversation.key, newest.reply_to, previous=newest, newest_seq=newest.seq)
    await store.attempts.finish(conversation, ended(answer, "No."))


async def questions(store: Storage, conversation: Conversation) -> list[UserMessage]:
    return [one for one in await stored(store, conversation.key) if isinstance(one, UserMessage)]


@pytest.mark.gen_test
async def test_messages_of_other_branches_and_those_taken_back_are_not_counted(
    store: Storage, mongo: Mongo, conversation: Conversation
) -> None:
    contexts = Contexts(mongo)
    old = await turn(store, conversation)
    await again(store, conversation)  # the model gets one of the two attempts
    old = await turn(store, conversation)
    running = await begun(store, conversation)
    waiting = await added(store, conversation)
    await store.posting.withdraw(conversation, waiting.id)
    await store.attempts.finish(conversation, ended(running, "Yes."))
    await turn(store, conversation)
    seq = (await questions(store, conversation))[-1].seq
    assert await contexts.begin_at(conversation, seq) == 6
    # Another branch from the beginning, and one from the middle.
    await turn(store, conversation, first=True)
    newest = (await questions(store, conversation))[-1]
    assert await contexts.begin_at(conversation, newest.seq) == 0
    await turn(store, conversation)
    newest = (await questions(store, conversation))[-1]
    assert await contexts.begin_at(conversation, newest.seq) == 2
    await turn(store, conversation, old)
    newest = (await questions(store, conversation))[-1]
    assert await contexts.begin_at(conversation, newest.seq) == 4
    kept = await Conversations(mongo).get("user", conversation.id)
    assert kept.context_from == newest.seq
    # For a document of a later version, the number of messages before it is known.
    await mongo.messages.update_one({"_id": ObjectId(newest.id)}, {"$set": {"role": "dreamer"}})
    assert await contexts.begin_at(conversation, newest.seq) > 4
