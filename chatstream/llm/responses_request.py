"""Builds Responses API requests (``POST {base_url}/responses``), with the same omissions as `dialects`.

The endpoint stores nothing (``store: false``): each request has the whole context. Encrypted reasoning arrives with the
calls and is sent back with their results while the same answer is being written. Afterwards it is dropped.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from chatstream.llm.dialects import RESPONSES_EXTRA, Parts, fitted, short_id
from chatstream.llm.faults import Part
from chatstream.llm.model import OfferedTool, Step, Turn

_ENCRYPTED: Final = "reasoning.encrypted_content"


def responses_body(
    turns: Sequence[Turn],
    model: str,
    without: Parts,
    *,
    tools: Sequence[OfferedTool] = (),
    cache_key: str | None = None,
    origin: str = "",
) -> dict[str, Any]:
    """The request's body. `origin`: the id of the endpoint and model; only their own reasoning is sent back."""
    turns, tools = fitted(turns, without, tools)
    body: dict[str, Any] = {"model": model, "stream": Part.STREAM not in without, "store": False}
    if turns and turns[0].role == "system":
        body["instructions"] = turns[0].content
        turns = turns[1:]
    if Part.REASONING in without:
        origin = ""
    body["input"] = [item for turn in turns[:-1] for item in _items(turn)]
    body["input"] += [item for turn in turns[-1:] for item in _items(turn, origin)]
    if body["stream"] and Part.USAGE not in without:
        body["stream_options"] = {"include_obfuscation": False}  # padding that hides a delta's length, and doubles it
    if tools:
        body["tools"] = [_function(tool) for tool in tools]
        if Part.REASONING not in without:
            body["include"] = [_ENCRYPTED]
    if cache_key is not None and Part.CACHE_KEY not in without:
        body["prompt_cache_key"] = cache_key
    return body


def _function(tool: OfferedTool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    # `strict`, the default there, would forbid optional fields in schemas.
    return {"type": "function", "name": tool.name, **described, "parameters": dict(tool.parameters), "strict": False}


def _items(turn: Turn, origin: str = "") -> Iterator[dict[str, Any]]:
    if not turn.steps:
        yield _message(turn.role, turn.content)
    for step in turn.steps:
        yield from _said(step, origin)


def _said(step: Step, origin: str) -> Iterator[dict[str, Any]]:
    """The items of one step. Reasoning comes first: endpoints accept it only before its own output."""
    for call in step.calls:
        yield from _thought(call.extra, origin)
    if step.content:
        yield _message("assistant", step.content)
    for call in step.calls:
        yield {
            "type": "function_call",
            "call_id": short_id(call.id),
            "name": call.name,
            "arguments": call.arguments,
        }
    for call in step.calls:
        yield {"type": "function_call_output", "call_id": short_id(call.id), "output": call.result}


def _message(role: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": text}


def _thought(extra: str | None, origin: str) -> list[dict[str, Any]]:
    """The reasoning items before a call, if they came from the same model of the same endpoint."""
    if extra is None or not origin:
        return []
    given = msgspec.json.decode(extra)
    ours = given.get(RESPONSES_EXTRA) if isinstance(given, dict) else None
    return ours["items"] if ours is not None and ours["origin"] == origin else []
