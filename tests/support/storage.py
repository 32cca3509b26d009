"""The store's classes for a conversation's messages, on a real database, with helpers for the beginning of tests."""

from typing import Any, Protocol

from msgspec.structs import replace

from chatstream.models import Answer, Conversation, Message, Status, UserMessage
from chatstream.store.attempts import Attempts, Checkpoint, CheckpointResult
from chatstream.store.ledger import Ledger
from chatstream.store.mongo import Mongo
from chatstream.store.outbox import Outbox
from chatstream.store.posting import Posting
from chatstream.store.reading import Reading


class Storage:
    """The store of one process, which is named `owner`."""

    def __init__(self, mongo: Mongo, *, owner: str = "test") -> None:
        self.posting = Posting(mongo, owner=owner)
        self.ledger = Ledger(mongo)
        self.attempts = Attempts(mongo, owner=owner, ledger=self.ledger)
        self.reading = Reading(mongo)
        self.outbox = Outbox(mongo)


class Posts(Protocol):
    """Whatever stores messages as one process: a `Storage`, or a `Bench`."""

    posting: Posting


def ended(answer: Answer, content: str = "", status: Status = Status.COMPLETE) -> Answer:
    """The answer with this end, to be stored."""
    return replace(answer, status=status, content=content)


async def begun(store: Posts, conversation: Conversation, content: str = "Tell me.", **options: Any) -> Answer:
    """Post a message; returns its running answer."""
    answer = (await store.posting.post(conversation, content, **options)).answer
    assert answer is not None
    return answer


async def checkpoint(store: Storage, key: str, answer: Answer, length: int, text: str) -> CheckpointResult | None:
    """Store one checkpoint; returns its result."""
    pieces = [text] if text else []
    return (await store.attempts.checkpoint([Checkpoint(key, answer.id, length, pieces)])).get(answer.id)


async def added(store: Storage, conversation: Conversation, content: str = "Tell me.") -> UserMessage:
    """Store a message that waits for an answer."""
    posted = await store.posting.add(conversation, content)
    assert posted is not None
    return posted.message


async def stored(store: Storage, key: str) -> list[Message]:
    """All messages of a conversation."""
    return await store.reading.page(key, limit=1000, before=None)
