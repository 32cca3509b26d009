"""Decisions about answers that wait: a person approves or denies a call or answers a tool's question, an app answers a
call, or its time runs out.

An answer that waits exists in the store alone; no process owns it. Each decision is one conditional update of its log,
so the first decision counts, in whichever process. The call's arguments are read from the log: no request can replace
them. After the last pending decision, the process that took it continues the answer, as the same message.

One exception: some tools can ask the user only while their call stays open. Then the process with the open call
continues the answer. If it does not do so within `_TAKE_OVER` seconds, since it is gone, any process does.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from itertools import takewhile
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from chatstream.errors import (
    AlreadyDecided,
    CallExpired,
    InvalidContent,
    NotFound,
    NotWaiting,
    StorageUnavailable,
)
from chatstream.generations.calls import CallBounds, answered, cut, fitting, question
from chatstream.generations.hub import Hub
from chatstream.generations.rounds import Call, calls, settled, waits_until
from chatstream.logs import describe
from chatstream.metrics import Metrics
from chatstream.models import Answer, Conversation, Status
from chatstream.pieces import AWAITING, CallState, Piece, ToolCallPart, ToolResult, ToolState, fold, size
from chatstream.store.attempts import Attempts
from chatstream.store.documents import now
from chatstream.store.reading import Reading
from chatstream.tools.tool import BadArguments, Tools

log = logging.getLogger("chatstream.tools")

# Seconds between two searches for expired calls. A late decision is refused in any case, so this is only the delay
# until the conversation continues.
LOOK_FOR_OVERDUE = 2.0
# The most expired answers per search: enough after a night without the database.
_AT_ONCE = 100
# Tries of a decision while others are being stored for the same answer: more than a round has calls.
_TRIES = 50

# Seconds for the process with an open call to continue its answer: it looks every `LOOK_FOR_OVERDUE` seconds.
_TAKE_OVER = 5 * LOOK_FOR_OVERDUE

# Results that the model gets for calls that were denied or not answered.
DENIED = "Not carried out: the user did not agree to it."
INTERRUPTED = "Not carried out: the user did not agree to it, and wrote another message instead."
NOT_AGREED_IN_TIME = "Not carried out: nobody agreed to it in time."
NOT_ANSWERED_IN_TIME = "failed: the app did not answer in time."
NO_INPUT_IN_TIME = "Not carried out: nobody answered in time what was asked before."
NOBODY_ANSWERED = "Nobody answered in time."


_TOO_LATE = "The time in which this call could be decided is over."

Marks = Callable[[Call], list[Piece]]
IsSame = Callable[[Call], bool]
"""Returns whether a call already has this decision or answer."""


class Decision(StrEnum):
    """A person's decision about a call."""

    APPROVE = "approve"
    DENY = "deny"


class Action(StrEnum):
    """A person's response to a tool's question, as in MCP."""

    ACCEPT = "accept"
    DECLINE = "decline"
    CANCEL = "cancel"


class Decided(NamedTuple):
    """The result of a decision: the call's state, its answer, and the position after the answer's requests for
    decisions.
    """

    call: ToolCallPart
    answer: Answer
    position: int


