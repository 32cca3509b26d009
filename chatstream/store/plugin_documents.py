"""Stores documents of plug-ins about users. Each is written once; its key is unique per plug-in and user."""

from collections.abc import AsyncGenerator, Iterable
from datetime import datetime
from typing import Any

import msgspec
from bson import ObjectId
from msgspec import Struct
from pymongo.errors import BulkWriteError, DuplicateKeyError
from pymongo.read_concern import ReadConcern

from chatstream.errors import StorageUnavailable
from chatstream.store.documents import NotUnderstood, now, plain, understanding
from chatstream.store.gate import Document
from chatstream.store.mongo import Mongo

LONGEST_KEY = 200  # code points: a call's key has some 30
MOST_BYTES = 16 * 1024  # of one document's data, as JSON
# Per plug-in and user. A plug-in that needs more should have its own database.
MOST_DOCUMENTS = 10_000
MOST_READ = 100  # documents per call of `newest`
# Documents per request for an export. With 16 KiB each, a batch is about as large as the longest answer.
_BATCH = 100


class TooMany(Exception):
    """Raised when the plug-in has `MOST_DOCUMENTS` about this user."""


class PluginDocument(Struct, frozen=True, kw_only=True):
    """A document of a plug-in about a user. `data` is a JSON value."""

    plugin: str
    key: str
    data: Any
    created_at: datetime


class PluginDocuments:
    """The documents of all plug-ins. All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._documents = mongo.plugin_documents
        # Used after a duplicate-key error: the document exists, but a majority read may not see it yet. A linearizable
        # read waits until it does.
        self._linearizable = self._documents.with_options(read_concern=ReadConcern("linearizable"))

    async def put(self, plugin: str, user_id: str, key: str, data: Any) -> PluginDocument:
        """Store a document, unless the key is in use; returns the stored document of this key.

        Raises `TooMany`, and `ValueError` for a key or data that cannot be stored; `StorageUnavailable` also if the
        stored document is one that this version cannot read.
        """
        document = _document(user_id, PluginDocument(plugin=plugin, key=key, data=data, created_at=now()))
        there = await self.get(plugin, user_id, key)
        if there is not None:
            return there
        which = {"userId": user_id, "plugin": plugin}
        if await self._documents.count_documents(which, limit=MOST_DOCUMENTS, hint="key") >= MOST_DOCUMENTS:
            raise TooMany
        try:
            await self._documents.insert_one(document)
        except DuplicateKeyError:
            document = await self._linearizable.find_one(which | {"key": key}) or document
        try:
            return _model(document)
        except NotUnderstood as exc:  # a later version has stored it: it is there, and cannot be told
            raise StorageUnavailable from exc

    async def get(self, plugin: str, user_id: str, key: str) -> PluginDocument | None:
        """The document with this key, or None."""
        document = await self._documents.find_one({"userId": user_id, "plugin": plugin, "key": key})
        return next(iter(self._mongo.understood(_model, document)), None)

    async def newest(self, plugin: str, user_id: str, limit: int) -> list[PluginDocument]:
        """The newest documents, newest first, at most `MOST_READ`."""
        limit = max(1, min(limit, MOST_READ))
        found = self._documents.find({"userId": user_id, "plugin": plugin})
        found = found.sort([("createdAt", -1), ("_id", -1)]).hint("newest").limit(limit)
        return self._mongo.understood(_model, *await found.to_list(limit))

    async def all_of(self, user_id: str) -> AsyncGenerator[PluginDocument, None]:
        """All documents about a user, sorted by plug-in."""
        found = self._documents.find({"userId": user_id}).hint("key").batch_size(_BATCH)
        async for each in found:
            for one in self._mongo.understood(_model, each):
                yield one

    async def add(self, user_id: str, documents: Iterable[PluginDocument]) -> None:
        """Store documents, except those whose keys are in use. Raises `ValueError` for one that cannot be stored."""
        new = [_document(user_id, each) for each in documents]
        if new:
            try:
                await self._documents.insert_many(new, ordered=False)
            except BulkWriteError as exc:
                if any(error["code"] != 11000 for error in exc.details["writeErrors"]):  # DuplicateKey
                    raise


def check(one: PluginDocument) -> str:
    """The document's data as JSON text. Raises `ValueError` if it cannot be stored."""
    if not 0 < len(one.key) <= LONGEST_KEY or "\0" in one.key:
        raise ValueError(f"a key must have 1 to {LONGEST_KEY} characters")
    try:
        text = msgspec.json.encode(one.data)
        one.key.encode()
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as exc:
        raise ValueError("only JSON can be kept, under a key that is text") from exc
    if len(text) > MOST_BYTES:
        raise ValueError(f"a document has at most {MOST_BYTES} bytes")
    return text.decode()


def _document(user_id: str, one: PluginDocument) -> Document:
    """The MongoDB document. Its data is JSON text: BSON cannot hold all of JSON's numbers, names and nesting depths.

    Raises `ValueError`.
    """
    return {
        "_id": ObjectId(),
        "userId": user_id,
        "plugin": one.plugin,
        "key": one.key,
        "data": check(one),
        "createdAt": one.created_at,
    }


@understanding
def _model(document: Document) -> PluginDocument:
    """The plug-in's document in a document. Raises `NotUnderstood`."""
    data = msgspec.json.decode(document["data"])
    known = {"plugin": plain(document["plugin"]), "key": plain(document["key"]), "created_at": document["createdAt"]}
    return msgspec.convert(known | {"data": data}, PluginDocument)
