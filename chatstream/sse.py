"""Events as bytes on a Server-Sent Events stream (WHATWG HTML 9.2).

One unnamed event per frame, LF only, one line of JSON: JSON escapes every CR and LF, so content cannot break a frame.
Nor what else is the end of a line to some readers, of Python's `requests` and `httpx` among them: that is escaped here.
"""

import msgspec
from msgspec import Struct

from chatstream.events import Cursor

encode = msgspec.json.Encoder().encode
"""The JSON of what is ASCII alone: cheaper than `encoded`."""

# NEL, LINE SEPARATOR, PARAGRAPH SEPARATOR (Unicode standard annex 14), in UTF-8 and as JSON escapes them.
_LINE_ENDS = ((b"\xc2\x85", rb"\u0085"), (b"\xe2\x80\xa8", rb"\u2028"), (b"\xe2\x80\xa9", rb"\u2029"))


def frame(event: Struct, cursor: Cursor | None = None) -> bytes:
    """One frame; with a `cursor` it carries an ``id:`` line, from which a client can resume."""
    if cursor is None:
        return b"data: %b\n\n" % encoded(event)
    return placed(str(cursor).encode(), event)


def placed(cursor: bytes, event: Struct) -> bytes:
    """One frame; `cursor` is for its ``id:`` line."""
    return b"id: %b\ndata: %b\n\n" % (cursor, encoded(event))


def retry(milliseconds: int) -> bytes:
    """The line that tells a client how long to wait before it connects again; it belongs in front of a frame."""
    return b"retry: %d\n" % milliseconds


def encoded(value: Struct | str) -> bytes:
    """An event, or a string in one, as JSON that does not end a line."""
    text = encode(value)
    if not text.isascii():  # in an English answer hardly a chunk is not
        for end, escaped in _LINE_ENDS:
            text = text.replace(end, escaped)
    return text
