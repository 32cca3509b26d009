"""Takes back a queued user message: deletes its text and keeps its position in the log.

Another message must never get the same position, because other processes receive the two changes late and in any order.
Processes that still run the previous version skip the document, like every document that they cannot read.
"""

from typing import Any

from bson import ObjectId

from chatstream.errors import NotFound, NotQueued
from chatstream.models import Conversation
from chatstream.store.conversations import move_head, moved_head, touched
from chatstream.store.documents import ENDED, PLACES, WITHDRAWN, place_of
from chatstream.store.gate import Document
from chatstream.store.mongo import Mongo
from chatstream.store.reading import Reading
from chatstream.store.tree import FIELDS, Tree


class Withdrawing:
    """Takes back messages. All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo, *, owner: str) -> None:
        """`owner` is the name of this process, stored with its writes."""
        self._mongo = mongo
        self._messages = mongo.messages
        self._reading = Reading(mongo)
        self._owner = owner

    async def withdraw(self, conversation: Conversation, message_id: str) -> str | None:
        """Take back a user message that waits behind the running answer; returns the new `head` if that has changed.

        A repeated call does nothing. Raises `NotFound`, and `NotQueued` if the message waits for no running answer.
        """
        key = ObjectId(conversation.key)
        this = {"_id": ObjectId(message_id), "conversationId": key}

        async def withdraw(session: Any) -> str | None:
            running = await self._reading.unfinished(conversation.key)  # before the transaction begins: see `_hold`
            held = await self._hold(running, key, session)
            there = await touched(self._mongo, conversation, session=session)
            which = this | {"role": {"$in": ["user", WITHDRAWN]}}
            message = await self._messages.find_one(which, {"seq": 1, "role": 1, "parent": 1}, session=session)
            if there is None or message is None:
                raise NotFound("There is no such message in this conversation.")
            if message["role"] == WITHDRAWN:
                return None
            if held is None:  # the message may wait for another answer than the one that ran a moment ago
                running = await self._reading.unfinished(conversation.key, None, session)
                held = await self._hold(running, key, session)
            if held is None or held >= place_of(message):
                raise NotQueued("This message does not wait any more: its answer has begun.")
            await self._give_place_to_parent(key, message, session)
            mark = {
                "role": WITHDRAWN,
                "withdrawnBy": f"{self._owner}#{ObjectId()}#{conversation.key}",
                # Takes the place of the first attempt in the unique index: a process that has read the question before
                # cannot begin an answer any more.
                "replyTo": message["_id"],
                "attempt": 1,
            }
            gone = dict.fromkeys(("content", "background", "parent"), "")
            await self._messages.update_one(this, {"$set": mark, "$unset": gone}, session=session)
            if there.get("head") != message["_id"]:
                return None
            head = await self._head_without(key, message, session)
            if head is not None:
                await move_head(self._mongo, conversation, moved_head(head, self._owner), session=session)
            return head

        return await self._mongo.transaction(withdraw)

    async def _hold(self, running: ObjectId | None, key: ObjectId, session: Any) -> int | None:
        """Write to an answer, so that its concurrent end conflicts: the process that ends it would publish the waiting
        message and begin its answer. Returns the answer's `seq`, or None if it has ended.

        Its checkpoints conflict, too. So the transaction should begin with this write: a checkpoint then waits for it.
        Begun with anything else, it could fail again and again, as a checkpoint may come before this write.
        """
        which = {"_id": running, "conversationId": key, "status": {"$nin": [*ENDED]}}
        held = {"$set": {"queueHeldBy": str(ObjectId())}}  # a new value, or MongoDB sees no conflict
        if running is None or not (await self._messages.update_one(which, held, session=session)).matched_count:
            return None
        answer = await self._messages.find_one(which, {"seq": 1}, session=session)
        return None if answer is None else place_of(answer)

    async def _give_place_to_parent(self, key: ObjectId, message: Document, session: Any) -> None:
        """Make the message's children the children of its parent."""
        below = {"conversationId": key, "parent": message["_id"]}
        if "parent" not in message:
            before = await self._messages.find_one(
                {
                    "conversationId": key,
                    "seq": PLACES | {"$lt": message["seq"]},
                    "role": {"$in": ["user", "assistant"]},
                },
                {"_id": 1},
                sort=[("seq", -1)],
                session=session,
            )
            message["parent"] = None if before is None else before["_id"]
        await self._messages.update_many(below, {"$set": {"parent": message["parent"]}}, session=session)

    async def _head_without(self, key: ObjectId, message: Document, session: Any) -> str | None:
        """The new `head` without the message: the newest descendant of the message's parent."""
        documents = self._messages.find({"conversationId": key, "seq": PLACES}, FIELDS, session=session).sort("seq", 1)
        tree = Tree(await documents.to_list(None))
        parent = str(message["parent"])
        if parent in tree.nodes:
            return tree.newest_below(parent)
        return None if tree.newest is None else tree.newest.id
