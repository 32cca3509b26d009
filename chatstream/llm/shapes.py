"""What stands where in the chunks of OpenAI-compatible endpoints, whatever it is called there. Pure; knows no order."""

from typing import Any, Final, TypeGuard

from msgspec import UNSET, UnsetType

from chatstream.models import Usage, UsageSource
from chatstream.pieces import Kind

Json = dict[str, Any]

# Finish reasons are words; whatever else stands there is stored and shown, so it is cut.
_MAX_REASON: Final = 64
# JSON's and MongoDB's numbers end somewhere; a token count past 2**53 is not one.
_MAX_TOKENS: Final = 2**53
# What a model thought may stand in the total alone, as with Gemini: at most what it may say at all.
_MAX_UNTOLD: Final = 65_536
# Where endpoints put what a model thinks. Some put the same in two of them, of which the first is taken.
_REASONING: Final = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "reasoning_details")
_ANY_REASONING: Final = frozenset(_REASONING)
# What is a sign of life besides.
_NOT_TEXT: Final = frozenset({*_REASONING, "tool_calls", "function_call", "audio"})
_CHUNK_KEYS: Final = frozenset({"choices", "usage", "x_groq", "prompt_filter_results"})
# The types of the parts of a `content` that are text, and those that are thinking ...
_TEXT_TYPES: Final = ("text", "output_text")
_REASONING_TYPES: Final = ("thinking", "reasoning", "reasoning_text", "reasoning_content", "summary_text")
# ... and where these have it: as a string, or as a list of parts again. No endpoint nests them deeper.
_REASONING_KEYS: Final = ("thinking", "text", "reasoning", "reasoning_text", "content", "summary")
_MAX_DEPTH: Final = 4
# Other words for OpenAI's reasons: so that whoever reads one knows a whole answer from one that was cut.
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
# What stands in the place of a reason while there is none.
_NO_REASONS: Final = {"", "null", "none", "finish_reason_unspecified"}
# The answer broke off at the endpoint: OpenRouter, Zhipu, DeepSeek, vLLM, Cohere.
BROKEN_OFF: Final = {"error", "network_error", "insufficient_system_resource", "abort", "aborted", "cancelled"}
# Where an object says that it is a failure, if it is no answer.
_FAILURES: Final = ("errors", "detail", "message", "msg", "error_message", "error_msg", "errorMessage")
# Other APIs that an address may lead to, by the type of what they send: one that ends in a dot or a dash, by its
# beginning.
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
# ... and by what only theirs have.
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
# An object of one of these types only shows that the endpoint is there.
_SIGNS_OF_LIFE: Final = ("ping", "heartbeat", "keep")


def choices_of(chunk: Json) -> list[Json]:
    """The chunk's `choices`, as a list of objects whatever the endpoint makes of them. We ask for one."""
    choices = chunk.get("choices")
    if isinstance(choices, dict):  # the only one, without a list around it
        return [choices]
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def other_api(chunk: Json) -> str | None:
    """The API that this object is an answer of, if it is one that we know and do not speak."""
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
    """Whether an object without a text may be one of an answer's: most endpoints send some that say nothing."""
    return not _CHUNK_KEYS.isdisjoint(chunk) or is_sign_of_life(chunk)


def is_sign_of_life(chunk: Json) -> bool:
    """Whether this object only shows that the endpoint is there."""
    kind = str(chunk.get("type") or chunk.get("event") or chunk.get("object") or "").lower()
    return not chunk or any(sign in kind for sign in _SIGNS_OF_LIFE)


def said_in(delta: Json) -> list[tuple[Kind, str]]:
    """What a delta or a message says, in order: text, and what the model thinks. None of it is empty."""
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
    if isinstance(content, dict) and "type" in content:  # the only part, without a list around it
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
    """What it says in place of an answer."""
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
    """Whether it says something that is no text: reasoning, a tool call."""
    return bool(delta.get("content")) or any(delta[key] for key in _NOT_TEXT.intersection(delta))


def reason_of(choice: Json) -> str | None:
    """The finish reason, in OpenAI's words where they are known; None if there is none."""
    reason = choice.get("finish_reason") or choice.get("finishReason")
    if not isinstance(reason, str) or reason.strip().lower() in _NO_REASONS:
        return None
    word = reason.strip().lower()
    if word in _REASONS or word in BROKEN_OFF or word in ("stop", "length", "content_filter", "tool_calls"):
        return _REASONS.get(word, word)
    return valid(reason[:_MAX_REASON])


def failure_of(chunk: Json) -> object:
    """What says that there will be no answer: an error object, whatever it is called; None if nothing does."""
    if chunk.get("error"):
        # Its code may stand beside it, as in {"error": "…", "code": 429}.
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
    said = (chunk.get(key) for key in _FAILURES)
    return chunk if any(isinstance(value, str | list) and value for value in said) else None


def usage_of(chunk: Json, *, final: bool) -> Usage | None:
    """The token counts, wherever the chunk has them; `final` if they are the model's last word."""
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
    """How many of `most` tokens are `what`; unset if that is not said, or cannot be."""
    places = (usage.get(name), usage.get(other_name))
    details = next((place for place in places if isinstance(place, dict)), None)
    count = None if details is None else _count(details, what)
    return UNSET if count is None or count > most else count


def _count(usage: Json, *names: str) -> int | None:
    values = (usage.get(name) for name in names)
    value = next((value for value in values if value is not None), None)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if _is_count(value) else None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_TOKENS


def valid(text: str) -> str:
    """`text` with each lone surrogate replaced by U+FFFD, and each pair by the character it stands for."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
