"""Property: for all answers and positions, the frames up to a position and those from it on together equal the
uninterrupted stream.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chatstream import pieces, sse
from chatstream.events import Chunk, Cursor, ReasoningChunk
from chatstream.formats.format import Format
from chatstream.formats.registry import HIDING, SHOWING
from chatstream.formats.ui_message_stream import ui_messages
from chatstream.generations.channel import Running
from chatstream.generations.entries import Chunks, Entry
from chatstream.generations.replay import in_progress, log_entries
from chatstream.handlers.views import message_view
from chatstream.models import Answer, Status
from chatstream.pieces import (
    BEGINNING,
    CallState,
    Data,
    OpenReasoning,
    OpenText,
    OpenToolCall,
    Piece,
    ToolResult,
    ToolState,
)
from chatstream.store.documents import answer_document, answer_model, outcome
from tests.support.lean import Whole

NOW = "2026-11-22T10:40:00.123Z"
KEY = "c" * 24
SECRET = "\N{LOCK}hm\N{ZERO WIDTH JOINER}"  # a text that is only in the reasoning

texts = st.text(st.sampled_from("ab \n👍\u200d👩"), max_size=4)
marks = st.one_of(
    st.builds(OpenText),
    st.builds(OpenToolCall, id=st.just("c1"), name=st.just("odds")),
    st.builds(ToolState, id=st.just("c1"), state=st.sampled_from(CallState)),
    st.builds(ToolResult, id=st.just("c1"), output=st.just({"odds": 2.1})),
    st.builds(Data, kind=st.just("card"), id=st.just("d1"), data=st.integers(0, 3)),
)
thoughts = st.lists(st.just(SECRET), max_size=3).map(lambda said: [OpenReasoning(), *said])
told = st.lists(texts | marks, max_size=4).filter(lambda told: not told or not isinstance(told[0], str))
answers = st.lists(st.one_of(thoughts, told, st.just([OpenText(), "ab"])), max_size=5).map(
    lambda runs: [piece for run in runs for piece in run if piece != ""]
)
formats = [
    pytest.param(one, id=f"{one.name}{version}{'' if of is SHOWING else ' hiding'}")
    for of in (SHOWING, HIDING)
    for version, one in [
        *((" lean", one) for one in of.lean.values()),
        *(("", one) for one in of.by_name.values()),
        *((f" {version}", one) for versions in of.versions.values() for version, one in versions.items()),
    ]
]


def answer(made: Sequence[Piece], status: Status = Status.STREAMING) -> Answer:
    return Answer(
        id="a" * 24, seq=2, reply_to="b" * 24, attempt=1, status=status, content="", created_at=datetime.now(UTC)
    ).made_of(made)


def frames(wire: Format, entries: Iterable[Entry]) -> bytes:
    return b"".join(entry.frames(wire) for entry in entries)


def read(stream: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The frames, each with its id; neighbouring pieces of the same part are joined, so that the cuts do not matter."""
    events: list[tuple[str, dict[str, Any]]] = []
    whole_of = Whole()
    for frame in stream.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in frame.split("\n"))
        cursor, data = fields.get("id", ""), fields["data"]
        event: dict[str, Any] = {"end": data} if data == "[DONE]" else json.loads(data)
        event = whole_of.of(cursor, event) if event.get("type") in ("llm_chunk", "reasoning_chunk") else event
        event = {name: value for name, value in event.items() if name != "timestamp"}
        if events and _goes_on(events[-1][1], event):
            whole = events.pop()[1]
            text = next(name for name in ("content", "delta", "arguments", "inputTextDelta") if name in whole)
            event = {**event, text: whole[text] + event[text]} | (
                {"offset": whole["offset"]} if "offset" in whole else {}
            )
        events.append((cursor, event))
    return events


def _goes_on(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if one.get("type") != other.get("type"):
        return False
    if one["type"] in ("llm_chunk", "reasoning_chunk"):
        return bool(one["offset"] + len(one["content"]) == other["offset"])
    if one["type"] in ("tool_call", "tool-input-delta"):
        return bool(one["toolCallId"] == other["toolCallId"])
    return one["type"] in ("text-delta", "reasoning-delta") and one["id"] == other["id"]


@pytest.mark.parametrize("wire", formats)
@given(answers, st.booleans(), st.data())
def test_whichever_frame_a_connection_ends_with_the_next_one_goes_on(
    wire: Format, made: list[Piece], waits: bool, data: st.DataObject
) -> None:
    """A client does not know positions, only the ids of the frames that it has received."""
    asked = [ToolState(id="c1", name="odds", state=state) for state in (CallState.READY, CallState.AWAITING_APPROVAL)]
    made = [*made, OpenToolCall(id="c1", name="odds"), "{}", *asked] if waits else made
    one = answer(made, Status.WAITING if waits else Status.COMPLETE)
    whole = frames(wire, log_entries([one], (1, 0)))
    told = whole.split(b"\n\n")[:-1]
    kept = told[: data.draw(st.integers(0, len(told)))]
    while kept and not kept[-1].startswith(b"id: "):
        kept.pop()  # this frame is sent again
    id_ = kept[-1].partition(b"\n")[0].rpartition(b".")[2] if kept else b"0"
    rest = frames(wire, log_entries([one], (2, int(id_)) if kept else (1, 0))) if id_.isdigit() else b""
    done = {"end": "[DONE]"}
    got = [event for event in read(b"".join(b"%b\n\n" % frame for frame in kept) + rest) if event[1] != done]
    assert got == [event for event in read(whole) if event[1] != done]


@pytest.mark.parametrize("wire", formats)
@given(answers, st.data())
def test_told_up_to_a_position_and_from_it_on(wire: Format, made: list[Piece], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, pieces.size(made)))
    running = answer(made)
    log = Chunks(running, made, BEGINNING)
    before = Chunks(running, pieces.cut(made, 0, position), BEGINNING) if position else None
    known = [before] if before else []
    at_once = read(frames(wire, [log]) if made else b"")
    # In the live log; in a replay while the answer runs; in another process.
    assert read(frames(wire, [*known, log.after((2, position))] if made else [])) == at_once
    cursor = Cursor(running.id, position)
    replay = in_progress(Running(running, made), cursor)
    assert replay is not None
    assert read(frames(wire, [*known, *replay.entries])) == at_once
    document = answer_document(KEY, running) | {"pieces": pieces.stored(made), "length": pieces.size(made)}
    elsewhere = answer_model(document)
    assert read(frames(wire, [*known, *log_entries([elsewhere], (2, position))])) == at_once


