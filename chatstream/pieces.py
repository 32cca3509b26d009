"""The data model of an answer: an append-only sequence of pieces, and positions in it.

A piece is either a string, which continues the open part, or a mark, which opens a part or is an event by itself. A
string counts its code points, a mark counts one. So a position is one integer for every kind of answer; in a text-only
answer it is the number of code points.

    (nothing)          text is open: the first piece may be a string
    OpenText           opens a text part, after something else
    OpenReasoning      opens a part of the model's thinking
    OpenToolCall       opens a call; the strings that follow are its arguments, as JSON text
    ToolState          the call's state has changed; opens nothing
    ToolResult         the call has ended; opens nothing
    Data               an event of a plug-in's; opens nothing
    ContextTrimmed     older messages are left out for the model from here on; opens nothing

A mark that opens nothing leaves the open part open: a string after `Data` continues the text before it. Clients show
that text below the data, unless the data only replaced an earlier item.

All functions here are pure. Pieces are stored; `Part`s are shown to people and models. Parts are built when an answer
is read, and never stored, since they have no positions.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, TypeGuard

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace


class _Mark(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, tag_field="mark"):
    """Base class of all marks. The `mark` field of the stored object is the subclass's tag."""


class OpenText(_Mark, frozen=True, kw_only=True, tag="text"):
    """Opens a text part."""


class OpenReasoning(_Mark, frozen=True, kw_only=True, tag="reasoning"):
    """Opens a part of the model's reasoning."""


class OpenToolCall(_Mark, frozen=True, kw_only=True, tag="tool_call"):
    """Opens a call of the tool `name`. `id` is assigned by this server, and unique.

    `extra` is JSON text from the model's endpoint, which must be sent back with the call (Gemini's thought signature);
    never sent to clients.
    """

    id: str
    name: str
    extra: str | None = None


class Effect(StrEnum):
    """The effect of running a tool a second time."""

    NONE = "none"  # no effect: the tool only reads
    IDEMPOTENT = "idempotent"  # no effect, if the key is the same
    ONCE = "once"  # the action happens twice


class CallState(StrEnum):
    """The state of a tool call. The last two are final: the outcome is known, or unknown."""

    READY = "ready"  # its arguments are complete
    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"  # nobody decided in time
    AWAITING_CLIENT = "awaiting_client"  # the app is to answer
    RUNNING = "running"
    AWAITING_INPUT = "awaiting_input"  # the tool asks the user something
    ANSWERED = "answered"  # the user has answered that: the call goes on
    DONE = "done"  # there is a result, of whichever kind
    UNKNOWN = "unknown"  # it may have had its effect; nobody knows


AWAITING = (CallState.AWAITING_APPROVAL, CallState.AWAITING_CLIENT, CallState.AWAITING_INPUT)
"""Somebody is to decide about the call, or to answer it."""


