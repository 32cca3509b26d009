"""Realistic clients: they post until they get an acknowledgement, watch, leave in the middle, and reconnect with their
cursor.
"""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import count
from typing import Any

import httpx
import jwt

from tests.stress.ledger import (
    Acknowledged,
    Closed,
    Deleted,
    Deleting,
    Ledger,
    Opened,
    Received,
    Regenerating,
    Sent,
    Stopped,
)
from tests.support.client import API, IN_CONFIDENCE
from tests.support.processes import SECRET, without_tls

# Seconds after which a client tries another server. Each request is answered within 5 s, perhaps with a 503.
_REQUEST_TIMEOUT = 8.0
_TOKEN_SECONDS = 86_400  # longer than any run, even with a clock that is wrong by an hour


class Clients:
    """The state that all clients share: the servers' ports, and the ledger."""

    def __init__(self, ledger: Ledger, ports: Callable[[], Sequence[int]]) -> None:
        """`ports` returns the ports of the servers to which a load balancer would now send clients."""
        self.ledger = ledger
        self.ports = ports
        self.tokens: list[str] = []
        self.connections = count(1)
        self.chains = count(1)

    def token(self, user: str) -> str:
        """A token without `iat`: a server whose clock is behind would refuse one from the future."""
        self.tokens.append(jwt.encode({"sub": user, "exp": int(time.time()) + _TOKEN_SECONDS}, SECRET))
        return self.tokens[-1]


