"""The events of protocol version 1, and cursors: the names of the places between events.

Every event is one JSON object with `type` and `timestamp` first. A conversation's log is ordered by message (`seq`),
and within an answer by position (see `pieces`): its chunks, then `error`, `llm_complete`, `system` 1 … n.
"""

import re
import time
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from chatstream.errors import EXPLANATIONS, ErrorCode
from chatstream.models import RECOMMENDATION, Answer, Rating, Round, Status, Usage, UserMessage
from chatstream.pieces import CallState, Part, Piece, ReasoningPart, ShownQuestion, TextPart, ToolCallPart, fold


def timestamp(moment: datetime | None = None) -> str:
    """Return `moment` (in UTC) or now as RFC 3339 with milliseconds: ``2026-11-22T10:40:00.123Z``."""
    if moment is not None:
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    """Return the time up to the second. Cached, so made once a second and not for each chunk: 0.4 µs instead of 1.1 µs,
    4 % of the CPU time of a paced chunk."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


Timestamp = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""The format of `timestamp`."""


class Event(Struct, frozen=True, kw_only=True, rename="camel", tag_field="type"):
    """Base of all events; the JSON object's `type` is the subclass's tag."""

    timestamp: Timestamp


class Connected(Event, frozen=True, kw_only=True, tag="connected"):
    """The first event of every accepted stream."""

    conversation_id: str
    resumed: bool
    active_message_id: str | None
    head: str | UnsetType = UNSET  # only with several branches: the last message of the shown branch


class Heartbeat(Event, frozen=True, kw_only=True, tag="heartbeat"):
    """Sent when there was no other event for 15 s (`CHATSTREAM_HEARTBEAT_INTERVAL`): the connection is alive."""


class UserMessagePosted(Event, frozen=True, kw_only=True, tag="user_message"):
    """A new user message. `parent` is sent only if the conversation has several branches: the id of the message before
    this one, null if this is the first. The branch that ends with this message is shown from now on."""

    message_id: str
    content: str
    parent: str | UnsetType | None = UNSET


class Chunk(Event, frozen=True, kw_only=True, tag="llm_chunk"):
    """The next piece of an answer's text. `offset` is the number of code points of text before it."""

    content: str
    message_id: str
    reply_to: str
    attempt: int
    offset: int


class ReasoningChunk(Event, frozen=True, kw_only=True, tag="reasoning_chunk"):
    """The next piece of the model's reasoning. `offset` is the number of code points before it in this part of the
    reasoning; 0 begins a new part."""

    content: str
    message_id: str
    reply_to: str
    attempt: int
    offset: int


class ContextTrimmed(Event, frozen=True, kw_only=True, tag="context_trimmed"):
    """The conversation has become too long for the model. From this answer on, its oldest `dropped` messages are not
    sent to the model."""

    dropped: int
    message_id: str
    reply_to: str
    attempt: int


class ToolCalled(Event, frozen=True, kw_only=True, tag="tool_call"):
    """The model calls a tool. Several events carry the pieces of the `arguments`, which together are JSON text."""

    tool_call_id: str
    name: str
    arguments: str
    message_id: str
    reply_to: str
    attempt: int


class ToolStateChanged(Event, frozen=True, kw_only=True, tag="tool_state"):
    """A tool call has a new state. A client that needs only whole calls can ignore `tool_call`, and read this event and
    `tool_result`.

    `arguments` is complete, and sent with the state `ready`. With `awaiting_input`, the tool asks the user something:
    `message` is the text, `question` has the id and the `schema` of the answer, or the `url` to open. Fields that do
    not apply to the state are left out.
    """

    tool_call_id: str
    name: str
    state: CallState
    message_id: str
    reply_to: str
    attempt: int
    arguments: str | UnsetType = UNSET
    expires_at: Timestamp | UnsetType = UNSET
    decided_by: str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    question: ShownQuestion | UnsetType = UNSET


class ToolEnded(Event, frozen=True, kw_only=True, tag="tool_result"):
    """The result of a tool call: `output` is any JSON value. `failed`: `output` is an error message. `truncated`: the
    result was too large, and `output` is its beginning, as text."""

    tool_call_id: str
    output: Any
    failed: bool
    truncated: bool
    message_id: str
    reply_to: str
    attempt: int


