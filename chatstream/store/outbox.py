"""The outbox: stores the events for the operator's webhook, each in the same update as the change that it reports.

A message or an account has at most one event, in its field `webhook`: ``{type, since, dueAt, tries}``. The process with
the lease sends the due events. Before sending, it increments `tries` and sets the next `dueAt`. So no try is made
twice, and if the process dies, the event is sent later. Delivered events are removed; those that cannot be delivered
stay, without a `dueAt`.

`dueAt` comes from the clock of the process that wrote it. An error of that clock makes the event early or late.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec
from bson import ObjectId

from chatstream.events import timestamp
from chatstream.models import Answer, Status
from chatstream.pieces import ToolCallPart, fold
from chatstream.store.documents import answer_model, conversation_model, now, plain
from chatstream.store.gate import Document
from chatstream.store.mongo import Mongo

# Pause before a document that this version cannot read is read again.
_NOT_UNDERSTOOD = timedelta(minutes=1)
# Maximum number of events sent at the same time; each needs a connection.
BATCH = 16
# An event is given up after a day, with some twenty tries: a greater number was not written by any version.
_MOST_TRIES = 1000


class EventType(StrEnum):
    """The type of a webhook event."""

    ANSWER_ENDED = "answer.ended"
    ANSWER_WAITING = "answer.waiting"  # for a person's decision
    BUDGET_EXHAUSTED = "budget.exhausted"


class Event(NamedTuple):
    """A due event; `tries` is the number of earlier tries."""

    collection: str
    which: Document  # filter that finds the event's document
    id: str
    type: EventType
    since: datetime
    tries: int
    data: dict[str, Any]


class _Note(NamedTuple):
    """The content of an event's field `webhook`."""

    type: EventType
    since: datetime
    tries: int


def noted(type_: EventType, delay: timedelta) -> Document:
    """The field `webhook` of an event that is to be sent after `delay`."""
    moment = now()
    return {"type": type_.value, "since": moment, "dueAt": moment + delay, "tries": 0}


