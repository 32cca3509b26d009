"""What the log of a conversation is made of. An entry knows what it says; a format has the words.

Each entry is encoded when it is first read in a format, once, whatever the number of those who read it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

from chatstream import events
from chatstream import pieces as pieces_
from chatstream.errors import ErrorCode
from chatstream.formats.format import Format
from chatstream.models import Answer, UserMessage
from chatstream.pieces import Data, Piece

Place = tuple[int, int]
"""Where an event stands in a conversation: the `seq` of its message, and the position of `events.Cursor`."""

BEGINNING: Place = (-1, 0)

END = events.Cursor.COMPLETE + 1_000  # past the last `system` event: their number has at most three digits

# About what a frame has around its text, in bytes.
_ENVELOPE = 256


class Entry(ABC):
    """A piece of the log."""

    __slots__ = ("_encoded", "place", "size")

    def __init__(self, place: Place | None, size: int) -> None:
        """`place` is that of its last event; None for a notice to those who watch now, which has no place.

        `size` is about what its frames take, in bytes.
        """
        self.place = place
        self.size = size
        self._encoded: dict[Format, bytes] = {}

    def frames(self, wire: Format) -> bytes:
        """Whole frames in the format `wire`; empty if that has nothing to say of it."""
        encoded = self._encoded.get(wire)
        if encoded is None:
            encoded = self._encoded[wire] = self._encode(wire)
        return encoded

    def ends_answer(self, wire: Format) -> bool:
        """Whoever reads one answer in the format `wire` has it, or all that comes of it."""
        return False

    def after(self, place: Place) -> "Entry":
        """What of it comes after `place`, which lies before its own; an answer is cut to the code point."""
        return self

    @abstractmethod
    def _encode(self, wire: Format) -> bytes: ...


class Chunks(Entry):
    """The next pieces of an answer."""

    __slots__ = ("_answer", "_begin", "_now", "_pieces", "_waits")

    def __init__(
        self,
        answer: Answer,
        pieces: Sequence[Piece],
        begin: pieces_.Place,
        end: pieces_.Place | None = None,
        *,
        waits: bool = False,
    ) -> None:
        """They lie between the places `begin` and `end`, which need not be given. Behind them the answer `waits`."""
        end = end or pieces_.behind(begin, pieces)
        size = end.position - begin.position + _ENVELOPE * len(pieces)
        if pieces_.has(Data, pieces):
            size += sum(len(msgspec.json.encode(piece.data)) for piece in pieces if isinstance(piece, Data))
        super().__init__((answer.seq, end.position), size)
        self._answer = answer
        self._pieces = pieces
        self._begin = begin
        self._waits = waits
        self._now = events.timestamp()

    def after(self, place: Place) -> Entry:
        """One chunk for each part, if it was cut."""
        seq, position = place
        if seq != self._answer.seq or position <= self._begin.position:
            return self
        known = position - self._begin.position
        begin = pieces_.behind(self._begin, pieces_.cut(self._pieces, 0, known))
        rest = pieces_.join(pieces_.cut(self._pieces, known))
        return Chunks(self._answer, rest, begin, waits=self._waits)

    def ends_answer(self, wire: Format) -> bool:
        """Where a stream is one message, an answer that waits ends its stream, and goes on in another one."""
        return self._waits and wire.one_answer

    def _encode(self, wire: Format) -> bytes:
        return wire.chunks(self._answer, self._pieces, self._begin, self._now, waits=self._waits)


class Posted(Entry):
    """A user message."""

    __slots__ = ("_message",)

    def __init__(self, message: UserMessage) -> None:
        super().__init__((message.seq, events.Cursor.USER), len(message.content) + _ENVELOPE)
        self._message = message

    def _encode(self, wire: Format) -> bytes:
        return wire.posted(self._message)


class Ended(Entry):
    """An answer's end. Without an event of its own, it still marks the place in the log."""

    __slots__ = ("_answer", "_position")

    def __init__(self, answer: Answer, position: int = 0) -> None:
        """For those who have been told of the answer up to `position`."""
        super().__init__(
            (answer.seq, END),
            answer.length + _ENVELOPE * (2 + len(answer.annotations)),
        )
        self._answer = answer
        self._position = position

    def ends_answer(self, wire: Format) -> bool:
        """After one that we cut comes another attempt: a stream that can be only one message ends if it has begun."""
        return not self._answer.begins_again or (wire.one_answer and self._position > 0)

    def after(self, place: Place) -> Entry:
        """Its text may have been told further."""
        seq, position = place
        return Ended(self._answer, position) if seq == self._answer.seq and position > self._position else self

    def _encode(self, wire: Format) -> bytes:
        return wire.ending(self._answer, self._position)


class Notice(Entry):
    """A problem of those who watch now."""

    __slots__ = ("_event", "_retry_ms")

    def __init__(self, code: ErrorCode, *, request_id: str | None, retry_ms: int | None = None) -> None:
        """The connection ends with it if `retry_ms` is set: how long to wait before reconnecting."""
        super().__init__(None, _ENVELOPE)
        self._event = events.error(code, request_id=request_id)
        self._retry_ms = retry_ms

    def _encode(self, wire: Format) -> bytes:
        return wire.error(self._event, self._retry_ms)


class Aside(Entry):
    """For those who watch now: another branch is shown, an answer is rated, the title is another one.

    It has no place: the order of the log is none of its business.
    """

    __slots__ = ("_event",)

    def __init__(self, event: events.AnyAside) -> None:
        super().__init__(None, _ENVELOPE)
        self._event = event

    def _encode(self, wire: Format) -> bytes:
        return wire.aside(self._event)


class Skip(Entry):
    """Says nothing: the reader knows everything up to `place`."""

    __slots__ = ()

    def __init__(self, place: Place) -> None:
        super().__init__(place, 0)

    def _encode(self, wire: Format) -> bytes:
        return b""
