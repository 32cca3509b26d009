"""Calls the plug-ins for the rest of the server.

If a plug-in raises, is late or returns an invalid value, its rule decides what happens, the log names the plug-in, and
a metric counts the failure.
"""

import asyncio
import inspect
import logging
import math
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Any, TypeVar

import msgspec
from msgspec.structs import asdict, replace

from chatstream.config.imported import described
from chatstream.errors import ErrorCode, ModelError, Unavailable
from chatstream.llm.arranging import Arranger, Tags
from chatstream.llm.model import Delta, Finish
from chatstream.llm.model import Turn as ModelTurn
from chatstream.logs import describe
from chatstream.metrics import Metrics
from chatstream.models import (
    RECOMMENDATION,
    Annotation,
    Answer,
    Budget,
    Conversation,
    Recommended,
    Usage,
    recommendation,
)
from chatstream.pieces import Data, Piece, fold
from chatstream.plugins.answering import Answering
from chatstream.plugins.holding import Holding
from chatstream.plugins.loading import Loaded, subject
from chatstream.plugins.plugin import KIND, Answered, Blocked, Hook, Reasoning, Refused, Said, Spender, Turn
from chatstream.plugins.tasks import in_time, watched

log = logging.getLogger("chatstream.plugins")

Result = TypeVar("Result")
T = TypeVar("T", Annotation, Data)

_RETRY_AFTER = 5.0  # seconds: `Retry-After` when an `admit` or `budget` call has failed
# Maximum number of annotations per plug-in and answer. Each is stored with the answer and sent as an event in every
# replay.
_MOST_ANNOTATIONS = 50
_MOST_YIELDED = 1000  # items read from a plug-in's iterator; far more than are used
_JSON_BYTES = 16 * 1024
# Maximum number of bytes of `Data` per answer, kinds and ids included, so that the answer's document has room for the
# text.
_DATA_BYTES = 1024 * 1024
# A refusal's status must be from the first to below the second, and not the third: clients read 401 as a token problem,
# and 500 as a server error.
_REFUSED, _FAULT, _SIGN_IN = 400, 500, 401
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_TITLE = re.compile(r"[A-Za-z][A-Za-z0-9 '-]{0,63}")  # also sent in the HTTP status line
_LONGEST_DETAIL = 4000  # bytes
_LONGEST_WAIT = 86_400  # seconds
_OUR_KINDS = (RECOMMENDATION, "notice")  # kinds that chatstream itself sends in the AI SDK's format
_MOST_TOKENS = 2**53  # the largest integer that every JSON client reads exactly
_LONGEST_TEXT = 200  # code points of an id, or of an annotation's words
# If text is held back for more seconds than this, the plug-in counts as late: readers see no progress meanwhile.
_LONGEST_HOLD = 30.0
# Finish reasons of models and of this server. Any other reason is text made by a model, and must not pass unchecked.
_KNOWN_ENDS = frozenset(
    [
        *("", "stop", "length", "content_filter", "tool_calls", "function_call", "refusal", "tool_limit", "other"),
        *("eos", "end_turn", "max_tokens"),
    ]
)


class _Failed(Exception):
    """Raised when a call has failed and its rule is closed."""


class Nonsense(Exception):
    """Raised when a plug-in has returned an invalid value."""


