"""A webhook receiver: a real HTTP server that keeps the requests, and checks signatures by the standard."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from tests.support.client import PATIENCE
from tests.support.listening import listening

WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def verified(headers: dict[str, str], body: bytes, secret: str = WEBHOOK_SECRET) -> Any:
    """The body of a request, after its signature is checked.
    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """
    id_, sent = headers["webhook-id"], headers["webhook-timestamp"]
    assert abs(time.time() - int(sent)) < 300
    assert "." not in id_
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.digest(key, b"%s.%s.%s" % (id_.encode(), sent.encode(), body), hashlib.sha256))
    assert f"v1,{expected.decode()}" in headers["webhook-signature"].split(" ")
    return json.loads(body)


class Received:
    """One received request."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path, self.headers, self.body = path, headers, body

    @property
    def id(self) -> str:
        """The event's id, which is the same for each try."""
        return self.headers["webhook-id"]

    @property
    def event(self) -> Any:
        """The event in the body; the signature must be valid."""
        return verified(self.headers, self.body)


class Receiver:
    """Answers the n-th request with the n-th of `replies`, and all later ones with 204; None means no response."""

    def __init__(self, *, closing: bool = False) -> None:
        """`closing`: close the connection after each reply."""
        self.closing = closing
        self.replies: list[bytes | None] = []
        self.received: list[Received] = []
        self.port = 0
        self._came = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?of=chat"

    async def until(self, count: int) -> list[Received]:
        """Wait for `count` requests; returns them."""
        async with asyncio.timeout(2 * PATIENCE), self._came:
            await self._came.wait_for(lambda: len(self.received) >= count)
        return self.received

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one connection, for `listening`."""
        while True:
            head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            body = await reader.readexactly(int(headers["content-length"]))
            number = len(self.received)
            async with self._came:
                self.received.append(Received(head.split()[1], headers, body))
                self._came.notify_all()
            reply = self.replies[number] if number < len(self.replies) else b"HTTP/1.1 204 No Content\r\n\r\n"
            if reply is None:
                await reader.read()
                break
            writer.write(reply)
            await writer.drain()
            if self.closing:
                break


@contextlib.asynccontextmanager
async def receiving(*, closing: bool = False) -> AsyncIterator[Receiver]:
    """Run the receiver; yields it."""
    receiver = Receiver(closing=closing)
    async with listening(receiver.serve) as receiver.port:
        yield receiver
