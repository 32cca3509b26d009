"""The room of a conversation: what this process knows of its log, its viewers, and where its answer runs.

Everything that happens to the conversation goes through its room, in order. Steps that use the store hold the room's
lock; every other step is synchronous. Rooms never wait for each other.

========  ===================================================================  ===========
State     Event                                                                Next state
========  ===================================================================  ===========
Idle      an answer begins here: earlier messages are published first          Local
Idle      a read finds an answer that runs in another process, or waits        Remote, Waiting
Local     the answer's end is stored and published                             Idle
Local     the store has it as waiting for a decision                           Waiting
Remote    a read or a change shows that the answer waits                       Waiting
Waiting   this process takes the decision and continues the answer             Local
Waiting   a read or a change shows that another process continues the answer   Remote
Waiting   the answer's end is read from the store and published                Idle
Remote    the answer's end is read from the store and published                Idle
Remote    an answer begins here: the end of the remote one is published first  Idle, Local
Remote    the remote answer is the one that begins here                        Local
Remote    the remote answer cannot be read any more: the streams are ended     Idle
any       no viewer, no answer of this process, no work in progress            Closed
========  ===================================================================  ===========

A closed room is never used again: later changes for it are ignored.

The room publishes what other processes stored from the store, not from the change stream. A change is published
directly only if it follows exactly on the log. Any other change only says that the store has something after the log's
last place, which is then read (`_catch_up`). So a change may come late, twice, out of order or not at all: nothing is
lost and nothing is published twice.
"""

import asyncio
import contextlib
import logging
import math
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from chatstream import events
from chatstream.errors import AnswerInProgress, ErrorCode, NotFound, OverBudget, StorageUnavailable, Unavailable
from chatstream.events import Cursor
from chatstream.formats.format import Format
from chatstream.generations.budgets import Budgets
from chatstream.generations.channel import Channel, Running
from chatstream.generations.checkpointer import Checkpointer
from chatstream.generations.entries import END, Aside, Chunks, Posted, Skip
from chatstream.generations.follower import Follower
from chatstream.generations.generation import Annotate, AnswerBounds, Generation, Priced
from chatstream.generations.replay import PendingQuestion, Replay, in_progress, log_entries, pending_question, read
from chatstream.limits import Answers, Slot
from chatstream.llm.model import Delta, Tell
from chatstream.logs import describe
from chatstream.metrics import Metrics
from chatstream.models import Answer, Conversation, Message, Rating, Status, UserMessage
from chatstream.pieces import BEGINNING, Piece, cut, join, size
from chatstream.store.attempts import Attempts
from chatstream.store.changes import Appended, Change, Deleted, Ended, HeadMoved, Rated, Stored, Titled, Withdrawn
from chatstream.store.reading import Reading, Shown

log = logging.getLogger("chatstream.generations")

# Seconds between two polls of an answer that another process generates. That process waits for two polls before it
# decides that nobody watches.
_POLL_INTERVAL = 5.0
# Poll again after 2 s: the generating process starts publishing only once it has seen our first poll, and what it
# stored before is not published.
_SECOND_POLL = 2.0
# Seconds before the store is read again after it did not respond, or after another process changed it first.
_RETRY_PAUSE = 1.0
# The most missed messages that are published to the open streams. If more were missed, the streams are closed and the
# clients read the rest when they reconnect with their cursors.
_PAGE = 20
# How often a joining reader reads the store again because the answer it read was older than the log. Even one retry is
# rare.
_JOIN_TRIES = 5

# Writes an answer. Arguments: the conversation; the answer; the question, or None to read it from the store; a future
# that must be done before the model, a plug-in or a tool is asked; a function that may be told text (see `Model`).
WriteAnswer = Callable[
    [Conversation, Answer, UserMessage | None, "asyncio.Future[None]", Tell], AsyncGenerator[Delta, None]
]
# Called after an answer has ended and its end is stored. Must return at once.
Answered = Callable[[Conversation, Answer], None]


