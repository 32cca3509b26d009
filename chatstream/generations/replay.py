"""What a reader is given before it reads the live log: the part of the conversation that lies behind its cursor.

The reader has been put at the end of the live log, and the running answer's text noted, *before* anything is read from
the store. So whatever is missing in the store will come in the log, and whatever is in both is told apart by its place:
no gap and no double, at any moment.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from chatstream import events
from chatstream.events import Cursor
from chatstream.formats.format import Format
from chatstream.generations.channel import Running
from chatstream.generations.entries import BEGINNING, END, Chunks, Ended, Entry, Place, Posted, Silence
from chatstream.models import Answer, Message, Status, UserMessage
from chatstream.store.reading import Reading

# Further behind than this, history is the better way to catch up (the protocol's numbers).
_MAX_MESSAGES = 100
_MAX_BYTES = 1024 * 1024


class Snapshot(NamedTuple):
    """The running answer as it was when the reader joined the live log."""

    running: Running
    parts: int

    @classmethod
    def of(cls, running: Running | None) -> "Snapshot | None":
        """Of the answer that runs now, if one does."""
        return cls(running, len(running.parts)) if running else None

    @property
    def answer(self) -> Answer:
        """Which one it is."""
        return self.running.answer

    def text(self) -> str:
        """The text it had."""
        return self.running.text(self.parts)


class Owed(NamedTuple):
    """A user message that wants an answer: the newest message of the conversation is itself, or an attempt at it."""

    message_id: str
    attempt: Answer | None  # the newest one, which was interrupted
    newest_seq: int
    question: UserMessage | None = None  # the user message itself, if it is the newest


class Replay(Struct, frozen=True, kw_only=True):
    """The entries behind a cursor, and what else the reader has to know."""

    entries: Sequence[Entry]
    place: Place  # the live log goes on after it
    resumed: bool = False
    running: Answer | None = None  # the answer that runs, with its text as it was read
    unseen: bool = False  # the entries have the end of an answer that nobody had seen
    owed: Owed | None = None

    def nothing_comes(self, wire: Format) -> bool:
        """Nothing is behind the cursor that `wire` can say, nothing runs and nothing is owed."""
        return self.running is None and self.owed is None and not any(entry.frames(wire) for entry in self.entries)


async def replay(reading: Reading, key: str, cursor: Cursor | None, snapshot: Snapshot | None, wire: Format) -> Replay:
    """The part of the conversation `key` that comes after `cursor`, for who reads `wire`; raises `StorageUnavailable`.

    A cursor that is not of this conversation, or too far behind, is as none.
    """
    if cursor is not None:
        resumed = await _after(reading, key, cursor, snapshot, wire)
        if resumed is not None:
            return resumed
    return await _without_cursor(reading, key, snapshot)


async def _without_cursor(reading: Reading, key: str, snapshot: Snapshot | None) -> Replay:
    if snapshot is not None:
        return _in_progress(snapshot.answer, snapshot.text(), position=0)
    page = await reading.page(key, limit=2, before=None)
    if not page:
        return Replay(entries=(), place=BEGINNING)
    newest = page[-1]
    if isinstance(newest, UserMessage):  # it waits for its turn, or for anybody to answer it
        running = await _runs_before(reading, key, page[:-1])
        if running is None:
            return Replay(entries=(), place=(newest.seq, Cursor.USER), owed=owed_by(newest))
        return _in_progress(running, running.content, position=0)
    if newest.status is Status.STREAMING:
        return _in_progress(newest, newest.content, position=0)
    return Replay(
        entries=(Ended(newest),) if newest.unseen else (),
        place=(newest.seq, END),
        unseen=newest.unseen,
        owed=owed_by(newest),
    )


async def _runs_before(reading: Reading, key: str, before: Sequence[Message]) -> Answer | None:
    """The answer that runs where a user message is the newest, and the one right `before` it is this one, if any."""
    if before and isinstance(before[0], UserMessage):
        return await reading.running(key)
    # No answer begins while another one runs: if the newest one does not, none does.
    return next((one for one in before if isinstance(one, Answer) and one.status is Status.STREAMING), None)


async def _after(reading: Reading, key: str, cursor: Cursor, snapshot: Snapshot | None, wire: Format) -> Replay | None:
    if snapshot is not None and cursor.message_id == snapshot.answer.id and cursor.position >= 0:
        # The way back after a short break, and so the common one: nothing is read from the store.
        return _in_progress(snapshot.answer, snapshot.text(), position=cursor.position, resumed=True)
    told: list[Message] = []
    if cursor.position != Cursor.START:
        own = await reading.get(key, cursor.message_id)
        if own is None or isinstance(own, UserMessage) != (cursor.position == Cursor.USER):
            return None
        told.append(own)
    elif cursor.message_id != key:
        return None
    later = await reading.after(key, told[0].seq if told else BEGINNING[0], limit=_MAX_MESSAGES + 1)
    if len(later) > _MAX_MESSAGES:
        return None
    told += later
    running = next((one for one in told if isinstance(one, Answer) and _runs(one, snapshot)), None)
    entries = list(_tell(told, cursor, snapshot))
    if sum(len(entry.frames(wire)) for entry in entries) > _MAX_BYTES:
        return None
    return Replay(
        entries=entries,
        place=entries[-1].place or BEGINNING if entries else BEGINNING,
        resumed=True,
        running=running,
        unseen=any(isinstance(message, Answer) and message.unseen for message in told),
        owed=owed_by(told[-1]) if told and not running else None,
    )


def _tell(told: Sequence[Message], cursor: Cursor, snapshot: Snapshot | None) -> Iterator[Entry]:
    """The messages as entries, up to and with the running answer; of the cursor's own message what comes after it."""
    newest_attempts = {answer.reply_to: answer.id for answer in told if isinstance(answer, Answer)}
    for message in told:
        own = message.id == cursor.message_id
        position = cursor.position if own else 0
        if isinstance(message, UserMessage):
            yield Silence((message.seq, Cursor.USER)) if own else Posted(message)
        elif _runs(message, snapshot):
            known = snapshot is not None and snapshot.answer.id == message.id
            yield _so_far(message, snapshot.text() if snapshot and known else message.content, position)
            return  # what was posted in the meantime comes after its end, in the live log
        elif own or _counts(message, newest_attempts):
            yield from _finished(message, position)


