"""The UI message stream of the AI SDK, version 1, which its `useChat` reads: one answer is one UI message.

Documented at https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol. In addition, the npm package `ai` ignores comments and
`id:` lines, and stops reading at an `error`. So everything about a failed answer is sent before its `error`.

Versions 5, 6 and 7 of `ai` support different parts, and each fails the whole message on a part that it does not know. A
client that does not name its version gets only parts that all of them know.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from chatstream import events, sse
from chatstream.errors import EXPLANATIONS, ErrorCode
from chatstream.formats.format import Format
from chatstream.models import Annotation, Answer, Message, Status, Usage, UserMessage
from chatstream.pieces import (
    AWAITING,
    BEGINNING,
    CallState,
    ContextTrimmed,
    Data,
    DataPart,
    Kind,
    Mark,
    OpenToolCall,
    Part,
    Piece,
    Place,
    ReasoningPart,
    ShownQuestion,
    TextPart,
    ToolCallPart,
    ToolResult,
    ToolState,
    after,
    at,
    begins_round,
    behind,
    cut,
    fold,
    folded,
)

_TEXT = "text"  # the id of the only text part of a message
_BROKEN_OFF = "Not carried out: the model broke off before it had said what to do."


class Version(Enum):
    """The major version of the npm package `ai` that the client uses."""

    ANY = None
    AI_5 = "5"
    AI_6 = "6"
    AI_7 = "7"

    @property
    def knows_finish_reasons(self) -> bool:
        """Whether it accepts `finishReason`. Version 5 does so only from 5.0.92 on; before, the key alone is an
        error."""
        return self in (Version.AI_6, Version.AI_7)

    @property
    def reads_a_stop_as_abort(self) -> bool:
        """Whether a stopped answer is sent as `abort`. Version 7 has the finish reason `interrupted`, but fails on it
        up to 7.0.140; so it gets `other`."""
        return self in (Version.AI_5, Version.AI_6)

    @property
    def knows_approvals(self) -> bool:
        """Whether it supports approvals. The other versions get them as data, and show their own buttons."""
        return self in (Version.AI_6, Version.AI_7)

    @property
    def knows_decisions(self) -> bool:
        """Whether it accepts somebody else's decision about an approval."""
        return self is Version.AI_7


# Finish reasons: the name in the models' APIs and the name in the AI SDK, which uses "other" for unknown ones.
_FINISH_REASONS = {"stop": "stop", "length": "length", "content_filter": "content-filter", "tool_calls": "tool-calls"}


class UIMessageChunk(Struct, frozen=True, kw_only=True, rename="camel", tag_field="type"):
    """Base of all parts of the stream; the JSON object's `type` is the subclass's tag."""


class AnswerProblem(Struct, frozen=True, kw_only=True, rename="camel"):
    """The error of an answer, for programs; see `events.Error`."""

    code: ErrorCode
    retryable: bool
    request_id: str | None
    retry_after_ms: int | None


class TrimmedContext(Struct, frozen=True, kw_only=True):
    """From this answer on, the oldest `dropped` messages of the conversation are not sent to the model."""

    dropped: int


class BegunMetadata(Struct, frozen=True, kw_only=True, rename="camel"):
    """The metadata of a message that begins."""

    reply_to: str
    attempt: int
    context_trimmed: TrimmedContext | UnsetType = UNSET


class WaitingCall(Struct, frozen=True, kw_only=True, rename="camel"):
    """A tool call that waits for a person's approval, or for the app's result. Its arguments are in the part of the
    call."""

    tool_call_id: str
    tool_name: str
    state: CallState
    expires_at: events.Timestamp | UnsetType = UNSET
    # text for people: what the call will do, or what its tool asks; after a denial, the reason
    message: str | UnsetType = UNSET
    question: ShownQuestion | UnsetType = UNSET


class EndedMetadata(Struct, frozen=True, kw_only=True, rename="camel"):
    """The metadata of a message that has ended, or waits for a decision.

    When a waiting message continues, its status is `streaming`, and the other fields are left out.
    """

    status: Status
    finish_reason: str | UnsetType | None = UNSET  # as the model named it
    usage: Usage | UnsetType | None = UNSET
    error: AnswerProblem | UnsetType | None = UNSET
    waits_for: tuple[WaitingCall, ...] | UnsetType = UNSET  # set once the message has waited
    context_trimmed: TrimmedContext | UnsetType = UNSET


