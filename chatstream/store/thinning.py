"""Deletes most messages of a large conversation in small steps, before a transaction deletes the rest.

A transaction must end within seconds, and what it has done until then is rolled back: alone, it could never delete a
conversation of hundreds of megabytes. After a failure, the next try continues where this one ended.
"""

from collections.abc import AsyncIterator
from typing import Any

from bson import ObjectId

from chatstream.store.gate import Document
from chatstream.store.mongo import Mongo

AT_ONCE = 200
"""Documents for one operation or transaction. A message may have megabytes, and an operation has two seconds."""


async def oldest_messages(mongo: Mongo, key: ObjectId) -> AsyncIterator[Document]:
    """Yield a filter for the oldest `AT_ONCE` messages of the conversation, as long as it has more than these.

    The caller deletes what the filter finds before it asks for the next one.
    """
    which: dict[str, Any] = {"conversationId": key}
    while True:
        found = await mongo.messages.find(which, {"_id": 1}).sort("seq", 1).limit(AT_ONCE + 1).to_list(None)
        if len(found) <= AT_ONCE:
            return
        yield which | {"_id": {"$in": [one["_id"] for one in found[:AT_ONCE]]}}
