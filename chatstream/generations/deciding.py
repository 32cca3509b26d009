"""Answers that wait: for a person who agrees to a call or does not, for an app that answers it, or for neither in time.

An answer waits in the store alone, and no process has it. Each decision is one conditional update of its log, so the
first one counts, whoever makes it and wherever. What is decided about is read from the log: nobody can send other
arguments along. With the last call that waits, whoever decided goes on with the answer: the same message, in this
process.
"""

import logging
from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import takewhile
from typing import NamedTuple

from msgspec.structs import replace

from chatstream.errors import AlreadyDecided, CallExpired, NotFound, NotWaiting, StorageUnavailable
from chatstream.generations.calls import CallBounds, cut, fitting
from chatstream.generations.hub import Hub
from chatstream.generations.rounds import Call, calls, settled, waits_until
from chatstream.logs import describe
from chatstream.metrics import Metrics
from chatstream.models import Answer, Conversation, Status
from chatstream.pieces import AWAITING, CallState, Piece, ToolCallPart, ToolResult, ToolState, fold, size
from chatstream.store.attempts import Attempts
from chatstream.store.documents import now
from chatstream.store.reading import Reading

log = logging.getLogger("chatstream.tools")

# How often what has waited for too long is looked for, in seconds: an answer that comes later than its time is refused
# all the same, so this is only how late the conversation goes on.
LOOK_FOR_OVERDUE = 2.0
# At once: a database that was away overnight has no more to say than that.
_AT_ONCE = 100
# Several decisions of the same moment are made one after the other: more than there are calls in a round.
_TRIES = 50

# What the model is told of a call that nobody agreed to, or answered.
DENIED = "Not carried out: the user did not agree to it."
INTERRUPTED = "Not carried out: the user did not agree to it, and wrote another message instead."
NOT_AGREED_IN_TIME = "Not carried out: nobody agreed to it in time."
NOT_ANSWERED_IN_TIME = "failed: the app did not answer in time."


_TOO_LATE = "The time in which this call could be decided is over."

Marks = Callable[[Call], list[Piece]]
IsSame = Callable[[Call], bool]
"""Whether what is to be said of the call was said before."""


class Decision(StrEnum):
    """What a person says to a call."""

    APPROVE = "approve"
    DENY = "deny"


class Decided(NamedTuple):
    """A call as it is now, the answer that has it, and the position behind what was asked."""

    call: ToolCallPart
    answer: Answer
    position: int