class Deciding:
    """Stores decisions, for calls of any process."""

    def __init__(
        self,
        hub: Hub,
        attempts: Attempts,
        reading: Reading,
        metrics: Metrics,
        bounds: CallBounds | None = None,
        tools: Tools | None = None,
    ) -> None:
        """`bounds` are the limits of the calls, `tools` those of this process."""
        self._hub = hub
        self._attempts = attempts
        self._reading = reading
        self._metrics = metrics
        self._bounds = bounds or CallBounds()
        self._tools = tools or Tools()
        self._known: dict[str, int] = {}  # the lengths of the waiting answers with open calls, when they were read last

    async def decide(
        self,
        conversation: Conversation,
        call_id: str,
        decision: Decision,
        *,
        reason: str | None = None,
        request_id: str | None = None,
    ) -> Decided:
        """Approve or deny a call. The model is given the `reason` for a denial.

        Repeating the same decision has no effect. Raises `AlreadyDecided`, `CallExpired`, `NotFound`, `NotWaiting`,
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
        """Store the app's result of a call, or why it `failed`; only once. Raises the same errors as `decide`."""
        most = self._bounds.output_characters
        given = cut(f"failed: {output}", most) if failed else fitting(output, most)

        def marks(call: Call) -> list[Piece]:
            return [ToolResult(id=call.id, output=given, failed=failed)]

        def is_same(call: Call) -> bool:
            return call.waited is CallState.AWAITING_CLIENT and (call.output, call.failed) == (given, failed)

        asked = CallState.AWAITING_CLIENT
        return await self._decide(conversation, call_id, asked, marks, is_same, request_id)

    async def reply(
        self,
        conversation: Conversation,
        call_id: str,
        question_id: str,
        action: Action,
        content: Mapping[str, Any] | None = None,
        *,
        request_id: str | None = None,
    ) -> Decided:
        """Answer a tool's question to the user; only once. `content` goes with `ACCEPT`, and matches the question's
        schema. Raises the same errors as `decide`, and `InvalidContent`."""
        if content is not None:
            content = msgspec.json.decode(msgspec.json.encode(content))  # NaN, which is no JSON, becomes null
        given = {"action": action.value} | ({} if content is None else {"content": content})

        def marks(call: Call) -> list[Piece]:
            asked = call.asked[-1]
            _check(asked, action, content, self._bounds.argument_characters)
            text = msgspec.json.encode(given).decode()
            answered = ToolState(
                id=call.id,
                name=call.name,
                state=CallState.ANSWERED,
                decided_by=conversation.user_id,
                question_id=question_id,
                answer=text,
            )
            if not asked.rest:
                return [answered]
            also = question(call, asked.rest, carry=asked.carry, held_by=asked.held_by, until=asked.expires_at)
            return [answered, also]

        def is_same(call: Call) -> bool:
            answers = (one.answer for one in call.answers if one.question_id == question_id and one.answer is not None)
            return any(msgspec.json.decode(one) == given for one in answers)

        asked = CallState.AWAITING_INPUT
        return await self._decide(conversation, call_id, asked, marks, is_same, request_id, question_id)

    async def _decide(
        self,
        conversation: Conversation,
        call_id: str,
        asked: CallState,
        marks: Marks,
        is_same: IsSame,
        request_id: str | None,
        question_id: str | None = None,
    ) -> Decided:
        """Append `marks` for a call, if its state is `asked`, about the question `question_id` if that is set."""
        for _ in range(_TRIES):
            answer = await self._with_call(conversation, call_id)
            call = _call(answer, call_id)
            if question_id is not None and all(one.question_id != question_id for one in call.asked):
                raise NotFound("The call has no such question.")
            other = question_id is not None and call.asked[-1].question_id != question_id
            if answer.status is not Status.WAITING or call.state is not asked or call.is_over or other:
                self._refuse(answer, call, asked, is_same, question_id)
                await self._go_on_with_forgotten(conversation, answer, request_id)
                return _decided(answer, call_id, asked, question_id)
            if call.is_expired(now()):
                await self._expire(conversation, answer)
                raise CallExpired(_TOO_LATE)
            if (moved := await self._move_on(conversation, answer, marks(call), request_id)) is not None:
                after = _call(moved, call_id)
                decision = after.decision if asked is CallState.AWAITING_APPROVAL else None
                self._note(call, decision.state.value if decision else "answered")
                return _decided(moved, call_id, asked, question_id)
        raise StorageUnavailable

    def _refuse(
        self, answer: Answer, call: Call, asked: CallState, is_same: IsSame, question_id: str | None = None
    ) -> None:
        if is_same(call):
            return
        for one in call.answers:
            if one.question_id == question_id:
                late = one.decided_by is None
                raise CallExpired(_TOO_LATE) if late else AlreadyDecided("This question has been answered before.")
        decision = call.decision if asked is CallState.AWAITING_APPROVAL else None
        if decision is not None and decision.state is not CallState.EXPIRED:
            raise AlreadyDecided(f"This call has been {decision.state} before.")
        if call.waited is not asked:
            what = "a decision" if asked is CallState.AWAITING_APPROVAL else "the app's answer"
            raise NotWaiting(f"This call does not wait for {what}.")
        if call.because is CallState.EXPIRED:
            raise CallExpired(_TOO_LATE)
        if asked is CallState.AWAITING_CLIENT and answer.status is not Status.STOPPED:
            raise AlreadyDecided("This call has been answered before.")
        raise NotWaiting("This call does not wait any more: its answer has ended.")

    async def _with_call(self, conversation: Conversation, call_id: str) -> Answer:
        """Return the newest answer that has this call. A call's id names the attempt that made it; a later attempt may
        have continued that one. Raises `NotFound`."""
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
        """Append `marks`. If the answer waits for nothing more, it is continued: here, or in the process with its open
        call. None if another process changed the answer first."""
        pieces = [*answer.pieces, *marks]
        until = waits_until(pieces)
        holder = None if until is not None or not marks else _holder(pieces)
        if holder in (None, self._attempts.owner):
            moved = await self._attempts.move_on(conversation.key, answer, marks, until=until)
        else:
            soon = now() + timedelta(seconds=_TAKE_OVER)
            moved = await self._attempts.move_on(conversation.key, answer, marks, until=soon, holder=holder)
        if moved is None:
            return None
        if moved.status is Status.STREAMING:
            self._hub.go_on(conversation, moved, request_id)
        else:
            self._hub.waits_on(conversation, moved)
            self._give(moved)
        return moved

    def _give(self, answer: Answer) -> None:
        """Pass the user's answers to the open calls of this process at once: an open call need not wait for the
        others.
        """
        for call in calls(answer.pieces):
            if call.state is not CallState.ANSWERED or call.held_by != self._attempts.owner:
                continue
            if (given := answered(call)) is not None:
                self._tools.open_calls.answer(call.id, given.said[-1])

    async def _go_on_with_forgotten(self, conversation: Conversation, answer: Answer, request_id: str | None) -> None:
        """Continue an answer that an earlier request assigned to this process. That request timed out with 503 before
        the result of its write was known.
        """
        if answer.status is not Status.STREAMING or not self._attempts.owns(answer):
            return
        if self._hub.generates_in(conversation):
            return
        stored = await self._reading.get(conversation.key, answer.id)
        if not isinstance(stored, Answer) or stored.status is not Status.STREAMING:
            return
        if not self._hub.generates_in(conversation):  # it may have begun during the read
            self._hub.go_on(conversation, stored, request_id)

    # Ends -------------------------------------------------------------------------------------------------------------

    async def stop(
        self, conversation: Conversation, answer: Answer, *, keep: int | None = None, interrupted: bool = False
    ) -> bool:
        """Stop an answer, if it still waits: the calls that it waits for are not carried out. Returns whether it was
        stopped.

        The first `keep` code points of its text are kept; None keeps all. `interrupted`: another message replaces it,
        so its calls are denied. Raises `StorageUnavailable`.
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
        self._tools.open_calls.let_go(lambda caller: caller.answer == answer.id)
        self._metrics.waiting_ended(ended.status, ended.usage, ended.model)
        await self._hub.orphan_ended(conversation.key, ended)
        return True

    async def look(self) -> None:
        """Continue the answers whose decisions have expired, and look after the open calls. Call this every
        `LOOK_FOR_OVERDUE` seconds."""
        if self._hub.draining:
            return
        try:
            await self._look_at_open_calls()
            for key, answer_id in await self._attempts.overdue(now(), _AT_ONCE):
                await self._look_at(key, answer_id)
        except StorageUnavailable:
            pass  # the next search tries again

    async def _look_at_open_calls(self) -> None:
        """Pass answers that other processes stored to the open calls here. End the calls whose answers were stopped,
        deleted or taken over.
        """
        held = {caller.answer for caller in self._tools.open_calls.callers()}
        kept = await self._attempts.kept(held) if held else {}
        self._tools.open_calls.let_go(lambda caller: caller.answer in held - kept.keys())
        self._known = {id_: length for id_, length in self._known.items() if id_ in kept}
        for id_, (key, length, waits) in kept.items():
            if waits and length != self._known.get(id_):
                answer = await self._reading.get(key, id_)
                if isinstance(answer, Answer):
                    self._give(answer)
                    self._known[id_] = answer.length

    async def _look_at(self, key: str, answer_id: str) -> None:
        try:
            answer = await self._reading.get(key, answer_id)
            conversation = await self._reading.conversation(key)
            if isinstance(answer, Answer) and conversation is not None and answer.status is Status.WAITING:
                await self._expire(conversation, answer)
        except StorageUnavailable:
            raise
        except Exception as exc:  # noqa: BLE001 - an answer that fails must not delay the others
            facts = {"answer": answer_id}
            log.error("an answer that has waited cannot be gone on with: %s", describe(exc), extra={"facts": facts})

    async def _expire(self, conversation: Conversation, answer: Answer) -> None:
        over = [call for call in calls(answer.pieces) if call.waits and call.is_expired(now())]
        if waits_until(answer.pieces) is None:  # decided, but the process with the open call has not gone on
            await self._move_on(conversation, answer, [], None)
        marks: list[Piece] = []
        for call in over:
            if call.held_by is not None:  # the tool gets the answer "cancel", and returns the call's result
                answered = ToolState(
                    id=call.id,
                    name=call.name,
                    state=CallState.ANSWERED,
                    message=NOBODY_ANSWERED,
                    question_id=call.asked[-1].question_id,
                    answer='{"action":"cancel"}',
                )
                marks.append(answered)
                continue
            text = NOT_ANSWERED_IN_TIME
            if call.state is CallState.AWAITING_APPROVAL:
                text = NOT_AGREED_IN_TIME
            elif call.state is CallState.AWAITING_INPUT:
                text = NO_INPUT_IN_TIME
            if call.state is not CallState.AWAITING_CLIENT:
                asked = call.asked[-1].question_id if call.asked else None
                marks.append(ToolState(id=call.id, name=call.name, state=CallState.EXPIRED, question_id=asked))
            marks.append(ToolResult(id=call.id, output=text, failed=True, because=CallState.EXPIRED))
        if over and await self._move_on(conversation, answer, marks, None) is not None:
            for call in over:
                self._note(call, "expired")

    def _note(self, call: Call, outcome: str) -> None:
        self._metrics.call_decided(outcome)
        log.info("tool call %s", outcome, extra={"facts": {"tool": call.name, "outcome": outcome, "key": call.id}})


def _call(answer: Answer, call_id: str) -> Call:
    """Return the call with this id; `answer` must have it."""
    return next(one for one in calls(answer.pieces) if one.id == call_id)


def _holder(pieces: Sequence[Piece]) -> str | None:
    """Return the process that keeps a call of this answer open, which can go on now; or None."""
    return next((call.held_by for call in calls(pieces) if call.held_by is not None), None)


def _check(asked: ToolState, action: Action, content: Mapping[str, Any] | None, most: int) -> None:
    """Raises `InvalidContent` if `content` does not answer the question."""
    wanted = asked.question.schema if asked.question is not None else None
    if action is not Action.ACCEPT or wanted is None:
        if content is not None:
            what = "a question that opens a page" if action is Action.ACCEPT else f"{action.value}"
            raise InvalidContent.of("content", f"does not go with {what}")
        return
    if content is None:
        raise InvalidContent.of("content", "must be there, with accept")
    if len(msgspec.json.encode(content)) > most:
        raise InvalidContent.of("content", f"must have at most {most:,} bytes as JSON")
    # Slow to import, and needed only here.
    from chatstream.tools import schema

    try:
        schema.checking(msgspec.json.decode(wanted))(dict(content))
    except BadArguments as exc:
        raise InvalidContent.of("content", f"does not match the question's schema: {exc}") from exc


def _decided(answer: Answer, call_id: str, asked: CallState, question_id: str | None = None) -> Decided:
    part = next(one for one in fold(answer.pieces) if isinstance(one, ToolCallPart) and one.tool_call_id == call_id)
    position = 0
    pieces = answer.pieces
    for number, piece in enumerate(pieces, start=1):
        if not isinstance(piece, ToolState) or piece.id != call_id or piece.state is not asked:
            continue
        if question_id is None or piece.question_id == question_id:
            position = size(pieces[:number])
            # Requests for other decisions follow in the same step: the person has seen them too, and may have decided
            # them.
            others = takewhile(_asks, pieces[number:])
            position += sum(1 for _ in others)
    return Decided(part, answer, position)


def _asks(piece: Piece) -> bool:
    return isinstance(piece, ToolState) and piece.state in AWAITING
