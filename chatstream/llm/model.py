"""What the rest of chatstream knows of a model."""

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, NamedTuple, Protocol

from msgspec import Struct

from chatstream.models import Usage
from chatstream.pieces import Piece


class Turn(Struct, frozen=True):
    """One message of the context."""

    role: Literal["system", "user", "assistant"]
    content: str
    reasoning: str = ""  # what the model thought before it said this: only for models that want it back


# Asks for the rest of the assistant's turn right before it. A turn of its own, since not every endpoint goes on with an
# assistant's turn that is the last one, and some refuse it.
GO_ON = (
    "Your answer above was cut off. Go on exactly where it ends, in mid-sentence or mid-word if need be. Repeat "
    "nothing of it, and do not mention that it was cut off."
)


class Finish(Struct, frozen=True, kw_only=True):
    """How the model ended its answer. `reason` is the model's own word: ``stop``, ``length``, ``content_filter`` …"""

    reason: str
    usage: Usage | None


class Estimate(NamedTuple):
    """What a request is likely to be charged for, as long as the model has not said it."""

    prompt_tokens: int
    tokens_per_byte: float  # of the answer's text, in UTF-8
    begins_at: int = 0  # the position in the answer where the request's own begins


class Delta(NamedTuple):
    """What one network read brought: pieces in order, of which no string is empty; and, last, the end.

    Of an answer that is text alone they are strings, each valid Unicode. `model` is who answers, by the name that users
    know, where that is said: once, before or with the first piece. `usage` are the token counts so far, where the model
    gives some before its end; `estimate` comes before a request.
    """

    pieces: list[Piece]
    finish: Finish | None = None
    model: str | None = None
    usage: Usage | None = None
    estimate: Estimate | None = None


class Model(Protocol):
    """A source of streamed answers."""

    def stream(self, turns: Sequence[Turn], *, model: str | None = None) -> AsyncGenerator[Delta, None]:
        """Answer `turns`; the last `Delta` of a good answer, and only that, has `finish` set.

        The caller closes the generator (``contextlib.aclosing``); closing it, or cancelling the task that reads it,
        really closes the upstream request. `model` overrides the configured name.

        Raises `ModelError` when the answer cannot begin or breaks off; what was yielded before stands.
        """
        ...

    async def close(self) -> None:
        """Release the connections. Running streams break off."""
        ...