@given(answers)
def test_a_lean_chunk_has_the_id_of_the_whole_one(made: list[Piece]) -> None:
    log = Chunks(answer(made), made, BEGINNING) if made else None
    entries = [] if log is None else [log]
    for of in (SHOWING, HIDING):
        lean, whole = (frames(wire, entries) for wire in (of.lean["chat-events"], of.default))
        assert [line for line in lean.split(b"\n") if line.startswith(b"id: ")] == [
            line for line in whole.split(b"\n") if line.startswith(b"id: ")
        ]
        assert read(lean) == read(whole)


@given(st.text(), st.sampled_from(["6b06f718bcab1449ce4875a6", '"\u2028\\']), st.integers(1, 3), st.booleans())
def test_a_chunk_is_what_its_event_says(text: str, id_: str, attempt: int, thinks: bool) -> None:
    begin = pieces.after(pieces.after(BEGINNING, "so far"), OpenReasoning() if thinks else OpenText())
    begin = pieces.after(begin, "then")
    of = replace(answer([]), id=id_, reply_to=id_, attempt=attempt)
    event = (ReasoningChunk if thinks else Chunk)(
        timestamp=NOW,
        content=text,
        message_id=id_,
        reply_to=id_,
        attempt=attempt,
        offset=begin.offset if thinks else begin.text,
    )
    expected = sse.placed(f"{id_}.{begin.position + len(text)}".encode(), event)
    assert SHOWING.default.chunks(of, [text], begin, NOW) == expected


@pytest.mark.parametrize("wire", formats)
@given(answers, st.data())
def test_the_same_of_one_that_has_ended(wire: Format, made: list[Piece], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, pieces.size(made)))
    ended = answer(made, Status.COMPLETE)
    stored = answer_model(answer_document(KEY, answer([])) | outcome(ended) | {"content": ended.content})
    at_once = read(frames(wire, log_entries([stored], (1, 0))))
    before = frames(wire, [Chunks(stored, pieces.cut(made, 0, position), BEGINNING)] if position else [])
    assert read(before + frames(wire, log_entries([stored], (2, position)))) == at_once


@pytest.mark.parametrize("wire", [one for one in formats if "hiding" in str(one.id)])
@given(answers, st.data())
def test_what_is_hidden_never_leaves(wire: Format, made: list[Piece], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, pieces.size(made)))
    ended = answer(made, Status.COMPLETE)
    leaves = frames(wire, [Chunks(ended, made, BEGINNING).after((2, position))] if made else [])
    leaves += frames(wire, log_entries([ended], (2, position)))
    shown = leaves.decode() + repr(message_view(ended, reasoning=False)) + repr(ui_messages([ended], reasoning=False))
    assert "\N{LOCK}" not in shown
    assert "reasoning" not in shown.lower().replace("_reasoning=false", "")
    # The visible content equals that of the same answer without reasoning; only the cursors differ.
    without = [piece for piece in made if piece != SECRET]
    told = [event for _, event in read(frames(wire, log_entries([ended], (1, 0))))]
    assert told == [event for _, event in read(frames(wire, log_entries([answer(without, Status.COMPLETE)], (1, 0))))]


def test_only_what_is_more_than_text_has_parts() -> None:
    thought = answer([OpenReasoning(), SECRET, OpenText(), "Hi"], Status.COMPLETE)
    shown, hidden = (read(frames(of.default, log_entries([thought], (1, 0))))[-1][1] for of in (SHOWING, HIDING))
    assert shown["content"] == hidden["content"] == "Hi"
    assert shown["parts"] == [{"type": "reasoning", "text": SECRET}, {"type": "text", "text": "Hi"}]
    assert "parts" not in hidden
    assert "parts" not in read(frames(SHOWING.default, log_entries([answer(["Hi"], Status.COMPLETE)], (1, 0))))[-1][1]
