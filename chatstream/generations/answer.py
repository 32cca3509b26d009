"""The story of one answer: history, then the model, then how it ended.

Nothing here knows who watches, or that the answer can be cut short from outside.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from chatstream.blank import is_blank
from chatstream.errors import ErrorCode, ModelError
from chatstream.generations.continuing import asked_to_go_on, continued, kept
from chatstream.generations.tokens import Ratio, estimated
from chatstream.llm.model import Delta, Model, Turn
from chatstream.models import Answer, Conversation, Message, Status, Usage, UserMessage
from chatstream.pieces import Piece, ReasoningPart, fold, size, text
from chatstream.plugins.plugin import Turn as PluginTurn
from chatstream.plugins.plugins import Plugins
from chatstream.store.documents import FIRST_SEQ
from chatstream.store.reading import FILTERED, REFUSALS, Reading

# Which part of the context a model gets that finds it too long: the half of the one before, and at last the newest
# message alone. So a long conversation goes on with what the model can hold.
_SHORTER = (1, 2, 4, 8, None)


async def write_answer(
    conversation: Conversation,
    answer: Answer,
    question: UserMessage | None,
    *,
    reading: Reading,
    model: Model,
    plugins: Plugins,
    system_prompt: str,
    context_characters: int,
) -> AsyncGenerator[Delta, None]:
    """The model's answer in the context of the conversation so far, as it comes.

    `question` is the user message that is answered, if whoever asks has it. `system_prompt` is for conversations
    without one of their own. A plug-in may give more context, answer in place of the model, and hold back what must not
    be told. Raises `ModelError` and `StorageUnavailable`.
    """
    ratio = Ratio()
    begun = await _begun(reading, conversation, answer)
    if question is not None and question.seq == FIRST_SEQ:
        turns = [Turn("user", question.content)]  # there is nothing before it: a reader need not wait for a read
    else:
        async with aclosing(reading.newest_that_count(conversation.key, before=answer.seq)) as history:
            turns = await exchanges(history, answer, budget=context_characters, learn=ratio.learn)
    prompt = system_prompt if conversation.system_prompt is None else conversation.system_prompt
    if plugins.needs_turn:
        turn = plugin_turn(conversation, turns, attempt=answer.attempt, key=answer.reply_to)
        if plugins.answers:
            async with aclosing(plugins.released(plugins.answer(turn))) as deltas:
                async for delta in deltas:
                    yield delta
            return
        # At most half: the conversation itself matters, too.
        instructions, more = await plugins.context(turn, budget=context_characters // 2)
        prompt = "\n\n".join([part for part in (prompt, *instructions) if not is_blank(part)])
        given = sum(map(len, instructions)) + sum(len(one.content) for one in more)
        *before, question_turn = trimmed(turns, context_characters - given)
        turns = [*before, *more, question_turn]
    system = [] if is_blank(prompt) else [Turn("system", prompt)]
    told = _with_room(_joined(turns), context_characters)
    # At most half, as above: where it is longer, its end is what matters.
    end = asked_to_go_on(text(begun), context_characters // 2) if begun else []
    estimates_from = size(begun)
    if begun:
        yield Delta(begun)
    for most in _SHORTER:
        shorter = _newest(told, sum(len(turn.content) for turn in told) // most if most else 0)
        said = False
        request = [*system, *shorter, *end]
        yield Delta([], estimate=ratio.estimate(request)._replace(begins_at=estimates_from))
        try:
            source = plugins.released(model.stream(request, model=conversation.model))
            async with aclosing(source), aclosing(continued(source, text(begun)) if begun else source) as deltas:
                async for delta in deltas:
                    said = said or bool(delta.pieces)
                    yield delta
        except ModelError as exc:
            if exc.code is not ErrorCode.CONTEXT_TOO_LONG or said or len(shorter) == 1:
                raise
        else:
            return


async def estimated_usage(
    conversation: Conversation, answer: Answer, *, reading: Reading, system_prompt: str, context_characters: int
) -> Usage:
    """What an answer whose process is gone is likely to have taken. Raises `StorageUnavailable`."""
    ratio = Ratio()
    async with aclosing(reading.newest_that_count(conversation.key, before=answer.seq)) as history:
        turns = await exchanges(history, answer, budget=context_characters, learn=ratio.learn)
    prompt = system_prompt if conversation.system_prompt is None else conversation.system_prompt
    begun = await _begun(reading, conversation, answer)
    end = asked_to_go_on(text(begun), context_characters // 2) if begun else []
    asked = ratio.estimate([*([] if is_blank(prompt) else [Turn("system", prompt)]), *turns, *end])
    return estimated(asked._replace(begins_at=size(begun)), answer.pieces)


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
            turns = await exchanges(history, None, budget=context_characters, leaf=conversation.head or UNSET)
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


def trimmed(turns: Sequence[Turn], budget: int) -> list[Turn]:
    """The newest of `turns`, from a user's on, that fit into so many characters; the last one always."""
    size = sum(len(turn.content) for turn in turns)
    first, last = 0, len(turns) - 1
    while first < last and (size > budget or turns[first].role != "user"):
        size -= len(turns[first].content)
        first += 1
    return list(turns[first:])