class StartChunk(UIMessageChunk, frozen=True, kw_only=True, tag="start"):
    """A message begins. If the client has it already, it is sent again from its beginning."""

    message_id: str
    message_metadata: BegunMetadata


class TextStartChunk(UIMessageChunk, frozen=True, kw_only=True, tag="text-start"):
    """A text part begins: the first one, or one after another kind of part."""

    id: str = _TEXT


class TextDeltaChunk(UIMessageChunk, frozen=True, kw_only=True, tag="text-delta"):
    """The next piece of the text part."""

    id: str = _TEXT
    delta: str


class TextEndChunk(UIMessageChunk, frozen=True, kw_only=True, tag="text-end"):
    """The text part is complete."""

    id: str = _TEXT


class ReasoningStartChunk(UIMessageChunk, frozen=True, kw_only=True, tag="reasoning-start"):
    """A part of the model's reasoning begins."""

    id: str


class ReasoningDeltaChunk(UIMessageChunk, frozen=True, kw_only=True, tag="reasoning-delta"):
    """The next piece of the reasoning."""

    id: str
    delta: str


class ReasoningEndChunk(UIMessageChunk, frozen=True, kw_only=True, tag="reasoning-end"):
    """This part of the reasoning is complete."""

    id: str


class DataChunk(Struct, frozen=True, kw_only=True):
    """Data of a plug-in, with the type ``data-<kind>``: sent during the answer, or found in it afterwards.

    A later one with the same type and id replaces it. In a message's parts it has the same form.
    """

    type: str
    id: str
    data: Any


class Notice(Struct, frozen=True, kw_only=True):
    """A problem of the connection; see `events.Error`."""

    message: str
    code: ErrorCode


class NoticeChunk(UIMessageChunk, frozen=True, kw_only=True, tag="data-notice"):
    """A problem that does not end the stream. Only `onData` gets it; it is not a part of the message."""

    data: Notice
    transient: bool = True


class MetadataChunk(UIMessageChunk, frozen=True, kw_only=True, tag="message-metadata"):
    """An update of the message's metadata."""

    message_metadata: EndedMetadata


class StepChunk(UIMessageChunk, frozen=True, kw_only=True, tag="start-step"):
    """The model is asked again, with the results of its tool calls. The parts that follow are of this new request."""


class ErrorChunk(UIMessageChunk, frozen=True, kw_only=True, tag="error"):
    """The answer failed, or the connection ends. The text is for people."""

    error_text: str


class FinishChunk(UIMessageChunk, frozen=True, kw_only=True, tag="finish"):
    """The message has ended. `finishReason` is sent if the requested version of `ai` accepts it."""

    finish_reason: str | UnsetType = UNSET
    message_metadata: EndedMetadata


class AbortChunk(UIMessageChunk, frozen=True, kw_only=True, tag="abort"):
    """The message was stopped. Sent if the request asked for version 5 or 6 of `ai`."""


class ToolInputStartChunk(UIMessageChunk, frozen=True, kw_only=True, rename="camel", tag="tool-input-start"):
    """The model calls a tool. `dynamic`: the client need not know the tool. `providerExecuted`: the server carries it
    out."""

    tool_call_id: str
    tool_name: str
    dynamic: bool = True
    provider_executed: bool = True


class ToolInputDeltaChunk(UIMessageChunk, frozen=True, kw_only=True, rename="camel", tag="tool-input-delta"):
    """The next piece of the call's arguments, as JSON text."""

    tool_call_id: str
    input_text_delta: str


class ToolInputAvailableChunk(UIMessageChunk, frozen=True, kw_only=True, rename="camel", tag="tool-input-available"):
    """The call's complete arguments; a string if they are not valid JSON."""

    tool_call_id: str
    tool_name: str
    input: Any
    dynamic: bool = True
    provider_executed: bool = True


class ToolOutputChunk(UIMessageChunk, frozen=True, kw_only=True, rename="camel", tag="tool-output-available"):
    """The call's result. Of a large result, its beginning as text."""

    tool_call_id: str
    output: Any
    dynamic: bool = True
    provider_executed: bool = True


class ToolErrorChunk(UIMessageChunk, frozen=True, kw_only=True, rename="camel", tag="tool-output-error"):
    """The call has failed, was not carried out, or its outcome is unknown."""

    tool_call_id: str
    error_text: str
    dynamic: bool = True
    provider_executed: bool = True


