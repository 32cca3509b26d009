"""Ends the answers whose process is gone, so that no answer stays `streaming` for ever.

An attempt is alive as long as its `beatAt` changes. No clocks are compared: the sweeper counts how many polls in a row
have seen the same value. A poll that fails or comes late (an outage, a pause of this process, a clock that jumps)
resets the count, so none of these can end a living answer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from msgspec.structs import replace

from chatstream.errors import ErrorCode, StorageUnavailable
from chatstream.generations.answer_log import usage_facts
from chatstream.generations.generation import MAX_INTERRUPTIONS
from chatstream.generations.hub import Hub
from chatstream.generations.rounds import in_doubt, settled
from chatstream.logs import describe
from chatstream.metrics import Metrics
from chatstream.models import Answer, Conversation, Failure, Status, Usage
from chatstream.store.attempts import Attempts, Orphan
from chatstream.store.reading import Reading

log = logging.getLogger("chatstream.generations")

# Seconds between two polls. Checkpoints come every second, so six polls without a change are ten seconds without a sign
# of life.
LOOK_INTERVAL = 2.0
_LOOKS = 6
_MAX_PAUSE_BETWEEN_LOOKS = 4.0


class Lost(NamedTuple):
    """The estimated usage of an answer whose process is gone, and the model that was asked."""

    usage: Usage
    model: str


async def _unknown(conversation: Conversation, answer: Answer) -> Lost | None:
    return None


class Sweeper:
    """Finds and ends abandoned answers. Call `look` every `LOOK_INTERVAL` seconds."""

    def __init__(
        self,
        attempts: Attempts,
        reading: Reading,
        hub: Hub,
        metrics: Metrics,
        lost_usage: Callable[[Conversation, Answer], Awaitable[Lost | None]] = _unknown,
    ) -> None:
        """`lost_usage` estimates the usage of an abandoned answer; None if no model was asked."""
        self._lost_usage = lost_usage
        self._attempts = attempts
        self._reading = reading
        self._metrics = metrics
        self._hub = hub
        self._seen: dict[Orphan, int] = {}
        self._looked_at = float("-inf")

    async def look(self) -> None:
        """Poll once, and end the answers that have not changed for long enough."""
        now = asyncio.get_running_loop().time()
        try:
            running = await self._attempts.orphans()
        except StorageUnavailable:
            self._seen.clear()
            return
        if now - self._looked_at > _MAX_PAUSE_BETWEEN_LOOKS:
            self._seen.clear()
        self._looked_at = now
        self._seen = {orphan: self._seen.get(orphan, 0) + 1 for orphan in running}
        for orphan, looks in self._seen.items():
            if looks >= _LOOKS and not await self._try_to_end(orphan):
                self._seen[orphan] = 0  # tried again later, not at each look

    async def end_all(self) -> int:
        """End every `streaming` attempt at once; returns how many there were. Only for a process that is alone in the
        database. One that cannot be ended is left to `look`.
        """
        orphans = await self._attempts.orphans()
        for orphan in orphans:
            await self._try_to_end(orphan)
        return len(orphans)

    async def _try_to_end(self, orphan: Orphan) -> bool:
        """Returns whether nothing is wrong with it. One that cannot be ended keeps neither the others nor the start."""
        try:
            await self._end(orphan)
        except Exception as exc:  # noqa: BLE001 - whatever is stored there
            facts = {"answer": orphan.answer_id}
            log.error("an answer without a process could not be ended: %s", describe(exc), extra={"facts": facts})
            return False
        return True

    async def _end(self, orphan: Orphan) -> None:
        try:
            answer = await self._reading.get(orphan.key, orphan.answer_id)
            if not isinstance(answer, Answer):
                return
            ended = replace(await self._outcome(orphan, answer), unseen=True)
            if (lost := await self._lost(orphan, answer)) is not None:
                ended = replace(ended, usage=lost.usage, model=answer.model or lost.model)
            if await self._attempts.finish_orphan(orphan, ended):
                usage = ended.usage
                facts = {
                    "answer": answer.id,
                    "code": ended.failure.code if ended.failure else None,
                    "model": ended.model,
                } | usage_facts(usage)
                log.warning("answer %s: its process is gone", ended.status, extra={"facts": facts})
                self._metrics.orphan_ended(usage, ended.model)
                if ended.failure is not None and ended.failure.code is ErrorCode.TOOL_OUTCOME_UNKNOWN:
                    self._metrics.outcome_unknown()
                await self._hub.orphan_ended(orphan.key, ended)
        except StorageUnavailable:
            facts = {"answer": orphan.answer_id}
            log.warning("its process is gone, but the answer's end cannot be stored yet", extra={"facts": facts})

    async def _outcome(self, orphan: Orphan, answer: Answer) -> Answer:
        if orphan.stop_requested:  # the user has asked to stop it
            return settled(replace(answer, status=Status.STOPPED)).seen_to(orphan.stop_at)
        if any(in_doubt(answer.mixed)):  # such a call must not be carried out again, unless a person asks for it
            failure = Failure(code=ErrorCode.TOOL_OUTCOME_UNKNOWN, request_id=None)
            return settled(replace(answer, status=Status.FAILED, failure=failure))
        often = await self._attempts.interruptions(orphan.key, answer.reply_to) + 1 >= MAX_INTERRUPTIONS
        ended = replace(
            answer,
            status=Status.FAILED if often else Status.INTERRUPTED,
            failure=Failure(code=ErrorCode.ANSWER_INTERRUPTED, request_id=None),
        )
        return settled(ended)

    async def _lost(self, orphan: Orphan, answer: Answer) -> Lost | None:
        conversation = await self._reading.conversation(orphan.key)
        return None if conversation is None else await self._lost_usage(conversation, answer)
