"""What an answer is made of: an append-only sequence of pieces, and positions in it.

A piece is a string, which continues the part that is open, or a mark, which opens a part or is a whole event. A string
counts its code points, a mark counts one. So a position is one integer, whatever an answer is made of, and that of a
text-only answer is the number of its code points.

    (nothing)          text is open: the first piece may be a string
    OpenText           opens a text part, after something else
    OpenReasoning      opens a part of the model's thinking
    OpenToolCall       opens a call; the strings that follow are its arguments, as JSON text
    ToolState          the call's state has changed; opens nothing
    ToolResult         the call has ended; opens nothing
    Data               an event of a plug-in's; opens nothing
    ContextTrimmed     the model is told less of the conversation from here on; opens nothing

What opens nothing leaves open what was: a string after `Data` goes on with the text before it. Where it is shown, that
text goes on behind the data, unless the data only replaced what was told before.

Everything here is pure. Pieces are what is stored; `Part`s are what people and models are shown. Parts are made when
somebody reads, and never stored, since folding forgets the positions.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, TypeGuard

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace


class _Mark(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, tag_field="mark"):
    """Base of all marks; the stored object's `mark` is the subclass's tag."""


class OpenText(_Mark, frozen=True, kw_only=True, tag="text"):
    """The next part is text."""


class OpenReasoning(_Mark, frozen=True, kw_only=True, tag="reasoning"):
    """The next part is the model's thinking."""


class OpenToolCall(_Mark, frozen=True, kw_only=True, tag="tool_call"):
    """The next part is a call of the tool `name`; `id` is ours, and unique.

    `extra` is JSON text of the model's endpoint, which wants it back with the call (Gemini's thought signature).
    """

    id: str
    name: str
    extra: str | None = None


class Effect(StrEnum):
    """What it means to run a tool a second time."""

    NONE = "none"  # nothing: it only reads
    IDEMPOTENT = "idempotent"  # nothing, under the same key
    ONCE = "once"  # that something happens twice


class CallState(StrEnum):
    """Where a call stands. The last two are its end, with or without a known outcome."""

    READY = "ready"  # its arguments are complete
    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"  # nobody decided in time
    AWAITING_CLIENT = "awaiting_client"  # the app is to answer
    RUNNING = "running"
    DONE = "done"  # there is a result, of whichever kind
    UNKNOWN = "unknown"  # it may have had its effect; nobody knows


AWAITING = (CallState.AWAITING_APPROVAL, CallState.AWAITING_CLIENT)
"""Somebody is to decide about the call, or to answer it."""


class ToolState(_Mark, frozen=True, kw_only=True, tag="tool_state"):
    """The call `id` is in another state. `expires_at` is RFC 3339; `message` is for people.

    `arguments` are whole, as JSON text: there with `READY`, and where somebody is to decide or to answer. `effect` is
    there with `RUNNING`: whoever finds a call without a result must know what running it again would mean, also when
    the tool is gone.
    """

    id: str
    state: CallState
    name: str = ""
    arguments: str | None = None
    effect: Effect | None = None
    expires_at: str | None = None
    decided_by: str | None = None
    message: str | None = None


class ToolResult(_Mark, frozen=True, kw_only=True, tag="tool_result"):
    """The call `id` has ended with `output`, which any JSON can be; `failed` if that says why it could not.

    `because` is `DENIED` or `EXPIRED` where that is why: what is told of it must not depend on what came before.
    """

    id: str
    output: Any
    failed: bool = False
    because: CallState | None = None


class Data(_Mark, frozen=True, kw_only=True, tag="data"):
    """Something of a plug-in's to show. The same `kind` and `id` again replaces what is shown."""

    kind: str
    id: str
    data: Any


class ContextTrimmed(_Mark, frozen=True, kw_only=True, tag="context_trimmed"):
    """From this answer on the model is not told the oldest `dropped` messages of the conversation."""

    dropped: int


Mark = OpenText | OpenReasoning | OpenToolCall | ToolState | ToolResult | Data | ContextTrimmed
Piece = str | Mark


class Kind(StrEnum):
    """What strings may be part of."""

    TEXT = "text"
    REASONING = "reasoning"
    TOOL_CALL = "tool_call"


class Place(Struct, frozen=True, kw_only=True):
    """What is open at a position: whoever goes on from there needs to know no more.

    Lengths are in code points.
    """

    position: int = 0
    kind: Kind = Kind.TEXT  # of the open part
    number: int = 0  # of the parts that were opened before it
    offset: int = 0  # within the open part
    text: int = 0  # how much visible text comes before
    call: OpenToolCall | None = None  # the open part, if it is a call
    data: frozenset[tuple[str, str]] = frozenset()  # the kind and id of each data before it
    parted: bool = False  # data stands right before it: what goes on with the open part is shown behind that
    whole: bool = False  # the model has said all of this round: what is opened next is another one's
    awaited: "tuple[ToolState, ...]" = ()  # what is told last of each call that somebody is to decide, or to answer


