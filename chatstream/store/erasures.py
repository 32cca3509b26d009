"""Erases a user: deletes everything in `kept.KEPT` that belongs to them.

An erasure is a document, so that another process can continue it if one dies. The document has the user's id until the
erasure is complete; after that it is a receipt without personal data. Conversations are deleted in batches. The keys of
a batch are stored before the first deletion, so that the messages of a deleted conversation can still be found.

Conversations that the user creates meanwhile are erased, too: an erasure is complete when no conversation is left.
"""

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from chatstream.models import Erased, Erasure
from chatstream.store.documents import new_key, now, whole_number
from chatstream.store.gate import Document
from chatstream.store.kept import OF_CONVERSATIONS, OF_USERS, Found
from chatstream.store.ledger import Ledger
from chatstream.store.mongo import Mongo
from chatstream.store.thinning import AT_ONCE

# Conversations per batch: their keys are stored in the erasure's document.
_BATCH = 50


class Batch(NamedTuple):
    """The keys of the conversations that are being erased."""

    number: int
    keys: list[str]


class Erasures:
    """All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo, ledger: Ledger | None = None) -> None:
        self._mongo = mongo
        self._ledger = ledger
        self._erasures = mongo.erasures

    async def begin(self, user_id: str) -> Erasure:
        """Return the running erasure of this user, or start one."""
        new = {"_id": new_key(), "requestedAt": now(), "erased": {"conversations": 0, "messages": 0}, "batches": 0}
        while True:
            document = await self._erasures.find_one({"userId": user_id})
            if document is not None:
                return _erasure(document)
            # Not `findAndModify`: when that fails, MongoDB logs the whole command, including the user's id.
            with contextlib.suppress(DuplicateKeyError):  # another request was faster: the next turn finds its document
                await self._erasures.insert_one(new | {"userId": user_id})

    async def get(self, erasure_id: str) -> Erasure | None:
        """Return this erasure; None if it does not exist."""
        document = await self._erasures.find_one({"_id": ObjectId(erasure_id)})
        return None if document is None else _erasure(document)

    async def running(self) -> list[str]:
        """The ids of the erasures that are not complete."""
        found = self._erasures.find({"userId": {"$exists": True}}, {"_id": 1}).hint("running")
        return [str(one["_id"]) async for one in found]

    async def next_batch(self, erasure_id: str) -> Batch | None:
        """Return the unfinished batch, or begin the next one; None if no conversation is left."""
        which = {"_id": ObjectId(erasure_id), "userId": {"$exists": True}}
        document = await self._erasures.find_one(which)
        if document is None:
            return None
        if "batch" not in document:
            keys = await self._some_keys(document["userId"])
            if not keys:
                return None
            counts = {"conversations": len(keys), "messages": await self._count_messages(keys)}
            document = await self._erasures.find_one_and_update(
                which | {"batches": document["batches"], "batch": {"$exists": False}},
                {"$set": {"batch": {"keys": keys, **counts}}},
                return_document=ReturnDocument.AFTER,
            )
            if document is None:  # another process has begun the batch
                return await self.next_batch(erasure_id)
        keys = document["batch"]["keys"]
        return Batch(document["batches"], [str(key) for key in keys if isinstance(key, ObjectId)])

    async def _some_keys(self, user_id: str) -> list[ObjectId]:
        found = self._mongo.conversations.find({"userId": user_id, "_id": {"$type": "objectId"}}, {"_id": 1})
        return [one["_id"] for one in await found.limit(_BATCH).to_list(_BATCH)]

    async def _count_messages(self, keys: list[ObjectId]) -> int:
        return int(await self._mongo.messages.count_documents({"conversationId": {"$in": keys}}, hint="log"))

    async def stop_answers(self, batch: Batch) -> None:
        """Ask the processes that generate answers in these conversations to stop them."""
        await self._mongo.messages.update_many(_running(batch), {"$set": {"stopRequested": True}})

    async def answers_run(self, batch: Batch) -> bool:
        """Whether an answer is still being generated in one of these conversations."""
        return await self._mongo.messages.find_one(_running(batch), {"_id": 1}) is not None

    async def erase_conversations(self, erasure_id: str, batch: Batch) -> None:
        """Delete the conversations. After this no message can be added, and the change stream informs all processes."""
        document = await self._erasures.find_one({"_id": ObjectId(erasure_id)})
        if document is not None and "userId" in document:
            if self._ledger is not None:  # before the deletion: the answers' documents hold their usage
                await self._ledger.settle(document["userId"], batch.keys)
            which = {"userId": document["userId"], "_id": {"$in": [ObjectId(key) for key in batch.keys]}}
            await self._mongo.conversations.delete_many(which)

    async def erase_belongings(self, batch: Batch) -> AsyncIterator[None]:
        """Delete what belongs to the conversations. Yields after each operation: the caller renews its lease."""
        for kept in OF_CONVERSATIONS:
            for key in batch.keys:
                async for _ in self._delete(kept.name, {kept.found: ObjectId(key)}):
                    yield

    async def finish_batch(self, erasure_id: str, batch: Batch) -> None:
        """Add the deleted batch to the erasure's counts. A second call, by any process, changes nothing."""
        await self._erasures.update_one(
            {"_id": ObjectId(erasure_id), "batches": batch.number, "batch": {"$exists": True}},
            [
                {
                    "$set": {
                        "batches": batch.number + 1,
                        "erased": {
                            name: {"$add": [f"$erased.{name}", f"$batch.{name}"]}
                            for name in ("conversations", "messages")
                        },
                    }
                },
                {"$unset": "batch"},
            ],
        )

    async def erase_rest(self, erasure_id: str) -> None:
        """Delete the user's other documents. Those that must be kept get a pseudonym in place of the user's id."""
        document = await self._erasures.find_one({"_id": ObjectId(erasure_id)})
        if document is None or "userId" not in document:
            return
        which = {Found.BY_USER.value: document["userId"]}
        await self._erase_unknown_conversations(which)
        for kept in OF_USERS:
            if kept.pseudonymised:
                # Also remove unsent webhook events: they contain the id.
                nobody = {"$set": {Found.BY_USER.value: f"erased-{erasure_id}"}, "$unset": {"webhook": ""}}
                await self._mongo.collection(kept.name).update_many(which, nobody)
                # A user who came back after an earlier erasure has an account without the id, but its webhook event may
                # contain the id.
                told = {f"webhook.{Found.BY_USER.value}": document["userId"]}
                await self._mongo.collection(kept.name).update_many(told, {"$unset": {"webhook": ""}})
            else:
                async for _ in self._delete(kept.name, which):
                    pass

    async def _erase_unknown_conversations(self, which: Document) -> None:
        """Delete the user's conversations whose keys this version does not know, with what belongs to them."""
        unknown = which | {"_id": {"$not": {"$type": "objectId"}}}
        async for one in self._mongo.conversations.find(unknown, {"_id": 1}):
            for kept in OF_CONVERSATIONS:
                async for _ in self._delete(kept.name, {kept.found: one["_id"]}):
                    pass
            await self._mongo.conversations.delete_one(which | {"_id": one["_id"]})

    async def complete(self, erasure_id: str) -> bool:
        """Mark the erasure as complete and remove the user's id from it.

        Returns false if it was complete already, or if a batch is unfinished.
        """
        result = await self._erasures.update_one(
            {"_id": ObjectId(erasure_id), "userId": {"$exists": True}, "batch": {"$exists": False}},
            {"$unset": {"userId": ""}, "$currentDate": {"completedAt": True}},
        )
        return bool(result.modified_count)

    async def _delete(self, name: str, which: Document) -> AsyncIterator[None]:
        collection = self._mongo.collection(name)
        while True:
            found = await collection.find(which, {"_id": 1}).limit(AT_ONCE).to_list(AT_ONCE)
            if found:
                await collection.delete_many(which | {"_id": {"$in": [one["_id"] for one in found]}})
            yield
            if len(found) < AT_ONCE:
                return


def _running(batch: Batch) -> Document:
    return {"conversationId": {"$in": [ObjectId(key) for key in batch.keys]}, "status": "streaming"}


def _erasure(document: dict[str, Any]) -> Erasure:
    """The erasure in a document; a later version may have written it, with more counts."""
    completed, counts = document.get("completedAt"), document.get("erased")
    known = counts if isinstance(counts, dict) else {}
    requested = document.get("requestedAt")
    return Erasure(
        id=str(document["_id"]),
        requested_at=requested if isinstance(requested, datetime) else document["_id"].generation_time,
        completed_at=completed if isinstance(completed, datetime) else None,
        erased=Erased(
            conversations=whole_number(known.get("conversations")) or 0,
            messages=whole_number(known.get("messages")) or 0,
        ),
    )
