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
    further,
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
        same, frames = _constant(answer.id, answer.reply_to, answer.attempt), []
        if at.kind is Kind.TEXT and is_text(pieces):
            return self._text_chunks(same, pieces, at, now)
        further_by = 0  # number of code points sent since `at`
        for piece in pieces:
            if not isinstance(piece, str):
                at, further_by = after(further(at, further_by), piece), 0
                if (event := _event_of(answer, piece, now)) is not None:
                    frames.append(sse.placed(b"%b%d" % (same.id, at.position), event))
                continue
            before, further_by = further_by, further_by + len(piece)
            position = at.position + further_by
            if at.kind is Kind.TEXT or (at.kind is Kind.REASONING and self._reasoning):
                content, type_ = sse.encoded(piece), _TYPES[at.kind]
                if self._lean and at.offset + before:
                    frames.append(
                        b'id: %b%d\ndata: {"type":"%b","content":%b}\n\n' % (same.id, position, type_, content)
                    )
                else:
                    offset = (at.text if at.kind is Kind.TEXT else at.offset) + before
                    frames.append(
                        b'id: %b%d\ndata: {"type":"%b","timestamp":"%b","content":%b%b%d}\n\n'
                        % (same.id, position, type_, now.encode(), content, same.names, offset)
                    )
            elif at.call is not None:
                frames.append(sse.placed(b"%b%d" % (same.id, position), _called(answer, at.call, piece, now)))
        return b"".join(frames)

    def _text_chunks(self, same: "_Constant", texts: Sequence[str], at: Place, now: str) -> bytes:
        """Send text pieces only, which is the usual case; takes two thirds of the time of the loop in `chunks`."""
        frames, position, offset = [], at.position, at.text
        encode = sse.encode if "".join(texts).isascii() else sse.encoded
        begin, names = b'\ndata: {"type":"llm_chunk","timestamp":"%b","content":' % now.encode(), same.names
        whole = not (self._lean and at.offset)
        for text in texts:
            position += len(text)
            if whole:
                frames.append(b"id: %b%d%b%b%b%d}\n\n" % (same.id, position, begin, encode(text), names, offset))
                whole = not self._lean
            else:
                frames.append(
                    b'id: %b%d\ndata: {"type":"llm_chunk","content":%b}\n\n' % (same.id, position, encode(text))
                )
            offset += len(text)
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
    message's id and the end position; its offset is that position minus its own code points.
    """

    id: bytes  # the start of the ``id:`` value, up to the position
    names: bytes  # the end of the JSON, after the content and up to the offset


@lru_cache(maxsize=1024)  # entries: one for each running answer
def _constant(message_id: str, reply_to: str, attempt: int) -> _Constant:
    names = b',"messageId":%b,"replyTo":%b,"attempt":%d,"offset":'
    return _Constant(
        id=b"%b." % message_id.encode(), names=names % (sse.encoded(message_id), sse.encoded(reply_to), attempt)
    )


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
