"""Copies the development database into new files, so that no file contains deleted data any more.

When MongoDB deletes a document, its bytes stay in the data file, the oplog and the journal until they are overwritten.
New files contain only the existing documents.
"""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from chatstream.errors import ConfigurationError
from chatstream.store.embedded import rewrite_embedded

# Bytes copied per batch; one more document, of at most 16 MB, may come on top.
_BATCH_BYTES = 8_000_000
# MongoDB's own databases, not copied: the new server has its own.
_OWN = ("admin", "config", "local")


async def rewrite(data_dir: Path) -> int:
    """Copy the database in `data_dir` into new files and delete the old ones; returns the number of documents.

    Raises `ConfigurationError` if a server uses the database or the copy fails; then nothing has changed.
    """
    return await rewrite_embedded(data_dir, _copy)


async def _copy(old: str, new: str) -> int:
    copied = 0
    try:
        async with AsyncMongoClient[dict[str, Any]](old) as source, AsyncMongoClient[dict[str, Any]](new) as target:
            for name in sorted({*await source.list_database_names()} - {*_OWN}):
                # Views are copied last, in the order of their creation: a view may need collections and earlier views.
                listed = await (await source[name].list_collections()).to_list()
                for one in sorted(listed, key=lambda one: bool(one["type"] == "view")):
                    if not one["name"].startswith("system."):  # the server creates these itself
                        copied += await _copy_collection(source[name], target[name], one)
    except PyMongoError as exc:  # its text may contain documents
        raise ConfigurationError(
            f"The database could not be written anew, and is as it was ({type(exc).__name__}). "
            "Is there room on the disk for a second one?"
        ) from exc
    return copied


async def _copy_collection(source: Any, target: Any, about: Mapping[str, Any]) -> int:
    """Copy a collection's options, documents and indexes; returns the number of documents."""
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
