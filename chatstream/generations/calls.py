"""Carries out the tool calls of one round: the states of a call, from the model's request to the result for the model.

::

    ready ─┬─────────────────────────────────┬─┬─ running ─┬─ result
           └─ awaiting_approval ─┬─ approved ┘ │    │  ^   └─ unknown
                                 │             │    v  └─ answered ─┐
                                 │             │  awaiting_input ───┴─ result
                                 ├─ denied ────┼─ result
                                 └─ expired ───┤
                                               └─ awaiting_client ── result

Each step is yielded, and so stored, before it happens: a call runs only after `running` is stored, and the model is
asked again only after the result is stored. So after a crash, the log shows what may have happened.

Calls that need no decision are carried out first. Then, if a person must approve a call, a tool asks the user something
or the app must answer a call, the whole answer waits: see `deciding`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from chatstream.errors import ErrorCode, ModelError
from chatstream.events import timestamp
from chatstream.generations.rounds import BROKEN_OFF, CHECK, Call, rounds
from chatstream.llm.model import Delta, Finish
from chatstream.logs import describe
from chatstream.metrics import Metrics
from chatstream.models import Answer, Conversation
from chatstream.pieces import CallState, Effect, Piece, Question, ToolResult, ToolState, weight
from chatstream.plugins.storage import NoStorage, Storage
from chatstream.plugins.tasks import in_time
from chatstream.plugins.tool import Ask
from chatstream.tools.client import with_declared
from chatstream.tools.tool import (
    Answered,
    BadArguments,
    Caller,
    InputRequired,
    OutcomeUnknown,
    Said,
    Tool,
    ToolFailed,
    Tools,
    Where,
)

log = logging.getLogger("chatstream.tools")

# The finish reason of an answer that was ended because its model kept calling tools.
TOOL_LIMIT = "tool_limit"
# The most characters of calls and results in one answer: a stored document has a size limit, and so has a model's
# context.
_MOST_CHARACTERS = 1_000_000
# Seconds that a cancelled call may take to stop.
_CLOSING = 2.0
# The most characters of an approval's question: a few sentences.
_LONGEST_QUESTION = 1000
# Limits on the progress messages of a call: their number, their length in characters, the seconds between two. Each
# message is stored with the answer, and published.
_MOST_PROGRESS = 20
_LONGEST_PROGRESS = 200
_PROGRESS_PAUSE = 1.0
# The most questions of a tool to the user in one call: more is no conversation, but an endless loop.
_MOST_QUESTIONS = 10


class CallBounds(Struct, frozen=True, kw_only=True):
    """Limits on the calls of one answer."""

    rounds: int = 10
    calls: int = 16  # per round
    argument_characters: int = 50_000
    output_characters: int = 50_000


class Calling(Struct, frozen=True, kw_only=True):
    """The objects that all answers of a process need to make calls."""

    tools: Tools
    bounds: CallBounds
    metrics: Metrics
    storage: Callable[[str, str], Storage] = lambda user_id, source: NoStorage()
    owner: str = ""  # the id of this process

    def of(self, conversation: Conversation, answer: Answer) -> "Calls":
        """Return the `Calls` for this answer."""

        def caller(key: str, source: str) -> Caller:
            return Caller(
                user=conversation.user_id,
                conversation=conversation.id,
                answer=answer.id,
                key=key,
                storage=self.storage(conversation.user_id, source),
            )

        declared = conversation.client_tools  # the app's tools, in addition to the server's
        tools = with_declared(self.tools, declared) if declared else self.tools
        return Calls(tools, self.bounds, self.metrics, caller=caller, owner=self.owner)

    def refusal(self, said: Sequence[Piece], finish: Finish | None) -> tuple[str | None, str | None]:
        """Return why the newest calls in `said` must not be carried out, or None; and the finish reason with which the
        answer then ends, or None if the model is asked again. `finish` is how the model's response ended, if it has
        just made the calls."""
        if finish is not None and finish.reason == "length":
            return "not carried out: what you said was cut off, since it was too long", None
        if finish is not None and finish.reason == "content_filter":
            return "not carried out", finish.reason
        more = len(rounds(said)) - self.bounds.rounds
        if more > 0 or weight(said) > _MOST_CHARACTERS:
            ends = TOOL_LIMIT if more > 1 or weight(said) > 2 * _MOST_CHARACTERS else None
            return "not carried out: no more calls are possible in this answer. Say what you know by now.", ends
        return None, None


class _Outcome(Struct, frozen=True):
    output: object = None
    failed: bool = False
    unknown: bool = False
    asks: ToolState | None = None  # the tool asks the user something
    word: str = "ok"  # the outcome, for the log and the metrics


class Calls:
    """Carries out the tool calls of one answer."""

    def __init__(
        self, tools: Tools, bounds: CallBounds, metrics: Metrics, *, caller: Callable[[str, str], Caller], owner: str
    ) -> None:
        """`caller(key, source)` makes the `Caller` that a tool function gets. `owner` is the id of this process."""
        self.offered = tools.offered
        self._tools = tools
        self._bounds = bounds
        self._metrics = metrics
        self._caller = caller
        self._owner = owner

    async def run(self, calls: Sequence[Call], refusal: str | None = None) -> AsyncGenerator[Delta, None]:
        """Carry out the calls that have no result yet. With a `refusal` none is carried out: each gets that text as its
        result.

        If a call needs a decision or an answer first, the last delta says so (`Delta.waits`). Raises `ModelError` if it
        cannot be known whether a call was carried out.
        """
        marks: list[Piece] = []
        waiting: list[Piece] = []
        running: list[tuple[Call, Tool, object]] = []
        unknown = any(call.state is CallState.UNKNOWN for call in calls)
        for number, call in enumerate(calls, start=1):
            if call.is_over:
                continue
            again = call.state is CallState.RUNNING
            if again and call.in_doubt:
                marks.append(_unknown(call))
                unknown = True
                continue
            if call.state is None:
                arguments = call.arguments[: self._bounds.argument_characters]
                marks.append(ToolState(id=call.id, name=call.name, state=CallState.READY, arguments=arguments))
            try:
                why = refusal or (self._too_many if number > self._bounds.calls else None)
                tool, arguments_ = self._checked(call, again=again, refusal=why)
                wait = _waits_for(call, tool, arguments_)
            except BadArguments as exc:
                if call.in_doubt:  # the call stayed open while the user was asked
                    marks.append(_unknown(call))
                    unknown = True
                    continue
                why = f"{BROKEN_OFF} It cannot be repeated: {exc}." if again else str(exc)
                marks.append(ToolResult(id=call.id, output=why, failed=True))
                self._note(call, None, "refused", 0)
                continue
            if wait is not None:
                waiting.append(wait)
                continue
            effect = tool.manner.effect
            marks.append(ToolState(id=call.id, name=call.name, state=CallState.RUNNING, effect=effect))
            running.append((call, tool, arguments_))
        if running or unknown or not waiting:
            yield Delta(marks, durable=True)
            marks = []
        async for delta in self._outcomes(running, waiting):
            unknown = unknown or any(
                isinstance(piece, ToolState) and piece.state is CallState.UNKNOWN for piece in delta.pieces
            )
            yield delta
        if unknown:
            raise ModelError(ErrorCode.TOOL_OUTCOME_UNKNOWN, "a tool's outcome is not known")
        if waiting:
            yield Delta([*marks, *waiting], durable=True, waits=True)

    @property
    def _too_many(self) -> str:
        return f"not carried out: at most {self._bounds.calls} calls are possible at a time"

    def _checked(self, call: Call, *, again: bool, refusal: str | None) -> tuple[Tool, object]:
        if refusal is not None:
            raise BadArguments(refusal)
        tool = self._tools.get(call.name)
        if tool is None:
            raise BadArguments(f"not carried out: there is no tool {call.name}")
        if call.state is CallState.APPROVED and call.is_expired(datetime.now(UTC)):
            # The call waited for another call, or for the next attempt to begin.
            raise BadArguments("not carried out: the time for which it was agreed to is over")
        if again and tool.manner.effect is Effect.ONCE:
            raise BadArguments("not carried out again: what the tool does has changed")
        if len(call.arguments) > self._bounds.argument_characters:
            raise BadArguments(f"bad arguments: they have more than {self._bounds.argument_characters} characters")
        return tool, tool.checked(call.arguments)

    async def _outcomes(
        self, running: Sequence[tuple[Call, Tool, object]], waiting_for: list[Piece]
    ) -> AsyncGenerator[Delta, None]:
        """Run the calls and yield their results. The questions of their tools are added to `waiting_for`."""
        news: asyncio.Queue[ToolState] = asyncio.Queue()  # at most `_MOST_PROGRESS` for each call
        tasks = {asyncio.create_task(self._outcome(*each, news)): each[0] for each in running}
        waiting = set(tasks)
        heard = asyncio.create_task(news.get())
        try:
            while waiting:
                await asyncio.wait({*waiting, heard}, return_when=asyncio.FIRST_COMPLETED)
                if heard.done():
                    about = heard.result()
                    if any(tasks[task].id == about.id for task in waiting):
                        yield Delta([about])
                    heard = asyncio.create_task(news.get())
                for task in [one for one in tasks if one in waiting and one.done()]:
                    waiting.discard(task)
                    call, outcome = tasks[task], task.result()
                    if outcome.asks is not None:
                        waiting_for.append(outcome.asks)
                    elif outcome.unknown:
                        yield Delta([_unknown(call)], durable=True)
                    else:
                        result = ToolResult(id=call.id, output=outcome.output, failed=outcome.failed)
                        yield Delta([result], durable=True)
        finally:
            heard.cancel()
            if left := [task for task in tasks if not task.done()]:
                for task in left:
                    task.cancel()
                await asyncio.wait(left, timeout=_CLOSING)

    async def _outcome(self, call: Call, tool: Tool, arguments: object, news: "asyncio.Queue[ToolState]") -> _Outcome:
        now = asyncio.get_running_loop().time
        began, word = now(), "closed"
        try:
            outcome = await self._tried(call, tool, arguments, _progress(call, news))
            word = outcome.word
        finally:
            self._note(call, tool, word, now() - began)
        return outcome

    async def _tried(self, call: Call, tool: Tool, arguments: object, progress: Callable[[str], None]) -> _Outcome:
        seconds = tool.manner.timeout
        caller, given = replace(self._caller(call.id, tool.source), progress=progress), answered(call)
        if given is None or tool.go_on is None:
            task = asyncio.ensure_future(tool.run(arguments, caller))
        else:
            task = asyncio.ensure_future(tool.go_on(arguments, caller, given))
        try:
            return _Outcome(fitting(await in_time(task, seconds), self._bounds.output_characters))
        except TimeoutError:
            if tool.manner.effect is Effect.ONCE:  # the tool may still be running
                return _Outcome(unknown=True, word="unknown")
            return _Outcome(f"failed: no answer within {seconds:g} s", failed=True, word="late")
        except OutcomeUnknown:
            return _Outcome(unknown=True, word="unknown")
        except InputRequired as exc:
            if len(call.asked) + len(exc.questions) <= _MOST_QUESTIONS:
                return _Outcome(asks=_asking(call, tool, exc, self._owner), word="asks")
            if exc.held is not None and tool.manner.effect is Effect.ONCE:
                return _Outcome(unknown=True, word="unknown")
            return _Outcome("failed: the service asks the user too often", failed=True, word="failed")
        except ToolFailed as exc:
            text = cut(f"failed: {_valid(str(exc))}", self._bounds.output_characters)
            return _Outcome(text, failed=True, word="failed")
        except Exception as exc:  # noqa: BLE001 - whatever a tool raises
            log.error("tool %s of %s failed: %s", tool.name, tool.source, describe(exc))
            if tool.manner.effect is Effect.ONCE:  # the connection was lost, or the tool failed after its effect
                return _Outcome(unknown=True, word="unknown")
            return _Outcome("failed", failed=True, word="failed")

    def _note(self, call: Call, tool: Tool | None, outcome: str, seconds: float) -> None:
        effect = tool.manner.effect.value if tool else None
        # Only known tool names become a label: the model may make up a name, and an app's tools are named by the app.
        known = self._tools.get(call.name)
        name = "unknown" if known is None else "client" if known.where is Where.CLIENT else call.name
        self._metrics.tool_called(name, outcome, seconds)
        facts = {"tool": name, "effect": effect, "outcome": outcome, "seconds": round(seconds, 3), "key": call.id}
        log.log(logging.WARNING if outcome == "unknown" else logging.INFO, "tool called", extra={"facts": facts})


def fitting(output: object, most: int) -> object:
    """Return a tool's result as JSON, cut if it has more than `most` characters. Raises `ToolFailed`."""
    try:
        text = msgspec.json.encode(output).decode()
        plain = msgspec.json.decode(text)
    except (TypeError, ValueError, RecursionError) as exc:
        raise ToolFailed("it was carried out, but what it returned is not JSON") from exc
    return plain if len(text) <= most else cut(plain if isinstance(plain, str) else text, most)