class Plugins:
    """Calls all loaded plug-ins. The failure of one does not affect the others."""

    def __init__(self, loaded: Sequence[Loaded], metrics: Metrics, *, answer_timeout: float) -> None:
        """`answer_timeout`: the longest time for a whole answer of a plug-in, in seconds."""
        self._metrics = metrics
        self._answer_timeout = answer_timeout
        self._said_to_block: set[tuple[str, Hook]] = set()  # logged once each
        self._loaded = {hook: [each for each in loaded if each.has(hook)] for hook in _HOOKS}
        prompts = [getattr(each.plugin, "system_prompt", None) for each in loaded]
        self.system_prompt: str | None = next((prompt for prompt in prompts if isinstance(prompt, str)), None)
        self.demo = subject(loaded)
        self.page_words: dict[str, dict[str, Any]] = {}
        for each in reversed(loaded):  # the first plug-in's words win
            for language, words in (getattr(each.plugin, "page_words", None) or {}).items():
                self.page_words.setdefault(language, {}).update(words)

        self.cards: dict[str, Mapping[str, bytes]] = {}  # for each kind of data: its card's files by name
        for each in reversed(loaded):
            self.cards.update(each.cards)

    @property
    def answers(self) -> bool:
        """Whether a plug-in answers in place of the model."""
        return bool(self._loaded["answer"])

    @property
    def needs_turn(self) -> bool:
        """Whether a plug-in needs the `Turn` before the model is asked."""
        return any(self._loaded[hook] for hook in ("context", "answer"))

    @property
    def admits(self) -> bool:
        """Whether a plug-in checks messages before they are stored."""
        return bool(self._loaded["admit"])

    @property
    def budgets(self) -> bool:
        """Whether a plug-in sets the users' budgets."""
        return bool(self._loaded["budget"])

    @property
    def hold(self) -> bool:
        """Whether a plug-in may hold back text of an answer."""
        return bool(self._loaded["release"])

    # Before the model -------------------------------------------------------------------------------------------------

    async def admit(self, turn: Turn) -> None:
        """Ask the plug-ins to accept a message. Raises `Refused`, or `Unavailable` if a call fails."""
        for each in self._loaded["admit"]:
            try:
                await self._call(each, "admit", _nothing, turn)
            except _Failed as exc:
                raise Unavailable(
                    "Messages cannot be checked at the moment.", code="admission_unavailable", retry_after=_RETRY_AFTER
                ) from exc

    async def budget(self, spender: Spender) -> Budget:
        """The user's budget, from the last plug-in that sets one. Raises `Unavailable` if a call fails."""
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
        """Texts for the system prompt, and turns to put before the message; together at most `budget` code points.

        Raises `ModelError` if a call fails whose rule is closed.
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
        """The answer from the plug-in that answers in place of the model. Raises `ModelError`."""
        each = self._loaded["answer"][0]
        usage: Usage | None = None
        room = _DATA_BYTES

        def check(piece: object) -> object:
            nonlocal room
            checked, size = _said(piece, room)
            room -= size
            return checked

        now = asyncio.get_running_loop().time
        began, outcome = now(), "closed"
        spoke = began  # time of the last visible piece; an empty text or a token count does not count
        answering = Answering(each.plugin.answer(turn), each.name, check, self._watch(each, "answer"))
        arranger = Arranger(Tags.KEPT)
        try:
            while True:
                late = min(spoke + each.rules["answer"].deadline, began + self._answer_timeout)
                piece = await answering.next(late - now())
                if not _is_empty(piece):
                    spoke = now()
                elif now() >= late:  # a generator that yields only empty pieces never makes `next` time out
                    raise TimeoutError  # noqa: TRY301 - handled like the other timeout
                if isinstance(piece, Usage):
                    usage = piece
                    yield Delta([], usage=usage)
                elif isinstance(piece, Finish):
                    outcome = "ok"
                    yield Delta([], Finish(reason=piece.reason, usage=piece.usage or usage))
                    return
                elif isinstance(piece, str):
                    if pieces := arranger.text(piece):
                        yield Delta(pieces)
                elif isinstance(piece, Reasoning):
                    if pieces := arranger.reasoning(piece.text):
                        yield Delta(pieces)
                elif isinstance(piece, Data):
                    yield Delta([piece])
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

    def released(self, deltas: AsyncGenerator[Delta, None], begun: Sequence[Piece] = ()) -> AsyncGenerator[Delta, None]:
        """`deltas`, held back until every plug-in has released them. `begun`: the answer's earlier pieces."""
        for each in self._loaded["release"]:
            deltas = self._released(deltas, each, begun)
        return deltas

    async def _released(
        self, deltas: AsyncGenerator[Delta, None], each: Loaded, begun: Sequence[Piece]
    ) -> AsyncGenerator[Delta, None]:
        now = asyncio.get_running_loop().time
        holding = Holding(begun)
        held_since: float | None = None
        async with aclosing(deltas):
            async for delta in deltas:
                came = holding.add(delta.pieces)
                ended = delta.finish is not None
                end: int | None = holding.told
                if came and held_since is None:
                    held_since = now()
                if came or ended:  # a check is needed only for text
                    late = held_since is not None and now() - held_since > _LONGEST_HOLD
                    end = await self._may_be_told(each, holding.text, holding.told, ended=ended, late=late)
                asked = holding.whole_calls(ended=ended or delta.durable)
                if delta.finish is not None and delta.finish.reason not in _KNOWN_ENDS:
                    asked.append(delta.finish.reason)
                if end is None or not await self._all_may_be_told(each, asked):
                    yield Delta([], Finish(reason="content_filter", usage=delta.finish.usage if delta.finish else None))
                    return
                if end > holding.told and held_since is not None:
                    self._metrics.text_held(now() - held_since)
                    held_since = None if end == len(holding.text) else now()
                # A durable delta must be stored before a tool runs, so it is released at once.
                pieces = holding.release(end, ended=ended or delta.durable)
                if pieces or ended or delta.model or delta.usage or delta.estimate or delta.round:
                    yield replace(delta, pieces=pieces)

    async def _may_be_told(self, each: Loaded, text: str, told: int, *, ended: bool, late: bool) -> int | None:
        """How many code points may be sent; None if the answer is blocked."""

        def check(given: object) -> int:
            if isinstance(given, bool) or not isinstance(given, int) or not told <= given <= len(text):
                raise Nonsense(f"it released {given!r} of {told} to {len(text)} code points")
            return given

        try:
            end = await self._call(each, "release", check, text, told, ended)
        except (_Failed, Blocked):
            return None
        if end is None:
            return len(text)  # the call failed and its rule is open: release all text
        if end == told and late and not ended:
            return len(text) if each.rules["release"].open else None
        return end

    async def may_be_told(self, text: str) -> bool:
        """Whether the plug-ins release all of a text that was made from an answer, such as a title."""
        asked = [self._all_may_be_told(each, [text]) for each in self._loaded["release"]]
        return all(await asyncio.gather(*asked))

    async def _all_may_be_told(self, each: Loaded, texts: Sequence[str]) -> bool:
        for text in texts:
            if await self._may_be_told(each, text, 0, ended=True, late=False) != len(text):
                return False
        return True

    async def annotate(self, conversation: Conversation, answer: Answer) -> tuple[Annotation, ...]:
        """The plug-ins' annotations of an answer. Calls all plug-ins at once; a failed call gives none."""
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
        found = [await asked[0]] if len(asked) == 1 else await asyncio.gather(*asked)  # no task for a single one
        return tuple(one for each in found for one in each)

    async def _annotations(self, each: Loaded, answer: Answered) -> Sequence[Annotation]:
        try:
            return await self._call(each, "annotate", _annotations, answer) or ()
        except _Failed:  # the answer is kept, without these annotations
            return ()

    def _watch(self, each: Loaded, hook: Hook) -> Callable[[float], None]:
        """A callback that reports that the plug-in has blocked the event loop."""

        def blocked(seconds: float) -> None:
            self._metrics.plugin_blocked(each.name, hook, seconds)
            if (each.name, hook) not in self._said_to_block:
                self._said_to_block.add((each.name, hook))
                log.warning(
                    "plug-in %s: %s blocked the event loop for %.0f ms, and all answers with it: it must await what it "
                    "waits for, or not be async, and have a thread",
                    *(each.name, hook, 1000 * seconds),
                )

        return blocked

    # One call ---------------------------------------------------------------------------------------------------------

    async def _call(self, each: Loaded, hook: Hook, check: Callable[[object], Result], *args: object) -> Result | None:
        """Call a plug-in's method and return its result after `check`; None if the call fails and its rule is open.

        Raises `_Failed` if the call fails and its rule is closed. Passes on `Refused` and `Blocked`.
        """
        rule = each.rules[hook]
        now = asyncio.get_running_loop().time
        began, outcome = now(), "ok"
        try:
            blocked = self._watch(each, hook)
            return check(await _called(each, hook, blocked, *args))
        except (Refused, Blocked) as exc:
            why = "" if isinstance(exc, _MAY_RAISE.get(hook, ())) else describe(exc)
            why = why or _unfit(exc)
            if not why:
                outcome = "refused"
                raise
            outcome = "nonsense"
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


