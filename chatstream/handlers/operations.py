"""``/healthz``, ``/readyz`` and ``/metrics``, for the operator."""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct

from chatstream.errors import StorageUnavailable
from chatstream.handlers.base import BaseHandler
from chatstream.handlers.door import Door
from chatstream.metrics import Metrics

# Longest response time of `/readyz`, in seconds: monitoring gives up after 3.
_READY_WITHIN = 2.5


class State(Struct, frozen=True):
    """``ok`` or ``ready``."""

    status: str


class HealthHandler(BaseHandler):
    """Liveness: the event loop runs."""

    public = True

    def get(self) -> None:
        """Send 200."""
        self.send_json(State("ok"))

    head = get  # many monitors use it


class OneAtATime:
    """Coalesces concurrent calls into one, as the route is public."""

    def __init__(self, ask: Callable[[], Awaitable[None]]) -> None:
        self._ask = ask
        self._asking: asyncio.Future[None] | None = None

    async def __call__(self, seconds: float) -> None:
        """Await the shared call. Raises its exception, or `StorageUnavailable` after `seconds`."""
        asking = self._asking
        if asking is None or asking.done():
            asking = self._asking = asyncio.ensure_future(self._ask())
            asking.add_done_callback(_retrieved)
        await asyncio.wait((asking,), timeout=seconds)
        if not asking.done():
            raise StorageUnavailable
        asking.result()


def _retrieved(answer: "asyncio.Future[None]") -> None:
    """Retrieve the exception, so that asyncio does not log it if no caller is left."""
    if not answer.cancelled():
        answer.exception()


class ReadyHandler(BaseHandler):
    """Readiness: the server can answer requests."""

    public = True

    def initialize(  # type: ignore[override]  # each door gets exactly its own collaborators
        self, door: Door, ping: Callable[[float], Awaitable[None]]
    ) -> None:
        """`ping`: raises `StorageUnavailable` unless the database answers within the given seconds."""
        super().initialize(door)
        self.ping = ping

    async def get(self) -> None:
        """Send 200 or 503."""
        self.door.check()
        await self.ping(_READY_WITHIN - self.request.request_time())
        self.send_json(State("ready"))

    head = get


class MetricsHandler(BaseHandler):
    """Metrics for Prometheus: totals only, nothing about single users."""

    public = True

    def initialize(self, door: Door, metrics: Metrics) -> None:  # type: ignore[override]  # its own collaborator
        """`metrics`: this server's."""
        super().initialize(door)
        self.metrics = metrics

    def get(self) -> None:
        """Send the metrics in Prometheus' text format, or in OpenMetrics if requested."""
        content_type, body = self.metrics.expose(self.request.headers.get("Accept", ""))
        self.set_header("Content-Type", content_type)
        self.finish(body)

    head = get