class Person:
    """A user with one conversation."""

    def __init__(self, clients: Clients, name: str, rng: random.Random) -> None:
        self._clients = clients
        self.conversation = f"c-{name}"
        self.token = clients.token(f"u-{name}")
        self.rng = rng
        self._name = name
        self._numbers = count(1)
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=_REQUEST_TIMEOUT,
            event_hooks=IN_CONFIDENCE,
            verify=without_tls(),
        )
        self.cursor = ""  # the cursor before the first event

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def begin(self) -> "Person":
        """Create the conversation, and get the cursor before its first event."""
        response = await self._until_answered("POST", "", json={"id": self.conversation})
        assert response.status_code in (201, 409), response.text  # 409: an earlier try had succeeded
        response = await self._until_answered("GET", f"/{self.conversation}/messages")
        self.cursor = response.json()["streamCursor"]
        return self

    def text(self) -> str:
        """A unique text."""
        return f"usr-{self._name}-{next(self._numbers)} {self.rng.choice(('Who wins?', 'Wer gewinnt? 🏆', '誰が?'))}"

    async def post(self, content: str | None = None, key: str | None = None, if_busy: str = "refuse") -> str | None:
        """Post a message until it is acknowledged. Returns its id; None if the conversation is gone. After a 409, wait
        and send it again, as a person would.
        """
        content = content or self.text()
        key = key or f"key-{content.split()[0].removeprefix('usr-')}"
        while True:
            self._clients.ledger.add(Sent(self.conversation, key, content))
            response = await self._until_answered(
                "POST",
                f"/{self.conversation}/messages",
                json={"content": content},
                headers={"Idempotency-Key": key},
                params={"ifBusy": if_busy},
            )
            if response.status_code in (200, 201):
                message_id: str = response.json()["id"]
                acknowledged = Acknowledged(self.conversation, key, content, message_id, response.status_code)
                self._clients.ledger.add(acknowledged)
                return message_id
            if response.status_code == 404:
                return None
            assert response.status_code == 409, response.text
            await asyncio.sleep(self.rng.uniform(0.2, 0.5))

    async def stop(self) -> None:
        """Stop the running answer."""
        response = await self._request("POST", f"/{self.conversation}/stop")
        if response is not None and response.status_code == 200:
            told = response.json()
            entry = Stopped(self.conversation, told["messageId"], told["status"], told["contentLength"])
            self._clients.ledger.add(entry)
        else:
            assert response is None or response.status_code in (404, 409, 503), response.text

    async def regenerate(self, if_busy: str = "refuse") -> None:
        """Ask for another answer, once: the request has no idempotency key, so it is not repeated."""
        self._clients.ledger.add(Regenerating(self.conversation))
        response = await self._request("POST", f"/{self.conversation}/regenerate", params={"ifBusy": if_busy})
        assert response is None or response.status_code in (202, 404, 409, 503), response.text

    async def delete(self) -> int:
        """Delete the conversation; returns the status."""
        self._clients.ledger.add(Deleting(self.conversation))
        response = await self._until_answered("DELETE", f"/{self.conversation}")
        assert response.status_code in (204, 404), response.text
        self._clients.ledger.add(Deleted(self.conversation))
        return response.status_code

    async def talk(self, turns: int) -> None:
        """Send this many messages; stop, regenerate, or wait in between at random."""
        for _ in range(turns):
            await self.post(if_busy=self.rng.choice(("refuse", "refuse", "queue", "interrupt")))
            await asyncio.sleep(self.rng.uniform(0, 1.5))
            whim = self.rng.random()
            if whim < 0.15:
                await self.stop()
            elif whim < 0.3:
                await self.regenerate(self.rng.choice(("refuse", "interrupt")))

    async def _until_answered(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Repeat a request while the response is 503."""
        while True:
            response = await self._request(method, path, **options)
            if response is not None and response.status_code not in (429, 503):
                assert response.status_code < 500, response.text
                return response
            pause = float(response.headers["Retry-After"]) if response is not None else 0.5
            await asyncio.sleep(pause * self.rng.uniform(0.5, 1))

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        """Send a request; returns None without a response."""
        ports = self._clients.ports()
        if not ports:
            return None
        url = f"http://127.0.0.1:{self.rng.choice(ports)}{API}{path}"
        with contextlib.suppress(httpx.TransportError):
            return await self._http.request(method, url, **options)
        return None


class Tab:
    """A chain of connections to one conversation, each opened with the last cursor."""

    def __init__(self, clients: Clients, person: Person, *, restless: float = 0.0, patience: float = 6.0) -> None:
        """`restless`: how probable it is that a connection is left in the middle. `patience`: seconds of silence."""
        self._clients = clients
        self._person = person
        self._rng = random.Random(person.rng.random())  # noqa: S311 - a seeded run
        self._patience = patience
        self.restless = restless
        self.chain = next(clients.chains)
        self.cursor = person.cursor
        self.connected = asyncio.Event()  # now
        self.over = False  # the conversation is gone
        self.last_words: list[dict[str, Any]] = []  # the newest event of each connection
        self.retries: list[int] = []  # the newest reconnection delay of each connection, in ms
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    def open(self) -> "Tab":
        """Start watching."""
        self._task = asyncio.create_task(self._watch())
        return self

    async def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def break_off(self) -> None:
        """Break the connection now; the tab reconnects by itself."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def finished(self) -> None:
        """Wait for the end of a tab whose conversation is gone (`over`)."""
        if self._task is not None:
            await self._task

    async def _watch(self) -> None:
        while not self.over:
            how = "lost"
            connection = next(self._clients.connections)
            try:
                if ports := self._clients.ports():
                    how = await self._connection(connection, self._rng.choice(ports))
            except (OSError, EOFError, TimeoutError):
                pass
            except asyncio.CancelledError:
                how = "left"
                raise
            finally:
                self.connected.clear()
                self._clients.ledger.add(Closed(connection, how))
            await asyncio.sleep(self._rng.uniform(0.05, 0.4))  # pause before it reconnects

    async def _connection(self, connection: int, port: int) -> str:
        ledger = self._clients.ledger
        leave_after = self._rng.randint(1, 15) if self._rng.random() < self.restless else None
        async with asyncio.timeout(self._patience):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        self._writer = writer
        try:
            ledger.add(Opened(connection, self.chain, self._person.conversation, self.cursor))
            lines = (
                f"GET {API}/{self._person.conversation}/stream HTTP/1.1",
                "Host: 127.0.0.1",
                "Accept: text/event-stream",
                f"Authorization: Bearer {self._person.token}",
                f"Last-Event-ID: {self.cursor}",
            )
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
            async with asyncio.timeout(self._patience):
                status = int((await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1])
            if status != 200:
                assert status in (404, 503), status
                self.over = status == 404
                return "ended"
            self.last_words.append({})
            async for id_, data in self._frames(reader):
                ledger.add(Received(connection, id_, data))
                self.last_words[-1] = data
                self.cursor = id_ or self.cursor
                self.connected.set()
                if data["type"] == "error" and data["error"] == "conversation_deleted":
                    self.over = True
                if leave_after is not None and (leave_after := leave_after - 1) == 0:
                    if self._rng.random() < 0.5:
                        writer.transport.abort()  # without closing the connection properly
                    return "left"
            return "ended"
        finally:
            self._writer = None
            writer.close()

    async def _frames(self, reader: asyncio.StreamReader) -> AsyncIterator[tuple[str | None, dict[str, Any]]]:
        """The events of a chunked body, up to its end. Raises `EOFError` and `OSError` if it breaks off."""
        text = b""
        while True:
            async with asyncio.timeout(self._patience):
                line = await reader.readuntil(b"\r\n")
                data = await reader.readexactly(int(line, 16) + 2)
            if data == b"\r\n":
                assert not text, "the stream ended in the middle of a frame"
                return
            *frames, text = (text + data[:-2]).split(b"\n\n")
            for frame in frames:
                fields = dict(part.split(": ", 1) for part in frame.decode().split("\n"))
                if "retry" in fields:
                    self.retries.append(int(fields["retry"]))
                yield fields.get("id"), json.loads(fields["data"])
