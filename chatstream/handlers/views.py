"""The REST API's request bodies (pydantic, which validates input) and response bodies (msgspec).

The OpenAPI document's schemas, and their descriptions, are made from these classes.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import asdict
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel

from chatstream.blank import is_blank
from chatstream.errors import EXPLANATIONS, ErrorCode
from chatstream.events import Cursor, Timestamp, parts, shown, timestamp
from chatstream.formats.ui_message_stream import UIMessage
from chatstream.generations.deciding import Action, Decided, Decision
from chatstream.llm.catalogue import Entry
from chatstream.models import (
    Annotation,
    Answer,
    ClientTool,
    Conversation,
    ConversationState,
    Erasure,
    Failure,
    Message,
    Rating,
    Recommended,
    Round,
    Status,
    Usage,
    UserMessage,
)
from chatstream.pieces import CallState, Part, ShownQuestion
from chatstream.store.ledger import Balance
from chatstream.tools.client import TIMEOUT

# The forms of a conversation's id, and of an idempotency key.
ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
KEY_PATTERN = r"^[\x21-\x7e]{1,128}$"

# Default and largest page of a list: two screens of titles; still a few KB if they are as long as they may be.
PAGE = 50
MAX_PAGE = 200

# Maximum number of tools that an app may declare in a conversation: they are sent to the model with every request.
MAX_CLIENT_TOOLS = 32
MAX_CLIENT_TOOLS_CHARACTERS = 32_000

# Longest reason for denying a tool call, in characters: a few sentences, which the model is sent.
MAX_REASON = 2000

# Longest search query, in characters, and most terms in it. In scripts without spaces every two characters are a term.
MAX_QUERY = 200
MAX_QUERY_TERMS = 32

# Lengths in characters: a headline, pages of instructions, any model's name; small beside a document's limit of 16 MB.
# `UserChoices` checks that the model exists.
Title = Annotated[str, StringConstraints(max_length=200)]
Prompt = Annotated[str, StringConstraints(max_length=8000)]
# A model's name: no space at its ends, no control characters, and it does not begin like a path.
_MODEL_NAME = r"^[^\s./\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]{0,198}[^\s\x00-\x1f\x7f-\x9f])?$"
ModelName = Annotated[str, StringConstraints(pattern=_MODEL_NAME)]
ClientMessageId = Annotated[str, StringConstraints(pattern=KEY_PATTERN)]
# A message must have a visible character. `blank` checks this exactly; this pattern is as much as fits into a schema.
_VISIBLE: dict[str, Any] = {"pattern": r"[^\s\x00-\x1f\x7f-\xa0\xad]"}
Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
CALL_ID_PATTERN = r"^[0-9a-f]{24}\.[1-9][0-9]{0,5}$"
OBJECT_KEY_PATTERN = r"^[0-9a-f]{24}$"
OBJECT_KEY = re.compile(OBJECT_KEY_PATTERN)
ObjectKey = Annotated[str, StringConstraints(pattern=OBJECT_KEY_PATTERN)]


def _whole(number: Any) -> Any:
    """Turn 5.0 into 5: JSON Schema counts it as an integer, and some languages write all numbers so."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _shown(title: str | None) -> str | None:
    """None for a title without a visible character: it would be an empty line in a list."""
    return None if title is None or is_blank(title) else title


OptionalTitle = Annotated[Title | None, AfterValidator(_shown)]


class _Body(BaseModel):
    # Unknown fields are refused, so a client cannot set `role`, `userId` or `status`.
    # `defer_build`: a validator is built on first use, in a millisecond; all of them would be 2 % of a start.
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True, defer_build=True)


class NewConversation(_Body):
    """A conversation to create. With `autoTitle`, the model writes a title after the first answer. It replaces the
    title given here, unless the user has renamed the conversation before."""

    id: Id | None = None
    title: OptionalTitle = None
    system_prompt: Prompt | None = None
    model: ModelName | None = None
    background: bool | None = None
    auto_title: bool | None = None
    initial_message: Annotated[str, Field(min_length=1, json_schema_extra=_VISIBLE)] | None = None


