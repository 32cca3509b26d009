"""How a request looks to each model: some refuse a part of it, and are asked without."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from chatstream.llm.faults import Part
from chatstream.llm.model import Turn

Parts = frozenset[Part]
NONE: Final[Parts] = frozenset()

# Users may name models: so many are remembered, the last used ones.
_MAX_MODELS: Final = 256
# A server may learn, or another one may be behind the address: after an hour the model is asked anew.
_REMEMBERED: Final = 3600.0


class Dialects:
    """What each model refuses, for an hour. Only what was asked again without it, and answered, comes in here."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` counts seconds, and never backwards."""
        self._clock = clock
        self._known: OrderedDict[str, tuple[Parts, float]] = OrderedDict()

    def of(self, model: str) -> Parts:
        """What to leave out of a request to `model`."""
        parts, until = self._known.get(model, (NONE, 0.0))
        if not parts:
            return NONE
        if self._clock() >= until:
            del self._known[model]
            return NONE
        self._known.move_to_end(model)
        return parts

    def learn(self, model: str, parts: Parts) -> None:
        """`model` answers without these."""
        self._known[model] = parts, self._clock() + _REMEMBERED
        self._known.move_to_end(model)
        if len(self._known) > _MAX_MODELS:
            self._known.popitem(last=False)


def request_body(turns: Sequence[Turn], model: str, without: Parts, *, reasoning: bool = False) -> dict[str, Any]:
    """The body of ``POST /chat/completions``. `reasoning`: the model is told again what it thought."""
    if Part.SYSTEM in without:
        turns = _without_system(turns)
    body: dict[str, Any] = {
        "messages": [
            {"role": turn.role, "content": turn.content}
            | ({"reasoning_content": turn.reasoning} if reasoning and turn.reasoning else {})
            for turn in turns
        ],
        "model": model,
        "stream": Part.STREAM not in without,
    }
    if body["stream"] and Part.USAGE not in without:
        body["stream_options"] = {"include_usage": True}
    return body


def is_in(part: Part, turns: Sequence[Turn], without: Parts) -> bool:
    """Whether a request that leaves out `without` has this part."""
    if part in without:
        return False
    if part is Part.SYSTEM:
        return turns[0].role == "system"
    return part is Part.STREAM or Part.STREAM not in without


def _without_system(turns: Sequence[Turn]) -> Sequence[Turn]:
    """The prompt stands before the first question instead."""
    if len(turns) < 2 or turns[0].role != "system" or turns[1].role != "user":
        return turns
    return [Turn("user", f"{turns[0].content}\n\n{turns[1].content}"), *turns[2:]]
