"""Receives the writes of other processes through one MongoDB change stream per process.

The stream's filter leaves out this process's own writes and those without `writtenBy`, which are checkpoints of answers
that no other process has viewers for. So a single process receives nothing.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
from bson import ObjectId
from pymongo.errors import PyMongoError

from chatstream.errors import StorageUnavailable
from chatstream.logs import describe
from chatstream.models import Message, Rating, Status
from chatstream.pieces import Piece, read
from chatstream.store.documents import message_model, status_of
from chatstream.store.gate import Document
from chatstream.store.mongo import Mongo

log = logging.getLogger("chatstream.store")

# The database answers "no changes" after this many milliseconds: less than the time limit of one operation.
_MAX_AWAIT_MS = 1000
# Seconds to wait after an error before the change stream is opened again.
_RETRY_PAUSE = 0.5


class Stored(NamedTuple):
    """A new message was stored in the conversation `key`."""

    key: str
    message: Message


class Appended(NamedTuple):
    """New `pieces` of a running answer, which end at position `length`. `status` is set if the answer began to wait, or
    to run again, with this change."""

    answer_id: str
    pieces: list[Piece]
    length: int
    status: Status | None = None


class Ended(NamedTuple):
    """An answer has ended."""

    answer_id: str


class HeadMoved(NamedTuple):
    """The conversation `key` now shows the branch that ends at the message `head`; see `tree`."""

    key: str
    head: str


class Rated(NamedTuple):
    """The user has rated the answer `answer_id` of the conversation `key`; None: removed the rating."""

    key: str
    answer_id: str
    rating: Rating | None


class Titled(NamedTuple):
    """The title of the conversation `key` has changed."""

    key: str
    title: str | None


class Withdrawn(NamedTuple):
    """The user message `message_id` of the conversation `key` was taken back before it was answered."""

    key: str
    message_id: str


class Deleted(NamedTuple):
    """The conversation `key` was deleted."""

    key: str


Change = Stored | Appended | Ended | HeadMoved | Rated | Titled | Withdrawn | Deleted


class Changes:
    """The change stream of one process."""

    def __init__(self, mongo: Mongo, *, owner: str) -> None:
        """`owner` is the name of this process, stored with its writes; see `Attempts`."""
        self._mongo = mongo
        self._owner = owner

    async def listen(
        self, on_change: Callable[[Change], Awaitable[None]], on_gap: Callable[[], Awaitable[None]]
    ) -> None:
        """Call `on_change` for each change, in order, for ever.

        After an error, open a new stream, which starts with the changes from then on, and call `on_gap`: changes may
        have been missed.
        """
        while True:
            try:
                async with self._mongo.watch(self._pipeline(), _MAX_AWAIT_MS) as stream:
                    await on_gap()
                    async for event in stream:
                        await self._tell(event, on_change)
            except (PyMongoError, StorageUnavailable) as exc:
                log.warning("the change stream broke off: %s", type(exc).__name__)
            except Exception as exc:  # noqa: BLE001 - after any error, the viewers here must get the later changes
                log.error("a change could not be applied: %s", describe(exc))
            await asyncio.sleep(_RETRY_PAUSE)

    async def _tell(self, event: Document, on_change: Callable[[Change], Awaitable[None]]) -> None:
        try:
            changes = _changes(event)
        except Exception as exc:  # noqa: BLE001 - a later version may write whatever it likes
            self._mongo.passed_over("change")
            log.info("a change is passed over, which this version does not understand: %s", describe(exc))
            return
        for change in changes:
            await on_change(change)

    def _pipeline(self) -> list[Document]:
        ours = re.compile(f"^{re.escape(self._owner)}#")
        signed = {"$exists": True, "$not": ours}
        written_by = "updateDescription.updatedFields.writtenBy"
        stored = {"ns.coll": "messages", "operationType": "insert", "fullDocument.owner": {"$ne": self._owner}}
        updated = {"ns.coll": "messages", "operationType": "update", written_by: signed}
        others = [
            {"ns.coll": name, "operationType": "update", f"updateDescription.updatedFields.{by}": signed}
            for name, by in (
                *(("conversations", "headMovedBy"), ("conversations", "titledBy")),
                *(("messages", "ratedBy"), ("messages", "withdrawnBy")),
            )
        ]
        deleted = {"ns.coll": "conversations", "operationType": "delete"}
        # The text of an ended answer is left out; processes that need it read it from the database.
        return [
            {"$match": {"$or": [stored, updated, *others, deleted]}},
            {"$unset": "updateDescription.updatedFields.content"},
        ]


def _changes(event: Document) -> list[Change]:
    key: ObjectId = event["documentKey"]["_id"]
    if event["operationType"] == "delete":
        return [Deleted(str(key))]
    if event["operationType"] == "insert":
        document = event["fullDocument"]
        return [Stored(str(document["conversationId"]), message_model(document))]
    updated: dict[str, Any] = event["updateDescription"]["updatedFields"]
    if event["ns"]["coll"] == "conversations":
        changes: list[Change] = [HeadMoved(str(key), str(updated["head"]))] if "head" in updated else []
        titles = [msgspec.convert(updated["title"], str | None)] if "title" in updated else []
        return changes + [Titled(str(key), title) for title in titles]
    if "withdrawnBy" in updated:
        return [Withdrawn(updated["withdrawnBy"].rpartition("#")[2], str(key))]
    if "ratedBy" in updated:
        rating = next((one for one in Rating if one.value == updated.get("rating")), None)
        return [Rated(updated["ratedBy"].rpartition("#")[2], str(key), rating)]
    status = status_of(updated) if "status" in updated else None
    if status is not None and status.is_final:
        return [Ended(str(key))]
    pieces = read(_pushed(updated, "pieces") or _pushed(updated, "parts"))
    if not pieces:
        return []
    return [Appended(str(key), pieces, msgspec.convert(updated["length"], int), status)]


def _pushed(updated: dict[str, Any], name: str) -> list[Any]:
    """The elements that a `$push` has appended to the array `name`.

    MongoDB reports them as `pieces.7`, `pieces.8` …, or as the whole array if it was empty. Earlier versions call the
    field `parts`.
    """
    if name in updated:
        return list(updated[name])
    numbers = sorted(int(key.partition(".")[2]) for key in updated if key.startswith(f"{name}."))
    return [updated[f"{name}.{number}"] for number in numbers]
