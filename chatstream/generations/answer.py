"""The story of one answer: history, then the model, then how it ended.

Nothing here knows who watches, or that the answer can be cut short from outside.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from chatstream.llm.model import Delta, Model, Turn
from chatstream.models import Answer, Conversation, Message, Status, UserMessage
from chatstream.store.documents import FIRST_SEQ
from chatstream.store.reading import Reading


async def write_answer(
    conversation: Conversation,
    answer: Answer,
    question: UserMessage | None,
    *,
    reading: Reading,
    model: Model,
    system_prompt: str,
    context_characters: int,
) -> AsyncGenerator[Delta, None]:
    """The model's answer in the context of the conversation so far, as it comes.

    `question` is the user message that is answered, if whoever asks has it. `system_prompt` is for conversations
    without one of their own. Raises `ModelError` and `StorageUnavailable`.
    """
    if question is not None and question.seq == FIRST_SEQ:
        turns = [Turn("user", question.content)]  # there is nothing before it: a reader need not wait for a read
    else:
        async with aclosing(reading.newest_first(conversation.key, before=answer.seq)) as history:
            turns = await context(history, answer, budget=context_characters)
    prompt = conversation.system_prompt or system_prompt
    async with aclosing(model.stream([Turn("system", prompt), *turns], model=conversation.model)) as deltas:
        async for delta in deltas:
            yield delta


async def context(newest_first: AsyncIterator[Message], answer: Answer, *, budget: int) -> list[Turn]:
    """What the model is told of the conversation: the user messages, each with one answer, oldest first.

    Of several attempts the newest complete one counts, else the newest with text. It is trimmed from the oldest until
    its characters fit into `budget`; the newest user message is always there.
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
        elif message.reply_to != answer.reply_to and message.content:
            known = answers.get(message.reply_to)
            if known is None or (known.status is not Status.COMPLETE and message.status is Status.COMPLETE):
                answers[message.reply_to] = message
    return turns[::-1]