async def _called(each: Loaded, hook: Hook, blocked: Callable[[float], None], *args: object) -> object:
    """Call a plug-in's method. After its deadline it is cancelled; if it ignores that, it is left running.

    `blocked(seconds)` is called when the method has blocked the event loop.
    """

    method: Callable[..., Any] = getattr(each.plugin, hook)

    async def call() -> object:
        try:
            if inspect.iscoroutinefunction(method):
                return await watched(method(*args), blocked)
            return await each.threads[hook].run(listed, method, *args)
        except (SystemExit, KeyboardInterrupt) as exc:  # otherwise it would end the server
            raise RuntimeError(type(exc).__name__) from exc

    return await in_time(asyncio.create_task(call()), each.rules[hook].deadline)


def listed(method: Callable[..., Any], *args: object, **named: object) -> object:
    """Call `method` and, in the same thread, read the iterator that it may return, up to a limit."""
    result = method(*args, **named)
    return list(islice(result, _MOST_YIELDED)) if isinstance(result, Iterator) else result


def _unfit(exc: Any) -> str:
    """The fault in a refusal's fields; empty if it can be sent to a client."""
    if isinstance(exc, Blocked):
        return ""
    if not isinstance(exc.status, int) or not _REFUSED <= exc.status < _FAULT or exc.status == _SIGN_IN:
        return f"its refusal has the status {exc.status!r}: it must be 400 to 499, and not {_SIGN_IN}"
    if not isinstance(exc.code, str) or not _CODE.fullmatch(exc.code):
        return "its refusal has a code that is none, such as off_topic"
    if not isinstance(exc.title, str) or not _TITLE.fullmatch(exc.title):
        return "its refusal has a title that is none, such as Forbidden"
    try:
        text = msgspec.json.encode([exc.detail, exc.fields])
        msgspec.json.decode(text, type=tuple[str, dict[str, str] | None])
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return "its refusal's detail must be a text, and its fields one for each name"
    if not isinstance(exc.detail, str) or not exc.detail or len(text) > _LONGEST_DETAIL:
        return "its refusal does not say why, or too much"
    wait = exc.retry_after
    if wait is not None and not (isinstance(wait, int | float) and 0 <= wait <= _LONGEST_WAIT):
        return "its refusal's retry_after must be a number of seconds, a day at most"
    return ""