class ApprovalRequestChunk(UIMessageChunk, frozen=True, kw_only=True, rename="camel", tag="tool-approval-request"):
    """For `ai` 6 and 7: the call waits for a person's approval. The approval has the id of the call."""

    approval_id: str
    tool_call_id: str


class ApprovalResponseChunk(UIMessageChunk, frozen=True, kw_only=True, rename="camel", tag="tool-approval-response"):
    """For `ai` 7: a person has approved or denied the call, maybe on another device."""

    approval_id: str
    approved: bool
    reason: str | UnsetType = UNSET


class ToolDeniedChunk(UIMessageChunk, frozen=True, kw_only=True, rename="camel", tag="tool-output-denied"):
    """For `ai` 6 and 7: the call is not carried out, because a person denied it."""

    tool_call_id: str


class ApprovalChunk(UIMessageChunk, frozen=True, kw_only=True, tag="data-approval"):
    """A call that waits for approval, for clients without approvals: `ai` 5, or an unknown version. Sent again with the
    decision."""

    id: str
    data: WaitingCall


AnyChunk = (
    ToolInputStartChunk
    | StepChunk
    | ApprovalRequestChunk
    | ApprovalResponseChunk
    | ToolDeniedChunk
    | ApprovalChunk
    | ToolInputDeltaChunk
    | ToolInputAvailableChunk
    | ToolOutputChunk
    | ToolErrorChunk
    | StartChunk
    | TextStartChunk
    | TextDeltaChunk
    | TextEndChunk
    | ReasoningStartChunk
    | ReasoningDeltaChunk
    | ReasoningEndChunk
    | NoticeChunk
    | MetadataChunk
    | ErrorChunk
    | FinishChunk
    | AbortChunk
)


class UIPart(Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of a message's parts; the JSON object's `type` is the subclass's tag."""


class UITextPart(UIPart, frozen=True, kw_only=True, tag="text"):
    """Text of the message: all of it, or the text between two other parts."""

    text: str


class UIStepPart(UIPart, frozen=True, kw_only=True, tag="step-start"):
    """The model was asked again, with the results of its tool calls."""


class UIReasoningPart(UIPart, frozen=True, kw_only=True, tag="reasoning"):
    """The model's reasoning."""

    text: str


# The tool states of the SDK. Only `ai` 6 and 7 know the last three.
_ToolPartState = Literal[
    "input-streaming",
    "input-available",
    "output-available",
    "output-error",
    "approval-requested",
    "approval-responded",
    "output-denied",
]


class UIApproval(Struct, frozen=True, kw_only=True, rename="camel"):
    """An approval of a call: requested, or already decided."""

    id: str
    approved: bool | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class UIToolPart(UIPart, frozen=True, kw_only=True, rename="camel", tag="dynamic-tool"):
    """A tool call and its result."""

    tool_name: str
    tool_call_id: str
    state: _ToolPartState
    input: Any
    approval: UIApproval | UnsetType = UNSET
    output: Any = UNSET
    error_text: str | UnsetType = UNSET
    provider_executed: bool = True


class AnswerMetadata(EndedMetadata, frozen=True, kw_only=True, rename="camel"):
    """The metadata that a stream sends at the beginning and at the end of an answer."""

    reply_to: str
    attempt: int


class UserMetadata(Struct, frozen=True, kw_only=True, rename="camel"):
    """The server's metadata of a user message. A message with metadata is stored."""

    created_at: events.Timestamp


class UIUserMessage(Struct, frozen=True, kw_only=True, tag_field="role", tag="user"):
    """A user message. `id` is its `clientMessageId` if it has one, so sending it again stores no second message."""

    id: str
    parts: tuple[UITextPart, ...]
    metadata: UserMetadata


# Decodes a UITextPart, UIReasoningPart or DataChunk. msgspec cannot tell them apart as a union, since a plug-in names
# the types of its data.
_PART = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {"type": "string", "pattern": "^(text|reasoning|step-start|dynamic-tool|data-.+)$"},
        "text": {"type": "string"},
        "id": {"type": "string"},
        "data": {},
    },
}