async def context(newest_first: AsyncIterator[Message], answer: Answer | None, *, budget: int) -> list[Turn]:
    """What the model is told of the conversation, oldest first: made so that no model refuses it.

    User and assistant take turns, a user is the first and the last of them, and none is blank: user messages without an
    answer are one turn with those that follow. See `exchanges` for what is left out.
    """
    return _joined(await exchanges(newest_first, answer, budget=budget))


async def exchanges(
    newest_first: AsyncIterator[Message],
    answer: Answer | None,
    *,
    budget: int,
    learn: Callable[[Answer], None] = lambda answer: None,
    leaf: str | UnsetType = UNSET,
) -> list[Turn]:
    """The user messages, each with one answer if it has one, oldest first.

    Only those of the branch that ends with what `answer` answers, or with `leaf`, count; without both, that of the
    newest message. See `store.tree`: a message that does not say what it goes on from goes on from the one before it.

    Of several attempts that counts from which the next message goes on, if it says so, and has text; else the newest
    complete one, else the newest with text. Other attempts than `answer` at what it answers are left out. So is a
    message that a model has refused, or a filter has stopped: it would be refused
    again, with all that was said since. It is trimmed from the oldest until its characters fit into `budget`; the
    newest user message is always there. `learn` is told of every attempt that is read.
    """
    turns: list[Turn] = []
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
        turn = _exchange(message, tried, asked=asked, chosen=chosen)
        budget -= sum(len(part.content) for part in turn)
        if budget < 0 and turns:
            break
        turns += turn
        wanted, chosen = message.parent, None
        if wanted is None:
            break
    return turns[::-1]


def _exchange(message: UserMessage, attempts: list[Answer], *, asked: bool, chosen: str | None) -> list[Turn]:
    """A user message and what answers it, the newer one first; `attempts` are in this order, too."""
    told = [attempt for attempt in attempts if not (is_blank(attempt.content) or _is_refused(attempt))]
    complete = next((attempt for attempt in told if attempt.status is Status.COMPLETE), told[0] if told else None)
    best = next((attempt for attempt in told if attempt.id == chosen), complete)
    if not asked and (is_blank(message.content) or (best is None and any(map(_is_refused, attempts[:1])))):
        return []
    turn = [Turn("user", message.content)]
    return [Turn("assistant", best.content, _thought(best)), *turn] if best else turn


def _thought(answer: Answer) -> str:
    return "\n\n".join(part.text for part in fold(answer.mixed) if isinstance(part, ReasoningPart))


def _with_room(turns: Sequence[Turn], budget: int) -> list[Turn]:
    """What was thought stays with the newest turns, as far as `budget` characters have room for it beside the text."""
    budget -= sum(len(turn.content) for turn in turns)
    kept: list[Turn] = []
    for turn in reversed(turns):
        budget -= len(turn.reasoning)
        kept.append(turn if budget >= 0 else replace(turn, reasoning=""))
    return kept[::-1]


def _is_refused(attempt: Answer) -> bool:
    """A model or a filter would not have the question, or not that answer to it."""
    refused = attempt.failure is not None and attempt.failure.code in REFUSALS
    return refused or attempt.finish_reason == FILTERED


def _joined(turns: Sequence[Turn]) -> list[Turn]:
    """Neighbours of the same role as one."""
    joined: list[Turn] = []
    for turn in turns:
        same = bool(joined) and joined[-1].role == turn.role
        joined.append(Turn(turn.role, f"{joined.pop().content}\n\n{turn.content}") if same else turn)
    return joined


def _newest(turns: list[Turn], budget: int) -> list[Turn]:
    """As many of the newest exchanges as have no more than `budget` characters; the last turn at least."""
    first = 0
    left = sum(len(turn.content) for turn in turns)
    while left > budget and first < len(turns) - 1:
        left -= sum(len(turn.content) for turn in turns[first : first + 2])
        first += 2
    return turns[min(first, len(turns) - 1) :]
