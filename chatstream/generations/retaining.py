"""Deletes the conversations that nobody has used for `CHATSTREAM_RETENTION_DAYS`; one process at a time."""

import asyncio
import logging

from chatstream.errors import StorageUnavailable
from chatstream.generations.hub import Hub
from chatstream.metrics import Metrics
from chatstream.store.changes import Deleted
from chatstream.store.leases import Leases
from chatstream.store.retention import Idle, Retention

log = logging.getLogger("chatstream.generations")

# How often to look, in seconds. A look finds nothing, mostly, with one read of an index; and a day more or less matters
# to nobody, but a deletion that comes all at once, once a day, would matter to those who chat meanwhile.
LOOK_FOR_IDLE = 60.0
# Conversations that are asked for at once, and after which the lease is renewed.
_BATCH = 50
# Between two of them, in seconds: what runs beside comes first.
_PAUSE = 0.01


class Retaining:
    """Call `look` every `LOOK_FOR_IDLE` seconds."""

    def __init__(self, retention: Retention, leases: Leases, hub: Hub, metrics: Metrics, *, days: int) -> None:
        """`days` without activity, and a conversation is deleted."""
        self._retention = retention
        self._leases = leases
        self._hub = hub
        self._metrics = metrics
        self._days = days

    async def look(self) -> None:
        """Delete those whose time has come, unless another process is at it."""
        conversations = messages = 0
        after: Idle | None = None
        try:
            while await self._leases.take("retention"):
                found = await self._retention.idle(self._days, after=after, limit=_BATCH)
                for idle in found:
                    had = await self._retention.delete(idle)
                    if had is not None:
                        conversations, messages = conversations + 1, messages + had
                        await self._hub.changed(Deleted(idle.key))
                    await asyncio.sleep(_PAUSE)
                if not found:
                    await self._leases.release("retention")
                    break
                after = found[-1]
        except StorageUnavailable:
            pass  # the next time
        if conversations:
            self._metrics.erased("retention", conversations=conversations, messages=messages)
            facts = {"days": self._days, "conversations": conversations, "messages": messages}
            log.info("conversations that nobody had used were deleted", extra={"facts": facts})
