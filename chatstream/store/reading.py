"""Reads the messages of a conversation: user messages and attempts at answering them, in one ordered list.

`key` is always a conversation's key. Callers get it from `Conversations`, which has checked the owner.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from bson import ObjectId

from chatstream.errors import ErrorCode
from chatstream.models import Answer, Conversation, Message, Status, UserMessage
from chatstream.store.documents import (
    PLACES,
    WITHDRAWN,
    answer_model,
    conversation_model,
    is_answer,
    message_model,
    place_of,
    status_of,
    user_message_model,
)
from chatstream.store.gate import Document
from chatstream.store.mongo import Mongo
from chatstream.store.tree import FIELDS, Tree

# Documents per request when reading a long history: one page, plus one document that shows whether another page
# follows. With answers of a few KB that is well below a megabyte.
_BATCH = 51
# Documents per request for an export. Fewer, since its client may read slowly and a message may have megabytes.
_EXPORT_BATCH = 20

# Outlines per request when messages are first read without their text: 150 bytes each. The full messages are then read
# in portions of this many code points, about a default context.
_OUTLINES = 200
_PORTION_CHARACTERS = 64 * 1024

# Error codes and finish reason of refused answers. A model that refused a message would refuse the next prompt, too, if
# it contained that message.
REFUSALS = (ErrorCode.UPSTREAM_REJECTED, ErrorCode.CONTEXT_TOO_LONG)
FILTERED = "content_filter"
# Characters that show nothing: MongoDB's own white space, and the other invisible ones that models and keyboards write.
_BLANK = " \t\n\v\f\r\0\u00a0\u00ad\u1680\u2028\u2029\u202f\u205f\u2060\u3000\ufeff" + "".join(
    map(chr, range(0x2000, 0x2010))
)
_TEXT: Document = {"$cond": [{"$eq": [{"$type": "$content"}, "string"]}, "$content", ""]}
_COUNTS: Document = {
    "$and": [
        {"$ne": [{"$trim": {"input": _TEXT, "chars": _BLANK}}, ""]},
        {"$ne": ["$finishReason", FILTERED]},
        {"$not": [{"$in": [{"$ifNull": ["$error.exactCode", "$error.code"]}, [code.value for code in REFUSALS]]}]},
    ]
}
_OUTLINE: Document = dict.fromkeys(("seq", "role", "replyTo", "attempt", "status", "parent"), 1) | {
    "size": {"$max": [{"$strLenCP": _TEXT}, "$length"]},  # a running answer has no `content` yet, only its length
    "counts": _COUNTS,
}

T = TypeVar("T")


class Shown(NamedTuple):
    """What an open conversation shows besides its messages."""

    head: str | None  # the last message of the shown branch; None if there is only one branch
    title: str | None


class _Outline(NamedTuple):
    """A message's position and size, read without its text."""

    seq: int
    size: int  # code points of the text


class _Attempts:
    """Selects which attempts at one message a model may get. They are passed in from the newest to the oldest."""

    def __init__(self) -> None:
        self.oldest = 0
        self.any = self.counting = self.complete = False

    def is_wanted(self, document: Document) -> bool:
        """Whether this attempt is the newest, the newest that counts, or the newest complete one that counts."""
        self.oldest = document["attempt"]
        counting = document["counts"]
        complete = counting and document.get("status") == Status.COMPLETE.value
        wanted = not self.any or (counting and not self.counting) or (complete and not self.complete)
        self.any, self.counting, self.complete = True, self.counting or counting, self.complete or complete
        return wanted