class Config(Struct, frozen=True, kw_only=True):
    """Durations in seconds."""

    heartbeat_interval: float
    disconnect_grace: float  # may be infinite: then an answer always finishes
    connection_timeout: float
    connection_bytes: int
    bounds: AnswerBounds
    model: str  # the model in the log line, for conversations that name none


class Services(Struct, kw_only=True):
    """The objects that all rooms of a process share."""

    attempts: Attempts
    reading: Reading
    checkpointer: Checkpointer
    write_answer: WriteAnswer
    annotate: Annotate
    priced: Priced
    budgets: Budgets
    answered: Answered
    metrics: Metrics
    config: Config
    answers: Answers
    reads: asyncio.Semaphore  # limits how many rooms read missed messages at the same time
    remote: dict[str, "Room"]  # by answer id: the room that follows a remote or waiting answer
    draining: bool = False  # the process is shutting down: no new answer begins


class Idle(Struct, frozen=True):
    """No answer runs, as far as this process knows."""


class Local(Struct, frozen=True):
    """An answer is generated in this process."""

    generation: Generation


class Remote(Struct):
    """Another process generates an answer. It is polled next at `poll_at`, on the event loop's clock."""

    running: Running
    poll_at: float
    interval: float = _SECOND_POLL


class Waiting(Struct):
    """An answer waits for a decision: no process generates it. The process that takes the decision continues the
    answer.

    The change stream reports the decision. The room polls, as in `Remote`, only where it may have missed a change.
    """

    running: Running
    poll_at: float = math.inf
    interval: float = math.inf


class Closed(Struct, frozen=True):
    """The final state: a closed room is never used again."""