class DataTold(Event, frozen=True, kw_only=True, tag="data"):
    """Data of a plug-in, to be shown at this place in the answer. An event with the same `kind` and `id` replaces the
    earlier one."""

    kind: str
    id: str
    data: Any
    message_id: str
    reply_to: str
    attempt: int


class Complete(Event, frozen=True, kw_only=True, tag="llm_complete"):
    """The answer has ended and is stored. `content` is its whole text. `parts` is sent only if there is more than
    text."""

    content: str
    message_id: str
    reply_to: str
    attempt: int
    status: Status
    finish_reason: str | None
    usage: Usage | None
    parts: tuple[Part, ...] | UnsetType = UNSET
    model: str | UnsetType = UNSET  # the model that answered; sent only if the catalogue has several models
    rounds: tuple[Round, ...] | UnsetType = UNSET  # only after several model requests; `usage` is their sum


class System(Event, frozen=True, kw_only=True, tag="system"):
    """An annotation: a plug-in found something in the answer. A recommendation has no `kind` and no `id`."""

    message: str
    metadata: dict[str, Any]
    kind: str | UnsetType = UNSET
    id: str | UnsetType = UNSET


class BranchShown(Event, frozen=True, kw_only=True, tag="branch"):
    """Another branch of the conversation is shown from now on, to all viewers. It ends with the message `head`, or with
    the newest answer to that message."""

    head: str


class Rated(Event, frozen=True, kw_only=True, tag="rating"):
    """The user has rated the answer `messageId`, on any device. `rating` is null if the user removed the rating."""

    message_id: str
    rating: Rating | None


class Titled(Event, frozen=True, kw_only=True, tag="title"):
    """The conversation has a new title, from the user or from the model."""

    title: str | None


class Withdrawn(Event, frozen=True, kw_only=True, tag="withdrawn"):
    """A queued user message was taken back. No further events about it follow."""

    message_id: str


class Error(Event, frozen=True, kw_only=True, tag="error"):
    """An answer failed (`messageId` is its id), or the connection has a problem (`messageId` is null)."""

    message: str
    error: ErrorCode
    retryable: bool
    request_id: str | None
    message_id: str | None
    retry_after_ms: int | None


AnyEvent = (
    Connected
    | Heartbeat
    | UserMessagePosted
    | BranchShown
    | Rated
    | Titled
    | Withdrawn
    | Chunk
    | ReasoningChunk
    | ToolCalled
    | ToolStateChanged
    | ToolEnded
    | DataTold
    | ContextTrimmed
    | Complete
    | System
    | Error
)

AnyAside = BranchShown | Rated | Titled | Withdrawn

# The most characters of a tool's result that clients are sent: what a card can show. The model gets the whole result.
_SHOWN_CHARACTERS = 16_000


def shown(output: Any) -> tuple[Any, bool]:
    """Return a tool's result for clients, and whether it was cut; a cut result is text."""
    text = output if isinstance(output, str) else msgspec.json.encode(output).decode()
    return (text[:_SHOWN_CHARACTERS], True) if len(text) > _SHOWN_CHARACTERS else (output, False)


def error(
    code: ErrorCode, *, request_id: str | None, message_id: str | None = None, retry_after_ms: int | None = None
) -> Error:
    """An `error` event with the words and the advice that belong to `code`."""
    explanation = EXPLANATIONS[code]
    return Error(
        timestamp=timestamp(),
        message=explanation.message,
        error=code,
        retryable=explanation.retryable,
        request_id=request_id,
        message_id=message_id,
        retry_after_ms=retry_after_ms,
    )


# The text form of a cursor: a number for a chunk, a name for each other position.
_CURSOR = re.compile(r"([0-9a-f]{24})\.(?:([0-9]{1,9})|(start|user|error|complete|system([1-9][0-9]{0,2})))", re.ASCII)