class DeclaredTool(_Body):
    """A tool of the app. When the model calls it, the app has `timeout` seconds (600 by default) to send the result to
    `POST …/tool-calls/{toolCallId}`. `parameters` is a JSON Schema of type object."""

    name: Annotated[str, StringConstraints(pattern=ID_PATTERN)]
    description: Annotated[str, StringConstraints(min_length=1, max_length=2000)]
    parameters: dict[str, Any]
    timeout: Annotated[float, Field(ge=1, le=86_400)] | None = None

    def made(self) -> ClientTool:
        """This tool as the store's type. Whether `parameters` is a JSON Schema is not checked."""
        timeout = TIMEOUT if self.timeout is None else self.timeout
        return ClientTool(name=self.name, description=self.description, parameters=self.parameters, timeout=timeout)


class ConversationChanges(_Body):
    """The fields of a conversation to change; null resets a field to the server's default. `head` is a message's id:
    the branch through this message, down to its newest message, is shown from now on, to all viewers."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    title: OptionalTitle = None
    system_prompt: Prompt | None = None
    model: ModelName | None = None
    background: bool | None = None
    client_tools: Annotated[list[DeclaredTool], Field(max_length=MAX_CLIENT_TOOLS)] | None = None
    # never null: a branch always ends at a message
    head: Annotated[ObjectKey | None, WithJsonSchema({"type": "string", "pattern": OBJECT_KEY_PATTERN})] = None

    @model_validator(mode="after")
    def _head_is_said(self) -> Self:
        if self.head is None and "head" in self.model_fields_set:
            raise ValueError("`head` must be the id of a message")
        return self


class NewMessage(_Body):
    """A message to send.

    `background`: whether its answer finishes even if nobody watches; the default is the conversation's setting.
    `parent`: the id of the message that this one follows; null for a first message. The default is the end of the shown
    branch. To edit a message, send its new text with the `parent` of the old message.
    """

    content: Annotated[str, Field(min_length=1, json_schema_extra=_VISIBLE)]
    client_message_id: ClientMessageId | None = None
    background: bool | None = None
    parent: ObjectKey | None = None

    @property
    def goes_on_from(self) -> str | UnsetType | None:
        """`parent`, or UNSET if the request does not have it."""
        return self.parent if "parent" in self.model_fields_set else UNSET


class RegenerateRequest(_Body):
    """Answer a message again. `messageId` is the id of the user message; without it or with null, the newest one of the
    shown branch is answered.

    With `continue`, the new attempt begins with the text of a cut attempt and continues it. Then `messageId` may also
    be the id of that attempt; the default is the newest attempt.
    """

    message_id: ObjectKey | None = None
    continue_: bool = Field(default=False, alias="continue")


class RatingRequest(_Body):
    """The user's rating of the answer `messageId`; null removes the rating."""

    message_id: ObjectKey
    rating: Annotated[Rating, Field(strict=False)] | None


class StopRequest(_Body):
    """The answer to stop. Without `messageId` or with null, the running answer is stopped. With `seenLength`, its text
    is cut to this many code points, which the user has seen: for all devices, and for the model in the next turn."""

    message_id: ObjectKey | None = None
    seen_length: Annotated[int, Field(ge=0, le=999_999_999), BeforeValidator(_whole)] | None = None


