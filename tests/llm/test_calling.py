"""Tool calls in every form in which endpoints send them: the result is always the same."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatstream.errors import ErrorCode
from chatstream.llm.decoding import AnswerDecoder
from chatstream.pieces import OpenReasoning, OpenText, OpenToolCall, Piece, ToolCallPart, fold, join
from tests.support.upstream import DONE, delta, event

Json = dict[str, Any]


def frag(
    arguments: str | None = None, *, index: int | None = None, id_: str | None = None, name: str | None = None
) -> Json:
    """A fragment in OpenAI's form; fields that are None are left out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    parts = (("index", index), ("id", id_), ("type", "function" if id_ else None), ("function", function))
    return {key: value for key, value in parts if value is not None}


def calls(*fragments: Json, **more: Any) -> Json:
    return delta(tool_calls=list(fragments), **more)


def read(*chunks: object, end: object = None) -> list[Piece]:
    """The pieces of a stream that ends with this finish reason."""
    decoder = AnswerDecoder()
    pieces: list[Piece] = []
    for chunk in [*chunks, delta(finish_reason="tool_calls") if end is None else end]:
        pieces += decoder.feed(event(chunk))
    pieces += decoder.feed(event(DONE))
    assert decoder.done
    assert decoder.fault is None
    return join(pieces)


def made(pieces: list[Piece]) -> list[tuple[str, str]]:
    """The names and arguments of the calls, in order."""
    parts = [part for part in fold(pieces) if isinstance(part, ToolCallPart)]
    assert [part.tool_call_id for part in parts] == [str(number + 1) for number in range(len(parts))]
    return [(part.name, part.arguments) for part in parts]


ODDS, STAKE = ("odds", '{"match":7}'), ("stake", '{"euros":5}')
STOP = delta(finish_reason="stop")


