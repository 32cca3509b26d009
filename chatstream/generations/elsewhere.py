"""Answers that other processes generate, for those who watch them here.

The change stream brings what the others store. Every change, and every look, says how long the text is by now, so that
what was missed shows, and is read. A look also makes the viewers here known to the generating process, which would take
its answer for abandoned otherwise, and would not tell us how it goes on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from chatstream.errors import StorageUnavailable
from chatstream.generations.channel import Channel, Running
from chatstream.models import Answer, Message, Status, UserMessage
from chatstream.store.attempts import Attempts
from chatstream.store.changes import Appended, Change, Deleted, Ended, Stored
from chatstream.store.reading import Reading

log = logging.getLogger("chatstream.generations")

# How often it is seen whether a look is due, in seconds.
TICK = 1.0
# Between two looks, in seconds. The generating process waits for two of them before it believes that nobody watches.
_LOOK_INTERVAL = 5.0
# The second look comes sooner: of what was stored before the first one was noticed, which takes a checkpoint, we are
# not told.
_SECOND_LOOK = 2.0
# After a gap in the change stream this many messages of a conversation are read again. Who misses more gets them with
# the next connection, by cursor.
_RESYNC_MESSAGES = 20


@dataclass
class _Followed:
    """An answer that is followed, where to, and when it is looked at next, on the event loop's clock."""

    channel: Channel
    due: float


class Elsewhere:
    """Brings what other processes do to the channels of this one."""

    def __init__(
        self,
        attempts: Attempts,
        reading: Reading,
        channels: Mapping[str, Channel],
        *,
        ended: Callable[[Channel, Answer], Awaitable[None]],
        deleted: Callable[[Channel], None],
        settled: Callable[[Channel], Awaitable[None]],
    ) -> None:
        """`ended` and `deleted` are told what happened; `settled` waits for the end of an answer that is being told."""
        self._attempts = attempts
        self._reading = reading
        self._channels = channels
        self._ended = ended
        self._deleted = deleted
        self._settled = settled
        self._followed: dict[str, _Followed] = {}  # by the answer's id

    async def follow(self, channel: Channel, answer: Answer) -> None:
        """`answer` runs in another process, and `channel` is to have what comes after `answer.content`.

        Raises `StorageUnavailable`.
        """
        if channel.running is None:
            channel.running = Running(answer, [answer.content] if answer.content else ())
        if channel.running.answer.id == answer.id:
            self._followed[answer.id] = _Followed(channel, asyncio.get_running_loop().time() + _SECOND_LOOK)
            await self._look_at(answer.id)  # changes come in from now on; what came before is read

    def _leave(self, channel: Channel, answer_id: str) -> None:
        self._followed.pop(answer_id, None)
        if channel.running is not None and channel.running.answer.id == answer_id:
            channel.running = None

    async def catch_up(self, channel: Channel, *, before: int) -> None:
        """Tell what others did in the conversation up to place `before`, of which the changes may still be on the way.

        An answer begins here, so all before it have ended. Raises `StorageUnavailable`.
        """
        if channel.readers and channel.last_seq != before - 1:
            await self._tell_earlier(channel, before)
        if channel.running is not None:
            self._leave(channel, channel.running.answer.id)

    def _tell_end(self, channel: Channel, answer: Answer) -> None:
        self._followed.pop(answer.id, None)
        if not channel.has_finished(answer):
            channel.finish(answer)

    async def look(self) -> None:
        """Look at the followed answers that are due; to be called every `TICK` seconds."""
        now = asyncio.get_running_loop().time()
        for answer_id, followed in list(self._followed.items()):
            if not followed.channel.readers:
                self._leave(followed.channel, answer_id)
                continue
            if now < followed.due:
                continue
            followed.due = now + _LOOK_INTERVAL
            try:
                await self._look_at(answer_id)
            except StorageUnavailable:
                return

    async def changed(self, change: Change) -> None:
        """Something was stored by another process."""
        try:
            await self._apply(change)
        except StorageUnavailable:
            log.warning("a change cannot be read yet")  # the next look finds it

    async def resync(self) -> None:
        """Changes may have been missed. Raises `StorageUnavailable`: then they still are."""
        for channel in list(self._channels.values()):
            page = await self._reading.page(channel.conversation.key, limit=_RESYNC_MESSAGES, before=None)
            newest = next((message for message in reversed(page) if isinstance(message, Answer)), None)
            for message in page:
                if isinstance(message, Answer) and message is not newest and message.status is not Status.STREAMING:
                    self._tell_end(channel, message)  # what follows from it is on this page
                else:
                    await self._stored(channel, message)
        for followed in self._followed.values():
            followed.due = float("-inf")
        await self.look()

    async def _apply(self, change: Change) -> None:
        match change:
            case Appended(answer_id, text, length):
                followed = self._followed.get(answer_id)
                if followed is not None and not _append(followed.channel, answer_id, text, length):
                    await self._look_at(answer_id)
            case Ended(answer_id):
                if answer_id in self._followed:
                    await self._look_at(answer_id)
            case Stored(key, message):
                if key in self._channels:
                    await self._stored(self._channels[key], message)
            case Deleted(key):
                if key in self._channels:
                    self._deleted(self._channels[key])

    async def _stored(self, channel: Channel, message: Message) -> None:
        if channel.running is None and channel.last_seq < message.seq - 1:
            # What comes before it was not told here yet, or viewers are only just joining: an answer may be running.
            await self._tell_earlier(channel, message.seq)
        await self._take(channel, message)

    async def _tell_earlier(self, channel: Channel, before: int) -> None:
        """What is stored before the place `before`. What follows from an earlier end is there, too: not done again."""
        page = await self._reading.page(channel.conversation.key, limit=_RESYNC_MESSAGES, before=before)
        for message in page:
            if isinstance(message, Answer) and message.status is not Status.STREAMING:
                self._tell_end(channel, message)
            else:
                await self._take(channel, message)

    async def _take(self, channel: Channel, message: Message) -> None:
        if isinstance(message, UserMessage):
            channel.post(message)
        elif message.status is not Status.STREAMING:
            if not channel.has_finished(message):
                await self._ended(channel, message)
        elif not self._attempts.owns(message):
            before = channel.running
            if before is not None and before.answer.seq < message.seq:  # its end is stored, but was not told here yet
                if before.answer.id in self._followed:
                    await self._look_at(before.answer.id)
                else:
                    await self._settled(channel)
            await self.follow(channel, message)

    async def _look_at(self, answer_id: str) -> None:
        answer = await self._attempts.poll(self._followed[answer_id].channel.conversation.key, answer_id)
        if answer_id not in self._followed:
            return  # it ended while we looked
        channel = self._followed[answer_id].channel
        if answer is None:
            self._leave(channel, answer_id)
            self._deleted(channel)
            return
        _append(channel, answer_id, answer.content, len(answer.content))
        if answer.status is not Status.STREAMING:
            del self._followed[answer_id]
            await self._ended(channel, answer)


def _append(channel: Channel, answer_id: str, text: str, length: int) -> bool:
    """Add what is new of `text`, which ends at `length`; false if something before it is missing."""
    running = channel.running
    if running is None or running.answer.id != answer_id or length <= running.length:
        return True
    begin = length - len(text)
    if begin > running.length:
        return False
    channel.extend(running, [text[running.length - begin :]])
    return True
