"""An answer with calls, as rounds: what the model said and called with one request, and what came of each call. Pure.

Once a round is whole, each of its calls has a state. What a model had begun to say when it was cut has none: of that, a
model is told the text alone.
"""

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import UNSET, Struct, UnsetType

from chatstream.llm.model import Step, ToolCall
from chatstream.models import Answer
from chatstream.pieces import (
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

# What a model is told of a call that has no result, and people of one whose result nobody knows.
STOPPED = "Not carried out: the answer was stopped before."
BROKEN_OFF = "It is not known what came of this: it was broken off."
UNKNOWN = "It is not known whether this was carried out. Do not call it again: ask the user to check."


class Call(Struct):
    """A call so far."""

    id: str
    name: str
    extra: str | None
    arguments: str = ""
    state: CallState | None = None
    effect: Effect | None = None  # of the tool, once it runs
    output: object | UnsetType = UNSET

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
                calls[id_].state = piece.state
                calls[id_].effect = piece.effect or calls[id_].effect
            case ToolResult(id=id_) if id_ in calls:
                calls[id_].output = piece.output
            case Data() | ToolState() | ToolResult():
                pass
    return found


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
                marks.append(ToolState(id=call.id, name=call.name, state=CallState.UNKNOWN, message=UNKNOWN))
            else:
                text = BROKEN_OFF if call.state is CallState.RUNNING else STOPPED
                marks.append(ToolResult(id=call.id, output=text, failed=True))
    return marks


def settled(answer: Answer) -> Answer:
    """The same answer with an end for each of its calls, unless another attempt goes on from them."""
    if not answer.mixed or answer.begins_again:
        return answer
    marks = closing(answer.mixed)
    return answer.made_of([*answer.mixed, *marks]) if marks else answer
