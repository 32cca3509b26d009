"""Messages: user messages and the attempts at answering them, in one ordered list per conversation.

`key` is always a conversation's key, and whoever has one has got it from `Conversations`, where the owner was checked.
The lock is an index: MongoDB refuses a second `streaming` attempt in one conversation, whichever process asks.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from itertools import count
from typing import Any, NamedTuple

from bson import ObjectId
from msgspec.structs import replace
from pymongo import ReadPreference, ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError
from pymongo.read_concern import ReadConcern

from chatstream.errors import AnswerInProgress, InvalidContent, NotFound, NothingRunning
from chatstream.models import Answer, Conversation, Message, Status, UserMessage
from chatstream.store.documents import (
    answer_document,
    answer_model,
    conversation_model,
    message_model,
    now,
    outcome,
    user_message_document,
    user_message_model,
)
from chatstream.store.mongo import Document, Mongo, translated

log = logging.getLogger("chatstream.store")

# Documents per round trip when reading a long history: a page, and the one that tells that there is another. With
# answers of a few KB a batch is well below a megabyte.
_BATCH = 51
# The place of a conversation's first message.
FIRST_SEQ = 1
_ACTIVE_NOW: Document = {"$currentDate": {"updatedAt": True}}


class Posted(NamedTuple):
    """A stored user message and its newest attempt, if any; `repeated` if an earlier request had stored them."""

    message: UserMessage
    answer: Answer | None
    repeated: bool = False


class Checkpoint(NamedTuple):
    """More text of the running attempt `answer_id`, of which `length` code points are stored.

    Only if it is `told` does it come in to the other processes, each of which pays for every change that does.
    """

    answer_id: str
    length: int
    text: str
    told: bool = True


class Beat(NamedTuple):
    """What a checkpoint brings back: `length` code points of the attempt are stored now."""

    length: int
    stop_requested: bool
    watched_at: datetime | None


class Orphan(NamedTuple):
    """A `streaming` attempt as the sweeper sees it."""

    key: str
    answer_id: str
    beat_at: datetime
    length: int


class Messages:
    """All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo, *, owner: str) -> None:
        """`owner` names this process in what it writes."""
        self._mongo = mongo
        self._messages = mongo.messages
        # For what an index says is there: other reads may not see it yet, this one waits until a majority has it.
        self._as_written = mongo.messages.with_options(read_concern=ReadConcern("linearizable"))
        # For what was just written: the primary has it, a majority's view on a new one may lag behind.
        self._just_written = mongo.messages.with_options(
            read_concern=ReadConcern("local"), read_preference=ReadPreference.PRIMARY
        )
        self._owner = owner
        self._writes = count(1)

    # Writing ----------------------------------------------------------------------------------------------------------

    async def post(self, key: str, content: str, *, client_message_id: str | None = None) -> Posted:
        """Store a user message and begin the attempt at answering it: both or neither.

        Raises `AnswerInProgress` while another answer runs, `NotFound` if the conversation is gone, `InvalidContent` if
        `client_message_id` was used for another content.
        """
        message_id, answer_id, moment = str(ObjectId()), str(ObjectId()), now()

        async def both(session: Any) -> Posted:
            seq = await self._next_place(key, session)
            message = UserMessage(
                id=message_id, seq=seq, content=content, created_at=moment, client_message_id=client_message_id
            )
            answer = self._new_answer(answer_id, seq + 1, message_id, 1, moment)
            documents = [user_message_document(key, message, owner=self._owner), answer_document(key, answer)]
            await self._messages.insert_many(documents, session=session)
            return Posted(message, answer)

        try:
            return await self._mongo.transaction(both)
        except BulkWriteError as exc:
            duplicate = _duplicate(exc)
        if duplicate == {"conversationId"}:
            raise AnswerInProgress("The answer to the previous message is still running.")
        return await self._repeated(key, duplicate, message_id, content, client_message_id)

    async def add(
        self, key: str, content: str, *, client_message_id: str | None = None, behind_running: bool = False
    ) -> Posted | None:
        """Store a user message without an attempt at answering it.

        With `behind_running` it waits for the running answer's end, and None is returned if no answer runs. Raises
        `NotFound` and `InvalidContent` like `post`.
        """
        message_id, moment = str(ObjectId()), now()

        async def add(session: Any) -> Posted:
            message = UserMessage(
                id=message_id,
                seq=await self._next_place(key, session),
                content=content,
                created_at=moment,
                client_message_id=client_message_id,
            )
            await self._messages.insert_many([user_message_document(key, message, owner=self._owner)], session=session)
            if behind_running:
                running = {"conversationId": ObjectId(key), "status": "streaming"}
                told = await self._messages.update_one(running, {"$set": {"queued": True}}, session=session)
                if not told.matched_count:
                    raise NothingRunning("No answer is running in this conversation.")
            return Posted(message, None)

        try:
            return await self._mongo.transaction(add)
        except NothingRunning:
            return None
        except BulkWriteError as exc:
            return await self._repeated(key, _duplicate(exc), message_id, content, client_message_id)

    async def posted_before(self, key: str, content: str, client_message_id: str) -> Posted | None:
        """What was stored under `client_message_id`, if anything. Raises `InvalidContent` like `post`."""
        try:
            return await self._repeated(key, {"clientMessageId"}, "", content, client_message_id)
        except NotFound:
            return None

    async def begin(self, key: str, reply_to: str, *, previous: Answer | None, newest_seq: int) -> Answer:
        """Begin another attempt at answering the user message `reply_to`, whose newest attempt so far is `previous`.

        `newest_seq` is the place of the conversation's newest message. Raises `AnswerInProgress` if there is a newer
        one by now, if an answer runs, or if somebody else has begun the next attempt.

        A single write, since a reader waits: the unique indexes see to all three, and what they let in is on disk
        and with a majority when it is known. A conversation that is deleted meanwhile shows in `finish`.
        """
        attempt = previous.attempt + 1 if previous else 1
        answer = self._new_answer(str(ObjectId()), newest_seq + 1, reply_to, attempt, now())
        try:
            with translated():
                await self._messages.insert_one(answer_document(key, answer))
        except DuplicateKeyError as exc:
            with translated():
                stored = await self._as_written.find_one({"_id": ObjectId(answer.id)})
            if stored is None:
                raise AnswerInProgress("An answer is still running.") from exc
            return answer_model(stored)  # this very write had succeeded, and its result was lost
        return answer

    async def checkpoint(self, checkpoints: Sequence[Checkpoint]) -> dict[str, Beat]:
        """Append to running attempts, and show that they are alive; returns how each stands now, by its id.

        Nothing is appended to one that has another length, which its `Beat` says. Those that have ended or are gone are
        left out. One write and one read, whatever their number.
        """
        signed = self._signed()
        ids = [ObjectId(checkpoint.answer_id) for checkpoint in checkpoints]
        updates = [
            UpdateOne(
                {"_id": _id, "status": "streaming", "length": length},
                ({"$push": {"parts": text}} if text else {})
                | {
                    "$set": {"length": length + len(text)} | (signed if told else {}),
                    "$currentDate": {"beatAt": True},
                },
            )
            for _id, (_, length, text, told) in zip(ids, checkpoints, strict=True)
        ]
        fields = {"status": 1, "length": 1, "stopRequested": 1, "watchedAt": 1}
        with translated():
            try:
                await self._messages.bulk_write(updates, ordered=False)
            except BulkWriteError as exc:
                if exc.timeout or exc.details["writeConcernErrors"]:
                    raise
                # All the others are stored, and of these the read will say that they are not.
                log.error("checkpoints were refused: %s", {error["code"] for error in exc.details["writeErrors"]})
            # Room for one more tells the database that there are no more: otherwise it is asked again.
            found = self._just_written.find({"_id": {"$in": ids}}, fields).batch_size(len(ids) + 1)
            documents = await found.to_list(None)
        return {
            str(document["_id"]): Beat(
                document["length"], document.get("stopRequested", False), document.get("watchedAt")
            )
            for document in documents
            if document["status"] == "streaming"
        }

    async def finish(self, key: str, answer: Answer) -> Answer | None:
        """End an attempt as `answer` says, unless it has ended; returns how it is stored now, None if it is gone.

        It is gone, too, if it was begun while its conversation was being deleted.
        """
        with translated():
            before, there = await asyncio.gather(
                self._messages.find_one_and_update(
                    {"_id": ObjectId(answer.id), "status": "streaming"}, self._final(answer), projection={"queued": 1}
                ),
                self._touch(key),
            )
        if not there:
            return None
        if before is not None:
            return replace(answer, queued=before.get("queued", False))
        stored = await self.get(key, answer.id)
        return stored if isinstance(stored, Answer) else None

    async def finish_orphan(self, orphan: Orphan, answer: Answer) -> bool:
        """End an attempt whose process is gone, if nothing has happened to it since it was seen as `orphan`."""
        with translated():
            result = await self._messages.update_one(
                {
                    "_id": ObjectId(answer.id),
                    "status": "streaming",
                    "beatAt": orphan.beat_at,
                    "length": orphan.length,
                },
                self._final(answer),
            )
            return bool(result.matched_count) and await self._touch(orphan.key)

    async def mark_seen(self, key: str) -> None:
        """The newest answers have been read: nobody needs to be told again that they ended."""
        with translated():
            await self._messages.update_many(
                {"conversationId": ObjectId(key), "unseen": True}, {"$set": {"unseen": False}}
            )

    def owns(self, answer: Answer) -> bool:
        """Whether this process has begun it."""
        return answer.owner == self._owner

    # Reading ----------------------------------------------------------------------------------------------------------

    async def get(self, key: str, message_id: str) -> Message | None:
        """One message of this conversation, None if it has no such one."""
        with translated():
            document = await self._messages.find_one({"_id": ObjectId(message_id), "conversationId": ObjectId(key)})
        return document and message_model(document)

    async def page(self, key: str, *, limit: int, before: int | None) -> list[Message]:
        """The newest messages, of those with a `seq` below `before`, oldest first."""
        with translated():
            documents = await self._before(key, before).limit(limit).to_list(limit)
        return [message_model(document) for document in reversed(documents)]

    async def after(self, key: str, seq: int, *, limit: int) -> list[Message]:
        """The messages that come after place `seq`, oldest first."""
        with translated():
            cursor = self._messages.find({"conversationId": ObjectId(key), "seq": {"$gt": seq}}).sort("seq", 1)
            documents = await cursor.limit(limit).to_list(limit)
        return [message_model(document) for document in documents]

    async def newest(self, key: str) -> Message | None:
        """The newest message. If it is an answer, then one to the newest user message, and its newest attempt."""
        page = await self.page(key, limit=1, before=None)
        return page[0] if page else None

    async def newest_question(self, key: str) -> tuple[UserMessage, Answer | None] | None:
        """The newest user message and its newest attempt."""
        with translated():
            question = await self._messages.find_one(
                {"conversationId": ObjectId(key), "role": "user"}, sort=[("seq", -1)]
            )
            if question is None:
                return None
            attempt = await self._messages.find_one({"replyTo": question["_id"]}, sort=[("attempt", -1)])
        return user_message_model(question), attempt and answer_model(attempt)

    async def running(self, key: str) -> Answer | None:
        """The answer that runs in this conversation, in whichever process."""
        with translated():
            document = await self._messages.find_one({"conversationId": ObjectId(key), "status": "streaming"})
        return document and answer_model(document)

    async def newest_first(self, key: str, *, before: int | None) -> AsyncGenerator[Message, None]:
        """The messages, or those with a `seq` below `before`, newest first, as many as the reader takes."""
        with translated():
            async for document in self._before(key, before).batch_size(_BATCH):
                yield message_model(document)

    async def conversation(self, key: str) -> Conversation | None:
        """The conversation itself, for those who have found its key in a message."""
        with translated():
            document = await self._mongo.conversations.find_one({"_id": ObjectId(key)})
        return document and conversation_model(document)

    async def interruptions(self, reply_to: str) -> int:
        """How many attempts at answering this user message were interrupted."""
        with translated():
            count = await self._messages.count_documents({"replyTo": ObjectId(reply_to), "status": "interrupted"})
        return int(count)

    async def orphans(self) -> list[Orphan]:
        """All `streaming` attempts: whether they are orphans shows in two looks, or more, with the same `beat_at`."""
        fields = {"conversationId": 1, "beatAt": 1, "length": 1}
        with translated():
            return [
                Orphan(str(found["conversationId"]), str(found["_id"]), found["beatAt"], found["length"])
                async for found in self._messages.find({"status": "streaming"}, fields)
            ]

    async def watch(self, answer_id: str) -> Answer | None:
        """Show the process that generates this answer that somebody watches it here; returns it as it is stored now."""
        with translated():
            document = await self._messages.find_one_and_update(
                {"_id": ObjectId(answer_id), "status": "streaming"},
                {"$currentDate": {"watchedAt": True}},
                return_document=ReturnDocument.AFTER,
            )
            if document is None:
                document = await self._messages.find_one({"_id": ObjectId(answer_id)})
        return document and answer_model(document)

    async def request_stop(self, answer_id: str) -> None:
        """Ask whichever process generates this answer to stop it; it learns of it with its next checkpoint."""
        with translated():
            await self._messages.update_one(
                {"_id": ObjectId(answer_id), "status": "streaming"}, {"$set": {"stopRequested": True}}
            )

    # Parts ------------------------------------------------------------------------------------------------------------

    async def _next_place(self, key: str, session: Any) -> int:
        """The place after the newest message; for a transaction, of which two cannot both take it."""
        touched = await self._mongo.conversations.update_one({"_id": ObjectId(key)}, _ACTIVE_NOW, session=session)
        if not touched.matched_count:
            raise NotFound("There is no such conversation.")
        newest = await self._messages.find_one(
            {"conversationId": ObjectId(key)}, {"seq": 1}, sort=[("seq", -1)], session=session
        )
        return int(newest["seq"]) + 1 if newest else FIRST_SEQ

    async def _touch(self, key: str) -> bool:
        """Note that something happened in the conversation. False if it is gone: then so is what is left of it."""
        touched = await self._mongo.conversations.update_one({"_id": ObjectId(key)}, _ACTIVE_NOW)
        if not touched.matched_count:
            await self._messages.delete_many({"conversationId": ObjectId(key)})
        return bool(touched.matched_count)

    def _before(self, key: str, before: int | None) -> Any:
        """A cursor over the messages, or those with a `seq` below `before`, newest first."""
        query: Document = {"conversationId": ObjectId(key)}
        if before is not None:
            query["seq"] = {"$lt": before}
        return self._messages.find(query).sort("seq", -1)

    def _new_answer(self, answer_id: str, seq: int, reply_to: str, attempt: int, moment: datetime) -> Answer:
        return Answer(
            id=answer_id,
            seq=seq,
            reply_to=reply_to,
            attempt=attempt,
            status=Status.STREAMING,
            content="",
            created_at=moment,
            owner=self._owner,
        )

    def _final(self, answer: Answer) -> Document:
        over = ("parts", "beatAt", "watchedAt", "stopRequested")
        return {"$set": outcome(answer) | self._signed(), "$unset": dict.fromkeys(over, "")}

    def _signed(self) -> Document:
        """Who wrote this, and something new each time, so that every change event has it and ours can be told apart."""
        return {"writtenBy": f"{self._owner}#{next(self._writes)}"}

    async def _repeated(
        self, key: str, duplicate: set[str], message_id: str, content: str, client_message_id: str | None
    ) -> Posted:
        """The message that is there already, as the `duplicate` fields of a unique index say."""
        own = duplicate == {"_id"}  # this very transaction had succeeded, and its result was lost
        which = {"_id": ObjectId(message_id)} if own else {"clientMessageId": client_message_id}
        with translated():
            document = await self._as_written.find_one({"conversationId": ObjectId(key)} | which)
            if document is None:
                raise NotFound("There is no such conversation.")
            attempt = await self._messages.find_one({"replyTo": document["_id"]}, sort=[("attempt", -1)])
        message = user_message_model(document)
        if message.content != content:
            raise InvalidContent("This idempotency key was used for a message with other content.")
        return Posted(message, attempt and answer_model(attempt), repeated=not own)


def _duplicate(exc: BulkWriteError) -> set[str]:
    """The fields of the unique index that refused an insert."""
    for error in exc.details["writeErrors"]:
        if error["code"] == 11000:  # DuplicateKey
            return set(error["keyPattern"])
    raise exc