def cut(text: str, most: int) -> str:
    """Return the beginning of a text that is too long for a model, with a note that it was cut."""
    return text if len(text) <= most else f"{text[:most]}… (cut: {most} of {len(text)} characters)"


def _progress(call: Call, news: "asyncio.Queue[ToolState]") -> Callable[[str], None]:
    """Return the function with which a tool reports the progress of its call, from any thread."""
    loop = asyncio.get_running_loop()
    said: list[float] = []  # when

    def hear(text: str) -> None:
        now = loop.time()
        if text and len(said) < _MOST_PROGRESS and (not said or now - said[-1] >= _PROGRESS_PAUSE):
            said.append(now)
            message = cut(_valid(text), _LONGEST_PROGRESS)
            news.put_nowait(ToolState(id=call.id, name=call.name, state=CallState.RUNNING, message=message))

    def progress(text: str) -> None:
        loop.call_soon_threadsafe(hear, str(text).strip())

    return progress


def _waits_for(call: Call, tool: Tool, arguments: Any) -> ToolState | None:
    """Return the state in which this call waits for a decision or an answer, or None if it can run now. Raises
    `BadArguments`."""
    manner = tool.manner
    text: str | None = None
    if manner.asks and call.state not in (CallState.APPROVED, CallState.RUNNING, CallState.ANSWERED):
        state, seconds = CallState.AWAITING_APPROVAL, manner.approval_timeout
        if manner.ask is not None:
            text, seconds = _asked(tool, arguments)
    elif tool.where is Where.CLIENT:
        state, seconds = CallState.AWAITING_CLIENT, manner.timeout
    else:
        return None
    until = timestamp(datetime.now(UTC) + timedelta(seconds=seconds))
    return ToolState(id=call.id, name=call.name, state=state, arguments=call.arguments, expires_at=until, message=text)


