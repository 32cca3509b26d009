"""Converts models to MongoDB documents and back. Shapes: section 3 of the protocol; camelCase, ids as ObjectId."""

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import wraps
from typing import Any, TypeVar

import msgspec
from bson import Decimal128, ObjectId
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from chatstream.errors import ErrorCode
from chatstream.logs import describe
from chatstream.models import (
    Annotation,
    Answer,
    ClientTool,
    Conversation,
    Failure,
    Message,
    Rating,
    Round,
    Status,
    Usage,
    UsageSource,
    UserMessage,
    recommendation,
)
from chatstream.pieces import Piece, read, stored, weight
from chatstream.store.gate import Document

# The position (`seq`) of a conversation's first message.
FIRST_SEQ = 1
# A filter for valid positions (`seq`). Documents with another value have no order; no version of chatstream wrote them.
PLACES: Document = {"$gte": FIRST_SEQ, "$lt": 2**53}
# The role of a user message that its user took back. The document stays, to keep its position taken.
WITHDRAWN = "withdrawn"

# The statuses of answers that have ended.
ENDED = [status.value for status in Status if status.is_final]

_CODES = {code.value for code in ErrorCode}
# Error codes that earlier versions cannot read, each with the most similar code that they know. The latter is stored in
# `code`, the exact one in another field.
_NEWER_CODES = {
    ErrorCode.UPSTREAM_MISCONFIGURED: ErrorCode.UPSTREAM_REJECTED,
    ErrorCode.ANSWER_TOO_LONG: ErrorCode.UPSTREAM_PROTOCOL,
    ErrorCode.TOOL_OUTCOME_UNKNOWN: ErrorCode.UPSTREAM_REJECTED,
}


# The schema version, stored in each document. Raise it if a process of the previous version could misread a document.
SCHEMA = 1

# A MongoDB document has at most 16 MB. Above this many bytes, an answer that would be stored as text and as pieces is
# stored as text alone. With the default limits no answer is that long.
_MAX_CHARACTER_BYTES = 14_000_000

T = TypeVar("T")


class NotUnderstood(Exception):
    """Raised for a document that this version cannot read; a later version may have written it."""


class NoMessage(NotUnderstood):
    """Raised for the document of a message that was taken back: this version knows it, but it is no message now."""


def understanding(model: Callable[[Document], T]) -> Callable[[Document], T]:
    """A decorator: `model` raises `NotUnderstood` for a document that it cannot read."""

    @wraps(model)
    def understood(document: Document) -> T:
        try:
            return model(document)
        except (KeyError, TypeError, ValueError, AttributeError) as exc:  # msgspec's errors are ValueErrors
            raise NotUnderstood(describe(exc)) from exc

    return understood


def _typed(document: Document, name: str, type_: type[T]) -> T:
    value = plain(document[name])
    if not isinstance(value, type_) or isinstance(value, bool):
        raise TypeError(name)
    return value


def _text(document: Document, name: str) -> str | None:
    return None if document.get(name) is None else _typed(document, name, str)


def plain(value: Any) -> Any:
    """The value as one of Python's own strings and numbers, if it is a subclass of them, such as BSON's `Int64`.

    The JSON encoder refuses the subclasses.
    """
    if isinstance(value, str):
        return str(value)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def place_of(document: Document) -> int:
    """A message's position, as a whole number. Raises `ValueError` if it has none; those that `PLACES` finds have one.

    No version writes an array there, or decimals; a later one may. Of an array: its greatest number, by which MongoDB
    sorts.
    """
    seq = document["seq"]
    if isinstance(seq, int):
        return int(seq)
    return int(min(max(_numbers(seq if isinstance(seq, list) else [seq])), PLACES["$lt"]))


def _numbers(values: Iterable[Any]) -> Iterator[int | float | Decimal]:
    for value in values:
        number = value.to_decimal() if isinstance(value, Decimal128) else value
        nan = number.is_nan() if isinstance(number, Decimal) else number != number
        if isinstance(number, int | float | Decimal) and not nan:
            yield number


