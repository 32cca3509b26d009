import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatstream.errors import ErrorCode
from chatstream.llm.decoding import MAX_EVENT_BYTES, AnswerDecoder
from chatstream.llm.splitting import EventSplitter
from chatstream.models import Usage, UsageSource
from chatstream.pieces import Piece, text
from tests.support.upstream import DONE, USAGE, delta, event

STOP = delta(finish_reason="stop")


def read(pieces: Iterable[bytes]) -> tuple[str, str | None, ErrorCode | None]:
    """Text, finish reason and error of a stream that arrived in `pieces`."""
    decoder = AnswerDecoder()
    read: list[Piece] = []
    for piece in pieces:
        read += decoder.feed(piece)
    if not decoder.over:
        read += decoder.end()
    assert "" not in read
    assert all(piece.encode() for piece in read if isinstance(piece, str))  # each piece is valid Unicode
    fault = decoder.fault
    return text(read), None if fault else decoder.finish.reason, fault.code if fault else None


def stream(*chunks: object) -> list[bytes]:
    return [event(chunk) for chunk in chunks]


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    places = sorted(draw(st.sets(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\r\n\r\n", [b"a"]),
        (b"data: a\r\r", [b"a"]),
        (b"data: a\rdata: b\n\r\ndata: c\n\n", [b"a\nb", b"c"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\n\n", [b""]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
        (b": comment\n\ndata: a\nid: 7\nevent: x\nretry: 1\n\n", [b"a"]),
        (b"database: a\n\n", []),
        (b"\n\n\n", []),
        (b"data: a\x0b\x0c\x1c\xc2\x85b\n\n", [b"a\x0b\x0c\x1c\xc2\x85b"]),  # line ends in Python's str, not here
        (b"data: a\n", []),
    ],
)
def test_events_are_split_as_the_specification_says(data: bytes, events: list[bytes]) -> None:
    assert EventSplitter().feed(data) == events
    splitter = EventSplitter()
    assert [found for byte in data for found in splitter.feed(bytes([byte]))] == events


@given(st.lists(st.sampled_from([b"data: a", b"data:b", b": c", b"", b"\n", b"\r", b"\r\n", b"\xc3\xa9"])), st.data())
def test_events_do_not_depend_on_the_cuts(parts: list[bytes], data: st.DataObject) -> None:
    raw = b"".join(parts)
    splitter = EventSplitter()
    pieces = data.draw(cut(raw))
    assert [found for piece in pieces for found in splitter.feed(piece)] == EventSplitter().feed(raw)


@pytest.mark.parametrize(
    ("chunks", "text", "reason"),
    [
        pytest.param([delta("", role="assistant"), delta("a"), delta("b"), STOP, DONE], "ab", "stop", id="plain"),
        pytest.param([delta("a"), delta(" b", finish_reason="length")], "a b", "length", id="text with the reason"),
        pytest.param([{"choices": []}, {"choices": None}, {}, delta("a"), STOP], "a", "stop", id="no choices"),
        pytest.param([{"choices": [{"delta": {"content": "a"}}]}, STOP], "a", "stop", id="no index"),
        pytest.param([{"choices": [{"index": "0", "delta": {"content": "a"}}]}, STOP], "a", "stop", id="odd index"),
        pytest.param([{"choices": [{"index": 0, "delta": None}]}, delta("a"), STOP], "a", "stop", id="delta null"),
        pytest.param([{"choices": [None, "x", 1]}, delta("a"), STOP], "a", "stop", id="choices of other types"),
        pytest.param([delta(finish_reason=None, content=None), delta("a"), STOP], "a", "stop", id="content null"),
        pytest.param([delta(17), delta({"text": "x"}), delta("a"), STOP], "a", "stop", id="content of other types"),
        pytest.param(
            [delta([{"type": "thinking", "thinking": "no"}, {"type": "text", "text": "a"}, 1, {"type": "text"}]), STOP],
            "a",
            "stop",
            id="content in parts",
        ),
        pytest.param(
            [
                {
                    "choices": [
                        {"index": 1, "delta": {"content": "no"}, "finish_reason": "stop"},
                        {"index": 0, "delta": {"content": "a"}},
                    ]
                },
                {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "stop"}]},
                STOP,
            ],
            "a",
            "stop",
            id="several choices",
        ),
        pytest.param(
            [delta(reasoning="no"), delta("", reasoning_content="no"), delta("a", reasoning_text="no"), STOP],
            "a",
            "stop",
            id="reasoning",
        ),
        pytest.param(
            [delta(tool_calls=[{"index": 0, "function": {"arguments": "{"}}]), delta(finish_reason="tool_calls")],
            "",
            "tool_calls",
            id="tool calls",
        ),
        pytest.param([delta(refusal="I can"), delta(refusal="not."), STOP], "I cannot.", "refusal", id="refusal"),
        pytest.param([delta("a", refusal="b"), delta(finish_reason="length")], "ab", "length", id="cut refusal"),
        pytest.param([delta("a", finish_reason=""), STOP], "a", "stop", id="empty reason"),
        pytest.param([delta("a") | {"obfuscation": "xyz", "error": None, "new": [1]}, STOP], "a", "stop", id="extra"),
        pytest.param([delta("a\x00b\u2028"), STOP], "a\x00b\u2028", "stop", id="NUL"),
        pytest.param([b"", b"  ", delta("a"), STOP], "a", "stop", id="empty events"),
        pytest.param([delta("a"), STOP, {"error": {"message": "late"}}, b"{"], "a", "stop", id="after"),
        pytest.param([delta("a"), delta(finish_reason="x" * 1000)], "a", "x" * 64, id="long reason"),
        pytest.param([json.dumps(delta("é")).encode(), STOP], "é", "stop", id="escapes"),
        pytest.param(
            [b'{"choices":[{"delta":{"content":"a\xff"}}]}', STOP], "a\ufffd", "stop", id="bytes that are not UTF-8"
        ),
    ],
)
def test_text_and_reason(chunks: list[object], text: str, reason: str) -> None:
    assert read(stream(*chunks)) == (text, reason, None)
    assert read([b"".join(stream(*chunks))]) == (text, reason, None)


@pytest.mark.parametrize(
    ("chunks", "text", "code"),
    [
        pytest.param([delta("a")], "a", ErrorCode.UPSTREAM_TRUNCATED, id="end of file"),
        pytest.param([], "", ErrorCode.UPSTREAM_TRUNCATED, id="nothing"),
        pytest.param([delta("a"), b"{", delta("b"), STOP], "a", ErrorCode.UPSTREAM_PROTOCOL, id="not JSON"),
        pytest.param([delta("a"), b"[1]"], "a", ErrorCode.UPSTREAM_PROTOCOL, id="not an object"),
        pytest.param([b"[" * 100_000], "", ErrorCode.UPSTREAM_PROTOCOL, id="a hundred thousand brackets"),
        pytest.param(
            [delta("a"), {"error": {"code": 502, "message": "x"}, **delta("", finish_reason="error")}],
            "a",
            ErrorCode.UPSTREAM_UNAVAILABLE,
            id="OpenRouter",
        ),
        pytest.param([delta("a", finish_reason="error")], "a", ErrorCode.UPSTREAM_UNAVAILABLE, id="reason error"),
        pytest.param([{"error": {"code": 429}}], "", ErrorCode.UPSTREAM_RATE_LIMITED, id="rate, a number"),
        pytest.param([{"error": {"code": "429"}}], "", ErrorCode.UPSTREAM_RATE_LIMITED, id="rate, digits"),
        pytest.param(
            [{"error": {"code": "rate_limit_exceeded"}}], "", ErrorCode.UPSTREAM_RATE_LIMITED, id="rate, a word"
        ),
        pytest.param([{"error": {"type": "server_error"}}], "", ErrorCode.UPSTREAM_UNAVAILABLE, id="server error"),
        pytest.param([{"error": {"type": "invalid_request_error"}}], "", ErrorCode.UPSTREAM_REJECTED, id="rejected"),
        pytest.param([{"error": "boom"}], "", ErrorCode.UPSTREAM_UNAVAILABLE, id="a string"),
        pytest.param(
            [{"object": "error", "message": "This model's maximum context length is 9 tokens", "code": 400}],
            "",
            ErrorCode.CONTEXT_TOO_LONG,
            id="vLLM",
        ),
        pytest.param([b'{"x": "' + b"x" * MAX_EVENT_BYTES + b'"}'], "", ErrorCode.UPSTREAM_PROTOCOL, id="4 MiB"),
    ],
)
def test_bad_endings(chunks: list[object], text: str, code: ErrorCode) -> None:
    assert read(stream(*chunks)) == (text, None, code)
    assert read([b"".join(stream(*chunks))]) == (text, None, code)


@pytest.mark.parametrize("line", [b"data: ", b"data:", b": ", b"x"])
def test_a_line_without_an_end_is_bounded(line: bytes) -> None:
    decoder = AnswerDecoder()
    decoder.feed(line)
    for _ in range(5):
        decoder.feed(b"x" * (1024 * 1024))
    assert decoder.fault is not None
    assert decoder.fault.code is ErrorCode.UPSTREAM_PROTOCOL


def test_an_event_of_endless_lines_is_bounded() -> None:
    decoder = AnswerDecoder()
    for _ in range(20):
        decoder.feed(b"data:\n" * 50_000)
    assert decoder.fault is not None


@pytest.mark.parametrize("cut_off", [0, 1, 2])
def test_a_last_event_without_its_blank_line_counts(cut_off: int) -> None:
    raw = b"".join(stream(delta("a"), STOP))
    assert read([raw[: len(raw) - cut_off]]) == ("a", "stop", None)


def test_half_a_last_event_is_a_truncation() -> None:
    raw = b"".join(stream(delta("a"), delta("b")))
    assert read([raw[:-20]]) == ("a", None, ErrorCode.UPSTREAM_TRUNCATED)


@pytest.mark.parametrize(
    ("contents", "text"),
    [
        (["\ud83d", "\ude00"], "😀"),
        (["a\ud83d", "\ude00b"], "a😀b"),
        (["\ud83d", "", "\ude00"], "😀"),
        (["\ud83d", "a"], "\ufffda"),
        (["a\ude00"], "a\ufffd"),
        (["\ud83d"], "\ufffd"),
        (["\ud83d\ud83d", "\ude00"], "\ufffd😀"),
        (["\ud83d\ude00"], "😀"),
    ],
)
def test_surrogates(contents: list[str], text: str) -> None:
    chunks = [delta(content) for content in contents]
    assert read(stream(*chunks, STOP)) == (text, "stop", None)
    assert read(stream(*chunks)) == (text, None, ErrorCode.UPSTREAM_TRUNCATED)


EXACT = Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7)
PARTIAL = Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7, source=UsageSource.PARTIAL)
COUNTS = {"usage": USAGE["usage"]}