class UIAnswer(Struct, frozen=True, kw_only=True, tag_field="role", tag="assistant"):
    """An answer that has ended, as its stream leaves it behind."""

    id: str
    parts: tuple[Annotated[Any, Meta(extra_json_schema=_PART)], ...]
    metadata: AnswerMetadata


UIMessage = UIUserMessage | UIAnswer


class UIMessageStream(Format):
    """The format for the AI SDK. Without a cursor, or with one before the answer, the stream is a whole message;
    otherwise it is the rest of the message."""

    name = "ui-message-stream"
    summary = "the AI SDK's, from its version 5 on, for its `useChat`; a stream is one answer"
    headers: Mapping[str, str] = {"x-vercel-ai-ui-message-stream": "v1"}
    one_answer = True
    data = AnyChunk
    end = "[DONE]"
    _done = b"data: %b\n\n" % end.encode()

    def __init__(self, version: Version = Version.ANY, *, reasoning: bool = True) -> None:
        """`version` is the client's. `reasoning`: the model's reasoning is sent."""
        self._version = version
        self._reasoning = reasoning

    def connected(self, event: events.Connected, retry_ms: int) -> bytes:
        """Send a comment, so that the response headers are sent: there may be no answer yet."""
        return b": stream-open\n\n"

    def heartbeat(self) -> bytes:
        """Send a comment, the same as the AI SDK's own servers do."""
        return b": keep-alive\n\n"

    def posted(self, message: UserMessage) -> bytes:
        """Send nothing: the client that posted the message has it, and a stream is one answer."""
        return b""

    def chunks(self, answer: Answer, pieces: Sequence[Piece], at: Place, now: str, *, waits: bool = False) -> bytes:
        """Send a delta for each string, between the start and the end of its part; `start` comes before the first one.

        The frames of a mark are one step to resume from, so only the last of them has a cursor. The same holds for the
        calls that a message waits for, and for `finish`: after a decision, another stream continues the message.
        """
        if answer.begins_again:
            return b""  # a message cannot withdraw text; the next attempt's stream has all of its own
        prefix = answer.id.encode()
        frames = [sse.frame(_start(answer, pieces))] if at.position == 0 else []
        for number, piece in enumerate(pieces, start=1):
            place, at = at, after(at, piece)
            cursor = b"%b.%d" % (prefix, at.position)
            if not isinstance(piece, str):
                told = self._told(place, piece, at)
                frames += [sse.frame(chunk) for chunk in told[:-1]]
                if told and waits and number == len(pieces):
                    frames.append(sse.frame(told[-1]))
                elif told:
                    frames.append(sse.placed(cursor, told[-1]))
            elif place.call is not None:
                delta = ToolInputDeltaChunk(tool_call_id=place.call.id, input_text_delta=piece)
                frames.append(sse.placed(cursor, delta))
            elif self._shows(place):
                if not self._is_open(place):
                    frames.append(sse.frame(_start_of(place)))
                frames.append(sse.placed(cursor, _delta_of(place, piece)))
        if waits:
            reason = "tool-calls" if self._version.knows_finish_reasons else UNSET
            waiting = structs.replace(_ended(answer), status=Status.WAITING, waits_for=_waits_for(at))
            finish = FinishChunk(finish_reason=reason, message_metadata=waiting)
            frames += [sse.placed(b"%b.%d" % (prefix, at.position), finish), self._done]
        return b"".join(frames)

    def _told(self, place: Place, mark: Mark, behind: Place) -> list[UIMessageChunk | DataChunk]:
        """Return the chunks for a mark, which stands between these two places."""
        told: list[UIMessageChunk | DataChunk] = []
        if self._is_open(place) and (behind.parted or behind.offset == 0):
            told.append(_end_of(place))
        if begins_round(place, mark):
            told.append(StepChunk())
        if len(behind.awaited) < len(place.awaited):
            goes_on = EndedMetadata(status=Status.STREAMING, waits_for=_waits_for(behind))
            told.append(MetadataChunk(message_metadata=goes_on))
        told += [_data(mark)] if isinstance(mark, Data) else _marked(mark, self._version)
        return told

    def _is_open(self, place: Place) -> bool:
        """Whether the part at this place is sent to clients and may continue."""
        return place.offset > 0 and not place.parted and self._shows(place)

    def _shows(self, place: Place) -> bool:
        return place.kind is Kind.TEXT or (place.kind is Kind.REASONING and self._reasoning)

    def ending(self, answer: Answer, position: int) -> bytes:
        """Send the rest of the answer, its annotations, `error` if it failed, and `finish`.

        All of it is one step to resume from. If another attempt follows and nothing of this one was sent, nothing is
        sent.
        """
        last = events.last(answer)
        if position >= last.position:
            return b""
        pieces = answer.pieces
        if answer.begins_again:
            place = at(pieces, position)
            open_ = self._is_open(place) or not pieces
            closed = sse.frame(_end_of(place)) if open_ else b""
            return closed + self._end(answer, last) + self._done if position else b""
        frames = []
        if rest := cut(pieces, position):
            frames.append(self.chunks(answer, rest, at(pieces, position), now=""))
        elif position == 0:
            frames.append(sse.frame(_start(answer, pieces)))
        end = at(pieces, answer.length)
        if self._is_open(end) or (position and not pieces):
            frames.append(sse.frame(_end_of(end)))
        frames += [sse.frame(chunk) for part in fold(answer.mixed) for chunk in _unfinished(part)]
        frames += [sse.frame(_data(one)) for one in answer.annotations]
        if answer.failure is not None:
            frames.append(sse.frame(MetadataChunk(message_metadata=_ended(answer))))
            frames.append(sse.frame(ErrorChunk(error_text=EXPLANATIONS[answer.failure.code].message)))
        frames.append(self._end(answer, last))
        return b"".join(frames) + self._done

    def _end(self, answer: Answer, cursor: events.Cursor) -> bytes:
        ended = _ended(answer)
        if answer.status is Status.STOPPED and self._version.reads_a_stop_as_abort:
            return sse.frame(MetadataChunk(message_metadata=ended)) + sse.frame(AbortChunk(), cursor)
        reason = _finish_reason(answer) if self._version.knows_finish_reasons else UNSET
        return sse.frame(FinishChunk(finish_reason=reason, message_metadata=ended), cursor)

    def error(self, event: events.Error, retry_ms: int | None) -> bytes:
        """Send `error` if the stream ends with it, otherwise `data-notice`: a client stops reading at an error."""
        if retry_ms is None:
            return sse.frame(NoticeChunk(data=Notice(message=event.message, code=event.error)))
        return sse.frame(ErrorChunk(error_text=event.message)) + self._done


