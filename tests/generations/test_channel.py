"""The live log: its order, its size limit, and the part of an entry after a place."""

from datetime import UTC, datetime
from typing import Any

import pytest

from chatstream import pieces
from chatstream.errors import ErrorCode
from chatstream.events import Cursor
from chatstream.formats.registry import DEFAULT
from chatstream.formats.ui_message_stream import UIMessageStream
from chatstream.generations.channel import Channel, Running
from chatstream.generations.entries import BEGINNING, END, Ended, Entry, Notice, Posted
from chatstream.models import Answer, Conversation, Failure, Status, UserMessage
from chatstream.plugins.bets.recommendation import Recommendation
from tests.support.scripted_model import parse

NOW = datetime.now(UTC)


def conversation() -> Conversation:
    return Conversation(
        key="0" * 24, user_id="u", id="c", title=None, system_prompt=None, model=None, created_at=NOW, updated_at=NOW
    )


def answer(seq: int = 2, content: str = "", status: Status = Status.STREAMING, **fields: Any) -> Answer:
    return Answer(
        id=f"{seq:024x}",
        seq=seq,
        reply_to="f" * 24,
        attempt=1,
        status=status,
        content=content,
        created_at=NOW,
        **fields,
    )


def message(seq: int, content: str = "Tell me.") -> UserMessage:
    return UserMessage(id=f"{seq:024x}", seq=seq, content=content, created_at=NOW)


