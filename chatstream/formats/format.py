"""The interface of a wire format."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from chatstream import events
from chatstream.models import Answer, UserMessage
from chatstream.pieces import Piece, Place


class Format(Protocol):
    """Encodes a conversation for an event stream.

    Each method returns whole frames, or ``b""`` if the format has nothing to send. A format keeps no state: a frame
    depends on the arguments alone, so it is made once for all readers of this format, wherever they began.

    A frame from which a client can resume carries the `events.Cursor` of its last event in its ``id:`` line.
    """

    name: str
    """The format's name in a request: ``?format=<name>``."""

    summary: str
    """A short description, for the API's description."""

    headers: Mapping[str, str]
    """HTTP headers that this format adds to those of every event stream."""

    one_answer: bool
    """Whether its streams end after one answer, as with ``?once=true``."""

    data: Any
    """The type of the JSON in a frame's ``data:``, for the API's description."""

    end: str | None
    """The ``data:`` of the last frame, if that is not JSON."""

    def connected(self, event: events.Connected, retry_ms: int) -> bytes:
        """Return the first frames of an accepted stream. `retry_ms` is how long to wait before reconnecting."""
        ...

    def heartbeat(self) -> bytes:
        """Return a heartbeat, sent when nothing else was sent for a while. Never empty."""
        ...

    def posted(self, message: UserMessage) -> bytes:
        """Return the frames of a new user message."""
        ...

    def aside(self, event: events.AnyAside) -> bytes:
        """Return the frames of an event outside the log, for the current viewers. Empty if the format has no such
        event."""
        return b""

    def chunks(self, answer: Answer, pieces: Sequence[Piece], at: Place, now: str, *, waits: bool = False) -> bytes:
        """Return the frames of an answer's next pieces, from the place `at` on; position 0 begins the answer. No string
        is empty.

        `now` is the timestamp. This runs for every delta of a model, so it must be fast. `waits`: after these pieces
        the answer waits for a decision; a format with one message per stream ends the message there.
        """
        ...

    def ending(self, answer: Answer, position: int) -> bytes:
        """Return the frames that end a stored answer, for viewers that have it up to `position` (see `events.Cursor`).

        They may lack text: a viewer may have missed some, or the stored text may be longer. With `position` 0 they have
        nothing of the answer.
        """
        ...

    def error(self, event: events.Error, retry_ms: int | None) -> bytes:
        """Return the frames of a connection problem. If `retry_ms` is set, the stream ends: the time to wait before
        reconnecting."""
        ...
