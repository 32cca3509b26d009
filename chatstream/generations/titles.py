"""Titles by the model: made after a conversation's first answer, in the background, at a low cost.

The title is made once, for a conversation that was created with `autoTitle`. It replaces the title from the creation,
but never one that somebody has set since: the write itself decides that. The write also removes the `autoTitle` mark.
If the process ends before, the mark stays, and the process that stores the conversation's next answer makes the title.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from msgspec.structs import replace

from chatstream.blank import is_blank
from chatstream.errors import ModelError, StorageUnavailable
from chatstream.generations.budgets import Budgets
from chatstream.generations.generation import Priced, unpriced
from chatstream.generations.tokens import Ratio, estimated
from chatstream.llm import titling
from chatstream.llm.model import Estimate, Model
from chatstream.logs import describe
from chatstream.metrics import Metrics
from chatstream.models import Answer, Conversation, Status, Usage, UserMessage
from chatstream.pieces import Piece, size, text
from chatstream.plugins.plugins import Plugins
from chatstream.store.conversations import Conversations
from chatstream.store.reading import Reading

log = logging.getLogger("chatstream.generations")

# Seconds for everything: waiting for a turn, reading the question, asking the model, storing.
_DEADLINE = 30.0
# The most titles made at the same time in one process, so that they do not slow down the answers; and the most that may
# wait. A dropped one is tried again after the next answer.
_AT_ONCE = 4
_MOST_WAITING = 100
# The most characters of a model's output for a title, with its reasoning. A title has ten tokens; some models think
# first.
_BUDGET = 4_000


class Titles:
    """Makes the titles for this process. It never delays or fails an answer."""

    def __init__(
        self,
        conversations: Conversations,
        reading: Reading,
        model: Model,
        plugins: Plugins,
        metrics: Metrics,
        *,
        allowed: Callable[[Conversation], Conversation] = lambda conversation: conversation,
        name: str | None = None,
        priced: Priced = unpriced,
        budgets: Budgets | None = None,
        given: Callable[[Conversation], None] = lambda conversation: None,
    ) -> None:
        """`name` is the model to ask; None means the conversation's own model, if it is `allowed`.

        `budgets` counts the usage of titles. `given` is called with each conversation that got a title.
        """
        self._given = given
        self._budgets = budgets
        self._allowed = allowed
        self._priced = priced
        self._conversations = conversations
        self._reading = reading
        self._model = model
        self._plugins = plugins
        self._metrics = metrics
        self._name = name
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._making: dict[str, asyncio.Task[None]] = {}  # by conversation key: one at a time

    def answered(self, conversation: Conversation, answer: Answer) -> None:
        """An answer has ended and is stored: make a title if one is due. Returns at once."""
        wanted = conversation.auto_title and not self._plugins.answers
        if not wanted or answer.status is not Status.COMPLETE or is_blank(answer.content):
            return
        if conversation.key in self._making or len(self._making) >= _AT_ONCE + _MOST_WAITING:
            return
        task = asyncio.create_task(self._make(conversation, answer))
        self._making[conversation.key] = task
        task.add_done_callback(lambda _: self._making.pop(conversation.key, None))

    async def close(self) -> None:
        """Cancel the unfinished titles."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _make(self, conversation: Conversation, answer: Answer) -> None:
        facts = {"conversation": conversation.id, "user": conversation.user_id}
        try:
            async with asyncio.timeout(_DEADLINE):
                async with self._places:
                    # Read it again: somebody may have named or deleted it while the answer was written.
                    current = await self._reading.conversation(conversation.key)
                    if current is None or not current.auto_title:
                        return
                    question = await self._reading.get(conversation.key, answer.reply_to)
                    if not isinstance(question, UserMessage):
                        return
                    title = await self._ask(current, question.content, answer)
                    given = await self._conversations.entitle(current, title)
                    if given:
                        self._given(replace(current, title=title))
                    outcome = "given" if given else "none" if title is None else "named"
        except (TimeoutError, StorageUnavailable):
            outcome = "late"
        except Exception as exc:  # noqa: BLE001 - a conversation without a good title is no fault of its answer
            outcome = "failed"
            log.error("no title was made: %s", describe(exc), extra={"facts": facts})
        self._metrics.title_made(outcome)

    async def _ask(self, conversation: Conversation, question: str, answer: Answer) -> str | None:
        turns = titling.request(question, answer.content)
        estimate: Estimate = Ratio().estimate(turns)
        usage: Usage | None = None
        pieces: list[Piece] = []
        finish, name = "", self._name or self._allowed(conversation).model
        answered_by = name
        try:
            source = self._model.stream(turns, model=name)
            async with aclosing(self._plugins.released(source)) as deltas:
                async for delta in deltas:
                    answered_by = delta.model or answered_by
                    pieces += delta.pieces
                    usage = (delta.finish.usage if delta.finish else None) or delta.usage or usage
                    finish = delta.finish.reason if delta.finish else finish
                    if size(pieces) > _BUDGET or len(text(pieces)) > titling.MOST_READ:
                        break
        except ModelError as exc:
            log.info("no title was made: %s", exc, extra={"facts": {"conversation": conversation.id}})
            if not pieces and usage is None:
                return None  # the request was refused, so it is not charged
        finally:
            if pieces or usage is not None:
                await self._count(conversation, answer, usage or estimated(estimate, pieces), answered_by)
        title = titling.title(text(pieces), finish) if finish else None
        # Plug-ins check the title in its shown form: without the Markdown it may read differently.
        return title if title is not None and await self._plugins.may_be_told(title) else None

    async def _count(self, conversation: Conversation, answer: Answer, usage: Usage, model: str | None) -> None:
        used = self._priced(usage, model)
        if used is None:
            return
        self._metrics.title_used(used, model)
        if self._budgets is not None:
            try:
                await self._budgets.took(conversation.user_id, answer.created_at, used, model)
            except StorageUnavailable:
                facts = {"conversation": conversation.id, "user": conversation.user_id}
                log.warning("what a title took is not in its user's account", extra={"facts": facts})