# Checks of the methods' results ---------------------------------------------------------------------------------------


def _nothing(given: object) -> None:
    if given is not None:  # `return False` looks like a refusal, but only raising is one
        raise Nonsense(f"it returned {described(given)}: it must raise Refused, or return nothing")


def _budget(given: object) -> Budget | None:
    if given is None:
        return None
    if not isinstance(given, Budget):
        raise Nonsense(f"it returned {described(given)}: it must return a Budget, or nothing")
    for limit in asdict(given).values():
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit < 2**63):
            raise Nonsense("a limit of the budget is no whole number, or below 0")
    return given


def _is_empty(said: object) -> bool:
    """Whether the piece has nothing to show."""
    return isinstance(said, Usage) or said in ("", Reasoning(""))


def _said(given: object, room: int) -> tuple[Said, int]:
    """Return a copy of a piece that a plug-in has yielded, and its size in bytes, which counts against `room`."""
    match given:
        case str():
            return _text(given), 0
        case Reasoning():
            return Reasoning(_text(given.text)), 0
        case Usage():
            return _usage(given), 0
        case Finish():
            usage = None if given.usage is None else _usage(given.usage)
            return Finish(reason=_text(given.reason)[:_LONGEST_TEXT], usage=usage), 0
        case Data():
            return _data(given, room)
    raise Nonsense(f"it yielded {described(given)}: it may yield text, Reasoning, Data, Usage and Finish")


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise Nonsense(f"a text is {described(given)}")
    try:
        given.encode()
    except UnicodeEncodeError as exc:
        raise Nonsense("a text is not valid Unicode") from exc
    return given


def _usage(given: Usage) -> Usage:
    try:
        checked = msgspec.convert(msgspec.to_builtins(given), Usage)
    except (msgspec.MsgspecError, TypeError, ValueError) as exc:
        raise Nonsense("the token counts in its usage are not valid") from exc
    some = (checked.prompt_tokens, checked.completion_tokens, checked.total_tokens)
    if not all(
        0 <= count < _MOST_TOKENS for count in (*some, checked.cached_tokens or 0, checked.reasoning_tokens or 0)
    ):
        raise Nonsense("the token counts in its usage are not valid")
    return checked


def _context(given: object, budget: int) -> tuple[list[str], list[ModelTurn]]:
    if given is None:
        return [], []
    if isinstance(given, str):
        given = [ModelTurn("system", given)]
    if not isinstance(given, Sequence):
        raise Nonsense(f"it returned {described(given)}: it must return a text, a list of turns, or nothing")
    instructions: list[str] = []
    turns: list[ModelTurn] = []
    for one in given:
        if not isinstance(one, ModelTurn) or one.role not in ("system", "user", "assistant"):
            raise Nonsense(_no_turn(one))
        text = _text(one.content)
        budget -= len(text)
        if budget < 0:
            raise Nonsense("its texts are longer than the rest of CHATSTREAM_CONTEXT_CHARACTERS")
        if text and one.role == "system":
            instructions.append(text)
        elif text:
            turns.append(one)
    return instructions, turns


