"""What other processes write, as it happens: one change stream per process.

What this process writes is left out by the database itself, and so is what is not signed (`writtenBy`): the checkpoints
of answers that nobody watches elsewhere. So a process that is alone receives nothing.
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

# How long the database may wait before it says "nothing new": below the limit of one operation.
_MAX_AWAIT_MS = 1000
# Before the stream is opened again after a fault, in seconds.
_RETRY_PAUSE = 0.5


class Stored(NamedTuple):
    """A message is new in the conversation `key`."""

    key: str
    message: Message


class Appended(NamedTuple):
    """A running answer has more `pieces`, which end at position `length`; `status` if that has changed with them: it
    waits from then on, or goes on."""

    answer_id: str
    pieces: list[Piece]
    length: int
    status: Status | None = None


class Ended(NamedTuple):
    """An answer is not running any more."""

    answer_id: str


class HeadMoved(NamedTuple):
    """The conversation `key` shows another branch, which ends at the message `head`; see `tree`."""

    key: str
    head: str


class Rated(NamedTuple):
    """The user has rated the answer `answer_id` of the conversation `key`; None: no longer."""

    key: str
    answer_id: str
    rating: Rating | None


class Titled(NamedTuple):
    """The conversation `key` has another title."""

    key: str
    title: str | None


class Withdrawn(NamedTuple):
    """The user message `message_id` of the conversation `key` was taken back before it was answered."""

    key: str
    message_id: str


class Deleted(NamedTuple):
    """The conversation `key` is gone."""

    key: str


Change = Stored | Appended | Ended | HeadMoved | Rated | Titled | Withdrawn | Deleted


class Changes:
    """The change stream of one process."""

    def __init__(self, mongo: Mongo, *, owner: str) -> None:
        """`owner` is the name under which this process writes; see `Attempts`."""
        self._mongo = mongo
        self._owner = owner

    async def listen(
        self, on_change: Callable[[Change], Awaitable[None]], on_gap: Callable[[], Awaitable[None]]
    ) -> None:
        """Call `on_change` for each change, one after the other, for ever.

        After a fault it begins anew with what happens from then on, and calls `on_gap`: changes may have been missed.
        """
        while True:
            try:
                async with self._mongo.watch(self._pipeline(), _MAX_AWAIT_MS) as stream:
                    await on_gap()
                    async for event in stream:
                        await self._tell(event, on_change)
            except (PyMongoError, StorageUnavailable) as exc:
                log.warning("the change stream broke off: %s", type(exc).__name__)
            except Exception as exc:  # noqa: BLE001 - whatever it is, who watches here must go on hearing of the others
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
        # The text of an answer that ended is read by those who need it.
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
    return [Appended(str(key), pieces, updated["length"], status)] if pieces else []


def _pushed(updated: dict[str, Any], name: str) -> list[Any]:
    """A `$push` arrives as `pieces.7`, `pieces.8` and so on, or as the whole of an array that was empty.

    A process of the version before calls it `parts`.
    """
    if name in updated:
        return list(updated[name])
    numbers = sorted(int(key.partition(".")[2]) for key in updated if key.startswith(f"{name}."))
    return [updated[f"{name}.{number}"] for number in numbers]
