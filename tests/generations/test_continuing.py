"""Where a cut text and its continuation meet: repeated text is left out, new text never is."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chatstream.errors import ErrorCode, ModelError
from chatstream.generations.continuing import Seam, continued, is_cut, kept
from chatstream.llm.model import Delta, Finish
from chatstream.models import Answer, Failure, Status
from chatstream.pieces import OpenReasoning, OpenText, Piece, text

STOP = Finish(reason="stop", usage=None)
CUT = "It is a long way to Tipper"


def attempt(status: Status = Status.STOPPED, *pieces: Piece, finish_reason: str | None = None) -> Answer:
    return Answer(
        id="a",
        seq=2,
        reply_to="q",
        attempt=1,
        status=status,
        content="",
        created_at=datetime.now(UTC),
        finish_reason=finish_reason,
    ).made_of(pieces)


def joined(before: str, *deltas: str) -> str:
    seam = Seam(before)
    return before + "".join(map(seam.feed, deltas)) + seam.rest()


@pytest.mark.parametrize(
    ("before", "rest", "whole"),
    [
        (CUT, "ary, to go.", CUT + "ary, to go."),
        (CUT, "Tipperary, to go.", CUT + "ary, to go."),
        (CUT, "way to Tipperary.", CUT + "ary."),
        (CUT, CUT + "ary.", CUT + "ary."),
        (CUT, CUT, CUT),  # the continuation has no new text
        (CUT, "", CUT),
        ("1, 2, 3,", " 4, 5", "1, 2, 3, 4, 5"),
        ("1, 2, 3,", "3, 4, 5", "1, 2, 3, 4, 5"),
        ("10 + 1", "1 = 21", "10 + 11 = 21"),  # one character is no proof of a repetition
        ("The end.\n\n", "\n\nAnother part.", "The end.\n\n\n\nAnother part."),
        ("banana", "na", "bananana"),  # no word is repeated
        ("He said: ha", "ha ha", "He said: ha ha"),
        ("لا أعرف", "أعرف شيئا", "لا أعرف شيئا"),
        ("Go 👩‍👩‍👧", "👩‍👩‍👧 home", "Go 👩‍👩‍👧 home"),
        ("x", "xylophone", "xxylophone"),
    ],
)
def test_what_is_repeated_is_left_out(before: str, rest: str, whole: str) -> None:
    for step in (1, 2, 5, 1000):
        assert joined(before, *[rest[i : i + step] for i in range(0, len(rest), step)]) == whole


@given(st.text("ab ", max_size=30), st.lists(st.text("ab ", max_size=5), max_size=10))
def test_however_it_is_cut_the_same_comes_out(before: str, deltas: list[str]) -> None:
    whole = joined(before, *deltas)
    assert whole == joined(before, "".join(deltas))
    rest = "".join(deltas)
    # Only a beginning of the rest may be left out, and only if the text before ends with the same characters.
    left_out = rest[: len(before) + len(rest) - len(whole)]
    assert before.endswith(left_out)
    assert whole == before + rest[len(left_out) :]


@pytest.mark.gen_test
async def test_what_is_held_back_is_told_when_it_breaks_off_and_thoughts_do_not_part_the_text() -> None:
    async def deltas() -> AsyncIterator[Delta]:
        yield Delta([OpenReasoning(), "Where was I?", OpenText(), "way "])
        raise ModelError(ErrorCode.UPSTREAM_TRUNCATED, "x")

    said: list[Piece] = []

    async def read() -> None:
        async for delta in continued(deltas(), "a long way to"):
            said.extend(delta.pieces)

    with pytest.raises(ModelError):
        await read()
    assert said == ["way "]

    async def whole() -> AsyncIterator[Delta]:
        yield Delta(["way"])
        yield Delta([], STOP)

    ends = [delta async for delta in continued(whole(), "a long way to")]
    assert [delta.pieces for delta in ends] == [[], ["way"]]
    assert ends[-1].finish is STOP


def test_what_is_kept_ends_with_text() -> None:
    thought = attempt(Status.STOPPED, OpenReasoning(), "Hm.", OpenText(), "Well", OpenReasoning(), "But")
    assert kept(thought) == [OpenReasoning(), "Hm.", OpenText(), "Well"]
    assert text(kept(thought)) == "Well"
    assert kept(attempt(Status.STOPPED, OpenReasoning(), "Hm.")) == []


def test_what_was_cut() -> None:
    assert is_cut(attempt(Status.STOPPED, "So far"))
    assert is_cut(attempt(Status.FAILED, "So far"))
    assert is_cut(attempt(Status.INTERRUPTED, "So far"))
    assert is_cut(attempt(Status.COMPLETE, "So far", finish_reason="length"))
    assert not is_cut(attempt(Status.COMPLETE, "All.", finish_reason="stop"))
    assert not is_cut(attempt(Status.COMPLETE, "I", finish_reason="content_filter"))
    assert not is_cut(attempt(Status.STREAMING, "So far"))
    assert not is_cut(attempt(Status.STOPPED))
    assert not is_cut(attempt(Status.STOPPED, OpenReasoning(), "Hm."))
    too_long = attempt(Status.FAILED, "So far")
    failure = Failure(code=ErrorCode.ANSWER_TOO_LONG, request_id=None)
    assert not is_cut(replace(too_long, failure=failure))