class CallRequest(_Body):
    """The response to a waiting tool call. From a person: a `decision`; a denial may have a `reason`, which is sent to
    the model. From an app that carries out the call: its `output`, any JSON value, or an `error` text for the model.
    To a tool's `question`, named by its id: an `action`; `accept` needs the `content` that the question's schema
    describes."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    decision: Annotated[Decision, Field(strict=False)] | None = None
    reason: Annotated[str, StringConstraints(max_length=MAX_REASON)] | None = None
    output: Any = None
    error: Annotated[str, StringConstraints(min_length=1, max_length=MAX_REASON)] | None = None
    question: Annotated[str, StringConstraints(min_length=1, max_length=10)] | None = None
    action: Annotated[Action, Field(strict=False)] | None = None
    content: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_thing_is_said(self) -> Self:
        said = sum(one is not None for one in (self.decision, self.error, self.output, self.question))
        if said != 1 and not (said == 0 and "output" in self.model_fields_set):  # null is a valid output
            raise ValueError("There must be one of `decision`, `output`, `error` and `question`")
        if (self.question is None) is not (self.action is None):
            raise ValueError("`question` and `action` belong together")
        if self.content is not None and self.question is None:
            raise ValueError("`content` belongs to a `question`")
        if self.reason is not None and self.decision is not Decision.DENY:
            raise ValueError("`reason` belongs to a decision that denies")
        return self


class UserMessageView(Struct, frozen=True, kw_only=True, rename="camel", tag_field="role", tag="user"):
    """A user message."""

    id: str
    content: str
    created_at: Timestamp
    client_message_id: str | UnsetType = UNSET
    # Only in a conversation with branches: the id of the message before it; null for the first of its branch.
    parent: str | UnsetType | None = UNSET
    # Only where there are alternatives: the ids of all of them, oldest first; this message is at `index`, from 0.
    siblings: tuple[str, ...] | UnsetType = UNSET
    index: int | UnsetType = UNSET


class FailureView(Struct, frozen=True, kw_only=True, rename="camel"):
    """Why an answer failed. `retryable`: `regenerate` may help. The server's log has details under `requestId`.

    It is null if the server interrupted the answer and begins a new attempt by itself for the next viewer.
    """

    error: ErrorCode
    message: str
    retryable: bool
    request_id: str | None
    retry_after_ms: int | UnsetType = UNSET  # the wait that the model's server asked for, from the answer's end


class ContextTrimmedView(Struct, frozen=True, kw_only=True, rename="camel"):
    """From this answer on, the oldest `dropped` messages of the conversation are not sent to the model."""

    dropped: int


class AnswerView(Struct, frozen=True, kw_only=True, rename="camel", tag_field="role", tag="assistant"):
    """One attempt at answering the user message `replyTo`. If there are several attempts, the newest counts."""

    id: str
    content: str
    created_at: Timestamp
    reply_to: str
    attempt: int
    status: Status
    finish_reason: str | None
    usage: Usage | None
    error: FailureView | None
    recommendations: tuple[Recommended, ...]
    annotations: tuple[Annotation, ...] | UnsetType = UNSET
    parts: tuple[Part, ...] | UnsetType = UNSET  # only if there is more than text
    continues: str | UnsetType = UNSET  # the id of the attempt whose text it continues
    rating: Rating | UnsetType = UNSET
    # Only where there are several: the ids of all attempts at answering that message, oldest first; this one is at
    # `index`.
    siblings: tuple[str, ...] | UnsetType = UNSET
    index: int | UnsetType = UNSET
    model: str | UnsetType = UNSET  # the model that answered, once stored
    context_trimmed: ContextTrimmedView | UnsetType = UNSET  # only on the first answer without the older messages
    rounds: tuple[Round, ...] | UnsetType = UNSET  # only after several model requests; `usage` is their sum


class PostedMessage(UserMessageView, frozen=True, kw_only=True, rename="camel", tag_field="role", tag="user"):
    """A stored user message. A stream opened with `streamCursor` sends its answer from the beginning."""

    stream_cursor: str


class BegunAnswer(AnswerView, frozen=True, kw_only=True, rename="camel", tag_field="role", tag="assistant"):
    """An answer that has just begun. A stream opened with `streamCursor` sends it from the beginning."""

    stream_cursor: str


class ClientToolView(Struct, frozen=True, kw_only=True, rename="camel"):
    """A tool that the app has declared."""

    name: str
    description: str
    parameters: dict[str, Any]
    timeout: float


class ConversationView(Struct, frozen=True, kw_only=True, rename="camel"):
    """A conversation. Null means the server's default."""

    id: str
    title: str | None
    system_prompt: str | None
    model: str | None
    background: bool
    created_at: Timestamp
    updated_at: Timestamp
    head: str | UnsetType = UNSET  # only with several branches: the last message of the active one
    client_tools: tuple[ClientToolView, ...] | UnsetType = UNSET  # only if the app has declared some