def ui_messages(
    messages: Iterable[Message], *, reasoning: bool = True, version: Version = Version.ANY
) -> list[UIMessage]:
    """Return a history in the format of this version: the newest of several attempts, and no running answer.

    A running answer's stream sends all of it, so it would be shown twice. An answer that waits is included: its stream
    continues after a decision. `reasoning`: the model's reasoning is included.
    """
    newest: dict[str, UIMessage] = {}  # by id of the answered message, which reserves the answer's place in the order
    for message in messages:
        if isinstance(message, UserMessage):
            newest[message.id] = _ui_user_message(message)
        elif message.status is not Status.STREAMING:
            newest[f"answer to {message.reply_to}"] = _ui_answer(message, reasoning=reasoning, version=version)
    return list(newest.values())


def _ui_user_message(message: UserMessage) -> UIUserMessage:
    return UIUserMessage(
        id=message.client_message_id or message.id,
        parts=(UITextPart(text=message.content),),
        metadata=UserMetadata(created_at=events.timestamp(message.created_at)),
    )


def _ui_answer(answer: Answer, *, reasoning: bool, version: Version) -> UIAnswer:
    parts: list[UITextPart | UIReasoningPart | UIToolPart | UIStepPart | DataChunk | ApprovalChunk] = []
    # In versions that send approvals as data, the approvals of a round come after all of its calls.
    asked = {} if version.knows_approvals else _asked(answer.pieces)
    number = 0
    for of, part in folded(answer.pieces):
        for _ in range(number, of):
            parts += [*asked.pop(number, {}).values(), UIStepPart()]
            number += 1
        if isinstance(part, TextPart):
            parts.append(UITextPart(text=part.text))
        elif isinstance(part, ReasoningPart) and reasoning:
            parts.append(UIReasoningPart(text=part.text))
        elif isinstance(part, DataPart):
            parts.append(_data(part))
        elif isinstance(part, ToolCallPart):
            parts.append(_ui_tool(part, version))
    parts += asked.pop(number, {}).values()
    # A message needs a part to be valid: the SDK checks a history for that.
    parts = parts or [UITextPart(text="")]
    parts += [_data(one) for one in answer.annotations]
    ended = _ended(answer)
    if answer.status is Status.WAITING:
        ended = structs.replace(ended, waits_for=_waits_for(behind(BEGINNING, answer.pieces)))
    return UIAnswer(
        id=answer.id,
        parts=tuple(parts),
        metadata=AnswerMetadata(reply_to=answer.reply_to, attempt=answer.attempt, **structs.asdict(ended)),
    )


