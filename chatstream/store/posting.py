"""Stores user messages, with or without a first attempt at answering them.

Callers get conversations and their `key` from `Conversations`, which has checked the owner.
"""

from functools import partial
from typing import Any, NamedTuple

from bson import ObjectId
from msgspec import UNSET, UnsetType
from msgspec.structs import replace
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern

from chatstream.errors import (
    AnswerInProgress,
    ConversationFull,
    InvalidContent,
    NotFound,
    NothingRunning,
    StorageUnavailable,
    Withdrawn,
    counted,
)
from chatstream.models import Answer, Conversation, Usage, UserMessage
from chatstream.store.attempts import new_attempt
from chatstream.store.conversations import move_head, touched
from chatstream.store.documents import (
    ENDED,
    FIRST_SEQ,
    PLACES,
    WITHDRAWN,
    NotUnderstood,
    answer_document,
    now,
    place_of,
    usage_model,
    user_message_document,
    user_message_model,
)
from chatstream.store.gate import Document
from chatstream.store.ledger import Ledger, Reserve, Spending
from chatstream.store.mongo import Mongo
from chatstream.store.reading import Reading
from chatstream.store.withdrawing import Withdrawing

_STILL_RUNNING = "The answer to the previous message is still running."


class Posted(NamedTuple):
    """A stored user message and its newest attempt, if any. `repeated`: an earlier request had stored them."""

    message: UserMessage
    answer: Answer | None
    repeated: bool = False