class ListedConversation(ConversationView, frozen=True, kw_only=True, rename="camel"):
    """A conversation in a list. `state`: whether an answer runs in it, or waits for a decision. `unread`: an answer has
    ended while no device watched, and was not read since."""

    state: ConversationState
    unread: bool


class CallView(Struct, frozen=True, kw_only=True, rename="camel"):
    """The present state of a tool call of the answer `messageId`. A stream opened with `streamCursor` sends what
    follows."""

    tool_call_id: str
    name: str
    arguments: str
    state: CallState | None
    message_id: str
    status: Status  # the answer's status
    stream_cursor: str
    expires_at: Timestamp | UnsetType = UNSET
    decided_by: str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    question: ShownQuestion | UnsetType = UNSET
    output: Any = UNSET
    failed: bool | UnsetType = UNSET
    truncated: bool | UnsetType = UNSET


class NewConversationView(ConversationView, frozen=True, kw_only=True, rename="camel"):
    """The created conversation, with its first message if the request had one."""

    initial_message: UserMessageView | UnsetType = UNSET


class Capabilities(Struct, frozen=True, kw_only=True, rename="camel"):
    """What a model can do besides text."""

    vision: bool
    tools: bool
    reasoning: bool


class ModelView(Struct, frozen=True, kw_only=True, rename="camel"):
    """A model that users may choose. `context` is its context length in tokens, null if unknown. The `default` one
    answers in conversations without a `model`."""

    name: str
    description: str
    capabilities: Capabilities
    context: int | None
    default: bool


class BalanceView(Struct, frozen=True, kw_only=True, rename="camel"):
    """One budget, in tokens or in millionths of the operator's currency. `limit` and `left` are null if it is
    unlimited.

    `reserved` is the expected use of running answers. `resetsAt` is when the next day or month begins.
    """

    name: Literal["tokensPerDay", "tokensPerMonth", "costPerMonth"]
    unit: Literal["tokens", "costMicros"]
    limit: int | None
    used: int
    reserved: int
    left: int | None
    resets_at: Timestamp


class UsageView(Struct, frozen=True, kw_only=True, rename="camel"):
    """The caller's budgets; empty if the server has no budgets."""

    budgets: list[BalanceView]


class ModelList(Struct, frozen=True, kw_only=True, rename="camel"):
    """The models that users may choose, in the operator's order."""

    models: list[ModelView]


class NewTicket(Struct, frozen=True, kw_only=True, rename="camel"):
    """A ticket: `…/stream?ticket=` opens the stream of one conversation, once, until `expiresAt`."""

    ticket: str
    expires_at: Timestamp


class ErasedView(Struct, frozen=True, kw_only=True, rename="camel"):
    """How much was erased so far."""

    conversations: int
    messages: int


class ErasureView(Struct, frozen=True, kw_only=True, rename="camel"):
    """An erasure. Once `completedAt` is set, it is the receipt. It does not name the user."""

    id: str
    status: Literal["running", "complete"]
    requested_at: Timestamp
    completed_at: Timestamp | None
    erased: ErasedView


class ConversationPage(Struct, frozen=True, kw_only=True, rename="camel"):
    """Conversations, most recently active first. `nextCursor` is the `before` of the next page, null on the last one.

    `complete` is sent for searches only. It is false while the server still indexes older conversations: search again
    later.
    """

    conversations: list[ListedConversation]
    next_cursor: str | None
    complete: bool | UnsetType = UNSET