def _runs(answer: Answer, snapshot: Snapshot | None) -> bool:
    """The answer of the snapshot counts as running, also if it has ended since: its end is in the live log."""
    return answer.status is Status.STREAMING or (snapshot is not None and snapshot.answer.id == answer.id)


def _counts(answer: Answer, newest_attempts: Mapping[str, str]) -> bool:
    """Superseded attempts, and those cut before their first word, are not told to whoever comes later."""
    superseded = newest_attempts[answer.reply_to] != answer.id
    return not superseded and (answer.status is not Status.INTERRUPTED or answer.content != "")


def _in_progress(answer: Answer, text: str, *, position: int, resumed: bool = False) -> Replay:
    entry = _so_far(answer, text, position)
    return Replay(entries=(entry,), place=entry.place or BEGINNING, resumed=resumed, running=answer)


def _so_far(answer: Answer, text: str, position: int) -> Entry:
    """The running answer's text after `position`, which may lie beyond what is known here: the log is joined there."""
    if position >= len(text):
        return Silence((answer.seq, position))
    return Chunks(answer, [text[position:]], position)


def _finished(answer: Answer, position: int) -> Iterator[Entry]:
    """A finished answer after `position`: one chunk and its end."""
    if position >= events.ending(answer)[-1][0].position:
        yield Silence((answer.seq, END))  # not an end: whoever has it already waits for what comes next
        return
    if position < len(answer.content):
        yield Chunks(answer, [answer.content[position:]], position)
    yield Ended(answer, max(position, len(answer.content)))


def owed_by(newest: Message) -> Owed | None:
    """What is owed in a conversation whose newest message this is."""
    if isinstance(newest, UserMessage):
        return Owed(newest.id, None, newest.seq, newest)
    return Owed(newest.reply_to, newest, newest.seq) if newest.status is Status.INTERRUPTED else None
