"""The default format: sends the events of `chatstream.events` unchanged."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from msgspec import UNSET

from chatstream import events, sse
from chatstream.events import DataTold, ToolCalled, ToolEnded, ToolStateChanged
from chatstream.formats.format import Format
from chatstream.models import Answer, UserMessage
from chatstream.pieces import (
    ContextTrimmed,
    Data,
    Kind,
    Mark,
    OpenToolCall,
    Piece,
    Place,
    ToolResult,
    ToolState,
    after,
    behind,
    is_text,
)

Told = ToolCalled | ToolStateChanged | ToolEnded | DataTold | events.ContextTrimmed
_TYPES = {Kind.TEXT: b"llm_chunk", Kind.REASONING: b"reasoning_chunk"}


class ChatEvents(Format):
    """Sends one unnamed event per frame. `llm_complete` has the whole text of an answer, so no ending repeats it."""

    name = "chat-events"
    summary = "the events of this API"
    headers: Mapping[str, str] = {}
    one_answer = False
    data = events.AnyEvent
    end = None

    def __init__(self, *, reasoning: bool = True, lean: bool = False, models: bool = False) -> None:
        """`reasoning`: send the model's reasoning. `lean`: chunks leave out repeated fields (see `_Constant`).
        `models`: `llm_complete` names the answering model."""
        self._reasoning = reasoning
        self._models = models
        self._lean = lean

    def connected(self, event: events.Connected, retry_ms: int) -> bytes:
        """Send `connected`."""
        return sse.retry(retry_ms) + sse.frame(event)

    def heartbeat(self) -> bytes:
        """Send a `heartbeat` event, not a comment: some clients report a comment as an event without data."""
        return sse.frame(events.Heartbeat(timestamp=events.timestamp()))

    def posted(self, message: UserMessage) -> bytes:
        """Send `user_message`."""
        return _frames([events.posted(message)])

    def aside(self, event: events.AnyAside) -> bytes:
        """Send `branch`, `rating`, `title` or `withdrawn`, without a cursor: these events are not part of the log."""
        return sse.frame(event)

    def chunks(self, answer: Answer, pieces: Sequence[Piece], at: Place, now: str, *, waits: bool = False) -> bytes:
        """Send `llm_chunk`, `reasoning_chunk` or `tool_call` for each string, and the events of marks.

        The JSON of `Chunk` and `ReasoningChunk` is assembled here: that takes two thirds of the time of making and
        encoding the event.
        """
        if is_text(pieces):
            return self._strings(answer, pieces, at, now)
        frames: list[bytes] = []
        run: list[str] = []  # neighbouring strings
        for piece in pieces:
            if isinstance(piece, str):
                run.append(piece)
                continue
            frames.append(self._strings(answer, run, at, now))
            at, run = after(behind(at, run), piece), []
            if (event := _event_of(answer, piece, now)) is not None:
                frames.append(sse.placed(b"%b.%d" % (answer.id.encode(), at.position), event))
        frames.append(self._strings(answer, run, at, now))
        return b"".join(frames)

    def _strings(self, answer: Answer, strings: Sequence[str], at: Place, now: str) -> bytes:
        """Send strings that continue the part that is open at `at`."""
        if at.call is not None:
            return _arguments(answer, at.call, strings, at.position, now)
        if at.kind is Kind.REASONING and not self._reasoning:
            return b""
        same, type_, frames = _constant(answer.id, answer.reply_to, answer.attempt), _TYPES[at.kind], []
        position, offset = at.position, at.text if at.kind is Kind.TEXT else at.offset
        # Prepared once for all strings: this is the hot path.
        encode = sse.encode if "".join(strings).isascii() else sse.encoded
        lean = b'\ndata: {"type":"%b","content":' % type_
        begin, names = b'\ndata: {"type":"%b","timestamp":"%b","content":' % (type_, now.encode()), same.names
        whole = not (self._lean and at.offset)
        for string in strings:
            position += len(string)
            if whole:
                frames.append(b"id: %b%d%b%b%b%d}\n\n" % (same.id, position, begin, encode(string), names, offset))
                whole = not self._lean
            else:
                frames.append(b"id: %b%d%b%b}\n\n" % (same.id, position, lean, encode(string)))
            offset += len(string)
        return b"".join(frames)

    def ending(self, answer: Answer, position: int) -> bytes:
        """Send `error`, `llm_complete` and `system`, as far as they come after `position`."""
        ending = events.ending(answer, reasoning=self._reasoning, model=self._models)
        return _frames(placed for placed in ending if placed[0].position > position)

    def error(self, event: events.Error, retry_ms: int | None) -> bytes:
        """Send `error`."""
        return (b"" if retry_ms is None else sse.retry(retry_ms)) + sse.frame(event)


class _Constant(NamedTuple):
    """The fields that are the same in all chunks of an answer.

    A lean chunk leaves them out, and the time: it continues the part of the chunk before it. Its ``id:`` has the
    message's id and the end position; its text continues where the text of the chunk before it ended.
    """

    id: bytes  # the start of the ``id:`` value, up to the position
    names: bytes  # the end of the JSON, after the content and up to the offset


@lru_cache(maxsize=1024)  # entries: one for each running answer
def _constant(message_id: str, reply_to: str, attempt: int) -> _Constant:
    names = b',"messageId":%b,"replyTo":%b,"attempt":%d,"offset":'
    return _Constant(
        id=b"%b." % message_id.encode(), names=names % (sse.encoded(message_id), sse.encoded(reply_to), attempt)
    )


def _arguments(answer: Answer, call: OpenToolCall, strings: Sequence[str], position: int, now: str) -> bytes:
    """Send a `tool_call` for each string of the call's arguments, which begin at `position`."""
    frames = []
    for string in strings:
        position += len(string)
        frames.append(sse.placed(b"%b.%d" % (answer.id.encode(), position), _called(answer, call, string, now)))
    return b"".join(frames)


def _called(answer: Answer, call: OpenToolCall, arguments: str, now: str) -> ToolCalled:
    return ToolCalled(
        timestamp=now,
        tool_call_id=call.id,
        name=call.name,
        arguments=arguments,
        message_id=answer.id,
        reply_to=answer.reply_to,
        attempt=answer.attempt,
    )


def _event_of(answer: Answer, mark: Mark, now: str) -> Told | None:
    """Return the event to send for `mark`; None if this kind of mark is not sent as an event."""
    of: dict[str, Any] = {
        "timestamp": now,
        "message_id": answer.id,
        "reply_to": answer.reply_to,
        "attempt": answer.attempt,
    }
    match mark:
        case OpenToolCall():
            return _called(answer, mark, "", now)
        case ToolState():
            return ToolStateChanged(
                **of,
                tool_call_id=mark.id,
                name=mark.name,
                state=mark.state,
                arguments=UNSET if mark.arguments is None else mark.arguments,
                expires_at=mark.expires_at or UNSET,
                decided_by=mark.decided_by or UNSET,
                message=mark.message or UNSET,
                question=mark.shown_question,
            )
        case ToolResult():
            output, truncated = events.shown(mark.output)
            return ToolEnded(**of, tool_call_id=mark.id, output=output, failed=mark.failed, truncated=truncated)
        case Data():
            return DataTold(**of, kind=mark.kind, id=mark.id, data=mark.data)
        case ContextTrimmed():
            return events.ContextTrimmed(**of, dropped=mark.dropped)
    return None


def _frames(placed: Iterable[events.Placed]) -> bytes:
    return b"".join(sse.frame(event, cursor) for cursor, event in placed)
