"""Events that are to be sent to the operator's webhook: noted in the very update that makes them true.

A message or an account has at most one, in its field `webhook`: ``{type, since, dueAt, tries}``. The process that has
the lease takes what is due: it counts the try and sets the next one before it sends, so that a try is never made twice,
and one that dies with its process is made again later. What was delivered is removed; what cannot be delivered is kept
without a `dueAt`.

`dueAt` is by the clock of whoever wrote it: a clock that is wrong by seconds makes an event so much late or early.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from chatstream.events import timestamp
from chatstream.models import Answer, Status
from chatstream.pieces import ToolCallPart, fold
from chatstream.store.documents import answer_model, conversation_model, now
from chatstream.store.gate import Document
from chatstream.store.mongo import Mongo

# How long what this version does not understand is left alone.
_NOT_UNDERSTOOD = timedelta(minutes=1)
# At once: each has a connection of its own.
BATCH = 16


class EventType(StrEnum):
    """What is told."""

    ANSWER_ENDED = "answer.ended"
    ANSWER_WAITING = "answer.waiting"  # for a person's decision
    BUDGET_EXHAUSTED = "budget.exhausted"


class Event(NamedTuple):
    """One that is due; `tries` have been made before."""

    collection: str
    which: Document  # finds its document
    id: str
    type: EventType
    since: datetime
    tries: int
    data: dict[str, Any]


def noted(type_: EventType, delay: timedelta) -> Document:
    """The field `webhook` of an event that is to be sent after `delay`."""
    moment = now()
    return {"type": type_.value, "since": moment, "dueAt": moment + delay, "tries": 0}


class Outbox:
    """All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo, *, text: bool = False) -> None:
        """`text`: events have the answers' texts."""
        self._mongo = mongo
        self._text = text

    async def due(self) -> Sequence[Event]:
        """Some of those that are due, the oldest first. What somebody has seen meanwhile is dropped."""
        which = {"webhook.dueAt": {"$lte": now()}}
        events = []
        for document in await self._mongo.messages.find(which).sort("webhook.dueAt", 1).limit(BATCH).to_list(BATCH):
            owner = await self._mongo.conversations.find_one({"_id": document["conversationId"]})
            found = {"_id": document["_id"], "conversationId": document["conversationId"]}
            if owner is None or not document.get("unseen"):
                await self._mongo.messages.update_one(found, {"$unset": {"webhook": ""}})
            elif event := self._of_answer(document, owner):
                events.append(event)
            else:  # a process of the version that wrote it sends it, if it has the lease by then
                await self._mongo.messages.update_one(found, _later())
        for account in await self._mongo.ledger.find(which).sort("webhook.dueAt", 1).limit(BATCH).to_list(BATCH):
            if event := _of_account(account):
                events.append(event)
            else:
                await self._mongo.ledger.update_one({"_id": account["_id"]}, _later())
        return events

    async def claim(self, event: Event, next_at: datetime) -> bool:
        """Count a try, before it is made; the next one is due at `next_at`. False if it is no longer to be made."""
        which = event.which | {"webhook.tries": event.tries, "webhook.dueAt": {"$exists": True}}
        if event.collection == "messages":
            which["unseen"] = True
        update = {"$set": {"webhook.tries": event.tries + 1, "webhook.dueAt": next_at}}
        result = await self._mongo.collection(event.collection).update_one(which, update)
        return bool(result.modified_count)

    async def delivered(self, event: Event) -> None:
        """It is no longer to be sent."""
        await self._change(event, {"$unset": {"webhook": ""}})

    async def give_up(self, event: Event) -> None:
        """It is kept, and not tried again. Whose it was is no longer kept: only who sends it needs that."""
        gone = {"webhook.dueAt": "", "webhook.userId": ""}
        await self._change(event, {"$unset": gone, "$currentDate": {"webhook.deadAt": True}})

    async def postpone(self, event: Event, until: datetime) -> None:
        """Its receiver asks for it to come later."""
        await self._change(event, {"$set": {"webhook.dueAt": until}})

    async def _change(self, event: Event, update: Document) -> None:
        which = event.which | {"webhook.tries": event.tries + 1}
        await self._mongo.collection(event.collection).update_one(which, update)

    def _of_answer(self, document: Document, owner: Document) -> Event | None:
        """None if this version does not understand it."""
        found = self._mongo.understood(answer_model, document)
        conversations = self._mongo.understood(conversation_model, owner)
        if not found or not conversations or document["webhook"]["type"] not in [*map(str, EventType)]:
            return None
        answer, conversation, webhook = found[0], conversations[0], document["webhook"]
        return Event(
            collection="messages",
            which={"_id": document["_id"], "conversationId": document["conversationId"]},
            id=f"msg_{answer.id}_{webhook['type'].partition('.')[2]}" + _which(answer),
            type=EventType(webhook["type"]),
            since=webhook["since"],
            tries=webhook["tries"],
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
    """What this version does not understand is left alone for a while."""
    return {"$set": {"webhook.dueAt": now() + _NOT_UNDERSTOOD}}


def _which(answer: Answer) -> str:
    """An answer may wait several times, and each is told."""
    return f"_{answer.length}" if answer.status is Status.WAITING else ""


def _call(part: ToolCallPart) -> dict[str, Any]:
    """Which call, and until when it waits: what it would do is nobody's business on the way."""
    return {"toolCallId": part.tool_call_id, "name": part.name, "state": part.state, "expiresAt": part.expires_at}


def _of_account(document: Document) -> Event | None:
    """None if this version does not understand it."""
    webhook = document["webhook"]
    if webhook["type"] != EventType.BUDGET_EXHAUSTED.value:
        return None
    return Event(
        collection="ledger",
        which={"_id": document["_id"]},
        # By chance: it stays with the receiver, and nobody may find the account by it once its user is erased.
        id=f"msg_{webhook.get('id') or format(webhook['since'], '%Y%m%d%H%M%S%f')}",
        type=EventType(webhook["type"]),
        since=webhook["since"],
        tries=webhook["tries"],
        data={"userId": webhook.get("userId", document.get("userId"))}
        | webhook["budget"]
        | {"resetsAt": timestamp(webhook["budget"]["resetsAt"])},
    )
