"""Finishes what a process left undone when it shut down or died: ends its answers, so that none stays `streaming` for
ever, and begins the answers to the questions that were queued behind them.

An attempt is alive as long as its `beatAt` changes. No clocks are compared: the sweeper counts how many polls in a row
have seen the same value. A poll that fails or comes late (an outage, a pause of this process, a clock that jumps)
resets the count, so none of these can end a living answer.

A question that is queued behind a running answer marks this answer (`queued`) in the same transaction. The process that
ends the answer begins the next one, unless it shuts down. If two polls see an ended answer with the mark, the sweeper
begins the next one, unless there is one, and takes the mark off.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import NamedTuple

from msgspec.structs import replace

from chatstream.errors import BudgetExhausted, ErrorCode, OverBudget, StorageUnavailable, Unavailable
from chatstream.generations.answer_log import usage_facts
from chatstream.generations.generation import MAX_INTERRUPTIONS
from chatstream.generations.hub import Hub
from chatstream.generations.rounds import in_doubt, settled
from chatstream.logs import describe
from chatstream.metrics import Metrics
from chatstream.models import Answer, Conversation, Failure, Status, Usage, UserMessage
from chatstream.store.attempts import Attempts, Orphan
from chatstream.store.documents import now
from chatstream.store.reading import Reading

log = logging.getLogger("chatstream.generations")

# Seconds between two polls. Checkpoints come every second, so six polls without a change are ten seconds without a sign
# of life.
LOOK_INTERVAL = 2.0
_LOOKS = 6
_MAX_PAUSE_BETWEEN_LOOKS = 4.0
# The most marks of queued questions in one poll. Each costs three short operations, so all take a fraction of a poll's
# interval, even where an earlier version has left thousands of marks.
_MARKS_AT_ONCE = 50
# A question that has been queued for longer is answered only when its user opens the conversation. A week is longer
# than a shutdown over some holidays; earlier versions may have left older ones, which nobody waits for any more.
_LONGEST_QUEUED = timedelta(days=7)


class Lost(NamedTuple):
    """The estimated usage of an answer whose process is gone, and the model that was asked."""

    usage: Usage
    model: str


async def _unknown(conversation: Conversation, answer: Answer) -> Lost | None:
    return None


class Sweeper:
    """Finds and ends abandoned answers, and answers abandoned questions. Call `look` every `LOOK_INTERVAL` seconds."""

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
        self._marked: set[tuple[str, str]] = set()  # the ended answers with the mark `queued` in the last poll
        self._looked_at = float("-inf")

    async def look(self) -> None:
        """Poll once: end the answers that have not changed for long enough, and begin those that were left out."""
        await self._end_orphans()
        if not self._hub.draining:
            await self._answer_all_queued()

    async def _end_orphans(self) -> None:
        time = asyncio.get_running_loop().time()
        try:
            running = await self._attempts.orphans()
        except StorageUnavailable:
            self._seen.clear()
            return
        if time - self._looked_at > _MAX_PAUSE_BETWEEN_LOOKS:
            self._seen.clear()
        self._looked_at = time
        self._seen = {orphan: self._seen.get(orphan, 0) + 1 for orphan in running}
        for orphan, looks in self._seen.items():
            if looks >= _LOOKS and not await self._try_to_end(orphan):
                self._seen[orphan] = 0  # tried again later, not at each look

    async def _answer_all_queued(self) -> None:
        try:
            marked = await self._attempts.ended_before_queued(_MARKS_AT_ONCE)
            # Not at first sight: usually the process that has just ended the answer begins the next one now.
            twice, self._marked = self._marked.intersection(marked), set(marked)
            for key, answer_id in twice:
                await self._answer_queued(key, answer_id)
        except StorageUnavailable:
            return  # the next poll finds the same marks

    async def _answer_queued(self, key: str, answer_id: str) -> None:
        """Answer the question queued behind this ended answer, or take the mark off if no answer is to begin.

        After the answer has begun, the next poll takes the mark off. So nothing is lost if this process dies meanwhile.
        Raises `StorageUnavailable`.
        """
        facts = {"answer": answer_id}
        try:
            newest = await self._reading.newest(key)
            if (
                isinstance(newest, UserMessage)
                and now() - newest.created_at < _LONGEST_QUEUED
                # If an answer runs, the message is queued behind that one and has marked it.
                and await self._reading.unfinished(key) is None
            ):
                log.info("a queued question is answered, which another process has left", extra={"facts": facts})
                await self._hub.answer_queued(key, newest)
                return
        except BudgetExhausted:
            pass  # answered when its user opens the conversation, if the budget then has room
        except StorageUnavailable:
            raise
        except (OverBudget, Unavailable):
            return  # may succeed at the next poll
        except Exception as exc:  # noqa: BLE001 - whatever is stored there, it must not keep the others
            log.error("a queued question could not be answered: %s", describe(exc), extra={"facts": facts})
        await self._attempts.queue_is_over(key, answer_id)

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
