"""Rewriting the development database: all data stays the same, and an interrupted rewrite changes nothing."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import Decimal128, Int64, ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from chatstream.errors import ConfigurationError
from chatstream.store.embedded import embedded_mongod, rewrite_embedded
from chatstream.store.rewriting import rewrite

KEPT = {"_id": ObjectId(), "text": "kept", "n": Int64(2), "d": Decimal128("1.10"), "nested": [{"z": 1, "a": None}]}


def fill(uri: str) -> None:
    """Fill two databases with every kind of data, and delete some of it again."""
    with MongoClient[dict[str, Any]](uri) as client:
        one = client["one"]
        one.create_collection("plain", validator={"text": {"$type": "string"}})
        one.create_collection("ring", capped=True, size=4096)
        one.create_collection("shown", viewOn="plain", pipeline=[{"$project": {"text": 1}}])
        one["plain"].insert_many([KEPT, {"text": "deleted zebedee"}, *({"text": "x" * 2_000_000} for _ in range(6))])
        one.command("insert", "plain", documents=[{"text": 1}], bypassDocumentValidation=True)
        one["plain"].delete_many({"text": {"$regex": "zebedee"}})
        one["plain"].create_index("text", unique=True, partialFilterExpression={"n": {"$exists": True}}, name="u")
        one["plain"].create_index([("n", -1), ("d", 1)])
        one["plain"].create_index("at", expireAfterSeconds=3600)
        one["ring"].insert_many([{"n": number} for number in (3, 1, 2)])
        client["two"]["times"].insert_one({"at": datetime.now(UTC)})


def contents(uri: str) -> dict[str, Any]:
    """All data of the server."""
    found: dict[str, Any] = {}
    with MongoClient[Any](uri, document_class=RawBSONDocument) as client:
        for name in {*client.list_database_names()} - {"admin", "config", "local"}:
            for about in client[name].list_collections():
                collection = client[name][about["name"]]
                indexes = [] if about["type"] == "view" else [bson.encode(one) for one in collection.list_indexes()]
                options = bson.encode(about["options"])
                found[f"{name}.{about['name']}"] = options, indexes, [bytes(one.raw) for one in collection.find()]
    return found


@pytest.mark.gen_test
async def test_everything_is_there_again_and_nothing_else(tmp_path: Path) -> None:
    async with embedded_mongod(tmp_path) as uri:
        fill(uri)
        before = contents(uri)
    assert len(before["one.plain"][2]) == 8
    assert await rewrite(tmp_path) == 12
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if b"zebedee" in path.read_bytes()]
    # The state after a kill right before the last steps, or between them.
    (tmp_path / "db.new").mkdir()
    (tmp_path / "db.new" / "half").write_text("zebedee")
    (tmp_path / "db").rename(tmp_path / "db.old")
    async with embedded_mongod(tmp_path) as uri:
        assert contents(uri) == before
    assert not (tmp_path / "db.new").exists()
    (tmp_path / "db.old").mkdir()
    (tmp_path / "db.old" / "half").write_text("zebedee")

    async def breaks_off(old: str, new: str) -> None:
        assert contents(old) == before
        fill(new)
        raise ConfigurationError("The disk is full.")

    with pytest.raises(ConfigurationError, match="The disk is full"):
        await rewrite_embedded(tmp_path, breaks_off)
    assert not [path for path in (tmp_path / "db.old", tmp_path / "db.new") if path.exists()]
    async with embedded_mongod(tmp_path) as uri:
        assert contents(uri) == before
