"""One running answer: a task that reads the model, checkpoints, and an end that is stored before it is published.

It never waits for those who watch. The database may come and go meanwhile: the text is kept here until it is stored.
"""

import asyncio
import logging
import math
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime

from msgspec import UNSET, Struct
from msgspec.structs import replace

from chatstream.errors import ErrorCode, ModelError, StorageUnavailable
from chatstream.generations.answer_log import AnswerLog
from chatstream.generations.channel import Channel, Running
from chatstream.generations.checkpointer import Checkpointer
from chatstream.generations.entries import Notice
from chatstream.generations.fitting import Fitting
from chatstream.generations.rounds import in_doubt, settled, waits_until
from chatstream.generations.tokens import added, estimated, since
from chatstream.llm.model import Delta, Estimate, Finish
from chatstream.logs import describe
from chatstream.metrics import Metrics
from chatstream.models import RECOMMENDATION, Annotation, Answer, Conversation, Failure, Round, Status, Usage
from chatstream.pieces import Piece, ToolResult, join, size
from chatstream.store.attempts import Attempts, Checkpoint, CheckpointResult

log = logging.getLogger("chatstream.generations")

# Seconds for which a poll of another process counts as viewers there. It polls every 5 s while it has some: two polls,
# and the time until our next checkpoint reads them.
_WATCHED_REMOTELY_FOR = 12.0
# For the first 3 s, publish every checkpoint to all processes, so that those with viewers can register; later, only if
# some process has.
_PUBLISHED_TO_ALL_FOR = 3.0
# The pauses between tries of the final save: at once after a blip, and no storm on a database that comes back.
_SAVE_PAUSE = 0.2
_SAVE_PAUSE_LIMIT = 5.0
# A user message is tried this often before an answer that we cut counts as failed: a question that our processes die of
# must not have the model called for ever.
MAX_INTERRUPTIONS = 3


# The model's endpoint has answered nothing, and charges nothing.
_UNCHARGED = frozenset(
    {
        ErrorCode.UPSTREAM_RATE_LIMITED,
        ErrorCode.UPSTREAM_UNAVAILABLE,
        ErrorCode.UPSTREAM_REJECTED,
        ErrorCode.UPSTREAM_MISCONFIGURED,
        ErrorCode.CONTEXT_TOO_LONG,
    }
)

# The model has said all that it wanted to say; some say so by an empty word, or by one of their own.
PLAIN_ENDS = frozenset({"stop", "", None, "eos", "end_turn"})
Annotate = Callable[[Conversation, Answer], Awaitable[tuple[Annotation, ...]]]
"""What is found in an answer that is complete. It takes a bounded time, and never raises."""
Priced = Callable[[Usage | None, str | None], Usage | None]
"""``(usage, model)``: the same usage with what it cost, if that model has a price."""


def unpriced(usage: Usage | None, model: str | None) -> Usage | None:
    """No model has a price."""
    return usage


# How long to wait before an answer that nobody watches is cut, while one of its tools is at work, in seconds.
_DOUBT_PAUSE = 1.0


class AnswerBounds(Struct, frozen=True, kw_only=True):
    """Bounds of one answer."""

    answer_characters: int
    save_deadline: float  # seconds until those who watch are told that the answer cannot be stored
    reasoning_characters: int = 200_000  # so much of what the model thinks is kept
    # Somebody has to know for certain whether an end was seen: other processes say so when they have shown it to their
    # viewers, which is one more write for each.
    asks_remotely: bool = False


class _Waits(Struct, frozen=True):
    """The model has called what somebody has to agree to, or the app to answer: the answer waits, with these pieces."""

    pieces: list[Piece]


