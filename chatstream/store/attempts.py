"""Attempts at answering user messages: begun, checkpointed while they run, and ended, each exactly once.

The lock is an index: MongoDB refuses a second `streaming` attempt in one conversation, whichever process asks.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from bson import ObjectId
from msgspec.structs import replace
from pymongo import ReadPreference, ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError
from pymongo.read_concern import ReadConcern

from chatstream.errors import AnswerInProgress, NotFound
from chatstream.models import Answer, Conversation, Rating, Status
from chatstream.pieces import Piece, size, stored, whole_rounds
from chatstream.store.conversations import move_head, moved_head, touch, touching
from chatstream.store.documents import (
    ENDED,
    PLACES,
    answer_document,
    answer_model,
    now,
    outcome,
    rounds_document,
    status_of,
    usage_document,
    waiting_document,
    whole_number,
)
from chatstream.store.gate import Document
from chatstream.store.ledger import Ledger, Reserve, Spending
from chatstream.store.mongo import Mongo
from chatstream.store.outbox import EventType, noted
from chatstream.store.reading import Reading

log = logging.getLogger("chatstream.store")


_STILL_RUNNING = "An answer is still running."


class Kept(NamedTuple):
    """An attempt in the conversation `key` that this process still owns. `length` is its position."""

    key: str
    length: int
    waits: bool


class Checkpoint(NamedTuple):
    """More pieces of the running attempt `answer_id` in the conversation `key`; it is stored up to position `length`.

    `published`: put it on the change stream. Every process pays for every published change.
    """

    key: str
    answer_id: str
    length: int
    pieces: Sequence[Piece]
    published: bool = True


class CheckpointResult(NamedTuple):
    """The state of an attempt after a checkpoint. `length` is the stored length.

    `polled_at` changes each time another process that has viewers polls the attempt. `background`: the attempt goes on
    when nobody watches.
    """

    length: int
    stop_requested: bool
    polled_at: datetime | None
    background: bool = False
    stop_at: int | None = None  # on a stop, keep this many code points of the text


class Orphan(NamedTuple):
    """A `streaming` attempt that may have lost its process, as the sweeper read it."""

    key: str
    answer_id: str
    beat_at: datetime
    length: int
    stop_requested: bool = False
    stop_at: int | None = None  # code points of the text to keep on a stop


class Attempts:
    """Writes attempts to the database. All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(
        self,
        mongo: Mongo,
        *,
        owner: str,
        ledger: Ledger | None = None,
        webhook_delay: timedelta | None = None,
    ) -> None:
        """`owner` is the name of this process; it is stored with each write. Without a `ledger` no budget is reserved.

        `webhook_delay`: after an answer ends with no viewer, wait this long before sending the webhook; the user may
        read the answer in that time. None: no webhook is configured.
        """
        self._webhook_delay = webhook_delay
        self._ledger = ledger
        self._mongo = mongo
        self._messages = mongo.messages
        # Used after a duplicate-key error: the document exists, but a majority read may not see it yet. A linearizable
        # read waits until it does.
        self._linearizable = mongo.messages.with_options(read_concern=ReadConcern("linearizable"))
        # Reads a document that was just written. The primary has it; a majority read on a new primary may lag behind.
        self._just_written = mongo.messages.with_options(
            read_concern=ReadConcern("local"), read_preference=ReadPreference.PRIMARY
        )
        self._reading = Reading(mongo)
        self._owner = owner
        self._writes = count(1)

    @property
    def owner(self) -> str:
        """The name of this process, stored with each of its writes."""
        return self._owner

    async def rate(self, key: str, answer_id: str, rating: Rating | None) -> tuple[Rating | None, str | None]:
        """Store the user's rating of this attempt; None removes it.

        Returns the rating before this one, and the model that answered. Raises `NotFound`.
        """
        change: Document = {"$set": {"ratedBy": f"{self._owner}#{ObjectId()}#{key}"}}  # for the change stream
        if rating is None:
            change["$unset"] = {"rating": ""}
        else:
            change["$set"]["rating"] = rating.value
        before = await self._messages.find_one_and_update(
            _one(key, answer_id) | {"role": "assistant"}, change, {"rating": 1, "model": 1}
        )
        if before is None:
            raise NotFound("There is no such answer.")
        known = next((one for one in Rating if one.value == before.get("rating")), None)
        return known, before.get("model")

    def owns(self, answer: Answer) -> bool:
        """Whether this process generates the answer."""
        return answer.owner == self._owner

    async def begin(
        self,
        key: str,
        reply_to: str,
        *,
        previous: Answer | None,
        newest_seq: int,
        background: bool = False,
        spending: Spending | None = None,
        continues: str | None = None,
        shown_in: Conversation | None = None,
        takes_over: bool = False,
        nothing_runs: bool = False,
        prepare: Callable[[Answer], None] = lambda answer: None,
    ) -> Answer:
        """Begin another attempt at answering the user message `reply_to`, whose newest attempt so far is `previous`.

        `newest_seq` is the position of the conversation's newest message. `continues`: the id of an attempt; the new
        one continues its text. `takes_over`: the new attempt keeps the finished tool rounds of `previous`, so that no
        model request and no tool call is repeated. `shown_in`: make the new attempt the end of the branch that this
        conversation shows. `nothing_runs`: the caller has just read that no answer runs, so this method does not read
        it again. `prepare` is called with the answer before the write. The same object is returned if the write
        succeeds and no newer message was stored meanwhile.

        Reserves the likely cost from the budget `spending`. Raises `AnswerInProgress` if a newer message exists, if an
        answer runs, or if another process has begun the next attempt; `OverBudget` if nothing is left of the budget;
        with `shown_in`, `NotFound` if the conversation is gone.

        Unique indexes enforce the three cases of `AnswerInProgress`. When this method returns, a majority of the
        replica set has the attempt on disk. If the conversation is deleted meanwhile, `finish` finds out.
        """
        # The unique index covers only known statuses. An answer may have a status of a later version.
        is_newest = previous is not None and previous.seq == newest_seq
        unfinished = None if is_newest or nothing_runs else await self._reading.unfinished(key)
        if unfinished is not None or (previous is not None and not previous.status.is_final):
            raise AnswerInProgress(_STILL_RUNNING)
        attempt = previous.attempt + 1 if previous else 1
        answer = replace(
            new_attempt(str(ObjectId()), newest_seq + 1, reply_to, attempt, now(), owner=self._owner),
            background=background,
            model=previous.next_model if previous else None,
            continues=continues,
        )
        if previous is not None and takes_over and previous.mixed:
            answer = answer.made_of(whole_rounds(previous.mixed))
        prepare(answer)
        try:
            return await self._begin(key, answer, previous, spending, shown_in)
        except DuplicateKeyError as exc:
            newest = await self._reading.newest_seqs([key])
            # The newer documents may all be of a later version, which this one cannot read. Then the new attempt goes
            # after them, unless one of them is a running answer.
            if newest.get(key, 0) <= newest_seq or await self._reading.after(key, newest_seq, limit=1):
                raise AnswerInProgress(_STILL_RUNNING) from exc
            if await self._reading.unfinished(key) is not None:
                raise AnswerInProgress(_STILL_RUNNING) from exc
            answer = replace(answer, seq=newest[key] + 1)
        try:
            return await self._begin(key, answer, previous, spending, shown_in)
        except DuplicateKeyError as exc:
            raise AnswerInProgress(_STILL_RUNNING) from exc

    async def _begin(
        self,
        key: str,
        answer: Answer,
        previous: Answer | None,
        spending: Spending | None,
        shown_in: Conversation | None,
    ) -> Answer:
        document, usage = answer_document(key, answer), previous.usage if previous else None

        async def all_of_it(reserve: Reserve | None, session: Any) -> None:
            await self._messages.insert_one(document, session=session)
            if shown_in is not None:
                await self._tell_parent_of_next(key, answer.reply_to, session)
                await move_head(self._mongo, shown_in, moved_head(answer.reply_to, self._owner), session=session)
            if reserve is not None:  # last: until the commit it conflicts with the user's other answers
                await reserve(key, answer, usage, session)

        def begin(reserve: Reserve | None) -> Awaitable[None]:
            return self._mongo.transaction(partial(all_of_it, reserve))

        try:
            if spending is not None and self._ledger is not None:
                await self._ledger.within(spending, begin)
            elif shown_in is not None:
                await begin(None)
            else:
                await self._mongo.in_thread(lambda: self._messages.in_thread.insert_one(document))
        except DuplicateKeyError:
            stored = await self._linearizable.find_one(_one(key, answer.id))
            if stored is None:
                raise
            return answer_model(stored)  # an earlier try of this write had succeeded, and its result was lost
        return answer

    async def _tell_parent_of_next(self, key: str, reply_to: str, session: Any) -> None:
        """Store the `parent` of the user message after `reply_to`, if it has none.

        A message without `parent` continues the message right before it in the log. That is an attempt, and from now on
        it is no longer the newest attempt.
        """
        messages = {"conversationId": ObjectId(key), "role": {"$in": ["user", "assistant"]}}
        asked = await self._reading.place(key, reply_to, session)
        if asked is None:
            return
        after = messages | {"role": "user", "seq": PLACES | {"$gt": asked["seq"]}}
        following = await self._messages.find_one(after, {"seq": 1, "parent": 1}, sort=[("seq", 1)], session=session)
        if following is None or "parent" in following:
            return
        before = messages | {"seq": PLACES | {"$lt": following["seq"]}}
        parent = await self._messages.find_one(before, {"_id": 1}, sort=[("seq", -1)], session=session)
        if parent is not None:
            which = _one(key, str(following["_id"]))
            await self._messages.update_one(which, {"$set": {"parent": parent["_id"]}}, session=session)

    async def checkpoint(self, checkpoints: Sequence[Checkpoint]) -> dict[str, CheckpointResult]:
        """Append pieces to running attempts and renew their heartbeats; returns the state of each by its id.

        If the stored length of an attempt differs from the checkpoint's, nothing is appended, and the result has the
        stored length. Attempts that have ended or are gone are left out. Costs one write and one read in all.
        """
        signed = self._signed()
        ids = [ObjectId(checkpoint.answer_id) for checkpoint in checkpoints]
        keys = [ObjectId(checkpoint.key) for checkpoint in checkpoints]
        updates = [
            UpdateOne(
                {"_id": _id, "conversationId": key, "status": "streaming", "length": length},
                ({"$push": {"pieces": {"$each": stored(pieces)}}} if pieces else {})
                | {
                    "$set": {"length": length + size(pieces)} | (signed if published else {}),
                    "$currentDate": {"beatAt": True},
                },
            )
            for _id, key, (_, _, length, pieces, published) in zip(ids, keys, checkpoints, strict=True)
        ]
        fields = {"status": 1, "length": 1, "stopRequested": 1, "watchedAt": 1, "background": 1, "stopAt": 1}
        try:
            await self._messages.bulk_write(updates, ordered=False)
        except BulkWriteError as exc:
            if exc.timeout or exc.details["writeConcernErrors"]:
                raise
            # The other checkpoints are stored. For the refused ones, the read below returns the old length.
            log.error("checkpoints were refused: %s", {error["code"] for error in exc.details["writeErrors"]})
        # A batch size above the number of results saves a second request: MongoDB sees that there are no more.
        which = {"_id": {"$in": ids}, "conversationId": {"$in": keys}}
        documents = await self._just_written.find(which, fields).batch_size(len(ids) + 1).to_list(None)
        return {
            str(document["_id"]): CheckpointResult(
                document["length"],
                document.get("stopRequested", False),
                document.get("watchedAt"),
                document.get("background", False),
                whole_number(document.get("stopAt")),
            )
            for document in documents
            if document.get("status") == "streaming" and isinstance(document.get("length"), int)
        }

    async def finish(self, conversation: Conversation, answer: Answer) -> Answer | None:
        """Store the end of an attempt, as in `answer`, unless it has ended before. Returns the stored answer.

        Returns None if the attempt or its conversation was deleted.
        """
        key = conversation.key
        before, there = await self._stop_running(conversation, answer, self._final(answer))
        if not there:
            await self._delete_rest(key)
            await self._settle(conversation, answer)
            return None
        if before is not None:
            if self._ledger is not None:
                self._ledger.ended(answer)
            return replace(answer, queued=before.get("queued", False))
        document = await self._messages.find_one(_one(key, answer.id))
        if document is None:
            await self._settle(conversation, answer)
            return None
        # A later version may have stored a document that this one cannot read, or that has not ended. Then return the
        # end that this process has tried to store: its viewers get no other end.
        ends = (one for one in self._mongo.understood(answer_model, document) if one.status.is_final)
        return next(ends, answer)

    # Waiting ----------------------------------------------------------------------------------------------------------

    async def park(self, conversation: Conversation, answer: Answer) -> Answer | None:
        """Store that a running attempt waits, as in `answer`. No process generates it until `move_on`.

        Returns the stored answer, which another process may have ended. Returns None if the attempt or its conversation
        was deleted. Raises `ValueError` if `answer.waits_until` is None.
        """
        key, until = conversation.key, answer.waits_until
        if until is None:
            raise ValueError("without an end it would wait for ever")
        parked = {
            "status": Status.WAITING.value,
            "pieces": stored(answer.mixed),
            "length": answer.length,
            "usage": usage_document(answer.usage),
            "unseen": answer.unseen,
            "waiting": waiting_document(conversation.user_id, until),
        } | self._signed()
        if answer.rounds:
            parked["rounds"] = rounds_document(answer.rounds)
        if answer.model is not None:
            parked["model"] = answer.model
        if answer.unseen and self._webhook_delay is not None:
            parked["webhook"] = noted(EventType.ANSWER_WAITING, self._webhook_delay)
        change = {"$set": parked, "$unset": {"beatAt": "", "watchedAt": ""}}
        # A repeated call may come after the user has decided, if the first one's result was lost: an attempt that has
        # gone on is longer, and must not wait for the same decision again.
        same = {"length": {"$lte": answer.length}}
        before, there = await self._stop_running(conversation, answer, change, same)
        document = None if before is not None else await self._messages.find_one(_one(key, answer.id))
        if not there or (before is None and document is None):
            await self._delete_rest(key)
            await self._settle(conversation, answer)
            return None
        if self._ledger is not None:
            self._ledger.waits(answer)
        if before is not None:
            return replace(answer, queued=before.get("queued", False))
        # Either this write had succeeded and its result was lost, or another process has ended the attempt. If it has
        # gone on already, this process's viewers get the wait first.
        found = self._mongo.understood(answer_model, document)
        understood = (one for one in found if one.status is not Status.STREAMING)
        return next(understood, answer)

    async def move_on(
        self,
        key: str,
        waiting: Answer,
        marks: Sequence[Piece],
        *,
        until: datetime | None,
        holder: str | None = None,
    ) -> Answer | None:
        """Append `marks` to a waiting attempt, if it has not changed since it was read; returns None if it has.

        The attempt then waits until `until`, or until the process `holder` goes on with it. If `until` is None, its
        status becomes `streaming` and this process generates it. An attempt passes from one process to another in no
        other way.
        """
        change: Document = {
            "$push": {"pieces": {"$each": stored(marks)}},
            "$set": {"length": waiting.length + size(marks), "unseen": False} | self._signed(),
            "$unset": {"webhook": ""},
        }
        if until is None:
            change["$set"] |= {"status": Status.STREAMING.value, "owner": self._owner}
            change["$unset"] |= {"waiting": "", "stopRequested": "", "stopAt": "", "watchedAt": ""}
            change["$currentDate"] = {"beatAt": True}
        else:
            change["$set"]["waiting.expiresAt"] = until
        if holder is not None:
            change["$set"]["waiting.holder"] = holder
        document = await self._messages.find_one_and_update(
            _one(key, waiting.id) | _as_read(waiting), change, return_document=ReturnDocument.AFTER
        )
        return None if document is None else answer_model(document)

    async def end_waiting(self, conversation: Conversation, waiting: Answer, ended: Answer) -> bool:
        """Store `ended` as the end of a waiting attempt; returns False if the attempt has changed since it was read."""
        which = _one(conversation.key, waiting.id) | _as_read(waiting)
        result = await self._messages.update_one(which, self._final(ended))
        if not result.matched_count:
            return False
        if self._ledger is not None:
            self._ledger.ended(ended)
        await touch(self._mongo, conversation)
        return True

    async def kept(self, answer_ids: Iterable[str]) -> dict[str, Kept]:
        """Return, by id, those of these attempts that have not ended, and are still this process's."""
        ids = [ObjectId(id_) for id_ in answer_ids]
        which = {"_id": {"$in": ids}, "status": {"$nin": ENDED}, "owner": self._owner}
        found = self._just_written.find(which, {"conversationId": 1, "length": 1, "status": 1})
        return {
            str(one["_id"]): Kept(str(one["conversationId"]), one["length"], one["status"] == Status.WAITING.value)
            async for one in found
        }

    async def overdue(self, now: datetime, limit: int) -> list[tuple[str, str]]:
        """The attempts whose wait has expired or which this process is to go on with, as pairs of conversation key and
        answer id."""
        which = {
            # A wait with a holder ends some seconds after it has begun. The index finds all that end soon, which are
            # few.
            "waiting.expiresAt": {"$lte": now + timedelta(minutes=1)},
            # In the query, so that the documents of a later version do not use up the limit.
            "status": Status.WAITING.value,
            "_id": {"$type": "objectId"},
            "conversationId": {"$type": "objectId"},
            "waiting": {"$not": {"$type": "array"}},
        }
        found = self._messages.find(which, {"conversationId": 1, "waiting": 1})
        documents = await found.sort("waiting.expiresAt", 1).limit(limit).to_list(limit)
        return [
            (str(one["conversationId"]), str(one["_id"]))
            for one in documents
            if isinstance(one["conversationId"], ObjectId)  # `$type` also finds an array that has one
            and (one["waiting"].get("holder") == self._owner or _is_past(one["waiting"]["expiresAt"], now))
        ]

    # Watching ---------------------------------------------------------------------------------------------------------

    async def poll(self, key: str, known: Answer) -> Answer | None:
        """Tell the process that generates this answer that it has viewers here; returns the stored answer.

        If this version cannot read the document, returns `known` with the stored status. None if the answer is gone.
        """
        which = _one(key, known.id)
        document = await self._messages.find_one_and_update(
            which | {"status": {"$nin": ENDED}},
            {"$currentDate": {"watchedAt": True}},
            return_document=ReturnDocument.AFTER,
        )
        if document is None:
            document = await self._messages.find_one(which)
        if document is None:
            return None
        understood = self._mongo.understood(answer_model, document)
        return understood[0] if understood else replace(known, status=status_of(document))

    async def request_stop(self, key: str, answer_id: str, keep: int | None = None) -> None:
        """Ask the process that generates this answer to stop it. That process sees it at its next checkpoint.

        `keep`: the number of code points of the text to keep; None keeps all. Only the first request counts.
        """
        await self._messages.update_one(
            _one(key, answer_id) | {"status": {"$nin": ENDED}, "stopRequested": {"$ne": True}},
            {"$set": {"stopRequested": True} | ({} if keep is None else {"stopAt": keep})},
        )

    async def let_finish(self, conversation: Conversation) -> None:
        """Copy the conversation's `background` to its running or waiting answer, if there is one."""
        key, change = ObjectId(conversation.key), {"$set": {"background": conversation.background}}
        running = await self._messages.update_one({"conversationId": key, "status": "streaming"}, change)
        if not running.matched_count:
            await self._messages.update_one({"waiting.userId": conversation.user_id, "conversationId": key}, change)

    async def mark_seen(self, key: str) -> None:
        """Mark the conversation's answers as read, and cancel their webhooks."""
        await self._messages.update_many(
            {"conversationId": ObjectId(key), "unseen": True}, {"$set": {"unseen": False}, "$unset": {"webhook": ""}}
        )

    async def interruptions(self, key: str, reply_to: str) -> int:
        """Count the attempts at this user message that the server interrupted.

        Attempts that nobody watched, or that another model replaced, do not count.
        """
        which = {"conversationId": ObjectId(key), "replyTo": ObjectId(reply_to), "status": "interrupted"}
        ours = {"error.unwatched": {"$ne": True}, "nextModel": {"$exists": False}}
        return int(await self._messages.count_documents(which | ours))

    # The sweeper's ----------------------------------------------------------------------------------------------------

    async def orphans(self) -> list[Orphan]:
        """All `streaming` attempts. One is an orphan if two or more polls find the same `beat_at`."""
        fields = {"_id": ObjectId, "conversationId": ObjectId, "beatAt": datetime, "length": int}
        return [
            Orphan(
                str(found["conversationId"]),
                str(found["_id"]),
                found["beatAt"],
                found["length"],
                found.get("stopRequested") is True,
                whole_number(found.get("stopAt")),
            )
            async for found in self._messages.find({"status": "streaming"}, [*fields, "stopRequested", "stopAt"])
            # A document without one of these fields is of another version: leave it to a process of that version.
            if all(isinstance(found.get(name), type_) for name, type_ in fields.items())
        ]

    async def ended_before_queued(self, limit: int) -> list[tuple[str, str]]:
        """The ended answers that are still marked as having messages queued behind them, as pairs of conversation key
        and answer id."""
        found = self._messages.find({"queued": True, "status": {"$in": ENDED}}, {"conversationId": 1})
        return [
            (str(one["conversationId"]), str(one["_id"]))
            for one in await found.limit(limit).to_list(limit)
            # A document with other types is of another version: leave it to a process of that version.
            if isinstance(one["_id"], ObjectId) and isinstance(one.get("conversationId"), ObjectId)
        ]

    async def queue_is_over(self, key: str, answer_id: str) -> None:
        """Take the mark off an ended answer: no process needs to answer what was queued behind it any more."""
        which = _one(key, answer_id) | {"status": {"$in": ENDED}}
        await self._messages.update_one(which, {"$unset": {"queued": ""}})

    async def finish_orphan(self, orphan: Orphan, answer: Answer) -> bool:
        """End an attempt whose process is gone, if it has not changed since it was read as `orphan`.

        Returns False if it has changed, or if its conversation is gone.
        """
        unchanged = {"status": "streaming", "beatAt": orphan.beat_at, "length": orphan.length}
        result = await self._messages.update_one(_one(orphan.key, answer.id) | unchanged, self._final(answer))
        if not result.matched_count:
            return False
        conversation = await self._reading.conversation(orphan.key)
        there = conversation is not None and await touch(self._mongo, conversation)
        if not there:
            await self._delete_rest(orphan.key)
        return there

    # Parts ------------------------------------------------------------------------------------------------------------

    async def _stop_running(
        self, conversation: Conversation, answer: Answer, change: Document, same: Document | None = None
    ) -> tuple[Document | None, bool]:
        """Apply `change` to the attempt if it still runs and matches `same`, and touch its conversation.

        Returns the attempt's field `queued` from before, or None if it does not run; and whether the conversation
        still exists.
        """
        running = _one(conversation.key, answer.id) | {"status": "streaming"} | (same or {})
        touched = touching(self._mongo, conversation)

        def both() -> tuple[Document | None, bool]:
            before = self._messages.in_thread.find_one_and_update(running, change, projection={"queued": 1})
            return before, touched()

        return await self._mongo.in_thread(both)

    async def _settle(self, conversation: Conversation, answer: Answer) -> None:
        """Charge the cost of an answer whose document was deleted with its conversation."""
        if self._ledger is not None:
            await self._ledger.settle_one(conversation.user_id, answer)

    async def _delete_rest(self, key: str) -> None:
        """Delete messages that were stored while their conversation was being deleted."""
        await self._messages.delete_many({"conversationId": ObjectId(key)})

    def _final(self, answer: Answer) -> Document:
        kept = outcome(answer) | self._signed()
        # No webhook for a stop, since the user asked for it, nor if another model takes over: that answer's end sends
        # one.
        told = answer.unseen and answer.status is not Status.STOPPED and answer.next_model is None
        if told and self._webhook_delay is not None:
            kept["webhook"] = noted(EventType.ANSWER_ENDED, self._webhook_delay)
        over = ("pieces", "parts", "beatAt", "watchedAt", "stopRequested", "stopAt", "waiting", "webhook")
        return {"$set": kept, "$unset": {name: "" for name in over if name not in kept}}

    def _signed(self) -> Document:
        """The field `writtenBy`: this process and a counter. The counter makes it new in each write, so that every
        change event contains it.

        A process recognizes its own changes by this value.
        """
        return {"writtenBy": f"{self._owner}#{next(self._writes)}"}


def _is_past(moment: object, now: datetime) -> bool:
    """Whether `moment` is a time that is not after `now`. A time out of Python's range is none."""
    return isinstance(moment, datetime) and moment <= now


def new_attempt(answer_id: str, seq: int, reply_to: str, attempt: int, moment: datetime, *, owner: str) -> Answer:
    """A new attempt in the status `streaming`."""
    return Answer(
        id=answer_id,
        seq=seq,
        reply_to=reply_to,
        attempt=attempt,
        status=Status.STREAMING,
        content="",
        created_at=moment,
        owner=owner,
    )


def _as_read(waiting: Answer) -> Document:
    """A filter that matches a waiting attempt only if it has not changed since it was read: `length` only grows."""
    return {"status": Status.WAITING.value, "length": waiting.length}


def _one(key: str, answer_id: str) -> Document:
    """A filter for one attempt. `conversationId` is the shard key, so that only one shard is asked."""
    return {"_id": ObjectId(answer_id), "conversationId": ObjectId(key)}
