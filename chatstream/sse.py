"""Encodes events for a Server-Sent Events stream (WHATWG HTML 9.2).

One unnamed event per frame, LF only, one line of JSON: JSON escapes every CR and LF, so content cannot break a frame.
Some readers (Python's `requests` and `httpx`) also end lines at other characters: those are escaped here.
"""

import msgspec
from msgspec import Struct

from chatstream.events import Cursor

encode = msgspec.json.Encoder().encode
"""Encodes an ASCII-only value as JSON; cheaper than `encoded`."""

# Characters that end a line for some readers: NEL, LINE SEPARATOR and PARAGRAPH SEPARATOR (Unicode standard annex 14),
# in UTF-8 and as JSON escapes.
_LINE_ENDS = ((b"\xc2\x85", rb"\u0085"), (b"\xe2\x80\xa8", rb"\u2028"), (b"\xe2\x80\xa9", rb"\u2029"))


def frame(event: Struct, cursor: Cursor | None = None) -> bytes:
    """Return one frame; with a `cursor` it has an ``id:`` line, from which a client can resume."""
    if cursor is None:
        return b"data: %b\n\n" % encoded(event)
    return placed(str(cursor).encode(), event)


def placed(cursor: bytes, event: Struct) -> bytes:
    """Return one frame; `cursor` is the value of its ``id:`` line."""
    return b"id: %b\ndata: %b\n\n" % (cursor, encoded(event))


def retry(milliseconds: int) -> bytes:
    """Return the ``retry:`` line: how long a client should wait before it reconnects. It must stand before a frame."""
    return b"retry: %d\n" % milliseconds


def encoded(value: Struct | str) -> bytes:
    """Return an event, or a string of one, as JSON without any character that ends a line."""
    text = encode(value)
    if not text.isascii():  # in an English answer nearly all chunks are ASCII
        for end, escaped in _LINE_ENDS:
            text = text.replace(end, escaped)
    return text
