"""A model's endpoint that sends exactly the bytes of a script: a raw HTTP/1.1 server on loopback."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Iterator
from enum import Enum, auto
from typing import Any

from tests.support import confidential
from tests.support.listening import stop_accepting


class Do(Enum):
    """The steps of a script besides sending bytes."""

    HANG = auto()  # until the client goes away
    CLOSE = auto()  # end of file; the connection is open until the client closes it, too
    RESET = auto()  # a connection reset


Step = bytes | Do | asyncio.Event
"""Bytes to send, something to do, or something to wait for."""


class Call:
    """One request, and its course."""

    def __init__(self, head: bytes, body: bytes, connection: int) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.request_line = lines[0]
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        self.body: Any = json.loads(body)
        self.connection = connection  # 1 for the first that was accepted, 2 for the second …
        self.hanging = asyncio.Event()  # set when a script reaches its HANG
        self.aborted = asyncio.Event()  # set when the client leaves before the script's end


class Upstream:
    """The n-th request is answered by the n-th script, each further one by the last script."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        self._connections: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[object]] = set()
        self._accepted = 0
        self.scripts: list[tuple[Step, ...]] = []
        self.calls: list[Call] = []
        self._called = asyncio.Event()
        port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"

    async def until_called(self, times: int = 1) -> None:
        """Wait for this many requests."""
        while len(self.calls) < times:
            self._called.clear()
            await self._called.wait()

    @classmethod
    async def start(cls, port: int = 0) -> "Upstream":
        """Listen on `port`, or on a free one."""
        server = await asyncio.start_server(lambda reader, writer: upstream._serve(reader, writer), "127.0.0.1", port)
        upstream = cls(server)
        return upstream

    def reply(self, *steps: Step) -> None:
        """Script the next request that has no script yet."""
        self.scripts.append(steps)

    @property
    def open(self) -> int:
        """The number of open connections."""
        return len(self._connections)

    async def close(self) -> None:
        """Stop listening and drop all connections."""
        await stop_accepting(self._server)
        for writer in self._connections:
            writer.transport.abort()
        for task in self._serving:
            task.cancel()  # a script may wait for an event that never comes
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self._accepted += 1
        connection = self._accepted
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(lengths[0].split(b":")[1]))
                call = Call(head, body, connection)
                self.calls.append(call)
                self._called.set()
                script = self.scripts[min(len(self.calls), len(self.scripts)) - 1]
                if not await self._play(script, call, reader, writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client closed between two requests, or `close` did
        finally:
            self._connections.discard(writer)
            self._serving.discard(task)
            writer.close()

    async def _play(
        self, script: tuple[Step, ...], call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Play a script; returns false if the connection cannot be used again."""
        for step in script:
            if isinstance(step, bytes):
                try:
                    writer.write(step)
                    await writer.drain()
                except (ConnectionError, RuntimeError):  # uvloop raises RuntimeError
                    call.aborted.set()
                    return False
                # Let the reader, in the same loop, read these bytes before the next ones. No test's result may depend
                # on that.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            elif isinstance(step, asyncio.Event):
                await step.wait()
            elif step is Do.HANG:
                call.hanging.set()
                with contextlib.suppress(ConnectionError):
                    await reader.read(1)
                call.aborted.set()
                return False
            elif step is Do.CLOSE:
                writer.write_eof()
                await reader.read()
                return False
            else:
                # With a linger time of zero, closing the socket resets the connection.
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
        return True


@contextlib.contextmanager
def silent() -> Iterator[tuple[str, int]]:
    """An address that accepts no connection, as its backlog is full."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield server.getsockname()


def head(status: str = "200 OK", *, content_type: str = "text/event-stream", **headers: str) -> bytes:
    """The head of a response whose body is chunked; underscores in header names become hyphens."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", "Transfer-Encoding: chunked"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def http_chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; an empty one ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


END = http_chunk(b"")


def whole(status: str, document: object, **headers: str) -> bytes:
    """A complete JSON response."""
    data = json.dumps(document).encode()
    return head(status, content_type="application/json", **headers) + http_chunk(data) + END


def event(chunk: object) -> bytes:
    """One event of a stream."""
    return b"data: " + (chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode()) + b"\n\n"


def delta(content: object = None, *, finish_reason: str | None = None, **fields: object) -> dict[str, Any]:
    """A chunk as the endpoints send it; `fields` are further fields of its delta."""
    confidential.remember(content)
    fields = fields if content is None else {"content": content, **fields}
    choice = {"index": 0, "delta": fields, "logprobs": None, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def beginning(*texts: str) -> bytes:
    """The head of an answer and its first deltas; it does not end."""
    return head() + b"".join(http_chunk(event(delta(text))) for text in texts)


def ending() -> bytes:
    """The end of a complete answer."""
    return http_chunk(event(delta(finish_reason="stop"))) + http_chunk(event(DONE)) + END


DONE = b"[DONE]"
USAGE = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}


def stream(*chunks: object) -> bytes:
    """A whole valid response that streams `chunks`, each in its own HTTP chunk."""
    return head() + b"".join(http_chunk(event(chunk)) for chunk in chunks) + END


def answer(*texts: str) -> bytes:
    """A whole valid response with `texts` as its deltas."""
    return stream(*map(delta, texts), delta(finish_reason="stop"), USAGE, DONE)