class MessagePage(Struct, frozen=True, kw_only=True, rename="camel"):
    """Messages, oldest first. `nextCursor` is the `before` of the page with older messages, null if there are none.

    `streamCursor` is sent on the newest page only: a stream opened with it continues right after this page. `previous`
    is the id of the message right before the first one. `head` is the conversation's, if it has several branches.
    """

    messages: list[UserMessageView | AnswerView]
    next_cursor: str | None
    stream_cursor: str | None
    previous: str | UnsetType = UNSET
    head: str | UnsetType = UNSET


class RatingView(Struct, frozen=True, kw_only=True, rename="camel"):
    """The user's rating of the answer `messageId`."""

    message_id: str
    rating: Rating | None


class UIMessagePage(Struct, frozen=True, kw_only=True, rename="camel"):
    """Messages in the AI SDK's form. A stream opened with `streamCursor` sends a running answer from its beginning."""

    messages: list[UIMessage]
    next_cursor: str | None
    stream_cursor: str | None


def conversation_view(conversation: Conversation) -> ConversationView:
    """A conversation as its owner sees it."""
    return ConversationView(**_conversation_fields(conversation))


def listed_conversation(conversation: Conversation, state: ConversationState, *, unread: bool) -> ListedConversation:
    """A conversation in a list."""
    return ListedConversation(**_conversation_fields(conversation), state=state, unread=unread)


def new_conversation_view(conversation: Conversation, message: UserMessage | None) -> NewConversationView:
    """The response for a conversation that was just created, with its first message if it has one."""
    return NewConversationView(
        **_conversation_fields(conversation),
        initial_message=UNSET if message is None else UserMessageView(**_user_message_fields(message)),
    )


def message_view(
    message: Message,
    *,
    reasoning: bool = True,
    siblings: Sequence[str] = (),
    parent: str | UnsetType | None = UNSET,
) -> UserMessageView | AnswerView:
    """A user message or an answer; `reasoning`: include the model's reasoning.

    `siblings`: the ids of all alternatives to this message, itself included, if there are any. `parent`: the id of
    the message before a user message, in a conversation with branches.
    """
    place: dict[str, Any] = {"siblings": tuple(siblings), "index": siblings.index(message.id)} if siblings else {}
    if isinstance(message, UserMessage):
        return UserMessageView(**_user_message_fields(message) | {"parent": parent} | place)
    return AnswerView(**_answer_fields(message) | place, parts=parts(message.mixed, reasoning=reasoning) or UNSET)


def call_view(decided: Decided) -> CallView:
    """A tool call after a decision or a result."""
    call, answer = decided.call, decided.answer
    output, truncated = (UNSET, UNSET) if call.output is UNSET else shown(call.output)
    return CallView(
        tool_call_id=call.tool_call_id,
        name=call.name,
        arguments=call.arguments,
        state=call.state,
        message_id=answer.id,
        status=answer.status,
        stream_cursor=str(Cursor(answer.id, decided.position)),
        expires_at=call.expires_at or UNSET,
        decided_by=call.decided_by or UNSET,
        message=call.message or UNSET,
        question=call.question,
        output=output,
        failed=call.failed,
        truncated=truncated or UNSET,
    )


def balance_view(balance: Balance) -> BalanceView:
    """One limit and how much of it is used."""
    name = balance.name
    return BalanceView(
        name=name,
        unit="costMicros" if name == "costPerMonth" else "tokens",
        limit=balance.limit,
        used=balance.used,
        reserved=balance.reserved,
        left=balance.left,
        resets_at=timestamp(balance.resets_at),
    )


def model_view(entry: Entry, *, is_default: bool) -> ModelView:
    """A model as users see it: without its endpoint and its price."""
    return ModelView(
        name=entry.name,
        description=entry.description,
        capabilities=Capabilities(vision=entry.vision, tools=entry.tools, reasoning=entry.reasoning),
        context=entry.context,
        default=is_default,
    )


