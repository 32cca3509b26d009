"""Attempts at answering user messages: begun, checkpointed while they run, and ended, each exactly once.

The lock is an index: MongoDB refuses a second `streaming` attempt in one conversation, whichever process asks.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
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
from chatstream.store.conversations import move_head, moved_head, touch
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
)
from chatstream.store.gate import Document
from chatstream.store.ledger import Ledger, Reserve, Spending
from chatstream.store.mongo import Mongo
from chatstream.store.outbox import EventType, noted
from chatstream.store.reading import Reading

log = logging.getLogger("chatstream.store")


_STILL_RUNNING = "An answer is still running."


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
    """How an attempt stands after a checkpoint: it is stored up to position `length`.

    `polled_at` changes each time another process that has viewers polls it. `background`: it finishes though nobody
    watches.
    """

    length: int
    stop_requested: bool
    polled_at: datetime | None
    background: bool = False
    stop_at: int | None = None  # how much of the text is kept when it is stopped, in code points


class Orphan(NamedTuple):
    """A `streaming` attempt as the sweeper sees it."""

    key: str
    answer_id: str
    beat_at: datetime
    length: int
    stop_requested: bool = False
    stop_at: int | None = None  # how much of the text is kept then, in code points


class Attempts:
    """All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(
        self,
        mongo: Mongo,
        *,
        owner: str,
        ledger: Ledger | None = None,
        webhook_delay: timedelta | None = None,
    ) -> None:
        """`owner` names this process in what it writes. Without a `ledger` nothing is reserved.

        `webhook_delay`: how long an end that nobody watched may be seen until the webhook is told; None: there is none.
        """
        self._webhook_delay = webhook_delay
        self._ledger = ledger
        self._mongo = mongo
        self._messages = mongo.messages
        # Used after a duplicate-key error: the document exists, but a majority read may not see it yet. A linearizable
        # read waits until it does.
        self._linearizable = mongo.messages.with_options(read_concern=ReadConcern("linearizable"))
        # For what was just written: the primary has it, a majority's view on a new one may lag behind.
        self._just_written = mongo.messages.with_options(
            read_concern=ReadConcern("local"), read_preference=ReadPreference.PRIMARY
        )
        self._reading = Reading(mongo)
        self._owner = owner
        self._writes = count(1)

    @property
    def owner(self) -> str:
        """The name of this process in what it writes."""
        return self._owner

    async def rate(self, key: str, answer_id: str, rating: Rating | None) -> tuple[Rating | None, str | None]:
        """Store what its user thinks of this attempt, None for nothing.

        Returns what they thought before, and the model that answered. Raises `NotFound`.
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
        """Whether this process has begun it."""
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

        `newest_seq` is the place of the conversation's newest message. With `continues` it goes on from the text of
        that attempt. With `takes_over` it goes on from the calls of tools that `previous` has made: no model is asked
        again for what it has said, and what has been done is not done again. With `shown_in` the branch that this
        conversation shows is the one that ends with it. `nothing_runs`: whoever asks has just read that no answer runs,
        and it is not read again. `prepare` is called with the answer when its write begins: if that succeeds, the very
        same is returned, unless the conversation has gone on meanwhile.

        Raises `AnswerInProgress` if there is a newer message by now, if an answer runs, or if somebody else has begun
        the next attempt; `OverBudget` if nothing is left of `spending`, of which it is reserved what it is likely
        to take; with `shown_in`, `NotFound` if it is gone.

        The unique indexes see to all three, and what they let in is on disk and with a majority when it is known. A
        conversation that is deleted meanwhile shows in `finish`.
        """
        # The index knows no answer in a status that only a later version has.
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
            # Behind documents that only a later version understands there is a place, too; unless one of them is an
            # answer that runs.
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
                await self._messages.insert_one(document)
        except DuplicateKeyError:
            stored = await self._linearizable.find_one(_one(key, answer.id))
            if stored is None:
                raise
            return answer_model(stored)  # this very write had succeeded, and its result was lost
        return answer

    async def _tell_parent_of_next(self, key: str, reply_to: str, session: Any) -> None:
        """Store what the message after `reply_to` goes on from, if it does not say so.

        That is what comes right before it in the log: an attempt which, from now on, is not the newest one any more.
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
        """Append to running attempts, and show that they are alive; returns how each stands now, by its id.

        Nothing is appended to one that has another length, which its result says. Those that have ended or are gone are
        left out. One write and one read, whatever their number.
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
            # All the others are stored, and of these the read will say that they are not.
            log.error("checkpoints were refused: %s", {error["code"] for error in exc.details["writeErrors"]})
        # Room for one more tells the database that there are no more: otherwise it is asked again.
        which = {"_id": {"$in": ids}, "conversationId": {"$in": keys}}
        documents = await self._just_written.find(which, fields).batch_size(len(ids) + 1).to_list(None)
        return {
            str(document["_id"]): CheckpointResult(
                document["length"],
                document.get("stopRequested", False),
                document.get("watchedAt"),
                document.get("background", False),
                document.get("stopAt"),
            )
            for document in documents
            if document.get("status") == "streaming" and isinstance(document.get("length"), int)
        }

    async def finish(self, conversation: Conversation, answer: Answer) -> Answer | None:
        """End an attempt as `answer` says, unless it has ended; returns how it is stored now, None if it is gone.

        It is gone, too, if it was begun while its conversation was being deleted.
        """
        key = conversation.key
        before, there = await asyncio.gather(
            self._messages.find_one_and_update(
                _one(key, answer.id) | {"status": "streaming"}, self._final(answer), projection={"queued": 1}
            ),
            touch(self._mongo, conversation),
        )
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
        # If a later version has made of it what this one does not understand, or something that has not ended: the end
        # as it is known here, since the viewers here hear of no other.
        ends = (one for one in self._mongo.understood(answer_model, document) if one.status.is_final)
        return next(ends, answer)

    # Waiting ----------------------------------------------------------------------------------------------------------

    async def park(self, conversation: Conversation, answer: Answer) -> Answer | None:
        """A running attempt waits from now on, as `answer` says: nobody generates it, until `move_on`.

        Returns how it is stored now: if somebody else has ended it, so. None if it is gone, as with `finish`.
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
        before, there = await asyncio.gather(
            self._messages.find_one_and_update(
                _one(key, answer.id) | {"status": "streaming"},
                {"$set": parked, "$unset": {"beatAt": "", "watchedAt": ""}},
                projection={"queued": 1},
            ),
            touch(self._mongo, conversation),
        )
        document = None if before is not None else await self._messages.find_one(_one(key, answer.id))
        if not there or (before is None and document is None):
            await self._delete_rest(key)
            await self._settle(conversation, answer)
            return None
        if self._ledger is not None:
            self._ledger.waits(answer)
        if before is not None:
            return replace(answer, queued=before.get("queued", False))
        # This very write had succeeded, and its result was lost; or somebody else has ended it.
        found = self._mongo.understood(answer_model, document)
        understood = (one for one in found if one.status is not Status.STREAMING)
        return next(understood, answer)

    async def move_on(
        self, key: str, waiting: Answer, marks: Sequence[Piece], *, until: datetime | None
    ) -> Answer | None:
        """Append `marks` to an attempt that waits, if it is still as it was read; None if it is not.

        It goes on to wait `until` then; if that is None, it is `streaming` again, and this process is the one that
        generates it: the only change of hands there is.
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
        document = await self._messages.find_one_and_update(
            _one(key, waiting.id) | _as_read(waiting), change, return_document=ReturnDocument.AFTER
        )
        return None if document is None else answer_model(document)

    async def end_waiting(self, conversation: Conversation, waiting: Answer, ended: Answer) -> bool:
        """End an attempt that waits, as `ended` says, if it is still as it was read."""
        which = _one(conversation.key, waiting.id) | _as_read(waiting)
        result = await self._messages.update_one(which, self._final(ended))
        if not result.matched_count:
            return False
        if self._ledger is not None:
            self._ledger.ended(ended)
        await touch(self._mongo, conversation)
        return True

    async def overdue(self, now: datetime, limit: int) -> list[tuple[str, str]]:
        """Attempts that have waited for too long, by their conversations' keys and their ids."""
        found = self._messages.find({"waiting.expiresAt": {"$lte": now}}, {"conversationId": 1, "status": 1})
        documents = await found.sort("waiting.expiresAt", 1).limit(limit).to_list(limit)
        return [
            (str(one["conversationId"]), str(one["_id"]))
            for one in documents
            if one.get("status") == Status.WAITING.value
        ]

    # Watching ---------------------------------------------------------------------------------------------------------

    async def poll(self, key: str, known: Answer) -> Answer | None:
        """Show the process that generates this answer that somebody watches it here; returns it as it is stored now.

        Of what this version does not understand it returns what is `known`, with the status as it is stored.
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
        """Ask whichever process generates this answer to stop it; it learns of it with its next checkpoint.

        `keep`: so many code points of the text are kept; None: all of it. Of several requests the first one counts.
        """
        await self._messages.update_one(
            _one(key, answer_id) | {"status": {"$nin": ENDED}, "stopRequested": {"$ne": True}},
            {"$set": {"stopRequested": True} | ({} if keep is None else {"stopAt": keep})},
        )

    async def let_finish(self, conversation: Conversation) -> None:
        """The conversation's `background` holds for its answer that runs or waits, too, if there is one."""
        key, change = ObjectId(conversation.key), {"$set": {"background": conversation.background}}
        running = await self._messages.update_one({"conversationId": key, "status": "streaming"}, change)
        if not running.matched_count:
            await self._messages.update_one({"waiting.userId": conversation.user_id, "conversationId": key}, change)

    async def mark_seen(self, key: str) -> None:
        """The newest answers have been read: nobody needs to be told again that they ended."""
        await self._messages.update_many(
            {"conversationId": ObjectId(key), "unseen": True}, {"$set": {"unseen": False}, "$unset": {"webhook": ""}}
        )

    async def interruptions(self, key: str, reply_to: str) -> int:
        """How many attempts at answering this user message were interrupted by our own fault.

        Those that another model replaced do not count.
        """
        which = {"conversationId": ObjectId(key), "replyTo": ObjectId(reply_to), "status": "interrupted"}
        ours = {"error.unwatched": {"$ne": True}, "nextModel": {"$exists": False}}
        return int(await self._messages.count_documents(which | ours))

    # The sweeper's ----------------------------------------------------------------------------------------------------

    async def orphans(self) -> list[Orphan]:
        """All `streaming` attempts: whether they are orphans shows in two looks, or more, with the same `beat_at`."""
        fields = {"_id": ObjectId, "conversationId": ObjectId, "beatAt": datetime, "length": int}
        return [
            Orphan(
                str(found["conversationId"]),
                str(found["_id"]),
                found["beatAt"],
                found["length"],
                found.get("stopRequested") is True,
                found.get("stopAt"),
            )
            async for found in self._messages.find({"status": "streaming"}, [*fields, "stopRequested", "stopAt"])
            # What lacks one of these was not written by this version: whoever did knows what to do with it.
            if all(isinstance(found.get(name), type_) for name, type_ in fields.items())
        ]

    async def finish_orphan(self, orphan: Orphan, answer: Answer) -> bool:
        """End an attempt whose process is gone, if nothing has happened to it since it was seen as `orphan`."""
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

    async def _settle(self, conversation: Conversation, answer: Answer) -> None:
        """No message says what it took: it went with its conversation."""
        if self._ledger is not None:
            await self._ledger.settle_one(conversation.user_id, answer)

    async def _delete_rest(self, key: str) -> None:
        """The conversation is gone: then so is what was begun in it meanwhile."""
        await self._messages.delete_many({"conversationId": ObjectId(key)})

    def _final(self, answer: Answer) -> Document:
        kept = outcome(answer) | self._signed()
        # Whoever stopped it knows; and where another model answers in its place, the end is that of the other one.
        told = answer.unseen and answer.status is not Status.STOPPED and answer.next_model is None
        if told and self._webhook_delay is not None:
            kept["webhook"] = noted(EventType.ANSWER_ENDED, self._webhook_delay)
        over = ("pieces", "parts", "beatAt", "watchedAt", "stopRequested", "stopAt", "waiting", "webhook")
        return {"$set": kept, "$unset": {name: "" for name in over if name not in kept}}

    def _signed(self) -> Document:
        """Who wrote this, and something new each time, so that every change event has it and ours can be told apart."""
        return {"writtenBy": f"{self._owner}#{next(self._writes)}"}


def new_attempt(answer_id: str, seq: int, reply_to: str, attempt: int, moment: datetime, *, owner: str) -> Answer:
    """An attempt that begins."""
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
    """What holds of an attempt that waits as long as nobody has decided anything: its log only grows."""
    return {"status": Status.WAITING.value, "length": waiting.length}


def _one(key: str, answer_id: str) -> Document:
    """Which attempt, and in which conversation: that is what says on which shard it is."""
    return {"_id": ObjectId(answer_id), "conversationId": ObjectId(key)}