class Reading:
    """Queries for messages. All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._messages = mongo.messages

    async def get(self, key: str, message_id: str) -> Message | None:
        """One message of this conversation, or None."""
        document = await self._messages.find_one({"_id": ObjectId(message_id), "conversationId": ObjectId(key)})
        return self._understood(message_model, document)

    async def page(self, key: str, *, limit: int, before: int | None) -> list[Message]:
        """The newest messages, or the newest with a `seq` below `before`; oldest first."""
        places = PLACES if before is None else PLACES | {"$lt": before}
        return (await self._first(key, places, -1, limit))[::-1]

    async def after(self, key: str, seq: int, *, limit: int) -> list[Message]:
        """The messages after position `seq`, oldest first."""
        return await self._first(key, PLACES | {"$gt": seq}, 1, limit)

    async def newest(self, key: str) -> Message | None:
        """The newest message. If it is an answer, it answers the newest user message and is its newest attempt."""
        page = await self.page(key, limit=1, before=None)
        return page[0] if page else None

    async def newest_question(self, key: str) -> tuple[UserMessage, Answer | None] | None:
        """The newest user message and its newest attempt."""
        which = {"conversationId": ObjectId(key), "role": "user", "seq": PLACES}
        question = await self._messages.find_one(which, sort=[("seq", -1)])
        if question is None:
            return None
        message = self._understood(user_message_model, question)
        if message is None:
            return None
        return message, await self.newest_attempt(key, message.id)

    async def newest_attempt(self, key: str, message_id: str) -> Answer | None:
        """The newest attempt at answering this user message."""
        attempt = await self._messages.find_one(
            {"conversationId": ObjectId(key), "replyTo": ObjectId(message_id)}, sort=[("attempt", -1)]
        )
        return self._understood(answer_model, attempt)

    async def attempts(self, key: str, message_ids: Iterable[str]) -> dict[str, list[str]]:
        """For each of these user messages, the ids of all attempts at answering it, oldest first."""
        replies = {"$in": [ObjectId(message_id) for message_id in message_ids]}
        found: dict[str, list[str]] = {}
        async for document in self._messages.find(
            {"conversationId": ObjectId(key), "replyTo": replies}, {"replyTo": 1}
        ).sort("attempt", 1):
            found.setdefault(str(document["replyTo"]), []).append(str(document["_id"]))
        return found

    async def tree(self, key: str) -> Tree:
        """The tree of this conversation's messages: which message continues which. Reads all of them without texts."""
        documents = self._messages.find({"conversationId": ObjectId(key), "seq": PLACES}, FIELDS).sort("seq", 1)
        return Tree(await documents.to_list(None))

    async def at(self, key: str, seqs: Iterable[int]) -> list[Message]:
        """The messages at these positions, oldest first."""
        documents = self._messages.find({"conversationId": ObjectId(key), "seq": {"$in": [*seqs]}}).sort("seq", 1)
        return self._mongo.understood(message_model, *await documents.to_list(None))

    async def place(self, key: str, message_id: str, session: Any = None) -> Document | None:
        """The fields of this message that give its place in the `tree`; None if the message does not exist."""
        which = {"_id": ObjectId(message_id), "conversationId": ObjectId(key), "seq": PLACES}
        found: Document | None = await self._messages.find_one(which, FIELDS, session=session)
        return found if found is not None and (is_answer(found) or found.get("role") == "user") else None

    async def leaf(self, key: str, head: ObjectId, session: Any = None) -> str:
        """The end of the branch that is shown: the newest answer to `head`, if that is a user message that has one."""
        newest = await self._messages.find_one(
            {"conversationId": ObjectId(key), "replyTo": head}, {"_id": 1}, sort=[("attempt", -1)], session=session
        )
        return str(head if newest is None else newest["_id"])

    async def running(self, key: str) -> Answer | None:
        """The answer that runs or waits in this conversation, whichever process generates it; None if none does."""
        document = await self._messages.find_one({"conversationId": ObjectId(key), "status": "streaming"})
        if (answer := self._understood(answer_model, document)) is not None:
            return answer
        unfinished = await self.unfinished(key)
        other = None if unfinished is None else await self.get(key, str(unfinished))
        return other if isinstance(other, Answer) and not other.status.is_final else None

    async def unfinished(self, key: str, newest: Document | None = None, session: Any = None) -> ObjectId | None:
        """The `_id` of the newest answer if it has not ended. None if it has.

        Finds waiting answers and those with an unknown status, from a later version; an index finds `streaming` ones.
        `newest` is the newest message, if the caller has read it.
        """
        if newest is None or not is_answer(newest):
            which = {"conversationId": ObjectId(key), "role": "assistant", "replyTo": {"$type": "objectId"}}
            newest = await self._messages.find_one(
                which | {"seq": PLACES}, {"status": 1}, sort=[("seq", -1)], session=session
            )
        if newest is None or status_of(newest).is_final:
            return None
        _id: ObjectId = newest["_id"]
        return _id

    async def newest_first(self, key: str, *, before: int | None) -> AsyncGenerator[Message, None]:
        """All messages, or those with a `seq` below `before`; newest first. Reads from the database only while the
        caller iterates.
        """
        places = PLACES if before is None else PLACES | {"$lt": before}
        async for document in self._in_order(key, places, -1).batch_size(_BATCH):
            for message in self._mongo.understood(message_model, document):
                yield message

    async def all_of(self, key: str) -> AsyncGenerator[Message, None]:
        """All messages, oldest first. Reads from the database only while the caller iterates."""
        async for document in self._in_order(key, PLACES, 1).batch_size(_EXPORT_BATCH):
            for message in self._mongo.understood(message_model, document):
                yield message

    async def newest_that_count(
        self, key: str, *, before: int | None, also: Sequence[str] = ()
    ) -> AsyncGenerator[Message, None]:
        """Like `newest_first`, but leave out attempts that are never sent to a model.

        An attempt *counts* if it has text and was not refused. For each user message these attempts are kept: the
        newest; the newest that counts; the newest complete one that counts; those that a later message continues (its
        `parent`); and those in `also`. The texts of the others are not read, since there may be thousands of any size.
        If the caller stops early, at most one portion was read in vain.
        """
        named, attempts, passed_over = {ObjectId(each) for each in also}, dict[ObjectId, _Attempts](), list[ObjectId]()
        found: dict[ObjectId, _Outline] = {}  # messages whose text must still be read
        given: set[ObjectId] = set()
        places = PLACES if before is None else PLACES | {"$lt": before}
        while True:
            which: Document = {"conversationId": ObjectId(key), "seq": places}
            if passed_over:
                which["replyTo"] = {"$nin": passed_over}
            page = await self._messages.find(which, _OUTLINE).sort("seq", -1).limit(_OUTLINES).to_list(_OUTLINES)
            last = place_of(page[-1]) if len(page) == _OUTLINES else 0
            for document in page:
                if not isinstance(document["_id"], ObjectId):  # of a later version: this one cannot read it
                    continue
                if isinstance(document.get("parent"), ObjectId):
                    named.add(document["parent"])
                if not _is_attempt(document) or (
                    attempts.setdefault(document["replyTo"], _Attempts()).is_wanted(document)
                    or document["_id"] in named
                ):
                    found[document["_id"]] = _outline(document)
            often = Counter(document["replyTo"] for document in page if _is_attempt(document))
            for question, times in often.items():
                if last and times > _OUTLINES // 2:  # let the database select among the older attempts
                    passed_over.append(question)
                    found |= await self._older(key, question, attempts[question])
            if passed_over:
                others = {"replyTo": {"$in": passed_over}, "_id": {"$in": list(named - given - found.keys())}}
                found |= await self._outlines({"conversationId": ObjectId(key)} | others)
            now = {_id: outline for _id, outline in found.items() if outline.seq >= last}
            async for message in self._whole(key, sorted(now.values(), reverse=True)):
                yield message
            if not last:
                return
            given |= now.keys()
            found = {_id: outline for _id, outline in found.items() if _id not in now}
            places = places | {"$lt": last}

    async def _older(self, key: str, question: ObjectId, found: _Attempts) -> dict[ObjectId, _Outline]:
        """Outlines of the older attempts to keep: newest complete, newest that counts, if not `found` yet."""
        which: Document = {"conversationId": ObjectId(key), "replyTo": question, "attempt": {"$lt": found.oldest}}
        which["$expr"] = _COUNTS
        older: dict[ObjectId, _Outline] = {}
        if not found.complete:
            older |= await self._outlines(which | {"status": Status.COMPLETE.value}, newest=1)
        if not found.counting:
            older |= await self._outlines(which, newest=1)
        return older

    async def _outlines(self, which: Document, *, newest: int = 0) -> dict[ObjectId, _Outline]:
        """The outlines of the matching attempts; only the `newest` ones if that number is given."""
        documents = self._messages.find(which, _OUTLINE).sort("attempt", -1).limit(newest)
        found = await documents.to_list(None)
        return {one["_id"]: _outline(one) for one in found if isinstance(one["_id"], ObjectId)}

    async def _whole(self, key: str, outlines: Sequence[_Outline]) -> AsyncGenerator[Message, None]:
        """Read the messages of these outlines with their texts, portion by portion."""
        first = 0
        while first < len(outlines):
            end, characters = first, 0
            while end < len(outlines) and end - first < _BATCH and (end == first or characters <= _PORTION_CHARACTERS):
                characters += outlines[end].size
                end += 1
            some = self._in_order(key, {"$in": [one.seq for one in outlines[first:end]]}, -1)
            for message in self._mongo.understood(message_model, *await some.to_list(None)):
                yield message
            first = end

    async def behind(self, key: str, *, after: int, messages: int, characters: int) -> list[Message] | None:
        """The messages after position `after`, oldest first, without attempts that newer ones have replaced.

        Returns None, and reads no text, if there are more messages than `messages` or more code points than
        `characters`.
        """
        which = {"conversationId": ObjectId(key), "seq": PLACES | {"$gt": after}}
        outlines = self._messages.find(which, _OUTLINE).sort("seq", 1).limit(messages + 1)
        found = await outlines.to_list(messages + 1)
        newest = {document["replyTo"]: document["_id"] for document in found if _is_attempt(document)}
        wanted = [one for one in found if not _is_attempt(one) or newest[one["replyTo"]] == one["_id"]]
        if len(found) > messages or sum(_outline(one).size for one in wanted) > characters:
            return None
        if not wanted:
            return []
        whole = self._in_order(key, {"$in": [one["seq"] for one in wanted]}, 1)
        return self._mongo.understood(message_model, *await whole.to_list(None))

    async def newest_seqs(self, keys: Sequence[str]) -> dict[str, int]:
        """The `seq` of the newest message of each conversation; empty ones are left out. Read from an index alone."""
        pipeline: list[Document] = [
            {"$match": {"conversationId": {"$in": [ObjectId(key) for key in keys]}, "seq": PLACES}},
            # With this sort, MongoDB reads one index key per conversation instead of all keys.
            {"$sort": {"conversationId": -1, "seq": -1}},
            {"$group": {"_id": "$conversationId", "seq": {"$first": "$seq"}}},
        ]
        found = await self._messages.aggregate(pipeline, hint="log").to_list(None)
        return {str(one["_id"]): place_of(one) for one in found}

    async def running_in(self, keys: Sequence[str]) -> set[str]:
        """The conversations in which an answer runs. Uses an index of the running answers alone."""
        return await self._marked(keys, {"status": Status.STREAMING.value}, "running")

    async def waiting_in(self, user_id: str, keys: Sequence[str]) -> set[str]:
        """The conversations of this user, out of `keys`, in which an answer waits. Uses an index of waiting answers."""
        which = {"waiting.userId": user_id, "conversationId": {"$in": [ObjectId(key) for key in keys]}}
        return {str(key) for key in await self._waiting(which)}

    async def waiting_for(self, user_id: str) -> list[ObjectId]:
        """The keys of all conversations of this user in which an answer waits."""
        return await self._waiting({"waiting.userId": user_id})

    async def _waiting(self, which: Document) -> list[ObjectId]:
        found = self._messages.find(which, {"_id": 0, "conversationId": 1}).hint("waiting_for")
        return [one["conversationId"] for one in await found.to_list(None)]

    async def unread_in(self, keys: Sequence[str]) -> set[str]:
        """The conversations that have an unread answer. Uses an index of the unread answers alone."""
        return await self._marked(keys, {"unseen": True}, "unseen")

    async def _marked(self, keys: Sequence[str], mark: Document, index: str) -> set[str]:
        which = {"conversationId": {"$in": [ObjectId(key) for key in keys]}} | mark
        found = self._messages.find(which, {"_id": 0, "conversationId": 1}).hint(index)
        return {str(one["conversationId"]) for one in await found.to_list(None)}

    async def withdrawn_after(self, seqs: Mapping[str, int]) -> dict[str, list[str]]:
        """The ids of the queued user messages that were taken back, after this position in each conversation."""
        places = [{"conversationId": ObjectId(key), "seq": PLACES | {"$gt": seq}} for key, seq in seqs.items()]
        which: Document = {"$or": places, "role": WITHDRAWN}
        # With the hint, MongoDB does not compare the possible plans of each conversation.
        found = self._messages.find(which, {"conversationId": 1}).hint("log")
        ids: dict[str, list[str]] = {}
        for one in await found.to_list(None):
            ids.setdefault(str(one["conversationId"]), []).append(str(one["_id"]))
        return ids

    async def shown(self, keys: Sequence[str]) -> dict[str, Shown]:
        """What each of these conversations shows, out of those that exist."""
        which = {"_id": {"$in": [ObjectId(key) for key in keys]}}
        found = self._mongo.conversations.find(which, {"head": 1, "title": 1})
        return {str(one["_id"]): _shown(one) for one in await found.to_list(None)}

    async def conversation(self, key: str) -> Conversation | None:
        """The conversation with this key, of any user. For callers that have the key from a message."""
        document = await self._mongo.conversations.find_one({"_id": ObjectId(key)})
        return self._understood(conversation_model, document)

    async def _first(self, key: str, places: Document, order: int, limit: int) -> list[Message]:
        """Read `limit` messages. Documents that this version cannot read are skipped and do not count."""
        found: list[Message] = []
        asked = limit
        while True:
            documents = await self._in_order(key, places, order).limit(asked).to_list(asked)
            found += self._mongo.understood(message_model, *documents)
            if len(found) >= limit or len(documents) < asked:
                return found[:limit]
            places = places | {"$lt" if order < 0 else "$gt": place_of(documents[-1])}
            asked = _BATCH

    def _in_order(self, key: str, places: Document, order: int) -> Any:
        """A cursor over the messages at these positions: oldest first, or newest first if `order` is -1."""
        return self._messages.find({"conversationId": ObjectId(key), "seq": places}).sort("seq", order)

    def _understood(self, model: Callable[[Document], T], document: Document | None) -> T | None:
        """The model of the document; None for no document or one that this version cannot read."""
        return next(iter(self._mongo.understood(model, document)), None)


def _is_attempt(document: Document) -> bool:
    return is_answer(document) and isinstance(document.get("attempt"), int)


def _outline(document: Document) -> _Outline:
    size = document["size"]
    return _Outline(place_of(document), size if isinstance(size, int) else 0)  # a later version may write anything


def _shown(document: Document) -> Shown:
    """What a conversation shows; a later version may write anything."""
    head, title = document.get("head"), document.get("title")
    return Shown(str(head) if isinstance(head, ObjectId) else None, title if isinstance(title, str) else None)
