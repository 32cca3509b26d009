"""The requests of users besides watching: post a message, answer it again, take it back, stop an answer.

A conversation runs one answer at a time; this module decides what happens to a message that arrives meanwhile.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Iterator
from enum import StrEnum

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from chatstream.errors import (
    AnswerInProgress,
    InvalidContent,
    NotFound,
    NothingRunning,
    NothingToAnswer,
    NothingToContinue,
    OverBudget,
    StopPending,
    StorageUnavailable,
    Unavailable,
)
from chatstream.generations.budgets import Budgets
from chatstream.generations.continuing import is_cut
from chatstream.generations.deciding import Deciding
from chatstream.generations.hub import Hub
from chatstream.limits import Answers
from chatstream.models import Answer, Conversation, Message, Status, Usage, UserMessage
from chatstream.plugins.plugin import Refused
from chatstream.store.attempts import Attempts
from chatstream.store.posting import Posted, Posting
from chatstream.store.reading import Reading

# Seconds that `stop` waits for the answer's end to be stored before it raises `StopPending`. Its last poll must be
# within the 4 s that a request may use the database; later, the database would be reported as unavailable. Below:
# seconds between its polls when another process generates; that process reads the stop with its next checkpoint, within
# a second.
_STOP_TIMEOUT = 3.0
_STOP_LOOK_INTERVAL = 0.2
# How often a post is retried because the running answer ended and another began in between. It can happen a few times
# in a row if several clients post.
_BUSY_TRIES = 5


Admit = Callable[[Conversation, str, int, str], Awaitable[None]]
"""``(conversation, content, attempt, key)``: raises `Refused`, or `Unavailable` if a plug-in cannot decide."""


class IfBusy(StrEnum):
    """The action for a message that arrives while an answer runs."""

    REFUSE = "refuse"
    QUEUE = "queue"  # store it now, answer it when the running answer has ended
    INTERRUPT = "interrupt"  # stop the running answer


class Stopped(Struct, frozen=True, kw_only=True, rename="camel"):
    """How the answer has ended. `upstreamCancelled`: this stop ended the request to the model; otherwise the answer had
    ended before. `usage` covers all generated text, even if only a part of it was kept.
    """

    message_id: str
    status: Status
    content_length: int  # code points
    upstream_cancelled: bool
    usage: Usage | None = None


class Commands:
    """Decides what a request does and stores it; the hub then runs the answer."""

    def __init__(
        self,
        hub: Hub,
        posting: Posting,
        attempts: Attempts,
        reading: Reading,
        answers: Answers,
        admit: Admit,
        deciding: Deciding,
        budgets: Budgets | None = None,
    ) -> None:
        """`answers` decides whether another answer may begin; `admit`, whether a message is answered at all; `deciding`
        ends answers that wait."""
        self._deciding = deciding
        self._budgets = budgets or Budgets()
        self._admit = admit
        self._hub = hub
        self._posting = posting
        self._attempts = attempts
        self._reading = reading
        self._answers = answers

    async def post(
        self,
        conversation: Conversation,
        content: str,
        *,
        request_id: str,
        client_message_id: str | None = None,
        if_busy: IfBusy = IfBusy.REFUSE,
        admitted: bool = False,
        background: bool | None = None,
        parent: str | UnsetType | None = UNSET,
    ) -> Posted:
        """Store a user message, publish it, and begin its answer, unless it must wait for a running one.

        With `background` the answer finishes even if nobody watches; None takes the conversation's value. `parent` is
        the message that this one follows, or None for the root; the branch of the new message is then shown.

        Raises `AnswerInProgress`, `ConversationFull`, `NotFound`, `InvalidContent` (see `Posting.post`),
        `StorageUnavailable`; `TooManyRequests` (`OverBudget`) or `Unavailable` if no answer may begin now; `Refused` if
        a plug-in does not admit the message, or `Unavailable` if it cannot decide. With `admitted` the plug-ins are not
        asked.
        """
        if background is None:
            background = conversation.background
        try:
            spending = await self._budgets.spending(conversation, content)
            if not admitted:
                key = client_message_id or uuid.uuid4().hex
                await self._admit(_up_to(conversation, parent), content, 1, key)
        except (OverBudget, Refused, Unavailable):
            # A message that was accepted before is not refused when the client sends it again.
            if client_message_id is None:
                raise
            known = await self.repeat(
                conversation, content, request_id=request_id, client_message_id=client_message_id, parent=parent
            )
            if known is None:
                raise
            return known
        with (
            self._answers.take(conversation.user_id),
            self._budgets.remembering(conversation.user_id),
            self._storing(conversation),
        ):
            for _ in range(_BUSY_TRIES):
                replaced: str | None = None
                try:
                    new: Posted | None = await self._posting.post(
                        conversation,
                        content,
                        client_message_id=client_message_id,
                        background=background,
                        spending=spending,
                        parent=parent,
                    )
                except AnswerInProgress:
                    if if_busy is IfBusy.REFUSE:
                        raise
                    if if_busy is IfBusy.INTERRUPT:
                        await self._budgets.confirm(spending)
                        replaced = await self._running_before_queue(conversation)
                        if replaced is None:
                            await self._stop_running(conversation)
                            continue
                        # Stopped first, it would be followed by an answer to the queued message, which would be stopped
                        # at once, and paid for. Queued behind that message, this one is the one that is answered.
                    new = await self._posting.add(
                        conversation,
                        content,
                        client_message_id=client_message_id,
                        background=background,
                        parent=parent,
                        behind_running=True,
                    )
                if new is not None:
                    await self._posted(conversation, new, request_id)
                    if replaced is not None:
                        # If the stop fails, the message is stored all the same, and will be answered.
                        with contextlib.suppress(NothingRunning, NotFound, StopPending, StorageUnavailable):
                            await self.stop(conversation, replaced, interrupted=True)
                    return new
        raise AnswerInProgress("Another answer started first. Try again.")

    async def admit_first(self, conversation: Conversation, content: str) -> None:
        """Check with the plug-ins the first message of a conversation that is not created yet. Raises the same as
        `post`."""
        await self._admit(conversation, content, 1, uuid.uuid4().hex)

    async def repeat(
        self,
        conversation: Conversation,
        content: str,
        *,
        request_id: str,
        client_message_id: str,
        parent: str | UnsetType | None = UNSET,
    ) -> Posted | None:
        """Return the earlier result of `post` for the same message, or None.

        Raises `InvalidContent` if `client_message_id` was used with different content, and `StorageUnavailable`.
        """
        posted = await self._posting.posted_before(conversation.key, content, client_message_id, parent)
        if posted is not None:
            await self._posted(conversation, posted, request_id)
        return posted

    @contextlib.contextmanager
    def _storing(self, conversation: Conversation) -> Iterator[None]:
        """If the result of a write is lost, read the store so that viewers are still sent what was stored."""
        try:
            yield
        except StorageUnavailable:
            self._hub.may_have_stored(conversation)
            raise

    async def _posted(self, conversation: Conversation, new: Posted, request_id: str) -> None:
        if new.repeated and not await self._is_forgotten(conversation, new.answer):
            return
        if not isinstance(new.message.parent, UnsetType) and not new.repeated:
            conversation = replace(conversation, head=new.message.id)
        if new.answer is not None:  # otherwise it is queued: the process that ends the running answer begins its answer
            self._hub.generate(conversation, new.answer, request_id, message=new.message)

    async def _is_forgotten(self, conversation: Conversation, answer: Answer | None) -> bool:
        """Whether this process stored `answer` for a request that timed out with 503, and nobody is generating it."""
        if answer is None or not self._attempts.owns(answer) or self._hub.generates_in(conversation):
            return False
        # If the answer has just ended here, its end is stored: read it again, since `answer` may be older.
        stored = await self._reading.get(conversation.key, answer.id)
        running = isinstance(stored, Answer) and stored.status is Status.STREAMING
        return running and not self._hub.generates_in(conversation)

    async def withdraw(self, conversation: Conversation, message_id: str) -> None:
        """Take back a queued user message, and publish that. Repeating it does no harm.

        Raises `NotFound`, `NotQueued` if its answer has begun, `StorageUnavailable`.
        """
        head = await self._posting.withdraw(conversation, message_id)
        self._hub.withdrawn(conversation, message_id)
        if head is not None:
            self._hub.branch_shown(replace(conversation, head=head))

    async def regenerate(
        self,
        conversation: Conversation,
        *,
        request_id: str,
        if_busy: IfBusy = IfBusy.REFUSE,
        background: bool | None = None,
        message_id: str | None = None,
        continues: bool = False,
    ) -> Answer:
        """Begin a new attempt at the newest user message of the shown branch, or at the message `message_id`.

        With `continues`, the attempt begins with the text of a cut attempt and goes on from there: of the newest
        attempt, or of the attempt `message_id`. The new attempt's branch is shown from then on.

        With `background` it finishes even if nobody watches; None takes the value of the message or the conversation,
        and is true if the attempt before was cut because nobody watched: the user should not lose it twice and pay for
        a third.

        Raises `AnswerInProgress`, `OverBudget`, `ConversationFull`, `NothingToAnswer`, `NothingToContinue`, `Refused`,
        `StorageUnavailable`, `TooManyRequests`, `Unavailable`; `InvalidContent` if `message_id` is not a message of the
        right kind.
        """
        admitted: str | None = None  # the id of the message that the plug-ins admitted
        spending = await self._budgets.spending(conversation)
        with (
            self._answers.take(conversation.user_id),
            self._budgets.remembering(conversation.user_id),
            self._storing(conversation),
        ):
            for _ in range(_BUSY_TRIES):
                newest = await self._reading.newest(conversation.key)
                message, previous, is_shown, cut = await self._to_answer(conversation, message_id, continues=continues)
                newest_seq = max(one.seq for one in (newest, previous, message) if one is not None)
                self._posting.check_room(newest_seq + 1)
                if message.id != admitted:
                    await self._admit(
                        conversation, message.content, previous.attempt + 1 if previous else 1, message.id
                    )
                    admitted = message.id
                try:
                    answer = await self._attempts.begin(
                        conversation.key,
                        message.id,
                        previous=previous,
                        newest_seq=newest_seq,
                        background=_finishes(conversation, message, previous) if background is None else background,
                        spending=spending,
                        continues=None if cut is None else cut.id,
                        shown_in=None if is_shown else conversation,
                    )
                except AnswerInProgress:
                    if if_busy is IfBusy.REFUSE:
                        raise
                    await self._budgets.confirm(spending)
                    await self._stop_running(conversation)
                    continue
                if not is_shown:
                    conversation = replace(conversation, head=message.id)
                    self._hub.branch_shown(conversation)
                self._hub.regenerate(conversation, answer, request_id, question=message)
                return answer
        raise AnswerInProgress("Another answer started first. Try again.")

    async def _to_answer(
        self, conversation: Conversation, message_id: str | None, *, continues: bool
    ) -> tuple[UserMessage, Answer | None, bool, Answer | None]:
        """Return the message to answer again; its newest attempt; whether the new attempt is on the shown branch; and,
        with `continues`, the attempt to continue."""
        key = conversation.key
        of_newest = await self._reading.newest_question(key) if conversation.head is None else None
        named = message_id or conversation.head
        if named is None:
            if of_newest is None:
                raise NothingToAnswer("This conversation has no user message yet.")
            message, previous = of_newest
            found: Message | None = previous if continues else message
        else:
            found = await self._reading.get(key, named)
            wanted = Answer if continues else UserMessage
            if message_id is not None and not isinstance(found, wanted):
                what = "an answer" if continues else "a user message"
                raise InvalidContent.of("messageId", f"must be {what} of this conversation")
            asked = found if isinstance(found, UserMessage) else None
            if isinstance(found, Answer):
                answered = await self._reading.get(key, found.reply_to)
                asked = answered if isinstance(answered, UserMessage) else None
            if asked is None:  # written by a newer version, or the conversation is being deleted
                raise NothingToAnswer("There is no user message to answer.")
            message, previous = asked, await self._reading.newest_attempt(key, asked.id)
            found = found if isinstance(found, Answer) else previous
        shown = conversation.head or (of_newest and of_newest[0].id)
        if not continues:
            return message, previous, shown == message.id, None
        if not isinstance(found, Answer) or not is_cut(found):
            if isinstance(found, Answer) and not found.status.is_final:
                raise AnswerInProgress("The answer is still running.")
            raise NothingToContinue("The answer was not cut off, or it has no text yet: there is nothing to continue.")
        return message, previous, shown == message.id, found

    async def _running_before_queue(self, conversation: Conversation) -> str | None:
        """The id of the running answer, if a message is queued behind it; else None."""
        running = await self._reading.running(conversation.key)
        return running.id if running is not None and running.queued else None

    async def _stop_running(self, conversation: Conversation) -> None:
        with contextlib.suppress(NothingRunning):  # it has just ended
            await self.stop(conversation, None, interrupted=True)

    async def stop(
        self,
        conversation: Conversation,
        message_id: str | None,
        seen_length: int | None = None,
        *,
        interrupted: bool = False,
    ) -> Stopped:
        """Stop the answer that runs or waits, or return how `message_id` ended. Returns when the end is stored.

        With `seen_length` the text is cut after this many code points, which is what the user's screen showed. An
        answer that had already ended keeps all its text. `interrupted`: another message replaces the answer, so the
        calls that it waits for are denied.

        Raises `NothingRunning`, `NotFound`, `StorageUnavailable`; `StopPending` if the process that generates the
        answer does not respond.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + _STOP_TIMEOUT
        here = await self._hub.stop(conversation, message_id, _STOP_TIMEOUT, seen_length)
        id_ = here or message_id or await self._running(conversation)
        asked = False
        while True:
            answer = await self._reading.get(conversation.key, id_)
            if not isinstance(answer, Answer):
                raise NotFound("There is no such answer.")
            if answer.status.is_final:
                ours = here is not None or asked
                return Stopped(
                    message_id=answer.id,
                    status=answer.status,
                    content_length=len(answer.content),
                    upstream_cancelled=ours and answer.status is Status.STOPPED,
                    usage=answer.usage,
                )
            if answer.status is Status.WAITING:
                if await self._deciding.stop(conversation, answer, keep=seen_length, interrupted=interrupted):
                    asked = True
                    continue  # poll again, to return how it ended
            elif not asked:
                await self._attempts.request_stop(conversation.key, id_, seen_length)
                asked = True
            if now() >= deadline:
                raise StopPending if asked else StorageUnavailable
            if answer.status is not Status.WAITING:
                await asyncio.sleep(_STOP_LOOK_INTERVAL)

    async def _running(self, conversation: Conversation) -> str:
        running = await self._reading.running(conversation.key)
        if running is None:
            raise NothingRunning("No answer is running in this conversation.")
        return running.id


def _up_to(conversation: Conversation, parent: str | UnsetType | None) -> Conversation:
    """Return the conversation as seen by a message with this `parent`: its branch ends there. With the parent None, the
    branch is empty."""
    if isinstance(parent, UnsetType):
        return conversation
    return replace(conversation, key="") if parent is None else replace(conversation, head=parent)


def _finishes(conversation: Conversation, message: UserMessage, previous: Answer | None) -> bool:
    """Whether a new attempt finishes even if nobody watches, unless its request says otherwise."""
    cut = previous is not None and previous.failure is not None and previous.failure.unwatched
    return conversation.background or message.background or cut
