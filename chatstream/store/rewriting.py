"""To write the development database anew, so that what was deleted from it is in none of its files.

MongoDB deletes a document by forgetting where it is. Its words stay in the data file until something is written over
them, and in the oplog and the journal until those begin again. In new files there is only what is still there.
"""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from chatstream.errors import ConfigurationError
from chatstream.store.embedded import rewrite_embedded

# What is held at a time, in bytes; beside one document of MongoDB's, which has 16 MB at most.
_BATCH_BYTES = 8_000_000
# MongoDB's own; the new one has its own already.
_OWN = ("admin", "config", "local")


async def rewrite(data_dir: Path) -> int:
    """Write the database in `data_dir` anew; returns how many documents it has.

    Raises `ConfigurationError`, and nothing has changed, if a server uses it or it cannot be done.
    """
    return await rewrite_embedded(data_dir, _copy)


async def _copy(old: str, new: str) -> int:
    copied = 0
    try:
        async with AsyncMongoClient[dict[str, Any]](old) as source, AsyncMongoClient[dict[str, Any]](new) as target:
            for name in sorted({*await source.list_database_names()} - {*_OWN}):
                # Views are made last: of collections, and of other views in the order in which they were made.
                listed = await (await source[name].list_collections()).to_list()
                for one in sorted(listed, key=lambda one: bool(one["type"] == "view")):
                    if not one["name"].startswith("system."):  # the server makes these itself
                        copied += await _copy_collection(source[name], target[name], one)
    except PyMongoError as exc:  # its text may have documents in it
        raise ConfigurationError(
            f"The database could not be written anew, and is as it was ({type(exc).__name__}). "
            "Is there room on the disk for a second one?"
        ) from exc
    return copied


async def _copy_collection(source: Any, target: Any, about: Mapping[str, Any]) -> int:
    """Its options, its documents and its indexes."""
    name = about["name"]
    await target.command({"create": name, **about["options"]})
    if about["type"] == "view":
        return 0
    copied = 0
    async for batch in _batches(source, name):
        await target[name].insert_many(batch, bypass_document_validation=True)
        copied += len(batch)
    indexes = [index.to_dict() async for index in await source[name].list_indexes()]
    more = [{key: value for key, value in one.items() if key != "ns"} for one in indexes if one["name"] != "_id_"]
    if more:
        await target.command({"createIndexes": name, "indexes": more})
    return copied


async def _batches(source: Any, name: str) -> AsyncIterator[list[RawBSONDocument]]:
    raw = source.get_collection(name, source.codec_options.with_options(document_class=RawBSONDocument))
    batch: list[RawBSONDocument] = []
    size = 0
    async for document in raw.find():
        batch.append(document)
        size += len(document.raw)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
