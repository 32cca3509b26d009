"""The story of one answer: history, then the model, then how it ended.

Nothing here knows who watches, or that the answer can be cut short from outside.
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
from chatstream.llm.model import Delta, Estimate, Finish, Model, OfferedTool, Turn
from chatstream.models import Answer, Conversation, Message, Round, Status, Usage, UserMessage
from chatstream.pieces import OpenText, OpenToolCall, Piece, ReasoningPart, fold, has, size, text
from chatstream.plugins.plugin import Turn as PluginTurn
from chatstream.plugins.plugins import Plugins
from chatstream.store.documents import FIRST_SEQ
from chatstream.store.reading import FILTERED, REFUSALS, Reading

# Which part of the context a model gets that finds it too long: the half of the one before, and at last the newest
# message alone. So a long conversation goes on with what the model can hold.
_SHORTER = (1, 2, 4, 8, None)

MayGoOn = Callable[[Usage, Usage, str | None], Awaitable[bool]]
"""``(taken, newest, model)``: whether the model may be asked again within an answer that has `taken` so much, with
`newest` the last time."""


async def _always(taken: Usage, newest: Usage, model: str | None) -> bool:
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
) -> AsyncGenerator[Delta, None]:
    """The model's answer in the context of the conversation so far, as it comes.

    What the model calls is carried out, and the model asked again, until it calls nothing more. `answer` has what an
    attempt before has said and called already; it goes on from there.

    `question` is the user message that is answered, if whoever asks has it. `system_prompt` is for conversations
    without one of their own. A plug-in may give more context, answer in place of the model, and hold back what must not
    be told. `context_characters` is the most of a conversation that the model is told (see `trimming`); with
    `reasoning_back` it is told what it thought, too. Nobody is asked, and nothing is said, before `may_ask` is done:
    until then, only the model's request is made ready. `may_go_on` is asked before each further request. Raises
    `ModelError` and `StorageUnavailable`.
    """
    ratio = Ratio()
    begun = await _begun(reading, conversation, answer)
    if question is not None and question.seq == FIRST_SEQ:
        # There is nothing before it: a reader need not wait for a read.
        window = Window([Exchange(question.seq, [Turn("user", question.content)])])
    else:
        async with aclosing(reading.newest_that_count(conversation.key, before=answer.seq)) as history:
            window = await exchanges(
                history, answer, budget=context_characters, learn=ratio.learn, begin=conversation.context_from
            )
    window.fit(context_characters, reasoning=reasoning_back)
    if may_ask is not None and (plugins.needs_turn or begun or answer.pieces):
        await may_ask  # plug-ins and tools may cost something, too
    more: Sequence[Turn] = ()
    prompt = system_prompt if conversation.system_prompt is None else conversation.system_prompt
    if plugins.needs_turn:
        turn = plugin_turn(conversation, window.history, attempt=answer.attempt, key=answer.reply_to)
        if plugins.answers:
            async with aclosing(plugins.released(plugins.answer(turn))) as deltas:
                async for delta in deltas:
                    yield delta
            return
        # At most half: the conversation itself matters, too.
        instructions, more = await plugins.context(turn, budget=context_characters // 2)
        prompt = "\n\n".join([part for part in (prompt, *instructions) if not is_blank(part)])
        given = sum(map(len, instructions)) + sum(one.size for one in more)
        window.fit(context_characters - given, reasoning=reasoning_back)
    window.arrange(more)
    system = [] if is_blank(prompt) else [Turn("system", prompt)]
    told = _with_room(window.turns, context_characters)

    def ask(
        own: Sequence[Turn], *, tools: Sequence[OfferedTool] = (), begins_at: int = 0
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
        )

    said = _said(
        conversation,
        answer,
        ask,
        begun=begun,
        plugins=plugins,
        calling=calling,
        most=context_characters,
        may_go_on=may_go_on,
    )
    async with aclosing(announced(window, said, remember)) as deltas:
        async for delta in deltas:
            yield delta


async def _said(
    conversation: Conversation,
    answer: Answer,
    ask: Callable[..., AsyncGenerator[Delta, None]],
    *,
    begun: list[Piece],
    plugins: Plugins,
    calling: Calling,
    most: int,
    may_go_on: MayGoOn,
) -> AsyncGenerator[Delta, None]:
    """What the model says and calls, as far as plug-ins let it; what the answer has `begun` with comes first."""
    if begun:  # the rest of a text: nothing is called for that
        # At most half, as above: where it is longer, its end is what matters.
        end = asked_to_go_on(text(begun), most // 2)
        yield Delta(begun)
        source = ask(end, begins_at=size(begun))
        # Released last, and together with what it goes on from: what is held back may be half there, and half here.
        async with aclosing(source), aclosing(plugins.released(continued(source, text(begun)), begun)) as deltas:
            async for delta in deltas:
                yield delta
        return

    calls = calling.of(conversation, answer)

    def ask_with_tools(own: Sequence[Turn]) -> AsyncGenerator[Delta, None]:
        return ask(own, tools=calls.offered)

    said = _rounds(answer, ask_with_tools, calling, calls, may_go_on)
    async with aclosing(plugins.released(said, answer.pieces)) as deltas:
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
) -> AsyncGenerator[Delta, None]:
    """What the model says to one request: of what was `told` so much that it is not too long for the model.

    `begins_at` is how much of the answer is there that no estimate counts.
    """
    for most in _SHORTER:
        shorter = _newest(told, sum(turn.size for turn in told) // most if most else 0)
        window.told_from(len(told) - len(shorter))
        said = False
        request = [*system, *shorter, *own]
        yield Delta([], estimate=ratio.estimate(request)._replace(begins_at=begins_at))
        try:
            source = model.stream(
                request, model=conversation.model, tools=tools, cache_key=conversation.key, may_ask=may_ask
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
    ask: Callable[[Sequence[Turn]], AsyncGenerator[Delta, None]],
    calling: Calling,
    calls: Calls,
    may_go_on: MayGoOn,
) -> AsyncGenerator[Delta, None]:
    """The model is asked, what it calls is carried out, and so on. See `write_answer`."""
    said: list[Piece] = [*answer.pieces]
    number = sum(isinstance(piece, OpenToolCall) and piece.id.startswith(f"{answer.id}.") for piece in said)
    used = answer.usage  # with the requests before this one; of an answer that has waited there is some
    newest_usage = used  # of the request before
    finish: Finish | None = None
    model: str | None = None
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
        if used is not None and newest_usage is not None and not await may_go_on(used, newest_usage, model):
            raise ModelError(ErrorCode.BUDGET_EXHAUSTED, "the user's budget has no room for another request")
        own = [Turn("assistant", "", steps=told)] if (told := steps(said)) else []
        before, estimate = len(said), Estimate(0, 0)
        finish = None
        begun = not said
        async with aclosing(ask(own)) as deltas:
            async for delta in deltas:
                estimate = delta.estimate or estimate
                model = delta.model or model
                pieces: Sequence[Piece] = delta.pieces
                if pieces:
                    if not begun:  # what was open before is a call
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
                        delta = delta._replace(pieces=[*pieces])
                if used is not None and delta.usage is not None:
                    delta = delta._replace(usage=added(used, delta.usage))
                finish = delta.finish
                if finish is None:
                    yield delta
                    continue
                if delta.pieces or delta.model:
                    yield delta._replace(finish=None)
                break
        if finish is None:
            return  # whoever reads this knows that it broke off
        usage = finish.usage
        # Of this request: one that has said nothing leaves the round before as the last one.
        called = has(OpenToolCall, said[before:])
        if usage is None and (used is not None or called):
            usage = estimated(estimate, said[before:])
        used, newest_usage = added(used, usage), usage
        one = Round(model=model, finish_reason=finish.reason, usage=usage)
        if not called:
            yield Delta([], Finish(reason=finish.reason, usage=used), round=one)
            return
        yield Delta([], usage=used, round=one)


async def estimated_usage(
    conversation: Conversation, answer: Answer, *, reading: Reading, system_prompt: str, context_characters: int
) -> Usage:
    """What an answer whose process is gone is likely to have taken. Raises `StorageUnavailable`."""
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
    # Each further request has told the model, once more, everything before it, and what came of its calls.
    done = steps(answer.mixed)
    prompts = [ratio.estimate(told)]
    prompts += [
        ratio.estimate([*told, Turn("assistant", "", steps=done[:most])]) for most in range(1, _asked_again(answer) + 1)
    ]
    asked = prompts[0]._replace(prompt_tokens=sum(one.prompt_tokens for one in prompts), begins_at=size(begun))
    return estimated(asked, answer.pieces)


def _asked_again(answer: Answer) -> int:
    """How often the model was asked after its first words, as far as the log of an answer says."""
    *before, newest = rounds(answer.mixed)
    over = newest.is_whole and all(call.is_over for call in newest.calls)
    return len(before) + over


async def _begun(reading: Reading, conversation: Conversation, answer: Answer) -> list[Piece]:
    """What the answer begins with, if it goes on from an attempt that was cut. Raises `StorageUnavailable`."""
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
    """Raises `Refused` if a plug-in wants nothing to be stored or asked for `content`, `Unavailable` if it cannot say.

    Raises `StorageUnavailable`.
    """
    if not plugins.admits:
        return
    turns: list[Turn] = []
    if conversation.key:  # else it is yet to be created
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
    """What plug-ins are told: `turns` end with the user's message."""
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
    """What the model is told of the conversation, oldest first: made so that no model refuses it.

    User and assistant take turns, a user is the first and the last of them, and none is blank: user messages without an
    answer are one turn with those that follow. See `exchanges` for what is left out.
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
    """The user messages, each with one answer if it has one, oldest first; from the one whose `seq` is `begin` on.

    Only those of the branch that ends with what `answer` answers, or with `leaf`, count; without both, that of the
    newest message. See `store.tree`: a message that does not say what it goes on from goes on from the one before it.
    Where the message at `begin` is of another branch, there is no such point.

    Of several attempts that counts from which the next message goes on, if it says so, and has text; else the newest
    complete one, else the newest with text. Other attempts than `answer` at what it answers are left out. A message
    that the model refused, or that a filter stopped, is left out, too: with it, the whole conversation would be refused
    again. At most `budget` characters are read, but always the newest user message. `learn` is called with every
    attempt that is read.
    """
    found: list[Exchange] = []
    over = False
    attempts: dict[str, list[Answer]] = {}
    # What comes next on the way up from the leaf: a message's id, the next one that comes, or nothing.
    wanted: str | UnsetType | None = leaf if answer is None else answer.reply_to
    chosen: str | None = None  # the attempt from which the message before goes on
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
            continue  # it is of another branch
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
    """A user message and what answers it, the newer one first; `attempts` are in this order, too."""
    told = [attempt for attempt in attempts if not (_says_nothing(attempt) or _is_refused(attempt))]
    complete = next((attempt for attempt in told if attempt.status is Status.COMPLETE), told[0] if told else None)
    best = next((attempt for attempt in told if attempt.id == chosen), complete)
    if not asked and (is_blank(message.content) or (best is None and any(map(_is_refused, attempts[:1])))):
        return []
    turn = [Turn("user", message.content)]
    return [Turn("assistant", best.content, _thought(best), steps(best.mixed)), *turn] if best else turn


def _says_nothing(attempt: Answer) -> bool:
    """There is neither text in it nor a call."""
    return is_blank(attempt.content) and not steps(attempt.mixed)


def _thought(answer: Answer) -> str:
    return "\n\n".join(part.text for part in fold(answer.mixed) if isinstance(part, ReasoningPart))


def _with_room(turns: Sequence[Turn], budget: int) -> list[Turn]:
    """What was thought stays with the newest turns, as far as `budget` characters have room for it beside the text."""
    budget -= sum(turn.size for turn in turns)
    kept: list[Turn] = []
    for turn in reversed(turns):
        budget -= len(turn.reasoning)
        kept.append(turn if budget >= 0 else replace(turn, reasoning=""))
    return kept[::-1]


def _is_refused(attempt: Answer) -> bool:
    """A model or a filter would not have the question, or not that answer to it."""
    refused = attempt.failure is not None and attempt.failure.code in REFUSALS
    return refused or attempt.finish_reason == FILTERED


def _newest(turns: Sequence[Turn], budget: int) -> list[Turn]:
    """As many of the newest exchanges as have no more than `budget` characters; the last turn at least."""
    first = 0
    left = sum(turn.size for turn in turns)
    while left > budget and first < len(turns) - 1:
        left -= sum(turn.size for turn in turns[first : first + 2])
        first += 2
    return list(turns)[min(first, len(turns) - 1) :]
