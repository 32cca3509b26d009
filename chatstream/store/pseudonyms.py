"""Pseudonyms of users in the ledger: hashes of the user ids, with a random key for each month.

Within a month, a user who comes back after an erasure must get the same pseudonym: erasure must not renew the budget.
After the month the pseudonym is not needed, and MongoDB deletes the key. Then an account can no longer be linked to its
user, not even with the whole database and a guess of the user's id.

Earlier versions made the hash without a key. If one of them made the first account of a month, the whole month uses
hashes without a key, so that both versions can run at the same time. After that month, the accounts of erased users get
random names.
"""

import hashlib
import hmac
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from bson import Binary
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from chatstream.store.gate import Document
from chatstream.store.mongo import Mongo

# How long after its month a key is kept. An answer counts for the month in which it began, and ends long before this.
_KEPT_AFTER_THE_MONTH = timedelta(days=7)
_KEY_BYTES = 32
# Pseudonyms of earlier versions, without a key: the hash, a colon, the month.
_UNKEYED: Document = {"$regex": "^[0-9a-f]{64}:"}
# Accounts of erased users renamed per operation.
_RENAMED_AT_ONCE = 100
# Maximum number of months whose keys are in memory: the current and the previous month, and a few requested ones.
_MOST_REMEMBERED = 4


class _Gone(Exception):
    """Raised when another process has just renamed one of the accounts."""


class _Key(NamedTuple):
    """The key of one month. `unkeyed`: hash without a key, as earlier versions did."""

    secret: bytes
    unkeyed: bool


class Pseudonyms:
    """Makes pseudonyms. All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._accounts = mongo.ledger
        self._keys = mongo.ledger_keys
        self._known: dict[str, _Key] = {}

    async def account(self, user_id: str, moment: datetime) -> str:
        """The `_id` of the user's account for the month of `moment`. Reads the database once per month."""
        month = month_of(moment)
        key = self._known.get(month) or await self._load(month)
        unkeyed = hashlib.sha256(user_id.encode())
        if key.unkeyed:
            return f"{unkeyed.hexdigest()}:{month}"
        return f"{month}:{hmac.new(key.secret, unkeyed.digest(), hashlib.sha256).hexdigest()}"

    async def _load(self, month: str) -> _Key:
        document = await self._keys.find_one({"_id": month}) or await self._make(month)
        key = _Key(bytes(document["key"]), bool(document.get("unkeyed", False)))
        while len(self._known) >= _MOST_REMEMBERED:
            del self._known[min(self._known)]
        self._known[month] = key
        return key

    async def _make(self, month: str) -> Document:
        """Make the key of a month, at the month's first use or the first run of this version."""
        await self._forget_the_erased()
        before = await self._accounts.find_one({"month": month, "_id": _UNKEYED}, {"_id": 1})
        key: Document = {
            "key": Binary(secrets.token_bytes(_KEY_BYTES)),
            "unkeyed": before is not None,
            "expiresAt": _end_of(month) + _KEPT_AFTER_THE_MONTH,
        }
        while True:
            try:
                document: Document = await self._keys.find_one_and_update(
                    {"_id": month}, {"$setOnInsert": key}, upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:
                continue  # another process has made it: read that one
            return document

    async def _forget_the_erased(self) -> None:
        """Rename accounts that earlier versions made and whose users are erased: to random names.

        This month's accounts keep their names, because the budget of the month is counted there.
        """
        erased: Document = {"userId": {"$gte": "erased-", "$lt": "erased."}, "_id": _UNKEYED}
        which = erased | {"month": {"$lt": month_of(datetime.now(UTC))}}
        while found := await self._accounts.find(which).limit(_RENAMED_AT_ONCE).to_list(_RENAMED_AT_ONCE):
            try:
                await self._rename(found)
            except _Gone:
                return

    async def _rename(self, found: list[Document]) -> None:
        named = [one | {"_id": f"{one['month']}:{secrets.token_hex(_KEY_BYTES)}"} for one in found]

        async def both(session: Any) -> None:
            gone = await self._accounts.delete_many({"_id": {"$in": [one["_id"] for one in found]}}, session=session)
            if gone.deleted_count < len(found):
                raise _Gone
            await self._accounts.insert_many(named, session=session)

        await self._mongo.transaction(both)


def month_of(moment: datetime) -> str:
    """The month as accounts store it: ``2026-11``."""
    return f"{moment:%Y-%m}"


def _end_of(month: str) -> datetime:
    first = datetime.fromisoformat(f"{month}-01").replace(tzinfo=UTC)
    return (first + timedelta(days=31)).replace(day=1)
