"""The events of `chatstream.events`, as they are: the format for whoever asks for none."""

from collections.abc import Iterable, Mapping, Sequence

from chatstream import events, sse
from chatstream.events import Chunk, DataTold, ReasoningChunk
from chatstream.formats.format import Format
from chatstream.models import Answer, UserMessage
from chatstream.pieces import Data, Kind, Piece, Place, after


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

    def branch(self, head: str) -> bytes:
        """`branch`, without a cursor: the log goes on as it was."""
        return sse.frame(events.BranchShown(timestamp=events.timestamp(), head=head))

    def chunks(self, answer: Answer, pieces: Sequence[Piece], at: Place, now: str) -> bytes:
        """`llm_chunk` or `reasoning_chunk`, one for each string, and `data`."""
        prefix, frames = answer.id.encode(), []
        for piece in pieces:
            place, at = at, after(at, piece)
            event: Chunk | ReasoningChunk | DataTold
            if isinstance(piece, Data):
                event = DataTold(
                    timestamp=now,
                    kind=piece.kind,
                    id=piece.id,
                    data=piece.data,
                    message_id=answer.id,
                    reply_to=answer.reply_to,
                    attempt=answer.attempt,
                )
            elif not isinstance(piece, str):
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


def _frames(placed: Iterable[events.Placed]) -> bytes:
    return b"".join(sse.frame(event, cursor) for cursor, event in placed)
