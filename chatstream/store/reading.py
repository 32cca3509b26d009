"""A conversation's messages as they are read: user messages and attempts at answering them, in one ordered list.

`key` is always a conversation's key, and whoever has one has got it from `Conversations`, where the owner was checked.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, TypeVar

from bson import ObjectId

from chatstream.models import Answer, Conversation, Message, Status, UserMessage
from chatstream.store.documents import (
    PLACES,
    answer_model,
    conversation_model,
    is_answer,
    message_model,
    status_of,
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
        return self._understood(message_model, document)

    async def page(self, key: str, *, limit: int, before: int | None) -> list[Message]:
        """The newest messages, of those with a `seq` below `before`, oldest first."""
        places = PLACES if before is None else PLACES | {"$lt": before}
        return (await self._first(key, places, -1, limit))[::-1]

    async def after(self, key: str, seq: int, *, limit: int) -> list[Message]:
        """The messages that come after place `seq`, oldest first."""
        return await self._first(key, PLACES | {"$gt": seq}, 1, limit)

    async def newest(self, key: str) -> Message | None:
        """The newest message. If it is an answer, then one to the newest user message, and its newest attempt."""
        page = await self.page(key, limit=1, before=None)
        return page[0] if page else None

    async def newest_question(self, key: str) -> tuple[UserMessage, Answer | None] | None:
        """The newest user message and its newest attempt."""
        question = await self._messages.find_one({"conversationId": ObjectId(key), "role": "user"}, sort=[("seq", -1)])
        if question is None:
            return None
        message = self._understood(user_message_model, question)
        if message is None:
            return None
        return message, await self.newest_attempt(key, message.id)

    async def newest_attempt(self, key: str, message_id: str) -> Answer | None:
        """The newest attempt at answering this user message."""
        attempt = await self._messages.find_one(
            {"conversationId": ObjectId(key), "replyTo": ObjectId(message_id)}, sort=[("attempt", -1)]
        )
        return self._understood(answer_model, attempt)

    async def running(self, key: str) -> Answer | None:
        """The answer that runs in this conversation, in whichever process."""
        document = await self._messages.find_one({"conversationId": ObjectId(key), "status": "streaming"})
        if (answer := self._understood(answer_model, document)) is not None:
            return answer
        unfinished = await self.unfinished(key)
        other = None if unfinished is None else await self.get(key, str(unfinished))
        return other if isinstance(other, Answer) and other.status is Status.STREAMING else None

    async def unfinished(self, key: str, newest: Document | None = None, session: Any = None) -> ObjectId | None:
        """The newest answer's `_id`, if it has not ended: also in a status that only a later version knows.

        Of `streaming` ones an index tells; this is for the others. `newest` is the newest message, if it is known.
        """
        if newest is None or not is_answer(newest):
            which = {"conversationId": ObjectId(key), "role": "assistant", "replyTo": {"$type": "objectId"}}
            newest = await self._messages.find_one(
                which | {"seq": PLACES}, {"status": 1}, sort=[("seq", -1)], session=session
            )
        if newest is None or status_of(newest) is not Status.STREAMING:
            return None
        _id: ObjectId = newest["_id"]
        return _id

    async def newest_first(self, key: str, *, before: int | None) -> AsyncGenerator[Message, None]:
        """The messages, or those with a `seq` below `before`, newest first, as many as the reader takes."""
        places = PLACES if before is None else PLACES | {"$lt": before}
        async for document in self._in_order(key, places, -1).batch_size(_BATCH):
            for message in self._mongo.understood(message_model, document):
                yield message

    async def oldest_first(self, key: str, *, after: int) -> AsyncGenerator[Message, None]:
        """The messages that come after place `after`, oldest first, as many as the reader takes."""
        async for document in self._in_order(key, PLACES | {"$gt": after}, 1).batch_size(_RESUME_BATCH):
            for message in self._mongo.understood(message_model, document):
                yield message

    async def newest_seqs(self, keys: Sequence[str]) -> dict[str, int]:
        """The `seq` of the newest message of each of these conversations that has one. Read from an index alone."""
        pipeline: list[Document] = [
            {"$match": {"conversationId": {"$in": [ObjectId(key) for key in keys]}, "seq": PLACES}},
            # In this form one key of the index is read for each conversation, and not all of them.
            {"$sort": {"conversationId": -1, "seq": -1}},
            {"$group": {"_id": "$conversationId", "seq": {"$first": "$seq"}}},
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
        return self._understood(conversation_model, document)

    async def _first(self, key: str, places: Document, order: int, limit: int) -> list[Message]:
        """So many messages; documents that this version does not understand do not count."""
        found: list[Message] = []
        asked = limit
        while True:
            documents = await self._in_order(key, places, order).limit(asked).to_list(asked)
            found += self._mongo.understood(message_model, *documents)
            if len(found) >= limit or len(documents) < asked:
                return found[:limit]
            places = places | {"$lt" if order < 0 else "$gt": documents[-1]["seq"]}
            asked = _BATCH

    def _in_order(self, key: str, places: Document, order: int) -> Any:
        """A cursor over the messages at these places, oldest first, or newest first if `order` is -1."""
        return self._messages.find({"conversationId": ObjectId(key), "seq": places}).sort("seq", order)

    def _understood(self, model: Callable[[Document], T], document: Document | None) -> T | None:
        """None if there is none, or none that this version understands."""
        return next(iter(self._mongo.understood(model, document)), None)