class Reader:
    """A reader that reads only when the test calls `read`."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.index = channel.end
        self.woken = 0
        channel.readers.add(self)

    def wake(self) -> None:
        self.woken += 1

    def end(self, code: ErrorCode | None = None, *, reason: str | None = None) -> None:
        raise AssertionError(code)

    def read(self) -> list[Entry]:
        """Return all new entries."""
        entries = []
        while (entry := self.channel.read(self.index)) is not None:
            entries.append(entry)
            self.index += 1
        return entries

    def types(self) -> list[str]:
        """Return the types of all new entries."""
        return [frame.type for entry in self.read() for frame in parse(entry.frames(DEFAULT))]


def test_a_reader_gets_what_was_appended_after_it_came_in_order() -> None:
    channel = Channel(conversation())
    first = Reader(channel)
    running = channel.running = Running(answer(2))
    channel.append(Posted(message(1)))
    channel.extend(running, ["a", "b"])
    second = Reader(channel)
    channel.extend(running, ["c"])
    channel.finish(answer(2, "abc", Status.COMPLETE))
    assert first.types() == ["user_message", "llm_chunk", "llm_chunk", "llm_chunk", "llm_complete"]
    assert second.types() == ["llm_chunk", "llm_complete"]
    assert first.woken == 4
    assert second.woken == 2


def test_chunks_count_code_points_and_name_the_place_after_them() -> None:
    channel = Channel(conversation())
    reader = Reader(channel)
    channel.extend(Running(answer(2)), ["e\u0301", "🏟", "\u202e\n\n"])
    (entry,) = reader.read()
    frames = parse(entry.frames(DEFAULT))
    assert [frame.data["offset"] for frame in frames] == [0, 2, 3]
    assert [frame.data["content"] for frame in frames] == ["e\u0301", "🏟", "\u202e\n\n"]
    assert [frame.id for frame in frames] == [f"{2:024x}.{n}" for n in (2, 3, 6)]
    assert entry.place == (2, 6)


def test_what_is_there_already_is_not_appended_again() -> None:
    channel = Channel(conversation())
    reader = Reader(channel)
    running = Running(answer(2))
    channel.append(Posted(message(1)))
    channel.append(Posted(message(1)))
    channel.extend(running, ["a"])
    channel.finish(answer(2, "a", Status.STOPPED))
    channel.finish(answer(2, "a", Status.STOPPED))
    channel.extend(running, ["more than is stored"])
    channel.append(Posted(message(1)))
    assert reader.types() == ["user_message", "llm_chunk", "llm_complete"]


def test_a_notice_has_no_place_and_moves_none() -> None:
    channel = Channel(conversation())
    reader = Reader(channel)
    channel.append(Posted(message(1)))
    channel.append(Notice(ErrorCode.INTERNAL, request_id=None))
    channel.append(Notice(ErrorCode.INTERNAL, request_id=None))
    channel.append(Posted(message(2)))
    assert [entry.place for entry in reader.read()] == [(1, -1), None, None, (2, -1)]


def test_a_reader_that_fails_is_let_go_and_the_others_read_on() -> None:
    channel = Channel(conversation())

    class Broken(Reader):
        def wake(self) -> None:
            raise ZeroDivisionError

    broken, reader = {Broken(channel), Broken(channel)}, Reader(channel)
    running = Running(answer(2))
    for text in ("a", "b", "c"):
        channel.extend(running, [text])
    assert reader.types() == ["llm_chunk"] * 3
    assert not channel.readers & broken


@pytest.mark.parametrize(
    ("place", "seq"), [(BEGINNING, 0), ((3, Cursor.USER), 4), ((4, 0), 4), ((4, 7), 4), ((4, END), 5)]
)
def test_the_log_knows_which_message_it_needs_next(place: tuple[int, int], seq: int) -> None:
    channel = Channel(conversation())
    channel.begin_at(place)
    assert channel.next_seq == seq


def test_without_readers_nothing_is_kept_or_encoded() -> None:
    channel = Channel(conversation())
    running = Running(answer(2))
    for _ in range(1000):
        channel.extend(running, ["x"])
        channel.append(Notice(ErrorCode.INTERNAL, request_id=None))
    assert channel._entries == []
    assert pieces.text(running.pieces) == "x" * 1000
    reader = Reader(channel)
    channel.extend(running, ["y"])
    (entry,) = reader.read()
    assert parse(entry.frames(DEFAULT))[0].data["offset"] == 1000


def test_the_log_keeps_what_the_slowest_reader_has_not_read_and_not_much_more() -> None:
    channel = Channel(conversation())
    fast, slow = Reader(channel), Reader(channel)
    running = Running(answer(2))
    kept = []
    for number in range(10_000):
        channel.extend(running, [f"{number},"])
        fast.read()
        if number % 100 == 99:
            slow.read()
        kept.append(len(channel._entries))
    assert max(kept) <= 400  # twice what the slow one lacks, or twice that again before it shows
    channel.extend(running, ["the last"])
    assert [len(reader.read()) for reader in (fast, slow)] == [1, 1]


def test_each_reader_gets_every_entry_once_however_far_apart_they_read() -> None:
    channel = Channel(conversation())
    readers = [Reader(channel) for _ in range(3)]
    running = Running(answer(2))
    texts = ["", "", ""]
    for number in range(1000):
        channel.extend(running, [f"{number},"])
        for which, reader in enumerate(readers):
            if number % (1, 7, 333)[which] == 0:
                texts[which] += "".join(parse(entry.frames(DEFAULT))[0].data["content"] for entry in reader.read())
    for which, reader in enumerate(readers):
        texts[which] += "".join(parse(entry.frames(DEFAULT))[0].data["content"] for entry in reader.read())
    assert texts == [pieces.text(running.pieces)] * 3


def test_who_leaves_holds_nothing_back() -> None:
    channel = Channel(conversation())
    staying, leaving = Reader(channel), Reader(channel)
    running = Running(answer(2))
    for _ in range(500):
        channel.extend(running, ["x"])
        staying.read()
    assert len(channel._entries) == 500
    channel.readers.discard(leaving)
    for _ in range(1000):
        channel.extend(running, ["x"])
        staying.read()
    assert len(channel._entries) < 500


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ((1, END), "cdef"),
        ((2, -1), "cdef"),
        ((2, 0), "cdef"),
        ((2, 2), "cdef"),
        ((2, 3), "def"),
        ((2, 5), "f"),
        (BEGINNING, "cdef"),
    ],
)
def test_chunks_are_cut_to_the_code_point(place: tuple[int, int], told: str) -> None:
    channel = Channel(conversation())
    running = channel.running = Running(answer(2))
    reader = Reader(channel)
    channel.extend(running, ["ab"])
    channel.extend(running, ["cd", "ef"])
    channel.extend(running, ["gh"])
    entry = reader.read()[1].after(place)
    frames = parse(entry.frames(DEFAULT))
    assert "".join(frame.data["content"] for frame in frames) == told
    assert frames[0].data["offset"] == 6 - len(told)
    assert frames[-1].id == f"{2:024x}.6"
    assert entry.place == (2, 6)


def test_only_chunks_are_cut() -> None:
    end = Ended(answer(2, "ab", Status.COMPLETE)).after((2, 1))
    assert [frame.type for frame in parse(end.frames(DEFAULT))] == ["llm_complete"]
    assert end.after((2, 2)).place == (2, END)
    said = Posted(message(1))
    assert said.after(BEGINNING) is said


def test_an_entry_is_encoded_once_for_all_who_read_a_format() -> None:
    said = Posted(message(1))
    assert said.frames(DEFAULT) is said.frames(DEFAULT)


@pytest.mark.parametrize(
    ("told", "known", "rest"),
    [
        (["ab"], BEGINNING, b'"cd"'),
        ([], BEGINNING, b'"abcd"'),  # it ran and ended elsewhere, and the changes were missed
        ([], (2, 3), b'"d"'),  # a reader had more from the store than was ever told here
    ],
)
def test_an_end_brings_the_text_that_its_readers_lack(told: list[str], known: tuple[int, int], rest: bytes) -> None:
    wire = UIMessageStream()  # this format sends it only once
    channel = Channel(conversation())
    reader = Reader(channel)
    for text in told:
        channel.extend(Running(answer(2)), [text])
    channel.finish(answer(2, "abcd", Status.COMPLETE))
    frames = reader.read()[-1].after(known).frames(wire)
    assert frames.count(b"text-delta") == 1
    assert b'"delta":' + rest in frames
    assert (b'"type":"start"' in frames) == (rest == b'"abcd"')


def test_the_events_of_an_end_have_their_order_and_their_cursors() -> None:
    bets = tuple(
        Recommendation(bet_id=f"b{n}", odds=2.5, odds_text="6/4", selection=None, stake=None).annotation
        for n in range(2)
    )
    entry = Ended(answer(2, "ab", Status.COMPLETE, annotations=bets))
    frames = parse(entry.frames(DEFAULT))
    assert [frame.type for frame in frames] == ["llm_complete", "system", "system"]
    assert [frame.id for frame in frames] == [f"{2:024x}.{name}" for name in ("complete", "system1", "system2")]
    assert frames[1].data["metadata"] == {
        "betId": "b0",
        "odds": 2.5,
        "oddsText": "6/4",
        "selection": None,
        "stake": None,
    }
    assert entry.ends_answer(DEFAULT)
    places = [Cursor.parse(frame.id or "") for frame in frames]
    assert all(place is not None and place.position < END for place in places)


@pytest.mark.parametrize(
    ("content", "status", "unwatched", "types"),
    [
        ("ab", Status.FAILED, False, ["error", "llm_complete"]),
        ("", Status.FAILED, False, ["error"]),
        ("ab", Status.INTERRUPTED, True, ["error", "llm_complete"]),
        ("", Status.INTERRUPTED, True, ["error"]),
        ("ab", Status.INTERRUPTED, False, ["llm_complete"]),
        ("", Status.INTERRUPTED, False, []),
        ("ab", Status.STOPPED, False, ["llm_complete"]),
        ("", Status.STOPPED, False, ["llm_complete"]),
        ("", Status.COMPLETE, False, ["llm_complete"]),
    ],
)
def test_what_an_end_says(content: str, status: Status, unwatched: bool, types: list[str]) -> None:
    bad = status in (Status.FAILED, Status.INTERRUPTED)
    code = ErrorCode.ANSWER_INTERRUPTED
    failure = Failure(code=code, request_id="r", retry_after_ms=5, unwatched=unwatched) if bad else None
    entry = Ended(answer(2, content, status, failure=failure))
    assert entry.ends_answer(DEFAULT) == (status is not Status.INTERRUPTED or unwatched)
    frames = parse(entry.frames(DEFAULT)) if types else []
    assert bool(entry.frames(DEFAULT)) == bool(types)
    assert [frame.type for frame in frames] == types
    assert all(frame.id for frame in frames)
    for frame in frames:
        assert frame.data["messageId"] == f"{2:024x}"
        if frame.type == "llm_complete":
            assert (frame.data["content"], frame.data["status"]) == (content, status)
        else:
            assert (frame.data["requestId"], frame.data["retryAfterMs"]) == ("r", 5)
