"""Sends what is due to the operator's webhook: one process at a time, for all of them."""

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

# How often whoever has the lease looks, and how often it is asked for, in seconds. A look takes no longer than a try
# and a few operations, so that no lease is over before it is asked for again.
LOOK_INTERVAL = 1.0
_LEASE_INTERVAL = 5.0
# One try, from the connection to the status: well within the time of a lease.
_TRY_SECONDS = 10.0
# The pauses between tries, in seconds: the first is longer than a try, each is four times the one before, with jitter
# so that what failed together does not come back together.
_FIRST_PAUSE, _LONGEST_PAUSE = 15.0, 7200.0
# After a day nobody waits for it any more.
_GIVE_UP_AFTER = timedelta(days=1)


class Webhooks:
    """Of one process."""

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
        """For ever."""
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
                pass  # said elsewhere; nothing is lost
            except Exception as exc:  # noqa: BLE001 - whatever it is, the next look may do better
                log.error("webhooks cannot be sent: %s", describe(exc))
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Close the connections, and let another process go on at once. What is on its way is tried again."""
        await self._client.aclose()
        try:
            await self._leases.release("webhooks")
        except StorageUnavailable:
            log.info("another process sends webhooks when this one's lease is over")

    async def look(self) -> int:
        """Send what is due, some of it; how many these were."""
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
        """What went wrong, if anything did; and how long the receiver wants to be left alone, in seconds."""
        import httpx2

        payload = {"type": event.type, "timestamp": timestamp(event.since), "data": event.data}
        body = msgspec.json.encode(payload)
        headers = signing.headers(self._key, event.id, int(time.time()), body) | {"Content-Type": "application/json"}
        try:
            async with asyncio.timeout(_TRY_SECONDS):
                # Of the response only the status is read: whatever else it sends is nobody's business.
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
    """Raises `ConfigurationError` if the way to `url` cannot be used."""
    headers = {"User-Agent": "chatstream", "Accept-Encoding": "identity"}
    return proxies.client(url, "CHATSTREAM_WEBHOOK_URL", timeout=_TRY_SECONDS, headers=headers)


def _seconds(retry_after: str | None) -> float | None:
    """RFC 9110, section 10.2.3: seconds or a date; None for all else."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None
