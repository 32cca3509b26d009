"""Finds the fields of chunks, under all names that OpenAI-compatible endpoints use for them. Pure; keeps no state."""

import codecs
from typing import Any, Final, TypeGuard

from msgspec import UNSET, UnsetType

from chatstream.models import Usage, UsageSource
from chatstream.pieces import Kind

Json = dict[str, Any]

# Longest finish reason, in characters: it is stored and shown, so a longer text is cut.
_MAX_REASON: Final = 64
# Largest token count: JSON's and MongoDB's numbers have a limit.
_MAX_TOKENS: Final = 2**53
# Maximum number of reasoning tokens that are counted only in the total, as by Gemini: the longest output of a model.
_MAX_UNTOLD: Final = 65_536
# The fields for reasoning. Some endpoints send the same in two of them: the first one is used.
_REASONING: Final = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "reasoning_details")
_ANY_REASONING: Final = frozenset(_REASONING)
# Fields other than text that show that the model is working.
_NOT_TEXT: Final = frozenset({*_REASONING, "tool_calls", "function_call", "audio"})
_CHUNK_KEYS: Final = frozenset({"choices", "usage", "x_groq", "prompt_filter_results"})
# The types of `content` parts that are text, and of those that are reasoning.
_TEXT_TYPES: Final = ("text", "output_text")
_REASONING_TYPES: Final = ("thinking", "reasoning", "reasoning_text", "reasoning_content", "summary_text")
# The fields of a reasoning part: each a string, or once more a list of parts. No endpoint nests deeper.
_REASONING_KEYS: Final = ("thinking", "text", "reasoning", "reasoning_text", "content", "summary")
_MAX_DEPTH: Final = 4
# Other endpoints' finish reasons, translated to OpenAI's, so that clients can recognise a truncated answer.
_REASONS: Final = {
    "end_turn": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "complete": "stop",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "safety": "content_filter",
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "content_filtered": "content_filter",
    "sensitive": "content_filter",
}
# Values that some endpoints send while there is no finish reason.
_NO_REASONS: Final = {"", "null", "none", "finish_reason_unspecified"}
# Finish reasons for an answer that the endpoint interrupted: OpenRouter, Zhipu, DeepSeek, vLLM, Cohere.
BROKEN_OFF: Final = {"error", "network_error", "insufficient_system_resource", "abort", "aborted", "cancelled"}
# Fields that mark an object as an error, if it is no chunk.
_FAILURES: Final = ("errors", "detail", "message", "msg", "error_message", "error_msg", "errorMessage")
# Other APIs, by the `type` of their objects. A type that ends in a dot or a dash is a prefix.
_OTHER_TYPES: Final = {
    "response.": "the Responses API",
    "response": "the Responses API",
    "message_start": "Anthropic's Messages API",
    "content_block_start": "Anthropic's Messages API",
    "content_block_delta": "Anthropic's Messages API",
    "message": "Anthropic's Messages API",
    "message-": "Cohere's own API",
    "content-": "Cohere's own API",
    "list": "an API that lists something",
}
# Other APIs, by fields that only they have.
_OTHER_KEYS: Final = {
    ("done", "message"): "Ollama's own API",
    ("done", "response"): "Ollama's own API",
    ("candidates",): "Gemini's own API",
    ("event_type",): "Cohere's own API",
    ("generated_text",): "TGI's own API",
    ("content", "stop"): "llama.cpp's own API",
    ("messageStart",): "Bedrock's own API",
    ("contentBlockDelta",): "Bedrock's own API",
}
# The types of objects that only keep the connection alive.
_SIGNS_OF_LIFE: Final = ("ping", "heartbeat", "keep")


def choices_of(chunk: Json) -> list[Json]:
    """The chunk's `choices` as a list of objects, in any endpoint's form. We ask for one."""
    choices = chunk.get("choices")
    if isinstance(choices, dict):  # a single one, not in a list
        return [choices]
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def other_api(chunk: Json) -> str | None:
    """The name of the other API that sent this object, if it is a known one."""
    if "choices" in chunk:
        return None
    for keys, api in _OTHER_KEYS.items():
        if all(key in chunk for key in keys):
            return api
    kind = str(chunk.get("type") or chunk.get("object") or "")
    for begin, api in _OTHER_TYPES.items():
        if kind == begin or (begin.endswith((".", "-")) and kind.startswith(begin)):
            return api
    return None


def is_chunk(chunk: Json) -> bool:
    """Whether an object without text may be a chunk of an answer: most endpoints send some without content."""
    return not _CHUNK_KEYS.isdisjoint(chunk) or is_sign_of_life(chunk)


def is_sign_of_life(chunk: Json) -> bool:
    """Whether this object only keeps the connection alive."""
    kind = str(chunk.get("type") or chunk.get("event") or chunk.get("object") or "").lower()
    return not chunk or any(sign in kind for sign in _SIGNS_OF_LIFE)