class Room:
    """The state of one conversation in this process. Created for the first viewer or answer; closed when neither is
    left."""

    def __init__(self, conversation: Conversation, services: Services, on_close: Callable[["Room"], None]) -> None:
        self.key = conversation.key
        self.channel = Channel(conversation)
        self.shown = Shown(conversation.head, conversation.title)  # as published, or as it was before the first viewer
        self._services = services
        self._on_close = on_close
        self._lock = asyncio.Lock()
        self._state: Idle | Local | Remote | Waiting | Closed = Idle()
        self._generation: Generation | None = None  # the newest; it may wait for the end of the one before
        self._task: asyncio.Task[None] | None = None  # runs `_generation`
        self._working: asyncio.Task[None] | None = None  # reads what other processes stored
        self._catch_up_at = math.inf  # when to read the store, on the loop's clock; infinite if nothing is missing
        self._in_turn = 0  # how many coroutines use the lock or wait for it, besides `_task` and `_working`
        self._deleted = False

    @property
    def generation(self) -> Generation | None:
        """The newest answer of this process, from when it is accepted until its end is published."""
        return self._generation

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """The task that runs `generation`. It is done when the end of `generation` is published."""
        return self._task

    @property
    def last_seq(self) -> int:
        """The `seq` of the newest message that the log has, at least in part. Later ones are queued, or missed."""
        running = self.channel.running
        return running.answer.seq if running is not None else self.channel.next_seq - 1

    # Viewers ----------------------------------------------------------------------------------------------------------

    def arrived(self) -> None:
        """Record that a viewer has registered in the channel."""
        if self._generation is not None:
            self._generation.watched = True
            self._generation.keep()

    async def join(
        self,
        follower: Follower,
        cursor: Cursor | None,
        wire: Format,
        *,
        accepted: bool,
        newest: Sequence[Message] | None = None,
    ) -> Replay:
        """Read what comes after a viewer's cursor, and set the viewer's position in the log.

        `accepted`: the viewer's answer was accepted before, so no limit is checked. `newest`: the newest messages, if
        they are already read and nothing has happened since. Raises `StorageUnavailable`; also `TooManyRequests` or
        `Unavailable` if an answer would begin that is not allowed now.
        """
        registered_at = self.channel.last_place
        if (begun := self.channel.running) is not None:  # the log may lack the text that the answer has so far
            registered_at = max(registered_at, (begun.answer.seq, begun.length))
        for again in range(_JOIN_TRIES):
            replay = self._in_progress(cursor)
            if replay is None:
                published = self.channel.last_place
                before = await self._services.reading.newest_seqs([self.key]) if again else {}
                replay = await read(self._services.reading, self.key, cursor, wire, newest)
                newest = None  # if these were too old, the next try reads them from the store
                if self.key in before:
                    replay = replay.reaching(before[self.key], self.channel.running)
                if again == _JOIN_TRIES - 1:  # not sooner: after a failover, a read may not have the end yet
                    replay = replay.with_ended(published)
                # No await from here on: the replay and the position in the log must match.
                running = self.channel.running
                if running is not None and replay.running is not None and replay.running.id == running.answer.id:
                    replay = replay.with_pieces(running)
            if self._deleted:
                follower.end(ErrorCode.CONVERSATION_DELETED)
            # Text before both places is in no log entry that this reader gets, so the replay must contain it.
            if follower.over or replay.place >= max(registered_at, self.channel.first_place):
                break
        else:
            raise StorageUnavailable
        if replay.pending is not None and not accepted and not follower.over:
            self._services.answers.check(self.channel.conversation.user_id)
            self._services.budgets.check(self.channel.conversation.user_id)
        follower.join(replay)
        if not follower.over:
            self._joined(replay)
        return replay

    def _in_progress(self, cursor: Cursor | None) -> Replay | None:
        running = self.channel.running
        return in_progress(running, cursor) if running is not None and self.channel.begun else None

    def _joined(self, replay: Replay) -> None:
        """Update the room if the viewer's read returned newer data than the log has."""
        answer, known = replay.running or replay.running_before, self.channel.running
        if answer is not None and known is not None and known.answer.id == answer.id:
            return
        if not self.channel.begun:
            self.channel.begin_at((answer.seq, answer.length) if answer is not None else replay.place)
            if answer is not None and not self._generates(answer):
                self._attach(answer)
            self._start_work()  # for changes that arrived during the read
        elif replay.place > self.channel.last_place:
            self._is_behind()

    def let_finish(self, *, background: bool) -> None:
        """Set whether the answer that is generated here finishes even if nobody watches."""
        if self._generation is not None:
            self._generation.background = background

    def left(self) -> None:
        """Record that a viewer has left, in this process or in another one."""
        generation = self._generation
        if not self.channel.readers and generation is not None and generation.watched:
            generation.abandon_after(self._services.config.disconnect_grace)
        self._release()

    def end_viewers(self, code: ErrorCode | None = None, *, reason: str | None = None) -> None:
        """End all streams of the conversation."""
        for reader in list(self.channel.readers):
            reader.end(code, reason=reason)

    def head_moved(self, head: str | None) -> None:
        """Publish that the conversation now shows the branch that ends at `head`. The store already has it."""
        if head is not None:
            self.channel.conversation = replace(self.channel.conversation, head=head)
            self.shown = self.shown._replace(head=head)
            self.channel.append(Aside(events.BranchShown(timestamp=events.timestamp(), head=head)))

    def rated(self, answer_id: str, rating: Rating | None) -> None:
        """Publish the new rating of an attempt. The store already has it."""
        self.channel.append(Aside(events.Rated(timestamp=events.timestamp(), message_id=answer_id, rating=rating)))

    def withdrawn(self, message_id: str) -> None:
        """Publish that a queued user message was taken back. The store already has it."""
        self.channel.append(Aside(events.Withdrawn(timestamp=events.timestamp(), message_id=message_id)))

    def titled(self, title: str | None) -> None:
        """Publish the conversation's new title. The store already has it."""
        self.channel.conversation = replace(self.channel.conversation, title=title)
        self.shown = self.shown._replace(title=title)
        self.channel.append(Aside(events.Titled(timestamp=events.timestamp(), title=title)))

    def delete(self) -> None:
        """Handle the deletion of the conversation: end its answer and its streams."""
        self._deleted = True
        self._catch_up_at = math.inf
        if self._generation is not None:
            self._generation.cut(Status.STOPPED)
        if isinstance(self._state, Remote | Waiting):
            self._enter(Idle())
        self.end_viewers(ErrorCode.CONVERSATION_DELETED)

    # Answers of this process ------------------------------------------------------------------------------------------

    def generate(
        self,
        conversation: Conversation,
        answer: Answer,
        request_id: str | None,
        *,
        message: UserMessage | None = None,
        question: UserMessage | None = None,
        prepared: Generation | None = None,
    ) -> None:
        """Generate an answer that was just begun in the store.

        `message`: the question, if it was stored together with the answer. `question`: the question, if it was stored
        earlier and is known. `prepared`: the `Generation`, if `_made` has already made it from these arguments.
        """
        if self._generates(answer):
            return  # a repeated request was faster
        self._generate(conversation, answer, request_id or _nobodys_request(), message, question, prepared)

    def go_on(self, conversation: Conversation, answer: Answer, request_id: str | None) -> None:
        """Continue an answer that has waited. This process has just become its owner in the store."""
        if isinstance(self._state, Waiting) and self._follows(answer.id):
            self._state.running.answer = answer  # a viewer that joins now must not see it as waiting
        self._generate(conversation, answer, request_id or _nobodys_request(), None, None, None)

    def _generate(
        self,
        conversation: Conversation,
        answer: Answer,
        request_id: str,
        message: UserMessage | None,
        question: UserMessage | None,
        prepared: Generation | None,
    ) -> None:
        services = self._services
        self.channel.conversation = conversation
        generation = prepared or self._made(conversation, answer, request_id, message or question)
        generation.watched = bool(self.channel.readers)
        if answer.model is not None and not self.channel.readers and self._generation and self._generation.watched:
            generation.watched = True  # it replaces an attempt that somebody watched; that viewer may reconnect
            generation.abandon_after(services.config.disconnect_grace)
        slot = services.answers.grant(conversation.user_id)
        self._task = asyncio.create_task(self._run(generation, slot, message, self._task, request_id))
        self._generation = generation

    def _made(
        self, conversation: Conversation, answer: Answer, request_id: str, question: UserMessage | None
    ) -> Generation:
        services, may_ask = self._services, asyncio.get_running_loop().create_future()
        return Generation(
            Running(answer, answer.pieces),
            self.channel,
            partial(services.write_answer, conversation, answer, question, may_ask),
            may_ask,
            attempts=services.attempts,
            checkpointer=services.checkpointer,
            annotate=services.annotate,
            bounds=services.config.bounds,
            metrics=services.metrics,
            model=conversation.model or services.config.model,
            request_id=request_id,
            priced=services.priced,
            on_left_remotely=self.left,
        )

    async def answer(self, pending: PendingQuestion, request_id: str | None) -> None:
        """Begin the answer to a pending question, unless another process already has.

        Raises `OverBudget`, `StorageUnavailable`, `Unavailable`.
        """
        async with self._turn():
            await self._answer(pending, request_id)

    async def stop(self, message_id: str | None, timeout: float, keep: int | None) -> str | None:
        """Stop the answer that is generated here, if `message_id` is its id or None. Returns the id of the stopped
        answer.

        The first `keep` code points of its text are kept; None keeps all.

        Raises `StorageUnavailable` if its end is not stored within `timeout` seconds.
        """
        generation, task = self._generation, self._task
        if generation is None or task is None or message_id not in (None, generation.answer.id):
            return None
        generation.cut(Status.STOPPED, keep=keep)
        await asyncio.wait([task], timeout=timeout)
        if not task.done():
            raise StorageUnavailable
        return generation.answer.id

    async def _run(
        self,
        generation: Generation,
        slot: Slot,
        message: UserMessage | None,
        before: "asyncio.Task[None] | None",
        request_id: str,
    ) -> None:
        try:
            try:
                if before is not None:
                    # The end of the answer before is stored, or this one could not have begun; but it may not be
                    # published yet.
                    await asyncio.wait([before])
                async with self._lock:
                    await self._begin(generation, message)
                stored = await generation.run()
            finally:
                generation.keep()
                slot.release()
            async with self._lock:
                await self._local_ended(stored, request_id)
            if stored is not None and stored.status.is_final:
                self._services.answered(self.channel.conversation, stored)
        except Exception as exc:  # noqa: BLE001 - the attempt stays `streaming` in the store until the sweeper finds it
            facts = {"request": request_id, "answer": generation.answer.id}
            log.error("the answer is lost: %s", describe(exc), extra={"facts": facts})
            self._enter(Idle())
            self.end_viewers(ErrorCode.INTERNAL)
        finally:
            if self._generation is generation:
                self._generation = self._task = None
            self._start_work()  # for changes that arrived meanwhile
            self._release()

    async def _begin(self, generation: Generation, message: UserMessage | None) -> None:
        before = (message or generation.answer).seq
        if not self.channel.begun:
            self.channel.begin_at((before - 1, END))  # readers that are joining have read at least up to here
        elif self._follows(generation.answer.id):
            pass  # the answer has waited; or a viewer found it in the store before its request got the result
        elif self.channel.readers and self.channel.next_seq != before:
            try:
                await self._publish_missed(before)
            except StorageUnavailable:
                self.end_viewers(ErrorCode.STORAGE_UNAVAILABLE)  # clients reconnect with their cursors
        if message is not None:
            self.channel.append(Posted(message))
        if generation.running.pieces:  # from the previous attempt, or from before the answer waited
            # A copy, since an entry is encoded when it is read: `running.pieces` may have grown by then.
            begun = Chunks(generation.answer, [*generation.running.pieces], BEGINNING)
            self.channel.append(begun.after(self.channel.last_place))
        self.channel.append(Skip((generation.answer.seq, 0)))
        self._enter(Local(generation))
        generation.watched = generation.watched or bool(self.channel.readers)

    async def _local_ended(self, stored: Answer | None, request_id: str) -> None:
        """Publish the end of the local answer, or that it waits. `stored` is None if the conversation was deleted."""
        if stored is None:
            self._enter(Idle())
            self.delete()
            return
        if stored.status is Status.WAITING:
            self._tell_rest(stored)
            self._enter(Waiting(Running(stored, stored.pieces)))
            if stored.unseen and self.channel.readers:
                await self._mark_seen()
            return
        if stored.unseen and self.channel.readers:  # the viewers came while the end was being stored
            await self._mark_seen()
        self._tell_rest(stored)
        self.channel.finish(stored)
        self._enter(Idle())
        if self._services.draining:
            return
        cut = stored.begins_again and (self.channel.readers or stored.next_model is not None)
        if stored.queued or cut or self._catch_up_at < math.inf:
            try:
                await self._catch_up(stored, request_id)
            except StorageUnavailable:
                self.end_viewers(ErrorCode.STORAGE_UNAVAILABLE)  # clients reconnect with their cursors

    def _tell_rest(self, stored: Answer) -> None:
        """Publish the pieces that were stored together with the answer's end (the ends of its calls) or with its wait
        (the decisions it needs)."""
        running = self.channel.running
        if running is not None and stored.mixed and stored.length > running.length:
            begun = cut(stored.mixed, 0, running.length)
            if begun == join(running.pieces):
                if waits := stored.status is Status.WAITING:
                    running.answer = stored
                self.channel.extend(running, cut(stored.mixed, running.length), waits=waits)

    async def _answer(self, pending: PendingQuestion, request_id: str | None) -> None:
        budgets = self._services.budgets
        question = pending.question.content if pending.question is not None else ""
        spending = await budgets.spending(self.channel.conversation, question)
        conversation, request_id = self.channel.conversation, request_id or _nobodys_request()
        prepared: Generation | None = None

        def prepare(answer: Answer) -> None:
            nonlocal prepared
            prepared = self._made(conversation, answer, request_id, pending.question)
            prepared.prepare()

        try:
            with budgets.remembering(self.channel.conversation.user_id):
                answer = await self._services.attempts.begin(
                    self.key,
                    pending.message_id,
                    previous=pending.attempt,
                    newest_seq=pending.newest_seq,
                    background=pending.background,
                    takes_over=True,
                    spending=spending,
                    continues=pending.attempt.continues if pending.attempt else None,
                    nothing_runs=pending.nothing_runs,
                    shown_in=self.channel.conversation if self._shows(pending.attempt) else None,
                    prepare=prepare,
                )
        except AnswerInProgress:  # another process began it first: a change or the next read of the store will show it
            self._is_behind(asyncio.get_running_loop().time() + _RETRY_PAUSE)
        except NotFound:
            self.delete()
        else:
            as_stored = prepared if prepared is not None and prepared.answer is answer else None
            if conversation != self.channel.conversation:  # its model or its prompt was changed meanwhile
                as_stored = None
            self.generate(self.channel.conversation, answer, request_id, question=pending.question, prepared=as_stored)
        finally:
            if prepared is not None and prepared is not self._generation:
                prepared.discard()

    def _shows(self, attempt: Answer | None) -> bool:
        """Whether the branch ends at this attempt itself, not at its question: then the next attempt would not be on
        it."""
        return attempt is not None and self.channel.conversation.head == attempt.id

    async def _mark_seen(self) -> None:
        with contextlib.suppress(StorageUnavailable):  # publishing it twice is better than never
            await self._services.attempts.mark_seen(self.key)

    # Answers of other processes ---------------------------------------------------------------------------------------

    def heard(self, change: Change) -> None:
        """Handle a change that another process stored."""
        match change:
            case Appended(answer_id, pieces, length, status):
                state = self._state
                if isinstance(state, Remote | Waiting) and self._follows(answer_id):
                    if status is not None:
                        state = self._follow(replace(state.running.answer, status=status), state.running)
                    if not self._extend(state.running, pieces, length):
                        state.poll_at = -math.inf
                        self._start_work()
            case Ended():
                self._is_behind()
            case Stored(_, message):
                self._stored(message)
            case HeadMoved(_, head):
                self.head_moved(head)
            case Rated(_, answer_id, rating):
                self.rated(answer_id, rating)
            case Titled(_, title):
                self.titled(title)
            case Withdrawn(_, message_id):
                self.withdrawn(message_id)
            case Deleted():
                self.delete()

    def _stored(self, message: Message) -> None:
        position = Cursor.USER if isinstance(message, UserMessage) else 0
        if self.channel.begun and (message.seq, position) <= self.channel.last_place:
            return
        is_next = self.channel.begun and message.seq == self.channel.next_seq and self._catch_up_at == math.inf
        if not is_next or not isinstance(self._state, Idle) or self._working is not None or self._lock.locked():
            self._is_behind()
        elif isinstance(message, UserMessage):
            self.channel.append(Posted(message))
        elif message.status is Status.STREAMING:
            self._attach(message)
        else:
            self._is_behind()

    def missed(self, newest_seq: int | None) -> None:
        """Handle a gap in the change stream: changes may be missing. `newest_seq` is the `seq` of the newest stored
        message.
        """
        if isinstance(self._state, Remote | Waiting):
            self._state.poll_at = -math.inf
            self._start_work()
        if newest_seq != self.last_seq:
            self._is_behind()

    def may_be_behind(self) -> None:
        """Handle a lost result: a write of this process may have succeeded, and then the store is ahead of the log."""
        self._is_behind(asyncio.get_running_loop().time() + _RETRY_PAUSE)

    def tick(self, now: float) -> None:
        """Poll the remote answer, or read missed messages, if either is due."""
        if self._is_due(now):
            self._start_work()

    async def orphan_ended(self) -> None:
        """Publish the end of an answer whose process is gone; it was ended in the store. Raises
        `StorageUnavailable`."""
        async with self._turn():
            if self._generation is None:
                await self._catch_up()

    def _is_behind(self, at: float = -math.inf) -> None:
        """Read the store, now or later: it has something that the log lacks."""
        self._catch_up_at = min(self._catch_up_at, at)
        self._start_work()

    def _is_due(self, now: float) -> bool:
        if isinstance(self._state, Local | Closed) or not self.channel.begun or self._deleted:
            return False  # the end of a local answer triggers the same read
        return now >= self._catch_up_at or (isinstance(self._state, Remote | Waiting) and now >= self._state.poll_at)

    def _start_work(self) -> None:
        if self._working is None and self._is_due(asyncio.get_running_loop().time()):
            self._working = asyncio.create_task(self._work())

    async def _work(self) -> None:
        now = asyncio.get_running_loop().time
        try:
            while self._is_due(now()):
                async with self._lock, self._services.reads:
                    if not self.channel.readers or not self._is_due(now()):
                        return
                    if now() >= self._catch_up_at:
                        await self._catch_up()
                    elif isinstance(self._state, Remote | Waiting):
                        await self._poll(self._state)
        except StorageUnavailable:
            self._catch_up_at = min(self._catch_up_at, now() + _RETRY_PAUSE)
        except Exception as exc:  # noqa: BLE001 - an error in this room must not stop others
            log.error("a conversation cannot be followed: %s", describe(exc))
            self.end_viewers(ErrorCode.INTERNAL)
        finally:
            self._working = None
            self._release()

    async def _poll(self, remote: Remote | Waiting) -> None:
        """Poll the answer: tell the generating process that somebody watches here, and read how long the text is."""
        remote.poll_at = asyncio.get_running_loop().time() + remote.interval
        remote.interval = _POLL_INTERVAL
        answer = await self._services.attempts.poll(self.key, remote.running.answer)
        if self._state is not remote:
            return
        if answer is not None and not answer.status.is_final:
            self._attach(answer)
        else:
            self._catch_up_at = -math.inf

    async def _catch_up(self, newest: Message | None = None, request_id: str | None = None) -> None:
        """Publish the stored messages that the log does not have yet; then answer the pending question, if any.

        `newest` is the newest message so far. Raises `StorageUnavailable`.
        """
        self._catch_up_at = math.inf
        if self.channel.readers:
            newest = await self._publish_missed() or newest
        else:
            newest = await self._services.reading.newest(self.key)
        pending = pending_question(newest) if newest is not None else None
        if pending is None or self._generation_waits() or self._services.draining or self._deleted:
            return
        replaced = isinstance(newest, Answer) and newest.next_model is not None
        if not self.channel.readers and not isinstance(newest, UserMessage) and not replaced:
            return  # begin a cut answer again only for viewers; begin one that another model takes over in any case
        try:
            # Read the conversation again: its model or its prompt may have been changed since the question was asked.
            conversation = await self._services.reading.conversation(self.key)
            if conversation is None:
                self.delete()
                return
            self.channel.conversation = conversation
            await self._answer(pending, request_id)
        except StorageUnavailable:
            self.end_viewers(ErrorCode.STORAGE_UNAVAILABLE)  # the client asks for the answer again when it reconnects
        except (OverBudget, Unavailable) as exc:  # the reconnecting clients are refused, with a time to retry
            self.end_viewers(ErrorCode(exc.code))

    def _generation_waits(self) -> bool:
        """Whether an answer has been accepted here and begins next."""
        return self._generation is not None and self._task is not asyncio.current_task()

    async def _publish_missed(self, before: int | None = None) -> Message | None:
        """Publish, in order, what the store has after the log's last place, up to and including the running answer.

        With `before`: only messages before that `seq`; all answers there must have ended. Returns the newest message
        published, or None if there was nothing new. Raises `StorageUnavailable`.
        """
        missed = await self._services.reading.after(self.key, self.channel.next_seq - 1, limit=_PAGE + 1)
        if before is not None:
            missed = [message for message in missed if message.seq < before]
        if len(missed) > _PAGE:
            self.end_viewers(reason="missed_too_much")  # before publishing anything: clients read it with their cursors
            self._enter(Idle())
            return None
        if isinstance(self._state, Remote | Waiting) and not any(self._follows(message.id) for message in missed):
            await self._remote_is_gone()
        unseen = any(isinstance(message, Answer) and message.unseen for message in missed)
        newest = self._publish(missed)
        if before is not None and isinstance(self._state, Remote | Waiting):
            raise StorageUnavailable  # the end is stored, but a majority of the replica set does not have it yet
        if unseen:
            await self._mark_seen()
        return newest

    def _publish(self, missed: list[Message]) -> Message | None:
        running = next((m for m in missed if isinstance(m, Answer) and not m.status.is_final), None)
        ended = missed if running is None else missed[: missed.index(running)]
        remote = self._state.running.answer if isinstance(self._state, Remote | Waiting) else None
        for entry in log_entries(ended, self.channel.last_place):
            self.channel.append(entry)
        if remote is not None and self.channel.last_place >= (remote.seq, END):
            self._enter(Idle())
        if running is None:
            return ended[-1] if ended else None
        if not self._generates(running):
            self._attach(running)
        return running

    def _generates(self, answer: Answer) -> bool:
        """Whether this process generates the answer, or is about to.

        False for an answer that this process stored, but too late: its request had timed out, so nobody generates it.
        Any process may end it. This process must send that end to its viewers, as for a remote answer.
        """
        return self._generation is not None and self._generation.answer.id == answer.id

    def _attach(self, answer: Answer) -> None:
        """Publish what is stored of `answer`, which runs in another process or waits, and follow it."""
        if isinstance(self._state, Remote | Waiting) and self._follows(answer.id):
            self._extend(self._follow(answer, self._state.running).running, answer.pieces, answer.length)
            return
        if answer.pieces:
            waits = answer.status is Status.WAITING
            self.channel.append(Chunks(answer, answer.pieces, BEGINNING, waits=waits))
        self.channel.append(Skip((answer.seq, 0)))
        self._follow(answer, Running(answer, answer.pieces))
        self._start_work()  # polls; a poll makes the generating process publish

    def _follows(self, answer_id: str) -> bool:
        """Whether this room follows the answer: it runs in another process or waits, as far as is known here."""
        return isinstance(self._state, Remote | Waiting) and self._state.running.answer.id == answer_id

    def _follow(self, answer: Answer, running: Running) -> Remote | Waiting:
        """Enter the state (`Remote` or `Waiting`) for `answer`, unless it is already the state. `running` is the known
        part.

        When an answer stops waiting and continues, both its status and its owner differ.
        """
        waits = answer.status is Status.WAITING
        if isinstance(self._state, Waiting if waits else Remote) and self._follows(answer.id):
            return self._state
        running.answer = answer
        state = Waiting(running) if waits else Remote(running, -math.inf)
        self._enter(state)
        return state

    async def _remote_is_gone(self) -> None:
        """Handle a remote answer that the store no longer shows: the conversation was deleted, or a later version
        changed the answer, so that this one cannot read its end."""
        if await self._services.reading.conversation(self.key) is None:
            self.delete()
        else:
            self.end_viewers(reason="answer_unreadable")  # reconnecting clients get what can be read
            self._enter(Idle())

    def _extend(self, running: Running, pieces: Sequence[Piece], length: int) -> bool:
        """Publish the new part of `pieces`, which end at position `length`. Returns False if pieces before them are
        missing."""
        if length <= running.length:
            return True
        begin = length - size(pieces)
        if begin > running.length:
            return False
        waits = running.answer.status is Status.WAITING
        self.channel.extend(running, cut(pieces, running.length - begin), waits=waits)
        return True

    # Parts ------------------------------------------------------------------------------------------------------------

    def _enter(self, state: Idle | Local | Remote | Waiting | Closed) -> None:
        remote = self._services.remote
        if isinstance(self._state, Remote | Waiting) and remote.get(self._state.running.answer.id) is self:
            del remote[self._state.running.answer.id]
        self._state = state
        match state:
            case Local(generation):
                self.channel.running = generation.running
            case Remote(running) | Waiting(running):
                self.channel.running = running
                remote[running.answer.id] = self
            case _:
                self.channel.running = None

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Hold the room's lock; the room is not closed meanwhile."""
        self._in_turn += 1
        try:
            async with self._lock:
                yield
        finally:
            self._in_turn -= 1
            self._release()

    def _release(self) -> None:
        busy = self._generation is not None or self._working is not None or self._in_turn > 0
        if not self.channel.readers and not busy and not isinstance(self._state, Closed):
            self._enter(Closed())
            self._on_close(self)


def _nobodys_request() -> str:
    """Return a new request id for an answer that no request asked for: it follows from another answer's end."""
    return uuid.uuid4().hex
