"""Real responses by endpoint and peculiarity: bytes in, text and ending out. Add a new one as a line here."""

import json
from typing import Any

import pytest

from chatstream.errors import ErrorCode
from chatstream.llm.decoding import AnswerDecoder
from chatstream.llm.shapes import usage_of
from chatstream.models import Usage
from chatstream.pieces import text as text_of
from tests.support.decoding import fed
from tests.support.upstream import DONE, delta, event

STOP = delta(finish_reason="stop")
A = delta("a")

TRUNCATED = ErrorCode.UPSTREAM_TRUNCATED
PROTOCOL = ErrorCode.UPSTREAM_PROTOCOL
UNAVAILABLE = ErrorCode.UPSTREAM_UNAVAILABLE
RATE = ErrorCode.UPSTREAM_RATE_LIMITED
REJECTED = ErrorCode.UPSTREAM_REJECTED
MISCONFIGURED = ErrorCode.UPSTREAM_MISCONFIGURED
CONTEXT = ErrorCode.CONTEXT_TOO_LONG


def sse(*chunks: object) -> bytes:
    return b"".join(map(event, chunks))


def chunk(**choice: Any) -> dict[str, Any]:
    """A chunk with this choice."""
    return {"choices": [choice]}


def read(body: bytes, content_type: str, size: int) -> tuple[str, str | None]:
    """The text, and the finish reason or the error's code, of a body that comes in pieces of `size` bytes."""
    decoder = AnswerDecoder(content_type)
    pieces = fed(decoder, body, size)
    assert "" not in pieces
    return text_of(pieces), decoder.fault.code if decoder.fault else decoder.finish.reason


def ending(body: bytes, text: str, end: str, name: str, content_type: str = "text/event-stream") -> Any:
    return pytest.param(body, content_type, text, end, id=name)


WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]}
LINES = b"".join(json.dumps(each).encode() + b"\n" for each in (A, delta("b"), STOP))
OK = sse(A, STOP, DONE)


