"""Sends due events to the operator's webhook. A lease makes one process at a time do this for all processes."""

import asyncio
import logging
import math
import random
import ssl
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import msgspec

from chatstream import proxies
from chatstream.errors import StorageUnavailable
from chatstream.events import timestamp
from chatstream.logs import describe
from chatstream.metrics import Metrics
from chatstream.store.documents import now
from chatstream.store.leases import Leases
from chatstream.store.outbox import BATCH, Event, Outbox
from chatstream.webhooks import signing

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger("chatstream.webhooks")

# Seconds between two polls for due events, and between tries to get the lease. A poll takes no longer than a try and a
# few database operations, so that the lease does not expire before it is renewed.
LOOK_INTERVAL = 1.0
_LEASE_INTERVAL = 5.0
# Time limit of one try in seconds, from connecting to the status line: well within the time of a lease.
_TRY_SECONDS = 10.0
# First and longest pause between tries, in seconds. The first is longer than a try, and each is four times the one
# before, with jitter so that events that failed together are not sent together again.
_FIRST_PAUSE, _LONGEST_PAUSE = 15.0, 7200.0
# An event is given up after a day, when it is no longer useful.
_GIVE_UP_AFTER = timedelta(days=1)


class Webhooks:
    """The webhook sender of one process."""

    def __init__(
        self, outbox: Outbox, leases: Leases, client: "httpx2.AsyncClient", url: str, secret: str, metrics: Metrics
    ) -> None:
        """`secret` is ``whsec_…``; the `client` follows no redirects."""
        self._outbox = outbox
        self._leases = leases
        self._client = client
        self._url = url
        self._key = signing.key_of(secret)
        self._metrics = metrics

    async def run(self) -> None:
        """Send due events, for ever."""
        clock = asyncio.get_running_loop().time
        has_lease, ask_at = False, -math.inf
        while True:
            pause = _LEASE_INTERVAL
            try:
                if clock() >= ask_at:
                    asked_at, has_lease = clock(), False
                    has_lease = await self._leases.take("webhooks")
                    ask_at = asked_at + _LEASE_INTERVAL
                if has_lease:
                    pause = 0 if await self.look() >= BATCH else LOOK_INTERVAL
            except StorageUnavailable:
                pass  # the gate logs it; no event is lost
            except Exception as exc:  # noqa: BLE001 - after any error, the next poll tries again
                log.error("webhooks cannot be sent: %s", describe(exc))
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Close the connections and release the lease. Events that are being sent are sent again."""
        await self._client.aclose()
        try:
            await self._leases.release("webhooks")
        except StorageUnavailable:
            log.info("another process sends webhooks when this one's lease is over")

    async def look(self) -> int:
        """Send a batch of due events; returns their number."""
        due = await self._outbox.due()
        for result in await asyncio.gather(*map(self._send, due), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        return len(due)

    async def _send(self, event: Event) -> None:
        pause = min(_FIRST_PAUSE * 4**event.tries, _LONGEST_PAUSE) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        if not await self._outbox.claim(event, now() + timedelta(seconds=max(pause, _FIRST_PAUSE))):
            return
        problem, later = await self._try(event)
        facts = {"facts": {"webhook": event.id, "type": event.type, "tries": event.tries + 1}}
        if problem is None:
            self._metrics.webhook(event.type, "delivered")
            await self._outbox.delivered(event)
            log.info("a webhook was delivered", extra=facts)
        elif now() - event.since >= _GIVE_UP_AFTER:
            self._metrics.webhook(event.type, "dead")
            await self._outbox.give_up(event)
            log.error("a webhook is given up after a day: %s", problem, extra=facts)
        else:
            self._metrics.webhook(event.type, "failed")
            if later is not None and later > pause:
                await self._outbox.postpone(event, now() + timedelta(seconds=min(later, _LONGEST_PAUSE)))
            log.warning("a webhook was not delivered, and is tried again: %s", problem, extra=facts)

    async def _try(self, event: Event) -> tuple[str | None, float | None]:
        """Send the event once. Returns the fault, or None, and the receiver's `Retry-After` in seconds, or None."""
        import httpx2

        payload = {"type": event.type, "timestamp": timestamp(event.since), "data": event.data}
        body = msgspec.json.encode(payload)
        headers = signing.headers(self._key, event.id, int(time.time()), body) | {"Content-Type": "application/json"}
        try:
            async with asyncio.timeout(_TRY_SECONDS):
                # Read only the status: the response's body is not needed.
                async with self._client.stream("POST", self._url, content=body, headers=headers) as response:
                    if response.is_success:
                        return None, None
                    redirects = ", which is not followed" if response.is_redirect else ""
                    return f"HTTP {response.status_code}{redirects}", _seconds(response.headers.get("Retry-After"))
        except TimeoutError:
            return f"no answer within {_TRY_SECONDS:g} s", None
        except (httpx2.HTTPError, httpx2.StreamError, OSError, ssl.SSLError) as exc:
            return type(exc).__name__, None


def client(url: str) -> "httpx2.AsyncClient":
    """An HTTP client for `url`. Raises `ConfigurationError` if the proxy or the certificates cannot be used."""
    headers = {"User-Agent": "chatstream", "Accept-Encoding": "identity"}
    return proxies.client(url, "CHATSTREAM_WEBHOOK_URL", timeout=_TRY_SECONDS, headers=headers)


def _seconds(retry_after: str | None) -> float | None:
    """The delay in a `Retry-After` header (RFC 9110, section 10.2.3): seconds or a date. None if it is invalid."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None