def _asked(pieces: Sequence[Piece]) -> dict[int, dict[str, ApprovalChunk]]:
    """Return, by round, the newest state of each approval that was requested in it."""
    found: dict[int, dict[str, ApprovalChunk]] = {}
    number, place = 0, BEGINNING
    for piece in pieces:
        number += begins_round(place, piece)
        place = after(place, piece)
        if isinstance(piece, ToolState):
            for chunk in _marked(piece, Version.ANY):
                if isinstance(chunk, ApprovalChunk):
                    found.setdefault(number, {})[piece.id] = chunk
    return found


def _ui_tool(part: ToolCallPart, version: Version) -> UIToolPart:
    state: _ToolPartState = "output-error"
    output: Any = UNSET
    error: str | UnsetType = UNSET
    approval: UIApproval | UnsetType = UNSET
    if version.knows_approvals and part.decided_by is not None and part.state is not CallState.DENIED:
        approval = UIApproval(id=part.tool_call_id, approved=True)
    if version.knows_approvals and part.state in _APPROVALS:
        state, approved = _APPROVALS[part.state]
        reason = UNSET if approved is UNSET else part.message or UNSET  # before the decision, `message` is the question
        approval = UIApproval(id=part.tool_call_id, approved=approved, reason=reason)
    elif part.state is None:
        error = _BROKEN_OFF
    elif part.state is CallState.UNKNOWN:
        error = part.message or ""
    elif part.output is not UNSET and part.failed:
        error = _words(events.shown(part.output)[0])
    elif part.output is not UNSET:
        state, output = "output-available", events.shown(part.output)[0]
    else:
        state = "input-available"
    return UIToolPart(
        tool_name=part.name,
        tool_call_id=part.tool_call_id,
        state=state,
        input=_input(part.arguments),
        approval=approval,
        output=output,
        error_text=error,
        provider_executed=part.state is not CallState.AWAITING_CLIENT,
    )


_APPROVALS: Mapping[CallState | None, tuple[_ToolPartState, bool | UnsetType]] = {
    CallState.AWAITING_APPROVAL: ("approval-requested", UNSET),
    CallState.APPROVED: ("approval-responded", True),
    CallState.DENIED: ("output-denied", False),
}


def _part_id(place: Place) -> str:
    """Return the id of the part that is open at `place`; the only part of a text-only answer is `text`."""
    return _TEXT if place.kind is Kind.TEXT and place.number == 0 else f"{place.kind.value}-{place.number}"


def _start_of(place: Place) -> TextStartChunk | ReasoningStartChunk:
    part = _part_id(place)
    return TextStartChunk(id=part) if place.kind is Kind.TEXT else ReasoningStartChunk(id=part)


def _delta_of(place: Place, text: str) -> TextDeltaChunk | ReasoningDeltaChunk:
    part = _part_id(place)
    return TextDeltaChunk(id=part, delta=text) if place.kind is Kind.TEXT else ReasoningDeltaChunk(id=part, delta=text)


def _end_of(place: Place) -> TextEndChunk | ReasoningEndChunk:
    part = _part_id(place)
    return TextEndChunk(id=part) if place.kind is Kind.TEXT else ReasoningEndChunk(id=part)


def _data(one: Annotation | Data | DataPart) -> DataChunk:
    return DataChunk(type=f"data-{one.kind}", id=one.id, data=one.data)


def _waiting_call(mark: ToolState) -> WaitingCall:
    return WaitingCall(
        tool_call_id=mark.id,
        tool_name=mark.name,
        state=mark.state,
        expires_at=mark.expires_at or UNSET,
        message=mark.message or UNSET,
        question=mark.shown_question,
    )


def _waits_for(place: Place) -> tuple[WaitingCall, ...]:
    return tuple(_waiting_call(mark) for mark in place.awaited)


