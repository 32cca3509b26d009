"""A conversation's messages as they are read: user messages and attempts at answering them, in one ordered list.

`key` is always a conversation's key, and whoever has one has got it from `Conversations`, where the owner was checked.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, TypeVar

from bson import ObjectId

from chatstream.models import Answer, Conversation, Message, UserMessage
from chatstream.store.documents import (
    answer_model,
    conversation_model,
    message_model,
    understood,
    user_message_model,
)
from chatstream.store.gate import Document
from chatstream.store.mongo import Mongo

# Documents per round trip when reading a long history: a page, and the one that tells that there is another. With
# answers of a few KB a batch is well below a megabyte.
_BATCH = 51
# The same for who resumes: most are a few messages behind, and of those who are too far behind not all is read.
_RESUME_BATCH = 20

T = TypeVar("T")


class Reading:
    """All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._messages = mongo.messages

    async def get(self, key: str, message_id: str) -> Message | None:
        """One message of this conversation, None if it has no such one."""
        document = await self._messages.find_one({"_id": ObjectId(message_id), "conversationId": ObjectId(key)})
        return _understood(message_model, document)

    async def page(self, key: str, *, limit: int, before: int | None) -> list[Message]:
        """The newest messages, of those with a `seq` below `before`, oldest first."""
        documents = await self._before(key, before).limit(limit).to_list(limit)
        return understood(message_model, reversed(documents))

    async def after(self, key: str, seq: int, *, limit: int) -> list[Message]:
        """The messages that come after place `seq`, oldest first."""
        cursor = self._messages.find({"conversationId": ObjectId(key), "seq": {"$gt": seq}}).sort("seq", 1)
        documents = await cursor.limit(limit).to_list(limit)
        return understood(message_model, documents)

    async def newest(self, key: str) -> Message | None:
        """The newest message. If it is an answer, then one to the newest user message, and its newest attempt."""
        page = await self.page(key, limit=1, before=None)
        return page[0] if page else None

    async def newest_question(self, key: str) -> tuple[UserMessage, Answer | None] | None:
        """The newest user message and its newest attempt."""
        question = await self._messages.find_one({"conversationId": ObjectId(key), "role": "user"}, sort=[("seq", -1)])
        if question is None:
            return None
        message = _understood(user_message_model, question)
        if message is None:
            return None
        return message, await self.newest_attempt(key, message.id)

    async def newest_attempt(self, key: str, message_id: str) -> Answer | None:
        """The newest attempt at answering this user message."""
        attempt = await self._messages.find_one(
            {"conversationId": ObjectId(key), "replyTo": ObjectId(message_id)}, sort=[("attempt", -1)]
        )
        return _understood(answer_model, attempt)

    async def running(self, key: str) -> Answer | None:
        """The answer that runs in this conversation, in whichever process."""
        document = await self._messages.find_one({"conversationId": ObjectId(key), "status": "streaming"})
        return _understood(answer_model, document)

    async def newest_first(self, key: str, *, before: int | None) -> AsyncGenerator[Message, None]:
        """The messages, or those with a `seq` below `before`, newest first, as many as the reader takes."""
        async for document in self._before(key, before).batch_size(_BATCH):
            for message in understood(message_model, (document,)):
                yield message

    async def oldest_first(self, key: str, *, after: int) -> AsyncGenerator[Message, None]:
        """The messages that come after place `after`, oldest first, as many as the reader takes."""
        cursor = self._messages.find({"conversationId": ObjectId(key), "seq": {"$gt": after}}).sort("seq", 1)
        async for document in cursor.batch_size(_RESUME_BATCH):
            for message in understood(message_model, (document,)):
                yield message

    async def newest_seqs(self, keys: Sequence[str]) -> dict[str, int]:
        """The `seq` of the newest message of each of these conversations that has one. Read from an index alone."""
        pipeline: list[Document] = [
            {"$match": {"conversationId": {"$in": [ObjectId(key) for key in keys]}}},
            {"$group": {"_id": "$conversationId", "seq": {"$max": "$seq"}}},
        ]
        found = await self._messages.aggregate(pipeline, hint="log").to_list(None)
        return {str(one["_id"]): one["seq"] for one in found}

    async def existing(self, keys: Sequence[str]) -> set[str]:
        """Which of these conversations are there: of those that have no messages, some may have been deleted."""
        found = self._mongo.conversations.find({"_id": {"$in": [ObjectId(key) for key in keys]}}, {"_id": 1})
        return {str(one["_id"]) for one in await found.to_list(None)}

    async def conversation(self, key: str) -> Conversation | None:
        """The conversation itself, for those who have found its key in a message, and do not know whose it is."""
        document = await self._mongo.conversations.find_one({"_id": ObjectId(key)})
        return _understood(conversation_model, document)

    def _before(self, key: str, before: int | None) -> Any:
        """A cursor over the messages, or those with a `seq` below `before`, newest first."""
        query: Document = {"conversationId": ObjectId(key)}
        if before is not None:
            query["seq"] = {"$lt": before}
        return self._messages.find(query).sort("seq", -1)


def _understood(model: Callable[[Document], T], document: Document | None) -> T | None:
    """None if there is none, or none that this version understands."""
    return next(iter(understood(model, () if document is None else (document,))), None)