def said_in(delta: Json) -> list[tuple[Kind, str]]:
    """The text and reasoning of a delta or a message, in order. No string is empty."""
    said: list[tuple[Kind, str]] = []
    thought = ""
    if not _ANY_REASONING.isdisjoint(delta):
        thought = next((text for key in _REASONING if (text := _thought(delta.get(key)))), "")
    if thought:
        said.append((Kind.REASONING, thought))
    content = delta.get("content")
    if content is None:
        content = delta.get("text")
    if isinstance(content, str):
        said.append((Kind.TEXT, content))
    if isinstance(content, dict) and "type" in content:  # a single part, not in a list
        content = [content]
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            said.append((Kind.TEXT, part))
        elif isinstance(part, dict):
            type_ = part.get("type", "text")
            if type_ in _TEXT_TYPES and isinstance(part.get("text"), str):
                said.append((Kind.TEXT, part["text"]))
            elif type_ in _REASONING_TYPES and not thought:
                said.append((Kind.REASONING, _thought(part)))
    return [(kind, text) for kind, text in said if text]


def refusal_in(delta: Json) -> str:
    """The text of a refusal in this delta, else empty."""
    refusal = delta.get("refusal")
    return "".join(text for _, text in said_in({"content": refusal})) if refusal else ""


def _thought(value: object, depth: int = 0) -> str:
    if isinstance(value, str):
        return value
    if depth == _MAX_DEPTH:
        return ""
    if isinstance(value, list):
        return "".join([_thought(one, depth + 1) for one in value])
    if isinstance(value, dict):
        return next((text for key in _REASONING_KEYS if (text := _thought(value.get(key), depth + 1))), "")
    return ""


def is_alive(delta: Json) -> bool:
    """Whether the delta has content other than text: reasoning, a tool call."""
    return bool(delta.get("content")) or any(delta[key] for key in _NOT_TEXT.intersection(delta))


def reason_of(choice: Json) -> str | None:
    """The finish reason, translated to OpenAI's words if known; None if there is none."""
    reason = choice.get("finish_reason") or choice.get("finishReason")
    if not isinstance(reason, str) or reason.strip().lower() in _NO_REASONS:
        return None
    word = reason.strip().lower()
    if word in _REASONS or word in BROKEN_OFF or word in ("stop", "length", "content_filter", "tool_calls"):
        return _REASONS.get(word, word)
    return valid(reason[:_MAX_REASON])


def failure_of(chunk: Json) -> object:
    """The chunk's error object, under any name; None if there is none."""
    if chunk.get("error"):
        # The code may be beside the error, as in {"error": "…", "code": 429}.
        return {key: chunk[key] for key in ("code", "status", "type", "error") if key in chunk}
    if "error" in (chunk.get("object"), chunk.get("type"), chunk.get("event")):
        return chunk
    choices = choices_of(chunk)
    if choices:
        return next((choice["error"] for choice in choices if choice.get("error")), None)
    if is_sign_of_life(chunk):
        return None
    status = chunk.get("base_resp")  # MiniMax
    if isinstance(status, dict) and status.get("status_code"):
        return status
    for key in _FAILURES:  # loops cost half of what generators do, and each answer has a chunk for each of them
        if key in chunk and chunk[key] and isinstance(chunk[key], str | list):
            return chunk
    return None


def usage_of(chunk: Json, *, final: bool) -> Usage | None:
    """Return the token counts of a chunk, from any field that endpoints use. `final`: no later counts replace them."""
    groq = chunk.get("x_groq")
    places = [chunk, *choices_of(chunk), *([groq] if isinstance(groq, dict) else [])]
    for place in places:
        usage = place.get("usage")
        if not isinstance(usage, dict):
            continue
        prompt = _count(usage, "prompt_tokens", "input_tokens")
        completion = _count(usage, "completion_tokens", "output_tokens")
        if prompt is not None and completion is not None and prompt + completion:
            total, least = _count(usage, "total_tokens"), prompt + completion
            plausible = total is not None and least <= total <= least + _MAX_UNTOLD
            return Usage(
                prompt_tokens=prompt,
                completion_tokens=completion,
                total_tokens=total if total is not None and plausible else least,
                source=UsageSource.EXACT if final else UsageSource.PARTIAL,
                cached_tokens=_detail(usage, prompt, "prompt_tokens_details", "input_tokens_details", "cached_tokens"),
                reasoning_tokens=_detail(
                    usage, completion, "completion_tokens_details", "output_tokens_details", "reasoning_tokens"
                ),
            )
    return None


def _detail(usage: Json, most: int, name: str, other_name: str, what: str) -> int | UnsetType:
    """The count of a kind of tokens (`what`), at most `most`; UNSET if it is missing or impossible."""
    places = (usage.get(name), usage.get(other_name))
    details = next((place for place in places if isinstance(place, dict)), None)
    count = None if details is None else _count(details, what)
    return UNSET if count is None or count > most else count


def _count(usage: Json, *names: str) -> int | None:
    value = None
    for name in names:
        if (value := usage.get(name)) is not None:
            break
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if _is_count(value) else None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_TOKENS


# Python loads a codec when it is first named: here, and not during the first answer.
_UTF_16: Final = codecs.lookup("utf-16-le").name


def valid(text: str) -> str:
    """`text` with each lone surrogate replaced by U+FFFD, and each pair by the character it stands for."""
    return text.encode(_UTF_16, "surrogatepass").decode(_UTF_16, "replace")
