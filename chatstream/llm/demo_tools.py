"""The demo models' tool calls: which calls they make, in the different forms of real endpoints. Pure."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final

from chatstream.llm.demo_answers import Called, Wanted

# Maximum number of characters of a result in an answer that quotes it.
_LONGEST: Final = 500
# Calls of `many`: more than the server carries out (`CHATSTREAM_TOOL_CALLS`).
_MANY: Final = 40
_SIGNATURE: Final = "c2lnbmVk"  # Gemini's signatures are opaque bytes in Base64
_MISTRAL_ID: Final = re.compile(r"[A-Za-z0-9]{9}")

Message = Mapping[str, Any]
Delta = list[dict[str, Any]]
"""The ``tool_calls`` of one chunk."""


def called_since(messages: Sequence[Message]) -> list[Called]:
    """The calls since the last question, with their results."""
    found: list[Called] = []
    results: dict[str, str] = {}
    for message in reversed(messages):
        if message.get("role") == "user":
            break
        if message.get("role") == "tool":
            results[str(message.get("tool_call_id"))] = _text(message.get("content"))
        for one in reversed(message.get("tool_calls") or ()):
            function = one["function"]
            found.insert(0, Called(function["name"], _object(function["arguments"]), results.get(one["id"], "")))
    return found


def mistake(messages: Sequence[Message]) -> str | None:
    """The error for which endpoints refuse a conversation: a call without a result, or a result without a call."""
    open_calls: list[str] = []
    for message in messages:
        if message.get("role") == "tool":
            if message.get("tool_call_id") not in open_calls:
                return "A message with role 'tool' must be a response to a preceding message with 'tool_calls'."
            open_calls.remove(message["tool_call_id"])
        elif open_calls:
            return f"No tool output found for function call {open_calls[0]}."
        open_calls += [one["id"] for one in message.get("tool_calls") or ()]
    return f"No tool output found for function call {open_calls[0]}." if open_calls else None


def mistake_of_gemini(messages: Sequence[Message]) -> str | None:
    """As `mistake`; also an error for a call without its signature."""
    calls = [one for message in messages for one in message.get("tool_calls") or ()]
    if any((one.get("extra_content") or {}).get("google", {}).get("thought_signature") != _SIGNATURE for one in calls):
        return "Function call is missing a thought_signature in functionCall parts."
    return mistake(messages)


def mistake_of_mistral(messages: Sequence[Message]) -> str | None:
    """As `mistake`; also an error for an id that is not in Mistral's form."""
    calls = [one for message in messages for one in message.get("tool_calls") or ()]
    if not all(_MISTRAL_ID.fullmatch(one["id"]) for one in calls):
        return "Tool call id has to be defined, and must be a-z, A-Z, 0-9, with a length of 9."
    return mistake(messages)


def sample(offered: Sequence[Mapping[str, Any]]) -> tuple[Wanted, ...]:
    """Two calls of the first offered tool, with a value for each required parameter."""
    for tool in offered[:1]:
        function = tool["function"]
        parameters = function.get("parameters") or {}
        properties = parameters.get("properties") or {}
        needed = {name: _some(properties.get(name) or {}) for name in parameters.get("required") or ()}
        return (Wanted(function["name"], needed),) * 2
    return ()


def _some(schema: Mapping[str, Any]) -> Any:
    for word in ("examples", "enum"):
        if schema.get(word):
            return schema[word][0]
    for word in ("const", "default"):
        if word in schema:
            return schema[word]
    plain: Mapping[str, Any] = {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}, "null": None}
    return plain.get(str(schema.get("type")), "demo")


def told(called: Sequence[Called]) -> str:
    """An answer that quotes results."""
    one = called[-1]
    return f"I called `{one.name}`, and this is what it said:\n\n> {one.result[:_LONGEST]}"


# The forms ------------------------------------------------------------------------------------------------------------


def whole(wanted: Sequence[Wanted], seed: str) -> Iterator[Delta]:
    """Yield calls as OpenAI does: one call after the other, the arguments in pieces."""
    for index, one in enumerate(wanted):
        yield [_begun(index, one, seed)]
        for piece in _pieces(one):
            yield [{"index": index, "function": {"arguments": piece}}]


def interleaved(wanted: Sequence[Wanted], seed: str) -> Iterator[Delta]:
    """All calls at the same time, a piece of each in turn."""
    for index, one in enumerate(wanted):
        yield [_begun(index, one, seed)]
    pieces = [list(_pieces(one)) for one in wanted]
    while any(pieces):
        yield [{"index": index, "function": {"arguments": left.pop(0)}} for index, left in enumerate(pieces) if left]


def ollama(wanted: Sequence[Wanted], seed: str) -> Iterator[Delta]:
    """Ollama's form: all calls complete in one chunk, without indexes."""
    yield [
        {"id": _id(seed, index), "function": {"name": one.name, "arguments": json.dumps(one.arguments)}}
        for index, one in enumerate(wanted)
    ]


def gemini(wanted: Sequence[Wanted], seed: str) -> Iterator[Delta]:
    """Gemini's form: each call complete in its own chunk, all with index 0, with a signature that must be sent back."""
    for index, one in enumerate(wanted):
        function = {"name": one.name, "arguments": json.dumps(one.arguments)}
        extra = {"google": {"thought_signature": _SIGNATURE}}
        yield [{"index": 0, "id": _id(seed, index), "type": "function", "function": function, "extra_content": extra}]


def mistral(wanted: Sequence[Wanted], seed: str) -> Iterator[Delta]:
    """Mistral's form: each call complete, with the id ``"null"``."""
    yield [
        {"index": index, "id": "null", "function": {"name": one.name, "arguments": json.dumps(one.arguments)}}
        for index, one in enumerate(wanted)
    ]


def broken(wanted: Sequence[Wanted], seed: str) -> Iterator[Delta]:
    """A call with arguments that are not JSON."""
    for index, one in enumerate(wanted):
        begun = _begun(index, one, seed)
        begun["function"]["arguments"] = "{selection: 'Arsenal', }"
        yield [begun]


def half(wanted: Sequence[Wanted], seed: str) -> Iterator[Delta]:
    """An incomplete call."""
    yield [_begun(0, wanted[0], seed)]
    text = json.dumps(wanted[0].arguments)
    yield [{"index": 0, "function": {"arguments": text[: len(text) // 2]}}]


Form = Callable[[Sequence[Wanted], str], Iterator[Delta]]


def many(wanted: Sequence[Wanted]) -> Sequence[Wanted]:
    """More calls than the server carries out."""
    return [wanted[0]] * _MANY


def unknown(wanted: Sequence[Wanted]) -> Sequence[Wanted]:
    """A call of a tool that was not offered."""
    return [Wanted("launch_rocket", wanted[0].arguments)]


def _begun(index: int, one: Wanted, seed: str) -> dict[str, Any]:
    return {
        "index": index,
        "id": _id(seed, index),
        "type": "function",
        "function": {"name": one.name, "arguments": ""},
    }


def _id(seed: str, index: int) -> str:
    return f"call_{sha256(f'{seed}.{index}'.encode()).hexdigest()[:24]}"


def _pieces(one: Wanted) -> Iterator[str]:
    """The arguments in pieces of a few characters, like tokens."""
    yield from re.findall(r".{1,6}", json.dumps(one.arguments))


def _object(arguments: object) -> Mapping[str, Any]:
    try:
        given = json.loads(str(arguments))
    except ValueError:
        return MappingProxyType({})
    return given if isinstance(given, dict) else MappingProxyType({})


def _text(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")