def _unfinished(part: Part) -> list[UIMessageChunk]:
    """Return the end of a call whose arguments are incomplete in an ended answer: no part may stay open."""
    if not isinstance(part, ToolCallPart) or part.state is not None:
        return []
    given = _input(part.arguments)
    return [
        ToolInputAvailableChunk(tool_call_id=part.tool_call_id, tool_name=part.name, input=given),
        ToolErrorChunk(tool_call_id=part.tool_call_id, error_text=_BROKEN_OFF),
    ]


def _marked(mark: Mark, version: Version) -> list[UIMessageChunk]:
    """Return the chunks for a mark by itself."""
    match mark:
        case OpenToolCall():
            return [ToolInputStartChunk(tool_call_id=mark.id, tool_name=mark.name)]
        case ToolState(state=CallState.READY):
            given = _input(mark.arguments or "")
            return [ToolInputAvailableChunk(tool_call_id=mark.id, tool_name=mark.name, input=given)]
        case ToolState(state=CallState.AWAITING_CLIENT):  # the call is sent again, now for the app to carry out
            given = _input(mark.arguments or "")
            return [
                ToolInputAvailableChunk(tool_call_id=mark.id, tool_name=mark.name, input=given, provider_executed=False)
            ]
        case ToolState(state=CallState.AWAITING_APPROVAL) if version.knows_approvals:
            return [ApprovalRequestChunk(approval_id=mark.id, tool_call_id=mark.id)]
        case ToolState(state=CallState.APPROVED | CallState.DENIED) if version.knows_approvals:
            approved = mark.state is CallState.APPROVED
            response = ApprovalResponseChunk(approval_id=mark.id, approved=approved, reason=mark.message or UNSET)
            return [response] if version.knows_decisions else []
        case ToolState(
            state=CallState.AWAITING_APPROVAL | CallState.APPROVED | CallState.DENIED | CallState.EXPIRED
        ) if not version.knows_approvals and mark.question_id is None:
            return [ApprovalChunk(id=mark.id, data=_waiting_call(mark))]
        case ToolResult(because=CallState.DENIED) if version.knows_approvals:
            return [ToolDeniedChunk(tool_call_id=mark.id)]
        case ToolState(state=CallState.UNKNOWN):
            return [ToolErrorChunk(tool_call_id=mark.id, error_text=mark.message or "")]
        case ToolResult(failed=True):
            return [ToolErrorChunk(tool_call_id=mark.id, error_text=_words(events.shown(mark.output)[0]))]
        case ToolResult():
            return [ToolOutputChunk(tool_call_id=mark.id, output=events.shown(mark.output)[0])]
    return []


def _input(arguments: str) -> Any:
    try:
        return msgspec.json.decode(arguments.strip() or "{}")
    except (ValueError, RecursionError):
        return arguments


def _words(output: Any) -> str:
    return output if isinstance(output, str) else msgspec.json.encode(output).decode()


def _start(answer: Answer, pieces: Sequence[Piece]) -> StartChunk:
    begun = BegunMetadata(reply_to=answer.reply_to, attempt=answer.attempt, context_trimmed=_trimmed(pieces))
    return StartChunk(message_id=answer.id, message_metadata=begun)


def _trimmed(pieces: Sequence[Piece]) -> TrimmedContext | UnsetType:
    return next((TrimmedContext(dropped=one.dropped) for one in pieces if isinstance(one, ContextTrimmed)), UNSET)


def _ended(answer: Answer) -> EndedMetadata:
    failure = answer.failure
    problem = None
    if failure is not None and not answer.begins_again:
        problem = AnswerProblem(
            code=failure.code,
            retryable=EXPLANATIONS[failure.code].retryable,
            request_id=failure.request_id,
            retry_after_ms=failure.retry_after_ms,
        )
    return EndedMetadata(
        status=answer.status,
        finish_reason=answer.finish_reason,
        usage=answer.usage,
        error=problem,
        waits_for=() if any(isinstance(one, ToolState) and one.state in AWAITING for one in answer.mixed) else UNSET,
        context_trimmed=_trimmed(answer.mixed),
    )


def _finish_reason(answer: Answer) -> str:
    if answer.status is Status.COMPLETE:
        return _FINISH_REASONS.get(answer.finish_reason or "", "other")
    return "error" if answer.status is Status.FAILED else "other"
