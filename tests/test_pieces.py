"""Pieces and positions: the examples of the contract, and the properties that everything else rests on."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chatstream import pieces
from chatstream.pieces import (
    CallState,
    Data,
    DataPart,
    Kind,
    OpenReasoning,
    OpenText,
    OpenToolCall,
    Piece,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResult,
    ToolState,
)

CALL = OpenToolCall(id="c1", name="odds")
ANSWER: list[Piece] = [
    "Let me look.",
    CALL,
    '{"match":7}',
    ToolState(id="c1", state=CallState.RUNNING),
    ToolResult(id="c1", output={"odds": 2.1}),
    OpenText(),
    "\n\nTake 2.10.",
]

strings = st.text(st.sampled_from("ab \n👍\u200d👩"), max_size=4)
ids = st.sampled_from(["c1", "c2"])
anything = st.one_of(
    strings,
    st.builds(OpenText),
    st.builds(OpenReasoning),
    st.builds(OpenToolCall, id=ids, name=st.just("odds")),
    st.builds(ToolState, id=ids, state=st.sampled_from(CallState), message=st.none() | st.just("why")),
    st.builds(ToolResult, id=ids, output=st.sampled_from([None, 1, "x", {"a": [1]}]), failed=st.booleans()),
    st.builds(Data, kind=st.sampled_from(["odds", "card"]), id=ids, data=st.integers(0, 3)),
)
sequences = st.lists(anything, max_size=12)


def test_a_text_only_answer_counts_its_code_points() -> None:
    assert pieces.size(["Hi", "👍"]) == 3
    assert pieces.at(["Hi", "👍"], 3) == pieces.Place(position=3, offset=3, text=3)
    assert pieces.is_text(["Hi", "👍"])
    assert pieces.fold(["Hi", "👍"]) == [TextPart(text="Hi👍")]


def test_the_positions_of_the_contract() -> None:
    ends = [pieces.size(ANSWER[:count]) for count in range(1, len(ANSWER) + 1)]
    assert ends == [12, 13, 24, 25, 26, 27, 39]
    # A viewer with the cursor .19 gets the arguments from their 7th character on.
    assert pieces.cut(ANSWER, 19)[0] == '{"match":7}'[6:]
    assert pieces.at(ANSWER, 19).call == CALL
    assert pieces.at(ANSWER, 27) == pieces.Place(position=27, kind=Kind.TEXT, number=2, text=12)


def test_parts_are_what_people_read() -> None:
    assert pieces.fold(ANSWER) == [
        TextPart(text="Let me look."),
        ToolCallPart(
            tool_call_id="c1",
            name="odds",
            arguments='{"match":7}',
            state=CallState.DONE,
            output={"odds": 2.1},
            failed=False,
        ),
        TextPart(text="\n\nTake 2.10."),
    ]
    assert pieces.text(ANSWER) == "Let me look.\n\nTake 2.10."


def test_reasoning_is_no_text() -> None:
    thinking: list[Piece] = [OpenReasoning(), "Hmm.", " No.", OpenText(), "Yes."]
    assert pieces.text(thinking) == "Yes."
    assert pieces.fold(thinking) == [ReasoningPart(text="Hmm. No."), TextPart(text="Yes.")]
    assert pieces.at(thinking, 9) == pieces.Place(position=9, kind=Kind.REASONING, offset=8)


def test_data_stands_where_it_was_told_and_is_replaced_there() -> None:
    first, again = Data(kind="odds", id="7", data=2.1), Data(kind="odds", id="7", data=2.2)
    assert pieces.fold(["The odds ", first, "moved.", again]) == [
        TextPart(text="The odds "),
        DataPart(kind="odds", id="7", data=2.2),
        TextPart(text="moved."),
    ]
    assert pieces.text(["The odds ", first, "moved.", again]) == "The odds moved."


def test_what_goes_on_behind_data_is_shown_there_unless_the_data_was_known() -> None:
    first, again, other = (Data(kind="odds", id=id_, data=2.1) for id_ in ("7", "7", "8"))
    answer: list[Piece] = ["a", first, "b", again, "c", OpenReasoning(), other, "d", again]
    assert [pieces.at(answer, position).parted for position in range(10)] == [
        *(False, False, True, False, False, False, False, True, False, False)
    ]
    assert [part.text if isinstance(part, TextPart | ReasoningPart) else part.id for part in pieces.fold(answer)] == [  # type: ignore[union-attr]  # the others are data
        *("a", "7", "bc", "8", "d")
    ]


def test_what_any_json_is_can_be_stored_where_the_database_knows_less() -> None:
    wide = {"n": 2**70, "a.b": {"$set": None, "": [1.5]}}
    deep: Any = 0
    for _ in range(300):
        deep = [deep]
    answer: list[Piece] = [Data(kind="k", id="1", data=wide), ToolResult(id="c1", output=deep)]
    stored = pieces.stored(answer)
    assert all(isinstance(value, str | bool) for mark in stored for value in mark.values())
    assert pieces.read(stored) == answer


def test_what_belongs_to_an_unknown_call_is_left_out() -> None:
    assert pieces.fold(["Hi", ToolResult(id="gone", output=1)]) == [TextPart(text="Hi")]


@given(sequences, st.integers(0, 60))
def test_what_was_told_and_what_is_told_next_are_all_there_is(answer: list[Piece], position: int) -> None:
    told, rest = pieces.cut(answer, 0, position), pieces.cut(answer, position)
    assert pieces.join([*told, *rest]) == pieces.join(answer)
    assert pieces.size(told) == min(position, pieces.size(answer))
    assert pieces.fold([*told, *rest]) == pieces.fold(answer)
    assert "" not in told
    assert "" not in rest


@given(sequences, st.integers(0, 60))
def test_a_place_is_all_that_whoever_goes_on_needs(answer: list[Piece], position: int) -> None:
    place = pieces.at(answer, position)
    for piece in pieces.cut(answer, position):
        place = pieces.after(place, piece)
    assert place == pieces.at(answer, pieces.size(answer))
    assert place.text == len(pieces.text(answer))
    assert place.position == pieces.size(answer)


@given(sequences)
def test_joining_changes_no_position(answer: list[Piece]) -> None:
    joined = pieces.join(answer)
    assert pieces.size(joined) == pieces.size(answer)
    for position in range(pieces.size(answer) + 1):
        assert pieces.at(joined, position) == pieces.at(answer, position)


@given(sequences)
def test_what_is_stored_is_read_back(answer: list[Piece]) -> None:
    document: list[Any] = pieces.stored(answer)
    assert pieces.read(document) == answer
