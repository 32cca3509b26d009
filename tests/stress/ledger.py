"""The ledger: everything that the clients sent and received, and all requests to and responses of the model.
Append-only, in the order in which this process observed it. With a path it is also a file of one JSON object a line,
to examine a failed run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct


class Entry(Struct, frozen=True, tag_field="entry", tag=str.lower):
    """Base of all entries. Conversations are named by their id, which is unique in a run."""


class Sent(Entry, frozen=True):
    """A client sent a user message, perhaps again."""

    conversation: str
    key: str
    content: str


class Acknowledged(Entry, frozen=True):
    """The server acknowledged a message: `status` 201, or 200 for a repetition."""

    conversation: str
    key: str
    content: str
    message_id: str
    status: int


class Regenerating(Entry, frozen=True):
    """A client asked for another answer."""

    conversation: str


class Stopped(Entry, frozen=True):
    """A stop was answered with the end of the answer."""

    conversation: str
    message_id: str
    status: str
    content_length: int


class Deleting(Entry, frozen=True):
    """A client asked for the deletion of a conversation."""

    conversation: str


class Deleted(Entry, frozen=True):
    """The server confirmed the deletion."""

    conversation: str


class Opened(Entry, frozen=True):
    """A stream was opened. The connections of one `chain` are one client's: each begins with the cursor of the last."""

    connection: int
    chain: int
    conversation: str
    cursor: str


class Received(Entry, frozen=True):
    """An event was received."""

    connection: int
    id: str | None
    data: dict[str, Any]


class Closed(Entry, frozen=True):
    """A stream is over: the client `left`, the server `ended` it, or it was `lost`."""

    connection: int
    how: str


class Called(Entry, frozen=True):
    """The model was asked; `question` is the newest user message."""

    call: int
    question: str


class Emitted(Entry, frozen=True):
    """The model is about to send this piece of text."""

    call: int
    text: str


class Finished(Entry, frozen=True):
    """The model is about to send its finish reason."""

    call: int
    reason: str


class CallEnded(Entry, frozen=True):
    """The model's response is over; `aborted`: the server went away before its end."""

    call: int
    aborted: bool


E = TypeVar("E", bound=Entry)


class Ledger:
    """Add with `add`; read with `of`."""

    def __init__(self, path: Path | None = None) -> None:
        self.entries: list[Entry] = []
        self._file = path.open("ab") if path else None

    def add(self, entry: Entry) -> None:
        """Append an entry."""
        self.entries.append(entry)
        if self._file is not None:
            self._file.write(msgspec.json.encode(entry) + b"\n")

    def of(self, kind: type[E]) -> Iterator[E]:
        """The entries of one kind, in order."""
        return (entry for entry in self.entries if isinstance(entry, kind))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
