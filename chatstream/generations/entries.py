"""The entries of a conversation's log. An entry has the content; a format encodes it.

Each entry is encoded once per format, when the first reader of that format reads it.
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
"""The place of an event in a conversation: the `seq` of its message, and the position of `events.Cursor`."""

BEGINNING: Place = (-1, 0)

END = events.Cursor.COMPLETE + 1_000  # past the last `system` event: their number has at most three digits

# Estimated bytes of a frame besides its text.
_ENVELOPE = 256


class Entry(ABC):
    """An entry of the log."""

    __slots__ = ("_encoded", "place", "size")

    def __init__(self, place: Place | None, size: int) -> None:
        """`place` is the place of its last event; None for a notice to the current viewers, which has no place.

        `size` is roughly the bytes of its frames.
        """
        self.place = place
        self.size = size
        self._encoded: dict[Format, bytes] = {}

    def frames(self, wire: Format) -> bytes:
        """Return whole frames in the format `wire`; empty if the format has nothing to send for this entry."""
        encoded = self._encoded.get(wire)
        if encoded is None:
            encoded = self._encoded[wire] = self._encode(wire)
        return encoded

    def ends_answer(self, wire: Format) -> bool:
        """Whether a stream of a single answer (`once`) in the format `wire` ends with this entry."""
        return False

    def after(self, place: Place) -> "Entry":
        """Return the part of the entry after `place`, which lies before the entry's own place. Text is cut to the code
        point."""
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
        """The pieces lie between the places `begin` and `end`; `end` may be left out. `waits`: after them the answer
        waits."""
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
        """Return the rest, with one chunk for each part if a piece was cut."""
        seq, position = place
        if seq != self._answer.seq or position <= self._begin.position:
            return self
        known = position - self._begin.position
        begin = pieces_.behind(self._begin, pieces_.cut(self._pieces, 0, known))
        rest = pieces_.join(pieces_.cut(self._pieces, known))
        return Chunks(self._answer, rest, begin, waits=self._waits)

    def ends_answer(self, wire: Format) -> bool:
        """In a format with one message per stream, an answer that waits ends the stream; another stream continues
        it."""
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
    """The end of an answer. If the format has no event for it, the entry still marks the place in the log."""

    __slots__ = ("_answer", "_position")

    def __init__(self, answer: Answer, position: int = 0) -> None:
        """`position`: the readers already have the answer up to there."""
        super().__init__(
            (answer.seq, END),
            answer.length + _ENVELOPE * (2 + len(answer.annotations)),
        )
        self._answer = answer
        self._position = position

    def ends_answer(self, wire: Format) -> bool:
        """After an interrupted attempt comes another one: a stream that can hold only one message ends if it has
        begun."""
        return not self._answer.begins_again or (wire.one_answer and self._position > 0)

    def after(self, place: Place) -> Entry:
        """Return this entry for a reader at `place`, who may have more of the answer's text than `position`."""
        seq, position = place
        return Ended(self._answer, position) if seq == self._answer.seq and position > self._position else self

    def _encode(self, wire: Format) -> bytes:
        return wire.ending(self._answer, self._position)


class Notice(Entry):
    """A problem, sent to the current viewers."""

    __slots__ = ("_event", "_retry_ms")

    def __init__(self, code: ErrorCode, *, request_id: str | None, retry_ms: int | None = None) -> None:
        """`retry_ms`: if set, the connection ends after the notice, and the client reconnects after this many ms."""
        super().__init__(None, _ENVELOPE)
        self._event = events.error(code, request_id=request_id)
        self._retry_ms = retry_ms

    def _encode(self, wire: Format) -> bytes:
        return wire.error(self._event, self._retry_ms)


class Aside(Entry):
    """An event for the current viewers only, such as a shown branch, a rating, a title or a withdrawn message.

    It has no place in the order of the log.
    """

    __slots__ = ("_event",)

    def __init__(self, event: events.AnyAside) -> None:
        super().__init__(None, _ENVELOPE)
        self._event = event

    def _encode(self, wire: Format) -> bytes:
        return wire.aside(self._event)


class Skip(Entry):
    """Sends nothing: the reader already has everything up to `place`."""

    __slots__ = ()

    def __init__(self, place: Place) -> None:
        super().__init__(place, 0)

    def _encode(self, wire: Format) -> bytes:
        return b""
