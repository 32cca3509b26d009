"""Splits the bytes of a Server-Sent Events stream into the data of its events. Pure; bytes may be cut anywhere."""

_DONE = b"[DONE]"


class ErrorEvent(bytes):
    """The data of an event with the name ``error``."""

    __slots__ = ()


class EventSplitter:
    """Splits a stream of bytes into the data of Server-Sent Events (WHATWG HTML 9.2.6).

    Some endpoints omit the blank line between two events. A line that ends with a brace before a line that begins with
    one cannot be inside JSON, so a new event begins there. ``[DONE]`` is always an event of its own.
    """

    def __init__(self) -> None:
        self._line: list[bytes] = []  # the pieces of an unfinished line, joined when it ends
        self._data: list[bytes] = []
        self._line_size = 0
        self._data_size = 0
        self._is_error = False
        self.held = 0  # the size of the unfinished event, in bytes
        self._blank_lines = True  # False if this endpoint omits blank lines: then each complete object is an event
        self._after_cr = False
        self._at_start = True

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes; returns the data of each event they complete. At the end of a stream, feed two line ends."""
        if data.startswith(b"data:"):
            self._at_start = False  # past a byte order mark
        between_lines = self._line or self._data or self._is_error or self._after_cr or self._at_start
        end = data.rfind(b"\n\n") + 2  # the end of the last complete event
        if between_lines or not self._blank_lines or end < 2:
            return self._feed(data)
        # Fast path for the usual input, complete events of one line: a sixth of the cost.
        events = data[6 : end - 2].split(b"\n\ndata: ")
        one_line_each = data.count(b"\n", 0, end) == 2 * len(events) and data.find(b"\r", 0, end) < 0
        if not (one_line_each and data.startswith(b"data: ")):
            return self._feed(data)
        return events + self._feed(data[end:]) if end < len(data) else events

    def _feed(self, data: bytes) -> list[bytes]:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]  # the LF of a CRLF that was cut
            self._after_cr = False
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        lines = data.splitlines()
        unfinished = b"" if data.endswith((b"\n", b"\r")) else lines.pop()
        if lines:
            if self._line:
                lines[0] = b"".join((*self._line, lines[0]))
                self._line.clear()
                self._line_size = 0
            if self._at_start:
                self._at_start = False
                lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        events: list[bytes] = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(self._event())
                self._is_error = False
            elif line.startswith(b"data:"):
                self._add(line[6:] if line.startswith(b"data: ") else line[5:], events)
            elif line == b"data":
                self._add(b"", events)
            elif line.startswith(b"event:"):
                self._is_error = line[6:].strip() == b"error"
        if unfinished:
            self._line.append(unfinished)
            self._line_size += len(unfinished)
        self.held = self._line_size + self._data_size
        return events

    def _add(self, data: bytes, events: list[bytes]) -> None:
        """Add a line of data."""
        if self._data and data.startswith((b"{", _DONE)) and self._data[-1].endswith(b"}"):
            self._blank_lines = False
            events.append(self._event())
        self._data.append(data)
        self._data_size += len(data) + 5  # so that endless empty lines reach the limit, too
        if data == _DONE or (not self._blank_lines and data.startswith(b"{") and data.endswith(b"}")):
            events.append(self._event())

    def _event(self) -> bytes:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data.clear()
        self._data_size = 0
        return ErrorEvent(data) if self._is_error else data
