"""Deletes conversations without activity, one by one, with everything that belongs to them. An index finds them."""

from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from bson import ObjectId

from chatstream.store.gate import Document
from chatstream.store.kept import belongings
from chatstream.store.ledger import Ledger
from chatstream.store.mongo import Mongo
from chatstream.store.reading import Reading
from chatstream.store.thinning import oldest_messages


class Idle(NamedTuple):
    """A conversation without activity, as it was read."""

    key: str
    user_id: str
    updated_at: datetime


class _Used(Exception):
    """Raised when the conversation was used meanwhile, or has a running answer."""


class Retention:
    """Deletes idle conversations. All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo, ledger: Ledger | None = None) -> None:
        """`ledger`: counts what users spend; None without budgets."""
        self._mongo = mongo
        self._ledger = ledger
        self._reading = Reading(mongo)

    async def idle(self, days: int, *, after: Idle | None, limit: int) -> list[Idle]:
        """At most `limit` conversations without activity for `days` days, least recently used first, after `after`.

        Uses the database's clock, as `updatedAt` does, so that a wrong clock of this process deletes nothing.
        """
        before = await self._mongo.time() - timedelta(days=days)
        query: Document = {"updatedAt": {"$lt": before}}
        if after is not None:
            query["updatedAt"]["$gte"] = after.updated_at
            query["$or"] = [{"updatedAt": {"$gt": after.updated_at}}, {"_id": {"$gt": ObjectId(after.key)}}]
        found = self._mongo.conversations.find(query, {"userId": 1, "updatedAt": 1})
        documents = await found.sort([("updatedAt", 1), ("_id", 1)]).limit(limit).to_list(limit)
        return [
            Idle(str(one["_id"]), one["userId"], one["updatedAt"])
            for one in documents
            # Skip documents of another version; a process of that version may delete them.
            if isinstance(one["_id"], ObjectId) and isinstance(one.get("userId"), str)
        ]

    async def delete(self, idle: Idle) -> int | None:
        """Delete the conversation and everything that belongs to it; returns its message count.

        In one transaction, except for the older messages of a large conversation. Returns None, and keeps what is still
        there, if it was used meanwhile or an answer runs in it.
        """
        key = ObjectId(idle.key)
        as_seen = {"_id": key, "userId": idle.user_id, "updatedAt": idle.updated_at}

        async def some(oldest: Document, session: Any) -> int:
            # A new value, or MongoDB sees no conflict with a concurrent use.
            held = {"$set": {"thinnedBy": str(ObjectId())}}
            if not (await self._mongo.conversations.update_one(as_seen, held, session=session)).matched_count:
                raise _Used
            await self._keep_if_used(idle, session)
            deleted: int = (await self._mongo.messages.delete_many(oldest, session=session)).deleted_count
            return deleted

        async def the_rest(session: Any) -> int:
            if not (await self._mongo.conversations.delete_one(as_seen, session=session)).deleted_count:
                raise _Used
            await self._keep_if_used(idle, session)
            messages = 0
            for name, which in belongings(key, idle.user_id):
                deleted = await self._mongo.collection(name).delete_many(which, session=session)
                messages += deleted.deleted_count if name == "messages" else 0
            return messages

        if self._ledger is not None:  # before the deletion: the answers' documents hold their costs
            await self._ledger.settle(idle.user_id)  # except a waiting answer; that one keeps the conversation
        messages = 0
        try:
            async for oldest in oldest_messages(self._mongo, key):
                messages += await self._mongo.transaction(partial(some, oldest))
            return messages + await self._mongo.transaction(the_rest)
        except _Used:
            return None

    async def _keep_if_used(self, idle: Idle, session: Any) -> None:
        if await self._reading.unfinished(idle.key, session=session) is not None:
            raise _Used
