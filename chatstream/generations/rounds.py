"""An answer with calls, as rounds: what the model said and called with one request, and what came of each call. Pure.

In a whole round, each call has a state. A call that was cut off while the model was still writing it has none: the
model is then told the round's text, and not the call.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec
from msgspec import UNSET, Struct, UnsetType

from chatstream.llm.model import Step, ToolCall
from chatstream.models import Answer
from chatstream.pieces import (
    AWAITING,
    CallState,
    Data,
    Effect,
    Kind,
    OpenReasoning,
    OpenText,
    OpenToolCall,
    Piece,
    ToolResult,
    ToolState,
)

# What a model is told of a call that has no result.
STOPPED = "Not carried out: the answer was stopped before."
BROKEN_OFF = "It is not known what came of this: it was broken off."
UNKNOWN = "It is not known whether this was carried out. Do not call it again: ask the user to check."
# What people are told of that.
CHECK = "It is not known whether this was carried out: check it before you ask for it again."
_DECIDED = (CallState.APPROVED, CallState.DENIED, CallState.EXPIRED)


class Call(Struct):
    """A call so far."""

    id: str
    name: str
    extra: str | None
    arguments: str = ""
    state: CallState | None = None
    effect: Effect | None = None  # of the tool, once it runs
    output: object | UnsetType = UNSET
    failed: bool = False
    because: CallState | None = None  # see `ToolResult`
    expires_at: str | None = None  # when its waiting, now or the last time, is over
    waited: CallState | None = None  # for whom it waited last
    decision: ToolState | None = None  # of whoever decided, or of the time that was over

    @property
    def result(self) -> str:
        """What the model is told of it."""
        if self.state is CallState.UNKNOWN:
            return UNKNOWN
        if self.output is UNSET:
            return STOPPED
        return self.output if isinstance(self.output, str) else msgspec.json.encode(self.output).decode()

    @property
    def is_over(self) -> bool:
        """There is nothing more to come of it."""
        return self.output is not UNSET or self.state is CallState.UNKNOWN

    @property
    def waits(self) -> bool:
        """Somebody is to decide, or to answer in the tool's place."""
        return self.state in AWAITING and not self.is_over

    def is_expired(self, now: datetime) -> bool:
        """Its time is over. It is, too, if nobody can say when that is."""
        try:
            return self.expires_at is None or datetime.fromisoformat(self.expires_at) <= now
        except ValueError:
            return True


class Round(Struct):
    """What a model said with one request."""

    texts: list[str] = []
    reasoning: list[str] = []
    calls: list[Call] = []

    @property
    def is_whole(self) -> bool:
        """The model has said all of it, and called something."""
        return any(call.state is not None for call in self.calls)


def rounds(pieces: Sequence[Piece]) -> list[Round]:
    """The rounds of an answer. There is always one."""
    found = [Round([], [], [])]
    calls: dict[str, Call] = {}
    kind = Kind.TEXT
    for piece in pieces:
        if isinstance(piece, OpenText | OpenReasoning | OpenToolCall) and found[-1].is_whole:
            found.append(Round([], [], []))
        now = found[-1]
        match piece:
            case OpenText():
                kind = Kind.TEXT
            case OpenReasoning():
                kind = Kind.REASONING
            case OpenToolCall(id=id_, name=name, extra=extra):
                kind = Kind.TOOL_CALL
                calls[id_] = Call(id_, name, extra)
                now.calls.append(calls[id_])
            case str():
                if kind is Kind.TOOL_CALL:
                    now.calls[-1].arguments += piece
                else:
                    (now.texts if kind is Kind.TEXT else now.reasoning).append(piece)
            case ToolState(id=id_) if id_ in calls:
                _moved_on(calls[id_], piece)
            case ToolResult(id=id_) if id_ in calls:
                calls[id_].output, calls[id_].failed, calls[id_].because = piece.output, piece.failed, piece.because
            case Data() | ToolState() | ToolResult():
                pass
    return found


def _moved_on(call: Call, mark: ToolState) -> None:
    call.state = mark.state
    call.effect = mark.effect or call.effect
    if mark.state in AWAITING:
        call.waited, call.expires_at = mark.state, mark.expires_at
    if mark.state in _DECIDED:
        call.decision = mark


def calls(pieces: Sequence[Piece]) -> list[Call]:
    """All calls of an answer, in order."""
    return [call for each in rounds(pieces) for call in each.calls]


def waits_until(pieces: Sequence[Piece]) -> datetime | None:
    """When the first of the calls that wait is given up; None if none waits."""
    times = [call.expires_at for call in calls(pieces) if call.waits]
    return min((datetime.fromisoformat(time) for time in times if time is not None), default=None)


def steps(pieces: Sequence[Piece]) -> tuple[Step, ...]:
    """What a model is told of an answer; empty if there is no call in it that it could be told of.

    Each call has a result: without, the next request would be refused.
    """
    all_of_it = rounds(pieces)
    if not any(each.is_whole for each in all_of_it):
        return ()
    told = (_step(each) for each in all_of_it)
    return tuple(step for step in told if step.calls or step.content)


def _step(one: Round) -> Step:
    return Step(
        content="".join(one.texts).lstrip("\n"),
        reasoning="".join(one.reasoning),
        calls=tuple(_told(call) for call in one.calls if call.state is not None),
    )


def _told(call: Call) -> ToolCall:
    arguments = _object(call.arguments)
    return ToolCall(id=call.id, name=call.name, arguments=arguments, result=call.result, extra=call.extra)


def _object(arguments: str) -> str:
    """Arguments that an endpoint takes: some refuse a whole conversation for what is no JSON object in it."""
    try:
        given = msgspec.json.decode(arguments)
    except (ValueError, RecursionError):
        return "{}"
    return arguments if isinstance(given, dict) else "{}"


def in_doubt(pieces: Sequence[Piece]) -> Iterator[Call]:
    """The calls that were carried out when the answer broke off, and must not be carried out again."""
    for each in rounds(pieces):
        for call in each.calls:
            # One that runs without saying what that means was stored by another version: it counts as the worst.
            if call.state is CallState.RUNNING and not call.is_over and call.effect in (Effect.ONCE, None):
                yield call


def closing(pieces: Sequence[Piece]) -> list[Piece]:
    """What is known of the calls that an answer leaves behind when it ends here, so that each has an end."""
    doubtful = {call.id for call in in_doubt(pieces)}
    marks: list[Piece] = []
    for each in rounds(pieces):
        for call in each.calls:
            if call.state is None or call.is_over:
                continue
            if call.id in doubtful:
                marks.append(ToolState(id=call.id, name=call.name, state=CallState.UNKNOWN, message=CHECK))
            else:
                # An app may have begun with it.
                begun = call.state in (CallState.RUNNING, CallState.AWAITING_CLIENT)
                text = BROKEN_OFF if begun else STOPPED
                marks.append(ToolResult(id=call.id, output=text, failed=True))
    return marks


def settled(answer: Answer) -> Answer:
    """The same answer with an end for each of its calls, unless another attempt goes on from them."""
    if not answer.mixed or answer.begins_again:
        return answer
    marks = closing(answer.mixed)
    return answer.made_of([*answer.mixed, *marks]) if marks else answer