class Outbox:
    """The stored events. All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo, *, text: bool = False) -> None:
        """`text`: include the answers' texts in the events."""
        self._mongo = mongo
        self._text = text

    async def due(self) -> Sequence[Event]:
        """A batch of due events, oldest first. Deletes the events of answers that the user has read meanwhile."""
        # No version stores an array there: it could not be postponed, and would be in the way of the others.
        which = {"webhook.dueAt": {"$lte": now()}, "webhook": {"$not": {"$type": "array"}}}
        events = []
        for document in await self._mongo.messages.find(which).sort("webhook.dueAt", 1).limit(BATCH).to_list(BATCH):
            key = document.get("conversationId")
            found = {"_id": document["_id"], "conversationId": key}
            if not isinstance(key, ObjectId):
                await self._mongo.messages.update_one(found, _later())
                continue
            owner = await self._mongo.conversations.find_one({"_id": key})
            if owner is None or not document.get("unseen"):
                await self._mongo.messages.update_one(found, {"$unset": {"webhook": ""}})
            elif event := self._of_answer(document, owner):
                events.append(event)
            else:  # of a later version: a process of that version sends it, once it has the lease
                await self._mongo.messages.update_one(found, _later())
        for account in await self._mongo.ledger.find(which).sort("webhook.dueAt", 1).limit(BATCH).to_list(BATCH):
            if event := _of_account(account):
                events.append(event)
            else:
                await self._mongo.ledger.update_one({"_id": account["_id"]}, _later())
        return events

    async def claim(self, event: Event, next_at: datetime) -> bool:
        """Count a try before it is made, and set the next one to `next_at`. False if the event must not be sent now."""
        which = event.which | {"webhook.tries": event.tries, "webhook.dueAt": {"$exists": True}}
        if event.collection == "messages":
            which["unseen"] = True
        update = {"$set": {"webhook.tries": event.tries + 1, "webhook.dueAt": next_at}}
        result = await self._mongo.collection(event.collection).update_one(which, update)
        return bool(result.modified_count)

    async def delivered(self, event: Event) -> None:
        """Remove an event that was delivered."""
        await self._change(event, {"$unset": {"webhook": ""}})

    async def give_up(self, event: Event) -> None:
        """Stop trying to send an event. Keeps it without the user id, which only sending needs."""
        gone = {"webhook.dueAt": "", "webhook.userId": ""}
        await self._change(event, {"$unset": gone, "$currentDate": {"webhook.deadAt": True}})

    async def postpone(self, event: Event, until: datetime) -> None:
        """Send an event later, as its receiver has asked."""
        await self._change(event, {"$set": {"webhook.dueAt": until}})

    async def _change(self, event: Event, update: Document) -> None:
        which = event.which | {"webhook.tries": event.tries + 1}
        await self._mongo.collection(event.collection).update_one(which, update)

    def _of_answer(self, document: Document, owner: Document) -> Event | None:
        """The event of an answer; None if this version cannot read it."""
        found = self._mongo.understood(answer_model, document)
        conversations = self._mongo.understood(conversation_model, owner)
        note = _note(document)
        if not found or not conversations or note is None:
            return None
        answer, conversation = found[0], conversations[0]
        return Event(
            collection="messages",
            which={"_id": document["_id"], "conversationId": document["conversationId"]},
            id=f"msg_{answer.id}_{note.type.partition('.')[2]}" + _which(answer),
            type=note.type,
            since=note.since,
            tries=note.tries,
            data={"userId": conversation.user_id, "conversationId": conversation.id} | self._data(answer),
        )

    def _data(self, answer: Answer) -> dict[str, Any]:
        data = {
            "messageId": answer.id,
            "replyTo": answer.reply_to,
            "attempt": answer.attempt,
            "status": answer.status.value,
            "finishReason": answer.finish_reason,
            "error": answer.failure.code.value if answer.failure else None,
            "usage": msgspec.to_builtins(answer.usage),
        }
        if answer.status is Status.WAITING:
            data["toolCalls"] = [_call(part) for part in fold(answer.pieces) if isinstance(part, ToolCallPart)]
        return data | ({"content": answer.content} if self._text else {})


def _later() -> Document:
    """An update that postpones an event that this version cannot read."""
    return {"$set": {"webhook.dueAt": now() + _NOT_UNDERSTOOD}}


def _which(answer: Answer) -> str:
    """A suffix for the event id. An answer may wait several times; each wait is an event with its own id."""
    return f"_{answer.length}" if answer.status is Status.WAITING else ""


def _call(part: ToolCallPart) -> dict[str, Any]:
    """A waiting tool call and its deadline. Its arguments are left out: they may be confidential."""
    return {"toolCallId": part.tool_call_id, "name": part.name, "state": part.state, "expiresAt": part.expires_at}


def _note(document: Document) -> _Note | None:
    """What the event says about itself; None if this version cannot read it."""
    match document["webhook"]:
        case {"type": str(type_), "since": datetime() as since, "tries": int(tries)} if 0 <= tries <= _MOST_TRIES:
            return next((_Note(known, since, int(tries)) for known in EventType if known.value == type_), None)
    return None


def _of_account(document: Document) -> Event | None:
    """The event of an account; None if this version cannot read it."""
    note, webhook = _note(document), document["webhook"]
    if note is None or note.type is not EventType.BUDGET_EXHAUSTED:
        return None
    match webhook.get("budget"):
        case {"name": str(name), "limit": int(limit), "resetsAt": datetime() as resets_at}:
            user_id = webhook.get("userId", document.get("userId"))
        case _:
            return None
    return Event(
        collection="ledger",
        which={"_id": document["_id"]},
        # A random id. The receiver keeps it, and after the user's erasure it must not lead to the account.
        id=f"msg_{webhook.get('id') or format(note.since, '%Y%m%d%H%M%S%f')}",
        type=note.type,
        since=note.since,
        tries=note.tries,
        data={
            "userId": plain(user_id),
            "name": plain(name),
            "limit": plain(limit),
            "resetsAt": timestamp(resets_at),
        },
    )