def whole_number(value: object) -> int | None:
    """The value if it is a whole number of 0 or more, else None: a later version may store anything."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def new_key() -> ObjectId:
    """A random conversation key. Keys that grow with time would all be inserted into the same shard."""
    return ObjectId(secrets.token_bytes(12))


def now() -> datetime:
    """The current time, cut to milliseconds as MongoDB stores it."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def conversation_document(conversation: Conversation) -> Document:
    """A conversation as a document. Inverse of `conversation_model`."""
    return (
        {
            "_id": ObjectId(conversation.key),
            "userId": conversation.user_id,
            "id": conversation.id,
            "title": conversation.title,
            "systemPrompt": conversation.system_prompt,
            "model": conversation.model,
            "createdAt": conversation.created_at,
            "updatedAt": conversation.updated_at,
            "schema": SCHEMA,
        }
        | _flag("background", conversation.background)
        | _flag("autoTitle", conversation.auto_title)
        | _reference("head", conversation.head)
        | _context(conversation)
        | _client_tools(conversation)
    )


def _context(conversation: Conversation) -> Document:
    return {} if conversation.context_from is None else {"contextFrom": conversation.context_from}


def _client_tools(conversation: Conversation) -> Document:
    if not conversation.client_tools:
        return {}
    return {"clientTools": client_tools_document(conversation.client_tools)}


def client_tools_document(tools: Sequence[ClientTool]) -> str:
    """The field `clientTools`, as JSON text: MongoDB does not accept some names of a JSON Schema, such as `$ref`."""
    return msgspec.json.encode(tools).decode()


def _client_tools_model(text: str | None) -> tuple[ClientTool, ...]:
    return () if text is None else msgspec.json.decode(text, type=tuple[ClientTool, ...])


@understanding
def conversation_model(document: Document) -> Conversation:
    """The conversation in a document. Inverse of `conversation_document`. Raises `NotUnderstood`."""
    return Conversation(
        key=str(_typed(document, "_id", ObjectId)),
        user_id=_typed(document, "userId", str),
        id=_typed(document, "id", str),
        title=_text(document, "title"),
        system_prompt=_text(document, "systemPrompt"),
        model=_text(document, "model"),
        created_at=_typed(document, "createdAt", datetime),
        updated_at=_typed(document, "updatedAt", datetime),
        background=bool(document.get("background", False)),
        head=str(head) if isinstance(head := document.get("head"), ObjectId) else None,
        auto_title=bool(document.get("autoTitle", False)),
        client_tools=_client_tools_model(document.get("clientTools")),
        context_from=msgspec.convert(document.get("contextFrom"), int | None),
    )


def user_message_document(key: str, message: UserMessage, *, owner: str) -> Document:
    """A user message as a document. `key` is its conversation's; `owner` is the name of this process."""
    document = {
        "_id": ObjectId(message.id),
        "conversationId": ObjectId(key),
        "seq": message.seq,
        "role": "user",
        "content": message.content,
        "createdAt": message.created_at,
        "owner": owner,
        "schema": SCHEMA,
    } | _flag("background", message.background)
    if message.client_message_id is not None:
        document["clientMessageId"] = message.client_message_id
    if not isinstance(message.parent, UnsetType):
        document["parent"] = message.parent and ObjectId(message.parent)
    return document


def answer_document(key: str, answer: Answer) -> Document:
    """An answer as a document. `key` is its conversation's."""
    document = (
        {
            "_id": ObjectId(answer.id),
            "conversationId": ObjectId(key),
            "seq": answer.seq,
            "role": "assistant",
            "replyTo": ObjectId(answer.reply_to),
            "attempt": answer.attempt,
            "createdAt": answer.created_at,
            "owner": answer.owner,
            "schema": SCHEMA,
        }
        | _flag("background", answer.background)
        | _reference("continues", answer.continues)
    )
    document |= _models(answer)
    if answer.status is Status.STREAMING:
        begun = {"pieces": stored(answer.pieces), "length": answer.length}
        return document | {"status": "streaming", **begun, "beatAt": answer.created_at}
    rating: Document = {} if answer.rating is None else {"rating": answer.rating.value}
    return document | outcome(answer) | rating


