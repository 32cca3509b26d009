"""Reports tokens and cost per user and model from the stored messages, for operators without a ledger."""

from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from chatstream.store.gate import Document
from chatstream.store.ledger import Row
from chatstream.store.mongo import Mongo

# Conversations per request. With some hundred messages each, that takes a fraction of the time limit of two seconds.
_BATCH = 50
_COUNTS = ("promptTokens", "completionTokens", "cachedTokens", "reasoningTokens", "totalTokens", "costMicros")


async def rows(mongo: Mongo, month: str) -> AsyncIterator[Row]:
    """The report of a month (``2026-11``): one row per user and model, sorted. Raises `StorageUnavailable`."""
    first = datetime.fromisoformat(f"{month}-01").replace(tzinfo=UTC)
    last = (first + timedelta(days=31)).replace(day=1)
    user: str | None = None
    sums: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    keys: list[Any] = []  # a batch of the user's conversations

    def finished() -> list[Row]:
        names = {"month": month, "user": user}
        return [msgspec.convert(names | {"model": model} | sums[model], Row) for model in sorted(sums)]

    async for conversation in mongo.conversations.find({}, {"userId": 1}).sort([("userId", 1), ("id", 1)]):
        owner = conversation.get("userId")
        if not isinstance(owner, str):  # of a later version, or put there by hand
            continue
        if owner != user or len(keys) == _BATCH:
            await _add(mongo, keys, first, last, sums)
            keys.clear()
        if owner != user:
            for row in finished():
                yield row
            sums.clear()
            user = owner
        keys.append(conversation["_id"])
    await _add(mongo, keys, first, last, sums)
    for row in finished():
        yield row


async def _add(
    mongo: Mongo, keys: list[Any], first: datetime, last: datetime, sums: defaultdict[str, defaultdict[str, int]]
) -> None:
    """Add up the tokens and costs of the answers in these conversations, by model."""
    if not keys:
        return
    counts: Document = {name: {"$sum": _number(f"$of.usage.{name}")} for name in _COUNTS}
    several = {"$gt": [{"$size": {"$setUnion": [{"$ifNull": ["$rounds.model", []]}, []]}}, 1]}
    known = {"$not": {"$in": [None, {"$ifNull": ["$rounds.usage", []]}]}}
    name = {"$cond": [{"$eq": [{"$type": "$of.model"}, "string"]}, "$of.model", ""]}
    pipeline: list[Document] = [
        {"$match": {"conversationId": {"$in": keys}, "role": "assistant", "createdAt": {"$gte": first, "$lt": last}}},
        # A later version, or a person, may have stored anything.
        {"$set": {"rounds": {"$cond": [{"$isArray": "$rounds"}, "$rounds", []]}}},
        # As in the ledger: tokens and costs count for the model of each request, the answer for the last model.
        {
            "$project": {
                "of": {"$cond": [{"$and": [several, known]}, "$rounds", [{"model": "$model", "usage": "$usage"}]]}
            }
        },
        {"$set": {"last": {"$subtract": [{"$size": "$of"}, 1]}}},
        {"$unwind": {"path": "$of", "includeArrayIndex": "place"}},
        {
            "$group": {
                "_id": name,
                "answers": {"$sum": {"$cond": [{"$eq": ["$place", "$last"]}, 1, 0]}},
            }
            | counts
        },
    ]
    for found in await mongo.messages.aggregate(pipeline).to_list(None):
        for count in ("answers", *_COUNTS):
            sums[found["_id"]][count] += int(found[count])


def _number(field: str) -> Document:
    """The field, if it is a count that a whole number can express; else 0. Not a number is less than any number."""
    kinds = {"$in": [{"$type": field}, ["int", "long", "double", "decimal"]]}
    counts = {"$and": [kinds, {"$gte": [field, 0]}, {"$lt": [field, 2**53]}]}
    return {"$cond": [counts, {"$toLong": field}, 0]}
