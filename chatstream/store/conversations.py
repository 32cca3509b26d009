"""Conversations as their owners see them: ownership stands inside every query."""

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError, OperationFailure

from chatstream.errors import AlreadyExists, InvalidRequest, NotFound
from chatstream.logs import describe
from chatstream.models import Conversation, Message
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

log = logging.getLogger("chatstream.store")

# What is not a time, or none that Python knows, has no place in the list.
_LAST_MOMENT = datetime.max.replace(microsecond=0, tzinfo=UTC)

_GONE = "There is no such conversation."

# Conversations that are read at once where all are.
_PAGE = 100

_FIELDS = {"title": "title", "system_prompt": "systemPrompt", "model": "model", "background": "background"}
_FIELDS |= {"client_tools": "clientTools"}


class Conversations:
    """All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo, ledger: Ledger | None = None, *, owner: str = "nobody") -> None:
        """`owner` is the name under which this process writes; see `Attempts`."""
        self._owner = owner
        self._mongo = mongo
        self._ledger = ledger
        self._joins = True  # until the database says that it cannot

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
        """A new, empty conversation; without `id` one is made. Raises `AlreadyExists` if the user has that id."""
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
        """Raises `NotFound` if it does not exist or is not the user's."""
        document = await self._mongo.conversations.find_one({"userId": user_id, "id": id})
        return self._found(document)

    async def get_with_newest(
        self,
        user_id: str,
        id: str,  # noqa: A002 - the protocol's name for it
        messages: int,
    ) -> tuple[Conversation, list[Message] | None]:
        """It and its newest `messages`, oldest first, with one operation; None in place of them if they must be read.

        That is so where one of them is for a later version alone, and where the database cannot join the two: before
        MongoDB 5.0, and before 5.1 where they are sharded. Raises `NotFound`.
        """
        if not self._joins:
            return await self.get(user_id, id), None
        newest = [{"$match": {"seq": PLACES}}, {"$sort": {"seq": -1}}, {"$limit": messages}]
        joined = {"from": "messages", "localField": "_id", "foreignField": "conversationId", "pipeline": newest}
        which: Document = {"userId": user_id, "id": id}
        try:
            found = await self._mongo.conversations.aggregate(
                [{"$match": which}, {"$limit": 1}, {"$lookup": joined | {"as": "newest"}}]
            ).to_list(1)
        except OperationFailure as exc:
            self._joins = False
            log.info("a conversation and its messages are read one after the other: %s", describe(exc))
            return await self.get(user_id, id), None
        conversation = self._found(found[0] if found else None)
        documents = found[0]["newest"]
        understood = self._mongo.understood(message_model, *reversed(documents))
        return conversation, understood if len(understood) == len(documents) else None

    async def count(self, user_id: str, most: int) -> int:
        """How many the user has; it is counted up to `most`, in an index."""
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
            # The first line says nothing new, but that the index is read from there, and not from its beginning.
            query["updatedAt"] = {"$lte": updated_at}
            query["$or"] = [{"updatedAt": {"$lt": updated_at}}, {"_id": {"$lt": key}}]
        cursor = self._mongo.conversations.find(query).sort([("updatedAt", -1), ("_id", -1)]).limit(limit + 1)
        documents = await cursor.to_list(limit + 1)
        found = self._mongo.understood(conversation_model, *documents[:limit])
        if len(documents) <= limit:
            return found, None
        # Read for its place alone: this version need not understand the rest of it.
        last = next((one for one in documents[limit - 1 :: -1] if isinstance(one["_id"], ObjectId)), None)
        if last is None:
            return found, None
        return found, f"{round(last['updatedAt'].timestamp() * 1000)}-{last['_id']}"

    async def all_of(self, user_id: str) -> AsyncGenerator[list[Conversation], None]:
        """All of the user's, page by page, by their ids: those that are made or changed meanwhile move nothing."""
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
        """Set some of `title`, `system_prompt`, `model`, `background` and `client_tools`, which are as a document has
        them; with `head` (see `moved_head`) its branch.

        After a title that somebody gives, none is made by the model. Raises `NotFound`.
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
        """Give it a title by the model, unless somebody has given it one since `conversation` was read.

        None: it keeps the one that it has. Either way none is made again. Returns whether the title was given.
        """
        which = {
            "_id": ObjectId(conversation.key),
            "userId": conversation.user_id,
            "autoTitle": True,
            "title": conversation.title,  # a process of the version before does not take the mark away
        }
        change: dict[str, Any] = {"$unset": {"autoTitle": ""}}
        if title is not None:
            change["$set"] = {"title": title} | self._titled()
            change["$currentDate"] = {"updatedAt": True}  # for who searches
        result = await self._mongo.conversations.update_one(which, change)
        return bool(result.modified_count) and title is not None

    def _titled(self) -> Document:
        """By which other processes know a new title; see `Changes`."""
        return {"titledBy": f"{self._owner}#{ObjectId()}"}

    async def delete(self, user_id: str, id: str) -> Conversation:  # noqa: A002 - see get
        """Delete it with all that belongs to it, or nothing; returns what is gone. Raises `NotFound`.

        An answer that is running finds its document gone at the next checkpoint.
        """

        async def both(session: Any) -> Conversation:
            document = await self._mongo.conversations.find_one({"userId": user_id, "id": id}, session=session)
            conversation = self._found(document)
            await self._mongo.conversations.delete_one(_one(conversation), session=session)
            for name, which in belongings(ObjectId(conversation.key), user_id):
                await self._mongo.collection(name).delete_many(which, session=session)
            return conversation

        if self._ledger is not None:  # what its answers took is known only as long as they are there
            await self._ledger.settle(user_id, [(await self.get(user_id, id)).key])
        return await self._mongo.transaction(both)

    def _found(self, document: dict[str, Any] | None) -> Conversation:
        for conversation in self._mongo.understood(conversation_model, document):
            return conversation
        raise NotFound(_GONE)


async def touch(mongo: Mongo, conversation: Conversation) -> bool:
    """Set the conversation's `updatedAt` to now; False if it no longer exists. Raises the driver's errors."""
    touched = await mongo.conversations.update_one(_one(conversation), {"$currentDate": {"updatedAt": True}})
    return bool(touched.matched_count)


async def touched(mongo: Mongo, conversation: Conversation, *, session: Any) -> Document | None:
    """The same in a transaction; returns the document's `_id` and `head`, None if it is gone.

    No `findAndModify`: where that is in another's way, MongoDB's own log has the whole command, with the user's id.
    """
    which = _one(conversation)
    changed = await mongo.conversations.update_one(which, {"$currentDate": {"updatedAt": True}}, session=session)
    document: Document | None = None
    if changed.matched_count:
        document = await mongo.conversations.find_one(which, {"head": 1}, session=session)
    return document


async def move_head(mongo: Mongo, conversation: Conversation, head: Document, *, session: Any) -> None:
    """Another branch is shown from now on; `head` is what `moved_head` has made. Raises `NotFound` if it is gone."""
    moved = await mongo.conversations.update_one(_one(conversation), {"$set": head}, session=session)
    if not moved.matched_count:
        raise NotFound(_GONE)


def moved_head(message_id: str, owner: str) -> Document:
    """The fields that say where the conversation's branch ends, and which process, named `owner`, has moved it there.

    The other processes hear of a change that has the second, which is a new one each time.
    """
    return {"head": ObjectId(message_id), "headMovedBy": f"{owner}#{ObjectId()}"}


def _one(conversation: Conversation) -> Document:
    return {"_id": ObjectId(conversation.key), "userId": conversation.user_id}


def _place(before: str) -> tuple[datetime, ObjectId]:
    milliseconds, _, key = before.partition("-")
    if not (milliseconds.isascii() and milliseconds.isdigit() and len(milliseconds) <= 14 and ObjectId.is_valid(key)):
        raise InvalidRequest("`before` must be a nextCursor of this list.")
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC), ObjectId(key)