class Generation:
    """Generates `running.answer` into `channel`."""

    def __init__(
        self,
        running: Running,
        channel: Channel,
        deltas: AsyncGenerator[Delta, None],
        may_ask: "asyncio.Future[None]",
        *,
        attempts: Attempts,
        checkpointer: Checkpointer,
        annotate: Annotate,
        bounds: AnswerBounds,
        metrics: Metrics,
        model: str,
        request_id: str | None,
        priced: Priced = unpriced,
        on_left_remotely: Callable[[], None] = lambda: None,
    ) -> None:
        """`deltas` is the answer as the model writes it, who is not asked before `may_ask` is done; `request_id` names
        the request that wanted it, and `model` who was asked.

        `on_left_remotely` is called when other processes had viewers and, as far as is known, have them no more.
        """
        self.running = running
        self.answer = running.answer
        self.watched = False  # somebody watches, or did
        self.background = running.answer.background  # it finishes though nobody watches
        self.watched_remotely_until = float("-inf")  # on the loop's clock
        self._channel = channel
        self._deltas = deltas
        self._may_ask = may_ask
        self._attempts = attempts
        self._checkpointer = checkpointer
        self._annotate = annotate
        self._bounds = bounds
        self._priced = priced
        self._asked_model = model
        self._request_id = request_id
        self._log = AnswerLog(metrics, model=model, request_id=request_id)
        self._facts = {"facts": {"request": request_id, "answer": running.answer.id}}
        self._reading: asyncio.Task[Finish | _Waits] | None = None
        self._estimate: Estimate | None = None  # as long as it has not; None if no model was asked
        self._cut: Status | None = None
        self._keep: int | None = None  # how much of the text is kept when it is stopped, in code points
        self._unwatched = False  # ... because nobody watched
        self._fenced = False
        self._abandonment: asyncio.TimerHandle | None = None
        self._on_left_remotely = on_left_remotely
        self._shown_remotely = False
        self._watched_at: datetime | None = None
        self._published_to_all_until = asyncio.get_running_loop().time() + _PUBLISHED_TO_ALL_FOR
        self._stored_pieces = len(running.pieces)
        self._stored_length = running.length
        self._ahead: Sequence[Piece] = ()  # pieces that are to be stored before anybody is told
        self._fitting = Fitting(bounds.answer_characters, bounds.reasoning_characters)
        self._model = running.answer.model  # who answers, once that is known
        self._usage = running.answer.usage  # so far, of an answer that breaks off
        self._usage_before = self._usage  # when the request began that has not ended
        self._rounds = [*running.answer.rounds]  # requests that have ended
        # The position at which the current request to the model began; None once `_usage` counts it.
        self._asked_at: int | None = None

    @property
    def watched_remotely(self) -> bool:
        """Another process has viewers, as far as is known."""
        return asyncio.get_running_loop().time() < self.watched_remotely_until

    def abandon_after(self, seconds: float) -> None:
        """Cut it after so long, unless viewers come back (`keep`), or another process polls it by then."""
        self.keep()
        if seconds != math.inf:
            self._abandonment = asyncio.get_running_loop().call_later(seconds, self._abandon)

    def keep(self) -> None:
        """Somebody watches."""
        if self._abandonment is not None:
            self._abandonment.cancel()
            self._abandonment = None

    def _abandon(self) -> None:
        if self.watched_remotely:
            self.abandon_after(self.watched_remotely_until - asyncio.get_running_loop().time())
        elif any(in_doubt(self.running.pieces)):
            self.abandon_after(_DOUBT_PAUSE)  # cut now, nobody would ever know whether the call was carried out
        elif not self.background and self._cut is None:
            self.cut(Status.INTERRUPTED)

    def cut(self, status: Status, *, keep: int | None = None) -> None:
        """End it now as `STOPPED` or `INTERRUPTED`: closes the upstream request. The first reason counts.

        Of the text `keep` code points are kept, all of it without.
        """
        if self._cut is None:
            self._cut, self._keep = status, keep
            # Whoever left and comes back later has not asked for another attempt, whatever has cut this one.
            left = self._abandonment is not None and not self.watched_remotely and not self.background
            self._unwatched = status is Status.INTERRUPTED and left
            if self._reading is not None:
                self._reading.cancel()

    def prepare(self) -> None:
        """Make the model's request ready, while the beginning of the answer is being stored. Nothing is sent."""
        self._reading = asyncio.create_task(self._read())

    def discard(self) -> None:
        """It is not to be run after all."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading.add_done_callback(lambda reading: reading.cancelled() or reading.exception())

    async def run(self) -> Answer | None:
        """Generate and store; returns the answer as it is stored, None if its conversation was deleted.

        Its beginning is stored, and what came before it is published. When this returns, it has ended, or waits.
        """
        self._log.begin()
        if not self._may_ask.done():  # a request that was made ready, and cut while it waited, has cancelled it
            self._may_ask.set_result(None)
        if self._reading is None:
            self.prepare()
        assert self._reading is not None  # noqa: S101 - for the type checker
        if self._cut is not None:  # before it began
            self._reading.cancel()
        with self._checkpointer.running(self):
            outcome = await self._annotated(await self._outcome(self._reading))
        stored = await self._store(outcome)
        self._log.close(self._channel, self.running, stored)
        return stored

    async def _read(self) -> Finish | _Waits:
        async with aclosing(self._deltas) as deltas:
            async for delta in deltas:
                self._model = delta.model or self._model
                if delta.estimate is not None:
                    self._estimate, self._asked_at = delta.estimate, self.running.length
                if delta.usage is not None:
                    self._usage, self._asked_at = delta.usage, None
                if delta.round is not None:
                    self._asked_at = None
                    priced = self._priced(delta.round.usage, delta.round.model or self._asked_model)
                    self._rounds.append(replace(delta.round, usage=priced))
                    self._usage_before = self._usage
                pieces, whole = self._fitting.of(self.running.end, delta.pieces)
                if pieces and not self._may_ask.done():
                    await self._may_ask  # nobody says anything before; and if somebody did, nobody would hear of it
                if delta.waits:
                    return _Waits(pieces)
                if delta.durable:
                    await self._store_first(pieces)
                if pieces:
                    self._channel.extend(self.running, pieces)
                    if self.running.end.text and self.running.length > self._kept:
                        self._log.text_came()
                if not whole:
                    raise ModelError(ErrorCode.ANSWER_TOO_LONG, "longer than CHATSTREAM_ANSWER_CHARACTERS")
                if delta.finish is not None:
                    return delta.finish
        raise ModelError(ErrorCode.UPSTREAM_TRUNCATED, "the model's stream ended without a finish reason")

    async def _store_first(self, pieces: Sequence[Piece]) -> None:
        """Whoever reads this log after a crash must find them: nobody is told before."""
        self._ahead = pieces
        end = self.running.length + size(pieces)
        try:
            await self._checkpointer.store_now(self, lambda: self._stored_length >= end)
        except asyncio.CancelledError:
            if any(isinstance(piece, ToolResult) for piece in pieces):
                self.running.add(pieces)  # what is known is kept
            raise
        finally:
            self._ahead = ()

    async def _outcome(self, reading: "asyncio.Task[Finish | _Waits]") -> Answer:
        try:
            finish = await reading
        except asyncio.CancelledError:
            if self._cut is None and not self._fenced:
                raise  # it is this task that was cancelled
            return self._cut_short()
        except ModelError as exc:
            self._log.detail = str(exc)
            if exc.next_model is not None:
                failure = self._failure(ErrorCode.ANSWER_INTERRUPTED)
                return replace(self._ended(Status.INTERRUPTED, failure=failure), next_model=exc.next_model)
            return self._failed(exc.code, exc.retry_after)
        except StorageUnavailable:
            self._log.detail = "the history cannot be read"
            return self._failed(ErrorCode.STORAGE_UNAVAILABLE)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the answer ends, and is stored
            self._log.detail = describe(exc)
            return self._failed(ErrorCode.INTERNAL)
        if isinstance(finish, _Waits):
            return self._waiting(finish)
        return self._ended(Status.COMPLETE, finish_reason=finish.reason, usage=finish.usage)

    def _waiting(self, waits: _Waits) -> Answer:
        pieces = [*self.running.pieces, *waits.pieces]
        return replace(
            self.answer,
            status=Status.WAITING,
            usage=self._cost(self._usage_so_far(), self._rounds),
            model=self._model,
            rounds=tuple(self._rounds),
            waits_until=waits_until(pieces),
        ).made_of(pieces)

    def _cut_short(self) -> Answer:
        if self._cut is Status.STOPPED:
            return self._ended(Status.STOPPED).seen_to(self._keep)
        if any(in_doubt(self.running.pieces)):
            return self._failed(ErrorCode.TOOL_OUTCOME_UNKNOWN)
        failure = replace(self._failure(ErrorCode.ANSWER_INTERRUPTED), unwatched=self._unwatched)
        return self._ended(Status.INTERRUPTED, failure=failure)

    def _failed(self, code: ErrorCode, retry_after: float | None = None) -> Answer:
        if code in _UNCHARGED and self.running.length <= max(self._kept, self._asked_at or 0):
            self._asked_at = None  # refused, and so not charged
            self._estimate = self._estimate if self._usage is not None else None
        return self._ended(Status.FAILED, failure=self._failure(code, retry_after))

    @property
    def _kept(self) -> int:
        """The position up to which it is the text of another attempt, from which it goes on."""
        return self._estimate.begins_at if self._estimate is not None else 0

    def _failure(self, code: ErrorCode, retry_after: float | None = None) -> Failure:
        milliseconds = None if retry_after is None else round(retry_after * 1000)
        return Failure(code=code, request_id=self._request_id, retry_after_ms=milliseconds)

    def _ended(
        self,
        status: Status,
        *,
        finish_reason: str | None = None,
        usage: Usage | None = None,
        failure: Failure | None = None,
    ) -> Answer:
        rounds = (*self._rounds, *self._round_so_far())
        ended = replace(
            self.answer,
            status=status,
            finish_reason=finish_reason,
            usage=self._cost(usage or self._usage_so_far(), rounds),
            failure=failure,
            model=self._model or (self._asked_model if self._estimate is not None else None),
            rounds=rounds if len(rounds) > 1 else (),
        ).made_of(self.running.pieces)
        return settled(ended)

    def _round_so_far(self) -> list[Round]:
        """The request that has not ended, if one was made."""
        begun = self._begun_usage()
        if begun is None and self._usage == self._usage_before:
            return []
        usage = begun or since(self._usage_before, self._usage)
        model = self._model or self._asked_model
        return [Round(model=model, finish_reason=None, usage=self._priced(usage, model))]

    def _cost(self, usage: Usage | None, rounds: Sequence[Round]) -> Usage | None:
        """`usage` with what it cost: of several rounds, which different models may have had, what these did."""
        priced = self._priced(usage, self._model or self._asked_model)
        costs = [one.usage.cost_micros if one.usage is not None else UNSET for one in rounds]
        if priced is None or len(costs) < 2:
            return priced
        known = [cost for cost in costs if isinstance(cost, int)]
        return replace(priced, cost_micros=sum(known)) if len(known) == len(costs) else priced

    def _usage_so_far(self) -> Usage | None:
        """Of all that was generated, also where less of it is kept. None if no model was asked, or it refused."""
        begun = self._begun_usage()
        if self._estimate is None or (self._usage is not None and begun is None):
            return self._usage
        if self._usage is not None:
            return added(self._usage, begun)
        return estimated(self._estimate, self.running.pieces)

    def _begun_usage(self) -> Usage | None:
        """What the current request to the model has used so far; None once `_usage` counts it."""
        if self._estimate is None or self._asked_at is None:
            return None
        begins_at = max(self._asked_at, self._estimate.begins_at)
        return estimated(self._estimate._replace(begins_at=begins_at), self.running.pieces)

    async def _annotated(self, outcome: Answer) -> Answer:
        # Half an answer may lack the half that matters.
        if outcome.status is not Status.COMPLETE or outcome.finish_reason not in PLAIN_ENDS or self._fenced:
            return outcome
        found = await self._annotate(self._channel.conversation, outcome)
        return replace(outcome, annotations=tuple(sorted(found, key=lambda one: one.kind != RECOMMENDATION)))

    async def _store(self, outcome: Answer) -> Answer | None:
        """Store the end, however often that takes: it is not published before."""
        deadline = asyncio.get_running_loop().time() + self._bounds.save_deadline
        pause = _SAVE_PAUSE
        while True:
            try:
                if outcome.next_model is not None and self._cut is not None:  # meanwhile: nobody wants the next one
                    outcome = self._cut_short()
                if outcome.status is Status.WAITING and self._cut is Status.STOPPED:
                    outcome = self._cut_short()
                if outcome.begins_again and outcome.next_model is None:
                    outcome = await self._failed_if_too_often(outcome)
                unseen = not self._channel.readers and (self._bounds.asks_remotely or not self.watched_remotely)
                store = self._attempts.park if outcome.status is Status.WAITING else self._attempts.finish
                return await store(self._channel.conversation, replace(outcome, unseen=unseen))
            except StorageUnavailable:
                log.warning("the answer cannot be stored yet", extra=self._facts)
            if asyncio.get_running_loop().time() >= deadline:
                deadline = float("inf")  # said once; the text is kept, and stored when the database is back
                self._channel.append(Notice(ErrorCode.STORAGE_UNAVAILABLE, request_id=self._request_id))
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
            pause = min(2 * pause, _SAVE_PAUSE_LIMIT)

    async def _failed_if_too_often(self, outcome: Answer) -> Answer:
        before = await self._attempts.interruptions(self._channel.conversation.key, outcome.reply_to)
        return settled(replace(outcome, status=Status.FAILED)) if before + 1 >= MAX_INTERRUPTIONS else outcome

    def checkpoint(self) -> Checkpoint:
        """What has come since the last one that is known to be stored."""
        beyond = max(0, self._stored_pieces - len(self.running.pieces))
        pieces = join([*self.running.pieces[self._stored_pieces :], *self._ahead[beyond:]])
        published = self.watched_remotely or asyncio.get_running_loop().time() < self._published_to_all_until
        return Checkpoint(self._channel.conversation.key, self.answer.id, self._stored_length, pieces, published)

    def checkpointed(self, result: CheckpointResult | None) -> None:
        """Our checkpoint was stored; or an earlier one was, whose result was lost; or we are fenced off."""
        if result is None or not self._go_on_behind(result.length):
            log.warning("the answer was ended by somebody else", extra=self._facts)
            self._fenced = True
            if self._reading is not None:
                self._reading.cancel()
            return
        if result.stop_requested:
            self.cut(Status.STOPPED, keep=result.stop_at)
        self.background = result.background
        if result.polled_at != self._watched_at:  # compared with itself only: clocks differ
            self._watched_at = result.polled_at
            self.watched = self._shown_remotely = True
            self.watched_remotely_until = asyncio.get_running_loop().time() + _WATCHED_REMOTELY_FOR
        elif self._shown_remotely and not self.watched_remotely:
            self._shown_remotely = False
            self._on_left_remotely()

    def _go_on_behind(self, length: int) -> bool:
        """It is stored up to position `length`. False if no piece of ours ends there: somebody else stored that."""
        if length < self._stored_length:  # the database has lost some; we have them still
            self._stored_pieces = self._stored_length = 0
        ours = len(self.running.pieces)
        while self._stored_length < length and self._stored_pieces < ours + len(self._ahead):
            at = self._stored_pieces
            self._stored_length += size([self.running.pieces[at] if at < ours else self._ahead[at - ours]])
            self._stored_pieces += 1
        return self._stored_length == length
