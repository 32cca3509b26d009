"""An answer with calls, as rounds: for each request to the model, its text, its calls and their results. Pure.

In a whole round, each call has a state. A call that was cut off while the model was writing its arguments has none:
then the model is given the round's text, but not the call.
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

# Results that a model gets for calls without a result.
STOPPED = "Not carried out: the answer was stopped before."
BROKEN_OFF = "It is not known what came of this: it was broken off."
UNKNOWN = "It is not known whether this was carried out. Do not call it again: ask the user to check."
# The text that people are shown for a call whose outcome is unknown.
CHECK = "It is not known whether this was carried out: check it before you ask for it again."
_DECIDED = (CallState.APPROVED, CallState.DENIED, CallState.EXPIRED)
_REPEATABLE = (Effect.NONE, Effect.IDEMPOTENT)


class Call(Struct):
    """A call, with its state so far."""

    id: str
    name: str
    extra: str | None
    arguments: str = ""
    state: CallState | None = None
    effect: Effect | None = None  # the tool's effect, once the call runs
    output: object | UnsetType = UNSET
    failed: bool = False
    because: CallState | None = None  # the reason for the result; see `ToolResult`
    expires_at: str | None = None  # when its current or last wait ends
    waited: CallState | None = None  # the state in which it waited last
    decision: ToolState | None = None  # the decision, or the expiry
    asked: list[ToolState] = []  # the tool's questions to the user
    answers: list[ToolState] = []  # the answers to `asked`, in the same order; a pending question has none

    @property
    def result(self) -> str:
        """Return the result for the model."""
        if self.state is CallState.UNKNOWN:
            return UNKNOWN
        if self.output is UNSET:
            return STOPPED
        return self.output if isinstance(self.output, str) else msgspec.json.encode(self.output).decode()

    @property
    def is_over(self) -> bool:
        """Whether the call has ended."""
        return self.output is not UNSET or self.state is CallState.UNKNOWN

    @property
    def waits(self) -> bool:
        """Whether a person must decide, or the app must answer."""
        return self.state in AWAITING and not self.is_over

    @property
    def held_by(self) -> str | None:
        """Return the process that keeps the call open while the user is asked, or goes on with the answer; or None."""
        open_ = self.state in (CallState.AWAITING_INPUT, CallState.ANSWERED) and not self.is_over
        return self.asked[-1].held_by if open_ else None

    @property
    def in_doubt(self) -> bool:
        """Whether the call may be at work, and must not be carried out again."""
        # A running call without an effect was stored by another version: assume the worst effect.
        at_work = self.state is CallState.RUNNING or self.held_by is not None
        return at_work and not self.is_over and self.effect not in _REPEATABLE

    def is_expired(self, now: datetime) -> bool:
        """Whether the call's time to wait is over. A missing or unreadable time counts as over."""
        try:
            return self.expires_at is None or datetime.fromisoformat(self.expires_at) <= now
        except ValueError:
            return True


class Round(Struct):
    """The output of the model for one request."""

    texts: list[str] = []
    reasoning: list[str] = []
    calls: list[Call] = []

    @property
    def is_whole(self) -> bool:
        """Whether the model has finished the round, with at least one call."""
        return any(call.state is not None for call in self.calls)


def rounds(pieces: Sequence[Piece]) -> list[Round]:
    """Return the rounds of an answer; there is at least one."""
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
    if mark.state in _DECIDED and not call.asked:  # an expired question is no decision
        call.decision = mark
    if mark.state is CallState.AWAITING_INPUT:
        call.asked = [*call.asked, mark]
    if mark.state is CallState.ANSWERED:
        call.answers = [*call.answers, mark]


def calls(pieces: Sequence[Piece]) -> list[Call]:
    """Return all calls of an answer, in order."""
    return [call for each in rounds(pieces) for call in each.calls]


def waits_until(pieces: Sequence[Piece]) -> datetime | None:
    """Return when the first of the waiting calls expires; None if no call waits."""
    times = [call.expires_at for call in calls(pieces) if call.waits]
    return min((datetime.fromisoformat(time) for time in times if time is not None), default=None)


def steps(pieces: Sequence[Piece]) -> tuple[Step, ...]:
    """Return an answer's rounds in the form for the model; empty if no call in it can be sent to a model.

    Each call has a result: without one, the model's endpoint would refuse the next request.
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
    """Return the arguments if they are a JSON object, else a replacement: some endpoints refuse a whole conversation
    otherwise."""
    try:
        given = msgspec.json.decode(arguments)
    except (ValueError, RecursionError):
        return "{}"
    return arguments if isinstance(given, dict) else "{}"


def in_doubt(pieces: Sequence[Piece]) -> Iterator[Call]:
    """Yield the calls that were at work when the answer broke off, and must not be carried out again."""
    return (call for call in calls(pieces) if call.in_doubt)


def closing(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the marks that end each open call of an answer that ends here."""
    doubtful = {call.id for call in in_doubt(pieces)}
    marks: list[Piece] = []
    for each in rounds(pieces):
        for call in each.calls:
            if call.state is None or call.is_over:
                continue
            if call.id in doubtful:
                marks.append(ToolState(id=call.id, name=call.name, state=CallState.UNKNOWN, message=CHECK))
            else:
                # These calls may already have been started, by this process or by the app.
                begun = call.state in (CallState.RUNNING, CallState.AWAITING_CLIENT) or call.held_by is not None
                text = BROKEN_OFF if begun else STOPPED
                marks.append(ToolResult(id=call.id, output=text, failed=True))
    return marks


def settled(answer: Answer) -> Answer:
    """Return the answer with an end for each of its calls, unless another attempt continues them."""
    if not answer.mixed or answer.begins_again:
        return answer
    marks = closing(answer.mixed)
    return answer.made_of([*answer.mixed, *marks]) if marks else answer
