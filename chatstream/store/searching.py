"""Full-text search of a user's conversations.

The collection ``search`` has one document per conversation with the terms of its title and its messages (see `terms`),
without reasoning. Posting a message writes nothing there. Instead, a search first updates the outdated documents,
newest conversation first. So messages cost nothing extra, a crash loses nothing, and conversations of earlier versions
are found, too.

The terms of one user are in one index range and, with the shard key ``userId``, on one shard.
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
from chatstream.store.documents import ENDED, PLACES, SCHEMA, place_of, whole_number
from chatstream.store.gate import Document
from chatstream.store.mongo import Mongo
from chatstream.store.terms import begins_terms, terms

# Maximum number of different terms stored per conversation: more than a novel has, and far below MongoDB's 16 MB per
# document.
_MOST_TERMS = 20_000
# A search updates documents for at most this many seconds, then answers without the rest. A request has four seconds.
_UPDATE_SECONDS = 1.5
# The first text of a conversation may take this many seconds longer, its wait for a thread included: a slow text would
# else be begun anew by each search. It takes half a second of CPU time at most (see `_SHORT`).
_FIRST_TEXT_SECONDS = 1.0
# Search this far back from the last update: `updatedAt` is set before the commit, which may take some seconds.
_LATE_COMMITS = timedelta(seconds=60)
# Maximum number of concurrent searches in one process: the database must have time for other requests.
_AT_ONCE = 2
_BATCH = 50
# A text of up to this many characters is split on the event loop: it takes a few milliseconds at most. The longest
# answer, in a script without spaces, takes half a second.
_SHORT = 1000

_BEFORE_ALL = datetime(1970, 1, 2, tzinfo=UTC)


class Search:
    """The search index. All methods raise `StorageUnavailable` when the database does not answer in time."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._search = mongo.search
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def find(self, user_id: str, sought: Collection[str]) -> tuple[list[ObjectId], bool]:
        """The keys of the user's conversations that match every term, as a prefix, and whether all were searched.

        If not, the index has yet to reach the older conversations; the next search continues to update it.
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
        if gone := keys - existing:  # deleted by a process of the previous version
            await self._search.delete_many({"userId": user_id, "_id": {"$in": [*gone]}})
        return [*existing], complete

    async def _having(self, user_id: str, term: str) -> set[ObjectId]:
        which = re.compile(f"^{re.escape(term)}") if begins_terms(term) else term
        # Read from the index alone, which returns a document once for each matching term.
        pipeline: list[Document] = [
            {"$match": {"userId": user_id, "terms": which}},
            {"$group": {"_id": "$_id"}},
        ]
        return {one["_id"] for one in await self._search.aggregate(pipeline).to_list(None)}

    # Bringing it up to date -------------------------------------------------------------------------------------------

    async def _update(self, user_id: str) -> bool:
        """Update as many search documents as there is time for. Returns whether all are up to date."""
        now = asyncio.get_running_loop().time
        deadline = now() + _UPDATE_SECONDS
        mark = {"_id": _mark_id(user_id), "userId": user_id}
        known = await self._search.find_one(mark)
        reached_before = known.get("until") if known else None
        until = reached_before if isinstance(reached_before, datetime) else _BEFORE_ALL
        changed = await self._changed(user_id, until - _LATE_COMMITS)
        unfinished: list[datetime] = []  # `updatedAt` of the conversations that need another update
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
            await self._set_mark(mark, reached)
        return now() < deadline

    async def _set_mark(self, mark: Document, reached: datetime) -> None:
        further = {"$max": {"until": reached}}
        try:
            await self._search.update_one(mark, further, upsert=True)
        except DuplicateKeyError:  # another search has just inserted it
            await self._search.update_one(mark, further)

    async def _changed(self, user_id: str, since: datetime) -> list[Document]:
        which = {"userId": user_id, "updatedAt": {"$gt": since}}
        cursor = self._mongo.conversations.find(which, {"title": 1, "updatedAt": 1}).sort("updatedAt", -1)
        # A later version may have stored anything, also a time out of Python's range.
        return [
            one
            for one in await cursor.to_list(None)
            if isinstance(one["_id"], ObjectId) and isinstance(one["updatedAt"], datetime)
        ]

    async def _seen(self, user_id: str, conversations: Sequence[Document]) -> dict[ObjectId, datetime | None]:
        keys = [one["_id"] for one in conversations]
        documents = self._search.find({"userId": user_id, "_id": {"$in": keys}}, {"at": 1})
        return {one["_id"]: one.get("at") for one in await documents.to_list(None)}

    async def _index(self, user_id: str, conversation: Document, deadline: float) -> bool:
        """Update the search document of one conversation; returns False if the update is not complete."""
        key, title = conversation["_id"], conversation.get("title")
        title = title if isinstance(title, str) else ""
        which = {"_id": key, "userId": user_id}
        known = await self._search.find_one(which, {"title": 1, "seq": 1})
        reached = None if known is None or known.get("title") != title else whole_number(known.get("seq"))
        goes_on = reached is not None
        after = seq = reached or 0
        found = dict.fromkeys(terms(title))  # in order, since only the first terms are kept
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
                try:
                    more_time = _FIRST_TEXT_SECONDS if seq == after else 0.0
                    found.update(await _terms(content, deadline + more_time))
                except TimeoutError:
                    whole = False
                    break
            seq = place_of(message)
        at = conversation["updatedAt"] if whole else None
        new = [*found][:_MOST_TERMS]
        document = {"title": title, "seq": seq, "at": at, "schema": SCHEMA}
        if goes_on:
            more = {"$concatArrays": ["$terms", {"$setDifference": [{"$literal": new}, "$terms"]}]}
            values = {name: {"$literal": value} for name, value in document.items()}
            kept = {"$slice": [more, _MOST_TERMS]}
            # If another process has done this update meanwhile, its result is the same.
            await self._search.update_one(which | {"seq": after}, [{"$set": values | {"terms": kept}}])
        else:
            with suppress(DuplicateKeyError):  # another process has read further
                newer = which | {"seq": {"$not": {"$gt": seq}}}
                await self._search.replace_one(newer, which | document | {"terms": new}, upsert=True)
        if await self._mongo.conversations.find_one({"_id": key, "userId": user_id}, {"_id": 1}) is None:
            await self._search.delete_one(which)  # it was deleted meanwhile
        return whole


async def _terms(text: str, deadline: float) -> dict[str, None]:
    """The terms of a text, in order. Raises `TimeoutError` at the deadline, a time of the loop's clock.

    A long text goes to a thread. After a deadline the thread goes on alone, for half a second of CPU time at most; so
    there may be some more threads than `_AT_ONCE`.
    """
    await asyncio.sleep(0)  # else the messages of one batch would be taken without a turn for others
    if len(text) <= _SHORT:
        return dict.fromkeys(terms(text))
    async with asyncio.timeout_at(deadline):
        return await asyncio.to_thread(lambda: dict.fromkeys(terms(text)))


def _mark_id(user_id: str) -> ObjectId:
    """The `_id` of the document that stores up to which time a user's search documents are up to date."""
    return ObjectId(sha256(user_id.encode()).digest()[:12])
