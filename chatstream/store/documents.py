"""Models as documents and back. The shapes are the protocol's, section 3: camelCase, ids as ObjectId."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from bson import ObjectId

from chatstream.errors import ErrorCode
from chatstream.models import (
    Annotation,
    Answer,
    Conversation,
    Failure,
    Message,
    Recommendation,
    Status,
    Usage,
    UserMessage,
)
from chatstream.store.gate import Document

# The place of a conversation's first message.
FIRST_SEQ = 1

_CODES = {code.value for code in ErrorCode}
# A process of an earlier version cannot read a message whose code it does not know: it finds the nearest one that it
# knows, and ours stands beside it.
_NEWER_CODES = {
    ErrorCode.UPSTREAM_MISCONFIGURED: ErrorCode.UPSTREAM_REJECTED,
    ErrorCode.ANSWER_TOO_LONG: ErrorCode.UPSTREAM_PROTOCOL,
}


def now() -> datetime:
    """As exactly as MongoDB stores it: in milliseconds."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def conversation_document(conversation: Conversation) -> Document:
    """The inverse of `conversation_model`."""
    return {
        "_id": ObjectId(conversation.key),
        "userId": conversation.user_id,
        "id": conversation.id,
        "title": conversation.title,
        "systemPrompt": conversation.system_prompt,
        "model": conversation.model,
        "createdAt": conversation.created_at,
        "updatedAt": conversation.updated_at,
    }


def conversation_model(document: Document) -> Conversation:
    """The inverse of `conversation_document`."""
    return Conversation(
        key=str(document["_id"]),
        user_id=document["userId"],
        id=document["id"],
        title=document["title"],
        system_prompt=document["systemPrompt"],
        model=document["model"],
        created_at=document["createdAt"],
        updated_at=document["updatedAt"],
    )


def user_message_document(key: str, message: UserMessage, *, owner: str) -> Document:
    """`key` is the conversation's; `owner` names the process that stores it."""
    document = {
        "_id": ObjectId(message.id),
        "conversationId": ObjectId(key),
        "seq": message.seq,
        "role": "user",
        "content": message.content,
        "createdAt": message.created_at,
        "owner": owner,
    }
    if message.client_message_id is not None:
        document["clientMessageId"] = message.client_message_id
    return document


def answer_document(key: str, answer: Answer) -> Document:
    """`key` is the conversation's."""
    document = {
        "_id": ObjectId(answer.id),
        "conversationId": ObjectId(key),
        "seq": answer.seq,
        "role": "assistant",
        "replyTo": ObjectId(answer.reply_to),
        "attempt": answer.attempt,
        "createdAt": answer.created_at,
        "owner": answer.owner,
    }
    if answer.status is Status.STREAMING:
        return document | {"status": "streaming", "parts": [], "length": 0, "beatAt": answer.created_at}
    return document | outcome(answer)


def outcome(answer: Answer) -> Document:
    """The fields that a final save sets."""
    failure = answer.failure
    return {
        "status": answer.status.value,
        "content": answer.content,
        "length": len(answer.content),
        "finishReason": answer.finish_reason,
        "usage": msgspec.to_builtins(answer.usage),
        "error": failure and _failure_document(failure),
        "recommendations": msgspec.to_builtins(answer.recommendations),
        "unseen": answer.unseen,
    } | ({"annotations": [_annotation_document(one) for one in answer.annotations]} if answer.annotations else {})


def _annotation_document(annotation: Annotation) -> Document:
    # As text: JSON has numbers, names and depths that BSON has not.
    data = msgspec.json.encode(annotation.data).decode()
    return {"kind": annotation.kind, "id": annotation.id, "message": annotation.message, "data": data}


def _annotation_model(document: Document) -> Annotation:
    return Annotation(
        kind=document["kind"],
        id=document["id"],
        message=document["message"],
        data=msgspec.json.decode(document["data"]),
    )


def message_model(document: Document) -> Message:
    """A user message or an answer, whichever the document is."""
    return user_message_model(document) if document["role"] == "user" else answer_model(document)


def user_message_model(document: Document) -> UserMessage:
    """The inverse of `user_message_document`."""
    return UserMessage(
        id=str(document["_id"]),
        seq=document["seq"],
        content=document["content"],
        created_at=document["createdAt"],
        client_message_id=document.get("clientMessageId"),
    )


def answer_model(document: Document) -> Answer:
    """An answer; that of a running one has the text of its last checkpoint."""
    status = Status(document["status"])
    running = status is Status.STREAMING
    return Answer(
        id=str(document["_id"]),
        seq=document["seq"],
        reply_to=str(document["replyTo"]),
        attempt=document["attempt"],
        status=status,
        content="".join(document["parts"]) if running else document["content"],
        created_at=document["createdAt"],
        finish_reason=document.get("finishReason"),
        usage=msgspec.convert(document.get("usage"), Usage | None),
        failure=_failure(document.get("error")),
        recommendations=msgspec.convert(document.get("recommendations", []), tuple[Recommendation, ...]),
        annotations=tuple(map(_annotation_model, document.get("annotations", []))),
        unseen=document.get("unseen", False),
        queued=document.get("queued", False),
        owner=document["owner"],
    )


def _failure_document(failure: Failure) -> Document:
    code = failure.code
    document = {
        "code": _NEWER_CODES.get(code, code).value,
        "requestId": failure.request_id,
        "retryAfterMs": failure.retry_after_ms,
    }
    return document | {"exactCode": code.value} if code in _NEWER_CODES else document


def _failure(error: dict[str, Any] | None) -> Failure | None:
    if error is None:
        return None
    code = next((code for code in (error.get("exactCode"), error["code"]) if code in _CODES), ErrorCode.INTERNAL)
    return Failure(code=ErrorCode(code), request_id=error["requestId"], retry_after_ms=error["retryAfterMs"])