def _no_turn(one: object) -> str:
    if isinstance(one, ModelTurn):
        return f'a turn it returned has the role "{one.role!s:.40}": it must be system, user or assistant'
    made = "Turn(role, content) of chatstream.llm.model"
    if isinstance(one, Turn):
        return f"it returned the turn that it was given, or one of its kind: it must return a text, or a {made}"
    return f"among its turns is {described(one)}: each must be a {made}"


def _annotations(given: object) -> list[Annotation]:
    if given is None:
        return []
    if isinstance(given, Annotation):
        raise Nonsense("it returned one Annotation: it must return a list of them")
    if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping):
        raise Nonsense(f"it returned {described(given)}: it must return a list of Annotations, or nothing")
    found: list[Annotation] = []
    for one in given:
        if len(found) == _MOST_ANNOTATIONS:
            raise Nonsense(f"it found more than {_MOST_ANNOTATIONS} things")
        found.append(_annotation(one))
    return found


def _annotation(one: object) -> Annotation:
    if not isinstance(one, Annotation):
        raise Nonsense(f"it found {described(one)}: it must be an Annotation of chatstream.models")
    checked, _ = _as_json(one, "what it found")
    if checked.kind == RECOMMENDATION:
        return _recommendation(checked, one)
    _check_name(checked, "what it found")
    if len(checked.message) > _LONGEST_TEXT:
        raise Nonsense(f"the message of what it found has more than {_LONGEST_TEXT} characters")
    return checked


def _recommendation(checked: Annotation, given: Annotation) -> Annotation:
    """A checked recommendation. Only its data is stored, as database values, so they must express all of it."""
    try:
        kept = recommendation(msgspec.convert(checked.data, Recommended))
    except ValueError as exc:
        raise Nonsense(f"what it recommends cannot be kept: {exc}") from exc
    if kept != checked or kept.data != given.data:  # NaN has become null
        raise Nonsense(
            f'the kind "{RECOMMENDATION}" is the protocol\'s: make one with chatstream.models.recommendation'
        )
    return kept


def _data(given: Data, room: int) -> tuple[Data, int]:
    """A copy of the data and its size in bytes, which must be at most `room`."""
    checked, size = _as_json(given, "its data")
    _check_name(checked, "its data")
    if size > room:
        raise Nonsense(f"all of its data together has more than {_DATA_BYTES} bytes")
    return checked, size


def _as_json(given: T, what: str) -> tuple[T, int]:
    try:
        encoded = msgspec.json.encode(given)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as exc:
        raise Nonsense(f"{what} contains a value that cannot be written as JSON") from exc
    try:
        checked = msgspec.json.decode(encoded, type=type(given)) if len(encoded) <= _JSON_BYTES else None
    except msgspec.ValidationError as exc:
        field = str(exc).partition("$.")[2].rstrip("`").split(".")[0] or "it"  # "Expected …, got … - at `$.data`"
        must = "an object, a dict with a text for each key" if field == "data" else "a text"
        raise Nonsense(f"{what} is not as it must be: `{field}` must be {must}") from exc
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise Nonsense(f"{what} contains a value that cannot be written as JSON") from exc
    if checked is None:
        raise Nonsense(f"{what} has more than {_JSON_BYTES} bytes")
    if not _is_json(given.data):
        raise Nonsense(f"{what} contains NaN, an infinite number or a set, which JSON does not have")
    return checked, len(encoded)


def _is_json(value: object) -> bool:
    """Whether JSON keeps the value unchanged: it would turn NaN into null, and a set into a list in any order."""
    if isinstance(value, Mapping):
        return all(map(_is_json, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    return math.isfinite(value) if isinstance(value, float) else not isinstance(value, set | frozenset)


def _check_name(given: Annotation | Data, what: str) -> None:
    if not KIND.fullmatch(given.kind) or given.kind in _OUR_KINDS or not 0 < len(given.id) <= _LONGEST_TEXT:
        raise Nonsense(f"{what} must have a kind such as ticket_2, and an id of 1 to {_LONGEST_TEXT} characters")
