"""Where those who watch meet what is generated: one channel per conversation, one generation per running answer."""

import asyncio
import contextlib
import logging
import random
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from msgspec import Struct

from chatstream.errors import (
    AnswerInProgress,
    ErrorCode,
    NotFound,
    StorageUnavailable,
)
from chatstream.events import Cursor
from chatstream.formats.format import Format
from chatstream.generations.beats import Beats
from chatstream.generations.channel import Channel, Running
from chatstream.generations.elsewhere import Elsewhere
from chatstream.generations.follower import Follower
from chatstream.generations.generation import Annotate, AnswerBounds, Generation
from chatstream.generations.replay import Owed, Replay, Snapshot, owed_by, replay
from chatstream.limits import Answers, Slot
from chatstream.llm.model import Delta
from chatstream.logs import describe
from chatstream.metrics import Metrics
from chatstream.models import Answer, Conversation, Message, Status, UserMessage
from chatstream.store.attempts import Attempts
from chatstream.store.reading import Reading

log = logging.getLogger("chatstream.generations")

# Of so many streams the heartbeats may be due together, 30 us each, before whatever else has come has its turn.
_TICKED_AT_ONCE = 100
# Messages that wait behind one running answer are read in batches of this size: several are rare, this many a flood.
_BATCH = 100
# When the process ends: how long the last saves may take, and over how many seconds the streams are ended, on average,
# so that the clients do not all come back at once.
_LAST_SAVE_TIMEOUT = 5.0
_SHUTDOWN_SPREAD = 1.0
# How long to wait, at most, for an end that is stored to be told: it takes a turn of the event loop or two.
_SETTLE_TIMEOUT = 1.0
# The question is given where it is known.
WriteAnswer = Callable[[Conversation, Answer, UserMessage | None], AsyncGenerator[Delta, None]]


class Config(Struct, frozen=True, kw_only=True):
    """Durations in seconds."""

    heartbeat_interval: float
    disconnect_grace: float  # may be infinite: an answer always finishes
    connection_timeout: float
    connection_bytes: int
    bounds: AnswerBounds
    model: str  # of conversations that name none, for the log


class Stream(Struct, frozen=True):
    """A follower, what is behind its cursor, and the conversation it belongs to."""

    conversation: Conversation
    follower: Follower
    replay: Replay
    request_id: str


