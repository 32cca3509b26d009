"""Stores and reads conversations for their owners. Every query contains the user id."""

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError, OperationFailure

from chatstream.errors import AlreadyExists, InvalidRequest, NotFound
from chatstream.logs import describe
from chatstream.models import Conversation, Message, Status
from chatstream.store.documents import (
    PLACES,
    conversation_document,
    conversation_model,
    message_model,
    new_key,
    now,
)
from chatstream.store.gate import Document
from chatstream.store.kept import belongings
from chatstream.store.ledger import Ledger
from chatstream.store.mongo import Mongo
from chatstream.store.thinning import oldest_messages

log = logging.getLogger("chatstream.store")

# The latest time that Python can represent. Documents with a later `updatedAt`, or with no time there, are not listed.
_LAST_MOMENT = datetime.max.replace(microsecond=0, tzinfo=UTC)

_GONE = "There is no such conversation."

# Conversations per request when all of a user's are read.
_PAGE = 100

_FIELDS = {"title": "title", "system_prompt": "systemPrompt", "model": "model", "background": "background"}
_FIELDS |= {"client_tools": "clientTools"}


class Conversations:
    """The conversations in the database. All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo, ledger: Ledger | None = None, *, owner: str = "nobody") -> None:
        """`owner` is the name under which this process writes; see `Attempts`."""
        self._owner = owner
        self._mongo = mongo
        self._ledger = ledger
        self._joins = True  # False once the database has refused a join

    async def create(
        self,
        user_id: str,
        *,
        id: str | None = None,  # noqa: A002 - the protocol's name for it
        title: str | None = None,
        system_prompt: str | None = None,
        model: str | None = None,
        background: bool = False,
        auto_title: bool = False,
    ) -> Conversation:
        """Create an empty conversation. Without `id`, generate one. Raises `AlreadyExists` if the user has that id."""
        key = new_key()
        moment = now()
        conversation = Conversation(
            key=str(key),
            user_id=user_id,
            id=id or str(key),
            title=title,
            system_prompt=system_prompt,
            model=model,
            created_at=moment,
            updated_at=moment,
            background=background,
            auto_title=auto_title,
        )
        try:
            await self._mongo.conversations.insert_one(conversation_document(conversation))
        except DuplicateKeyError as exc:
            raise AlreadyExists("You already have a conversation with this id.") from exc
        return conversation

    async def get(self, user_id: str, id: str) -> Conversation:  # noqa: A002 - the protocol's name for it
        """One conversation. Raises `NotFound` if it does not exist or is not the user's."""
        document = await self._mongo.conversations.find_one({"userId": user_id, "id": id})
        return self._found(document)

    async def get_with_newest(
        self,
        user_id: str,
        id: str,  # noqa: A002 - the protocol's name for it
        messages: int,
    ) -> tuple[Conversation, list[Message] | None]:
        """A conversation and its newest `messages` messages, oldest first, in one operation.

        The messages are None if the caller must read them itself: if this version cannot read one of them, or if the
        database cannot join the collections (before MongoDB 5.0; before 5.1 if sharded). Raises `NotFound`.
        """
        if not self._joins:
            return await self.get(user_id, id), None
        newest = [{"$match": {"seq": PLACES}}, {"$sort": {"seq": -1}}, {"$limit": messages}]
        joined = {"from": "messages", "localField": "_id", "foreignField": "conversationId", "pipeline": newest}
        which: Document = {"userId": user_id, "id": id}
        pipeline = [{"$match": which}, {"$limit": 1}, {"$lookup": joined | {"as": "newest"}}]
        conversations = self._mongo.conversations.in_thread
        try:
            found = await self._mongo.in_thread(lambda: conversations.aggregate(pipeline).to_list())
        except OperationFailure as exc:
            self._joins = False
            log.info("a conversation and its messages are read one after the other: %s", describe(exc))
            return await self.get(user_id, id), None
        conversation = self._found(found[0] if found else None)
        documents = found[0]["newest"]
        understood = self._mongo.understood(message_model, *reversed(documents))
        return conversation, understood if len(understood) == len(documents) else None

    async def count(self, user_id: str, most: int) -> int:
        """The number of the user's conversations. Counts in an index, and stops at `most`."""
        counted = await self._mongo.conversations.count_documents({"userId": user_id}, limit=most)
        return int(counted)

    async def page(
        self, user_id: str, *, limit: int, before: str | None, among: Sequence[ObjectId] | None = None
    ) -> tuple[list[Conversation], str | None]:
        """The user's conversations, most recently active first, and the cursor of the next page, if there is one.

        `among`: only those with these keys.

        Raises `InvalidRequest` for a `before` that no page returned.
        """
        query: dict[str, Any] = {"userId": user_id, "updatedAt": {"$lte": _LAST_MOMENT}}
        if among is not None:
            query["_id"] = {"$in": among}
        if before is not None:
            updated_at, key = _place(before)
            # The first condition follows from the second, but makes MongoDB start reading the index at this point.
            query["updatedAt"] = {"$lte": updated_at}
            query["$or"] = [{"updatedAt": {"$lt": updated_at}}, {"_id": {"$lt": key}}]
        cursor = self._mongo.conversations.find(query).sort([("updatedAt", -1), ("_id", -1)]).limit(limit + 1)
        documents = await cursor.to_list(limit + 1)
        found = self._mongo.understood(conversation_model, *documents[:limit])
        if len(documents) <= limit:
            return found, None
        # The cursor needs only two fields, so this version need not be able to read the rest of the document.
        last = next((one for one in documents[limit - 1 :: -1] if isinstance(one["_id"], ObjectId)), None)
        if last is None:
            return found, None
        return found, f"{round(last['updatedAt'].timestamp() * 1000)}-{last['_id']}"

    async def all_of(self, user_id: str) -> AsyncGenerator[list[Conversation], None]:
        """All conversations of the user, in pages, sorted by id. Changes meanwhile do not shift the order."""
        query: dict[str, Any] = {"userId": user_id}
        while True:
            found = self._mongo.conversations.find(query).sort([("userId", 1), ("id", 1)]).limit(_PAGE)
            documents = await found.to_list(_PAGE)
            if understood := self._mongo.understood(conversation_model, *documents):
                yield understood
            if len(documents) < _PAGE:
                return
            query["id"] = {"$gt": documents[-1]["id"]}

    async def update(
        self,
        user_id: str,
        id: str,  # noqa: A002 - see get
        changes: Mapping[str, str | bool | None],
        *,
        head: Document | None = None,
    ) -> Conversation:
        """Set some of `title`, `system_prompt`, `model`, `background` and `client_tools`; the latter as stored in a
        document. With `head` (see `moved_head`), also change the shown branch.

        Setting a title turns off automatic titles. Raises `NotFound`.
        """
        fields = {_FIELDS[name]: value for name, value in changes.items()} | (head or {})
        given = {"$unset": {"autoTitle": ""}} if "title" in changes else {}
        if "title" in changes:
            fields |= self._titled()
        document = await self._mongo.conversations.find_one_and_update(
            {"userId": user_id, "id": id},
            {"$set": fields, "$currentDate": {"updatedAt": True}} | given,
            return_document=ReturnDocument.AFTER,
        )
        return self._found(document)

    async def entitle(self, conversation: Conversation, title: str | None) -> bool:
        """Store a title made by the model, unless somebody has changed the title since `conversation` was read.

        None keeps the present title. Either way automatic titles are turned off. Returns whether a title was stored.
        """
        which = {
            "_id": ObjectId(conversation.key),
            "userId": conversation.user_id,
            "autoTitle": True,
            "title": conversation.title,  # the previous version sets a title without removing `autoTitle`
        }
        change: dict[str, Any] = {"$unset": {"autoTitle": ""}}
        if title is not None:
            change["$set"] = {"title": title} | self._titled()
            change["$currentDate"] = {"updatedAt": True}  # so that the search reads it again
        result = await self._mongo.conversations.update_one(which, change)
        return bool(result.modified_count) and title is not None

    def _titled(self) -> Document:
        """The field that makes other processes notice a new title; see `Changes`."""
        return {"titledBy": f"{self._owner}#{ObjectId()}"}

    async def delete(self, user_id: str, id: str) -> Conversation:  # noqa: A002 - see get
        """Delete a conversation and everything that belongs to it; returns it. Raises `NotFound`.

        In one transaction, except for the older messages of a large conversation. A running answer finds its document
        gone at the next checkpoint.
        """
        conversation = await self.get(user_id, id)
        key = ObjectId(conversation.key)

        async def all_of_it(session: Any) -> None:
            # First the running answer: after another operation, each of its checkpoints would conflict.
            running = {"conversationId": key, "status": Status.STREAMING.value}
            await self._mongo.messages.delete_one(running, session=session)
            if not (await self._mongo.conversations.delete_one(_one(conversation), session=session)).deleted_count:
                raise NotFound(_GONE)
            for name, which in belongings(key, user_id):
                await self._mongo.collection(name).delete_many(which, session=session)

        if self._ledger is not None:  # before the deletion: the answers' documents hold their costs
            await self._ledger.settle(user_id, [conversation.key])
        async for oldest in oldest_messages(self._mongo, key):
            await self._mongo.messages.delete_many(oldest)
        await self._mongo.transaction(all_of_it)
        return conversation

    def _found(self, document: dict[str, Any] | None) -> Conversation:
        for conversation in self._mongo.understood(conversation_model, document):
            return conversation
        raise NotFound(_GONE)