def outcome(answer: Answer) -> Document:
    """The fields to set when an answer ends."""
    failure = answer.failure
    document = _models(answer) | {
        "status": answer.status.value,
        "content": answer.content,
        "length": answer.length,
        "finishReason": answer.finish_reason,
        "usage": usage_document(answer.usage),
        "error": failure and _failure_document(failure),
        "recommendations": list(answer.recommendations),
        "unseen": answer.unseen,
    }
    if answer.rounds:
        document["rounds"] = rounds_document(answer.rounds)
    if answer.mixed and 4 * (weight(answer.mixed) + len(answer.content)) < _MAX_CHARACTER_BYTES:
        document["pieces"] = stored(answer.mixed)
    if answer.other_annotations:
        document["annotations"] = [_annotation_document(one) for one in answer.other_annotations]
    return document


def _models(answer: Answer) -> Document:
    named = {"model": answer.model, "nextModel": answer.next_model}
    return {field: name for field, name in named.items() if name is not None}


def _annotation_document(annotation: Annotation) -> Document:
    # Stored as text: BSON cannot hold all numbers, names and nesting depths of JSON.
    data = msgspec.json.encode(annotation.data).decode()
    return {"kind": annotation.kind, "id": annotation.id, "message": annotation.message, "data": data}


def _annotation_model(document: Document) -> Annotation:
    return Annotation(
        kind=_typed(document, "kind", str),
        id=_typed(document, "id", str),
        message=_typed(document, "message", str),
        data=msgspec.json.decode(document["data"]),
    )


def _recommendation_model(document: Document) -> Annotation:
    # Another version may have added fields; those whose values JSON cannot express are left out.
    return recommendation(
        {name: plain(value) for name, value in document.items() if isinstance(value, str | float | int | None)}
    )


def message_model(document: Document) -> Message:
    """The user message or the answer in a document. Raises `NotUnderstood`."""
    if document.get("role") == WITHDRAWN:
        raise NoMessage("withdrawn")
    match document.get("role"):
        case "user":
            return user_message_model(document)
        case "assistant":
            return answer_model(document)
    raise NotUnderstood("role")


@understanding
def user_message_model(document: Document) -> UserMessage:
    """The user message in a document. Inverse of `user_message_document`. Raises `NotUnderstood`."""
    return UserMessage(
        id=str(_typed(document, "_id", ObjectId)),
        seq=_typed(document, "seq", int),
        content=_typed(document, "content", str),
        created_at=_typed(document, "createdAt", datetime),
        client_message_id=_text(document, "clientMessageId"),
        background=bool(document.get("background", False)),
        parent=_id(document["parent"]) if "parent" in document else UNSET,
    )


@understanding
def answer_model(document: Document) -> Answer:
    """The answer in a document; for a running answer, the state of its last checkpoint. Raises `NotUnderstood`.

    An answer with an unknown status, from a later version, counts as running.
    """
    status = status_of(document)
    return Answer(
        id=str(_typed(document, "_id", ObjectId)),
        seq=_typed(document, "seq", int),
        reply_to=str(_typed(document, "replyTo", ObjectId)),
        attempt=_typed(document, "attempt", int),
        status=status,
        content="",
        created_at=_typed(document, "createdAt", datetime),
        finish_reason=_text(document, "finishReason"),
        usage=_usage(document.get("usage")),
        failure=_failure(document.get("error")),
        annotations=(
            *map(_recommendation_model, document.get("recommendations", [])),
            *map(_annotation_model, document.get("annotations", [])),
        ),
        unseen=bool(document.get("unseen", False)),
        queued=bool(document.get("queued", False)),
        owner=_typed(document, "owner", str),
        background=bool(document.get("background", False)),
        model=_text(document, "model"),
        next_model=_text(document, "nextModel"),
        continues=_id(document.get("continues")),
        rating=next((one for one in Rating if one.value == document.get("rating")), None),
        rounds=rounds_model(document),
        waits_until=_waits_until(document) if status is Status.WAITING else None,
    ).made_of(_pieces(document))


