"""All plug-ins together, as the rest of the server calls them.

A plug-in that raises, is late or returns nonsense harms only itself: what happens then is what its rule says, the log
names it, and the metrics count it.
"""

import asyncio
import inspect
import logging
import math
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from msgspec.structs import asdict, replace

from chatstream.errors import ErrorCode, ModelError, Unavailable
from chatstream.llm.arranging import Arranger, Tags
from chatstream.llm.demo_answers import GENERAL, Subject
from chatstream.llm.model import Delta, Finish
from chatstream.llm.model import Turn as ModelTurn
from chatstream.logs import describe
from chatstream.metrics import Metrics
from chatstream.models import Annotation, Answer, Budget, Conversation, Recommendation, Usage
from chatstream.pieces import BEGINNING, Data, Piece, behind, fold, spaced
from chatstream.pieces import text as visible_text
from chatstream.plugins.answering import Answering, forget
from chatstream.plugins.loading import Loaded
from chatstream.plugins.plugin import Answered, Blocked, Hook, Reasoning, Refused, Spender, Turn

log = logging.getLogger("chatstream.plugins")

Result = TypeVar("Result")

_RETRY_AFTER = 5.0  # seconds: what is down for an admission is rarely back sooner
# Of one plug-in and answer. Each is stored with the answer, and an event of its own in every replay.
_MOST_ANNOTATIONS = 50
_ANNOTATION_BYTES = 16 * 1024
_KIND = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_OUR_KINDS = ("recommendation", "notice")  # what we send ourselves in the AI SDK's format
_LONGEST_TEXT = 200  # code points of an id, or of an annotation's words
# Text that is held back longer than this is treated as a call that is late: readers see nothing come meanwhile.
_LONGEST_HOLD = 30.0


class _Failed(Exception):
    """A call failed, and its plug-in's rule is closed."""


class Nonsense(Exception):
    """A plug-in returned what it may not."""


