"""From the bytes of a Server-Sent Events stream to the data of its events. Pure, and blind to where bytes were cut."""


class EventSplitter:
    """Splits a stream of bytes into the data of Server-Sent Events (WHATWG HTML 9.2.6)."""

    def __init__(self) -> None:
        self._line: list[bytes] = []  # the pieces of a line without its end: joined once, however many they are
        self._data: list[bytes] = []
        self._line_size = 0
        self._data_size = 0
        self._after_cr = False
        self._at_start = True

    @property
    def held(self) -> int:
        """Bytes of the event that is not complete yet."""
        return self._line_size + self._data_size

    def feed(self, data: bytes) -> list[bytes]:
        """The data of each event that `data` completes. At the end of a stream two line ends complete the last one."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]  # the second half of a CRLF
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
        events = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data.clear()
                    self._data_size = 0
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
                self._data_size += len(line)
            elif line == b"data":
                self._data.append(b"")
                self._data_size += len(line)
        if unfinished:
            self._line.append(unfinished)
            self._line_size += len(unfinished)
        return events
