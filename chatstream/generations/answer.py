"""The steps of one answer: read the history, ask the model, carry out its calls, report how it ended.

This module does not know who watches, or that an answer can be stopped from outside.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from chatstream.blank import is_blank
from chatstream.errors import ErrorCode, ModelError
from chatstream.generations.calls import Calling, Calls
from chatstream.generations.continuing import asked_to_go_on, continued, kept
from chatstream.generations.rounds import rounds, steps
from chatstream.generations.tokens import Ratio, added, estimated
from chatstream.generations.trimming import Exchange, Remember, Window, announced
from chatstream.llm.model import Delta, Estimate, Finish, Model, OfferedTool, Tell, Turn
from chatstream.models import Answer, Conversation, Message, Round, Status, Usage, UserMessage
from chatstream.pieces import OpenText, OpenToolCall, Piece, ReasoningPart, fold, has, size, text
from chatstream.plugins.plugin import Turn as PluginTurn
from chatstream.plugins.plugins import Plugins
from chatstream.store.documents import FIRST_SEQ
from chatstream.store.reading import FILTERED, REFUSALS, Reading

# When a model rejects a context as too long: the divisors of the context for each next try, each half of the one
# before. None: the newest message alone. So a long conversation continues with the part that the model can hold.
_SHORTER = (1, 2, 4, 8, None)

MayGoOn = Callable[[Usage, Usage, str | None, Sequence[Round]], Awaitable[bool]]
"""``(taken, newest, model, ended)``: returns whether the model may be asked again within an answer. `taken` is the
usage of the answer so far, `newest` that of the last request, `ended` are all its requests."""


async def _always(taken: Usage, newest: Usage, model: str | None, ended: Sequence[Round]) -> bool:
    return True


async def write_answer(
    conversation: Conversation,
    answer: Answer,
    question: UserMessage | None,
    *,
    reading: Reading,
    model: Model,
    plugins: Plugins,
    calling: Calling,
    system_prompt: str,
    context_characters: int,
    remember: Remember,
    reasoning_back: bool = False,
    may_ask: "asyncio.Future[None] | None" = None,
    may_go_on: MayGoOn = _always,
    tell: Tell | None = None,
) -> AsyncGenerator[Delta, None]:
    """Yield the model's answer to the conversation so far, as it arrives.

    Tool calls are carried out and the model is asked again until it makes no more calls. `answer` holds the text and
    calls of the attempt before; generation continues from there.

    `question` is the user message to answer, if the caller has it. `system_prompt` applies to conversations without
    their own. Plug-ins may add context, answer in place of the model, and hold back forbidden text.
    `context_characters` is the most of a conversation that the model gets (see `trimming`); with `reasoning_back` it
    also gets its own reasoning. Until `may_ask` is done, only the model's request is prepared: nothing is asked or
    yielded. `may_go_on` is asked before each further request. Pieces may go to `tell` (see `Model.stream`) instead of
    being yielded. Raises `ModelError` and `StorageUnavailable`.
    """
    ratio = Ratio()
    begun = await _begun(reading, conversation, answer)
    if question is not None and question.seq == FIRST_SEQ:
        # The first message has no history, so nothing needs to be read.
        window = Window([Exchange(question.seq, [Turn("user", question.content)])])
    else:
        async with aclosing(reading.newest_that_count(conversation.key, before=answer.seq)) as history:
            window = await exchanges(
                history, answer, budget=context_characters, learn=ratio.learn, begin=conversation.context_from
            )
    window.fit(context_characters, reasoning=reasoning_back)
    if may_ask is not None and (plugins.needs_turn or begun or answer.pieces):
        await may_ask  # also before plug-ins and tools, which may cost money
    more: Sequence[Turn] = ()
    prompt = system_prompt if conversation.system_prompt is None else conversation.system_prompt
    if plugins.needs_turn:
        turn = plugin_turn(conversation, window.history, attempt=answer.attempt, key=answer.reply_to)
        if plugins.answers:
            # The plug-in replaces the model, and may call a service that costs as much: estimate the same usage. If it
            # costs less, the plug-in reports that.
            yield Delta([], estimate=ratio.estimate(window.history)._replace(of_model=False))
            async with aclosing(plugins.released(plugins.answer(turn))) as deltas:
                async for delta in deltas:
                    yield delta
            return
        # At most half of the context for plug-ins; the other half is for the conversation.
        instructions, more = await plugins.context(turn, budget=context_characters // 2)
        prompt = "\n\n".join([part for part in (prompt, *instructions) if not is_blank(part)])
        given = sum(map(len, instructions)) + sum(one.size for one in more)
        window.fit(context_characters - given, reasoning=reasoning_back)
    window.arrange(more)
    system = [] if is_blank(prompt) else [Turn("system", prompt)]
    told = _with_room(window.turns, context_characters)

    def ask(
        own: Sequence[Turn], *, tools: Sequence[OfferedTool] = (), begins_at: int = 0, tell: Tell | None = None
    ) -> AsyncGenerator[Delta, None]:
        return _asked(
            model,
            conversation,
            system,
            told,
            own,
            window,
            tools=tools,
            ratio=ratio,
            begins_at=begins_at,
            may_ask=may_ask,
            tell=tell,
        )

    if begun:
        said = _continued(begun, ask, plugins, most=context_characters)
    else:
        calls = calling.of(conversation, answer)

        def ask_with_tools(own: Sequence[Turn], tell: Tell) -> AsyncGenerator[Delta, None]:
            return ask(own, tools=calls.offered, tell=tell)

        said = _rounds(answer, ask_with_tools, calling, calls, may_go_on, None if plugins.hold else tell)
        said = plugins.released(said, answer.pieces)
    first = True
    async with aclosing(said) as deltas:
        async for delta in deltas:
            if first and delta.pieces:
                first = False
                if before := await announced(window, remember):
                    delta = replace(delta, pieces=[*before, *delta.pieces])
            yield delta


async def _continued(
    begun: list[Piece], ask: Callable[..., AsyncGenerator[Delta, None]], plugins: Plugins, *, most: int
) -> AsyncGenerator[Delta, None]:
    """Yield `begun`, the pieces of a cut text, and the model's continuation, as far as plug-ins allow it. No tool is
    called for it."""
    # At most half of the context for this text; of a longer text, the end matters.
    end = asked_to_go_on(text(begun), most // 2)
    yield Delta(begun)
    source = ask(end, begins_at=size(begun))
    # Plug-ins check the continuation last, together with the text before it: a forbidden phrase may span both.
    async with aclosing(source), aclosing(plugins.released(continued(source, text(begun)), begun)) as deltas:
        async for delta in deltas:
            yield delta


async def _asked(
    model: Model,
    conversation: Conversation,
    system: Sequence[Turn],
    told: Sequence[Turn],
    own: Sequence[Turn],
    window: Window,
    *,
    tools: Sequence[OfferedTool],
    ratio: Ratio,
    begins_at: int,
    may_ask: "asyncio.Future[None] | None",
    tell: Tell | None,
) -> AsyncGenerator[Delta, None]:
    """Yield the model's response to one request. If the model rejects the context `told` as too long, try a shorter
    one.

    `begins_at` is the length of the answer before this request; the estimate does not count it.
    """
    for most in _SHORTER:
        shorter = _newest(told, sum(turn.size for turn in told) // most if most else 0)
        window.told_from(len(told) - len(shorter))
        said = False
        request = [*system, *shorter, *own]
        yield Delta([], estimate=ratio.estimate(request)._replace(begins_at=begins_at))
        try:
            source = model.stream(
                request, model=conversation.model, tools=tools, cache_key=conversation.key, may_ask=may_ask, tell=tell
            )
            async with aclosing(source) as deltas:
                async for delta in deltas:
                    said = said or bool(delta.pieces)
                    yield delta
        except ModelError as exc:
            if exc.code is not ErrorCode.CONTEXT_TOO_LONG or said or len(shorter) == 1:
                raise
        else:
            return


async def _rounds(
    answer: Answer,
    ask: Callable[[Sequence[Turn], Tell], AsyncGenerator[Delta, None]],
    calling: Calling,
    calls: Calls,
    may_go_on: MayGoOn,
    tell: Tell | None,
) -> AsyncGenerator[Delta, None]:
    """Ask the model, carry out its calls, and repeat. See `write_answer`."""
    said: list[Piece] = [*answer.pieces]
    number = sum(isinstance(piece, OpenToolCall) and piece.id.startswith(f"{answer.id}.") for piece in said)
    used = answer.usage  # the sum of the requests before this one; an answer that has waited brings some
    newest_usage = used  # the usage of the request before
    ended = [*answer.rounds]
    finish: Finish | None = None
    model: str | None = None

    def tell_and_note(pieces: Sequence[Piece]) -> bool:
        told = tell is not None and tell(pieces)
        if told:
            said.extend(pieces)
        return told

    while True:
        if (newest := rounds(said)[-1]).calls and (newest.is_whole or finish is not None):
            refusal, is_last = calling.refusal(said, finish)
            async with aclosing(calls.run(newest.calls, refusal)) as outcomes:
                async for delta in outcomes:
                    said += delta.pieces
                    yield delta
                    if delta.waits:
                        return
            if is_last:
                yield Delta([], Finish(reason=is_last, usage=used))
                return
        if used is not None and newest_usage is not None and not await may_go_on(used, newest_usage, model, ended):
            raise ModelError(ErrorCode.BUDGET_EXHAUSTED, "the user's budget has no room for another request")
        own = [Turn("assistant", "", steps=told)] if (told := steps(said)) else []
        before, estimate = len(said), Estimate(0, 0)
        finish = None
        begun = not said
        async with aclosing(ask(own, tell_and_note)) as deltas:
            async for delta in deltas:
                estimate = delta.estimate or estimate
                model = delta.model or model
                pieces: Sequence[Piece] = delta.pieces
                if pieces:
                    if not begun:  # the open part is a call
                        begun = True
                        if isinstance(pieces[0], str):
                            pieces = [OpenText(), *pieces]
                    if has(OpenToolCall, pieces):
                        made: list[Piece] = []
                        for piece in pieces:
                            if isinstance(piece, OpenToolCall):
                                number += 1
                                piece = replace(piece, id=f"{answer.id}.{number}")
                            made.append(piece)
                        pieces = made
                    said += pieces
                    if pieces is not delta.pieces:
                        delta = replace(delta, pieces=[*pieces])
                if used is not None and delta.usage is not None:
                    delta = replace(delta, usage=added(used, delta.usage))
                finish = delta.finish
                if finish is None:
                    yield delta
                    continue
                if delta.pieces or delta.model:
                    yield replace(delta, finish=None)
                break
        if finish is None:
            return  # the stream broke off; the reader of these deltas detects it
        usage = finish.usage
        # Check only this request: if it returned nothing, `said` still ends with the calls of the round before.
        called = has(OpenToolCall, said[before:])
        if usage is None and (used is not None or called):
            usage = estimated(estimate, said[before:])
        used, newest_usage = added(used, usage), usage
        one = Round(model=model, finish_reason=finish.reason, usage=usage)
        ended.append(one)
        if not called:
            yield Delta([], Finish(reason=finish.reason, usage=used), round=one)
            return
        yield Delta([], usage=used, round=one)


async def estimated_usage(
    conversation: Conversation, answer: Answer, *, reading: Reading, system_prompt: str, context_characters: int
) -> Usage:
    """Return the estimated usage of an answer whose process is gone. Raises `StorageUnavailable`."""
    ratio = Ratio()
    async with aclosing(reading.newest_that_count(conversation.key, before=answer.seq)) as history:
        window = await exchanges(
            history, answer, budget=context_characters, learn=ratio.learn, begin=conversation.context_from
        )
    window.fit(context_characters)
    prompt = system_prompt if conversation.system_prompt is None else conversation.system_prompt
    system = [] if is_blank(prompt) else [Turn("system", prompt)]
    begun = await _begun(reading, conversation, answer)
    end = asked_to_go_on(text(begun), context_characters // 2) if begun else []
    told = [*system, *window.history, *end]
    # Each further request repeats everything before it, plus the results of its calls.
    done = steps(answer.mixed)
    prompts = [ratio.estimate(told)]
    prompts += [
        ratio.estimate([*told, Turn("assistant", "", steps=done[:most])]) for most in range(1, _asked_again(answer) + 1)
    ]
    asked = prompts[0]._replace(prompt_tokens=sum(one.prompt_tokens for one in prompts), begins_at=size(begun))
    return estimated(asked, answer.pieces)


def _asked_again(answer: Answer) -> int:
    """Return how often the model was asked again after its first text, as far as the answer's log shows."""
    *before, newest = rounds(answer.mixed)
    over = newest.is_whole and all(call.is_over for call in newest.calls)
    return len(before) + over


