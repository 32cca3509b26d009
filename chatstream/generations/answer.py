"""The story of one answer: history, then the model, then how it ended.

Nothing here knows who watches, or that the answer can be cut short from outside.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from chatstream.llm.model import Delta, Model, Turn
from chatstream.models import Answer, Conversation, Message, Status, UserMessage
from chatstream.plugins.plugin import Turn as PluginTurn
from chatstream.plugins.plugins import Plugins
from chatstream.store.documents import FIRST_SEQ
from chatstream.store.reading import Reading


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
    if question is not None and question.seq == FIRST_SEQ:
        turns = [Turn("user", question.content)]  # there is nothing before it: a reader need not wait for a read
    else:
        async with aclosing(reading.newest_first(conversation.key, before=answer.seq)) as history:
            turns = await context(history, answer, budget=context_characters)
    prompt = conversation.system_prompt or system_prompt
    if plugins.needs_turn:
        turn = plugin_turn(conversation, turns, attempt=answer.attempt, key=answer.reply_to)
        if plugins.answers:
            async with aclosing(plugins.released(plugins.answer(turn))) as deltas:
                async for delta in deltas:
                    yield delta
            return
        # At most half: the conversation itself matters, too.
        instructions, more = await plugins.context(turn, budget=context_characters // 2)
        prompt = "\n\n".join([prompt, *instructions])
        given = sum(map(len, instructions)) + sum(len(one.content) for one in more)
        *before, question_turn = trimmed(turns, context_characters - given)
        turns = [*before, *more, question_turn]
    source = model.stream([Turn("system", prompt), *turns], model=conversation.model)
    async with aclosing(plugins.released(source)) as deltas:
        async for delta in deltas:
            yield delta


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
        async with aclosing(reading.newest_first(conversation.key, before=None)) as history:
            turns = await context(history, None, budget=context_characters)
    await plugins.admit(plugin_turn(conversation, [*turns, Turn("user", content)], attempt=attempt, key=key))


def plugin_turn(conversation: Conversation, turns: Sequence[Turn], *, attempt: int, key: str) -> PluginTurn:
    """What plug-ins are told: `turns` end with the user's message."""
    return PluginTurn(
        user=conversation.user_id,
        conversation=conversation.id,
        history=tuple(turns[:-1]),
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
    """What the model is told of the conversation: the user messages, each with one answer, oldest first.

    Of several attempts the newest complete one counts, else the newest with text. It is trimmed from the oldest until
    its characters fit into `budget`; the newest user message is always there. Other attempts than `answer` at what it
    answers are left out.
    """
    turns: list[Turn] = []
    answers: dict[str, Answer] = {}
    async for message in newest_first:
        if isinstance(message, UserMessage):
            turn = [Turn("user", message.content)]
            if attempt := answers.pop(message.id, None):
                turn.insert(0, Turn("assistant", attempt.content))
            budget -= sum(len(part.content) for part in turn)
            if budget < 0 and turns:
                break
            turns += turn
        elif (answer is None or message.reply_to != answer.reply_to) and message.content:
            known = answers.get(message.reply_to)
            if known is None or (known.status is not Status.COMPLETE and message.status is Status.COMPLETE):
                answers[message.reply_to] = message
    return turns[::-1]
