"""A TCP proxy that loses, delays and interrupts data, but changes no byte."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from tests.support.listening import stop_accepting

# Bytes per read: more than a frame, less than a stalled direction should buffer.
_PIECE = 16 * 1024

Port = Callable[[], int]
"""Where to connect to, asked for each new connection: a restarted process may listen elsewhere."""


class _Link:
    """One proxied connection: two directions, each a task."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client, self.server = client, server

    def cut(self) -> None:
        """Reset both sides."""
        self.client.transport.abort()
        self.server.transport.abort()

    def half_close(self) -> None:
        """Close the direction to the client; data from the client still arrives."""
        with contextlib.suppress(OSError, RuntimeError):
            self.client.write_eof()


class FaultProxy:
    """Listens on `port`; open it with `start`. Faults are for all connections at once."""

    def __init__(self, target: Port) -> None:
        self._target = target
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._delay = 0.0  # seconds, for each piece in each direction
        self._refuses = False
        self.port = 0

    async def start(self, tls: ssl.SSLContext | None = None) -> "FaultProxy":
        """Listen on a free port of 127.0.0.1; with `tls`, pass the data on decrypted."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        """Stop listening and cut everything."""
        await stop_accepting(self._server)
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # aborted connections are closed in the next turn

    def cut(self) -> None:
        """Reset every connection."""
        for link in list(self._links):
            link.cut()

    def half_close(self) -> None:
        """End the direction from the server to the client of every connection."""
        for link in list(self._links):
            link.half_close()

    def stall(self) -> None:
        """Let nothing through, in either direction, without closing anything; new connections wait, too."""
        self._flows.clear()

    def delay(self, seconds: float) -> None:
        """Delay each piece by this many seconds."""
        self._delay = seconds

    def refuse(self) -> None:
        """Reset every connection, also new ones."""
        self._refuses = True
        self.cut()

    def heal(self) -> None:
        """End all faults; stalled data continues."""
        self._refuses = False
        self._delay = 0.0
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()  # for the client this looks like a dead server
        finally:
            self._tasks.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        if self._refuses:
            raise ConnectionRefusedError
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target())
        link = _Link(writer, far_writer)
        self._links.add(link)
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except OSError:
            link.cut()  # pass a reset on to the other side
        finally:
            self._links.discard(link)
            for side in (writer, far_writer):
                side.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_PIECE):
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._flows.wait()
            with contextlib.suppress(RuntimeError):  # half-closed by a fault: later data is lost
                writer.write(piece)
                await writer.drain()
        await self._flows.wait()
        if not writer.can_write_eof():  # TLS ends in both directions at once
            writer.close()
            return
        with contextlib.suppress(RuntimeError):  # half-closed by an earlier fault
            writer.write_eof()
