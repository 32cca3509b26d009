"""The live log of one conversation, while somebody watches or an answer runs. Appended once, read by many readers.

A reader has an index in the log, not a queue; a slow reader simply lags.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from chatstream import pieces as pieces_
from chatstream.errors import ErrorCode
from chatstream.events import Cursor
from chatstream.generations.entries import BEGINNING, END, Chunks, Ended, Entry, Place
from chatstream.logs import describe
from chatstream.models import Answer, Conversation
from chatstream.pieces import Piece

log = logging.getLogger("chatstream.generations")

# Trim at 64 entries, or at twice what the last trim left, so that trimming costs O(1) per append.
_TRIM = 64


class Reader(Protocol):
    """The interface of a reader. `index` is its position in the log."""

    index: int

    def wake(self) -> None:
        """Called after every append; must not block or raise."""
        ...

    def end(self, code: ErrorCode | None = None, *, reason: str | None = None) -> None:
        """End the stream because of `code`, or of `reason`, which is for the log."""
        ...


class Running:
    """The running answer: its pieces so far, and the place of their end."""

    def __init__(self, answer: Answer, pieces: Iterable[Piece] = ()) -> None:
        self.answer = answer
        self.pieces: list[Piece] = []
        self.end = pieces_.BEGINNING
        self.add(list(pieces))

    @property
    def length(self) -> int:
        """The position of its end."""
        return self.end.position

    def add(self, pieces: Sequence[Piece]) -> None:
        """Append pieces."""
        self.pieces += pieces
        self.end = pieces_.behind(self.end, pieces)


class Channel:
    """The live log of one conversation. Only its `Room` and the answer that runs here write to it."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.running: Running | None = None  # the running or waiting answer; set only by the room
        self.readers: set[Reader] = set()
        self.bytes_appended = 0  # an estimate; see `Entry.size`
        self.bytes_before_last = 0  # without the newest entry, which alone may be large
        self.end = 0  # the index of the next entry
        self._entries: list[Entry] = []  # the newest ones, up to `end`
        self._trim_at = _TRIM
        self.begun = False  # True as soon as `first_place` is set
        self.first_place = BEGINNING  # where the log begins; what comes before is only in the store
        self.last_place = BEGINNING  # the place of the last appended event, read or not

    @property
    def next_seq(self) -> int:
        """The `seq` of the next message for the log. If its newest message has no end yet, that message's `seq`."""
        seq, position = self.last_place
        return seq if position not in (Cursor.USER, END) and seq >= 0 else seq + 1

    def begin_at(self, place: Place) -> None:
        """Set the place after which the log continues. All readers must have everything up to there."""
        self.begun = True
        self.first_place = self.last_place = max(self.last_place, place)

    def read(self, index: int) -> Entry | None:
        """Return the entry at `index`; None at the end of the log."""
        return self._entries[index - self.end] if index < self.end else None

    def append(self, entry: Entry) -> None:
        """Append an entry and wake the readers. An entry whose place is not after the last one is a duplicate, and is
        ignored."""
        if entry.place is not None:
            if entry.place <= self.last_place:
                return
            self.last_place = entry.place
        self.end += 1
        if not self.readers:
            self._entries.clear()
            return
        self._entries.append(entry)
        self.bytes_before_last = self.bytes_appended
        self.bytes_appended += entry.size
        if len(self._entries) >= self._trim_at:
            self._trim()
        broken = None
        for reader in self.readers:
            try:
                reader.wake()
            except Exception as exc:  # noqa: BLE001 - one broken reader must not end the answer for the others
                log.error("a reader failed: %s", describe(exc))
                broken = reader
        if broken is not None:  # if several are broken, the next appends find them
            self.readers.discard(broken)

    def finish(self, answer: Answer) -> None:
        """Append the end of a stored answer."""
        seq, position = self.last_place
        self.append(Ended(answer, position if seq == answer.seq else 0))

    def extend(self, running: Running, pieces: Sequence[Piece], *, waits: bool = False) -> None:
        """Append the next pieces of the running answer, as one entry. `waits`: after them it waits. No string is
        empty."""
        begin = running.end
        running.add(pieces)
        if self.readers:  # later readers get all pieces from the replay
            self.append(Chunks(running.answer, pieces, begin, running.end, waits=waits))

    def _trim(self) -> None:
        unread = self.end - min(reader.index for reader in self.readers)
        del self._entries[: len(self._entries) - unread]
        self._trim_at = max(_TRIM, 2 * len(self._entries))