async def touch(mongo: Mongo, conversation: Conversation) -> bool:
    """Set the conversation's `updatedAt` to now; False if it no longer exists. Raises the driver's errors."""
    return await mongo.in_thread(touching(mongo, conversation))


def touching(mongo: Mongo, conversation: Conversation) -> Callable[[], bool]:
    """`touch` as work for `Mongo.in_thread`."""

    def work() -> bool:
        change = {"$currentDate": {"updatedAt": True}}
        return bool(mongo.conversations.in_thread.update_one(_one(conversation), change).matched_count)

    return work


async def touched(mongo: Mongo, conversation: Conversation, *, session: Any) -> Document | None:
    """Like `touch`, in a transaction. Returns the document's `_id` and `head`, or None if it is gone.

    Not with `findAndModify`: on a write conflict, MongoDB logs the whole command, with the user's id.
    """
    which = _one(conversation)
    changed = await mongo.conversations.update_one(which, {"$currentDate": {"updatedAt": True}}, session=session)
    document: Document | None = None
    if changed.matched_count:
        document = await mongo.conversations.find_one(which, {"head": 1}, session=session)
    return document


async def move_head(mongo: Mongo, conversation: Conversation, head: Document, *, session: Any) -> None:
    """Make the conversation show another branch. `head` comes from `moved_head`. Raises `NotFound` if it is gone."""
    moved = await mongo.conversations.update_one(_one(conversation), {"$set": head}, session=session)
    if not moved.matched_count:
        raise NotFound(_GONE)


def moved_head(message_id: str, owner: str) -> Document:
    """The fields `head`, the last message of the shown branch, and `headMovedBy`, the process `owner` that set it.

    The change stream selects changes by `headMovedBy`, so its value is new each time.
    """
    return {"head": ObjectId(message_id), "headMovedBy": f"{owner}#{ObjectId()}"}


def _one(conversation: Conversation) -> Document:
    return {"_id": ObjectId(conversation.key), "userId": conversation.user_id}


def _place(before: str) -> tuple[datetime, ObjectId]:
    milliseconds, _, key = before.partition("-")
    if not (milliseconds.isascii() and milliseconds.isdigit() and len(milliseconds) <= 14 and ObjectId.is_valid(key)):
        raise InvalidRequest("`before` must be a nextCursor of this list.")
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC), ObjectId(key)