async def _begun(reading: Reading, conversation: Conversation, answer: Answer) -> list[Piece]:
    """Return the pieces that the answer begins with, if it continues a cut attempt. Raises `StorageUnavailable`."""
    if answer.continues is None:
        return []
    cut = await reading.get(conversation.key, answer.continues)
    return kept(cut) if isinstance(cut, Answer) else []


async def admit(
    conversation: Conversation,
    content: str,
    *,
    attempt: int,
    key: str,
    plugins: Plugins,
    reading: Reading,
    context_characters: int,
) -> None:
    """Ask the plug-ins whether `content` may be stored and sent to the model.

    Raises `Refused` if a plug-in forbids it, `Unavailable` if a plug-in cannot decide, and `StorageUnavailable`.
    """
    if not plugins.admits:
        return
    turns: list[Turn] = []
    if conversation.key:  # without a key the conversation is not created yet
        also = [conversation.head] if conversation.head is not None else []
        async with aclosing(reading.newest_that_count(conversation.key, before=None, also=also)) as history:
            window = await exchanges(
                history,
                None,
                budget=context_characters,
                leaf=conversation.head or UNSET,
                begin=conversation.context_from,
            )
            turns = window.history
    await plugins.admit(plugin_turn(conversation, [*turns, Turn("user", content)], attempt=attempt, key=key))


