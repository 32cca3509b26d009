"""The log of one conversation while somebody watches it or an answer runs: appended once, read by cursors.

A reader is a number, its place in the log, never a queue; a slow one simply lags.
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
    """A reader of the log. `index` is its position there."""

    index: int

    def wake(self) -> None:
        """Called after every append; must not block or raise."""
        ...

    def end(self, code: ErrorCode | None = None, *, reason: str | None = None) -> None:
        """There is nothing more to read, because of `code`, or of `reason`, which is for the log."""
        ...


class Running:
    """The answer that runs, as far as it is there: its pieces, and the place of their end."""

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
        """More pieces."""
        self.pieces += pieces
        self.end = pieces_.behind(self.end, pieces)


class Channel:
    """The live log of one conversation. Only its `Room` writes to it, and the answer that runs here."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.running: Running | None = None  # the answer that runs, or waits, set by the room alone
        self.readers: set[Reader] = set()
        self.bytes_appended = 0  # about; see `Entry.size`
        self.bytes_before_last = 0  # without the newest entry, which may be large all by itself
        self._entries: list[Entry] = []
        self._first = 0  # the index of the first entry that is still kept
        self._trim_at = _TRIM
        self.begun = False  # the log has a place where it begins ...
        self.first_place = BEGINNING  # ... which is this one: what lies before it is only in the store
        self.last_place = BEGINNING  # what the log has been told, whether or not somebody read it

    @property
    def end(self) -> int:
        """The index of the next entry."""
        return self._first + len(self._entries)

    @property
    def next_seq(self) -> int:
        """The `seq` of the message that the log needs next: that of the newest it has, if its end is still missing."""
        seq, position = self.last_place
        return seq if position not in (Cursor.USER, END) and seq >= 0 else seq + 1

    def begin_at(self, place: Place) -> None:
        """All readers have been given everything up to `place`: the log goes on after it."""
        self.begun = True
        self.first_place = self.last_place = max(self.last_place, place)

    def read(self, index: int) -> Entry | None:
        """What was appended at `index`; None at the end of the log."""
        index -= self._first
        return self._entries[index] if index < len(self._entries) else None

    def append(self, entry: Entry) -> None:
        """Add to the log and wake its readers. What does not come after the last place is already there: ignored."""
        if entry.place is not None:
            if entry.place <= self.last_place:
                return
            self.last_place = entry.place
        if not self.readers:
            self._first += len(self._entries) + 1
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
        if broken is not None:  # the next append finds the next one, if there are several
            self.readers.discard(broken)

    def finish(self, answer: Answer) -> None:
        """An answer has ended as it is stored."""
        seq, position = self.last_place
        self.append(Ended(answer, position if seq == answer.seq else 0))

    def extend(self, running: Running, pieces: Sequence[Piece], *, waits: bool = False) -> None:
        """Add the next pieces of the running answer, as one entry; it `waits` behind them. No string is empty."""
        begin = running.end
        running.add(pieces)
        if self.readers:  # who comes later gets a slice of all pieces
            self.append(Chunks(running.answer, pieces, begin, running.end, waits=waits))

    def _trim(self) -> None:
        done = min(reader.index for reader in self.readers) - self._first
        del self._entries[:done]
        self._first += done
        self._trim_at = max(_TRIM, 2 * len(self._entries))