class Question(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a tool asks the user. `schema` is the JSON Schema of the answer, an object, as JSON text.

    With a `url` there is no schema: the user is asked to open that page, and agrees or not.
    """

    message: str
    schema: str | None = None
    url: str | None = None


class ShownQuestion(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A question as clients get it, beside the `message` of the call's state. `id`: unique in its call."""

    id: str
    schema: Any = UNSET
    url: str | UnsetType = UNSET


class ToolState(_Mark, frozen=True, kw_only=True, tag="tool_state"):
    """The call `id` has changed its state. `expires_at` is RFC 3339; `message` is text for people.

    `arguments` is the whole JSON text; set with `READY`, and when a person must decide or the app must answer. `effect`
    is set with `RUNNING`: after a crash, it says what running the call again would mean, even if the tool is gone.

    With `AWAITING_INPUT`: the `question`, those that the tool asks after it (`rest`), what the tool needs to go on
    (`carry`), and the process that keeps the call open meanwhile, if one does (`held_by`). The last two are never sent
    to clients. With `ANSWERED`: the `answer`, as JSON text.
    """

    id: str
    state: CallState
    name: str = ""
    arguments: str | None = None
    effect: Effect | None = None
    expires_at: str | None = None
    decided_by: str | None = None
    message: str | None = None
    question_id: str | None = None
    question: Question | None = None
    rest: tuple[Question, ...] = ()
    carry: str | None = None
    held_by: str | None = None
    answer: str | None = None

    @property
    def shown_question(self) -> ShownQuestion | UnsetType:
        """The question, if there is one, in the form for clients."""
        asked = self.question
        if asked is None or self.question_id is None:
            return UNSET
        schema = UNSET if asked.schema is None else msgspec.json.decode(asked.schema)
        return ShownQuestion(id=self.question_id, schema=schema, url=asked.url or UNSET)


class ToolResult(_Mark, frozen=True, kw_only=True, tag="tool_result"):
    """The call `id` has ended with `output`, which may be any JSON; `failed` if that is an error text.

    `because` is `DENIED` or `EXPIRED` if that is why the call did not run: clients get this without the earlier states.
    """

    id: str
    output: Any
    failed: bool = False
    because: CallState | None = None


class Data(_Mark, frozen=True, kw_only=True, tag="data"):
    """An item of a plug-in to show. The same `kind` and `id` again replaces the earlier item."""

    kind: str
    id: str
    data: Any


class ContextTrimmed(_Mark, frozen=True, kw_only=True, tag="context_trimmed"):
    """The oldest `dropped` messages of the conversation are not sent to the model from this answer on."""

    dropped: int


Mark = OpenText | OpenReasoning | OpenToolCall | ToolState | ToolResult | Data | ContextTrimmed
Piece = str | Mark


class Kind(StrEnum):
    """The kind of a part, which its strings belong to."""

    TEXT = "text"
    REASONING = "reasoning"
    TOOL_CALL = "tool_call"


class Place(Struct, frozen=True, kw_only=True):
    """The state at a position: all that is needed to continue from there.

    Lengths are in code points.
    """

    position: int = 0
    kind: Kind = Kind.TEXT  # the kind of the open part
    number: int = 0  # the index of the open part
    offset: int = 0  # code points in the open part so far
    text: int = 0  # code points of visible text so far
    call: OpenToolCall | None = None  # the open part, if it is a call
    data: frozenset[tuple[str, str]] = frozenset()  # the kind and id of each `Data` so far
    parted: bool = False  # new `Data` follows the open part's text: more text of the part is shown below it
    whole: bool = False  # the model has finished this round: a part that opens now begins a new one
    awaited: "tuple[ToolState, ...]" = ()  # the newest state of each call that waits for a decision or an answer


BEGINNING = Place()


def after(place: Place, piece: Piece) -> Place:
    """Return the place after `piece`."""
    if isinstance(piece, str):
        return further(place, len(piece))
    position = place.position + 1
    kind = _opens(piece)
    if isinstance(piece, Data) and (key := (piece.kind, piece.id)) not in place.data:
        return replace(place, position=position, data=place.data | {key}, parted=True)
    if isinstance(piece, ToolState | ToolResult):
        awaited = tuple(one for one in place.awaited if one.id != piece.id)
        if isinstance(piece, ToolState) and piece.state in AWAITING:
            awaited = (*awaited, piece)
        return replace(place, position=position, whole=place.whole or isinstance(piece, ToolState), awaited=awaited)
    if kind is None:
        return replace(place, position=position)
    # At the very beginning a text part is open but empty: it does not count as a part.
    number = place.number + 1 if place.position else 0
    call = piece if isinstance(piece, OpenToolCall) else None
    return Place(
        position=position,
        kind=kind,
        number=number,
        text=place.text,
        call=call,
        data=place.data,
        awaited=place.awaited,
    )


def begins_round(place: Place, piece: Piece) -> bool:
    """Whether `piece`, which stands at `place`, begins a new round: the model was asked again before it."""
    return place.whole and not isinstance(piece, str) and _opens(piece) is not None


def further(place: Place, length: int) -> Place:
    """Return the place after strings of `length` code points in total."""
    return replace(
        place,
        position=place.position + length,
        offset=place.offset + length,
        text=place.text + length if place.kind is Kind.TEXT else place.text,
        parted=place.parted and not length,
    )


def behind(place: Place, pieces: Sequence[Piece]) -> Place:
    """Return the place after all of `pieces`."""
    if (strings := joined(pieces)) is not None:  # the usual case, for each network read: one step for all strings
        return further(place, len(strings))
    for piece in pieces:
        place = after(place, piece)
    return place


def at(pieces: Iterable[Piece], position: int) -> Place:
    """Return the place at `position`, or at the end of `pieces` if that comes first."""
    place = BEGINNING
    for piece in pieces:
        left = position - place.position
        if left <= 0:
            break
        place = after(place, piece[:left] if isinstance(piece, str) else piece)
    return place


def size(pieces: Iterable[Piece]) -> int:
    """Return the position of the end: code points of strings plus one for each mark."""
    return sum(len(piece) if isinstance(piece, str) else 1 for piece in pieces)


def weight(pieces: Iterable[Piece]) -> int:
    """Return roughly how many characters it takes to store the pieces, including the contents of marks (unlike
    `size`)."""
    characters = 0
    for piece in pieces:
        if isinstance(piece, str):
            characters += len(piece)
        elif isinstance(piece, ToolResult | Data):
            characters += len(msgspec.json.encode(piece))
        elif isinstance(piece, OpenToolCall):
            characters += 50 + len(piece.extra or "")
        else:
            characters += 50 + (_held(piece) if isinstance(piece, ToolState) else 0)
    return characters


def _held(mark: ToolState) -> int:
    """Return the characters that a state holds."""
    asked = 0 if mark.question is None else len(msgspec.json.encode((mark.question, *mark.rest)))
    return asked + len(mark.arguments or "") + len(mark.carry or "") + len(mark.answer or "")


def cut(pieces: Iterable[Piece], begin: int, end: int | None = None) -> list[Piece]:
    """Return the pieces between two positions. A string across a boundary is cut at the code point. The result
    has no empty strings."""
    kept: list[Piece] = []
    position = 0
    for piece in pieces:
        if end is not None and position >= end:
            break
        length = len(piece) if isinstance(piece, str) else 1
        if length and position + length > begin:
            if isinstance(piece, str):
                piece = piece[max(begin - position, 0) : None if end is None else end - position]
            kept.append(piece)
        position += length
    return kept


def up_to_text(pieces: Iterable[Piece], length: int) -> list[Piece]:
    """Return the pieces before code point `length` of the visible text; all pieces if the text is shorter.

    Tool calls after that point are kept: they were carried out, whether or not anybody had read that far.
    """
    kept: list[Piece] = []
    place = BEGINNING
    over = False
    for piece in pieces:
        before, place = place, after(place, piece)
        if over:
            if (before.kind is Kind.TOOL_CALL and isinstance(piece, str)) or isinstance(
                piece, OpenToolCall | ToolState | ToolResult
            ):
                kept.append(piece)
        elif isinstance(piece, str) and before.kind is Kind.TEXT and place.text > length:
            over = True
            if seen := piece[: length - before.text]:
                kept.append(seen)
            elif kept and isinstance(kept[-1], OpenText):
                kept.pop()  # an empty text part
        else:
            kept.append(piece)
    return kept


def whole_rounds(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """Return the beginning of an answer, up to the last state or result of a call. Another attempt continues from
    there.

    A model's output is stored before its calls get states. So this beginning includes all of that output.
    """
    marks = (index for index in range(len(pieces), 0, -1) if isinstance(pieces[index - 1], ToolState | ToolResult))
    return pieces[: next(marks, 0)]


def join(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces with neighbouring strings joined and empty strings removed."""
    if (strings := joined(pieces)) is not None:  # the usual case, for each checkpoint
        return [strings] if strings else []
    made: list[Piece] = []
    run: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            run.append(piece)
            continue
        if whole := "".join(run):
            made.append(whole)
        run = []
        made.append(piece)
    if whole := "".join(run):
        made.append(whole)
    return made


def text(pieces: Sequence[Piece], place: Place = BEGINNING) -> str:
    """Return the visible text of `pieces`, which continue from `place`: what a client without support for parts
    shows."""
    kind = place.kind
    if (strings := joined(pieces)) is not None:
        return strings if kind is Kind.TEXT else ""
    visible: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            if kind is Kind.TEXT:
                visible.append(piece)
        else:
            kind = _opens(piece) or kind
    return "".join(visible)


def spaced(place: Place, pieces: Iterable[Piece]) -> list[Piece]:
    """Return `pieces`, which continue from `place`, with a blank line before each text part that follows other text.

    So the visible text is readable in clients without support for parts.
    """
    made: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and place.kind is Kind.TEXT and place.text and not place.offset:
            begun = len(piece) - len(piece.lstrip("\n"))
            piece = "\n\n"[begun:] + piece
        made.append(piece)
        place = after(place, piece)
    return made


def without_reasoning(pieces: Iterable[Piece]) -> list[Piece]:
    """Return the pieces without reasoning, for clients that must not see it. Positions in the result are not those in
    `pieces`."""
    kept: list[Piece] = []
    kind = Kind.TEXT
    for piece in pieces:
        if not isinstance(piece, str):
            kind = _opens(piece) or kind
        if kind is not Kind.REASONING or not isinstance(piece, str | OpenReasoning):
            kept.append(piece)
    return kept


def without_secrets(pieces: Iterable[Piece]) -> list[Piece]:
    """Return the pieces without what only this server and others need to go on with a call: no client may see it."""
    return [_without_secrets(piece) for piece in pieces]


def _without_secrets(piece: Piece) -> Piece:
    match piece:
        case OpenToolCall():
            return replace(piece, extra=None)
        case ToolState():
            return replace(piece, carry=None, held_by=None)
    return piece


def joined(pieces: Sequence[Piece]) -> str | None:
    """Return the pieces as one string if all of them are strings, otherwise None.

    Joining is the fastest check of all types: 7 ns for each piece, a quarter of the time of looking at each type.
    """
    try:
        return "".join(pieces)  # type: ignore[arg-type]  # a mark raises the TypeError
    except TypeError:
        return None


def is_text(pieces: Sequence[Piece]) -> TypeGuard[Sequence[str]]:
    """Whether all pieces are strings."""
    return joined(pieces) is not None


def has(kind: type[Mark], pieces: Sequence[Piece]) -> bool:
    """Whether there is a mark of this kind."""
    return not is_text(pieces) and kind in map(type, pieces)


def _opens(mark: Mark) -> Kind | None:
    match mark:
        case OpenText():
            return Kind.TEXT
        case OpenReasoning():
            return Kind.REASONING
        case OpenToolCall():
            return Kind.TOOL_CALL
        case _:
            return None


# Parts ----------------------------------------------------------------------------------------------------------------


class _Part(Struct, frozen=True, kw_only=True, rename="camel", tag_field="type"):
    """Base of all parts; the JSON object's `type` is the subclass's tag."""


class TextPart(_Part, frozen=True, kw_only=True, tag="text"):
    """A part of the answer's text."""

    text: str


class ReasoningPart(_Part, frozen=True, kw_only=True, tag="reasoning"):
    """A part of the model's reasoning."""

    text: str


class ToolCallPart(_Part, frozen=True, kw_only=True, tag="tool_call"):
    """A tool call with its state and its result. `arguments` is JSON text; it is incomplete while `state` is null."""

    tool_call_id: str
    name: str
    arguments: str
    state: CallState | None = None
    expires_at: str | None = None
    decided_by: str | None = None
    message: str | None = None
    question: ShownQuestion | UnsetType = UNSET  # while the call waits for its answer
    output: Any = UNSET
    failed: bool | UnsetType = UNSET
    truncated: bool | UnsetType = UNSET  # `output` is the beginning of it, as text


class DataPart(_Part, frozen=True, kw_only=True, tag="data"):
    """Data of a plug-in, in its newest version."""

    kind: str
    id: str
    data: Any


Part = TextPart | ReasoningPart | ToolCallPart | DataPart


def fold(pieces: Sequence[Piece]) -> list[Part]:
    """Return the parts of an answer, in the order in which they began.

    A call, its states and its result become one part. `Data` with a known kind and id replaces the earlier part. Text
    that continues after new `Data` becomes a part of its own, so that data is shown at its place. Marks of an unknown
    call are ignored.
    """
    return [part for _, part in folded(pieces)]


def folded(pieces: Sequence[Piece]) -> list[tuple[int, Part]]:
    """Return the parts like `fold`, each with the number of its round: how often the model was asked again before
    it."""
    parts: list[Part] = []
    numbers: list[int] = []  # the round of each part
    number, whole = 0, False
    calls: dict[str, int] = {}  # by call id: the index of the call's part
    shown: dict[tuple[str, str], int] = {}  # by kind and id of data: the index of its part
    kind = Kind.TEXT
    grows = False  # whether the next string continues the last part
    for piece in join(pieces):
        if not isinstance(piece, str) and whole and _opens(piece) is not None:
            number, whole = number + 1, False
        match piece:
            case str():
                if grows:
                    parts[-1] = _extended(parts[-1], piece)
                else:
                    parts.append(TextPart(text=piece) if kind is Kind.TEXT else ReasoningPart(text=piece))
                    grows = True
            case OpenText():
                kind, grows = Kind.TEXT, False
            case OpenReasoning():
                kind, grows = Kind.REASONING, False
            case OpenToolCall(id=call_id, name=name):
                kind, grows = Kind.TOOL_CALL, True
                calls[call_id] = len(parts)
                parts.append(ToolCallPart(tool_call_id=call_id, name=name, arguments=""))
            case ToolState() | ToolResult():
                whole = whole or isinstance(piece, ToolState)
                if (index := calls.get(piece.id)) is not None:
                    parts[index] = _moved_on(parts[index], piece)
            case Data(kind=data_kind, id=data_id, data=data):
                index = shown.setdefault((data_kind, data_id), len(parts))
                part = DataPart(kind=data_kind, id=data_id, data=data)
                if index < len(parts):
                    parts[index] = part
                else:
                    parts.append(part)
                    grows = False
            case ContextTrimmed():  # concerns the conversation; not a part of the answer
                pass
        numbers += [number] * (len(parts) - len(numbers))
    return [*zip(numbers, parts, strict=True)]


def _extended(part: Part, string: str) -> Part:
    match part:
        case ToolCallPart():
            return replace(part, arguments=part.arguments + string)
        case TextPart() | ReasoningPart():
            return replace(part, text=part.text + string)
        case DataPart():  # strings never continue data
            raise AssertionError


def _moved_on(part: Part, mark: ToolState | ToolResult) -> Part:
    assert isinstance(part, ToolCallPart)  # noqa: S101 - `calls` has no others
    if isinstance(mark, ToolResult):
        # A denied, expired or unknown call keeps that state: its result only tells the model about it.
        state = part.state if part.state in _WITHOUT_OUTCOME else CallState.DONE
        message = part.message if state in _WITHOUT_OUTCOME else None  # not how far it was
        return replace(part, state=state, message=message, output=mark.output, failed=mark.failed, question=UNSET)
    return replace(
        part,
        state=mark.state,
        expires_at=mark.expires_at,
        # The user who answers a question does not thereby approve the call.
        decided_by=part.decided_by if mark.state is CallState.ANSWERED else mark.decided_by or part.decided_by,
        message=mark.message,  # only of this state: the question to a person is not their reason
        question=mark.shown_question,
    )


_WITHOUT_OUTCOME = (CallState.DENIED, CallState.EXPIRED, CallState.UNKNOWN)


# Stored pieces --------------------------------------------------------------------------------------------------------


def stored(pieces: Iterable[Piece]) -> list[Any]:
    """Return pieces as stored in a document: strings, and an object for each mark.

    Values of arbitrary JSON are stored as JSON text: BSON does not support all of JSON's numbers, names and depths.
    """
    return [piece if isinstance(piece, str) else _stored(piece) for piece in pieces]


def _stored(mark: Mark) -> Any:
    document = msgspec.to_builtins(mark)
    name = _ANY_JSON.get(type(mark))
    return document if name is None else document | {name: msgspec.json.encode(document.get(name)).decode()}


_ANY_JSON: dict[type[Mark], str] = {ToolResult: "output", Data: "data"}


def read(values: Iterable[Any]) -> list[Piece]:
    """The inverse of `stored`. Raises `msgspec.ValidationError` for pieces that only a later version can read."""
    return [value if isinstance(value, str) else _read(msgspec.convert(value, Mark)) for value in values]


def _read(mark: Mark) -> Mark:
    match mark:
        case ToolResult(output=text):
            return replace(mark, output=msgspec.json.decode(msgspec.convert(text, str)))
        case Data(data=text):
            return replace(mark, data=msgspec.json.decode(msgspec.convert(text, str)))
    return mark
