"""The AI SDK's UI message stream, byte by byte."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec import structs

from chatstream import events
from chatstream.errors import ErrorCode
from chatstream.events import Connected, Cursor
from chatstream.formats.registry import VERSIONS
from chatstream.formats.ui_message_stream import UIMessageStream, ui_messages
from chatstream.models import Answer, Failure, Status, Usage, UserMessage
from chatstream.pieces import BEGINNING, ContextTrimmed, Piece, Place
from chatstream.plugins.bets.recommendation import Recommendation

NOW = "2026-11-22T10:40:00.123Z"
QUESTION = "0" * 23 + "a"
ANSWER = "0" * 23 + "b"
START = f'data: {{"type":"start","messageId":"{ANSWER}","messageMetadata":{{"replyTo":"{QUESTION}","attempt":1}}}}\n\n'
TEXT_START = 'data: {"type":"text-start","id":"text"}\n\n'
TEXT_END = 'data: {"type":"text-end","id":"text"}\n\n'
DONE = "data: [DONE]\n\n"

wire = UIMessageStream()
versions = VERSIONS[wire.name]


def delta(text: str, position: int) -> str:
    return f'id: {ANSWER}.{position}\ndata: {{"type":"text-delta","id":"text","delta":{json.dumps(text)}}}\n\n'


def finish(metadata: str, cursor: str = "complete", reason: str = "") -> str:
    said = f'"finishReason":"{reason}",' if reason else ""
    return f'id: {ANSWER}.{cursor}\ndata: {{"type":"finish",{said}"messageMetadata":{metadata}}}\n\n' + DONE


def answer(content: str = "", status: Status = Status.COMPLETE, **fields: Any) -> Answer:
    return Answer(
        id=ANSWER,
        seq=1,
        reply_to=QUESTION,
        attempt=1,
        status=status,
        content=content,
        created_at=datetime.now(UTC),
        **fields,
    )


def chunks(offset: int, *texts: str) -> str:
    at = Place(position=offset, offset=offset, text=offset)
    return wire.chunks(answer(), texts, at, NOW).decode()


def ending(stored: Answer, position: int) -> str:
    return wire.ending(stored, position).decode()


def test_an_answer_begins_with_its_first_chunk() -> None:
    assert chunks(0, "Bet ", "now.") == START + TEXT_START + delta("Bet ", 4) + delta("now.", 8)
    assert chunks(8, "\n⚽") == "id: {}.10\ndata: {}\n\n".format(
        ANSWER, '{"type":"text-delta","id":"text","delta":"\\n⚽"}'
    )


def test_no_text_ends_a_line() -> None:
    text = "a\u2028b\u2029c\x85d"
    assert chunks(8, text) == "id: {}.15\ndata: {}\n\n".format(
        ANSWER, '{"type":"text-delta","id":"text","delta":"a\\u2028b\\u2029c\\u0085d"}'
    )


def test_an_end_has_the_recommendations_and_the_metadata() -> None:
    bet = Recommendation(bet_id="b1", odds=2.1, odds_text="2.10", selection="Arsenal", stake=None).annotation
    usage = Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7)
    stored = answer("Bet now.", finish_reason="length", usage=usage, annotations=(bet,))
    assert ending(stored, 8) == (
        TEXT_END + 'data: {"type":"data-recommendation","id":"b1","data":'
        '{"betId":"b1","odds":2.1,"oddsText":"2.10","selection":"Arsenal","stake":null}}\n\n'
        + finish(
            '{"status":"complete","finishReason":"length","usage":'
            '{"promptTokens":5,"completionTokens":2,"totalTokens":7,"source":"exact"},"error":null}',
            "system1",
        )
    )


ENDED = '{"status":"complete","finishReason":"stop","usage":null,"error":null}'


@pytest.mark.parametrize(
    ("content", "position", "told"),
    [
        ("Bet now.", 8, TEXT_END),
        ("Bet now.", 0, START + TEXT_START + delta("Bet now.", 8) + TEXT_END),  # a viewer that has nothing of it
        ("Bet now.", 4, delta("now.", 8) + TEXT_END),  # stored by another process, with more text
        ("Bet", 8, TEXT_END),  # ... or with less text
        ("", 0, START),
    ],
)
def test_an_end_brings_what_was_not_told(content: str, position: int, told: str) -> None:
    assert ending(answer(content, finish_reason="stop"), position) == told + finish(ENDED)


def test_behind_the_end_there_is_nothing() -> None:
    assert ending(answer("Bet now."), Cursor.COMPLETE) == ""


STOPPED = '{"status":"stopped","finishReason":null,"usage":null,"error":null}'


@pytest.mark.parametrize("version", ["6", "7"])
@pytest.mark.parametrize(
    ("reason", "finished"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content-filter"),
        ("tool_calls", "tool-calls"),
        ("a new one", "other"),
        (None, "other"),
    ],
)
def test_the_finish_reason_is_told_to_those_who_know_it(version: str, reason: str | None, finished: str) -> None:
    stored = answer("Bet", finish_reason=reason)
    assert f'"type":"finish","finishReason":"{finished}"' in versions[version].ending(stored, 3).decode()
    for one in (wire, versions["5"]):
        assert '"type":"finish","messageMetadata":{"status":"complete"' in one.ending(stored, 3).decode()


def test_an_answer_that_was_stopped_ends_as_each_version_has_it() -> None:
    stopped = answer("Bet", Status.STOPPED)
    assert ending(stopped, 3) == TEXT_END + finish(STOPPED)
    aborted = (
        f'data: {{"type":"message-metadata","messageMetadata":{STOPPED}}}\n\n'
        f'id: {ANSWER}.complete\ndata: {{"type":"abort"}}\n\n'
    )
    for version in ("5", "6"):
        assert versions[version].ending(stopped, 3).decode() == TEXT_END + aborted + DONE
    assert versions["7"].ending(stopped, 3).decode() == TEXT_END + finish(STOPPED, reason="other")


@pytest.mark.parametrize(("status", "finished"), [(Status.FAILED, "error"), (Status.INTERRUPTED, "other")])
def test_what_there_is_to_know_comes_before_the_error_behind_which_nobody_reads(status: Status, finished: str) -> None:
    failure = Failure(code=ErrorCode.UPSTREAM_TIMEOUT, request_id="r1", retry_after_ms=500, unwatched=True)
    metadata = (
        f'{{"status":"{status}","finishReason":null,"usage":null,'
        '"error":{"code":"upstream_timeout","retryable":true,"requestId":"r1","retryAfterMs":500}}'
    )
    told = (
        TEXT_END
        + f'data: {{"type":"message-metadata","messageMetadata":{metadata}}}\n\n'
        + 'data: {"type":"error","errorText":"The model took too long to answer. Try again."}\n\n'
    )
    stored = answer("Bet", status, failure=failure)
    assert ending(stored, 3) == versions["5"].ending(stored, 3).decode() == told + finish(metadata)
    for version in ("6", "7"):
        assert versions[version].ending(stored, 3).decode() == told + finish(metadata, reason=finished)


def test_of_one_that_begins_again_nothing_is_told_but_its_end_to_who_has_some_of_it() -> None:
    cut = answer("Bet", Status.INTERRUPTED, failure=Failure(code=ErrorCode.ANSWER_INTERRUPTED, request_id="r1"))
    metadata = '{"status":"interrupted","finishReason":null,"usage":null,"error":null}'
    for format_ in (wire, *versions.values()):
        assert format_.chunks(cut, ["Bet"], BEGINNING, now="") == format_.ending(cut, 0) == b""
    assert versions["7"].ending(cut, 2).decode() == TEXT_END + finish(metadata, reason="other")
    gone = answer("", Status.INTERRUPTED, failure=cut.failure)  # a crash has lost text that was already sent
    assert versions["7"].ending(gone, 2).decode() == TEXT_END + finish(metadata, reason="other")


def test_a_history_has_what_streams_would_leave_behind() -> None:
    bet = Recommendation(bet_id="b1", odds=2.1, odds_text="2.10", selection="Arsenal", stake=None).annotation
    now = datetime(2026, 11, 22, 10, 40, 0, 123000, tzinfo=UTC)
    asked = UserMessage(id=QUESTION, seq=0, content="Who wins?", created_at=now, client_message_id="mine")
    again = UserMessage(id="c" * 24, seq=4, content="And now?", created_at=now)
    shown = ui_messages(
        [
            asked,
            answer("Cut", Status.INTERRUPTED),
            structs.replace(
                answer("Bet now.", finish_reason="stop", annotations=(bet,)), id="d" * 24, seq=2, attempt=2
            ),
            structs.replace(answer("Half", Status.STREAMING), id="e" * 24, seq=3, reply_to=again.id),
            again,
        ]
    )
    assert msgspec.json.decode(msgspec.json.encode(shown)) == [
        {
            "role": "user",
            "id": "mine",
            "parts": [{"type": "text", "text": "Who wins?"}],
            "metadata": {"createdAt": NOW},
        },
        {
            "role": "assistant",
            "id": "d" * 24,
            "parts": [
                {"type": "text", "text": "Bet now."},
                {
                    "type": "data-recommendation",
                    "id": "b1",
                    "data": {"betId": "b1", "odds": 2.1, "oddsText": "2.10", "selection": "Arsenal", "stake": None},
                },
            ],
            "metadata": {"replyTo": QUESTION, "attempt": 2, **json.loads(ENDED)},
        },
        {
            "role": "user",
            "id": "c" * 24,
            "parts": [{"type": "text", "text": "And now?"}],
            "metadata": {"createdAt": NOW},
        },
    ]


def test_what_is_no_part_of_a_message() -> None:
    connected = Connected(timestamp=NOW, conversation_id="c1", resumed=False, active_message_id=None)
    assert wire.connected(connected, 1000) == b": stream-open\n\n"
    assert wire.heartbeat() == b": keep-alive\n\n"
    assert wire.posted(UserMessage(id=QUESTION, seq=0, content="?", created_at=datetime.now(UTC))) == b""
    shutdown = events.error(ErrorCode.SERVER_SHUTDOWN, request_id="r1")
    last_words = 'data: {"type":"error","errorText":"The server is restarting. Connect again."}\n\n' + DONE
    assert wire.error(shutdown, 1000).decode() == last_words
    unstored = events.error(ErrorCode.STORAGE_UNAVAILABLE, request_id="r1")
    assert wire.error(unstored, None).decode() == (
        'data: {"type":"data-notice","data":{"message":"Nothing can be read or stored at the moment. Try again '
        'shortly.","code":"storage_unavailable"},"transient":true}\n\n'
    )


def test_that_messages_are_left_out_of_the_context_is_in_the_metadata() -> None:
    trimmed: list[Piece] = [ContextTrimmed(dropped=12), "Hi"]
    told = wire.chunks(answer(), trimmed, BEGINNING, NOW).decode()
    start = json.loads(told.split("\n")[0].removeprefix("data: "))
    assert start["messageMetadata"] == {"replyTo": QUESTION, "attempt": 1, "contextTrimmed": {"dropped": 12}}
    stored = answer().made_of(trimmed)
    for position in (0, 1, 2, 3):  # a later viewer gets it at the end
        last = [line for line in ending(stored, position).split("\n") if '"finish"' in line]
        metadata = [json.loads(line.removeprefix("data: "))["messageMetadata"] for line in last]
        assert [one["contextTrimmed"] for one in metadata] == [{"dropped": 12}]
    [shown] = ui_messages([stored])
    assert msgspec.to_builtins(shown)["metadata"]["contextTrimmed"] == {"dropped": 12}
    assert "contextTrimmed" not in ending(answer("Hi"), 0)