BEGINNING = Place()


def after(place: Place, piece: Piece) -> Place:
    """The place behind `piece`."""
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
    # The text that is open at the very beginning, and empty, is no part.
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
    """Whether the model was asked again before it said `piece`, which stands at `place`."""
    return place.whole and not isinstance(piece, str) and _opens(piece) is not None


def further(place: Place, length: int) -> Place:
    """The place after strings of `length` code points in all."""
    return replace(
        place,
        position=place.position + length,
        offset=place.offset + length,
        text=place.text + length if place.kind is Kind.TEXT else place.text,
        parted=place.parted and not length,
    )


def behind(place: Place, pieces: Sequence[Piece]) -> Place:
    """The place behind all of `pieces`."""
    if is_text(pieces):  # nearly always, and for each network read: once, and not for each string
        return further(place, sum(map(len, pieces)))
    for piece in pieces:
        place = after(place, piece)
    return place


def at(pieces: Iterable[Piece], position: int) -> Place:
    """The place at `position`, or the end of `pieces` if that comes before."""
    place = BEGINNING
    for piece in pieces:
        left = position - place.position
        if left <= 0:
            break
        place = after(place, piece[:left] if isinstance(piece, str) else piece)
    return place


def size(pieces: Iterable[Piece]) -> int:
    """The position of the end."""
    return sum(len(piece) if isinstance(piece, str) else 1 for piece in pieces)


def weight(pieces: Iterable[Piece]) -> int:
    """About how many characters it takes to store them: other than `size`, with what marks have in them."""
    characters = 0
    for piece in pieces:
        if isinstance(piece, str):
            characters += len(piece)
        elif isinstance(piece, ToolResult | Data):
            characters += len(msgspec.json.encode(piece))
        elif isinstance(piece, OpenToolCall):
            characters += 50 + len(piece.extra or "")
        else:
            characters += 50 + (len(piece.arguments or "") if isinstance(piece, ToolState) else 0)
    return characters


def cut(pieces: Iterable[Piece], begin: int, end: int | None = None) -> list[Piece]:
    """What lies between two positions; a string on either of them is cut to the code point. None of it is empty."""
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
    """What comes before the code point `length` of the visible text; all of it if there is none.

    Tool calls are kept even after that point: they were carried out, whether or not anybody had read that far.
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
                kept.pop()  # a part without anything in it
        else:
            kept.append(piece)
    return kept


def whole_rounds(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """The beginning of an answer, up to the last thing that is known of a call: what another attempt goes on from.

    What a model says is stored before its calls have any state. So with these, all of it is there.
    """
    marks = (index for index in range(len(pieces), 0, -1) if isinstance(pieces[index - 1], ToolState | ToolResult))
    return pieces[: next(marks, 0)]


def join(pieces: Iterable[Piece]) -> list[Piece]:
    """The same, with neighbouring strings joined, and empty ones left out."""
    joined: list[Piece] = []
    run: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            run.append(piece)
            continue
        if whole := "".join(run):
            joined.append(whole)
        run = []
        joined.append(piece)
    if whole := "".join(run):
        joined.append(whole)
    return joined


def text(pieces: Sequence[Piece], place: Place = BEGINNING) -> str:
    """The visible text of `pieces`, which go on from `place`: what a client shows that knows nothing of parts."""
    kind = place.kind
    if is_text(pieces):
        return "".join(pieces) if kind is Kind.TEXT else ""
    visible: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            if kind is Kind.TEXT:
                visible.append(piece)
        else:
            kind = _opens(piece) or kind
    return "".join(visible)


def spaced(place: Place, pieces: Iterable[Piece]) -> list[Piece]:
    """`pieces`, which go on from `place`; each text part that comes after other text begins with a blank line.

    So the visible text reads well where nobody knows of parts.
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
    """What is left for whom the model's thinking is hidden from. Positions are not those of the whole."""
    kept: list[Piece] = []
    kind = Kind.TEXT
    for piece in pieces:
        if not isinstance(piece, str):
            kind = _opens(piece) or kind
        if kind is not Kind.REASONING or not isinstance(piece, str | OpenReasoning):
            kept.append(piece)
    return kept


def is_text(pieces: Sequence[Piece]) -> TypeGuard[Sequence[str]]:
    """There is nothing but strings: looked at in a way that costs a thirtieth of a microsecond for each."""
    return _STRINGS.issuperset(map(type, pieces))


