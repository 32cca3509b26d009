"""What one process at a time does, for all of them.

A lease is good for `SECONDS` and is taken again with each step of the work; if its process dies, another one may take
it when that time is over. The time is the database's, so that no two processes' clocks are compared.
"""

from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from chatstream.store.mongo import Mongo

# Longer than one step takes: a few operations of 2 s at most, and waiting for answers to end.
SECONDS = 30


class Leases:
    """All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo, *, owner: str) -> None:
        """`owner` names this process."""
        self._leases = mongo.leases
        self._owner = owner

    async def take(self, name: str) -> bool:
        """Take it, or go on holding it; false if another process holds it."""
        ours: dict[str, Any] = {"$literal": self._owner}
        # What is not there yet is less than any time.
        free = {"$or": [{"$eq": ["$heldBy", ours]}, {"$lt": ["$heldUntil", "$$NOW"]}]}
        held = {
            "heldBy": {"$cond": [free, ours, "$heldBy"]},
            "heldUntil": {"$cond": [free, {"$add": ["$$NOW", SECONDS * 1000]}, "$heldUntil"]},
        }
        try:
            lease = await self._leases.find_one_and_update(
                {"_id": name}, [{"$set": held}], upsert=True, return_document=ReturnDocument.AFTER
            )
        except DuplicateKeyError:  # another process was faster
            return False
        return bool(lease["heldBy"] == self._owner)

    async def release(self, name: str) -> None:
        """Let another process take it."""
        await self._leases.delete_one({"_id": name, "heldBy": self._owner})
