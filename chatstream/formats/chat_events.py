"""The events of `chatstream.events`, as they are: the format for whoever asks for none."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import UNSET

from chatstream import events, sse
from chatstream.events import Chunk, DataTold, ReasoningChunk, ToolCalled, ToolEnded, ToolStateChanged
from chatstream.formats.format import Format
from chatstream.models import Answer, UserMessage
from chatstream.pieces import ContextTrimmed, Data, Kind, Mark, OpenToolCall, Piece, Place, ToolResult, ToolState, after

AnyPiece = Chunk | ReasoningChunk | ToolCalled | ToolStateChanged | ToolEnded | DataTold | events.ContextTrimmed


class ChatEvents(Format):
    """One unnamed event per frame. The whole text of an answer is in its `llm_complete`, so no ending repeats it."""

    name = "chat-events"
    summary = "the events of this API"
    headers: Mapping[str, str] = {}
    one_answer = False
    data = events.AnyEvent
    end = None

    def __init__(self, *, reasoning: bool = True) -> None:
        """`reasoning`: what the model thinks is shown."""
        self._reasoning = reasoning

    def connected(self, event: events.Connected, retry_ms: int) -> bytes:
        """`connected`."""
        return sse.retry(retry_ms) + sse.frame(event)

    def heartbeat(self) -> bytes:
        """An event, too: some clients hand a comment on as an event without data."""
        return sse.frame(events.Heartbeat(timestamp=events.timestamp()))

    def posted(self, message: UserMessage) -> bytes:
        """`user_message`."""
        return _frames([events.posted(message)])

    def aside(self, event: events.AnyAside) -> bytes:
        """`branch`, `rating` or `title`, without a cursor: the log goes on as it was."""
        return sse.frame(event)

    def chunks(self, answer: Answer, pieces: Sequence[Piece], at: Place, now: str) -> bytes:
        """`llm_chunk`, `reasoning_chunk` or `tool_call`, one for each string; and what marks say."""
        prefix, frames = answer.id.encode(), []
        for piece in pieces:
            place, at = at, after(at, piece)
            event: AnyPiece | None
            if not isinstance(piece, str):
                event = _event_of(answer, piece, now)
                if event is None:
                    continue
            elif place.kind is Kind.TEXT:
                event = Chunk(
                    timestamp=now,
                    content=piece,
                    message_id=answer.id,
                    reply_to=answer.reply_to,
                    attempt=answer.attempt,
                    offset=place.text,
                )
            elif place.kind is Kind.REASONING and self._reasoning:
                event = ReasoningChunk(
                    timestamp=now,
                    content=piece,
                    message_id=answer.id,
                    reply_to=answer.reply_to,
                    attempt=answer.attempt,
                    offset=place.offset,
                )
            elif place.call is not None:
                event = _called(answer, place.call, piece, now)
            else:
                continue
            frames.append(sse.placed(b"%b.%d" % (prefix, at.position), event))
        return b"".join(frames)

    def ending(self, answer: Answer, position: int) -> bytes:
        """`error`, `llm_complete` and `system`, as far as they come after `position`."""
        ending = events.ending(answer, reasoning=self._reasoning)
        return _frames(placed for placed in ending if placed[0].position > position)

    def error(self, event: events.Error, retry_ms: int | None) -> bytes:
        """`error`."""
        return (b"" if retry_ms is None else sse.retry(retry_ms)) + sse.frame(event)


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


def _event_of(answer: Answer, mark: Mark, now: str) -> AnyPiece | None:
    """What a mark says; None if it says nothing by itself."""
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
