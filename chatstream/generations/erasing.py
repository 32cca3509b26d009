"""Carries out erasures: those requested in this process, and those whose process is gone."""

import asyncio
import logging
from collections.abc import Callable

from chatstream.errors import NotFound, StorageUnavailable
from chatstream.generations.hub import Hub
from chatstream.logs import describe
from chatstream.metrics import Metrics
from chatstream.models import Erasure
from chatstream.store.changes import Deleted
from chatstream.store.erasures import Batch, Erasures
from chatstream.store.leases import SECONDS, Leases

log = logging.getLogger("chatstream.generations")

# Seconds between two searches for erasures that no process carries out: half of the time after which a lease expires.
LOOK_FOR_ERASURES = SECONDS / 2
# Seconds to wait for the user's answers to stop. An answer stops with its next checkpoint, within a second; one whose
# process is gone ends after some twelve. An answer that still runs is deleted; its process then notices.
_STOP_PATIENCE = 15.0
_STOP_LOOK_INTERVAL = 0.1
# Seconds that a request waits for its receipt: less than the 5 s within which every request is answered.
_RECEIPT_PATIENCE = 3.0


class Erasing:
    """Erases users, in batches of conversations."""

    def __init__(
        self,
        erasures: Erasures,
        leases: Leases,
        hub: Hub,
        metrics: Metrics,
        forget: Callable[[str], None] = lambda user_id: None,
    ) -> None:
        """`forget` is called with a user's id when this process is asked to erase that user."""
        self._erasures = erasures
        self._leases = leases
        self._hub = hub
        self._metrics = metrics
        self._forget = forget
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def erase(self, user_id: str) -> Erasure:
        """Begin to erase a user, or join the erasure that runs. Returns its state after a few seconds at most.

        The erasure is completed whatever happens to this request. Raises `StorageUnavailable` if it could not begin.
        """
        erasure = await self._erasures.begin(user_id)
        self._start(erasure.id)
        await asyncio.wait((self._tasks[erasure.id],), timeout=_RECEIPT_PATIENCE)
        self._forget(user_id)
        return await self._erasures.get(erasure.id) or erasure

    async def get(self, erasure_id: str) -> Erasure:
        """Return the state of an erasure. Raises `NotFound` and `StorageUnavailable`."""
        erasure = await self._erasures.get(erasure_id)
        if erasure is None:
            raise NotFound("There is no such erasure.")
        return erasure

    async def look(self) -> None:
        """Continue the erasures that no process carries out; call this every `LOOK_FOR_ERASURES` seconds."""
        try:
            for erasure_id in await self._erasures.running():
                self._start(erasure_id)
        except StorageUnavailable:
            pass  # the next search tries again

    async def close(self) -> None:
        """Stop; another process continues the erasures."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def _start(self, erasure_id: str) -> None:
        if erasure_id not in self._tasks:
            task = self._tasks[erasure_id] = asyncio.create_task(self._run(erasure_id))
            task.add_done_callback(lambda _: self._tasks.pop(erasure_id))

    async def _run(self, erasure_id: str) -> None:
        lease = f"erasure {erasure_id}"
        try:
            while await self._leases.take(lease):
                if await self._step(erasure_id, lease):
                    await self._leases.release(lease)
                    return
        except StorageUnavailable:
            log.warning("an erasure waits for the database", extra={"facts": {"erasure": erasure_id}})
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is tried again
            log.error(
                "an erasure failed, and is tried again: %s", describe(exc), extra={"facts": {"erasure": erasure_id}}
            )

    async def _step(self, erasure_id: str, lease: str) -> bool:
        """Erase one batch. Returns True if nothing is left. Each step may be repeated after a crash."""
        batch = await self._erasures.next_batch(erasure_id)
        if batch is None:
            await self._erasures.erase_rest(erasure_id)
            if await self._erasures.complete(erasure_id):
                await self._completed(erasure_id)
            return True
        await self._stop_answers(batch)
        await self._erasures.erase_conversations(erasure_id, batch)
        for key in batch.keys:
            await self._hub.changed(Deleted(key))  # the other processes get it from the change stream
        async for _ in self._erasures.erase_belongings(batch):
            await self._leases.take(lease)
        await self._erasures.finish_batch(erasure_id, batch)
        return False

    async def _stop_answers(self, batch: Batch) -> None:
        """Stop the answers first, so that their usage is stored before they are deleted."""
        now = asyncio.get_running_loop().time
        deadline = now() + _STOP_PATIENCE
        while await self._erasures.answers_run(batch) and now() < deadline:
            await self._erasures.stop_answers(batch)
            await asyncio.sleep(_STOP_LOOK_INTERVAL)

    async def _completed(self, erasure_id: str) -> None:
        erasure = await self._erasures.get(erasure_id)
        if erasure is not None:
            conversations, messages = erasure.erased.conversations, erasure.erased.messages
            self._metrics.erased("user", conversations=conversations, messages=messages)
            facts = {"erasure": erasure_id, "conversations": conversations, "messages": messages}
            log.info("a user was erased", extra={"facts": facts})
