"""Users' pseudonyms in the ledger: they cannot be computed without the month's key, and older accounts stay valid."""

import asyncio
import hashlib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from chatstream.store.mongo import INDEXES, Mongo
from chatstream.store.pseudonyms import Pseudonyms

NOW = datetime.now(UTC)
MONTH = f"{NOW:%Y-%m}"
EARLIER = datetime(2024, 5, 31, 23, 59, tzinfo=UTC)


@pytest.fixture
def apart(mongodb_uri: str) -> Iterator[tuple[Mongo, Database[dict[str, Any]]]]:
    """A separate database, since all users of a month share its key; and pymongo's client for it."""
    name = f"names-{uuid.uuid4().hex}"
    mongo = Mongo(mongodb_uri, name)
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        yield mongo, client[name]
        client.drop_database(name)
    mongo.close()


def unkeyed(user: str, month: str) -> str:
    """A pseudonym in the form of earlier versions."""
    return f"{hashlib.sha256(user.encode()).hexdigest()}:{month}"


@pytest.mark.gen_test
async def test_all_processes_have_one_name_for_a_user_which_says_nothing_of_them(
    apart: tuple[Mongo, Database[dict[str, Any]]],
) -> None:
    mongo, _ = apart
    names = await asyncio.gather(*(Pseudonyms(mongo).account("anna", NOW) for _ in range(8)))
    assert len({*names}) == 1
    [name, *_] = names
    assert name.startswith(f"{MONTH}:")
    for guess in (hashlib.sha256, hashlib.sha512, hashlib.md5):
        assert guess(b"anna").hexdigest() not in name
    others = Pseudonyms(mongo)
    assert await others.account("Anna", NOW) != name
    # Two months have two keys: a user's accounts of different months cannot be linked.
    earlier = await others.account("anna", EARLIER)
    assert earlier.partition(":")[2] != name.partition(":")[2]


@pytest.mark.gen_test
async def test_a_key_goes_after_its_month(apart: tuple[Mongo, Database[dict[str, Any]]]) -> None:
    mongo, database = apart
    names = Pseudonyms(mongo)
    for moment in (EARLIER, datetime(2024, 12, 1, tzinfo=UTC)):
        await names.account("anna", moment)
    ends = {one["_id"]: one["expiresAt"].isoformat() for one in database["ledgerKeys"].find()}
    assert ends == {"2024-05": "2024-06-08T00:00:00", "2024-12": "2025-01-08T00:00:00"}
    [index] = INDEXES["ledgerKeys"]
    assert index.document["expireAfterSeconds"] == 0


@pytest.mark.gen_test
async def test_a_month_that_a_version_before_began_is_counted_so_to_its_end(
    apart: tuple[Mongo, Database[dict[str, Any]]],
) -> None:
    mongo, database = apart
    database["ledger"].insert_one({"_id": unkeyed("anna", MONTH), "month": MONTH, "userId": "anna", "tokens": 7})
    names = Pseudonyms(mongo)
    # Also for a user without an account yet: the version before may run beside this one.
    assert [await names.account(user, NOW) for user in ("anna", "ben")] == [
        unkeyed("anna", MONTH),
        unkeyed("ben", MONTH),
    ]
    assert await Pseudonyms(mongo).account("anna", NOW) == unkeyed("anna", MONTH)
    assert (await names.account("anna", EARLIER)).startswith("2024-05:")


@pytest.mark.gen_test
async def test_who_was_erased_by_a_version_before_cannot_be_guessed_after_the_month(
    apart: tuple[Mongo, Database[dict[str, Any]]],
) -> None:
    mongo, database = apart
    sums = {"tokens": 7, "open": {}, "models": {"=m": {"answers": 1}}}
    erased = [{"_id": unkeyed(f"user-{n}", "2024-05"), "month": "2024-05", "userId": f"erased-{n}"} for n in range(250)]
    kept = [
        {"_id": unkeyed("anna", "2024-05"), "month": "2024-05", "userId": "anna"},
        {"_id": unkeyed("cleo", MONTH), "month": MONTH, "userId": "erased-x"},  # this user may return this month
    ]
    database["ledger"].insert_many([one | sums for one in [*erased, *kept]])
    await asyncio.gather(*(Pseudonyms(mongo).account("anna", NOW) for _ in range(2)))
    found = {one["userId"]: one for one in database["ledger"].find()}
    assert len(found) == 252
    for one in erased:
        new = found[str(one["userId"])]
        assert new | {"_id": ""} == one | sums | {"_id": ""}
        assert new["_id"] != one["_id"]
    for one in kept:
        assert found[str(one["userId"])] == one | sums
