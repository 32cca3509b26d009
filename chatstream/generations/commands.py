"""What users ask for besides watching: to post a message, to have it answered again, to stop an answer.

One answer runs in a conversation at a time; what becomes of a message meanwhile is decided here.
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

# How long `stop` waits for the end to be stored before it says that it does not come: the last look must be within the
# 4 s that a request may ask the database, or the database would be said not to answer. And how often it looks when
# another process generates (that one learns of it with its next checkpoint, within a second).
_STOP_TIMEOUT = 3.0
_STOP_LOOK_INTERVAL = 0.2
# Between finding that an answer runs, and stopping it or queueing behind it, that one can end and another begin: a few
# times in a row, if several clients are at it.
_BUSY_TRIES = 5


Admit = Callable[[Conversation, str, int, str], Awaitable[None]]
"""``(conversation, content, attempt, key)``: raises `Refused`, or `Unavailable` if nobody can say."""


class IfBusy(StrEnum):
    """What to do with a message while an answer runs."""

    REFUSE = "refuse"
    QUEUE = "queue"  # store it now, answer it when the running answer has ended
    INTERRUPT = "interrupt"  # stop the running answer


class Stopped(Struct, frozen=True, kw_only=True, rename="camel"):
    """How an answer that was to be stopped has ended. `upstream_cancelled`: our doing, not its own end.

    `usage` is of all that was generated, whatever was kept of it.
    """

    message_id: str
    status: Status
    content_length: int  # code points
    upstream_cancelled: bool
    usage: Usage | None = None


class Commands:
    """Decides and stores; what runs because of it, the hub runs."""

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
        """`answers` says whether another one may begin, `admit` whether a message is to be answered at all; `deciding`
        ends what waits."""
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
        """Store a user message, tell those who watch, and begin its answer, unless it waits for another one's end.

        With `background` that finishes though nobody watches; None is as the conversation has it. With `parent` it goes
        on from that message, or from none, and its branch is the one that is shown.

        Raises `AnswerInProgress`, `ConversationFull`, `NotFound`, `InvalidContent` (see `Posting.post`),
        `StorageUnavailable`; if no answer may begin now, `TooManyRequests` (`OverBudget`) or `Unavailable`; if a
        plug-in does not admit it, `Refused`, or `Unavailable` if that cannot be known. With `admitted` it is not asked.
        """
        if background is None:
            background = conversation.background
        try:
            spending = await self._budgets.spending(conversation, content)
            if not admitted:
                key = client_message_id or uuid.uuid4().hex
                await self._admit(_up_to(conversation, parent), content, 1, key)
        except (OverBudget, Refused, Unavailable):
            # What was accepted once is not refused when it is sent again.
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
                        await self._stop_running(conversation)
                        continue
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
                    return new
        raise AnswerInProgress("Other answers keep running in this conversation.")

    async def admit_first(self, conversation: Conversation, content: str) -> None:
        """Raises what `post` would because of plug-ins, for a conversation that is yet to be created."""
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
        """What `post` gave for the same message before, if it did.

        Raises `InvalidContent` if `client_message_id` was used for another content, `StorageUnavailable`.
        """
        posted = await self._posting.posted_before(conversation.key, content, client_message_id, parent)
        if posted is not None:
            await self._posted(conversation, posted, request_id)
        return posted

    @contextlib.contextmanager
    def _storing(self, conversation: Conversation) -> Iterator[None]:
        """If the result of a write is lost, those who watch hear of what was stored all the same."""
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
        if new.answer is not None:  # else it waits: the process that ends the running answer begins its answer
            self._hub.generate(conversation, new.answer, request_id, message=new.message)

    async def _is_forgotten(self, conversation: Conversation, answer: Answer | None) -> bool:
        """It was begun by this process for a request that never learned so, and was told 503."""
        if answer is None or not self._attempts.owns(answer) or self._hub.generates_in(conversation):
            return False
        # If it has just ended here, that is stored, and seen now, whatever was read before.
        stored = await self._reading.get(conversation.key, answer.id)
        running = isinstance(stored, Answer) and stored.status is Status.STREAMING
        return running and not self._hub.generates_in(conversation)

    async def withdraw(self, conversation: Conversation, message_id: str) -> None:
        """Take back a user message that waits for its turn, and tell those who watch. The same again does no harm.

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
        """A new attempt at answering the newest user message of the branch that is shown, or the one `message_id`.

        If it `continues`, it begins with the text of the newest attempt at that, or of the attempt `message_id`, which
        was cut, and goes on from there. Its branch is the one that is shown from then on.

        With `background` it finishes though nobody watches; None is as the message or the conversation has it. Who asks
        again for what was cut because nobody watched is not to lose it twice, and pay for a third: that finishes, too.

        Raises `AnswerInProgress`, `OverBudget`, `ConversationFull`, `NothingToAnswer`, `NothingToContinue`,
        `Refused`, `StorageUnavailable`, `TooManyRequests`, `Unavailable`; `InvalidContent` for a `message_id` of
        something else.
        """
        admitted: str | None = None  # the message, by its id
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
        raise AnswerInProgress("Other answers keep running in this conversation.")

    async def _to_answer(
        self, conversation: Conversation, message_id: str | None, *, continues: bool
    ) -> tuple[UserMessage, Answer | None, bool, Answer | None]:
        """The message to answer again and its newest attempt; whether the branch that is shown ends with the next one;
        the attempt to go on from, if it `continues`."""
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
            if asked is None:  # a later version wrote it, or the conversation is being deleted
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
        """End the answer that runs or waits, or say how `message_id` ended. Returns when the end is stored.

        With `seen_length` the text that is kept ends after so many code points, where the user's screen did. An answer
        that had ended before keeps what it has. `interrupted`: another message takes its place, and denies what it
        waits for.

        Raises `NothingRunning`, `NotFound`, `StorageUnavailable`; `StopPending` if the process that generates it does
        not respond.
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
                    continue  # to say how it has ended
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
    """The conversation as it is for a message with this `parent`: its branch ends there; None: it is empty."""
    if isinstance(parent, UnsetType):
        return conversation
    return replace(conversation, key="") if parent is None else replace(conversation, head=parent)


def _finishes(conversation: Conversation, message: UserMessage, previous: Answer | None) -> bool:
    """Another attempt finishes though nobody watches, unless its request says otherwise."""
    cut = previous is not None and previous.failure is not None and previous.failure.unwatched
    return conversation.background or message.background or cut