@pytest.mark.parametrize(
    ("chunks", "end"),
    [
        pytest.param(
            [
                calls(frag("", index=0, id_="a", name="odds")),
                calls(frag('{"ma', index=0)),
                calls(frag('tch":7}', index=0)),
                calls(frag("", index=1, id_="b", name="stake")),
                calls(frag('{"euros":5}', index=1)),
            ],
            None,
            id="OpenAI",
        ),
        pytest.param(
            [
                calls(frag("", index=0, id_="a", name="odds"), frag("", index=1, id_="b", name="stake")),
                calls(frag('{"ma', index=0), frag('{"eu', index=1)),
                calls(frag('ros":5}', index=1), frag('tch":7}', index=0)),
            ],
            None,
            id="interleaved",
        ),
        pytest.param(
            [calls(frag(ODDS[1], id_="a", name="odds"), frag(STAKE[1], id_="b", name="stake"))],
            STOP,
            id="Ollama: no index, all in one chunk, stop",
        ),
        pytest.param(
            [
                calls(frag(ODDS[1], index=0, id_="a", name="odds")),
                calls(frag(STAKE[1], index=0, id_="b", name="stake")),
            ],
            STOP,
            id="Ollama: index 0 for all",
        ),
        pytest.param(
            [calls(frag(ODDS[1], index=0, name="odds")), calls(frag(STAKE[1], index=0, name="stake"))],
            None,
            id="Gemini: index 0 for all, no ids",
        ),
        pytest.param(
            [calls(frag(ODDS[1], id_="", name="odds")), calls(frag(STAKE[1], id_="", name="stake"))],
            STOP,
            id="Gemini: no index, empty ids",
        ),
        pytest.param(
            [calls(frag(ODDS[1], name="odds"), frag(STAKE[1], name="stake"))], STOP, id="neither index nor id"
        ),
        pytest.param(
            [
                calls(frag("", name="odds"), frag("", name="stake")),
                calls(frag('{"match"', index=None), frag('{"euros"', index=None)),
                calls(frag(":7}"), frag(":5}")),
            ],
            STOP,
            id="by their order alone",
        ),
        pytest.param(
            [
                calls(frag(ODDS[1], index=0, id_="null", name="odds")),
                calls(frag(STAKE[1], index=1, id_="null", name="stake")),
            ],
            None,
            id="Mistral: the placeholder null",
        ),
        pytest.param(
            [
                calls(frag(ODDS[1], index=0, id_="call", name="odds")),
                calls(frag(STAKE[1], index=1, id_="call", name="stake")),
            ],
            None,
            id="one id for all",
        ),
        pytest.param(
            [
                calls(frag(index=0, name="odds")),
                calls(frag("", index=0, id_="a")),
                calls(frag(ODDS[1], index=0)),
                calls(frag(index=1, id_="b")),
                calls(frag(STAKE[1], index=1, name="stake")),
            ],
            None,
            id="llama.cpp: ids and names late, empty arguments first",
        ),
        pytest.param(
            [
                calls(frag('{"ma', index=0, id_="a", name="odds")),
                calls(frag('tch":7}', index=0, id_="a", name="odds")),
                calls(frag('{"eu', index=1, id_="b", name="stake")),
                calls(frag('ros":5}', index=1, id_="b", name="stake")),
            ],
            None,
            id="name and id repeated with each fragment",
        ),
        pytest.param(
            [
                calls(frag(ODDS[1], index=0, id_="a", name="odds")),
                calls(frag(STAKE[1], index=1, id_="b", name="stake")),
                calls(frag(ODDS[1], index=0, id_="a", name="odds"), frag(STAKE[1], index=1, id_="b", name="stake")),
            ],
            None,
            id="told again as a whole",
        ),
        pytest.param(
            [
                {"choices": [], "prompt_filter_results": []},
                {"choices": [{"index": 0, "finish_reason": None, "content_filter_offsets": {}}]},
                calls(frag(ODDS[1], index=0, id_="a", name="odds")),
                calls(frag(STAKE[1], index=1, id_="b", name="stake")),
            ],
            None,
            id="Azure: no choices, no delta",
        ),
        pytest.param(
            [
                calls(frag(ODDS[1], index=0, id_="a", name="odds")),
                calls(frag(STAKE[1], index=1, id_="b", name="stake")),
                delta(finish_reason=""),
            ],
            None,
            id="an empty finish reason before",
        ),
        pytest.param(
            [
                calls(frag(ODDS[1], index=1, id_="a", name="odds")),
                calls(frag(STAKE[1], index=2, id_="b", name="stake")),
            ],
            None,
            id="counted from 1",
        ),
        pytest.param(
            [
                calls(frag("", index=0, id_="call_0", name="odds")),
                calls(frag("", index=1, id_="call_0", name="stake")),
                calls(frag('{"ma', index=0, id_="call_0"), frag('{"eu', index=1, id_="call_0")),
                calls(frag('tch":7}', index=0, id_="call_0"), frag('ros":5}', index=1, id_="call_0")),
            ],
            None,
            id="the same id for all, in each fragment",
        ),
        pytest.param(
            [
                calls(frag(ODDS[1], id_="call_0", name="odds")),
                calls(frag(STAKE[1], id_="call_0", name="stake")),
                calls(frag(ODDS[1], id_="call_0", name="odds")),  # repeated
            ],
            None,
            id="the same id for all, and no index",
        ),
        pytest.param(
            [
                calls(frag(ODDS[1], index=0, id_="call_0", name="odds")),
                calls(frag("", index=0, id_="call_0", name="stake")),
                calls(frag(STAKE[1], index=0)),
            ],
            None,
            id="the same id and index for all",
        ),
        pytest.param(
            [
                calls({"id": "a", "function": {"name": "odds", "arguments": {"match": 7}}}),
                calls({"id": "b", "function": {"name": "stake", "arguments": {"euros": 5}}}),
            ],
            STOP,
            id="arguments as an object",
        ),
    ],
)
def test_calls_come_out_as_they_were_meant(chunks: list[Json], end: Json | None) -> None:
    assert made(read(*chunks, end=end)) == [ODDS, STAKE]


def test_calls_of_an_answer_that_came_whole() -> None:
    both = [
        {"id": "a", "type": "function", "function": {"name": "odds", "arguments": ODDS[1]}},
        {"id": "b", "type": "function", "function": {"name": "stake", "arguments": STAKE[1]}},
    ]
    whole = {"choices": [{"message": {"content": "Let me see.", "tool_calls": both}, "finish_reason": "tool_calls"}]}
    decoder = AnswerDecoder("application/json")
    pieces = join([*decoder.feed(json.dumps(whole).encode()), *decoder.end()])
    assert decoder.fault is None
    assert pieces[0] == "Let me see."
    assert made(pieces) == [ODDS, STAKE]


