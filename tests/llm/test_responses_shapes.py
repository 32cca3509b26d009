"""Answers of the Responses API in every form in which servers send them."""

import json
from typing import Any

import pytest

from chatstream.errors import ErrorCode
from chatstream.llm.responses_decoding import ResponsesDecoder
from chatstream.pieces import OpenToolCall, Piece, ReasoningPart, ToolCallPart, fold
from chatstream.pieces import text as text_of
from tests.support.apis import Json, Responses
from tests.support.decoding import fed
from tests.support.upstream import DONE, delta, event

UNAVAILABLE, REJECTED = ErrorCode.UPSTREAM_UNAVAILABLE, ErrorCode.UPSTREAM_REJECTED
RATE, CONTEXT = ErrorCode.UPSTREAM_RATE_LIMITED, ErrorCode.CONTEXT_TOO_LONG
TRUNCATED, PROTOCOL = ErrorCode.UPSTREAM_TRUNCATED, ErrorCode.UPSTREAM_PROTOCOL
MISCONFIGURED = ErrorCode.UPSTREAM_MISCONFIGURED

WIRE = Responses()
HI = ("text", "H", "i")
ODDS, STAKE = ("call", "odds", '{"ma', 'tch":7}'), ("call", "stake", '{"euros":5}')
CALLS = [("odds", '{"match":7}'), ("stake", '{"euros":5}')]


def sse(*events: object) -> bytes:
    return b"".join(map(event, events))


def whole(*parts: tuple[str, ...], reason: str = "stop") -> list[Json]:
    return [*WIRE.said(*parts), *WIRE.end(*parts, reason=reason)]


def only(events: list[Json], *kinds: str) -> list[Json]:
    """The events whose type ends with one of these."""
    return [one for one in events if one["type"].endswith(kinds)]


def but(events: list[Json], *kinds: str) -> list[Json]:
    return [one for one in events if not one["type"].endswith(kinds)]


def lacking(events: list[Json], *fields: str) -> list[Json]:
    return [{key: value for key, value in one.items() if key not in fields} for one in events]


def of_one_call_id(events: list[Json], *, ids: bool = True) -> list[Json]:
    found = lacking(events, *(() if ids else ("item_id",)))
    for one in found:
        if "item" in one:
            one["item"] = one["item"] | {"call_id": "c"} | ({} if ids else {"id": None})
    return found


def text(delta: str, index: int = 0, **more: Any) -> Json:
    return {
        "type": "response.output_text.delta",
        "output_index": index,
        "item_id": f"item_{index}",
        "delta": delta,
    } | more


def thought(delta: str, kind: str = "reasoning_summary_text", **more: Any) -> Json:
    return {"type": f"response.{kind}.delta", "output_index": 0, "item_id": "item_0", "delta": delta, **more}


def ended(how: str = "completed", **response: Any) -> Json:
    return {"type": f"response.{how}", "response": {"status": how, **response}}


def call_added(
    index: int, *, id_: str | None = None, call_id: str | None = None, name: str, arguments: str = ""
) -> Json:
    item = {"type": "function_call", "id": id_, "call_id": call_id, "name": name, "arguments": arguments}
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def args(delta: str, **place: Any) -> Json:
    return {"type": "response.function_call_arguments.delta", "delta": delta, **place}


def read(body: bytes, size: int, content_type: str = "text/event-stream") -> tuple[list[Piece], ResponsesDecoder]:
    decoder = ResponsesDecoder(content_type)
    pieces = fed(decoder, body, size)
    assert "" not in pieces
    return pieces, decoder


def case(
    name: str, body: bytes | list[Json], told: str = "Hi", end: str = "stop", thoughts: str = "", calls: Any = ()
) -> Any:
    return pytest.param(body if isinstance(body, bytes) else sse(*body), told, thoughts, [*calls], end, id=name)


