"""Leases: locks in the database for work that only one process at a time may do.

A lease expires after `SECONDS`. Its holder renews it with each step of the work; if the holder dies, another process
can take the lease once it has expired. All times are of the database's clock, so that clocks need not agree.
"""

from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from chatstream.store.mongo import Mongo

# Lifetime of a lease: longer than one step, which takes a few operations of 2 s and may wait for answers to end.
SECONDS = 30


class Leases:
    """The leases of one process. All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo, *, owner: str) -> None:
        """`owner` is the name of this process."""
        self._leases = mongo.leases
        self._owner = owner

    async def take(self, name: str) -> bool:
        """Take or renew the lease; returns False if another process holds it."""
        ours: dict[str, Any] = {"$literal": self._owner}
        # In MongoDB a missing field is less than any time.
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
        """Give up the lease, so that another process can take it."""
        await self._leases.delete_one({"_id": name, "heldBy": self._owner})
