"""The rooms of this process, by conversation; what happens to all of them together: the clock, gaps, the end."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from msgspec import Struct

from chatstream.errors import ErrorCode, StorageUnavailable
from chatstream.events import Cursor
from chatstream.formats.format import Format
from chatstream.generations.ahead import ReadAhead, Unheard
from chatstream.generations.budgets import Budgets
from chatstream.generations.checkpointer import Checkpointer
from chatstream.generations.follower import Follower
from chatstream.generations.generation import Annotate, Priced, unpriced
from chatstream.generations.replay import Replay
from chatstream.generations.room import Answered, Config, Room, Services, WriteAnswer
from chatstream.limits import Answers
from chatstream.metrics import Metrics
from chatstream.models import Answer, Conversation, Rating, Status, UserMessage
from chatstream.store.attempts import Attempts
from chatstream.store.changes import Appended, Change, Deleted, Ended, HeadMoved, Rated, Stored, Titled, Withdrawn
from chatstream.store.reading import Reading

# How often `poll` is to be called, in seconds.
POLL_TICK = 1.0
# After this many heartbeats (30 µs each), yield to the event loop.
_TICKED_AT_ONCE = 100
# So many rooms read what they missed at the same time: half of what the store lets in, so that requests are served
# beside them.
_READS_AT_ONCE = 4
# After a gap in the change stream, this many conversations are asked about in one query, which takes some 10 ms.
_ASKED_AT_ONCE = 500
# When the process ends: how long the last saves may take, and over how many seconds the streams are ended, on average,
# so that the clients do not all come back at once.
_LAST_SAVE_TIMEOUT = 5.0
_SHUTDOWN_SPREAD = 1.0


class Stream(Struct, frozen=True):
    """A follower, what is behind its cursor, and the conversation it belongs to."""

    conversation: Conversation
    follower: Follower
    replay: Replay
    request_id: str
    room: Room


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
        priced: Priced = unpriced,
        budgets: Budgets | None = None,
        answered: Answered = lambda conversation, answer: None,
    ) -> None:
        """`annotate` is asked about each answer that came to a plain end. `answers` says whether another one may begin,
        and counts those that run. `answered` hears of each answer that has ended here."""
        self._services = Services(
            attempts=attempts,
            reading=reading,
            checkpointer=Checkpointer(attempts),
            write_answer=write_answer,
            annotate=annotate,
            priced=priced,
            budgets=budgets or Budgets(),
            answered=answered,
            metrics=metrics,
            config=config,
            answers=answers,
            reads=asyncio.Semaphore(_READS_AT_ONCE),
            remote={},
        )
        self._rooms: dict[str, Room] = {}
        self._followers: dict[Follower, Room] = {}
        self._unheard = Unheard()
        metrics.watch(
            streams_open=lambda: len(self._followers),
            answers_running=lambda: sum(room.generation is not None for room in self._rooms.values()),
        )

    def _room(self, conversation: Conversation) -> Room:
        room = self._rooms.get(conversation.key)
        if room is None:
            room = self._rooms[conversation.key] = Room(conversation, self._services, self._closed)
        room.channel.conversation = conversation  # the newest: its model or its prompt may have been changed
        return room

    def _closed(self, room: Room) -> None:
        del self._rooms[room.key]
        self._unheard.happened(room.key)  # what it has heard last nobody knows any more

    def _known(self, key: str) -> Room | None:
        """The room that something has happened in, if there is one."""
        room = self._rooms.get(key)
        if room is None:
            self._unheard.happened(key)
        return room

    # Watching ---------------------------------------------------------------------------------------------------------

    @property
    def moment(self) -> int:
        """For a `ReadAhead`, before it is read."""
        return self._unheard.moment

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
        accepted: bool = False,
        ahead: ReadAhead | None = None,
    ) -> AsyncIterator[Stream]:
        """Watch a conversation from `cursor` on, in the format `wire`; leaving the context is leaving the conversation.

        `expires_at` is on the event loop's clock. `accepted`: its answer was accepted before, so that no limit counts
        any more. `ahead`: what was read already, where there is no cursor. Nothing is generated before `start`. Raises
        `StorageUnavailable`, and `TooManyRequests` or `Unavailable` if an answer would begin that may not now.
        """
        config = self._services.config
        key = conversation.key
        current = ahead is not None and key not in self._rooms and not self._unheard.since(ahead.moment, key)
        newest = ahead.newest if ahead is not None and current else None
        room = self._room(conversation)
        lifetime = config.connection_timeout * random.uniform(0.8, 1)  # noqa: S311 - against stampedes
        follower = Follower(
            room.channel,
            wire,
            once=once,
            rotate_at=asyncio.get_running_loop().time() + lifetime,
            rotate_after_bytes=config.connection_bytes,
            expires_at=expires_at,
            request_id=request_id,
            observe_lag=self._services.metrics.chunk_left,
        )
        self._followers[follower] = room
        room.arrived()
        try:
            replay = await room.join(follower, cursor, wire, accepted=accepted, newest=newest)
            if self._services.draining and room.generation is None:
                follower.end(ErrorCode.SERVER_SHUTDOWN)
            yield Stream(conversation, follower, replay, request_id, room)
        finally:
            follower.leave()
            del self._followers[follower]
            room.left()

    async def start(self, stream: Stream) -> None:
        """After `connected` was sent: answer what waits for an answer.

        Raises `OverBudget`, `StorageUnavailable`, `Unavailable`.
        """
        if stream.replay.pending is not None and stream.follower.reads_on:
            await stream.room.answer(stream.replay.pending, stream.request_id)

    async def seen(self, stream: Stream) -> None:
        """After what is behind the cursor was sent: whoever comes next need not be told again what ended unseen."""
        if stream.replay.unseen:
            with suppress(StorageUnavailable):  # better told twice than not
                await self._services.attempts.mark_seen(stream.conversation.key)

    async def tick(self) -> None:
        """Let every follower look at the clock; to be called often, compared with the heartbeat's interval.

        A heartbeat is not written here, but by the follower's own coroutine; the last words of a stream may be pushed.
        """
        now = asyncio.get_running_loop().time()
        for number, follower in enumerate(list(self._followers), 1):
            follower.tick(now, self._services.config.heartbeat_interval)
            if number % _TICKED_AT_ONCE == 0:
                await asyncio.sleep(0)

    # Answering --------------------------------------------------------------------------------------------------------

    def generate(
        self, conversation: Conversation, answer: Answer, request_id: str, *, message: UserMessage | None = None
    ) -> None:
        """Generate what has just been begun in the store. `message` is the question, if it was stored with it."""
        self._room(conversation).generate(conversation, answer, request_id, message=message)

    def regenerate(self, conversation: Conversation, answer: Answer, request_id: str, *, question: UserMessage) -> None:
        """Generate another attempt, which has just been begun in the store, at answering an earlier question."""
        self._room(conversation).generate(conversation, answer, request_id, question=question)

    def go_on(self, conversation: Conversation, answer: Answer, request_id: str | None = None) -> None:
        """Go on with an answer that has waited: this process has just made it its own, in the store."""
        self._room(conversation).go_on(conversation, answer, request_id)

    def waits_on(self, conversation: Conversation, answer: Answer) -> None:
        """Of an answer that waits something has been decided, and it goes on to wait: tell those who watch here."""
        if room := self._known(conversation.key):
            room.heard(Appended(answer.id, [*answer.pieces], answer.length, answer.status))

    @property
    def draining(self) -> bool:
        """The process is about to end: nothing may begin here any more."""
        return self._services.draining

    def may_have_stored(self, conversation: Conversation) -> None:
        """The result of a write of this process was lost: nobody will say what became of it, so it is read."""
        if room := self._known(conversation.key):
            room.may_be_behind()

    def generates_in(self, conversation: Conversation) -> bool:
        """Whether an answer of this conversation is generated in this process."""
        room = self._rooms.get(conversation.key)
        return room is not None and room.generation is not None

    async def stop(
        self, conversation: Conversation, message_id: str | None, timeout: float, keep: int | None = None
    ) -> str | None:
        """End the answer that is generated here, if it is `message_id` or that is None; returns which one it was.

        Of its text `keep` code points are kept, all of it without.

        Raises `StorageUnavailable` if its end is not stored in `timeout` seconds.
        """
        room = self._rooms.get(conversation.key)
        return None if room is None else await room.stop(message_id, timeout, keep)

    def let_finish(self, conversation: Conversation) -> None:
        """The conversation's `background` was changed: that holds for its running answer, too."""
        if room := self._rooms.get(conversation.key):
            room.let_finish(background=conversation.background)

    def branch_shown(self, conversation: Conversation) -> None:
        """The conversation shows another branch, as its `head` says: tell those who watch here."""
        if room := self._known(conversation.key):
            room.head_moved(conversation.head)

    def rated(self, conversation: Conversation, answer_id: str, rating: Rating | None) -> None:
        """The user has rated an attempt: tell those who watch here."""
        if room := self._known(conversation.key):
            room.rated(answer_id, rating)

    def withdrawn(self, conversation: Conversation, message_id: str) -> None:
        """A user message that waited was taken back: tell those who watch here."""
        if room := self._known(conversation.key):
            room.withdrawn(message_id)

    def titled(self, conversation: Conversation) -> None:
        """The conversation has another title: tell those who watch here."""
        if room := self._known(conversation.key):
            room.titled(conversation.title)

    def deleted(self, conversation: Conversation) -> None:
        """A conversation was deleted: end its answer and its streams."""
        if room := self._known(conversation.key):
            room.delete()

    # Other processes --------------------------------------------------------------------------------------------------

    async def changed(self, change: Change) -> None:
        """Something was stored by another process. Only hands it to its room: no room waits for another."""
        match change:
            case Appended(answer_id) | Ended(answer_id):
                room = self._services.remote.get(answer_id)
            case Stored(key) | HeadMoved(key) | Rated(key) | Titled(key) | Withdrawn(key) | Deleted(key):
                room = self._known(key)
        if room is not None:
            room.heard(change)

    def poll(self) -> None:
        """Let the rooms look at the clock; to be called every `POLL_TICK` seconds. Waits for none of them."""
        now = asyncio.get_running_loop().time()
        for room in list(self._rooms.values()):
            room.tick(now)

    async def resync(self) -> None:
        """Changes may have been missed: find the rooms that lack something, and let them read it.

        Raises `StorageUnavailable`: then they still may.
        """
        self._unheard.happened_to_any()
        rooms = list(self._rooms.values())
        for first in range(0, len(rooms), _ASKED_AT_ONCE):
            some = rooms[first : first + _ASKED_AT_ONCE]
            newest = await self._services.reading.newest_seqs([room.key for room in some])
            empty = [room for room in some if room.key not in newest]
            there = await self._services.reading.existing([room.key for room in empty]) if empty else set()
            heads = await self._services.reading.heads([room.key for room in some])
            for room in some:
                if room.key in newest:
                    room.missed(newest[room.key])
                    if heads.get(room.key) != room.channel.conversation.head:
                        room.head_moved(heads.get(room.key))
                elif room.key not in there:
                    room.delete()

    async def orphan_ended(self, key: str, answer: Answer) -> None:
        """An answer that no process generates was ended in the store. Raises `StorageUnavailable`."""
        room = self._known(key)
        if room is None and answer.queued and (conversation := await self._services.reading.conversation(key)):
            room = self._room(conversation)
        if room is not None:
            await room.orphan_ended()

    # The end ----------------------------------------------------------------------------------------------------------

    async def drain(self, timeout: float) -> None:
        """Let the answers of this process finish for `timeout` seconds, cut the others, and end the streams one by one.

        Who watches nothing, or an answer of another process, is sent there at once. Whatever else keeps the streams
        alive must go on meanwhile: `tick`, `poll`, the change stream. Nothing may be posted or followed any more.
        """
        self._services.draining = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            await self._end_streams(follower for follower, room in self._followers.items() if room.generation is None)
            tasks, left = self._tasks(), deadline - loop.time()
            if not tasks or left <= 0:
                break
            await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for room in list(self._rooms.values()):
            if room.generation is not None:
                room.generation.cut(Status.INTERRUPTED)
        if tasks := self._tasks():
            await asyncio.wait(tasks, timeout=_LAST_SAVE_TIMEOUT)
        await self._end_streams(self._followers)

    def _tasks(self) -> "list[asyncio.Task[None]]":
        return [room.task for room in self._rooms.values() if room.task is not None]

    async def _end_streams(self, followers: Iterable[Follower]) -> None:
        ending = list(followers)
        for follower in ending:
            follower.end(ErrorCode.SERVER_SHUTDOWN)
            await asyncio.sleep(random.uniform(0, 2 * _SHUTDOWN_SPREAD / len(ending)))  # noqa: S311 - jitter
