"""Deletes conversations that were not used for `CHATSTREAM_RETENTION_DAYS`; one process at a time."""

import asyncio
import logging

from chatstream.errors import StorageUnavailable
from chatstream.generations.hub import Hub
from chatstream.metrics import Metrics
from chatstream.store.changes import Deleted
from chatstream.store.leases import Leases
from chatstream.store.retention import Idle, Retention

log = logging.getLogger("chatstream.generations")

# Seconds between two searches. A search is one index read and mostly finds nothing. A day more or less does not matter,
# but one large deletion a day would slow down the chats.
LOOK_FOR_IDLE = 60.0
# Conversations per query; after each batch the lease is renewed.
_BATCH = 50
# Seconds between two deletions, so that other work comes first.
_PAUSE = 0.01


class Retaining:
    """Deletes unused conversations. Call `look` every `LOOK_FOR_IDLE` seconds."""

    def __init__(self, retention: Retention, leases: Leases, hub: Hub, metrics: Metrics, *, days: int) -> None:
        """A conversation is deleted after `days` without activity."""
        self._retention = retention
        self._leases = leases
        self._hub = hub
        self._metrics = metrics
        self._days = days

    async def look(self) -> None:
        """Delete the conversations that are due, unless another process does so."""
        conversations = messages = failed = 0
        after: Idle | None = None
        try:
            while await self._leases.take("retention"):
                found = await self._retention.idle(self._days, after=after, limit=_BATCH)
                for idle in found:
                    try:
                        had = await self._retention.delete(idle)
                    except StorageUnavailable:  # the next search tries again; the others must not wait for this one
                        failed += 1
                        continue
                    if had is not None:
                        conversations, messages = conversations + 1, messages + had
                        await self._hub.changed(Deleted(idle.key))
                    await asyncio.sleep(_PAUSE)
                if not found:
                    await self._leases.release("retention")
                    break
                after = found[-1]
        except StorageUnavailable:
            pass  # the next search tries again
        if failed:
            log.warning("unused conversations that could not be deleted, and are tried again: %d", failed)
        if conversations:
            self._metrics.erased("retention", conversations=conversations, messages=messages)
            facts = {"days": self._days, "conversations": conversations, "messages": messages}
            log.info("conversations that nobody had used were deleted", extra={"facts": facts})
