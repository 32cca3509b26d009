"""The AI SDK's UI message stream to the byte."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from chatstream import events
from chatstream.errors import ErrorCode
from chatstream.events import Connected, Cursor
from chatstream.formats.ui_message_stream import UIMessageStream
from chatstream.models import Answer, Failure, Recommendation, Status, Usage, UserMessage

NOW = "2026-11-22T10:40:00.123Z"
QUESTION = "0" * 23 + "a"
ANSWER = "0" * 23 + "b"
START = f'data: {{"type":"start","messageId":"{ANSWER}","messageMetadata":{{"replyTo":"{QUESTION}","attempt":1}}}}\n\n'
TEXT_START = 'data: {"type":"text-start","id":"text"}\n\n'
TEXT_END = 'data: {"type":"text-end","id":"text"}\n\n'
DONE = "data: [DONE]\n\n"

wire = UIMessageStream()


def delta(text: str, position: int) -> str:
    return f'id: {ANSWER}.{position}\ndata: {{"type":"text-delta","id":"text","delta":{json.dumps(text)}}}\n\n'


def finish(reason: str, metadata: str, cursor: str = "complete") -> str:
    return (
        f"id: {ANSWER}.{cursor}\n"
        f'data: {{"type":"finish","finishReason":"{reason}","messageMetadata":{metadata}}}\n\n' + DONE
    )


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
    return wire.chunks(answer(), texts, offset, NOW).decode()


def ending(stored: Answer, position: int) -> str:
    return wire.ending(stored, position).decode()


def test_an_answer_begins_with_its_first_chunk() -> None:
    assert chunks(0, "Bet ", "now.") == START + TEXT_START + delta("Bet ", 4) + delta("now.", 8)
    assert chunks(8, "\n⚽") == "id: {}.10\ndata: {}\n\n".format(
        ANSWER, '{"type":"text-delta","id":"text","delta":"\\n⚽"}'
    )


def test_an_end_has_the_recommendations_and_the_metadata() -> None:
    bet = Recommendation(bet_id="b1", odds=2.1, odds_text="2.10", selection="Arsenal", stake=None)
    usage = Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7)
    stored = answer("Bet now.", finish_reason="length", usage=usage, recommendations=(bet,))
    assert ending(stored, 8) == (
        TEXT_END + 'data: {"type":"data-recommendation","id":"b1","data":'
        '{"betId":"b1","odds":2.1,"oddsText":"2.10","selection":"Arsenal","stake":null}}\n\n'
        + finish(
            "length",
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
        ("Bet now.", 0, START + TEXT_START + delta("Bet now.", 8) + TEXT_END),  # who has been told nothing of it
        ("Bet now.", 4, delta("now.", 8) + TEXT_END),  # stored by another process, which had got further
        ("Bet", 8, TEXT_END),  # ... or less far
        ("", 0, START),
    ],
)
def test_an_end_brings_what_was_not_told(content: str, position: int, told: str) -> None:
    assert ending(answer(content, finish_reason="stop"), position) == told + finish("stop", ENDED)


def test_behind_the_end_there_is_nothing() -> None:
    assert ending(answer("Bet now."), Cursor.COMPLETE) == ""


@pytest.mark.parametrize(
    ("status", "reason", "finished"),
    [
        (Status.COMPLETE, "stop", "stop"),
        (Status.COMPLETE, "content_filter", "content-filter"),
        (Status.COMPLETE, "tool_calls", "tool-calls"),
        (Status.COMPLETE, "a new one", "other"),
        (Status.STOPPED, None, "interrupted"),
    ],
)
def test_the_finish_reason_is_one_that_the_sdk_knows(status: Status, reason: str | None, finished: str) -> None:
    assert f'"finishReason":"{finished}"' in ending(answer("Bet", status, finish_reason=reason), 3)


@pytest.mark.parametrize(("status", "finished"), [(Status.FAILED, "error"), (Status.INTERRUPTED, "interrupted")])
def test_what_there_is_to_know_comes_before_the_error_behind_which_nobody_reads(status: Status, finished: str) -> None:
    failure = Failure(code=ErrorCode.UPSTREAM_TIMEOUT, request_id="r1", retry_after_ms=500)
    metadata = (
        f'{{"status":"{status}","finishReason":null,"usage":null,'
        '"error":{"code":"upstream_timeout","retryable":true,"requestId":"r1","retryAfterMs":500}}'
    )
    assert ending(answer("Bet", status, failure=failure), 3) == (
        TEXT_END
        + f'data: {{"type":"message-metadata","messageMetadata":{metadata}}}\n\n'
        + 'data: {"type":"error","errorText":"The model took too long to answer. Try again."}\n\n'
        + finish(finished, metadata)
    )


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
        'data: {"type":"data-notice","data":{"message":"The answer cannot be stored at the moment.",'
        '"code":"storage_unavailable"},"transient":true}\n\n'
    )