@pytest.mark.parametrize(
    ("body", "content_type", "text", "end"),
    [
        # Where the end is
        ending(
            sse(delta("a", finish_reason="stop"), delta("b", finish_reason="stop"), DONE), "ab", "stop", "each ends"
        ),
        ending(sse(delta(reasoning_content="x", finish_reason="stop"), A, STOP, DONE), "a", "stop", "reasoning ends"),
        ending(sse(STOP, A, DONE), "a", "stop", "the reason comes first"),
        ending(sse(A, STOP, delta("b", finish_reason="length"), DONE), "ab", "length", "the last reason counts"),
        ending(sse(A, STOP, delta(finish_reason="length"), DONE), "a", "length", "two reasons"),
        ending(sse(A, DONE), "a", "stop", "no reason, but an end mark"),
        ending(sse(A) + b"data: [DONE]", "a", "stop", "an end mark without a line end"),
        ending(sse(A, b'"[DONE]"'), "a", "stop", "an end mark in quotes"),
        ending(sse(A, b"[done]"), "a", "stop", "an end mark in small letters"),
        ending(sse(A, DONE, delta("no"), {"error": "late"}), "a", "stop", "text after the end mark"),
        ending(sse(A), "a", TRUNCATED, "neither"),
        ending(sse(delta("a", finish_reason="")), "a", TRUNCATED, "an empty reason"),
        ending(sse(delta("a", finish_reason="null"), delta("b", finish_reason="length")), "ab", "length", "null"),
        ending(sse(delta("a", finish_reason="FINISH_REASON_UNSPECIFIED"), STOP), "a", "stop", "unspecified"),
        ending(sse(delta("a", finish_reason="stop")) + b'data: {"choices": [{"del', "a", TRUNCATED, "more was to come"),
        ending(sse(A, STOP) + b'data: {"choices": [], "us', "a", "stop", "half the token counts"),
        ending(sse(A, delta(finish_reason="MAX_TOKENS")), "a", "length", "length in other words"),
        ending(sse(A, delta(finish_reason="end_turn")), "a", "stop", "stop in other words"),
        ending(sse(A, delta(finish_reason="SAFETY")), "a", "content_filter", "filter in other words"),
        ending(
            sse(A, delta(finish_reason="insufficient_system_resource")), "a", UNAVAILABLE, "broken off in other words"
        ),
        # The kind of the body
        ending(OK, "a", "stop", "SSE as text", "text/plain; charset=utf-8"),
        ending(OK, "a", "stop", "SSE as bytes", "application/octet-stream"),
        ending(OK, "a", "stop", "SSE as JSON", "application/json"),
        ending(OK, "a", "stop", "SSE without a type", ""),
        ending(b": hi\n\n" + OK, "a", "stop", "a comment first", "text/plain"),
        ending(b"event: x\n" + OK, "a", "stop", "an event's name first", "text/plain"),
        ending(b"id:1\n" + OK, "a", "stop", "an id first", "text/plain"),
        ending(b"retry: 5\n\n" + OK, "a", "stop", "a retry first", "text/plain"),
        ending(b"\r\n\n \n" + OK, "a", "stop", "blank lines first", "application/json"),
        ending(b"\xef\xbb\xbf" + OK, "a", "stop", "a byte order mark first", "text/plain"),
        ending(json.dumps(WHOLE).encode(), "a", "stop", "JSON as SSE"),
        ending(json.dumps(WHOLE, indent=2).encode(), "a", "stop", "JSON as text", "text/plain"),
        ending(
            b"\xef\xbb\xbf\n " + json.dumps(WHOLE).encode() + b"\n",
            "a",
            "stop",
            "JSON behind blanks",
            "application/json",
        ),
        ending(json.dumps({"choices": [{"message": {"content": "a"}}]}).encode(), "a", "stop", "JSON without a reason"),
        ending(LINES, "ab", "stop", "JSON lines", "application/x-ndjson"),
        ending(LINES + b"[DONE]\n", "ab", "stop", "JSON lines with an end mark"),
        ending(b"<!doctype html>", "", MISCONFIGURED, "a page", "text/html"),
        ending(b"Internal error", "", PROTOCOL, "some text", "text/plain"),
        ending(b"", "", TRUNCATED, "nothing", "application/json"),
        ending(b'{"choices": [', "", TRUNCATED, "half a document", "application/json"),
        ending(b'{"hello": 1}', "", MISCONFIGURED, "some JSON", "application/json"),
        # Chunks without content
        ending(sse(b"ping", A, b"null", b"{}", b"1", b"true", b'"x"', STOP, DONE), "a", "stop", "odd frames"),
        ending(b"event: ping\ndata: {}\n\n" + OK, "a", "stop", "ping events"),
        ending(sse({"type": "ping"}, {"type": "heartbeat", "message": "alive"}, A, STOP), "a", "stop", "signs of life"),
        ending(b": OPENROUTER PROCESSING\n\n" + OK, "a", "stop", "OpenRouter waits"),
        ending(sse(b"hello"), "", PROTOCOL, "nothing else"),
        # Lines
        ending(OK.replace(b"\n\n", b"\n"), "a", "stop", "no blank lines"),
        ending(OK.replace(b"\n\n", b"\r"), "a", "stop", "carriage returns alone"),
        ending(OK.replace(b"\n", b"\r\n"), "a", "stop", "CRLF"),
        ending(
            b"data: " + json.dumps(A, indent=1).replace("\n", "\ndata: ").encode() + b"\n\n" + sse(STOP),
            "a",
            "stop",
            "pretty",
        ),
        ending(b"data: " + LINES.replace(b"\n", b"\ndata: ") + b"\n\n", "ab", "stop", "several objects in an event"),
        ending(
            b"data: " + b"".join(json.dumps(each).encode() for each in (A, delta("b"), STOP)) + b"\n\n",
            "ab",
            "stop",
            "several objects in a line",
        ),
        ending(b"data: " + json.dumps(A).encode() + b" [DONE]\n\n", "a", "stop", "an end mark in the same line"),
        ending(b"data: " + json.dumps(A).encode() + b'{"choi\n\n', "a", PROTOCOL, "an object and a half"),
        ending(OK.replace(b"data: ", b"data: data: "), "a", "stop", "an event in an event"),
        ending(OK.replace(b"data: ", b"data:data:data:"), "a", "stop", "an event in an event in an event"),
        ending(sse(json.dumps(A), STOP), "a", "stop", "JSON in a string"),
        # Another encoding
        ending(OK.decode().encode("utf-16"), "a", "stop", "UTF-16"),
        ending(OK.decode().encode("utf-16-be"), "a", "stop", "UTF-16, the other way round, without a mark"),
        ending(
            OK.decode().encode("utf-16-le"), "a", "stop", "UTF-16 without a mark", "text/event-stream;charset=utf-16"
        ),
        ending(("\ufeff" + json.dumps(WHOLE)).encode("utf-16-be"), "a", "stop", "JSON in UTF-16", "application/json"),
        ending(json.dumps(WHOLE).encode("utf-32"), "a", "stop", "UTF-32", "application/json"),
        # The choice that is read
        ending(sse({"choices": {"delta": {"content": "a"}}}, STOP), "a", "stop", "a choice that is no list"),
        ending(sse(delta(content={"type": "text", "text": "a"}), STOP), "a", "stop", "a part that is no list"),
        ending(
            sse(chunk(index=1, delta={"content": "a"}), chunk(index=1, delta={}, finish_reason="stop")),
            "a",
            "stop",
            "index 1",
        ),
        ending(
            sse(*[chunk(index=i, delta={"content": str(i)}) for i in range(4)], DONE),
            "0123",
            "stop",
            "TGI counts the chunks",
        ),
        ending(
            sse(*[chunk(index=i, delta={"content": c}) for i, c in ((0, ""), (1, ""), (0, "a"), (1, "no"))], DONE),
            "a",
            "stop",
            "two answers",
        ),
        # Text elsewhere
        ending(
            sse(A, delta("b"), chunk(delta={}, message={"content": "ab"}, finish_reason="stop")),
            "ab",
            "stop",
            "all again",
        ),
        ending(sse(chunk(delta={}, message={"content": "ab"}, finish_reason="stop")), "ab", "stop", "only the message"),
        ending(
            sse(chunk(message={"content": "a"}), chunk(message={"content": "b"}), STOP),
            "ab",
            "stop",
            "messages for deltas",
        ),
        ending(
            sse(chunk(message={"content": "a"}), chunk(message={"content": "ab"}), STOP),
            "ab",
            "stop",
            "growing messages",
        ),
        ending(sse(chunk(text="a", index=0), STOP), "a", "stop", "completions"),
        ending(sse(delta([{"type": "output_text", "text": "a"}, {"text": "b"}, "c"]), STOP), "abc", "stop", "parts"),
        ending(sse(chunk(delta="a"), chunk(delta=["b", {"text": "c"}]), STOP), "abc", "stop", "a delta that is text"),
        ending(sse(chunk(delta={"text": "a"}), STOP), "a", "stop", "a delta with text in place of content"),
        ending(sse(chunk(message="a", finish_reason="stop")), "a", "stop", "a message that is text"),
        ending(sse(chunk(index=0, delta=None, finish_reason=None), A, STOP), "a", "stop", "no delta"),
        # Another API
        ending(
            b'{"model":"m","message":{"role":"assistant","content":"a"},"done":false}\n{"done":true}\n',
            "",
            MISCONFIGURED,
            "Ollama's own",
            "application/x-ndjson",
        ),
        ending(b'{"model":"m","response":"a","done":false}\n', "", MISCONFIGURED, "Ollama's generate", "text/plain"),
        ending(
            sse(
                {"type": "response.created", "response": {"id": "r"}},
                {"type": "response.output_text.delta", "delta": "a"},
            ),
            "",
            MISCONFIGURED,
            "Responses events",
        ),
        ending(b'{"id": "r", "object": "response", "output": []}', "", MISCONFIGURED, "a response", "application/json"),
        ending(
            sse({"type": "message_start", "message": {"role": "assistant"}}), "", MISCONFIGURED, "Anthropic's events"
        ),
        ending(
            b'{"type": "message", "content": [{"type": "text", "text": "a"}]}', "", MISCONFIGURED, "Anthropic's message"
        ),
        ending(b'[{"candidates": [{"content": {}}]}]', "", MISCONFIGURED, "Gemini's", "application/json"),
        ending(b'{"object": "list", "data": []}', "", MISCONFIGURED, "a list of models", "application/json"),
        ending(sse({"token": {"text": "a"}, "generated_text": None}), "", MISCONFIGURED, "TGI's own"),
        ending(sse({"content": "a", "stop": False}), "", MISCONFIGURED, "llama.cpp's own"),
        ending(sse({"type": "content-delta", "delta": {"message": {}}}), "", MISCONFIGURED, "Cohere's own"),
        ending(sse({"answer": "a"}, {"answer": "b"}), "", MISCONFIGURED, "nobody's"),
        ending(sse({"answer": "a"}, DONE), "", MISCONFIGURED, "nobody's with an end mark"),
        ending(sse({"hello": 1}, A, STOP), "a", "stop", "a strange chunk first"),
        # Failures
        ending(sse(A, {"error": "boom"}), "a", UNAVAILABLE, "a string"),
        ending(sse(A, {"error": [{"message": "x", "code": 429}]}), "a", RATE, "a list"),
        ending(sse({"error": "slow down", "code": 429}), "", RATE, "a code beside it"),
        ending(sse({"error": {"message": "x", "status": "RESOURCE_EXHAUSTED"}}), "", RATE, "Google's status"),
        ending(sse({"error": {"error": {"message": "x", "code": "429"}}}), "", RATE, "nested"),
        ending(sse({"detail": "Rate limit exceeded"}), "", RATE, "FastAPI"),
        ending(sse({"detail": [{"msg": "too many tokens", "loc": ["body"]}]}), "", CONTEXT, "FastAPI's list"),
        ending(sse({"message": "Something broke", "code": "500"}), "", UNAVAILABLE, "a message"),
        ending(sse({"object": "error", "message": "x", "code": 404}), "", MISCONFIGURED, "vLLM"),
        ending(sse({"type": "error", "error": {"type": "overloaded_error"}}), "", UNAVAILABLE, "Anthropic"),
        ending(sse({"errors": [{"message": "x", "code": 401}]}), "", MISCONFIGURED, "errors"),
        ending(sse({"base_resp": {"status_code": 1008, "status_msg": "x"}}), "", UNAVAILABLE, "MiniMax"),
        ending(sse(chunk(error={"code": 502}, finish_reason="error")), "", UNAVAILABLE, "in the choice"),
        ending(b"event: error\n" + sse({"text": "boom"}), "", UNAVAILABLE, "an event's name"),
        ending(b"event: error\ndata: too many requests\n\n", "", RATE, "an event's name and words"),
        ending(sse({"error": {"code": "content_filter", "message": "x"}}), "", REJECTED, "filtered"),
        ending(
            sse(delta("a", finish_reason="stop"), {"error": {"code": 500}}),
            "a",
            UNAVAILABLE,
            "after a reason with text",
        ),
        ending(sse(A, STOP, {"error": {"code": 500}}), "a", "stop", "after the whole answer"),
        ending(b'{"error": {"code": 401, "message": "x"}}', "", MISCONFIGURED, "200 with an error", "application/json"),
        ending(
            b'[{"error": {"code": 429, "message": "x"}}]', "", RATE, "200 with a list of errors", "application/json"
        ),
        ending(sse(A, {"error": None, "detail": "", "choices": []}, STOP), "a", "stop", "no failure"),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_recorded(body: bytes, content_type: str, text: str, end: str, size: int) -> None:
    assert read(body, content_type, size) == (text, end)


COUNTS = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([A, STOP, {"choices": [], "usage": COUNTS}], id="OpenAI"),
        pytest.param([A, chunk(delta={}, finish_reason="stop", usage=COUNTS)], id="Kimi: in the choice"),
        pytest.param([A, STOP | {"x_groq": {"usage": COUNTS}}], id="Groq"),
        pytest.param([A, STOP, {"usage": {"input_tokens": 5, "output_tokens": 2}}], id="other names"),
        pytest.param([A, STOP, {"usage": {"prompt_tokens": 5.0, "completion_tokens": 2.0}}], id="floats"),
        pytest.param(
            [A, STOP | {"usage": COUNTS}, {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}], id="zeros behind"
        ),
        pytest.param([delta("a", finish_reason="stop") | {"usage": COUNTS}, DONE], id="with the text"),
    ],
)
def test_token_counts(chunks: list[object]) -> None:
    decoder = AnswerDecoder()
    decoder.feed(sse(*chunks))
    assert decoder.finish.usage == Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7)


@pytest.mark.parametrize(
    ("told", "total"),
    [
        (None, 15),
        (0, 15),
        (14, 15),
        (4015, 4015),  # Gemini: reasoning tokens are counted only in the total
        (15 + 65_536, 15 + 65_536),
        (16 + 65_536, 15),
        (10**9, 15),
        (-1, 15),
        ("many", 15),
    ],
)
def test_a_total_is_believed_where_it_can_be_one(told: object, total: int) -> None:
    usage = usage_of({"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": told}}, final=True)
    assert usage == Usage(prompt_tokens=10, completion_tokens=5, total_tokens=total)
