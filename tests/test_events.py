"""Cursors, and the events that a stored answer becomes."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatstream import events
from chatstream.errors import EXPLANATIONS, ErrorCode
from chatstream.events import Complete, Cursor, Error, System
from chatstream.formats.chat_events import ChatEvents
from chatstream.models import Annotation, Answer, Failure, Status, recommendation
from chatstream.pieces import Place

KEY = "65f0c0ffee65f0c0ffee0123"
WIRE = re.compile(r"[A-Za-z0-9._-]{1,128}")

positions = st.one_of(
    st.sampled_from([Cursor.START, Cursor.USER, Cursor.ERROR, Cursor.COMPLETE]),
    st.integers(0, 999_999_999),
    st.integers(Cursor.COMPLETE + 1, Cursor.COMPLETE + 999),
)
keys = st.text("0123456789abcdef", min_size=24, max_size=24)


@given(keys, positions)
def test_a_cursor_comes_back_as_it_was_sent(key: str, position: int) -> None:
    text = str(Cursor(key, position))
    assert Cursor.parse(text) == Cursor(key, position)
    # A cross-origin EventSource needs a CORS preflight for any other byte in Last-Event-ID.
    assert WIRE.fullmatch(text)


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    cursor = Cursor.parse(text)
    assert cursor is None or str(cursor) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        KEY,
        f"{KEY}.",
        f"{KEY}.-1",
        f"{KEY}.1_0",
        f"{KEY}.1.0",
        f"{KEY}.٣",  # a digit, but not an ASCII one
        f"{KEY}.1000000000",  # would be past every chunk
        f"{KEY}.{'9' * 5000}",
        f"{KEY}.system",
        f"{KEY}.system0",
        f"{KEY}.system1000",
        f"{KEY}.Complete",
        f"{KEY}.complete\n",
        f" {KEY}.complete",
        f"{KEY.upper()}.complete",
        f"{KEY[1:]}.complete",
        f"{KEY}0.complete",
        "0",
        "null",
        "../../etc/passwd",
        '{"$gt": ""}',
    ],
)
def test_what_is_not_a_cursor_is_none(text: str) -> None:
    assert Cursor.parse(text) is None


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("start", Cursor.START),
        ("user", Cursor.USER),
        ("0", 0),
        ("999999999", 999_999_999),
        ("error", Cursor.ERROR),
        ("complete", Cursor.COMPLETE),
        ("system7", Cursor.COMPLETE + 7),
    ],
)
def test_the_places_of_a_message_have_names(text: str, position: int) -> None:
    assert Cursor.parse(f"{KEY}.{text}") == Cursor(KEY, position)


def test_positions_are_in_the_order_of_the_log() -> None:
    names = ["start", "user", "0", "5", "999999999", "error", "complete", "system1", "system2", "system999"]
    cursors = [Cursor.parse(f"{KEY}.{name}") for name in names]
    places = [cursor.position for cursor in cursors if cursor]
    assert places == sorted(places)
    assert len(places) == len(names)


def test_a_timestamp_is_utc_with_milliseconds() -> None:
    text = events.timestamp()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert abs(datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds() < 60


def test_a_moment_is_cut_to_its_millisecond_as_the_database_cuts_it() -> None:
    moment = datetime(2026, 11, 22, 10, 40, 0, 123_999, tzinfo=UTC)
    assert events.timestamp(moment) == "2026-11-22T10:40:00.123Z"


def test_a_chunk_is_placed_after_its_text_counted_in_code_points() -> None:
    at = Place(position=10, offset=10, text=10)
    frame = ChatEvents().chunks(answer("streaming"), ["⚽\N{FAMILY}é"], at, events.timestamp()).decode()
    assert frame.startswith(f"id: {KEY}.13\n")
    assert '"offset":10' in frame


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_is_explained_and_no_explanation_says_more_than_it_may(code: ErrorCode) -> None:
    event = events.error(code, request_id="r1")
    assert event.message == EXPLANATIONS[code].message
    assert event.message.endswith(".")
    assert (event.message_id, event.retry_after_ms) == (None, None)


def test_a_good_answer_ends_with_complete_and_its_recommendations() -> None:
    two = tuple(recommendation({"betId": str(number), "odds": 2.0}) for number in (1, 2))
    placed = events.ending(answer("complete", content="Text", annotations=two))
    assert [type(event) for _, event in placed] == [Complete, System, System]
    assert [cursor.position - Cursor.COMPLETE for cursor, _ in placed] == [0, 1, 2]


def test_an_empty_good_answer_still_ends_with_complete() -> None:
    [(_, event)] = events.ending(answer("complete"))
    assert isinstance(event, Complete)
    assert event.content == ""


def test_a_bad_answer_says_error_first_then_what_there_is_of_it() -> None:
    failure = Failure(code=ErrorCode.UPSTREAM_RATE_LIMITED, request_id="r1", retry_after_ms=700)
    (_, error), (_, complete) = events.ending(answer("failed", content="So far", failure=failure))
    assert isinstance(error, Error)
    assert (error.error, error.request_id, error.message_id, error.retry_after_ms) == (
        ErrorCode.UPSTREAM_RATE_LIMITED,
        "r1",
        KEY,
        700,
    )
    assert isinstance(complete, Complete)
    assert (complete.status, complete.content) == (Status.FAILED, "So far")


def test_a_bad_answer_without_text_is_only_an_error() -> None:
    failure = Failure(code=ErrorCode.UPSTREAM_UNAVAILABLE, request_id="r1")
    [(cursor, event)] = events.ending(answer("failed", failure=failure))
    assert isinstance(event, Error)
    assert cursor.position == Cursor.ERROR


def test_a_stopped_answer_says_no_error() -> None:
    [(_, event)] = events.ending(answer("stopped", content="So far"))
    assert isinstance(event, Complete)
    assert event.status is Status.STOPPED


def answer(
    status: str,
    *,
    content: str = "",
    failure: Failure | None = None,
    annotations: tuple[Annotation, ...] = (),
) -> Answer:
    return Answer(
        id=KEY,
        seq=1,
        reply_to="0" * 24,
        attempt=1,
        status=Status(status),
        content=content,
        created_at=datetime.now(UTC),
        failure=failure,
        annotations=annotations,
    )
