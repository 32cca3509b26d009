"""The log of one conversation while somebody watches it or an answer runs: appended once, read by cursors.

A reader is a number, its place in the log, never a queue; a slow one simply lags.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from chatstream.errors import ErrorCode
from chatstream.generations.entries import BEGINNING, END, Chunks, Ended, Entry, Place, Posted
from chatstream.models import Answer, Conversation, UserMessage

# Entries that all readers have read are dropped when this many have gathered, or twice as many as the last time were
# still needed: so the cost of looking for them is spread over as many appends.
_TRIM = 64


class Reader(Protocol):
    """Somebody who reads the log, at `index`."""

    index: int

    def wake(self) -> None:
        """Called after every append; must not block or raise."""
        ...

    def end(self, code: ErrorCode) -> None:
        """There is nothing more to read, because of `code`."""
        ...


class Running:
    """The text so far of the answer that runs."""

    def __init__(self, answer: Answer, parts: Iterable[str] = ()) -> None:
        self.answer = answer
        self.parts = list(parts)
        self.length = sum(map(len, self.parts))  # code points

    def text(self, parts: int | None = None) -> str:
        """All of it, or the first `parts` parts."""
        return "".join(self.parts[:parts])

    def add(self, texts: Sequence[str]) -> None:
        """More text."""
        self.parts += texts
        self.length += sum(map(len, texts))


class Channel:
    """The live log of one conversation."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.running: Running | None = None
        self.readers: set[Reader] = set()
        self.bytes_appended = 0  # about; see `Entry.size`
        self.bytes_before_last = 0  # without the newest entry, which may be large all by itself
        self._entries: list[Entry] = []
        self._first = 0  # the index of the first entry that is still kept
        self._trim_at = _TRIM
        self._last = BEGINNING
        self.waiting = False  # user messages come after the running answer's end

    @property
    def end(self) -> int:
        """The index of the next entry."""
        return self._first + len(self._entries)

    @property
    def last_seq(self) -> int:
        """The `seq` of the message that the newest event belongs to."""
        return self._last[0]

    def begin_at(self, place: Place) -> None:
        """The only reader has been told everything up to `place`, and nothing runs: the log goes on after it."""
        self._last = max(self._last, place)

    def read(self, index: int) -> Entry | None:
        """What was appended at `index`; None at the end of the log."""
        index -= self._first
        return self._entries[index] if index < len(self._entries) else None

    def append(self, entry: Entry) -> None:
        """Add to the log and wake its readers. What does not come after the last place is already there: ignored."""
        if entry.place is not None:
            if entry.place <= self._last:
                return
            self._last = entry.place
        if not self.readers:
            self._first += len(self._entries) + 1
            self._entries.clear()
            return
        self._entries.append(entry)
        self.bytes_before_last = self.bytes_appended
        self.bytes_appended += entry.size
        if len(self._entries) >= self._trim_at:
            self._trim()
        for reader in self.readers:
            reader.wake()

    def post(self, message: UserMessage) -> None:
        """A user message is next; or, if it was posted while an answer runs, it comes after that answer's end.

        Then it is only noted that one waits (`waiting`): by then there may be others before it.
        """
        if self.running is not None and message.seq > self.running.answer.seq:
            self.waiting = True
        else:
            self.append(Posted(message))

    def finish(self, answer: Answer) -> None:
        """An answer has ended as it is stored."""
        if self.running is not None and self.running.answer.id == answer.id:
            self.running = None
        seq, position = self._last
        self.append(Ended(answer, position if seq == answer.seq else 0))

    def has_finished(self, answer: Answer) -> bool:
        """Whether the end of this answer has been told."""
        return self._last >= (answer.seq, END)

    def extend(self, running: Running, texts: Sequence[str]) -> None:
        """Add the next pieces of the running answer's text, as one entry. None of `texts` is empty."""
        offset = running.length
        running.add(texts)
        if self.readers:  # who comes later gets a slice of the text
            self.append(Chunks(running.answer, texts, offset))

    def _trim(self) -> None:
        done = min(reader.index for reader in self.readers) - self._first
        del self._entries[:done]
        self._first += done
        self._trim_at = max(_TRIM, 2 * len(self._entries))
