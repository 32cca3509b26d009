"""Events as bytes on a Server-Sent Events stream (WHATWG HTML 9.2).

One unnamed event per frame, LF only, one line of JSON: JSON escapes every CR and LF, so content cannot break a frame.
"""

import msgspec
from msgspec import Struct

from chatstream.events import Cursor

_encoder = msgspec.json.Encoder()


def frame(event: Struct, cursor: Cursor | None = None) -> bytes:
    """One frame; with a `cursor` it carries an ``id:`` line, from which a client can resume."""
    if cursor is None:
        return b"data: %b\n\n" % _encoder.encode(event)
    return placed(str(cursor).encode(), event)


def placed(cursor: bytes, event: Struct) -> bytes:
    """One frame; `cursor` is for its ``id:`` line."""
    return b"id: %b\ndata: %b\n\n" % (cursor, _encoder.encode(event))


def retry(milliseconds: int) -> bytes:
    """The line that tells a client how long to wait before it connects again; it belongs in front of a frame."""
    return b"retry: %d\n" % milliseconds