class Plugins:
    """Calls them, each for itself."""

    def __init__(self, loaded: Sequence[Loaded], metrics: Metrics, *, answer_timeout: float) -> None:
        """`answer_timeout`, in seconds, is for a whole answer of one that answers."""
        self._metrics = metrics
        self._answer_timeout = answer_timeout
        self._loaded = {hook: [each for each in loaded if each.has(hook)] for hook in _HOOKS}
        prompts = [getattr(each.plugin, "system_prompt", None) for each in loaded]
        self.system_prompt: str | None = next((prompt for prompt in prompts if isinstance(prompt, str)), None)
        subjects = [getattr(each.plugin, "demo", None) for each in loaded]
        self.demo: Subject = next((subject for subject in subjects if isinstance(subject, Subject)), GENERAL)
        self.page_words: dict[str, dict[str, Any]] = {}
        for each in reversed(loaded):  # the first one's words are said
            for language, words in (getattr(each.plugin, "page_words", None) or {}).items():
                self.page_words.setdefault(language, {}).update(words)

    @property
    def answers(self) -> bool:
        """One of them answers in place of the model."""
        return bool(self._loaded["answer"])

    @property
    def needs_turn(self) -> bool:
        """What is to be answered must be known before the model is asked."""
        return any(self._loaded[hook] for hook in ("context", "answer"))

    @property
    def admits(self) -> bool:
        """Messages are looked at before they are stored."""
        return bool(self._loaded["admit"])

    @property
    def budgets(self) -> bool:
        """One of them knows what users may spend."""
        return bool(self._loaded["budget"])

    # Before the model -------------------------------------------------------------------------------------------------

    async def admit(self, turn: Turn) -> None:
        """Raises `Refused`, or `Unavailable` if nobody can say."""
        for each in self._loaded["admit"]:
            try:
                await self._call(each, "admit", _nothing, turn)
            except _Failed as exc:
                raise Unavailable(
                    "Messages cannot be checked at the moment.", code="admission_unavailable", retry_after=_RETRY_AFTER
                ) from exc

    async def budget(self, spender: Spender) -> Budget:
        """What a user may spend: the last one that says so is right. Raises `Unavailable` if nobody can say."""
        for each in self._loaded["budget"]:
            try:
                budget = await self._call(each, "budget", _budget, spender)
            except _Failed as exc:
                raise Unavailable(
                    "Your budget cannot be checked at the moment.",
                    code=ErrorCode.BUDGET_UNAVAILABLE,
                    retry_after=_RETRY_AFTER,
                ) from exc
            spender = spender if budget is None else replace(spender, budget=budget)
        return spender.budget

    async def context(self, turn: Turn, *, budget: int) -> tuple[list[str], list[ModelTurn]]:
        """Instructions, and turns to put before the message; together at most `budget` code points.

        Raises `ModelError` if a plug-in that must be asked fails.
        """
        instructions: list[str] = []
        turns: list[ModelTurn] = []

        def check(given: object) -> tuple[list[str], list[ModelTurn]]:
            return _context(given, budget)

        for each in self._loaded["context"]:
            try:
                more = await self._call(each, "context", check, turn)
            except _Failed as exc:
                raise ModelError(ErrorCode.UPSTREAM_UNAVAILABLE, f"no context of {each.name}") from exc
            if more is not None:
                instructions += more[0]
                turns += more[1]
                budget -= sum(map(len, more[0])) + sum(len(one.content) for one in more[1])
        return instructions, turns

    # In place of the model --------------------------------------------------------------------------------------------

    async def answer(self, turn: Turn) -> AsyncGenerator[Delta, None]:
        """The answer of the plug-in that answers. Raises `ModelError`."""
        each = self._loaded["answer"][0]
        usage: Usage | None = None
        now = asyncio.get_running_loop().time
        began, outcome = now(), "closed"
        answering = Answering(each.plugin.answer(turn), each.name)
        arranger = Arranger(Tags.KEPT)
        try:
            while True:
                deadline = min(each.rules["answer"].deadline, began + self._answer_timeout - now())
                piece = await answering.next(deadline)
                if isinstance(piece, Usage):
                    usage = piece
                    yield Delta([], usage=usage)
                elif isinstance(piece, Finish):
                    outcome = "ok"
                    yield Delta([], Finish(reason=_text(piece.reason), usage=piece.usage or usage))
                    return
                elif isinstance(piece, str):
                    if pieces := arranger.text(_text(piece)):
                        yield Delta(pieces)
                elif isinstance(piece, Reasoning):
                    if pieces := arranger.reasoning(_text(piece.text)):
                        yield Delta(pieces)
                else:
                    _left_out(piece)
        except ModelError:
            outcome = "failed"
            raise
        except TimeoutError as exc:
            outcome = "late"
            raise ModelError(ErrorCode.UPSTREAM_TIMEOUT, f"{each.name} said nothing in time") from exc
        except Nonsense as exc:
            outcome = "nonsense"
            raise ModelError(ErrorCode.UPSTREAM_PROTOCOL, f"{each.name}: {exc}") from exc
        except Exception as exc:
            outcome = "failed"
            raise ModelError(ErrorCode.UPSTREAM_UNAVAILABLE, f"{each.name}: {describe(exc)}") from exc
        finally:
            self._metrics.plugin_called(each.name, "answer", outcome, now() - began)
            await answering.close()

    # Behind the model -------------------------------------------------------------------------------------------------

    def released(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
        """`deltas`, of which nothing comes that a plug-in has not released."""
        for each in self._loaded["release"]:
            deltas = self._released(deltas, each)
        return deltas

    async def _released(self, deltas: AsyncGenerator[Delta, None], each: Loaded) -> AsyncGenerator[Delta, None]:
        now = asyncio.get_running_loop().time
        text, told = "", 0
        place = BEGINNING
        held_since: float | None = None
        async with aclosing(deltas):
            async for delta in deltas:
                # They are asked about text alone: so what the model thinks, which nobody has looked at, is left out.
                pieces = spaced(place, delta.pieces)
                came = visible_text(pieces, place)
                place = behind(place, pieces)
                text += came
                end = None if came or delta.finish else told  # nobody is asked about what has no text
                if came and held_since is None:
                    held_since = now()
                if end is None:
                    ended = delta.finish is not None
                    late = held_since is not None and now() - held_since > _LONGEST_HOLD
                    end = await self._may_be_told(each, text, told, ended=ended, late=late)
                if end is None:
                    yield Delta([], Finish(reason="content_filter", usage=delta.finish.usage if delta.finish else None))
                    return
                texts: list[Piece] = [text[told:end]] if end > told else []
                told = end
                if texts and held_since is not None:
                    self._metrics.text_held(now() - held_since)
                    held_since = None if told == len(text) else now()
                if texts or delta.finish or delta.model or delta.usage:
                    yield delta._replace(pieces=texts)

    async def _may_be_told(self, each: Loaded, text: str, told: int, *, ended: bool, late: bool) -> int | None:
        """How much may be told; None if the answer is blocked."""

        def check(given: object) -> int:
            if isinstance(given, bool) or not isinstance(given, int) or not told <= given <= len(text):
                raise Nonsense(f"it released {given!r} of {told} to {len(text)} code points")
            return given

        try:
            end = await self._call(each, "release", check, text, told, ended)
        except (_Failed, Blocked):
            return None
        if end is None:
            return len(text)  # it failed, and is open
        if end == told and late and not ended:
            return len(text) if each.rules["release"].open else None
        return end

    async def annotate(self, conversation: Conversation, answer: Answer) -> tuple[Annotation | Recommendation, ...]:
        """What they find in it. All are asked at once; one that fails finds nothing."""
        if not self._loaded["annotate"]:
            return ()
        answered = Answered(
            id=answer.id,
            text=answer.content,
            parts=tuple(fold(answer.pieces)),
            user=conversation.user_id,
            conversation=conversation.id,
            attempt=answer.attempt,
            key=answer.reply_to,
        )
        asked = [self._annotations(each, answered) for each in self._loaded["annotate"]]
        found = await asyncio.gather(*asked)
        return tuple(one for each in found for one in each)

    async def _annotations(self, each: Loaded, answer: Answered) -> Sequence[Annotation | Recommendation]:
        try:
            return await self._call(each, "annotate", _annotations, answer) or ()
        except _Failed:  # the answer is there, whatever became of what was to be found in it
            return ()

    # One call ---------------------------------------------------------------------------------------------------------

    async def _call(self, each: Loaded, hook: Hook, check: Callable[[object], Result], *args: object) -> Result | None:
        """What a plug-in's method returns, if `check` finds it good; None if it fails and its rule is open.

        Raises `_Failed` if its rule is closed, and what the method may raise: `Refused`, `Blocked`.
        """
        rule = each.rules[hook]
        now = asyncio.get_running_loop().time
        began, outcome = now(), "ok"
        try:
            return check(await _in_time(each, getattr(each.plugin, hook), rule.deadline, *args))
        except (Refused, Blocked) as exc:
            if isinstance(exc, _MAY_RAISE.get(hook, ())):
                outcome = "refused"
                raise
            outcome, why = "failed", describe(exc)
        except asyncio.CancelledError:
            outcome = "closed"
            raise
        except TimeoutError:
            outcome, why = "late", f"no answer within {rule.deadline:g} s"
        except Nonsense as exc:
            outcome, why = "nonsense", str(exc)
        except Exception as exc:  # noqa: BLE001 - whatever a plug-in raises
            outcome, why = "failed", describe(exc)
        finally:
            self._metrics.plugin_called(each.name, hook, outcome, now() - began)
        log.error("plug-in %s: %s failed: %s", each.name, hook, why)
        if rule.open:
            return None
        raise _Failed


_HOOKS: tuple[Hook, ...] = ("context", "admit", "release", "annotate", "answer", "budget")
_MAY_RAISE: Mapping[str, type[Exception]] = {"admit": Refused, "release": Blocked}


async def _in_time(each: Loaded, method: Callable[..., Any], deadline: float, *args: object) -> object:
    """What `method` returns within `deadline` seconds. One that takes no notice of its cancellation is left behind."""

    async def call() -> object:
        try:
            if inspect.iscoroutinefunction(method):
                return await method(*args)
            return await each.threads.run(_listed, method, *args)
        except (SystemExit, KeyboardInterrupt) as exc:  # which would end the server
            raise RuntimeError(type(exc).__name__) from exc

    return await _waited(asyncio.create_task(call()), deadline)


def _listed(method: Callable[..., Any], *args: object) -> object:
    """Call `method`; what a generator yields is made in the thread, too."""
    result = method(*args)
    return list(result) if inspect.isgenerator(result) else result


async def _waited(task: "asyncio.Task[object]", deadline: float) -> object:
    try:
        await asyncio.wait({task}, timeout=deadline)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(forget)
    if not task.done():
        raise TimeoutError
    if task.cancelled():
        raise RuntimeError("it was cancelled by itself")
    return task.result()


# What they return -----------------------------------------------------------------------------------------------------


def _nothing(given: object) -> None:
    if given is not None:  # `return False` looks like a refusal, and would be none
        raise Nonsense(f"it returned {type(given).__name__}; it must raise Refused, or return nothing")


def _budget(given: object) -> Budget | None:
    if given is None:
        return None
    if not isinstance(given, Budget):
        raise Nonsense(f"it returned {type(given).__name__}; it must return a Budget, or nothing")
    for limit in asdict(given).values():
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit < 2**63):
            raise Nonsense("a limit of the budget is no whole number, or below 0")
    return given


