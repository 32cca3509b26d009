"""What the rest of chatstream knows of a model."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from msgspec import Struct

from chatstream.models import Round, Usage
from chatstream.pieces import Piece


class OfferedTool(Struct, frozen=True):
    """A tool as a model knows it; `parameters` is a JSON Schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


class ToolCall(Struct, frozen=True, kw_only=True):
    """A call that the model made, and what it is told of its outcome. `id` is ours, `arguments` is JSON text.

    `extra` is JSON text of the endpoint, which wants it back.
    """

    id: str
    name: str
    arguments: str
    result: str
    extra: str | None = None


class Step(Struct, frozen=True, kw_only=True):
    """What a model said with one request: text, calls, or both; `reasoning` is what it thought before."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()


class Turn(Struct, frozen=True):
    """One message of the context. An answer with calls has `steps`, which are all of it; `content` is its text."""

    role: Literal["system", "user", "assistant"]
    content: str
    reasoning: str = ""  # what the model thought before it said this: only for models that want it back
    steps: tuple[Step, ...] = ()

    @property
    def size(self) -> int:
        """Its length in the model's context, in code points."""
        called = sum(len(call.arguments) + len(call.result) for step in self.steps for call in step.calls)
        return len(self.content) + called


# Asks for the rest of the assistant's turn right before it. A turn of its own, since not every endpoint goes on with an
# assistant's turn that is the last one, and some refuse it.
GO_ON = (
    "Your answer above was cut off. Go on exactly where it ends, in mid-sentence or mid-word if need be. Repeat "
    "nothing of it, and do not mention that it was cut off."
)


class Finish(Struct, frozen=True, kw_only=True):
    """How the model ended its answer. `reason` is the model's own word: ``stop``, ``length``, ``content_filter`` …"""

    reason: str
    usage: Usage | None = None


def without_calls(turns: Sequence[Turn]) -> list[Turn]:
    """The same as text alone, for a model that knows no tools. What has no text is left out."""
    return [
        Turn(turn.role, turn.content, turn.reasoning) if turn.steps else turn
        for turn in turns
        if turn.content or not turn.steps
    ]


class Estimate(NamedTuple):
    """What a request is likely to be charged for, as long as the model has not said it."""

    prompt_tokens: int
    tokens_per_byte: float  # of the answer's text, in UTF-8
    begins_at: int = 0  # the position in the answer at which the text of this request begins
    of_model: bool = True  # not of a plug-in that answers in its place


class Delta(NamedTuple):
    """What one network read brought: pieces in order, of which no string is empty; and, last, the end.

    Of an answer that is text alone they are strings, each valid Unicode. `model` is who answers, by the name that users
    know, where that is said: once, before or with the first piece. `usage` are the token counts so far, where the model
    gives some before its end; `estimate` comes before a request.

    A call of a tool is an `OpenToolCall` and its arguments; the calls of one request are numbered: 1, 2 … is their id.

    `durable`: the pieces are to be stored before anybody is told, and before the next delta is asked for. `waits`: and
    there is no next one, until somebody has decided. `round`: with this a request has ended, of maybe several.
    """

    pieces: list[Piece]
    finish: Finish | None = None
    model: str | None = None
    usage: Usage | None = None
    estimate: Estimate | None = None
    durable: bool = False
    waits: bool = False
    round: Round | None = None


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
    ) -> AsyncGenerator[Delta, None]:
        """Answer `turns`; the last `Delta` of a good answer, and only that, has `finish` set.

        The model may call `tools`. If the last turn is its own, it goes on behind the results of that turn's last step.

        The caller closes the generator (``contextlib.aclosing``); closing it, or cancelling the task that reads it,
        really closes the upstream request. `model` overrides the configured name.
        `cache_key` is the same for requests that begin in the same way: the turns of one conversation. Nothing is sent
        before `may_ask` is done; what can be made ready meanwhile may be.

        Raises `ModelError` when the answer cannot begin or breaks off; what was yielded before stands.
        """
        ...

    async def close(self) -> None:
        """Release the connections. Running streams break off."""
        ...
