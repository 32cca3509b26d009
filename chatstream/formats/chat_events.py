"""The events of `chatstream.events`, as they are: the format for whoever asks for none."""

from collections.abc import Iterable, Mapping, Sequence

from chatstream import events, sse
from chatstream.formats.format import Format
from chatstream.models import Answer, UserMessage


class ChatEvents(Format):
    """One unnamed event per frame. The whole text of an answer is in its `llm_complete`, so no ending repeats it."""

    name = "chat-events"
    summary = "the events of this API"
    headers: Mapping[str, str] = {}
    one_answer = False
    data = events.AnyEvent
    end = None

    def connected(self, event: events.Connected, retry_ms: int) -> bytes:
        """`connected`."""
        return sse.retry(retry_ms) + sse.frame(event)

    def heartbeat(self) -> bytes:
        """An event, too: some clients hand a comment on as an event without data."""
        return sse.frame(events.Heartbeat(timestamp=events.timestamp()))

    def posted(self, message: UserMessage) -> bytes:
        """`user_message`."""
        return _frames([events.posted(message)])

    def chunks(self, answer: Answer, texts: Sequence[str], offset: int, now: str) -> bytes:
        """`llm_chunk`, one for each text."""
        prefix, frames = answer.id.encode(), []
        for text in texts:
            cursor, event = events.chunk(answer, text, offset, now)
            offset = cursor.position
            frames.append(sse.placed(b"%b.%d" % (prefix, offset), event))
        return b"".join(frames)

    def ending(self, answer: Answer, position: int) -> bytes:
        """`error`, `llm_complete` and `system`, as far as they come after `position`."""
        return _frames(placed for placed in events.ending(answer) if placed[0].position > position)

    def error(self, event: events.Error, retry_ms: int | None) -> bytes:
        """`error`."""
        return (b"" if retry_ms is None else sse.retry(retry_ms)) + sse.frame(event)


def _frames(placed: Iterable[events.Placed]) -> bytes:
    return b"".join(sse.frame(event, cursor) for cursor, event in placed)
