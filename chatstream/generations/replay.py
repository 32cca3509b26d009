"""The replay: the part of a conversation after a reader's cursor, sent before the reader follows the live log.

`read` reads the store, which takes time. The room then adds the reader to the log and, in the same step, replaces the
running answer by its current pieces (`Replay.with_pieces`). So the log continues exactly where the replay ends, without
a gap or a repetition, whatever happened during the read.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from chatstream import events
from chatstream.events import Cursor
from chatstream.formats.format import Format
from chatstream.generations.channel import Running
from chatstream.generations.entries import BEGINNING, END, Chunks, Ended, Entry, Place, Posted, Skip
from chatstream.models import Answer, Message, Status, UserMessage
from chatstream.pieces import Piece, at, cut, join
from chatstream.store.documents import FIRST_SEQ
from chatstream.store.reading import Reading

# The most messages and bytes of a replay. Further behind, a client should read the history instead (the protocol's
# numbers).
_MAX_MESSAGES = 100
_MAX_BYTES = 1024 * 1024  # a character takes one byte or more
# Messages to read for a client without a cursor: the newest one and, if that is a question, the answer before it.
NEWEST = 2


class PendingQuestion(NamedTuple):
    """A user message without a finished answer: it is the newest message, or the newest is an interrupted attempt at
    it."""

    message_id: str
    attempt: Answer | None  # the newest attempt, which was interrupted
    newest_seq: int
    question: UserMessage | None = None  # the user message, if it is the newest message
    nothing_runs: bool = False  # no answer ran when this was read, not even one that only a later version can read

    @property
    def background(self) -> bool:
        """Whether its answer finishes even if nobody watches."""
        asked = self.question or self.attempt
        return asked is not None and asked.background


class Replay(Struct, frozen=True, kw_only=True):
    """The entries after a cursor, and the position from which the reader follows the live log."""

    entries: Sequence[Entry]
    place: Place  # the live log continues after this place
    resumed: bool = False
    running: Answer | None = None  # the running or waiting answer, with its text as it was read
    position: int = 0  # the cursor's position in the running answer
    unseen: bool = False  # the entries include the end of an answer that nobody had seen
    pending: PendingQuestion | None = None
    running_before: Answer | None = None  # the running answer, if the cursor's message is queued behind it

    def nothing_comes(self, wire: Format) -> bool:
        """Whether the client gets nothing: no entry after the cursor in the format `wire`, no running answer, no
        pending question."""
        rests = self.running is not None and self.running.status is Status.WAITING and wire.one_answer
        comes = (None if rests else self.running) or self.pending or self.running_before
        return comes is None and not any(entry.frames(wire) for entry in self.entries)

    def with_pieces(self, running: Running) -> "Replay":
        """Return the replay with the current pieces of the running answer."""
        last = _so_far(running.answer, running.pieces, self.position)
        return replace(self, entries=[*self.entries[:-1], last], place=last.place or BEGINNING, running=running.answer)

    def reaching(self, seq: int, running: Running | None) -> "Replay":
        """Return the replay with a place that is not before the end of the message at position `seq`. It was read after
        `seq` was the newest position in the store, so it has all that can be read up to there.

        A message that was taken back keeps its position in the store and in the log, but is in no replay. Nor is an
        answer that a later version has changed so that this one cannot read it. If such an answer is the `running` one,
        which the room knows, the replay continues with the known pieces.
        """
        if self.running is not None or self.running_before is not None:
            return self  # the log goes on within this answer
        if running is not None and self.place < (running.answer.seq, 0) and running.answer.seq <= seq:
            last = _so_far(running.answer, running.pieces, 0)
            entries = [*self.entries, last]
            return replace(self, entries=entries, place=last.place or BEGINNING, running=running.answer, pending=None)
        return replace(self, place=max(self.place, (seq, END)))

    def with_ended(self, place: Place) -> "Replay":
        """Return the replay with the running answer as ended, if `place`, where the log already was before the read, is
        its end: a later version has given it a status that this one does not know."""
        if self.running is None or (self.running.seq, END) > place:
            return self
        return replace(self, running=None, place=(self.running.seq, END))


def in_progress(running: Running, cursor: Cursor | None) -> Replay | None:
    """Return the replay for a client without a cursor or with a cursor in the running answer; None if the store must be
    read.

    This is the usual way back after a short disconnect, and reads nothing.
    """
    if cursor is None:
        return _in_progress(running.answer, running.pieces, position=0)
    if cursor.message_id == running.answer.id and cursor.position >= 0:
        return _in_progress(running.answer, running.pieces, position=cursor.position, resumed=True)
    return None


async def read(
    reading: Reading, key: str, cursor: Cursor | None, wire: Format, newest: Sequence[Message] | None = None
) -> Replay:
    """Read the part of the conversation `key` after `cursor`, for a reader of `wire`. Raises `StorageUnavailable`.

    A cursor of another conversation, or one that is too far behind, is ignored. `newest` are the `NEWEST` newest
    messages, if the caller has them.
    """
    if cursor is not None:
        resumed = await _after(reading, key, cursor, wire)
        if resumed is not None:
            return resumed
        newest = None  # these are older than the read in `_after`
    return await _without_cursor(reading, key, newest)


async def _without_cursor(reading: Reading, key: str, page: Sequence[Message] | None) -> Replay:
    if page is None:
        page = await reading.page(key, limit=NEWEST, before=None)
    if not page:
        return Replay(entries=(), place=BEGINNING)
    newest = page[-1]
    if isinstance(newest, UserMessage):  # the message is queued, or no process has begun its answer
        running = await _runs_before(reading, key, page[:-1])
        if running is None:
            pending = PendingQuestion(newest.id, None, newest.seq, newest, _nothing_runs(newest, page[:-1]))
            return Replay(entries=(), place=(newest.seq, Cursor.USER), pending=pending)
        return _in_progress(running, running.pieces, position=0)
    if not newest.status.is_final:
        return replace(_in_progress(newest, newest.pieces, position=0), unseen=newest.unseen)
    return Replay(
        entries=(Ended(newest),) if newest.unseen and newest.next_model is None else (),
        place=(newest.seq, END),
        unseen=newest.unseen,
        pending=pending_question(newest),
    )


def _nothing_runs(question: UserMessage, before: Sequence[Message]) -> bool:
    """Whether no other answer can be running: the answer right before the question is in `before`, or there is none.

    Then the database need not be asked.
    """
    if question.seq == FIRST_SEQ:
        return True
    return bool(before) and isinstance(before[-1], Answer) and before[-1].seq == question.seq - 1


async def _runs_before(reading: Reading, key: str, before: Sequence[Message]) -> Answer | None:
    """Return the running answer of a conversation whose newest message is a user message. `before`: the message before
    it, if any."""
    if before and isinstance(before[0], UserMessage):
        return await reading.running(key)
    # No answer begins while another one runs: if the newest answer does not run, none does.
    return next((one for one in before if isinstance(one, Answer) and not one.status.is_final), None)


async def _after(reading: Reading, key: str, cursor: Cursor, wire: Format) -> Replay | None:
    messages: list[Message] = []
    place = BEGINNING
    if cursor.position != Cursor.START:
        own = await reading.get(key, cursor.message_id)
        if own is None or isinstance(own, UserMessage) != (cursor.position == Cursor.USER):
            return None
        messages.append(own)
        place = (own.seq, cursor.position)
    elif cursor.message_id != key:
        return None
    later = await reading.behind(key, after=place[0], messages=_MAX_MESSAGES, characters=_MAX_BYTES)
    if later is None:
        return None
    messages += later
    entries = []
    size = 0
    for entry in log_entries(messages, place):
        entries.append(entry)
        size += len(entry.frames(wire))
        if size > _MAX_BYTES:
            return None
    running = next((one for one in messages if isinstance(one, Answer) and not one.status.is_final), None)
    waiting = messages and place != BEGINNING and not any(isinstance(message, Answer) for message in messages)
    running_before = await reading.running(key) if waiting else None
    if running_before is not None and running_before.seq > messages[-1].seq:
        # This answer began after the first read, which has neither its question nor the answer. A second read has both.
        return await _after(reading, key, cursor, wire)
    return Replay(
        entries=entries,
        place=entries[-1].place or BEGINNING if entries else BEGINNING,
        resumed=True,
        running=running,
        position=max(0, cursor.position) if running is not None and running.id == cursor.message_id else 0,
        unseen=any(isinstance(message, Answer) and message.unseen for message in messages),
        pending=pending_question(messages[-1]) if messages and not (running or running_before) else None,
        running_before=running_before,
    )


def log_entries(messages: Sequence[Message], place: Place) -> Iterator[Entry]:
    """Yield the messages as log entries after `place`, in order, up to and including the running answer.

    `place` lies in the first of the messages, or before it.
    """
    newest_attempts = {answer.reply_to: answer.id for answer in messages if isinstance(answer, Answer)}
    for message in messages:
        own = message.seq == place[0]
        position = place[1] if own else 0
        if isinstance(message, UserMessage):
            yield Skip((message.seq, Cursor.USER)) if own else Posted(message)
        elif not message.status.is_final:
            yield _so_far(message, message.pieces, position)
            return  # later messages follow its end, in the live log
        elif own or (_counts(message, newest_attempts) and not _is_to_be_replaced(message, messages[-1])):
            yield from _finished(message, position)
        else:
            yield Skip((message.seq, END))


def _counts(answer: Answer, newest_attempts: Mapping[str, str]) -> bool:
    """Whether an attempt is in the replay. Not if it is superseded, or was cut before its first text and is retried
    automatically."""
    superseded = newest_attempts[answer.reply_to] != answer.id
    return not superseded and (answer.content != "" or not answer.begins_again)


def _is_to_be_replaced(answer: Answer, newest: Message) -> bool:
    """Whether another model is about to replace this answer: then only the new answer is sent."""
    return answer.next_model is not None and answer is newest


def _in_progress(answer: Answer, pieces: Sequence[Piece], *, position: int, resumed: bool = False) -> Replay:
    entry = _so_far(answer, pieces, position)
    return Replay(entries=(entry,), place=entry.place or BEGINNING, resumed=resumed, running=answer, position=position)


def _so_far(answer: Answer, pieces: Sequence[Piece], position: int) -> Entry:
    """Return the entry of an unfinished answer after `position`. `position` may be past the known text: the reader then
    joins the log there."""
    rest = join(cut(pieces, position))
    waits = answer.status is Status.WAITING
    return Chunks(answer, rest, at(pieces, position), waits=waits) if rest else Skip((answer.seq, position))


def _finished(answer: Answer, position: int) -> Iterator[Entry]:
    """Yield the entries of a finished answer after `position`: its chunks, one for each part, and its end."""
    if position >= events.last(answer).position:
        yield Skip((answer.seq, END))  # the client already has the end; this only moves its position
        return
    pieces = answer.pieces
    if rest := cut(pieces, position):
        yield Chunks(answer, rest, at(pieces, position))
    # If another attempt follows, some formats send nothing to a client that has nothing of this one.
    yield Ended(answer, position if answer.begins_again else max(position, answer.length))


def pending_question(newest: Message) -> PendingQuestion | None:
    """Return the question that still needs an answer, if the conversation's newest message is `newest`."""
    if isinstance(newest, UserMessage):
        return PendingQuestion(newest.id, None, newest.seq, newest)
    return PendingQuestion(newest.reply_to, newest, newest.seq) if newest.begins_again else None
