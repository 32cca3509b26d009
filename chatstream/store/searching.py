"""Conversations that are found by what was said in them.

The collection ``search`` has one document for each conversation that its user may find: the terms of its title and of
its messages (see `terms`), never what a model thought. Nothing is written there while people chat: a search first
brings the documents up to date that are behind, newest conversation first. So no message costs more for it, nothing is
lost when a process ends, and conversations of the versions before are found, too.

All that one user searches lies in one index range, and with the shard key ``userId`` on one shard.
"""

import asyncio
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from chatstream.errors import StorageUnavailable
from chatstream.store.documents import ENDED, PLACES, SCHEMA
from chatstream.store.gate import Document
from chatstream.store.mongo import Mongo
from chatstream.store.terms import begins_terms, terms

# Different terms of one conversation that are kept: more than a novel has; 16 MB may be in one document.
_MOST_TERMS = 20_000
# Seconds in which documents are brought up to date before a search answers without the rest: a request has four.
_UPDATE_SECONDS = 1.5
# A conversation's `updatedAt` is set before its transaction is committed, which takes some seconds at worst.
_LATE_COMMITS = timedelta(seconds=60)
# Searches of one process that ask the database at the same time: others wait for it, too.
_AT_ONCE = 2
_BATCH = 50

_BEFORE_ALL = datetime(1970, 1, 2, tzinfo=UTC)


class Search:
    """All methods raise `StorageUnavailable` when the database does not answer in time."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._search = mongo.search
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def find(self, user_id: str, sought: Collection[str]) -> tuple[list[ObjectId], bool]:
        """The keys of the user's conversations in which each of the terms begins a term, and whether all were searched.

        If not, older ones have yet to be made ready: the next search goes on with that.
        """
        try:
            async with asyncio.timeout(_UPDATE_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise StorageUnavailable from None
        try:
            complete = await self._update(user_id)
            found = [await self._having(user_id, term) for term in sorted(sought, key=len, reverse=True)]
        finally:
            self._places.release()
        keys = set.intersection(*found)
        there = self._mongo.conversations.find({"userId": user_id, "_id": {"$in": [*keys]}}, {"_id": 1})
        existing = {one["_id"] for one in await there.to_list(None)}
        if gone := keys - existing:  # deleted by a process of the version before
            await self._search.delete_many({"userId": user_id, "_id": {"$in": [*gone]}})
        return [*existing], complete

    async def _having(self, user_id: str, term: str) -> set[ObjectId]:
        which = re.compile(f"^{re.escape(term)}") if begins_terms(term) else term
        # Read from the index alone; a document comes once for each of its terms that begin so.
        pipeline: list[Document] = [
            {"$match": {"userId": user_id, "terms": which}},
            {"$group": {"_id": "$_id"}},
        ]
        return {one["_id"] for one in await self._search.aggregate(pipeline).to_list(None)}

    # Bringing it up to date -------------------------------------------------------------------------------------------

    async def _update(self, user_id: str) -> bool:
        """Whether all conversations of the user are up to date; as many as there was time for are."""
        now = asyncio.get_running_loop().time
        deadline = now() + _UPDATE_SECONDS
        mark = {"_id": _mark_id(user_id), "userId": user_id}
        known = await self._search.find_one(mark)
        until: datetime = known["until"] if known else _BEFORE_ALL
        changed = await self._changed(user_id, until - _LATE_COMMITS)
        unfinished: list[datetime] = []  # when those were used that have to be looked at again
        for first in range(0, len(changed), _BATCH):
            some = changed[first : first + _BATCH]
            seen = await self._seen(user_id, some)
            for conversation in some:
                if seen.get(conversation["_id"]) == conversation["updatedAt"]:
                    continue
                if now() >= deadline or not await self._index(user_id, conversation, deadline):
                    unfinished.append(conversation["updatedAt"])
        newest = max((one["updatedAt"] for one in changed), default=until)
        reached = min([newest, *(moment - timedelta(milliseconds=1) for moment in unfinished)])
        if reached > until:
            await self._search.update_one(mark, {"$max": {"until": reached}}, upsert=True)
        return now() < deadline

    async def _changed(self, user_id: str, since: datetime) -> list[Document]:
        which = {"userId": user_id, "updatedAt": {"$gt": since}}
        cursor = self._mongo.conversations.find(which, {"title": 1, "updatedAt": 1}).sort("updatedAt", -1)
        return [one for one in await cursor.to_list(None) if isinstance(one["_id"], ObjectId)]

    async def _seen(self, user_id: str, conversations: Sequence[Document]) -> dict[ObjectId, datetime | None]:
        keys = [one["_id"] for one in conversations]
        documents = self._search.find({"userId": user_id, "_id": {"$in": keys}}, {"at": 1})
        return {one["_id"]: one.get("at") for one in await documents.to_list(None)}

    async def _index(self, user_id: str, conversation: Document, deadline: float) -> bool:
        """Bring the document of one conversation up to date; false if there is more to come."""
        key, title = conversation["_id"], conversation.get("title") or ""
        which = {"_id": key, "userId": user_id}
        known = await self._search.find_one(which, {"title": 1, "seq": 1})
        goes_on = known is not None and known.get("title") == title
        after = seq = known["seq"] if known is not None and goes_on else 0
        found = dict.fromkeys(terms(title))  # in their order: the first ones are kept
        whole = True
        fields = {"seq": 1, "role": 1, "status": 1, "content": 1}
        cursor = self._mongo.messages.find({"conversationId": key, "seq": PLACES | {"$gt": after}}, fields)
        async for message in cursor.sort("seq", 1).batch_size(_BATCH):
            runs = message.get("role") == "assistant" and message.get("status") not in ENDED
            if runs or asyncio.get_running_loop().time() >= deadline:
                whole = False
                break
            content = message.get("content")
            if isinstance(content, str) and len(found) < _MOST_TERMS:
                found.update(dict.fromkeys(terms(content)))
            seq = message["seq"]
        at = conversation["updatedAt"] if whole else None
        new = [*found][:_MOST_TERMS]
        document = {"title": title, "seq": seq, "at": at, "schema": SCHEMA}
        if goes_on:
            more = {"$concatArrays": ["$terms", {"$setDifference": [{"$literal": new}, "$terms"]}]}
            values = {name: {"$literal": value} for name, value in document.items()}
            kept = {"$slice": [more, _MOST_TERMS]}
            # If another process has done it meanwhile, it has done the same.
            await self._search.update_one(which | {"seq": after}, [{"$set": values | {"terms": kept}}])
        else:
            with suppress(DuplicateKeyError):  # another process has read further
                newer = which | {"seq": {"$not": {"$gt": seq}}}
                await self._search.replace_one(newer, which | document | {"terms": new}, upsert=True)
        if await self._mongo.conversations.find_one({"_id": key, "userId": user_id}, {"_id": 1}) is None:
            await self._search.delete_one(which)  # it was deleted meanwhile
        return whole


def _mark_id(user_id: str) -> ObjectId:
    """Of the document that says up to when all of a user's conversations are up to date."""
    return ObjectId(sha256(user_id.encode()).digest()[:12])