def _asked(tool: Tool, arguments: Any) -> tuple[str | None, float]:
    """Return the question for the person who must approve, or None, and the seconds they have. Raises
    `BadArguments`."""
    most = tool.manner.approval_timeout
    try:
        ask = tool.manner.ask(**arguments) if tool.manner.ask is not None else Ask()
        text = None if ask.text is None else cut(_valid(ask.text), _LONGEST_QUESTION)
        seconds = most if ask.seconds is None else min(float(ask.seconds), most)
    except ValueError as exc:  # the exception's text is written for the model
        raise BadArguments(f"not carried out: {_valid(str(exc))}") from exc
    except Exception as exc:
        log.error("tool %s of %s cannot say what to ask: %s", tool.name, tool.source, describe(exc))
        raise BadArguments("not carried out: nobody can be asked to agree to it") from exc
    if not seconds > 0:
        raise BadArguments("not carried out: its time is over")
    return text, seconds


def _asking(call: Call, tool: Tool, asks: InputRequired, owner: str) -> ToolState:
    """Return the state in which the call waits for the answer to its tool's first question."""
    manner, held = tool.manner, asks.held
    seconds = manner.approval_timeout if held is None else min(held, manner.approval_timeout)
    holder = None if held is None else owner
    until = timestamp(datetime.now(UTC) + timedelta(seconds=seconds))
    return question(call, asks.questions, carry=asks.carry, held_by=holder, until=until)


