"""A client of the REST API and the stream, over real sockets: httpx, and httpx-sse to read the frames."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

from chatstream import auth
from tests.support import confidential
from tests.support.processes import SECRET, without_tls

API = "/api/v1/chat/conversations"
# No test waits longer than this for one event. In seconds. On an idle machine the slowest event is the end of an answer
# whose process is gone: the sweeper ends it after ten seconds.
PATIENCE = 60


class Frame:
    """One received event."""

    def __init__(self, event: ServerSentEvent) -> None:
        self.id = event.id or None
        self.data: dict[str, Any] = event.json()
        self.type: str = self.data["type"]


class Stream:
    """An open stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.frames: list[Frame] = []
        self.retries: list[int] = []
        self._events = EventSource(response).aiter_sse()

    async def next(self) -> Frame:
        """The next event; `StopAsyncIteration` at the end of the stream."""
        async with asyncio.timeout(PATIENCE):
            event = await anext(self._events)
        if event.retry is not None:
            self.retries.append(event.retry)
        frame = Frame(event)
        self.frames.append(frame)
        if frame.type == "error":
            confidential.check(event.data, "an error of a stream")
        return frame

    async def until(self, type_: str, count: int = 1) -> Frame:
        """Read until the next event of this type, or until the `count`-th."""
        while True:
            frame = await self.next()
            count -= frame.type == type_
            if not count:
                return frame

    async def rest(self) -> list[Frame]:
        """Read to the end of the stream."""
        with contextlib.suppress(StopAsyncIteration):
            while True:
                await self.next()
        return self.frames

    @property
    def types(self) -> list[str]:
        """The types of the events so far, without heartbeats; neighbouring chunks count as one."""
        types: list[str] = []
        for frame in self.frames:
            if frame.type != "heartbeat" and not (frame.type == "llm_chunk" and types[-1:] == ["llm_chunk"]):
                types.append(frame.type)
        return types

    @property
    def text(self) -> str:
        """The text of all chunks so far."""
        return "".join(frame.data["content"] for frame in self.frames if frame.type == "llm_chunk")

    @property
    def cursor(self) -> str:
        """The id of the last event that had one."""
        return next(frame.id for frame in reversed(self.frames) if frame.id)


async def remember_request(request: httpx.Request) -> None:
    """Remember the texts of a request's body as confidential."""
    # Ignore a body that is not JSON, is too deeply nested, or is generated while it is sent.
    with contextlib.suppress(ValueError, RecursionError, httpx.RequestNotRead):
        body = json.loads(request.content)
        if isinstance(body, dict):
            confidential.remember(*map(body.get, ("content", "initialMessage", "systemPrompt", "title")))


async def look_at_error(response: httpx.Response) -> None:
    """Check that an error response contains nothing confidential; remember tickets as confidential."""
    if response.is_error:
        await response.aread()
        confidential.check(response.text, f"an error with status {response.status_code}")
    elif response.status_code == 201 and response.url.path.endswith("/stream-tickets"):
        await response.aread()
        confidential.remember(response.json()["ticket"])


IN_CONFIDENCE: dict[str, list[Callable[..., Any]]] = {"request": [remember_request], "response": [look_at_error]}
"""`event_hooks` of an httpx client."""


class Client:
    """One user's client."""

    def __init__(self, url: str, user: str) -> None:
        self.url = url
        self.user = user
        self.token = auth.mint(SECRET, user, 3600)
        self.http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=PATIENCE,
            event_hooks=IN_CONFIDENCE,
            verify=without_tls(),
        )

    async def create(self, **body: Any) -> str:
        """A new conversation; returns its id."""
        response = await self.http.post(API, json=body)
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    async def post(self, conversation: str, content: str, **options: Any) -> httpx.Response:
        """Post a message; `options` are passed to httpx."""
        return await self.http.post(f"{API}/{conversation}/messages", json={"content": content}, **options)

    async def messages(self, conversation: str) -> list[dict[str, Any]]:
        """The stored messages, oldest first."""
        response = await self.http.get(f"{API}/{conversation}/messages")
        assert response.status_code == 200, response.text
        return list(response.json()["messages"])

    async def answer(self, conversation: str) -> dict[str, Any]:
        """Wait until the newest message, which must be an answer, is not `streaming` any more; returns it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                newest = (await self.messages(conversation))[-1]
                assert newest["role"] == "assistant"
                if newest["status"] != "streaming":
                    return newest
                await asyncio.sleep(0.05)  # between two polls; there is no event to wait for over REST

    async def saved(self, conversation: str) -> None:
        """Wait until the text of the running answer so far is stored. After this, its process may be killed."""
        async with asyncio.timeout(PATIENCE):
            while not (await self.messages(conversation))[-1]["content"]:
                await asyncio.sleep(0.05)  # between two polls; there is no event to wait for over REST

    @contextlib.asynccontextmanager
    async def stream(
        self, conversation: str, *, params: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> AsyncIterator[Stream]:
        """Open a stream; leaving the context closes the connection."""
        async with self.http.stream(
            "GET",
            f"{API}/{conversation}/stream",
            params=params,
            headers={"Accept": "text/event-stream", **(headers or {})},
        ) as response:
            yield Stream(response)

    async def stop_all(self) -> None:
        """End the running answers of all the user's conversations."""
        headers = {"Authorization": f"Bearer {self.token}"}  # a test may have changed the client's header
        while True:
            listed = await self.http.get(API, params={"limit": 200}, headers=headers)
            if listed.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
                break
            await asyncio.sleep(float(listed.headers["Retry-After"]))  # a busy server names the time to wait
        for conversation in listed.json()["conversations"]:
            while (await self.http.post(f"{API}/{conversation['id']}/stop", headers=headers)).is_success:
                pass  # what was queued behind the stopped answer may have begun

    async def close(self) -> None:
        """Close all connections."""
        await self.http.aclose()
