"""``/healthz``, ``/readyz`` and ``/metrics``: for whoever runs the server."""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct

from chatstream.errors import StorageUnavailable
from chatstream.handlers.base import BaseHandler
from chatstream.handlers.door import Door
from chatstream.metrics import Metrics

# `/readyz` answers so many seconds after the request came, whatever is waited for: monitoring gives up after 3.
_READY_WITHIN = 2.5


class State(Struct, frozen=True):
    """``ok`` or ``ready``."""

    status: str


class HealthHandler(BaseHandler):
    """Alive: the event loop turns."""

    public = True

    def get(self) -> None:
        """Always 200."""
        self.send_json(State("ok"))

    head = get  # what many monitors ask with


class OneAtATime:
    """A question that is asked once for all who want to know at the same time: anybody may, as often as they like."""

    def __init__(self, ask: Callable[[], Awaitable[None]]) -> None:
        self._ask = ask
        self._asking: asyncio.Future[None] | None = None

    async def __call__(self, seconds: float) -> None:
        """Raises what the question raises, and `StorageUnavailable` if there is no answer after so many seconds."""
        asking = self._asking
        if asking is None or asking.done():
            asking = self._asking = asyncio.ensure_future(self._ask())
            asking.add_done_callback(_retrieved)
        await asyncio.wait((asking,), timeout=seconds)
        if not asking.done():
            raise StorageUnavailable
        asking.result()


def _retrieved(answer: "asyncio.Future[None]") -> None:
    """Perhaps nobody waits for it any more."""
    if not answer.cancelled():
        answer.exception()


class ReadyHandler(BaseHandler):
    """Can serve."""

    public = True

    def initialize(  # type: ignore[override]  # each door gets exactly its own collaborators
        self, door: Door, ping: Callable[[float], Awaitable[None]]
    ) -> None:
        """`ping` raises `StorageUnavailable` unless the database answers within so many seconds."""
        super().initialize(door)
        self.ping = ping

    async def get(self) -> None:
        """200 or 503."""
        self.door.check()
        await self.ping(_READY_WITHIN - self.request.request_time())
        self.send_json(State("ready"))

    head = get


class MetricsHandler(BaseHandler):
    """What there is to measure, for Prometheus: numbers alone, of everybody together."""

    public = True

    def initialize(self, door: Door, metrics: Metrics) -> None:  # type: ignore[override]  # its own collaborator
        """`metrics` of this server."""
        super().initialize(door)
        self.metrics = metrics

    def get(self) -> None:
        """In Prometheus' own format, or in OpenMetrics if that is asked for."""
        content_type, body = self.metrics.expose(self.request.headers.get("Accept", ""))
        self.set_header("Content-Type", content_type)
        self.finish(body)

    head = get