_STRINGS = frozenset({str})


def has(kind: type[Mark], pieces: Sequence[Piece]) -> bool:
    """There is a mark of this kind; as cheap as `is_text`."""
    return kind in map(type, pieces)


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
    """Something the model said."""

    text: str


class ReasoningPart(_Part, frozen=True, kw_only=True, tag="reasoning"):
    """Something the model thought."""

    text: str


class ToolCallPart(_Part, frozen=True, kw_only=True, tag="tool_call"):
    """A call, where it stands and what came of it. `arguments` is JSON text, incomplete while `state` is null."""

    tool_call_id: str
    name: str
    arguments: str
    state: CallState | None = None
    expires_at: str | None = None
    decided_by: str | None = None
    message: str | None = None
    output: Any = UNSET
    failed: bool | UnsetType = UNSET
    truncated: bool | UnsetType = UNSET  # `output` is the beginning of it, as text


class DataPart(_Part, frozen=True, kw_only=True, tag="data"):
    """Something of a plug-in's, as it was told last."""

    kind: str
    id: str
    data: Any


Part = TextPart | ReasoningPart | ToolCallPart | DataPart


def fold(pieces: Sequence[Piece]) -> list[Part]:
    """The parts of an answer, in the order in which they began.

    A call, its states and its result become one part; data that is told again takes the earlier one's place. Text that
    goes on behind data becomes a part of its own, so that data is shown where it was told. What belongs to an unknown
    call is left out.
    """
    return [part for _, part in folded(pieces)]


def folded(pieces: Sequence[Piece]) -> list[tuple[int, Part]]:
    """The same, each with the number of its round: how often the model was asked again before."""
    parts: list[Part] = []
    numbers: list[int] = []  # of the round of each part
    number, whole = 0, False
    calls: dict[str, int] = {}  # where the part of each call stands
    shown: dict[tuple[str, str], int] = {}  # where the part of each kind and id of data stands
    kind = Kind.TEXT
    grows = False  # a string goes on with the last part
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
            case ContextTrimmed():  # about the conversation, and no part of what is said
                pass
        numbers += [number] * (len(parts) - len(numbers))
    return [*zip(numbers, parts, strict=True)]


def _extended(part: Part, string: str) -> Part:
    match part:
        case ToolCallPart():
            return replace(part, arguments=part.arguments + string)
        case TextPart() | ReasoningPart():
            return replace(part, text=part.text + string)
        case DataPart():  # nothing goes on with data
            raise AssertionError


def _moved_on(part: Part, mark: ToolState | ToolResult) -> Part:
    assert isinstance(part, ToolCallPart)  # noqa: S101 - `calls` has no others
    if isinstance(mark, ToolResult):
        # What nobody let run, or nobody knows the end of, stays that: its result only tells the model so.
        state = part.state if part.state in _WITHOUT_OUTCOME else CallState.DONE
        return replace(part, state=state, output=mark.output, failed=mark.failed)
    return replace(
        part,
        state=mark.state,
        expires_at=mark.expires_at,
        decided_by=mark.decided_by or part.decided_by,
        message=mark.message,  # of this state: what a person was asked is no reason that they gave
    )


_WITHOUT_OUTCOME = (CallState.DENIED, CallState.EXPIRED, CallState.UNKNOWN)


# Stored pieces --------------------------------------------------------------------------------------------------------


def stored(pieces: Iterable[Piece]) -> list[Any]:
    """As a document has them: strings, and an object for each mark.

    What may be any JSON is text there: JSON has numbers, names and depths that BSON has not.
    """
    return [piece if isinstance(piece, str) else _stored(piece) for piece in pieces]


def _stored(mark: Mark) -> Any:
    document = msgspec.to_builtins(mark)
    name = _ANY_JSON.get(type(mark))
    return document if name is None else document | {name: msgspec.json.encode(document.get(name)).decode()}


_ANY_JSON: dict[type[Mark], str] = {ToolResult: "output", Data: "data"}


def read(values: Iterable[Any]) -> list[Piece]:
    """The inverse of `stored`. Raises `msgspec.ValidationError` for what a later version may have put there."""
    return [value if isinstance(value, str) else _read(msgspec.convert(value, Mark)) for value in values]


def _read(mark: Mark) -> Mark:
    match mark:
        case ToolResult(output=text):
            return replace(mark, output=msgspec.json.decode(msgspec.convert(text, str)))
        case Data(data=text):
            return replace(mark, data=msgspec.json.decode(msgspec.convert(text, str)))
    return mark