def plugin_turn(conversation: Conversation, turns: Sequence[Turn], *, attempt: int, key: str) -> PluginTurn:
    """Return the turn that plug-ins get; `turns` end with the user's message."""
    return PluginTurn(
        user=conversation.user_id,
        conversation=conversation.id,
        history=tuple(Turn(turn.role, turn.content) for turn in turns[:-1]),
        message=turns[-1].content,
        attempt=attempt,
        key=key,
        model=conversation.model,
    )


async def context(newest_first: AsyncIterator[Message], answer: Answer | None, *, budget: int) -> list[Turn]:
    """Return the turns of the conversation for the model, oldest first, in a form that every model accepts.

    User and assistant alternate, the first and the last turn are the user's, and no turn is blank: a user message
    without an answer is merged with the next one. See `exchanges` for what is left out.
    """
    window = await exchanges(newest_first, answer, budget=budget)
    window.arrange()
    return window.turns


async def exchanges(
    newest_first: AsyncIterator[Message],
    answer: Answer | None,
    *,
    budget: int,
    learn: Callable[[Answer], None] = lambda answer: None,
    leaf: str | UnsetType = UNSET,
    begin: int | None = None,
) -> Window:
    """Return the user messages from `seq` `begin` on, oldest first, each with one answer if it has one.

    Only one branch counts: the one that ends with the question of `answer`, or with `leaf`; without both, with the
    newest message. See `store.tree`: a message without a parent follows the message before it. If the message at
    `begin` is on another branch, `begin` is ignored.

    Of several attempts, this order decides: the attempt with text that the next message follows, if it names one; the
    newest complete one; the newest with text. Other attempts at the question of `answer` are left out. A message that
    the model refused, or that a filter stopped, is left out too: with it, the whole conversation would be refused
    again. At most `budget` characters are read, but always the newest user message. `learn` is called with every
    attempt that is read.
    """
    found: list[Exchange] = []
    over = False
    attempts: dict[str, list[Answer]] = {}
    # The next message wanted on the way up from the leaf: an id, UNSET for whichever message comes next, or None for no
    # message.
    wanted: str | UnsetType | None = leaf if answer is None else answer.reply_to
    chosen: str | None = None  # the attempt that the next message follows
    async for message in newest_first:
        if isinstance(message, Answer):
            learn(message)
            if answer is None or message.reply_to != answer.reply_to:
                attempts.setdefault(message.reply_to, []).append(message)
            if message.id == wanted:
                wanted, chosen = message.reply_to, message.id
            continue
        tried = attempts.pop(message.id, [])
        if wanted not in (UNSET, message.id):
            continue  # it is on another branch
        asked = answer is not None and message.id == answer.reply_to
        if turns := _exchange(message, tried, asked=asked, chosen=chosen):
            exchange = Exchange(message.seq, turns[::-1])
            budget -= exchange.size
            if budget < 0 and found:
                over = True
                break
            found.append(exchange)
        wanted, chosen = message.parent, None
        if wanted is None or message.seq == begin:
            break
    return Window(found[::-1], over=over, begin=begin)


