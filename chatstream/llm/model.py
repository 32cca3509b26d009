"""The interface between models and the rest of chatstream."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from msgspec import Struct

from chatstream.models import Round, Usage
from chatstream.pieces import Piece


class OfferedTool(Struct, frozen=True):
    """A tool as it is offered to a model; `parameters` is a JSON Schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


class ToolCall(Struct, frozen=True, kw_only=True):
    """A call that the model made, and the result that is sent to it. `id` is ours; `arguments` is JSON text.

    `extra` is JSON text from the endpoint that must be sent back with the call.
    """

    id: str
    name: str
    arguments: str
    result: str
    extra: str | None = None


class Step(Struct, frozen=True, kw_only=True):
    """The model's output for one request: reasoning, text, calls."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()


class Turn(Struct, frozen=True):
    """One message of the context. An answer with calls has `steps`, its whole output; `content` is only its text."""

    role: Literal["system", "user", "assistant"]
    content: str
    reasoning: str = ""  # the turn's reasoning, for models that need it sent back
    steps: tuple[Step, ...] = ()

    @property
    def size(self) -> int:
        """The turn's length in the model's context, in code points."""
        called = sum(len(call.arguments) + len(call.result) for step in self.steps for call in step.calls)
        return len(self.content) + called


# The prompt that asks the model to continue its last turn. It is sent as a user turn: some endpoints refuse a request
# that ends with an assistant turn, or do not continue it.
GO_ON = (
    "Your answer above was cut off. Go on exactly where it ends, in mid-sentence or mid-word if need be. Repeat "
    "nothing of it, and do not mention that it was cut off."
)


class Finish(Struct, frozen=True, kw_only=True):
    """The end of an answer. `reason` is the endpoint's finish reason: ``stop``, ``length``, ``content_filter`` …"""

    reason: str
    usage: Usage | None = None


def without_calls(turns: Sequence[Turn]) -> list[Turn]:
    """`turns` as text only, for a model without tools. Turns without text are omitted."""
    return [
        Turn(turn.role, turn.content, turn.reasoning) if turn.steps else turn
        for turn in turns
        if turn.content or not turn.steps
    ]


class Estimate(NamedTuple):
    """An estimate of a request's token counts, for use until the model sends the real ones."""

    prompt_tokens: int
    tokens_per_byte: float  # tokens per byte of the answer's text in UTF-8
    begins_at: int = 0  # the position in the answer where this request's text begins
    of_model: bool = True  # False: a plug-in answers, and no model is asked


class Delta(Struct, frozen=True):
    """The output of one network read: pieces in order, no string empty. The last delta has the end (`finish`).

    The pieces of a text answer are strings, each valid Unicode. `model`: the answering model's name as users know it;
    set at most once, before or with the first piece. `usage`: the token counts so far, if the endpoint sends them
    before the end. `estimate`: comes before a request.

    A tool call is an `OpenToolCall`, then its arguments. The calls of one request have the ids 1, 2 …

    `durable`: store the pieces before they are published and before the next delta is requested. `waits`: no further
    delta comes until somebody has decided about a call. `round`: one request, of maybe several, has ended.
    """

    pieces: list[Piece]
    finish: Finish | None = None
    model: str | None = None
    usage: Usage | None = None
    estimate: Estimate | None = None
    durable: bool = False
    waits: bool = False
    round: Round | None = None


Tell = Callable[[Sequence[Piece]], bool]
"""Takes pieces at once. Returns False if it does not: then they must come as a delta."""


class Model(Protocol):
    """A source of streamed answers."""

    def stream(
        self,
        turns: Sequence[Turn],
        *,
        model: str | None = None,
        tools: Sequence[OfferedTool] = (),
        cache_key: str | None = None,
        may_ask: "asyncio.Future[None] | None" = None,
        tell: Tell | None = None,
    ) -> AsyncGenerator[Delta, None]:
        """Answer `turns`. Only the last `Delta` of a complete answer has `finish` set.

        After the first delta with pieces, further pieces may go to `tell` instead, while the reader waits for the next
        delta: most chunks then pass none of the generators between the endpoint and the reader.

        The model may call `tools`. If the last turn is the model's own, it continues after the results of that turn's
        last step.

        The caller must close the generator (``contextlib.aclosing``). Closing it, or cancelling the task that reads it,
        closes the upstream request. `model` overrides the configured name. `cache_key` is the same for all requests of
        one conversation: they begin in the same way. Nothing is sent before `may_ask` is done, but the connection may
        be opened.

        Raises `ModelError` when the answer cannot begin or is interrupted; deltas yielded before remain valid.
        """
        ...

    async def close(self) -> None:
        """Close the connections. Running streams end with an error."""
        ...
