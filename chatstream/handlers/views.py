"""Models as the REST API shows them, and the bodies it takes."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from chatstream.errors import EXPLANATIONS
from chatstream.events import Cursor, timestamp
from chatstream.models import Answer, Conversation, Message, Status, UserMessage

# Enough for a headline, for pages of instructions, and for any model's name; small beside the limit of a document.
Title = Annotated[str, StringConstraints(max_length=200)]
Prompt = Annotated[str, StringConstraints(max_length=8000)]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,99}$")]
ClientMessageId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,128}$")]
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
ObjectKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{24}$")]


class _Body(BaseModel):
    # What is not listed is refused: nobody sets `role`, `userId` or `status`.
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)


class NewConversation(_Body):
    """``POST …/conversations``."""

    id: Id | None = None
    title: Title | None = None
    system_prompt: Prompt | None = None
    model: ModelName | None = None
    initial_message: Annotated[str, Field(min_length=1)] | None = None


class ConversationChanges(_Body):
    """``PATCH …/conversations/{id}``; null resets to the server's default."""

    title: Title | None = None
    system_prompt: Prompt | None = None
    model: ModelName | None = None


class NewMessage(_Body):
    """``POST …/messages``."""

    content: Annotated[str, Field(min_length=1)]
    client_message_id: ClientMessageId | None = None


class StopRequest(_Body):
    """``POST …/stop``."""

    message_id: ObjectKey | None = None


def conversation_view(conversation: Conversation) -> dict[str, Any]:
    """A conversation as its owner sees it."""
    return {
        "id": conversation.id,
        "title": conversation.title,
        "systemPrompt": conversation.system_prompt,
        "model": conversation.model,
        "createdAt": timestamp(conversation.created_at),
        "updatedAt": timestamp(conversation.updated_at),
    }


def message_view(message: Message) -> dict[str, Any]:
    """A user message or an answer."""
    if isinstance(message, UserMessage):
        view = {
            "id": message.id,
            "role": "user",
            "content": message.content,
            "createdAt": timestamp(message.created_at),
        }
        return view | ({"clientMessageId": message.client_message_id} if message.client_message_id else {})
    return {
        "id": message.id,
        "role": "assistant",
        "content": message.content,
        "createdAt": timestamp(message.created_at),
        "replyTo": message.reply_to,
        "attempt": message.attempt,
        "status": message.status,
        "finishReason": message.finish_reason,
        "usage": message.usage,
        "error": _failure_view(message),
        "recommendations": message.recommendations,
    }


def _failure_view(answer: Answer) -> dict[str, Any] | None:
    failure = answer.failure
    if failure is None:
        return None
    explanation = EXPLANATIONS[failure.code]
    return {
        "error": failure.code,
        "message": explanation.message,
        "retryable": explanation.retryable,
        "requestId": failure.request_id,
    }


def stream_cursor(key: str, messages: list[Message]) -> str:
    """The cursor with which a stream goes on from what `messages`, the newest of the conversation `key`, show."""
    if not messages:
        return str(Cursor(key, Cursor.START))
    shown = next((m for m in messages if isinstance(m, Answer) and m.status is Status.STREAMING), messages[-1])
    if isinstance(shown, UserMessage):
        return str(Cursor(shown.id, Cursor.USER))
    if shown.status is Status.STREAMING:
        return str(Cursor(shown.id, len(shown.content)))
    return str(Cursor(shown.id, Cursor.COMPLETE + len(shown.recommendations)))