class Cursor(Struct, frozen=True, order=True):
    """A place in a conversation's log: all events up to and including one of them.

    `position` orders the events of one message: where a chunk ends (see `pieces`), then `ERROR`, `COMPLETE`, and
    ``COMPLETE + n`` for the n-th `system` event. `message_id` may be a conversation's key with position `START`: the
    place before its first event. On the wire ``<24 hex digits>.<position>``: a few bytes of ``[A-Za-z0-9._-]``.
    """

    START: ClassVar[int] = -2
    USER: ClassVar[int] = -1
    ERROR: ClassVar[int] = 1_000_000_000  # after all chunks: their positions have at most nine digits
    COMPLETE: ClassVar[int] = ERROR + 1

    message_id: str
    position: int

    def __str__(self) -> str:
        if 0 <= self.position < self.ERROR:
            return f"{self.message_id}.{self.position}"
        name = {self.START: "start", self.USER: "user", self.ERROR: "error", self.COMPLETE: "complete"}.get(
            self.position, f"system{self.position - self.COMPLETE}"
        )
        return f"{self.message_id}.{name}"

    @classmethod
    def parse(cls, text: str) -> "Cursor | None":
        """The cursor a client sent, or None if it is not one of ours (which is never an error)."""
        match = _CURSOR.fullmatch(text)
        if match is None:
            return None
        message_id, digits, name, system = match.groups()
        if digits is not None:
            return cls(message_id, int(digits))
        if system is not None:
            return cls(message_id, cls.COMPLETE + int(system))
        named = {"start": cls.START, "user": cls.USER, "error": cls.ERROR, "complete": cls.COMPLETE}
        return cls(message_id, named[name])


Placed = tuple[Cursor, AnyEvent]
"""An event of the log, with its cursor."""


def posted(message: UserMessage) -> Placed:
    """The event of a user message."""
    event = UserMessagePosted(
        timestamp=timestamp(), message_id=message.id, content=message.content, parent=message.parent
    )
    return Cursor(message.id, Cursor.USER), event


def parts(pieces: Sequence[Piece], *, reasoning: bool) -> tuple[Part, ...]:
    """Return the parts for clients, with or without `reasoning`; none if the answer is text only."""
    told = tuple(_cut(part) for part in fold(pieces) if reasoning or not isinstance(part, ReasoningPart))
    return () if all(isinstance(part, TextPart) for part in told) else told


def _cut(part: Part) -> Part:
    if not isinstance(part, ToolCallPart) or part.output is UNSET:
        return part
    output, truncated = shown(part.output)
    return replace(part, output=output, truncated=True) if truncated else part


def ending(answer: Answer, *, reasoning: bool = True, model: bool = False) -> list[Placed]:
    """Return the events that end a stored answer: `error` if it failed, `llm_complete` unless it failed without
    content, and a `system` event for each annotation. `reasoning`: include the model's reasoning. `model`: name the
    answering model.

    There is no `error` if another attempt follows by itself, since the user need not do anything.
    """
    now = timestamp()
    placed: list[Placed] = []
    failure = answer.failure
    if failure is not None and not answer.begins_again:
        placed.append(
            (
                Cursor(answer.id, Cursor.ERROR),
                error(
                    failure.code,
                    request_id=failure.request_id,
                    message_id=answer.id,
                    retry_after_ms=failure.retry_after_ms,
                ),
            )
        )
    if answer.content or failure is None or any(isinstance(part, ToolCallPart) for part in fold(answer.mixed)):
        complete = Complete(
            timestamp=now,
            content=answer.content,
            message_id=answer.id,
            reply_to=answer.reply_to,
            attempt=answer.attempt,
            status=answer.status,
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            rounds=answer.rounds or UNSET,
            parts=parts(answer.mixed, reasoning=reasoning) or UNSET,
            model=(model and answer.model) or UNSET,
        )
        placed.append((Cursor(answer.id, Cursor.COMPLETE), complete))
    for number, one in enumerate(answer.annotations, start=1):
        found = System(timestamp=now, message=one.message, metadata=one.data)
        if one.kind != RECOMMENDATION:
            found = replace(found, kind=one.kind, id=one.id)
        placed.append((Cursor(answer.id, Cursor.COMPLETE + number), found))
    return placed


def last(answer: Answer) -> Cursor:
    """Return the cursor of the last of the `ending` events; if there is none, the cursor that it would have."""
    placed = ending(answer)
    return placed[-1][0] if placed else Cursor(answer.id, Cursor.COMPLETE)