class Posting:
    """Writes user messages. All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(
        self, mongo: Mongo, *, owner: str, most_messages: int | None = None, ledger: Ledger | None = None
    ) -> None:
        """`owner` is the name of this process; `most_messages` is the largest number of messages per conversation."""
        self._ledger = ledger or Ledger(mongo)
        self._most_messages = most_messages
        self._mongo = mongo
        self._messages = mongo.messages
        # Used after a duplicate-key error: the document exists, but a majority read may not see it yet. A linearizable
        # read waits until it does.
        self._linearizable = mongo.messages.with_options(read_concern=ReadConcern("linearizable"))
        self._reading = Reading(mongo)
        self._owner = owner
        self._withdrawing = Withdrawing(mongo, owner=owner)

    async def post(
        self,
        conversation: Conversation,
        content: str,
        *,
        client_message_id: str | None = None,
        background: bool = False,
        spending: Spending | None = None,
        parent: str | UnsetType | None = UNSET,
    ) -> Posted:
        """Store a user message and begin an attempt at answering it, in one transaction.

        `background`: generate the answer to its end even if nobody watches. Reserves the likely cost from the budget
        `spending`. `parent`: the message that the new one continues, None for none; the conversation then shows the
        branch that ends with the new message.

        Raises `AnswerInProgress` while another answer runs; `OverBudget`; `ConversationFull`; `NotFound` if the
        conversation is gone; `InvalidContent` if `client_message_id` was used for other content, or if the conversation
        has no such `parent`.
        """
        key = conversation.key
        draft, answer_id = _draft(content, client_message_id, background, parent), str(ObjectId())

        async def both(reserve: Reserve | None, session: Any) -> Posted:
            message, running, usage = await self._placed(conversation, draft, session)
            attempt = new_attempt(answer_id, message.seq + 1, message.id, 1, message.created_at, owner=self._owner)
            answer = replace(attempt, background=background)
            documents = [user_message_document(key, message, owner=self._owner), answer_document(key, answer)]
            await self._messages.insert_many(documents, session=session)
            if running is not None:  # with a status that the unique index does not cover, or the insert had failed
                raise AnswerInProgress(_STILL_RUNNING)
            if reserve is not None:  # last: until the commit it conflicts with the user's other answers
                await reserve(key, answer, usage, session)
            return Posted(message, answer)

        try:
            return await self._ledger.within(spending, lambda reserve: self._mongo.transaction(partial(both, reserve)))
        except BulkWriteError as exc:
            duplicate = _duplicate(exc)
        if duplicate == {"conversationId"}:
            raise AnswerInProgress(_STILL_RUNNING)
        return await self._repeated(key, duplicate, draft)

    async def add(
        self,
        conversation: Conversation,
        content: str,
        *,
        client_message_id: str | None = None,
        background: bool = False,
        parent: str | UnsetType | None = UNSET,
        behind_running: bool = False,
    ) -> Posted | None:
        """Store a user message without an attempt at answering it.

        `behind_running`: the message waits for the end of the running answer, on any branch; returns None if no answer
        runs. Raises `ConversationFull`, `NotFound` and `InvalidContent` like `post`.
        """
        key = conversation.key
        draft = _draft(content, client_message_id, background, parent)

        likely = await self._reading.unfinished(key) if behind_running else None

        async def queue_behind(running: ObjectId, session: Any) -> None:
            which = {"_id": running, "conversationId": ObjectId(key), "status": {"$nin": ENDED}}
            await self._messages.update_one(which, {"$set": {"queued": True}}, session=session)

        async def add(session: Any) -> Posted:
            if likely is not None:  # first: after another read, each checkpoint of the answer would conflict
                await queue_behind(likely, session)
            message, running, _ = await self._placed(conversation, draft, session)
            await self._messages.insert_many([user_message_document(key, message, owner=self._owner)], session=session)
            if behind_running and running is None:
                raise NothingRunning("No answer is running in this conversation.")
            if behind_running and running is not None and running != likely:
                await queue_behind(running, session)
            return Posted(message, None)

        try:
            return await self._mongo.transaction(add)
        except NothingRunning:
            return None
        except BulkWriteError as exc:
            return await self._repeated(key, _duplicate(exc), draft)

    async def withdraw(self, conversation: Conversation, message_id: str) -> str | None:
        """See `Withdrawing.withdraw`."""
        return await self._withdrawing.withdraw(conversation, message_id)

    async def posted_before(
        self, key: str, content: str, client_message_id: str, parent: str | UnsetType | None = UNSET
    ) -> Posted | None:
        """The message stored with this `client_message_id`, or None. Raises `InvalidContent` like `post`."""
        try:
            return await self._repeated(
                key, {"clientMessageId"}, _draft(content, client_message_id, background=False, parent=parent)
            )
        except NotFound:
            return None

    async def _placed(
        self, conversation: Conversation, draft: UserMessage, session: Any
    ) -> tuple[UserMessage, ObjectId | None, Usage | None]:
        """Returns the message with its position after the newest one, the running answer or None, and the usage of the
        newest answer.

        Call it in a transaction: of two that get the same position, only one commits. If the conversation has branches,
        sets the message's `parent` and makes the conversation show the branch that ends with it.
        """
        key, parent = conversation.key, draft.parent
        there = await touched(self._mongo, conversation, session=session)
        if there is None:
            raise NotFound("There is no such conversation.")
        seq, running, usage = await self._newest(conversation, session)
        message, head = replace(draft, seq=seq), there.get("head")
        head = head if isinstance(head, ObjectId) else None  # a later version may store another type
        before = seq - 1  # without branches: the position of the message that it continues
        if isinstance(parent, str):
            found = await self._reading.place(key, parent, session)
            if found is None:
                raise InvalidContent.of("parent", "must be a message of this conversation")
            before = place_of(found)
        elif parent is None:
            before = FIRST_SEQ - 1
        if head is None and before == seq - 1:
            return replace(message, parent=UNSET), running, usage
        if head is not None and isinstance(parent, UnsetType):
            parent = await self._reading.leaf(key, head, session)
        await move_head(self._mongo, conversation, {"head": ObjectId(message.id)}, session=session)
        return replace(message, parent=parent), running, usage

    async def _newest(self, conversation: Conversation, session: Any) -> tuple[int, ObjectId | None, Usage | None]:
        """The position after the newest message, the running answer or None, and the usage of the newest answer."""
        key = conversation.key
        newest: Document | None = await self._messages.find_one(
            {"conversationId": ObjectId(key), "seq": PLACES},
            {"seq": 1, "role": 1, "replyTo": 1, "status": 1, "usage": 1},
            sort=[("seq", -1)],
            session=session,
        )
        seq = place_of(newest) + 1 if newest else FIRST_SEQ
        self.check_room(seq)
        if newest is None:
            return seq, None, None
        usage = next(iter(self._mongo.understood(usage_model, newest)), None)
        return seq, await self._reading.unfinished(key, newest, session), usage

    def check_room(self, seq: int) -> None:
        """Raises `ConversationFull` if this position is over the limit. Not for answers that the server begins."""
        if self._most_messages is not None and seq - FIRST_SEQ >= self._most_messages:
            raise ConversationFull(
                f"This conversation has {counted(self._most_messages, 'message')}, and cannot have more. "
                "Begin a new one."
            )

    async def _repeated(self, key: str, duplicate: set[str], draft: UserMessage) -> Posted:
        """The message that was stored before. `duplicate`: the fields of the unique index that refused the new one."""
        own = duplicate == {"_id"}  # an earlier try of this transaction had succeeded, and its result was lost
        if not own and draft.client_message_id is None:  # a query for None matches all messages without the field
            raise AnswerInProgress("Another message was stored at the same moment. Try again.")
        which = {"_id": ObjectId(draft.id)} if own else {"clientMessageId": draft.client_message_id}
        document = await self._linearizable.find_one({"conversationId": ObjectId(key)} | which)
        if document is None:
            raise NotFound("There is no such conversation.")
        if document.get("role") == WITHDRAWN:
            raise Withdrawn("This message was sent before, and taken back.")
        try:
            message = user_message_model(document)
        except NotUnderstood as exc:  # only the later version that stored it can compare the two
            raise StorageUnavailable from exc
        if message.content != draft.content:
            raise InvalidContent("This idempotency key was used for a message with other content.")
        if not (isinstance(draft.parent, UnsetType) or message.parent in (UNSET, draft.parent)):
            raise InvalidContent("This idempotency key was used for a message with another parent.")
        return Posted(message, await self._reading.newest_attempt(key, message.id), repeated=not own)


def _draft(
    content: str, client_message_id: str | None, background: bool, parent: str | UnsetType | None
) -> UserMessage:
    """A user message that has no position yet."""
    return UserMessage(
        id=str(ObjectId()),
        seq=0,
        content=content,
        created_at=now(),
        client_message_id=client_message_id,
        background=background,
        parent=parent,
    )


def _duplicate(exc: BulkWriteError) -> set[str]:
    """The fields of the unique index that refused an insert."""
    for error in exc.details["writeErrors"]:
        if error["code"] == 11000:  # DuplicateKey
            return set(error["keyPattern"])
    raise exc
