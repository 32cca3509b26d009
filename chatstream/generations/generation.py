"""A running answer: reads the model's deltas, makes checkpoints, and stores the end before it is published.

It never waits for viewers. If the database is down, the text stays in memory until it can be stored.
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
from chatstream.llm.model import Delta, Estimate, Finish, Tell
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
# Seconds between tries to store an answer's end. The first retry is quick, for a short outage; the pause then doubles
# up to the limit, so that a recovering database is not flooded.
_SAVE_PAUSE = 0.2
_SAVE_PAUSE_LIMIT = 5.0
# The most interrupted attempts at one user message; the next interruption counts as failed. Otherwise a question that
# crashes the process would call the model for ever.
MAX_INTERRUPTIONS = 3


# Error codes that mean the model's endpoint returned nothing, and so charges nothing.
_UNCHARGED = frozenset(
    {
        ErrorCode.UPSTREAM_RATE_LIMITED,
        ErrorCode.UPSTREAM_UNAVAILABLE,
        ErrorCode.UPSTREAM_REJECTED,
        ErrorCode.UPSTREAM_MISCONFIGURED,
        ErrorCode.CONTEXT_TOO_LONG,
    }
)

# Finish reasons that mean a normal end. Some endpoints send an empty string, null or a reason of their own.
PLAIN_ENDS = frozenset({"stop", "", None, "eos", "end_turn"})
Annotate = Callable[[Conversation, Answer], Awaitable[tuple[Annotation, ...]]]
"""What is found in an answer that is complete. It takes a bounded time, and never raises."""
Priced = Callable[[Usage | None, str | None], Usage | None]
"""``(usage, model)``: returns the usage with its cost added, if the model has a price."""


def unpriced(usage: Usage | None, model: str | None) -> Usage | None:
    """The `Priced` function for servers without prices: returns `usage` unchanged."""
    return usage


# Seconds to wait before an unwatched answer is cut while one of its tools is running.
_DOUBT_PAUSE = 1.0


class AnswerBounds(Struct, frozen=True, kw_only=True):
    """Limits of one answer."""

    answer_characters: int
    save_deadline: float  # seconds until viewers are sent a notice that the answer cannot be stored
    reasoning_characters: int = 200_000  # the most code points of reasoning that are kept
    # Store for certain whether an answer's end was seen. Other processes then record that they have shown it to their
    # viewers, which costs each of them one more write.
    asks_remotely: bool = False


class _Waits(Struct, frozen=True):
    """The model has called tools that need a person's approval or the app's answer. The answer waits, with these
    pieces."""

    pieces: Sequence[Piece]


class Generation:
    """Generates `running.answer`, publishes it in `channel` and stores it."""

    def __init__(
        self,
        running: Running,
        channel: Channel,
        write: Callable[[Tell], AsyncGenerator[Delta, None]],
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
        """`write` gives the model's output; the model is not asked before `may_ask` is done. `request_id` is the id of
        the request that wanted the answer; `model` is the name of the model that is asked.

        `on_left_remotely` is called when other processes had viewers and, as far as is known, have none now.
        """
        self.running = running
        self.answer = running.answer
        self.watched = False  # somebody watches or has watched
        self.background = running.answer.background  # the answer finishes even if nobody watches
        self.watched_remotely_until = float("-inf")  # a time on the event loop's clock
        self._channel = channel
        self._deltas = write(self.tell)
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
        self._estimate: Estimate | None = None  # of the newest request to the model; None if no model was asked
        self._cut: Status | None = None
        self._keep: int | None = None  # code points of text to keep when the answer is stopped
        self._unwatched = False  # the answer was cut because nobody watched
        self._fenced = False
        self._abandonment: asyncio.TimerHandle | None = None
        self._on_left_remotely = on_left_remotely
        self._shown_remotely = False
        self._watched_at: datetime | None = None
        self._published_to_all_until = asyncio.get_running_loop().time() + _PUBLISHED_TO_ALL_FOR
        self._stored_pieces = len(running.pieces)
        self._stored_length = running.length
        self._ahead: Sequence[Piece] = ()  # pieces that must be stored before they are published
        self._fitting = Fitting(bounds.answer_characters, bounds.reasoning_characters)
        self._model = running.answer.model  # the answering model, once it is known
        self._usage = running.answer.usage  # the usage so far, also of an answer that breaks off
        self._usage_before = self._usage  # the usage when the current request to the model began
        self._rounds = [*running.answer.rounds]  # finished requests to the model
        # The position at which the current request to the model began; None once `_usage` counts it.
        self._asked_at: int | None = None

    @property
    def watched_remotely(self) -> bool:
        """Whether another process has viewers, as far as is known."""
        return asyncio.get_running_loop().time() < self.watched_remotely_until

    def abandon_after(self, seconds: float) -> None:
        """Cut the answer after `seconds`, unless viewers come back (`keep`) or another process polls it before then."""
        self.keep()
        if seconds != math.inf:
            self._abandonment = asyncio.get_running_loop().call_later(seconds, self._abandon)

    def keep(self) -> None:
        """Cancel `abandon_after`: somebody watches."""
        if self._abandonment is not None:
            self._abandonment.cancel()
            self._abandonment = None

    def _abandon(self) -> None:
        if self.watched_remotely:
            self.abandon_after(self.watched_remotely_until - asyncio.get_running_loop().time())
        elif any(in_doubt(self.running.pieces)):
            self.abandon_after(_DOUBT_PAUSE)  # if cut now, nobody would ever know whether the call was carried out
        elif not self.background and self._cut is None:
            self.cut(Status.INTERRUPTED)

    def cut(self, status: Status, *, keep: int | None = None) -> None:
        """End the answer now as `STOPPED` or `INTERRUPTED`, and close the upstream request. Only the first call counts.

        The first `keep` code points of the text are kept; None keeps all.
        """
        if self._cut is None:
            self._cut, self._keep = status, keep
            # A viewer that left and comes back later has not asked for another attempt, whatever cut this one.
            left = self._abandonment is not None and not self.watched_remotely and not self.background
            self._unwatched = status is Status.INTERRUPTED and left
            if self._reading is not None:
                self._reading.cancel()

    def prepare(self) -> None:
        """Prepare the model's request while the answer's beginning is being stored. Nothing is sent."""
        self._reading = asyncio.create_task(self._read())

    def discard(self) -> None:
        """Cancel a prepared answer that will not run."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading.add_done_callback(lambda reading: reading.cancelled() or reading.exception())

    async def run(self) -> Answer | None:
        """Generate and store the answer. Returns it as stored, or None if its conversation was deleted.

        Call it when the answer's beginning is stored and everything before it is published. When it returns, the answer
        has ended or waits.
        """
        self._log.begin()
        if not self._may_ask.done():  # a prepared request that was cut while it waited has cancelled this future
            self._may_ask.set_result(None)
        if self._reading is None:
            self.prepare()
        assert self._reading is not None  # noqa: S101 - for the type checker
        if self._cut is not None:  # cut before it began
            self._reading.cancel()
        with self._checkpointer.running(self):
            outcome = await self._annotated(await self._outcome(self._reading))
        stored = await self._store(outcome)
        self._log.close(self._channel, self.running, stored)
        return stored

    def tell(self, pieces: Sequence[Piece]) -> bool:
        """Publish `pieces` if they are nothing but more text; returns whether they are. Called while `_read` waits for
        the next delta."""
        if self._log.first_text is None or not self._fitting.fits(self.running.end, pieces):
            return False
        self._channel.extend(self.running, pieces)
        return True

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
                    await self._may_ask  # no output may come before this; if some did, no viewer would get it
                if delta.waits:
                    return _Waits(pieces)
                if delta.durable:
                    await self._store_first(pieces)
                if pieces:
                    self._channel.extend(self.running, pieces)
                    if self._log.first_text is None and self.running.end.text and self.running.length > self._kept:
                        self._log.text_came()
                if not whole:
                    raise ModelError(ErrorCode.ANSWER_TOO_LONG, "longer than CHATSTREAM_ANSWER_CHARACTERS")
                if delta.finish is not None:
                    return delta.finish
        raise ModelError(ErrorCode.UPSTREAM_TRUNCATED, "the model's stream ended without a finish reason")

    async def _store_first(self, pieces: Sequence[Piece]) -> None:
        """Store `pieces` before they are published: the log must have them after a crash."""
        self._ahead = pieces
        end = self.running.length + size(pieces)
        try:
            await self._checkpointer.store_now(self, lambda: self._stored_length >= end)
        except asyncio.CancelledError:
            if any(isinstance(piece, ToolResult) for piece in pieces):
                self.running.add(pieces)  # keep known results of tools
            raise
        finally:
            self._ahead = ()

    async def _outcome(self, reading: "asyncio.Task[Finish | _Waits]") -> Answer:
        try:
            finish = await reading
        except asyncio.CancelledError:
            if self._cut is None and not self._fenced:
                raise  # this task itself was cancelled
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
        except Exception as exc:  # noqa: BLE001 - after any error, the answer must end and be stored
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
            self._asked_at = None  # the request was refused, so it is not charged
            self._estimate = self._estimate if self._usage is not None else None
        return self._ended(Status.FAILED, failure=self._failure(code, retry_after))

    @property
    def _kept(self) -> int:
        """The position in `running` up to which the text comes from the attempt that this one continues."""
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
            model=self._model or (self._asked_model if self._estimate and self._estimate.of_model else None),
            rounds=rounds if len(rounds) > 1 else (),
        ).made_of(self.running.pieces)
        return settled(ended)

    def _round_so_far(self) -> list[Round]:
        """Return the current request to the model as a round, if one was made."""
        begun = self._begun_usage()
        if begun is None and self._usage == self._usage_before:
            return []
        usage = begun or since(self._usage_before, self._usage)
        model = self._model or self._asked_model
        return [Round(model=model, finish_reason=None, usage=self._priced(usage, model))]

    def _cost(self, usage: Usage | None, rounds: Sequence[Round]) -> Usage | None:
        """Return `usage` with its cost. With several rounds, perhaps by different models, the cost is the sum of
        theirs. A round of a model without a price costs nothing."""
        priced = self._priced(usage, self._model or self._asked_model)
        costs = [one.usage.cost_micros if one.usage is not None else UNSET for one in rounds]
        if priced is None or len(costs) < 2:
            return priced
        known = [cost for cost in costs if isinstance(cost, int)]
        return replace(priced, cost_micros=sum(known) if known else UNSET)

    def _usage_so_far(self) -> Usage | None:
        """Return the usage of all generated text, even if less of it is kept. None if no model was asked, or it
        refused."""
        begun = self._begun_usage()
        if self._estimate is None or (self._usage is not None and begun is None):
            return self._usage
        if self._usage is not None:
            return added(self._usage, begun)
        return estimated(self._estimate, self.running.pieces)

    def _begun_usage(self) -> Usage | None:
        """Return the estimated usage of the current request to the model; None once `_usage` counts it."""
        if self._estimate is None or self._asked_at is None:
            return None
        begins_at = max(self._asked_at, self._estimate.begins_at)
        return estimated(self._estimate._replace(begins_at=begins_at), self.running.pieces)

    async def _annotated(self, outcome: Answer) -> Answer:
        # An incomplete answer may lack the half that matters, so plug-ins do not annotate it.
        if outcome.status is not Status.COMPLETE or outcome.finish_reason not in PLAIN_ENDS or self._fenced:
            return outcome
        found = await self._annotate(self._channel.conversation, outcome)
        return replace(outcome, annotations=tuple(sorted(found, key=lambda one: one.kind != RECOMMENDATION)))

    async def _store(self, outcome: Answer) -> Answer | None:
        """Store the answer's end, retrying until it succeeds: the end is not published before."""
        deadline = asyncio.get_running_loop().time() + self._bounds.save_deadline
        pause = _SAVE_PAUSE
        while True:
            try:
                if outcome.next_model is not None and self._cut is not None:  # no next model for a cut answer
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
                deadline = float("inf")  # the notice is sent once; the text is stored when the database is back
                self._channel.append(Notice(ErrorCode.STORAGE_UNAVAILABLE, request_id=self._request_id))
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
            pause = min(2 * pause, _SAVE_PAUSE_LIMIT)

    async def _failed_if_too_often(self, outcome: Answer) -> Answer:
        before = await self._attempts.interruptions(self._channel.conversation.key, outcome.reply_to)
        return settled(replace(outcome, status=Status.FAILED)) if before + 1 >= MAX_INTERRUPTIONS else outcome

    def checkpoint(self) -> Checkpoint:
        """Return the pieces that are not yet known to be stored, as a checkpoint."""
        beyond = max(0, self._stored_pieces - len(self.running.pieces))
        pieces = join([*self.running.pieces[self._stored_pieces :], *self._ahead[beyond:]])
        published = self.watched_remotely or asyncio.get_running_loop().time() < self._published_to_all_until
        return Checkpoint(self._channel.conversation.key, self.answer.id, self._stored_length, pieces, published)

    def checkpointed(self, result: CheckpointResult | None) -> None:
        """Handle the result of a checkpoint. The store may have this one, only an earlier one whose result was lost, or
        None: another process has ended the answer."""
        if result is None or not self._go_on_behind(result.length):
            log.warning("the answer was ended by somebody else", extra=self._facts)
            self._fenced = True
            if self._reading is not None:
                self._reading.cancel()
            return
        if result.stop_requested:
            self.cut(Status.STOPPED, keep=result.stop_at)
        self.background = result.background
        if result.polled_at != self._watched_at:  # compared only for equality: processes' clocks differ
            self._watched_at = result.polled_at
            self.watched = self._shown_remotely = True
            self.watched_remotely_until = asyncio.get_running_loop().time() + _WATCHED_REMOTELY_FOR
        elif self._shown_remotely and not self.watched_remotely:
            self._shown_remotely = False
            self._on_left_remotely()

    def _go_on_behind(self, length: int) -> bool:
        """Record that the answer is stored up to position `length`. Returns False if no piece of this process ends
        there: then another process has stored it."""
        if length < self._stored_length:  # the database has lost some checkpoints; they are still in memory
            self._stored_pieces = self._stored_length = 0
        ours = len(self.running.pieces)
        while self._stored_length < length and self._stored_pieces < ours + len(self._ahead):
            at = self._stored_pieces
            piece = self.running.pieces[at] if at < ours else self._ahead[at - ours]
            self._stored_length += len(piece) if isinstance(piece, str) else 1
            self._stored_pieces += 1
        return self._stored_length == length
