"""The frames to the byte: field names, their order, `id:` where it belongs, LF only."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatstream import events, sse
from chatstream.errors import ErrorCode
from chatstream.events import AnyEvent, Chunk, Complete, Connected, Cursor, Heartbeat, System, UserMessagePosted
from chatstream.models import Answer, Failure, Status, Usage, UserMessage, recommendation
from chatstream.plugins.bets.recommendation import Recommendation

NOW = "2026-11-22T10:40:00.123Z"
QUESTION = "0" * 23 + "a"
ANSWER = "0" * 23 + "b"

# The protocol's promise to clients: changing a byte here changes it for every client.
GOLDEN: list[tuple[AnyEvent, Cursor | None, str]] = [
    (
        Connected(timestamp=NOW, conversation_id="c1", resumed=False, active_message_id=None),
        None,
        f'data: {{"type":"connected","timestamp":"{NOW}",'
        '"conversationId":"c1","resumed":false,"activeMessageId":null}\n\n',
    ),
    (Heartbeat(timestamp=NOW), None, f'data: {{"type":"heartbeat","timestamp":"{NOW}"}}\n\n'),
    (
        UserMessagePosted(timestamp=NOW, message_id=QUESTION, content="Wer gewinnt? ⚽"),
        Cursor(QUESTION, Cursor.USER),
        f'id: {QUESTION}.user\ndata: {{"type":"user_message","timestamp":"{NOW}",'
        f'"messageId":"{QUESTION}","content":"Wer gewinnt? ⚽"}}\n\n',
    ),
    (
        Chunk(timestamp=NOW, content="Bet", message_id=ANSWER, reply_to=QUESTION, attempt=1, offset=4),
        Cursor(ANSWER, 7),
        f'id: {ANSWER}.7\ndata: {{"type":"llm_chunk","timestamp":"{NOW}",'
        f'"content":"Bet","messageId":"{ANSWER}","replyTo":"{QUESTION}","attempt":1,"offset":4}}\n\n',
    ),
    (
        Complete(
            timestamp=NOW,
            content="",
            message_id=ANSWER,
            reply_to=QUESTION,
            attempt=2,
            status=Status.COMPLETE,
            finish_reason="stop",
            usage=Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7),
        ),
        Cursor(ANSWER, Cursor.COMPLETE),
        f'id: {ANSWER}.complete\ndata: {{"type":"llm_complete","timestamp":"{NOW}",'
        f'"content":"","messageId":"{ANSWER}","replyTo":"{QUESTION}","attempt":2,"status":"complete",'
        '"finishReason":"stop",'
        '"usage":{"promptTokens":5,"completionTokens":2,"totalTokens":7,"source":"exact"}}\n\n',
    ),
    (
        Complete(
            timestamp=NOW,
            content="So far",
            message_id=ANSWER,
            reply_to=QUESTION,
            attempt=1,
            status=Status.STOPPED,
            finish_reason=None,
            usage=None,
        ),
        Cursor(ANSWER, Cursor.COMPLETE),
        f'id: {ANSWER}.complete\ndata: {{"type":"llm_complete","timestamp":"{NOW}",'
        f'"content":"So far","messageId":"{ANSWER}","replyTo":"{QUESTION}","attempt":1,"status":"stopped",'
        '"finishReason":null,"usage":null}\n\n',
    ),
    (
        System(
            timestamp=NOW,
            message="New bet recommendation available",
            metadata=Recommendation(
                bet_id="b1", odds=2.1, odds_text="11/10", selection="Arsenal", stake=None
            ).annotation.data,
        ),
        Cursor(ANSWER, Cursor.COMPLETE + 1),
        f'id: {ANSWER}.system1\ndata: {{"type":"system","timestamp":"{NOW}",'
        '"message":"New bet recommendation available",'
        '"metadata":{"betId":"b1","odds":2.1,"oddsText":"11/10","selection":"Arsenal","stake":null}}\n\n',
    ),
    (
        events.Error(
            timestamp=NOW,
            message="The model took too long to answer. Try again.",
            error=ErrorCode.UPSTREAM_TIMEOUT,
            retryable=True,
            request_id="r1",
            message_id=ANSWER,
            retry_after_ms=None,
        ),
        Cursor(ANSWER, Cursor.ERROR),
        f'id: {ANSWER}.error\ndata: {{"type":"error","timestamp":"{NOW}",'
        '"message":"The model took too long to answer. Try again.","error":"upstream_timeout","retryable":true,'
        f'"requestId":"r1","messageId":"{ANSWER}","retryAfterMs":null}}\n\n',
    ),
    (
        events.Error(
            timestamp=NOW,
            message="The server is restarting. Connect again.",
            error=ErrorCode.SERVER_SHUTDOWN,
            retryable=True,
            request_id="r1",
            message_id=None,
            retry_after_ms=2000,
        ),
        None,
        f'data: {{"type":"error","timestamp":"{NOW}",'
        '"message":"The server is restarting. Connect again.","error":"server_shutdown","retryable":true,'
        '"requestId":"r1","messageId":null,"retryAfterMs":2000}\n\n',
    ),
]


@pytest.mark.parametrize(("event", "cursor", "frame"), GOLDEN, ids=lambda value: type(value).__name__)
def test_a_frame_to_the_byte(event: AnyEvent, cursor: Cursor | None, frame: str) -> None:
    assert sse.frame(event, cursor) == frame.encode()


def test_a_retry_line_is_no_frame_of_its_own() -> None:
    assert sse.retry(1500) == b"retry: 1500\n"


@given(st.text())
def test_no_content_can_break_a_frame(content: str) -> None:
    event = UserMessagePosted(timestamp=NOW, message_id=QUESTION, content=content)
    frame = sse.frame(event, Cursor(QUESTION, Cursor.USER))
    assert b"\r" not in frame
    assert b"\0" not in frame
    assert frame.endswith(b"\n\n")
    # The seed's clients split only at empty lines, others at every line, or at every line end of Unicode.
    assert len(frame.decode().splitlines()) == 3
    id_line, data_line = frame.removesuffix(b"\n\n").split(b"\n")
    assert id_line == f"id: {QUESTION}.user".encode()
    assert json.loads(data_line.removeprefix(b"data: "))["content"] == content


@pytest.mark.parametrize("content", ["\r\n\r\ndata: {}\n\n", "a\0b", "\u2028\u2029\x85", "\x1b[2J", "\N{WINKING FACE}"])
def test_hostile_content_arrives_as_it_was(content: str) -> None:
    event = Chunk(timestamp=NOW, content=content, message_id=ANSWER, reply_to=QUESTION, attempt=1, offset=0)
    frame = sse.frame(event, Cursor(ANSWER, len(content)))
    assert frame.count(b"\n") == 3
    assert len(frame.decode().splitlines()) == 3
    assert json.loads(frame.split(b"data: ", 1)[1])["content"] == content


def test_what_ends_no_line_stays_as_it_is() -> None:
    content = "\u00e8\u00e9\u00c5 \u2026\u2027\u202a \u3028 \U0001f4a8"  # share bytes with a line end
    event = Chunk(timestamp=NOW, content=content, message_id=ANSWER, reply_to=QUESTION, attempt=1, offset=0)
    assert f'"content":"{content}"'.encode() in sse.frame(event)


def test_ids_are_on_what_can_be_resumed_from_and_nowhere_else() -> None:
    question = UserMessage(id=QUESTION, seq=0, content="?", created_at=datetime.now(UTC))
    answer = Answer(
        id=ANSWER,
        seq=1,
        reply_to=QUESTION,
        attempt=1,
        status=Status.FAILED,
        content="So far",
        created_at=datetime.now(UTC),
        failure=Failure(code=ErrorCode.UPSTREAM_TRUNCATED, request_id="r1", retry_after_ms=500),
        annotations=(recommendation({"betId": "1"}), recommendation({"betId": "2"})),
    )
    chunk = events.Chunk(timestamp=NOW, content="So far", message_id=ANSWER, reply_to=QUESTION, attempt=1, offset=0)
    placed = [events.posted(question), (Cursor(ANSWER, 6), chunk), *events.ending(answer)]
    frames = [sse.frame(event, cursor) for cursor, event in placed]
    assert [frame.split(b"\n")[0].decode() for frame in frames] == [
        f"id: {QUESTION}.user",
        f"id: {ANSWER}.6",
        f"id: {ANSWER}.error",
        f"id: {ANSWER}.complete",
        f"id: {ANSWER}.system1",
        f"id: {ANSWER}.system2",
    ]