class Deciding:
    """Decides for all who wait, whichever process they came from."""

    def __init__(
        self, hub: Hub, attempts: Attempts, reading: Reading, metrics: Metrics, bounds: CallBounds | None = None
    ) -> None:
        """`bounds` are those of calls."""
        self._hub = hub
        self._attempts = attempts
        self._reading = reading
        self._metrics = metrics
        self._bounds = bounds or CallBounds()

    async def decide(
        self,
        conversation: Conversation,
        call_id: str,
        decision: Decision,
        *,
        reason: str | None = None,
        request_id: str | None = None,
    ) -> Decided:
        """Let a call be carried out, or not; the model is told the `reason` why not.

        The same decision again is no other one. Raises `AlreadyDecided`, `CallExpired`, `NotFound`, `NotWaiting`,
        `StorageUnavailable`.
        """

        def marks(call: Call) -> list[Piece]:
            by = conversation.user_id
            if decision is Decision.APPROVE:
                return [ToolState(id=call.id, name=call.name, state=CallState.APPROVED, decided_by=by)]
            text = f"{DENIED} They say: {reason}" if reason else DENIED
            return [
                ToolState(id=call.id, name=call.name, state=CallState.DENIED, decided_by=by, message=reason),
                ToolResult(id=call.id, output=text, failed=True, because=CallState.DENIED),
            ]

        def is_same(call: Call) -> bool:
            wanted = CallState.APPROVED if decision is Decision.APPROVE else CallState.DENIED
            return call.decision is not None and call.decision.state is wanted

        asked = CallState.AWAITING_APPROVAL
        return await self._decide(conversation, call_id, asked, marks, is_same, request_id)

    async def answer(
        self,
        conversation: Conversation,
        call_id: str,
        output: object,
        *,
        failed: bool = False,
        request_id: str | None = None,
    ) -> Decided:
        """What came of a call that the app carries out, or why it `failed`; once. Raises like `decide`."""
        most = self._bounds.output_characters
        given = cut(f"failed: {output}", most) if failed else fitting(output, most)

        def marks(call: Call) -> list[Piece]:
            return [ToolResult(id=call.id, output=given, failed=failed)]

        def is_same(call: Call) -> bool:
            return call.waited is CallState.AWAITING_CLIENT and (call.output, call.failed) == (given, failed)

        asked = CallState.AWAITING_CLIENT
        return await self._decide(conversation, call_id, asked, marks, is_same, request_id)

    async def _decide(
        self,
        conversation: Conversation,
        call_id: str,
        asked: CallState,
        marks: Marks,
        is_same: IsSame,
        request_id: str | None,
    ) -> Decided:
        """Append these marks of a call, if it is `asked` for that."""
        for _ in range(_TRIES):
            answer = await self._with_call(conversation, call_id)
            call = _call(answer, call_id)
            if answer.status is not Status.WAITING or call.state is not asked or call.is_over:
                self._refuse(answer, call, asked, is_same)
                await self._go_on_with_forgotten(conversation, answer, request_id)
                return _decided(answer, call_id, asked)
            if call.is_expired(now()):
                await self._expire(conversation, answer)
                raise CallExpired(_TOO_LATE)
            if (moved := await self._move_on(conversation, answer, marks(call), request_id)) is not None:
                after = _call(moved, call_id)
                self._note(call, after.decision.state.value if after.decision else "answered")
                return _decided(moved, call_id, asked)
        raise StorageUnavailable

    def _refuse(self, answer: Answer, call: Call, asked: CallState, is_same: IsSame) -> None:
        if is_same(call):
            return
        if call.waited is not asked:
            what = "a decision" if asked is CallState.AWAITING_APPROVAL else "the app's answer"
            raise NotWaiting(f"This call does not wait for {what}.")
        if call.because is CallState.EXPIRED:
            raise CallExpired(_TOO_LATE)
        if asked is CallState.AWAITING_APPROVAL and call.decision is not None:
            raise AlreadyDecided(f"This call has been {call.decision.state} before.")
        if asked is CallState.AWAITING_CLIENT and answer.status is not Status.STOPPED:
            raise AlreadyDecided("This call has been answered before.")
        raise NotWaiting("This call does not wait any more: its answer has ended.")

    async def _with_call(self, conversation: Conversation, call_id: str) -> Answer:
        """The newest answer that has this call: it is named after the attempt that made it, which a later one may have
        gone on from. Raises `NotFound`."""
        made_by = await self._reading.get(conversation.key, call_id.partition(".")[0])
        newest = made_by
        if isinstance(made_by, Answer) and made_by.status.is_final:
            newest = await self._reading.newest_attempt(conversation.key, made_by.reply_to)
        for answer in (newest, made_by):
            if isinstance(answer, Answer) and any(call.id == call_id for call in calls(answer.pieces)):
                return answer
        raise NotFound("There is no such call.")

    async def _move_on(
        self, conversation: Conversation, answer: Answer, marks: Sequence[Piece], request_id: str | None
    ) -> Answer | None:
        """Append `marks`; if nothing waits any more, go on here. None if somebody else was faster."""
        until = waits_until([*answer.pieces, *marks])
        moved = await self._attempts.move_on(conversation.key, answer, marks, until=until)
        if moved is None:
            return None
        if moved.status is Status.STREAMING:
            self._hub.go_on(conversation, moved, request_id)
        else:
            self._hub.waits_on(conversation, moved)
        return moved

    async def _go_on_with_forgotten(self, conversation: Conversation, answer: Answer, request_id: str | None) -> None:
        """Go on with an answer that an earlier request has made ours: that one was answered 503 before it knew."""
        if answer.status is not Status.STREAMING or not self._attempts.owns(answer):
            return
        if self._hub.generates_in(conversation):
            return
        stored = await self._reading.get(conversation.key, answer.id)
        if not isinstance(stored, Answer) or stored.status is not Status.STREAMING:
            return
        if not self._hub.generates_in(conversation):  # it may have begun meanwhile
            self._hub.go_on(conversation, stored, request_id)

    # Ends -------------------------------------------------------------------------------------------------------------

    async def stop(
        self, conversation: Conversation, answer: Answer, *, keep: int | None = None, interrupted: bool = False
    ) -> bool:
        """End an answer that waits, if it still does: what it waits for is not carried out.

        Of its text `keep` code points are kept, all of it without. `interrupted`: by another message, which denies what
        it waits for. Raises `StorageUnavailable`.
        """
        marks: list[Piece] = []
        for call in calls(answer.pieces) if interrupted else ():
            if call.state is CallState.AWAITING_APPROVAL and not call.is_over:
                denied, by = CallState.DENIED, conversation.user_id
                marks.append(ToolState(id=call.id, name=call.name, state=denied, decided_by=by))
                marks.append(ToolResult(id=call.id, output=INTERRUPTED, failed=True, because=denied))
        stopped = replace(answer, status=Status.STOPPED, unseen=False, waits_until=None)
        ended = settled(stopped.made_of([*answer.pieces, *marks])).seen_to(keep)
        if not await self._attempts.end_waiting(conversation, answer, ended):
            return False
        for call in calls(answer.pieces):
            if call.waits:
                self._note(call, "stopped")
        self._metrics.waiting_ended(ended.status, ended.usage, ended.model)
        await self._hub.orphan_ended(conversation.key, ended)
        return True

    async def look(self) -> None:
        """Go on with what nobody has decided in time; to be called every `LOOK_FOR_OVERDUE` seconds."""
        if self._hub.draining:
            return
        try:
            for key, answer_id in await self._attempts.overdue(now(), _AT_ONCE):
                await self._look_at(key, answer_id)
        except StorageUnavailable:
            pass  # the next time

    async def _look_at(self, key: str, answer_id: str) -> None:
        answer = await self._reading.get(key, answer_id)
        conversation = await self._reading.conversation(key)
        if not isinstance(answer, Answer) or conversation is None or answer.status is not Status.WAITING:
            return
        try:
            await self._expire(conversation, answer)
        except StorageUnavailable:
            raise
        except Exception as exc:  # noqa: BLE001 - one that cannot be gone on with must not keep the others
            facts = {"answer": answer.id}
            log.error("an answer that has waited cannot be gone on with: %s", describe(exc), extra={"facts": facts})

    async def _expire(self, conversation: Conversation, answer: Answer) -> None:
        over = [call for call in calls(answer.pieces) if call.waits and call.is_expired(now())]
        marks: list[Piece] = []
        for call in over:
            text = NOT_ANSWERED_IN_TIME
            if call.state is CallState.AWAITING_APPROVAL:
                text = NOT_AGREED_IN_TIME
                marks.append(ToolState(id=call.id, name=call.name, state=CallState.EXPIRED))
            marks.append(ToolResult(id=call.id, output=text, failed=True, because=CallState.EXPIRED))
        if over and await self._move_on(conversation, answer, marks, None) is not None:
            for call in over:
                self._note(call, "expired")

    def _note(self, call: Call, outcome: str) -> None:
        self._metrics.call_decided(outcome)
        log.info("tool call %s", outcome, extra={"facts": {"tool": call.name, "outcome": outcome, "key": call.id}})


def _call(answer: Answer, call_id: str) -> Call:
    """The call of this id, which `answer` has."""
    return next(one for one in calls(answer.pieces) if one.id == call_id)


def _decided(answer: Answer, call_id: str, asked: CallState) -> Decided:
    part = next(one for one in fold(answer.pieces) if isinstance(one, ToolCallPart) and one.tool_call_id == call_id)
    position = 0
    pieces = answer.pieces
    for number, piece in enumerate(pieces, start=1):
        if isinstance(piece, ToolState) and piece.id == call_id and piece.state is asked:
            position = size(pieces[:number])
            # What else the answer waits for was asked with it: whoever decides knows, and may have decided that, too.
            others = takewhile(_asks, pieces[number:])
            position += sum(1 for _ in others)
    return Decided(part, answer, position)


def _asks(piece: Piece) -> bool:
    return isinstance(piece, ToolState) and piece.state in AWAITING