def _left_out(given: object) -> None:
    """What is known, but not told yet."""
    if not isinstance(given, Data):
        raise Nonsense(f"it yielded {type(given).__name__}")


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise Nonsense(f"a text is {type(given).__name__}")
    try:
        given.encode()
    except UnicodeEncodeError as exc:
        raise Nonsense("a text is not valid Unicode") from exc
    return given


def _context(given: object, budget: int) -> tuple[list[str], list[ModelTurn]]:
    if given is None:
        return [], []
    if isinstance(given, str):
        given = [ModelTurn("system", given)]
    if not isinstance(given, Sequence):
        raise Nonsense(f"it returned {type(given).__name__}")
    instructions: list[str] = []
    turns: list[ModelTurn] = []
    for one in given:
        if not isinstance(one, ModelTurn) or one.role not in ("system", "user", "assistant"):
            raise Nonsense(f"one of its turns is {type(one).__name__}")
        text = _text(one.content)
        budget -= len(text)
        if budget < 0:
            raise Nonsense("it is longer than what is left of CHATSTREAM_CONTEXT_CHARACTERS")
        if text and one.role == "system":
            instructions.append(text)
        elif text:
            turns.append(one)
    return instructions, turns


def _annotations(given: object) -> list[Annotation | Recommendation]:
    if given is None:
        return []
    if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping):
        raise Nonsense(f"it returned {type(given).__name__}")
    found: list[Annotation | Recommendation] = []
    for one in given:
        if len(found) == _MOST_ANNOTATIONS:
            raise Nonsense(f"it found more than {_MOST_ANNOTATIONS} things")
        found.append(_annotation(one))
    return found


def _annotation(one: object) -> Annotation | Recommendation:
    if not isinstance(one, Annotation | Recommendation):
        raise Nonsense(f"it found a {type(one).__name__}")
    try:
        encoded = msgspec.json.encode(one)
        checked = msgspec.json.decode(encoded, type=type(one))
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as exc:
        raise Nonsense("what it found is no JSON") from exc
    if len(encoded) > _ANNOTATION_BYTES:
        raise Nonsense(f"what it found has more than {_ANNOTATION_BYTES} bytes")
    if isinstance(checked, Recommendation):
        if not math.isfinite(checked.odds):
            raise Nonsense("what it found is no JSON")
        return checked
    annotation = checked
    if (
        not _KIND.fullmatch(annotation.kind)
        or annotation.kind in _OUR_KINDS
        or not 0 < len(annotation.id) <= _LONGEST_TEXT
    ):
        raise Nonsense("what it found has no good kind or id")
    if len(annotation.message) > _LONGEST_TEXT:
        raise Nonsense(f"the message of what it found has more than {_LONGEST_TEXT} characters")
    return annotation
