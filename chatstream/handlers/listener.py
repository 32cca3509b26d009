"""A listening socket that pauses while the server is full."""

import asyncio
import errno
import logging
import math
import socket
import time
from collections.abc import Callable
from typing import Any

from tornado.ioloop import IOLoop

log = logging.getLogger("chatstream.http")

# Errors of `accept` when the process or the system has no free file descriptor, or the system no memory.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
# Seconds between attempts to accept after such an error: nothing signals that a file descriptor is free again.
_PAUSE = 1.0
# Seconds between two log lines about a full server; otherwise each new connection would be logged.
_SILENCE = 60.0


class Listener(socket.socket):
    """A listening socket that accepts nothing while the server is full: new connections wait in the kernel's queue.

    Tornado alone would retry without a pause, which takes a whole core and logs 70,000 lines a second.
    """

    def __init__(self, bound: socket.socket) -> None:
        """Take over `bound`, a socket that is already listening."""
        super().__init__(bound.family, bound.type, bound.proto, fileno=bound.detach())
        self.setblocking(False)
        self.wait_for_room: Callable[[], float] = lambda: 0
        self._rests = False
        self._said_at = float("-inf")

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept the next connection. Raises `BlockingIOError` if there is none or the server is full."""
        if seconds := self.wait_for_room():
            self._rest("full: all connections are in use; new ones wait", seconds)
            raise BlockingIOError
        try:
            return super().accept()
        except OSError as exc:
            if exc.errno not in _EXHAUSTED:
                raise
            self._rest("out of file descriptors; new connections wait", _PAUSE)
            raise BlockingIOError from exc

    def wake(self) -> None:
        """Accept again, after a connection has ended."""
        if self._rests and self.fileno() != -1:  # it may have been closed meanwhile
            self._rests = False
            IOLoop.current().update_handler(self, IOLoop.READ)

    def _rest(self, why: str, seconds: float) -> None:
        self._rests = True
        IOLoop.current().update_handler(self, 0)
        if seconds != math.inf:
            asyncio.get_running_loop().call_later(seconds, self.wake)
        if time.monotonic() - self._said_at >= _SILENCE:
            self._said_at = time.monotonic()
            log.warning(why)