def posted_message(message: UserMessage, cursor: Cursor) -> PostedMessage:
    """A user message that was just stored, with the stream cursor of its answer."""
    return PostedMessage(**_user_message_fields(message), stream_cursor=str(cursor))


def begun_answer(answer: Answer, cursor: Cursor) -> BegunAnswer:
    """An answer that has just begun, with its stream cursor."""
    return BegunAnswer(**_answer_fields(answer), stream_cursor=str(cursor))


def erasure_view(erasure: Erasure) -> ErasureView:
    """The state of an erasure."""
    completed = erasure.completed_at
    return ErasureView(
        id=erasure.id,
        status="running" if completed is None else "complete",
        requested_at=timestamp(erasure.requested_at),
        completed_at=None if completed is None else timestamp(completed),
        erased=ErasedView(conversations=erasure.erased.conversations, messages=erasure.erased.messages),
    )


def _conversation_fields(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "title": conversation.title,
        "system_prompt": conversation.system_prompt,
        "model": conversation.model,
        "background": conversation.background,
        "client_tools": tuple(ClientToolView(**asdict(one)) for one in conversation.client_tools) or UNSET,
        "created_at": timestamp(conversation.created_at),
        "updated_at": timestamp(conversation.updated_at),
        "head": conversation.head or UNSET,
    }


def _user_message_fields(message: UserMessage) -> dict[str, Any]:
    return {
        "id": message.id,
        "content": message.content,
        "created_at": timestamp(message.created_at),
        "client_message_id": message.client_message_id or UNSET,
        "parent": message.parent,
    }


def _answer_fields(answer: Answer) -> dict[str, Any]:
    return {
        "id": answer.id,
        "content": answer.content,
        "created_at": timestamp(answer.created_at),
        "reply_to": answer.reply_to,
        "attempt": answer.attempt,
        "status": answer.status,
        "finish_reason": answer.finish_reason,
        "usage": answer.usage,
        "error": _failure_view(answer.failure) if answer.failure and not answer.begins_again else None,
        "recommendations": answer.recommendations,
        "annotations": answer.other_annotations or UNSET,
        "model": answer.model or UNSET,
        "continues": answer.continues or UNSET,
        "rating": answer.rating or UNSET,
        "context_trimmed": _context_trimmed(answer),
        "rounds": answer.rounds or UNSET,
    }


def _context_trimmed(answer: Answer) -> ContextTrimmedView | UnsetType:
    dropped = answer.context_trimmed
    return UNSET if dropped is None else ContextTrimmedView(dropped=dropped)


def _failure_view(failure: Failure) -> FailureView:
    explanation = EXPLANATIONS[failure.code]
    return FailureView(
        error=failure.code,
        message=explanation.message,
        retryable=explanation.retryable,
        request_id=failure.request_id,
        retry_after_ms=UNSET if failure.retry_after_ms is None else failure.retry_after_ms,
    )


def ui_stream_cursor(key: str, messages: Sequence[Message], hidden: Answer | None = None) -> str:
    """As `stream_cursor`, for a client that is not shown the running answer: the stream sends all of it."""
    running = next((m for m in messages if isinstance(m, Answer) and m.status is Status.STREAMING), hidden)
    return stream_cursor(key, messages, running)


def stream_cursor(key: str, messages: Sequence[Message], hidden: Answer | None = None) -> str:
    """The cursor from which a stream continues after `messages`, the newest messages of the conversation `key`.

    `hidden`: the running answer, if it is not among them; the stream then sends it from its beginning.
    """
    if hidden is not None:
        return str(Cursor(hidden.id, 0))
    if not messages:
        return str(Cursor(key, Cursor.START))
    shown = next((m for m in messages if isinstance(m, Answer) and not m.status.is_final), messages[-1])
    if isinstance(shown, UserMessage):
        return str(Cursor(shown.id, Cursor.USER))
    if not shown.status.is_final:
        return str(Cursor(shown.id, shown.length))
    return str(Cursor(shown.id, Cursor.COMPLETE + len(shown.annotations)))