class Hub:
    """The one place that knows which conversations are watched and which answers run in this process."""

    def __init__(
        self,
        attempts: Attempts,
        reading: Reading,
        write_answer: WriteAnswer,
        annotate: Annotate,
        metrics: Metrics,
        config: Config,
        answers: Answers,
    ) -> None:
        """`annotate` is asked about each answer that came to a plain end. `answers` says whether another one may begin,
        and counts those that run."""
        self._attempts = attempts
        self._reading = reading
        self._beats = Beats(attempts)
        self._write_answer = write_answer
        self._annotate = annotate
        self._metrics = metrics
        self._config = config
        self._answers = answers
        self._channels: dict[str, Channel] = {}
        self._generations: dict[str, Generation] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._followers: set[Follower] = set()
        self.elsewhere = Elsewhere(
            attempts, reading, self._channels, ended=self._ended, deleted=self._deleted, settled=self._settled
        )
        self.draining = False
        metrics.watch(
            streams_open=lambda: len(self._followers),
            answers_running=lambda: len(self._generations),
        )

    # Watching ---------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def follow(
        self,
        conversation: Conversation,
        cursor: Cursor | None,
        wire: Format,
        *,
        once: bool,
        expires_at: float,
        request_id: str,
    ) -> AsyncIterator[Stream]:
        """Watch a conversation from `cursor` on, in the format `wire`; leaving the context is leaving the conversation.

        `expires_at` is on the event loop's clock. Nothing is generated before `start`. Raises `StorageUnavailable`, and
        `TooManyRequests` or `Unavailable` if an answer would begin that may not now.
        """
        channel = self._channel(conversation)
        lifetime = self._config.connection_timeout * random.uniform(0.8, 1)  # noqa: S311 - against stampedes
        follower = Follower(
            channel,
            wire,
            once=once,
            rotate_at=asyncio.get_running_loop().time() + lifetime,
            rotate_after_bytes=self._config.connection_bytes,
            expires_at=expires_at,
            request_id=request_id,
            observe_lag=self._metrics.chunk_left,
        )
        self._followers.add(follower)
        self._joined(channel)
        try:
            behind = await replay(self._reading, conversation.key, cursor, Snapshot.of(channel.running), wire)
            if behind.owed is not None:
                self._answers.check(conversation.user_id)
            follower.join(behind)
            if behind.running is None and channel.readers == {follower}:
                channel.begin_at(behind.place)
            if behind.running is not None and not self._attempts.owns(behind.running):
                await self.elsewhere.follow(channel, behind.running)
            yield Stream(conversation, follower, behind, request_id)
        finally:
            follower.leave()
            self._followers.discard(follower)
            self._left(channel)

    async def start(self, stream: Stream) -> None:
        """After `connected` was sent: answer what waits for an answer. Raises `StorageUnavailable`."""
        if stream.replay.owed is not None and stream.follower.reads_on:
            await self._answer(stream.conversation, stream.replay.owed, stream.request_id)

    async def seen(self, stream: Stream) -> None:
        """After what is behind the cursor was sent: whoever comes next need not be told again what ended unseen."""
        if stream.replay.unseen:
            await self._attempts.mark_seen(stream.conversation.key)

    async def tick(self) -> None:
        """Let every follower look at the clock; to be called often, compared with the heartbeat's interval.

        A heartbeat is not written here, but by the follower's own coroutine; the last words of a stream may be pushed.
        """
        now = asyncio.get_running_loop().time()
        for number, follower in enumerate(list(self._followers), 1):
            follower.tick(now, self._config.heartbeat_interval)
            if number % _TICKED_AT_ONCE == 0:
                await asyncio.sleep(0)

    # Answering --------------------------------------------------------------------------------------------------------

    def generate(
        self,
        conversation: Conversation,
        answer: Answer,
        request_id: str | None,
        *,
        message: UserMessage | None = None,
        question: UserMessage | None = None,
    ) -> None:
        """Generate what has just been begun in the store.

        `message` is the question, if it was stored with it; `question`, if it was there already and is known.
        """
        request_id = request_id or uuid.uuid4().hex  # nobody asked: it follows from another answer's end
        running = self._generations.get(conversation.key)
        if running is not None and running.answer.id == answer.id:
            return  # a repeated request was faster
        channel = self._channel(conversation)
        generation = Generation(
            Running(answer),
            channel,
            self._write_answer(conversation, answer, message or question),
            attempts=self._attempts,
            beats=self._beats,
            annotate=self._annotate,
            bounds=self._config.bounds,
            metrics=self._metrics,
            model=conversation.model or self._config.model,
            request_id=request_id,
            on_left_elsewhere=lambda: self._left(channel),
        )
        before = self._tasks.get(conversation.key)
        place = self._answers.grant(conversation.user_id)
        run = self._run(channel, generation, place, message, before, request_id)
        self._generations[conversation.key] = generation
        self._tasks[conversation.key] = asyncio.create_task(run)

    def message_waits(self, conversation: Conversation) -> None:
        """A user message was stored behind the running answer.

        Whoever ends that, maybe in another process, tells the message and begins its answer.
        """
        if channel := self._channels.get(conversation.key):
            channel.waiting = True

    def generates_in(self, conversation: Conversation) -> bool:
        """Whether an answer of this conversation is generated in this process."""
        return conversation.key in self._generations

    async def stop(self, conversation: Conversation, message_id: str | None, timeout: float) -> str | None:
        """End the answer that is generated here, if it is `message_id` or that is None; returns which one it was.

        Raises `StorageUnavailable` if its end is not stored in `timeout` seconds.
        """
        generation = self._generations.get(conversation.key)
        if generation is None or message_id not in (None, generation.answer.id):
            return None
        task = self._tasks[conversation.key]
        generation.cut(Status.STOPPED)
        await asyncio.wait([task], timeout=timeout)
        if not task.done():
            raise StorageUnavailable
        return generation.answer.id

    def deleted(self, conversation: Conversation) -> None:
        """A conversation was deleted: end its answer and its streams."""
        if generation := self._generations.get(conversation.key):
            generation.cut(Status.STOPPED)
        if channel := self._channels.get(conversation.key):
            self._deleted(channel)

    def _deleted(self, channel: Channel) -> None:
        self._close(channel, ErrorCode.CONVERSATION_DELETED)

    async def drain(self, timeout: float) -> None:
        """Let the running answers finish for `timeout` seconds, cut the others, and end the streams one by one.

        Nothing may be posted or followed any more (see `draining`).
        """
        self.draining = True
        await self._end_streams(follower for follower in self._followers if not follower.answer_runs)
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=timeout)
        for generation in self._generations.values():
            generation.cut(Status.INTERRUPTED)
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=_LAST_SAVE_TIMEOUT)
        await self._end_streams(self._followers)

    async def _end_streams(self, followers: Iterable[Follower]) -> None:
        ending = list(followers)
        for follower in ending:
            follower.end(ErrorCode.SERVER_SHUTDOWN)
            await asyncio.sleep(random.uniform(0, 2 * _SHUTDOWN_SPREAD / len(ending)))  # noqa: S311 - jitter

    async def _answer(self, conversation: Conversation, owed: Owed, request_id: str | None) -> None:
        try:
            answer = await self._attempts.begin(
                conversation.key, owed.message_id, previous=owed.attempt, newest_seq=owed.newest_seq
            )
        except (AnswerInProgress, NotFound):
            return  # somebody else was faster, which comes through the log, or the conversation is gone
        self.generate(conversation, answer, request_id, question=owed.question)

    async def _run(
        self,
        channel: Channel,
        generation: Generation,
        place: Slot,
        message: UserMessage | None,
        before: asyncio.Task[None] | None,
        request_id: str,
    ) -> None:
        key = channel.conversation.key
        if before is not None:
            # Its end is stored, or this answer could not have begun; but it may not have been told yet.
            await asyncio.wait([before])
        try:
            try:
                await self.elsewhere.catch_up(channel, before=(message or generation.answer).seq)
            except StorageUnavailable:
                self._close(channel, ErrorCode.STORAGE_UNAVAILABLE)  # who comes back has a cursor
            if message is not None:
                channel.post(message)
            channel.running = generation.running
            generation.watched = generation.watched or bool(channel.readers)
            stored = await generation.run()
        except Exception as exc:  # noqa: BLE001 - the attempt stays `streaming` in the store until the sweeper finds it
            facts = {"request": request_id, "answer": generation.answer.id}
            log.error("the answer is lost: %s", describe(exc), extra={"facts": facts})
            channel.running = None
            self._close(channel, ErrorCode.INTERNAL)
            return
        finally:
            generation.keep()
            place.release()
            if self._generations.get(key) is generation:
                del self._generations[key], self._tasks[key]
            self._release(channel)
        if stored is None:
            channel.running = None
            self._deleted(channel)
        else:
            await self._ended(channel, stored, request_id)

    async def orphan_ended(self, key: str, answer: Answer) -> None:
        """An answer whose process is gone was ended in the store."""
        channel = self._channels.get(key)
        if channel is None and answer.queued and (conversation := await self._reading.conversation(key)):
            channel = self._channel(conversation)
        if channel is not None:
            await self._ended(channel, answer)
            self._release(channel)

    async def _settled(self, channel: Channel) -> None:
        """Until the answer that runs here, and whose end is stored, has been told."""
        if task := self._tasks.get(channel.conversation.key):
            await asyncio.wait([task], timeout=_SETTLE_TIMEOUT)

    async def _ended(self, channel: Channel, answer: Answer, request_id: str | None = None) -> None:
        """An answer has ended, here or elsewhere: tell those who watch, and begin the next one if one is due.

        That is when a message waits for its turn, and when the answer was cut although somebody watches (again).
        """
        if answer.unseen and channel.readers:  # they came while it was stored
            with contextlib.suppress(StorageUnavailable):  # better told twice than not
                await self._attempts.mark_seen(channel.conversation.key)
        channel.finish(answer)
        if self.draining:
            return
        try:
            if channel.waiting or answer.queued or (answer.status is Status.INTERRUPTED and channel.readers):
                await self._begin_next(channel, answer, request_id)
        except StorageUnavailable:
            self._close(channel, ErrorCode.STORAGE_UNAVAILABLE)  # who comes back asks for it again

    async def _begin_next(self, channel: Channel, answer: Answer, request_id: str | None) -> None:
        """Tell the user messages that come after `answer`, in order, and begin the answer to the last of them.

        They are read, since not all of them need have been posted in this process, nor while it had this channel.
        """
        conversation = channel.conversation
        channel.waiting = False
        newest: Message = answer
        while later := await self._reading.after(conversation.key, newest.seq, limit=_BATCH):
            for newest in later:
                if isinstance(newest, Answer):
                    channel.waiting = newest is not later[-1]
                    return  # somebody else was faster: what comes after it comes after its end
                channel.post(newest)
        owed = owed_by(newest)
        if owed is not None:
            await self._answer(conversation, owed, request_id)

    # Channels ---------------------------------------------------------------------------------------------------------

    def _channel(self, conversation: Conversation) -> Channel:
        channel = self._channels.setdefault(conversation.key, Channel(conversation))
        channel.conversation = conversation  # the newest: its model or its prompt may have been changed
        return channel

    def _joined(self, channel: Channel) -> None:
        if generation := self._generations.get(channel.conversation.key):
            generation.watched = True
            generation.keep()

    def _left(self, channel: Channel) -> None:
        generation = self._generations.get(channel.conversation.key)
        if not channel.readers and generation is not None and generation.watched:
            generation.abandon_after(self._config.disconnect_grace)
        self._release(channel)

    def _release(self, channel: Channel) -> None:
        key = channel.conversation.key
        if not channel.readers and key not in self._generations and self._channels.get(key) is channel:
            del self._channels[key]

    def _close(self, channel: Channel, code: ErrorCode) -> None:
        for reader in channel.readers:
            reader.end(code)