def test_a_last_message_repeats_no_call() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "odds", "arguments": ODDS[1]}}
    end = {"choices": [{"index": 0, "delta": {}, "message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    assert made(read(calls(frag(ODDS[1], index=0, id_="a", name="odds")), end=end)) == [ODDS]


def test_the_only_function_call_of_older_endpoints() -> None:
    chunks = [
        delta(function_call={"name": "odds", "arguments": ""}),
        delta(function_call={"arguments": '{"ma'}),
        delta(function_call={"arguments": 'tch":7}'}),
    ]
    assert made(read(*chunks, end=delta(finish_reason="function_call"))) == [ODDS]


def test_the_same_tool_is_called_twice() -> None:
    again = '{"match":8}'
    ids: tuple[Json, ...] = ({"index": 0}, {"index": 0, "id_": "call_0"}, {"id_": "call_0"})
    for same in ids:
        chunks = [calls(frag(one, name="odds", **same)) for one in (ODDS[1], again)]
        assert made(read(*chunks)) == [ODDS, ("odds", again)]


def test_thinking_and_text_come_before_the_call_and_after_it() -> None:
    pieces = read(
        delta(reasoning_content="Hm."),
        delta(content="Let me see."),
        calls(frag('{"ma', index=0, id_="a", name="odds")),
        delta(content="One moment."),
        calls(frag('tch":7}', index=0)),
    )
    assert pieces == [
        OpenReasoning(),
        "Hm.",
        OpenText(),
        "Let me see.",
        OpenToolCall(id="1", name="odds"),
        '{"match":7}',
        OpenText(),
        "One moment.",
    ]


def test_blanks_around_calls_are_no_text() -> None:
    pieces = read(
        delta(content="\n\n"),
        calls(frag(ODDS[1], index=0, id_="a", name="odds")),
        delta(content="\n"),
        calls(frag(STAKE[1], index=1, id_="b", name="stake")),
        delta(content="\n"),
    )
    assert pieces == [OpenToolCall(id="1", name="odds"), ODDS[1], OpenToolCall(id="2", name="stake"), STAKE[1]]


def test_arguments_are_given_out_as_they_come() -> None:
    decoder = AnswerDecoder()
    assert decoder.feed(event(calls(frag("", index=0, id_="a", name="odds")))) == [OpenToolCall(id="1", name="odds")]
    assert decoder.feed(event(calls(frag('{"ma', index=0)))) == ['{"ma']
    assert decoder.feed(event(calls(frag('{"euros":', index=1, id_="b", name="stake")))) == []
    assert decoder.feed(event(calls(frag('tch":7}', index=0)))) == [
        'tch":7}',
        OpenToolCall(id="2", name="stake"),
        '{"euros":',
    ]
    assert decoder.feed(event(calls(frag("5}", index=1)))) == ["5}"]


def test_what_the_endpoint_wants_back_is_kept() -> None:
    call = frag(ODDS[1], index=0, id_="a", name="odds") | {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    (opened, _) = read(calls(call))
    assert isinstance(opened, OpenToolCall)
    assert json.loads(opened.extra or "") == {"google": {"thought_signature": "c2ln"}}


@pytest.mark.parametrize(
    ("name", "ours"), [("functions.odds", "functions_odds"), (" odds ", "odds"), ("ö" * 80, "_" * 64), ("", "unnamed")]
)
def test_names_are_such_as_can_be_sent_back(name: str, ours: str) -> None:
    assert made(read(calls(frag("{}", index=0, id_="a", name=name)))) == [(ours, "{}")]


def test_an_emoji_in_halves_is_one_character() -> None:
    chunks = [
        calls(frag('{"say":"\ud83d', index=0, id_="a", name="odds")),
        calls(frag('\udc4d"}', index=0)),
    ]
    assert made(read(*chunks)) == [("odds", '{"say":"👍"}')]


@given(st.dictionaries(st.text('ab"\\{}[]', max_size=3), st.text('x"\\{}[],:', max_size=6), max_size=3), st.data())
def test_where_arguments_end_is_seen_however_they_are_cut(arguments: dict[str, str], data: st.DataObject) -> None:
    text = json.dumps(arguments)
    places = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=6)))
    cut = [text[begin:end] for begin, end in zip([0, *places], [*places, len(text)], strict=True)]
    first, *rest = cut
    chunks = [calls(frag(first, index=0, name="odds"))] + [calls(frag(each, index=0)) for each in rest]
    assert made(read(*chunks, calls(frag("{}", index=0, name="stake")))) == [("odds", text), ("stake", "{}")]


@pytest.mark.parametrize(
    "chunk",
    [
        calls(*[frag("{}", index=number, id_=f"c{number}", name="odds") for number in range(200)]),
        calls(frag("x" * 1_100_000, index=0, id_="a", name="odds")),
    ],
    ids=["calls", "characters"],
)
def test_there_is_an_end_to_calls(chunk: Json) -> None:
    decoder = AnswerDecoder()
    decoder.feed(event(chunk))
    assert decoder.fault is not None
    assert decoder.fault.code is ErrorCode.UPSTREAM_PROTOCOL
