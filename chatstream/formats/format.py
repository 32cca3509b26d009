"""What a wire format must be able to say."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from chatstream import events
from chatstream.models import Answer, UserMessage
from chatstream.pieces import Piece, Place


class Format(Protocol):
    """One way to tell a conversation on an event stream.

    It is asked for whole frames, or for ``b""`` where it has nothing to say. It keeps no state: what a frame says
    depends on the arguments alone, so that it is made once for all who read this format, wherever they began.

    A frame from which a client can resume carries the `events.Cursor` of its last event in its ``id:`` line.
    """

    name: str
    """What a client asks for: ``?format=<name>``."""

    summary: str
    """What it is, in a few words, for the API's description."""

    headers: Mapping[str, str]
    """Beside those that every event stream has."""

    one_answer: bool
    """Its streams end after one answer, as if all had been asked for with ``?once=true``."""

    data: Any
    """The type of the JSON in a frame's ``data:``, for the API's description ..."""

    end: str | None
    """... and what the last frame has there, if that is no JSON."""

    def connected(self, event: events.Connected, retry_ms: int) -> bytes:
        """The first thing on a stream that was accepted; `retry_ms` is how long to wait before reconnecting."""
        ...

    def heartbeat(self) -> bytes:
        """Nothing else was sent for a while. Never empty."""
        ...

    def posted(self, message: UserMessage) -> bytes:
        """A user message is next."""
        ...

    def aside(self, event: events.AnyAside) -> bytes:
        """What those who watch now are told beside the log. Nothing in a format whose clients have no use for it."""
        return b""

    def chunks(self, answer: Answer, pieces: Sequence[Piece], at: Place, now: str, *, waits: bool = False) -> bytes:
        """The next pieces of an answer, from the place `at` on; with position 0 it begins. No string is empty.

        `now` is the timestamp. This is called for every delta of a model: it has to be fast. Behind these pieces the
        answer `waits`: a format whose streams are one message ends it there.
        """
        ...

    def ending(self, answer: Answer, position: int) -> bytes:
        """How a stored answer ended, for those who have been told of it up to `position` (see `events.Cursor`).

        That may be less than all of it: who watches may have missed all of it, or the stored text may be a longer one.
        With `position` 0 nothing of the answer was told.
        """
        ...

    def error(self, event: events.Error, retry_ms: int | None) -> bytes:
        """A problem of the connection. It ends with it if `retry_ms` is set: how long to wait before reconnecting."""
        ...