def waiting_document(user_id: str, until: datetime) -> Document:
    """The field `waiting` of an answer that waits for a decision of this user, at the latest until `until`."""
    return {"userId": user_id, "expiresAt": until}


def _waits_until(document: Document) -> datetime | None:
    waiting = document.get("waiting")
    return _typed(waiting, "expiresAt", datetime) if isinstance(waiting, dict) else None


def _pieces(document: Document) -> list[Piece]:
    """The pieces of an answer. A finished answer without the field is text alone.

    Earlier versions called the field of a running answer `parts`.
    """
    values = document.get("pieces", document.get("parts"))
    if values is None:
        return [_typed(document, "content", str)]
    try:
        return read(values)
    except msgspec.MsgspecError:  # an unknown piece of a later version; an ended answer has `content` as well
        return [_typed(document, "content", str)]


def status_of(document: Document) -> Status:
    """An answer's status. An unknown status, from a later version, counts as `STREAMING`."""
    status = document.get("status")
    return next((known for known in Status if known.value == status), Status.STREAMING)


def rounds_document(rounds: Sequence[Round]) -> list[Document]:
    """The field `rounds`: the model requests of an answer."""
    return [
        {"model": one.model, "finishReason": one.finish_reason, "usage": one.usage and msgspec.to_builtins(one.usage)}
        for one in rounds
    ]


def usage_document(usage: Usage | None) -> Document | None:
    """The field `usage`: tokens and cost."""
    if usage is None:
        return None
    # Earlier versions do not know estimates, and cannot read a message with an unknown `source`.
    estimated = usage.source is UsageSource.ESTIMATED
    known = replace(usage, source=UsageSource.PARTIAL) if estimated else usage
    document: Document = msgspec.to_builtins(known)
    return document | _flag("estimated", estimated)


def _usage(document: Document | None) -> Usage | None:
    usage = msgspec.convert(document, Usage | None)
    if usage is None or document is None or not document.get("estimated"):
        return usage
    return replace(usage, source=UsageSource.ESTIMATED)


@understanding
def usage_model(document: Document) -> Usage | None:
    """The usage in an answer's document, or None. The document may lack other fields. Raises `NotUnderstood`."""
    return _usage(document.get("usage"))


@understanding
def rounds_model(document: Document) -> tuple[Round, ...]:
    """The model requests in an answer's document, if there were several. Other fields may be missing.

    Raises `NotUnderstood`.
    """
    return msgspec.convert(document.get("rounds", []), tuple[Round, ...])


def _flag(name: str, value: bool) -> Document:
    """A field that is stored only if true, to save space."""
    return {name: True} if value else {}


def _reference(name: str, id_: str | None) -> Document:
    """A field with the id of another document; no field if `id_` is None."""
    return {} if id_ is None else {name: ObjectId(id_)}


def _id(value: object) -> str | None:
    if value is not None and not isinstance(value, ObjectId):
        raise TypeError("an id")
    return None if value is None else str(value)


def is_answer(document: Document) -> bool:
    """Whether the document is an attempt at answering a user message. Also for a document read without its text."""
    return document.get("role") == "assistant" and isinstance(document.get("replyTo"), ObjectId)


def _failure_document(failure: Failure) -> Document:
    code = failure.code
    document = {
        "code": _NEWER_CODES.get(code, code).value,
        "requestId": failure.request_id,
        "retryAfterMs": failure.retry_after_ms,
    } | _flag("unwatched", failure.unwatched)
    return document | {"exactCode": code.value} if code in _NEWER_CODES else document


def _failure(error: dict[str, Any] | None) -> Failure | None:
    if error is None:
        return None
    code = next((code for code in (error.get("exactCode"), error["code"]) if code in _CODES), ErrorCode.INTERNAL)
    return Failure(
        code=ErrorCode(code),
        request_id=_text(error, "requestId"),
        retry_after_ms=msgspec.convert(error["retryAfterMs"], int | None),
        unwatched=bool(error.get("unwatched", False)),
    )