@pytest.mark.parametrize(
    ("chunks", "usage"),
    [
        pytest.param([delta("a") | {"usage": None}, STOP | {"usage": None}, USAGE, DONE], EXACT, id="last chunk"),
        pytest.param([delta("a"), STOP | COUNTS], EXACT, id="with the reason"),
        pytest.param([delta("a") | COUNTS, STOP], PARTIAL, id="before the reason"),
        pytest.param(
            [delta("a") | {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}, STOP, USAGE], EXACT, id="each"
        ),
        pytest.param([delta("a"), STOP], None, id="none"),
        pytest.param([STOP | {"usage": {"prompt_tokens": 5, "completion_tokens": 2}}], EXACT, id="no total"),
        pytest.param([STOP | {"usage": {"prompt_tokens": 5}}], None, id="half"),
        pytest.param([STOP | {"usage": {"prompt_tokens": -5, "completion_tokens": 10**30}}], None, id="no counts"),
        pytest.param([STOP | {"usage": {"prompt_tokens": "5", "completion_tokens": True}}], None, id="other types"),
        pytest.param([STOP | {"usage": [1]}], None, id="a list"),
    ],
)
def test_usage(chunks: list[object], usage: Usage | None) -> None:
    decoder = AnswerDecoder()
    for piece in stream(*chunks):
        decoder.feed(piece)
    assert decoder.finish.usage == usage


LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=6)


@given(
    contents=st.lists(ANY_TEXT, max_size=8),
    escaped=st.booleans(),
    line_end=LINE_ENDS,
    space=st.sampled_from([b"", b" "]),
    start=st.sampled_from([b"", b"\xef\xbb\xbf", b": hello\n\n"]),
    ending=st.sampled_from([[STOP, USAGE, DONE], [STOP], [], [DONE], [{"error": {"code": 500}}], [b"{"]]),
    data=st.data(),
)
def test_text_does_not_depend_on_the_cuts(
    contents: list[str],
    escaped: bool,
    line_end: bytes,
    space: bytes,
    start: bytes,
    ending: list[object],
    data: st.DataObject,
) -> None:
    def encode(chunk: object) -> bytes:
        if isinstance(chunk, bytes):
            return chunk
        text = json.dumps(chunk, ensure_ascii=escaped)
        try:
            return text.encode()
        except UnicodeEncodeError:  # a lone surrogate can only be sent as an escape
            return json.dumps(chunk).encode()

    chunks = [*map(delta, contents), *ending]
    raw = start + b"".join(b"data:" + space + encode(chunk) + line_end * 2 for chunk in chunks)
    text, reason, code = read(data.draw(cut(raw)))
    assert (text, reason, code) == read([raw])
    if ending in ([STOP, USAGE, DONE], [STOP], [], [DONE]):
        assert text == "".join(contents).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        assert reason == ("stop" if ending else None)


@pytest.mark.parametrize(
    "line", [b"{}" * 500_000, b"data:" * 500_000, b"{" * 500_000, b'{"a":' * 300_000, b"[" * 500_000, b"{} " * 500_000]
)
def test_a_line_that_never_gets_to_the_point_is_not_read_for_long(line: bytes) -> None:
    decoder = AnswerDecoder()
    assert decoder.feed(b"data: " + line + b"\n\n") == []
    assert decoder.end() == []
    assert decoder.fault is not None
