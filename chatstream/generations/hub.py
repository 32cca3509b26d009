"""The rooms of this process, by conversation, and the work for all rooms: the clock, gaps in the change stream,
shutdown.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
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
from chatstream.generations.replay import PendingQuestion, Replay
from chatstream.generations.room import Answered, Config, Room, Services, WriteAnswer
from chatstream.limits import Answers
from chatstream.metrics import Metrics
from chatstream.models import Answer, Conversation, Rating, Status, UserMessage
from chatstream.store.attempts import Attempts
from chatstream.store.changes import Appended, Change, Deleted, Ended, HeadMoved, Rated, Stored, Titled, Withdrawn
from chatstream.store.reading import Reading

# Seconds between two calls of `poll`.
POLL_TICK = 1.0
# After this many heartbeats (30 µs each), yield to the event loop.
_TICKED_AT_ONCE = 100
# The most rooms that read missed messages at the same time: half of the store's concurrent operations. The rest is for
# requests.
_READS_AT_ONCE = 4
# Conversations per query after a gap in the change stream. One query takes 3 to 40 ms.
_ASKED_AT_ONCE = 500
# After a gap, look for withdrawn messages among this many of the newest messages of a conversation. The streams of a
# room that lacks more messages than that are ended in any case; see `room._PAGE`.
_LOOKED_AT_FOR_WITHDRAWN = 20
# At shutdown, in seconds: the longest wait for the last saves; and the average time over which the streams are closed,
# so that the clients do not all reconnect at once.
_LAST_SAVE_TIMEOUT = 5.0
_SHUTDOWN_SPREAD = 1.0


class Stream(Struct, frozen=True):
    """An open stream: its follower, the replay for its cursor, and its conversation."""

    conversation: Conversation
    follower: Follower
    replay: Replay
    request_id: str
    room: Room


class Hub:
    """Knows which conversations are watched and which answers run in this process. No other object does."""

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
        """`annotate` is called for each answer with a normal end. `answers` decides whether another answer may begin,
        and counts the running ones. `answered` is called for each answer that has ended in this process."""
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
        room.channel.conversation = conversation  # the newest version: its model or its prompt may have been changed
        return room

    def _closed(self, room: Room) -> None:
        del self._rooms[room.key]
        self._unheard.happened(room.key)  # messages that were read ahead may lack the last changes of this room

    def _known(self, key: str) -> Room | None:
        """Return the room of a conversation that has changed, or None. Without a room, the change is noted in
        `_unheard`."""
        room = self._rooms.get(key)
        if room is None:
            self._unheard.happened(key)
        return room

    # Watching ---------------------------------------------------------------------------------------------------------

    @property
    def moment(self) -> int:
        """The current moment, for a `ReadAhead`. Take it before reading."""
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
        """Watch a conversation from `cursor` on, in the format `wire`. Leaving the context leaves the conversation.

        `expires_at` is on the event loop's clock. `accepted`: the viewer's answer was accepted before, so no limit is
        checked. `ahead`: the messages that were already read, for a request without a cursor. Nothing is generated
        before `start`. Raises `StorageUnavailable`; also `TooManyRequests` or `Unavailable` if an answer would begin
        that is not allowed now.
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
        """Begin the answer to a pending question; call this after `connected` was sent.

        Raises `OverBudget`, `StorageUnavailable`, `Unavailable`.
        """
        if stream.replay.pending is not None and stream.follower.reads_on:
            await stream.room.answer(stream.replay.pending, stream.request_id)

    async def seen(self, stream: Stream) -> None:
        """Mark the replayed unseen ends as seen; call this after the replay was sent. Later viewers are not sent them
        again."""
        if stream.replay.unseen:
            with suppress(StorageUnavailable):  # sending it twice is better than never
                await self._services.attempts.mark_seen(stream.conversation.key)

    async def tick(self) -> None:
        """Let every follower check its deadlines; call this much more often than the heartbeat interval.

        The follower's own coroutine writes the heartbeat, not this method. The final frames of a stream may be pushed
        here.
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
        """Generate an answer that was just begun in the store. `message` is the question, if it was stored together
        with it."""
        self._room(conversation).generate(conversation, answer, request_id, message=message)

    def regenerate(self, conversation: Conversation, answer: Answer, request_id: str, *, question: UserMessage) -> None:
        """Generate another attempt at an earlier question; the attempt was just begun in the store."""
        self._room(conversation).generate(conversation, answer, request_id, question=question)

    def go_on(self, conversation: Conversation, answer: Answer, request_id: str | None = None) -> None:
        """Continue an answer that has waited. This process has just become its owner in the store."""
        self._room(conversation).go_on(conversation, answer, request_id)

    def waits_on(self, conversation: Conversation, answer: Answer) -> None:
        """Publish a decision about an answer that still waits for other decisions."""
        if room := self._known(conversation.key):
            room.heard(Appended(answer.id, [*answer.pieces], answer.length, answer.status))

    @property
    def draining(self) -> bool:
        """Whether the process is shutting down: nothing may begin here any more."""
        return self._services.draining

    def may_have_stored(self, conversation: Conversation) -> None:
        """The result of a write of this process was lost. Read the store: no other process publishes what this one
        wrote."""
        if room := self._known(conversation.key):
            room.may_be_behind()

    def generates_in(self, conversation: Conversation) -> bool:
        """Whether this process generates an answer of this conversation."""
        room = self._rooms.get(conversation.key)
        return room is not None and room.generation is not None

    async def stop(
        self, conversation: Conversation, message_id: str | None, timeout: float, keep: int | None = None
    ) -> str | None:
        """Stop the answer that is generated here, if `message_id` is its id or None. Returns the id of the stopped
        answer.

        The first `keep` code points of its text are kept; None keeps all.

        Raises `StorageUnavailable` if its end is not stored within `timeout` seconds.
        """
        room = self._rooms.get(conversation.key)
        return None if room is None else await room.stop(message_id, timeout, keep)

    def let_finish(self, conversation: Conversation) -> None:
        """Apply the conversation's changed `background` to its running answer, too."""
        if room := self._rooms.get(conversation.key):
            room.let_finish(background=conversation.background)

    def branch_shown(self, conversation: Conversation) -> None:
        """Publish to the viewers here that the conversation shows another branch: the one of its `head`."""
        if room := self._known(conversation.key):
            room.head_moved(conversation.head)

    def rated(self, conversation: Conversation, answer_id: str, rating: Rating | None) -> None:
        """Publish to the viewers here that the user has rated an attempt."""
        if room := self._known(conversation.key):
            room.rated(answer_id, rating)

    def withdrawn(self, conversation: Conversation, message_id: str) -> None:
        """Publish to the viewers here that a queued user message was taken back."""
        if room := self._known(conversation.key):
            room.withdrawn(message_id)

    def titled(self, conversation: Conversation) -> None:
        """Publish to the viewers here that the conversation has another title."""
        if room := self._known(conversation.key):
            room.titled(conversation.title)

    def deleted(self, conversation: Conversation) -> None:
        """Handle the deletion of a conversation: end its answer and its streams."""
        if room := self._known(conversation.key):
            room.delete()

    # Other processes --------------------------------------------------------------------------------------------------

    async def changed(self, change: Change) -> None:
        """Hand a change that another process stored to its room. Does not wait for the room: no room waits for
        another."""
        match change:
            case Appended(answer_id) | Ended(answer_id):
                room = self._services.remote.get(answer_id)
            case Stored(key) | HeadMoved(key) | Rated(key) | Titled(key) | Withdrawn(key) | Deleted(key):
                room = self._known(key)
        if room is not None:
            room.heard(change)

    def poll(self) -> None:
        """Let the rooms check what is due; call this every `POLL_TICK` seconds. Does not wait for them."""
        now = asyncio.get_running_loop().time()
        for room in list(self._rooms.values()):
            room.tick(now)

    async def resync(self) -> None:
        """After a gap in the change stream, find the rooms that lack messages and let them read. Publish the titles,
        shown branches and withdrawn messages that may have been missed. Missed ratings are not published: no index
        finds them.

        Raises `StorageUnavailable`; then the rooms may still lack messages.
        """
        self._unheard.happened_to_any()
        rooms = deque(self._rooms.values())
        while rooms:
            some = [rooms.popleft() for _ in range(min(len(rooms), _ASKED_AT_ONCE))]
            rooms.extend(await self._resync(some))

    async def _resync(self, rooms: Sequence[Room]) -> list[Room]:
        """Resync these rooms. Returns those that must be asked again: what was read may be older than what was
        published meanwhile."""
        published = {room.key: room.shown for room in rooms}
        reading = self._services.reading
        newest = await reading.newest_seqs([*published])
        # Only messages after the log's last one can be queued.
        after = {
            room.key: max(room.last_seq, newest[room.key] - _LOOKED_AT_FOR_WITHDRAWN)
            for room in rooms
            if newest.get(room.key, room.last_seq) > room.last_seq
        }
        withdrawn = await reading.withdrawn_after(after) if after else {}
        shown = await reading.shown([*published])
        again = []
        for room in rooms:
            if (stored := shown.get(room.key)) is None:  # an erasure deletes the messages after the conversation
                room.delete()
                continue
            if room.key in newest:
                room.missed(newest[room.key])
            for message_id in withdrawn.get(room.key, ()):
                room.withdrawn(message_id)
            if room.shown != published[room.key]:
                again.append(room)
                continue
            if stored.head != room.shown.head:
                room.head_moved(stored.head)
            if stored.title != room.shown.title:
                room.titled(stored.title)
        return again

    async def orphan_ended(self, key: str, answer: Answer) -> None:
        """Publish the end of an answer whose process is gone; it was ended in the store. Raises
        `StorageUnavailable`."""
        room = self._known(key)
        if room is None and answer.queued and (conversation := await self._services.reading.conversation(key)):
            room = self._room(conversation)
        if room is not None:
            await room.orphan_ended()

    async def answer_queued(self, key: str, question: UserMessage) -> None:
        """Begin the answer to a queued question, since the process that should have begun it did not.

        Does nothing if another process has begun it, if the conversation is gone, or if this process shuts down. Raises
        `OverBudget`, `StorageUnavailable`, `Unavailable`.
        """
        conversation = await self._services.reading.conversation(key)
        if conversation is not None and not self._services.draining:
            pending = PendingQuestion(question.id, None, question.seq, question)
            await self._room(conversation).answer(pending, None)

    # The end ----------------------------------------------------------------------------------------------------------

    async def drain(self, timeout: float) -> None:
        """Shut down: let the answers here finish for `timeout` seconds, cut the others, and end the streams one by one.

        Streams without an answer of this process are ended at once. What keeps streams alive must continue meanwhile:
        `tick`, `poll`, the change stream. No message may be posted and no stream opened any more.
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
