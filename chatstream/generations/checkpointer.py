"""Checkpoints: stores the text of all answers of this process, with one write and one read a second.

A checkpoint stores the new pieces, shows that the answer is alive, and reads other processes' requests, such as a stop.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from chatstream.errors import StorageUnavailable
from chatstream.logs import describe
from chatstream.pieces import size
from chatstream.store.attempts import Attempts, Checkpoint, CheckpointResult

log = logging.getLogger("chatstream.generations")

# Seconds between checkpoints: the most text that a crash can lose, and the most that a stop from another process waits.
CHECKPOINT_INTERVAL = 1.0
# The most answers in one write, and (`_BATCH_CHARACTERS`) the most code points. A write has 2 s: 500 answers take 30
# ms, on a busy machine 200 ms; a million code points are at most 4 MB, and the last answer may exceed that by its own
# text. The driver's limits are 100,000 operations and 48 MB.
_BATCH = 500
# Seconds between tries of `store_now`, which delays a tool call: very short at first, as another checkpoint may just be
# running; then doubled, so that a recovering database is not flooded.
_PAUSE = 0.02
_LONGEST_PAUSE = 5.0
_BATCH_CHARACTERS = 1_000_000


class Checkpointed(Protocol):
    """The interface of a running answer."""

    def checkpoint(self) -> Checkpoint:
        """Return the pieces that are to be stored now."""
        ...

    def checkpointed(self, result: CheckpointResult | None) -> None:
        """Handle the stored state after a checkpoint; None if the answer has ended in the store, or is gone."""
        ...


class Checkpointer:
    """Makes checkpoints of the `running` answers, one a second; without answers it does nothing.

    Checkpoints never overlap: after one that takes longer than a second the next begins at once.
    """

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        self._running: set[Checkpointed] = set()
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def running(self, answer: Checkpointed) -> Iterator[None]:
        """Make checkpoints of `answer` while the context is open, the first one within a second.

        `checkpointed` is not called after the context is left. A checkpoint that is being written then may still be
        stored, unless the answer's end is stored before it.
        """
        self._running.add(answer)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._running.remove(answer)
            if not self._running:
                self._task.cancel()
                self._task = None

    async def store_now(self, answer: Checkpointed, is_stored: Callable[[], bool]) -> None:
        """Make checkpoints of `answer` alone, until `is_stored` returns True; retries without limit."""
        pause = _PAUSE
        while True:
            await self._store({answer: answer.checkpoint()})
            if is_stored():
                return
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + CHECKPOINT_INTERVAL
        while True:
            await asyncio.sleep(due - loop.time())
            due = loop.time() + CHECKPOINT_INTERVAL
            await self._checkpoint()

    async def _checkpoint(self) -> None:
        waiting = list(self._running)
        while waiting:
            batch: dict[Checkpointed, Checkpoint] = {}
            characters = 0
            while waiting and len(batch) < _BATCH and characters < _BATCH_CHARACTERS:
                answer = waiting.pop()
                if answer in self._running:  # it has not ended while those before it were stored
                    batch[answer] = answer.checkpoint()
                    characters += size(batch[answer].pieces)
            if batch:
                await self._store(batch)

    async def _store(self, batch: dict[Checkpointed, Checkpoint]) -> None:
        try:
            results = await self._attempts.checkpoint(list(batch.values()))
            for answer, checkpoint in batch.items():
                if answer in self._running:
                    answer.checkpointed(results.get(checkpoint.answer_id))
        except StorageUnavailable:
            # If the write did succeed, the next checkpoint's read shows it.
            log.warning("no checkpoint of %d answers: the database does not answer", len(batch))
        except Exception as exc:  # noqa: BLE001 - without checkpoints, all answers here would be ended as abandoned
            log.error("no checkpoint of %d answers: %s", len(batch), describe(exc))
