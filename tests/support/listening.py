"""A small server on loopback, whose tasks and sockets are all closed when its test ends.

Python 3.11's `asyncio.Server` forgets its connections when it is closed: their tasks and sockets would be destroyed in
a later test, which would then fail.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from ssl import SSLContext

# Turns of the event loop until an accepted connection reaches its handler, through a transport, a protocol and a task.
_TURNS = 4

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def stop_accepting(server: asyncio.Server) -> None:
    """Close `server`, and wait until its newest connections have reached their handler, which must close them. `close`
    alone would lose such a connection: its socket would be destroyed without being closed.
    """
    for sock in server.sockets:
        asyncio.get_running_loop().remove_reader(sock.fileno())
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    server.close()


@contextlib.asynccontextmanager
async def listening(serve: Serve, *, tls: SSLContext | None = None) -> AsyncIterator[int]:
    """Listen; yields the port. `serve` handles each connection, and is cancelled at the end."""
    connections: dict[asyncio.Task[object], asyncio.StreamWriter] = {}
    closing = False

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections[task] = writer
        try:
            if not closing:
                await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client left
        except asyncio.CancelledError:
            if not closing:
                raise
        finally:
            writer.close()
            del connections[task]

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        closing = True
        await stop_accepting(server)
        for task, writer in connections.items():
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(0)  # aborted connections are closed in the next turn of the loop