def question(
    call: Call, questions: Sequence[Question], *, carry: str | None, held_by: str | None, until: str | None
) -> ToolState:
    """Return the state in which a call waits for the answer to the first of these questions."""
    first, *rest = questions
    return ToolState(
        id=call.id,
        name=call.name,
        state=CallState.AWAITING_INPUT,
        arguments=call.arguments,
        expires_at=until,
        message=first.message,
        question_id=str(len(call.asked) + 1),
        question=first,
        rest=tuple(rest),
        carry=carry,
        held_by=held_by,
    )


def answered(call: Call) -> Answered | None:
    """Return the answers for the tool, if it has asked the user something."""
    if not call.answers:
        return None
    said = [_said(asked, answer) for asked, answer in zip(call.asked, call.answers, strict=False)]
    # The questions that the tool has asked at once: each names those after it.
    first = len(said) - 1
    while first and call.asked[first - 1].rest == (call.asked[first].question, *call.asked[first].rest):
        first -= 1
    return Answered(carry=call.asked[first].carry or "", said=tuple(said[first:]), before=tuple(said[:first]))


def _said(asked: ToolState, answer: ToolState) -> Said:
    given = msgspec.json.decode(answer.answer or '{"action":"cancel"}')
    wanted = asked.question or Question(message="")
    return Said(question=wanted, action=given["action"], content=given.get("content"))


def _unknown(call: Call) -> ToolState:
    return ToolState(id=call.id, name=call.name, state=CallState.UNKNOWN, message=CHECK)


def _valid(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
