"""From the bytes of an OpenAI-compatible stream to text. Pure: bytes in, text out, however they were cut.

Nearly all chunks have one shape, which msgspec reads in a third of a microsecond; any other goes through a tolerant
path, since what the endpoints send differs in every detail.
"""

import json
from typing import Annotated, Any, Final, Literal, TypeGuard

import msgspec
from msgspec import Meta, Struct

from chatstream.errors import ErrorCode
from chatstream.llm.faults import Fault, from_error
from chatstream.llm.model import Finish
from chatstream.llm.splitting import EventSplitter
from chatstream.models import Usage, UsageSource

# No chunk of an honest model comes near it; an endpoint that sends no line end must not fill the memory.
MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
# Finish reasons are words; whatever else stands there is stored and shown, so it is cut.
_MAX_REASON: Final = 64
# JSON's and MongoDB's numbers end somewhere; a token count past 2**53 is not one.
_MAX_TOKENS: Final = 2**53
_REASONING: Final = ("reasoning", "reasoning_content", "reasoning_text", "tool_calls", "function_call", "audio")


class _PlainDelta(Struct):
    content: Annotated[str, Meta(min_length=1)]
    refusal: None = None
    tool_calls: None = None


class _PlainChoice(Struct):
    delta: _PlainDelta
    index: Literal[0] = 0
    finish_reason: None = None


class _PlainChunk(Struct):
    """The shape of nearly all chunks: text and nothing else. The types are the filter."""

    choices: tuple[_PlainChoice]
    usage: None = None
    error: None = None


_plain = msgspec.json.Decoder(_PlainChunk)


class AnswerDecoder:
    """Reads one streamed answer.

    `tokens` counts the chunks that brought some: text, but also reasoning and tool calls, which are not text.
    `finished` is set by a finish reason, `fault` by whatever ends the answer badly; what comes after is not read,
    but for the token counts and the end mark, `done`.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self.finished: str | None = None
        self.fault: Fault | None = None
        self.done = False
        self._usage: Usage | None = None
        self._refused = False
        self._surrogate = ""  # the first half of a character whose second half is in the next delta
        self._events = EventSplitter()

    @property
    def finish(self) -> Finish:
        """How the answer ended, once it is `finished`.

        A refusal is text like any other to a reader, so its reason must say what it is: models end one with ``stop``.
        """
        reason = self.finished or ""
        return Finish(reason="refusal" if self._refused and reason == "stop" else reason, usage=self._usage)

    def feed(self, data: bytes) -> list[str]:
        """The texts in `data`, in order, none empty and each valid Unicode."""
        texts = []
        for event in self._events.feed(data):
            text = self._read(event) if len(event) <= MAX_EVENT_BYTES else self._fail("an event over 4 MiB")
            if text:
                texts.append(text)
        if self._events.held > MAX_EVENT_BYTES:
            self._fail("an event over 4 MiB")
        return texts

    def end(self) -> list[str]:
        """The texts that were still held when the stream ended; afterwards `finished` or `fault` is set."""
        # Some servers end without the last blank line: a whole last chunk counts. Half of one is no fault of its own.
        texts, fault = self.feed(b"\n\n"), self.fault
        if self.finished is None and (fault is None or fault.code is ErrorCode.UPSTREAM_PROTOCOL):
            texts += filter(None, [self._truncate()])
        return texts

    def complete(self, document: bytes) -> list[str]:
        """The texts of an answer that came whole, as one JSON document; afterwards `finished` or `fault` is set."""
        text = self._read(document)
        if self.finished is None and self.fault is None:
            self._fail("a JSON document that is neither an answer nor an error")
        return [text] if text and self.fault is None else []

    def _read(self, event: bytes) -> str:
        if self.finished is None and self.fault is None:
            try:
                text = _plain.decode(event).choices[0].delta.content
            except (ValueError, RecursionError):  # msgspec's errors, bad UTF-8, a thousand brackets
                return self._read_tolerantly(event)
            self.tokens += 1
            return self._whole(text) if self._surrogate else text
        if self.finished is not None:
            self._read_tolerantly(event)
        return ""

    def _read_tolerantly(self, event: bytes) -> str:
        data = event.decode("utf-8", "replace").strip()
        if not data:
            return ""
        if data == "[DONE]":
            self.done = True
            return self._truncate() if self.finished is None else ""
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            return self._fail("a chunk that is not JSON")
        if not isinstance(chunk, dict):
            return self._fail("a chunk that is not an object")
        self._count(chunk.get("usage"), final=self.finished is not None)
        if self.finished is not None:
            return ""
        if chunk.get("error") or chunk.get("object") == "error":
            self.fault = from_error(chunk.get("error") or chunk)
            return ""
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and (not isinstance(choice.get("index"), int) or choice["index"] == 0):
                return self._read_choice(choice, chunk.get("usage"))
        return ""

    def _read_choice(self, choice: dict[str, Any], usage: object) -> str:
        delta = choice.get("delta") or choice.get("message")  # `message` in an answer that came whole
        text = ""
        if isinstance(delta, dict):
            refusal = _text(delta.get("refusal"))
            self._refused = self._refused or bool(refusal)
            text = _text(delta.get("content")) + refusal
            if text or delta.get("content") or any(delta.get(key) for key in _REASONING):
                self.tokens += 1
        reason = choice.get("finish_reason")
        if reason == "error":  # OpenRouter; the chunk's own error object, if any, was seen before
            self.fault = Fault(ErrorCode.UPSTREAM_UNAVAILABLE, "finish reason error", transient=True)
        elif reason and isinstance(reason, str):
            self.finished = _valid(reason[:_MAX_REASON])
            self._count(usage, final=True)
        return self._whole(text) if text or self.finished else ""

    def _whole(self, text: str) -> str:
        """`text` with its surrogates paired or replaced; the first half of a pair at its end waits for the next."""
        text = self._surrogate + text
        self._surrogate = ""
        if text and "\ud800" <= text[-1] <= "\udbff" and not (self.finished or self.fault):
            self._surrogate = text[-1]
            text = text[:-1]
        return _valid(text)

    def _count(self, usage: object, *, final: bool) -> None:
        if not isinstance(usage, dict):
            return
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if _is_count(prompt) and _is_count(completion):
            total = usage.get("total_tokens")
            self._usage = Usage(
                prompt_tokens=prompt,
                completion_tokens=completion,
                total_tokens=total if _is_count(total) else prompt + completion,
                source=UsageSource.EXACT if final else UsageSource.PARTIAL,
            )

    def _truncate(self) -> str:
        self.fault = Fault(ErrorCode.UPSTREAM_TRUNCATED, "the stream ended without a finish reason", transient=True)
        return self._whole("")

    def _fail(self, what: str) -> str:
        if self.finished is None and self.fault is None:
            self.fault = Fault(ErrorCode.UPSTREAM_PROTOCOL, what)
        return ""


def _text(content: object) -> str:
    """The text of a `content`: a string, or a list of parts, of which those of type ``text`` are text."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(
        part["text"]
        for part in parts
        if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    )


def _valid(text: str) -> str:
    """`text` with each lone surrogate replaced by U+FFFD, and each pair by the character it stands for."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_TOKENS
