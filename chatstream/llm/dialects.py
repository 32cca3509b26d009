"""Builds Chat Completions requests, without the parts that a model has refused before."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from chatstream.llm.faults import Part
from chatstream.llm.model import OfferedTool, Step, ToolCall, Turn, without_calls

Parts = frozenset[Part]
NONE: Final[Parts] = frozenset()

# The key in a call's `extra` for data of the Responses API; other APIs ignore it.
RESPONSES_EXTRA: Final = "responses"

# Maximum number of models whose refusals are remembered, by last use: users may be free to name any model.
_MAX_MODELS: Final = 256
# Seconds for which a refusal is remembered; then the part is tried again, as the endpoint may have changed.
_REMEMBERED: Final = 3600.0


class Dialects:
    """Remembers for an hour which parts each model refuses. A part is noted only if the request without it
    succeeded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: a monotonic clock, in seconds."""
        self._clock = clock
        self._known: OrderedDict[str, tuple[Parts, float]] = OrderedDict()

    def of(self, model: str) -> Parts:
        """The parts to omit from a request to `model`."""
        parts, until = self._known.get(model, (NONE, 0.0))
        if not parts:
            return NONE
        if self._clock() >= until:
            del self._known[model]
            return NONE
        self._known.move_to_end(model)
        return parts

    def learn(self, model: str, parts: Parts) -> None:
        """Note that `model` refuses these parts."""
        self._known[model] = parts, self._clock() + _REMEMBERED
        self._known.move_to_end(model)
        if len(self._known) > _MAX_MODELS:
            self._known.popitem(last=False)


class ReasoningBack(StrEnum):
    """The earlier turns that are sent back to their model with their reasoning."""

    OFF = "off"
    TOOL_TURNS = "tool_turns"  # turns with tool calls
    ALWAYS = "always"


def request_body(
    turns: Sequence[Turn],
    model: str,
    without: Parts,
    *,
    reasoning: ReasoningBack = ReasoningBack.OFF,
    tools: Sequence[OfferedTool] = (),
    cache_key: str | None = None,
) -> dict[str, Any]:
    """The body of ``POST /chat/completions``.

    `cache_key`: the same for requests that begin in the same way, so that the endpoint can route them to one cache.
    """
    turns, tools = fitted(turns, without, tools)
    body: dict[str, Any] = {
        "messages": [message for turn in turns for message in _messages(turn, reasoning)],
        "model": model,
        "stream": Part.STREAM not in without,
    }
    if body["stream"] and Part.USAGE not in without:
        body["stream_options"] = {"include_usage": True}
    if tools:
        body["tools"] = [{"type": "function", "function": _function(tool)} for tool in tools]
    if cache_key is not None and Part.CACHE_KEY not in without:
        body["prompt_cache_key"] = cache_key
    return body


def fitted(
    turns: Sequence[Turn], without: Parts, tools: Sequence[OfferedTool]
) -> tuple[Sequence[Turn], Sequence[OfferedTool]]:
    """`turns` without the system turn and without calls, if the model refuses these."""
    if Part.SYSTEM in without:
        turns = _without_system(turns)
    return (without_calls(turns), ()) if Part.TOOLS in without else (turns, tools)


def _function(tool: OfferedTool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "parameters": dict(tool.parameters)}


def _messages(turn: Turn, reasoning: ReasoningBack) -> Iterator[dict[str, Any]]:
    if not turn.steps:
        thought = turn.reasoning if reasoning is ReasoningBack.ALWAYS else ""
        yield {"role": turn.role, "content": turn.content} | _thought(thought)
        return
    for step in turn.steps:
        yield from _said(step, reasoning)


def _said(step: Step, reasoning: ReasoningBack) -> Iterator[dict[str, Any]]:
    """The messages of one step: the model's message, and a result for each of its calls. Endpoints require every
    result.
    """
    wanted = reasoning is ReasoningBack.ALWAYS or (reasoning is ReasoningBack.TOOL_TURNS and bool(step.calls))
    thought = _thought(step.reasoning if wanted else "")
    if not step.calls:
        yield {"role": "assistant", "content": step.content} | thought
        return
    calls = [_call(call) for call in step.calls]
    yield {"role": "assistant", "content": step.content or None, "tool_calls": calls} | thought
    for call in step.calls:
        # Some endpoints match a result to its call by `name`.
        yield {"role": "tool", "tool_call_id": short_id(call.id), "name": call.name, "content": call.result}


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    extra = None if call.extra is None else msgspec.json.decode(call.extra)
    if extra is None or (isinstance(extra, dict) and RESPONSES_EXTRA in extra):
        return {"id": short_id(call.id), "type": "function", "function": function}
    return {"id": short_id(call.id), "type": "function", "function": function, "extra_content": extra}


def _thought(text: str) -> dict[str, Any]:
    return {"reasoning_content": text} if text else {}


def short_id(id_: str) -> str:
    """An id that every endpoint accepts: Mistral requires exactly nine letters and digits."""
    return hashlib.blake2s(id_.encode(), digest_size=8).hexdigest()[:9]


def is_in(part: Part, turns: Sequence[Turn], without: Parts, tools: Sequence[OfferedTool] = ()) -> bool:
    """Whether a request has this part, if it omits the parts in `without`."""
    if part in without:
        return False
    if part in (Part.TOOLS, Part.REASONING):
        return bool(tools) or any(turn.steps for turn in turns)
    if part is Part.SYSTEM:
        return turns[0].role == "system"
    return part in (Part.STREAM, Part.CACHE_KEY) or Part.STREAM not in without


def _without_system(turns: Sequence[Turn]) -> Sequence[Turn]:
    """`turns` with the system prompt put in front of the first question."""
    if len(turns) < 2 or turns[0].role != "system" or turns[1].role != "user":
        return turns
    return [Turn("user", f"{turns[0].content}\n\n{turns[1].content}"), *turns[2:]]
