"""Users' budgets: how much each user may spend, and which users have nothing left.

A plug-in's budget comes first, then the token's, then the settings'. Where nobody has a budget there is no ledger, and
nothing here is asked or stored.
"""

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from msgspec.structs import replace

from chatstream.errors import BudgetExhausted, Unavailable
from chatstream.generations.generation import Priced, unpriced
from chatstream.generations.tokens import Ratio
from chatstream.llm.model import Turn
from chatstream.models import NO_BUDGET, Answer, Budget, Conversation, Round, Usage, UsageSource, User
from chatstream.plugins.plugin import Spender
from chatstream.plugins.plugins import Plugins
from chatstream.store.ledger import Balance, Ledger, Spending

# The most users that are remembered: at 500 bytes each, 50 MB if a botnet has that many tokens.
_MOST_USERS = 100_000
# Seconds for which a user without budget is refused without asking the database. Not longer, as the budget may be
# raised.
_REMEMBERED = 30.0
# The tokens reserved for an answer when nothing is known yet: some paragraphs.
_USUAL_COMPLETION = 500


class _Known(NamedTuple):
    """A user with nothing left, and until when (on the clock) that is assumed."""

    refusal: BudgetExhausted
    until: float


class Budgets:
    """The budgets of the users of one process."""

    def __init__(
        self,
        ledger: Ledger | None = None,
        default: Budget = NO_BUDGET,
        *,
        plugins: Plugins | None = None,
        priced: Priced = unpriced,
        system_prompt: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`default` is the budget of the settings. Without a `ledger` nobody has a budget. `clock` returns seconds."""
        self._ledger = ledger
        self._default = default
        self._plugins = plugins
        self._priced = priced
        self._system_prompt = system_prompt
        self._clock = clock
        self._own: OrderedDict[str, Budget] = OrderedDict()  # by user: budgets from tokens
        self._exhausted: OrderedDict[str, _Known] = OrderedDict()

    def seen(self, user: User) -> None:
        """Remember the budget in a valid token. It also applies to work that continues after the request."""
        if self._ledger is None:
            return
        own = None if user.budget is None else user.budget.applied(self._default)
        if own == self._own.get(user.id):
            return
        self._exhausted.pop(user.id, None)
        self._own.pop(user.id, None)
        if own is not None:
            self._own[user.id] = own
            _forget(self._own)

    def check(self, user_id: str) -> None:
        """Raises `BudgetExhausted` if the user had nothing left shortly before. Does not ask the database."""
        known = self._exhausted.get(user_id)
        if known is None:
            return
        if self._clock() >= known.until or datetime.now(UTC) >= known.refusal.resets_at:
            del self._exhausted[user_id]
            return
        raise known.refusal.again(datetime.now(UTC))

    @contextlib.contextmanager
    def remembering(self, user_id: str) -> Iterator[None]:
        """Remember for a while that a budget is exhausted. A reserved budget is not remembered: an answer may end at
        any moment."""
        try:
            yield
        except BudgetExhausted as exc:
            self._exhausted.pop(user_id, None)
            self._exhausted[user_id] = _Known(exc, self._clock() + _REMEMBERED)
            _forget(self._exhausted)
            raise

    async def spending(self, conversation: Conversation, content: str = "") -> Spending | None:
        """Return the reservation for an answer to a message with this `content`; None without budgets.

        Raises `BudgetExhausted`, and `Unavailable` if a plug-in that must be asked cannot respond.
        """
        if self._ledger is None:
            return None
        self.check(conversation.user_id)
        prompt = self._system_prompt if conversation.system_prompt is None else conversation.system_prompt

        def expect(before: Usage | None) -> Usage:
            told = Ratio().estimate([Turn("system", prompt), Turn("user", content)]).prompt_tokens
            completion = before.completion_tokens if before is not None else _USUAL_COMPLETION
            if before is not None:  # the earlier prompt and answer are sent again
                told = before.total_tokens + Ratio().estimate([Turn("user", content)]).prompt_tokens
            usage = Usage(
                prompt_tokens=told,
                completion_tokens=completion,
                total_tokens=told + completion,
                source=UsageSource.ESTIMATED,
            )
            return self._priced(usage, conversation.model) or usage

        return Spending(conversation.user_id, await self._budget(conversation.user_id), expect)

    async def goes_on(
        self,
        conversation: Conversation,
        answer: Answer,
        taken: Usage,
        newest: Usage,
        model: str | None,
        ended: Sequence[Round] = (),
    ) -> bool:
        """Whether the model may be asked again within `answer`. `taken` is the answer's usage so far, `newest` that of
        the last request, `ended` are all its requests.

        True if the database or plug-in cannot respond: the usage is counted in any case, and an answer's rounds are
        limited.
        """
        if self._ledger is None:
            return True
        model = model or conversation.model
        taken, newest = self._priced(taken, model) or taken, self._priced(newest, model) or newest
        if len(ended) > 1:  # as in `Generation._cost`: each has the price of its model, or none
            shares = [self._priced(one.usage, one.model or conversation.model) for one in ended]
            taken = replace(taken, cost_micros=sum(one.cost_micros or 0 for one in shares if one is not None))
        try:
            budget = await self._budget(conversation.user_id)
            return await self._ledger.extend(conversation.user_id, budget, answer, taken, newest)
        except Unavailable:
            return True

    async def confirm(self, spending: Spending | None) -> None:
        """Raises `OverBudget` if nothing is left. Called before a running answer is stopped for a new one, which would
        be refused."""
        if spending is not None and self._ledger is not None:
            with self.remembering(spending.user_id):
                await self._ledger.check(spending)

    async def took(self, user_id: str, moment: datetime, usage: Usage, model: str | None) -> None:
        """Count usage besides the answers, such as for titles, at this `moment`. Raises `StorageUnavailable`."""
        if self._ledger is not None:
            await self._ledger.add(user_id, moment, usage, model)

    async def balances(self, user_id: str) -> list[Balance]:
        """Return the user's balance for each limit; empty if nobody has a budget. Raises `Unavailable`."""
        if self._ledger is None:
            return []
        return await self._ledger.balances(user_id, await self._budget(user_id), datetime.now(UTC))

    async def _budget(self, user_id: str) -> Budget:
        given = self._own.get(user_id, self._default)
        if self._plugins is None or not self._plugins.budgets:
            return given
        return await self._plugins.budget(Spender(user=user_id, budget=given))


def _forget(known: "OrderedDict[str, Budget] | OrderedDict[str, _Known]") -> None:
    if len(known) > _MOST_USERS:
        known.popitem(last=False)