def _exchange(message: UserMessage, attempts: list[Answer], *, asked: bool, chosen: str | None) -> list[Turn]:
    """Return the turns of a user message and its answer, the newer turn first; `attempts` are newest first, too."""
    told = [attempt for attempt in attempts if not (_says_nothing(attempt) or _is_refused(attempt))]
    complete = next((attempt for attempt in told if attempt.status is Status.COMPLETE), told[0] if told else None)
    best = next((attempt for attempt in told if attempt.id == chosen), complete)
    if not asked and (is_blank(message.content) or (best is None and any(map(_is_refused, attempts[:1])))):
        return []
    turn = [Turn("user", message.content)]
    return [Turn("assistant", best.content, _thought(best), steps(best.mixed)), *turn] if best else turn


def _says_nothing(attempt: Answer) -> bool:
    """Whether the attempt has neither text nor a call."""
    return is_blank(attempt.content) and not steps(attempt.mixed)


def _thought(answer: Answer) -> str:
    return "\n\n".join(part.text for part in fold(answer.mixed) if isinstance(part, ReasoningPart))


def _with_room(turns: Sequence[Turn], budget: int) -> list[Turn]:
    """Return `turns` with reasoning kept only in the newest ones, as far as `budget` characters have room beside the
    text."""
    budget -= sum(turn.size for turn in turns)
    kept: list[Turn] = []
    for turn in reversed(turns):
        budget -= len(turn.reasoning)
        kept.append(turn if budget >= 0 else replace(turn, reasoning=""))
    return kept[::-1]


def _is_refused(attempt: Answer) -> bool:
    """Whether the model or a filter refused the question or this answer."""
    refused = attempt.failure is not None and attempt.failure.code in REFUSALS
    return refused or attempt.finish_reason == FILTERED


def _newest(turns: Sequence[Turn], budget: int) -> list[Turn]:
    """Return as many of the newest exchanges as fit in `budget` characters; at least the last turn."""
    first = 0
    left = sum(turn.size for turn in turns)
    while left > budget and first < len(turns) - 1:
        left -= sum(turn.size for turn in turns[first : first + 2])
        first += 2
    return list(turns)[min(first, len(turns) - 1) :]