@pytest.mark.parametrize(
    ("body", "told", "thoughts", "calls", "end"),
    [
        # Repeated content is sent once; content that comes only once is sent
        case("OpenAI", whole(HI)),
        case("no deltas, whole items", but(whole(HI), ".delta")),
        case("no deltas, no items, the last event alone", only(whole(HI), ".created", ".completed")),
        case("an empty list at the end", [*WIRE.said(HI), ended(output=[])]),
        case("no list at the end", [*WIRE.said(HI), ended()]),
        case("no items, deltas alone", [*only(whole(HI), ".created", ".delta"), ended(output=[])]),
        case("llama.cpp: no output_index, no content_index", lacking(whole(HI), "output_index", "content_index")),
        case("no ids in events", lacking(whole(HI), "item_id")),
        case("neither", lacking(whole(HI), "item_id", "output_index", "sequence_number")),
        case("ogx: no output_text.done", but(whole(HI), "output_text.done")),
        case("other ids at the end", [*WIRE.said(HI), *WIRE.end(("refusal", "x"), HI)]),
        case("a delta that is a part", [text({"type": "output_text", "text": "Hi"}), ended()]),  # type: ignore[arg-type]
        case("an empty delta", [text(""), text("Hi"), ended()]),
        case("half a character", [text("\ud83d"), text("\ude00"), ended()], "😀"),
        case("half a character later on", [text("H"), text("i\ud83d"), text("\ude00"), ended()], "Hi😀"),
        case(
            "two messages, nothing says so but their ends",
            lacking(whole(HI, ("text", "You")), "item_id", "output_index"),
            "Hi\n\nYou",
        ),
        case(
            "two rows of thoughts",
            lacking(whole(("thought", "Hm."), ("thought", "So."), HI), "item_id", "output_index"),
            thoughts="Hm.\n\nSo.",
        ),
        case("two messages", whole(HI, ("text", "You")), "Hi\n\nYou"),
        case("two messages without deltas", but(whole(HI, ("text", "You")), ".delta"), "Hi\n\nYou"),
        case("content as a text", [ended(output=[{"type": "message", "content": "Hi"}])]),
        # Where the end is
        case("done", [text("Hi"), ended("done")]),
        case("an end mark", sse(text("Hi"), DONE)),
        case("Ollama: no last event", WIRE.said(HI)),
        case("Ollama: no last event after a call", WIRE.said(ODDS), "", "tool_calls", calls=CALLS[:1]),
        case("no last event in a message", WIRE.said(HI)[:-2], "Hi", TRUNCATED),
        case("no last event after a thought", WIRE.said(("thought", "Hm.")), "", TRUNCATED, "Hm."),
        case("no last event before a message", WIRE.said(HI) + WIRE.said(HI)[1:2], "Hi", TRUNCATED),
        case("half a last event", sse(*WIRE.said(HI)) + b'data: {"type": "respo', "Hi", TRUNCATED),
        case("nothing", [], "", TRUNCATED),
        case("begun", WIRE.said(), "", TRUNCATED),
        case("text after the end", [*whole(HI), text("no")]),
        # Reasons
        case("length", whole(HI, reason="length"), "Hi", "length"),
        case("filter", whole(HI, reason="content_filter"), "Hi", "content_filter"),
        case("incomplete, nobody says why", [text("Hi"), ended("incomplete")], "Hi", "length"),
        case("incomplete in a completed event", [text("Hi"), ended(status="incomplete")], "Hi", "length"),
        case(
            "length in a call", whole(("call", "odds", '{"ma'), reason="length"), "", "length", calls=[("odds", '{"ma')]
        ),
        case("a refusal", whole(("refusal", "Hi")), "Hi", "refusal"),
        case("a refusal without deltas", but(whole(("refusal", "Hi")), ".delta"), "Hi", "refusal"),
        # Thinking
        case("a summary", whole(("thought", "Hm", "."), HI), thoughts="Hm."),
        case("a summary without deltas", but(whole(("thought", "Hm", "."), HI), ".delta"), thoughts="Hm."),
        case(
            "two paragraphs",
            [thought("Hm.", summary_index=0), thought("So.", summary_index=1), text("Hi", 1), ended()],
            thoughts="Hm.\n\nSo.",
        ),
        case("gpt-oss: in full", [thought("Hm.", "reasoning_text"), text("Hi", 1), ended()], thoughts="Hm."),
        case("an older name", [thought("Hm.", "reasoning_summary"), text("Hi", 1), ended()], thoughts="Hm."),
        case(
            "in full, and its summary",
            [thought("Hm.", "reasoning_text", content_index=0), thought("H", summary_index=0), text("Hi", 1), ended()],
            thoughts="Hm.",
        ),
        case("a summary at the end alone", [text("Hi"), *WIRE.end(("thought", "late"), HI)]),
        case("tags", [text("<thi"), text("nk>Hm.</think>Hi"), ended()], thoughts="Hm."),
        # Calls
        case("calls", whole(ODDS, STAKE), "", "tool_calls", calls=CALLS),
        case("calls without deltas", but(whole(ODDS, STAKE), ".delta"), "", "tool_calls", calls=CALLS),
        case(
            "calls in whole items alone",
            only(whole(ODDS, STAKE), "item.done", "completed"),
            "",
            "tool_calls",
            calls=CALLS,
        ),
        case("calls in the last event alone", whole(ODDS, STAKE)[-1:], "", "tool_calls", calls=CALLS),
        case(
            "calls without an output_index", lacking(whole(ODDS, STAKE), "output_index"), "", "tool_calls", calls=CALLS
        ),
        case("calls without item ids", lacking(whole(ODDS, STAKE), "item_id"), "", "tool_calls", calls=CALLS),
        case(
            "calls by their order alone",
            lacking(whole(ODDS, STAKE), "item_id", "output_index"),
            "",
            "tool_calls",
            calls=CALLS,
        ),
        case(
            "interleaved",
            [
                call_added(0, id_="a", name="odds"),
                call_added(1, id_="b", name="stake"),
                args('{"eu', item_id="b"),
                args('{"ma', output_index=0),
                args('ros":5}', output_index=1),
                args('tch":7}', item_id="a"),
                ended(),
            ],
            "",
            "tool_calls",
            calls=CALLS,
        ),
        case(
            "one index for all",
            [
                call_added(0, id_="a", name="odds"),
                args('{"match":7}', item_id="a", output_index=0),
                call_added(0, id_="b", name="stake"),
                args('{"euros":5}', item_id="b", output_index=0),
                ended(),
            ],
            "",
            "tool_calls",
            calls=CALLS,
        ),
        case("one call_id for all", of_one_call_id(whole(ODDS, STAKE)), "", "tool_calls", calls=CALLS),
        case("and no other", of_one_call_id(whole(ODDS, STAKE), ids=False), "", "tool_calls", calls=CALLS),
        case(
            "one call_id for all, no deltas",
            only(of_one_call_id(whole(ODDS, STAKE), ids=False), "item.done", ".completed"),
            "",
            "tool_calls",
            calls=CALLS,
        ),
        case(
            "call ids alone",
            [
                call_added(0, call_id="a", name="odds", arguments='{"match":7}'),
                call_added(1, call_id="b", name="stake", arguments='{"euros":5}'),
                ended(),
            ],
            "",
            "tool_calls",
            calls=CALLS,
        ),
        case(
            "arguments as an object",
            [call_added(0, id_="a", name="odds", arguments={"match": 7}), ended()],  # type: ignore[arg-type]
            "",
            "tool_calls",
            calls=CALLS[:1],
        ),
        case("text behind a call", whole(ODDS, HI), "Hi", "tool_calls", calls=CALLS[:1]),
        case("a search of its own", [call_added(0, name="x") | {"item": {"type": "web_search_call"}}, *whole(HI)]),
        # Events without content
        case("keepalive", [{"type": "keepalive", "sequence_number": 1}, {"type": "ping"}, *whole(HI)]),
        case("events that are not known", [{"type": "response.x.y", "delta": "no"}, *whole(HI)]),
        case("odd frames", sse(b"ping", b"{}", *whole(HI), b"null")),
        case("obfuscation", [text("Hi", obfuscation="aB3"), ended()]),
        # Another API, and failures
        case("chat completions", [delta("a"), delta(finish_reason="stop")], "", MISCONFIGURED),
        case("Anthropic", [{"type": "message_start", "message": {}}], "", MISCONFIGURED),
        case("nobody's", [{"answer": "a"}], "", MISCONFIGURED),
        case(
            "failed", [text("Hi"), ended("failed", error={"code": "server_error", "message": "x"})], "Hi", UNAVAILABLE
        ),
        case("failed, rate", [ended("failed", error={"code": "rate_limit_exceeded", "message": "x"})], "", RATE),
        case("failed, prompt", [ended("failed", error={"code": "invalid_prompt", "message": "x"})], "", REJECTED),
        case("failed, policy", [ended("failed", error={"code": "bio_policy", "message": "x"})], "", REJECTED),
        case("failed, nobody says why", [ended("failed")], "", UNAVAILABLE),
        case("cancelled", [ended("cancelled")], "", UNAVAILABLE),
        case("an error event", [{"type": "error", "code": "context_length_exceeded", "message": "x"}], "", CONTEXT),
        case("an error in an error event", [{"type": "error", "error": {"code": "rate_limit_exceeded"}}], "", RATE),
        case(
            "an error event's name",
            b'event: error\ndata: {"code": "server_error", "message": "x"}\n\n',
            "",
            UNAVAILABLE,
        ),
        case("an error as anywhere", [{"error": {"code": 429}}], "", RATE),
        case("not JSON", sse(b"{"), "", PROTOCOL),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_recorded(body: bytes, told: str, thoughts: str, calls: list[tuple[str, str]], end: str, size: int) -> None:
    pieces, decoder = read(body, size)
    parts = fold(pieces)
    assert (decoder.fault.code if decoder.fault else decoder.finish.reason) == end
    assert text_of(pieces) == told
    assert "|".join(part.text for part in parts if isinstance(part, ReasoningPart)) == thoughts
    assert [(part.name, part.arguments) for part in parts if isinstance(part, ToolCallPart)] == calls


@pytest.mark.parametrize(
    ("document", "told", "end"),
    [
        (WIRE.document(("thought", "Hm."), HI, ODDS), "Hi", "tool_calls"),
        (
            WIRE.document(HI) | {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "Hi",
            "length",
        ),
        (WIRE.document() | {"status": "failed", "error": {"code": "server_error", "message": "x"}}, "", UNAVAILABLE),
        (WIRE.document() | {"status": "queued"}, "", PROTOCOL),
        ({"object": "chat.completion", "choices": [{"message": {"content": "a"}}]}, "", MISCONFIGURED),
        ({"error": {"code": 401, "message": "x"}}, "", MISCONFIGURED),
    ],
    ids=["whole", "length", "failed", "queued", "chat", "error"],
)
def test_a_whole_document(document: Json, told: str, end: str) -> None:
    pieces, decoder = read(json.dumps(document).encode(), 100, "application/json")
    assert (text_of(pieces), decoder.fault.code if decoder.fault else decoder.finish.reason) == (told, end)


def test_encrypted_reasoning_belongs_to_the_call_that_follows_on_it() -> None:
    pieces, _ = read(
        sse(*whole(("thought", "a"), ODDS, ("thought", "b"), ("thought", "c"), STAKE, ("thought", "d"))), 100
    )
    extras = [json.loads(piece.extra or "{}") for piece in pieces if isinstance(piece, OpenToolCall)]
    found = [[item["encrypted_content"] for item in extra["responses"]["items"]] for extra in extras]
    assert found == [["secret a"], ["secret b", "secret c"]]


def test_reasoning_that_is_too_long_to_be_stored_is_not_given_back() -> None:
    pieces, decoder = read(sse(*whole(("thought", "x" * 300_000), ODDS)), 10_000)
    [opened] = [piece for piece in pieces if isinstance(piece, OpenToolCall)]
    assert (opened.extra, decoder.finish.reason) == (None, "tool_calls")


def test_calls_without_end_are_not_taken_in() -> None:
    _, decoder = read(sse(*[call_added(n, id_=f"a{n}", name="odds") for n in range(1000)]), 10_000)
    assert decoder.fault is not None
    assert decoder.fault.code is PROTOCOL
