"""Who may spend how much, and who has nothing left.

What a user may spend is what the settings say, where the token does not say otherwise, where a plug-in does not.
Where nobody has a budget there is no ledger, and nothing here asks or stores anything.
"""

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from chatstream.errors import BudgetExhausted, Unavailable
from chatstream.generations.generation import Priced, unpriced
from chatstream.generations.tokens import Ratio
from chatstream.llm.model import Turn
from chatstream.models import NO_BUDGET, Answer, Budget, Conversation, Usage, UsageSource, User
from chatstream.plugins.plugin import Spender
from chatstream.plugins.plugins import Plugins
from chatstream.store.ledger import Balance, Ledger, Spending

# Users of whom something is remembered: at 500 bytes each, 50 MB if a botnet has that many tokens.
_MOST_USERS = 100_000
# Whoever has nothing left is refused for so long without asking the database, in seconds: it may be raised meanwhile.
_REMEMBERED = 30.0
# What an answer takes that nothing is known of yet: some paragraphs.
_USUAL_COMPLETION = 500


class _Known(NamedTuple):
    """Who has nothing left, and until when that is believed, on the clock."""

    refusal: BudgetExhausted
    until: float


class Budgets:
    """Of one process."""

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
        """`default` is the settings'; without a `ledger` nobody has a budget. `clock` counts seconds."""
        self._ledger = ledger
        self._default = default
        self._plugins = plugins
        self._priced = priced
        self._system_prompt = system_prompt
        self._clock = clock
        self._own: OrderedDict[str, Budget] = OrderedDict()  # those that tokens gave, by user
        self._exhausted: OrderedDict[str, _Known] = OrderedDict()

    def seen(self, user: User) -> None:
        """Somebody came with a good token: what it says of their budget holds, also for what goes on without them."""
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
        """Raises `BudgetExhausted` for whoever had nothing left a moment ago. Asks nobody."""
        known = self._exhausted.get(user_id)
        if known is None:
            return
        if self._clock() >= known.until or datetime.now(UTC) >= known.refusal.resets_at:
            del self._exhausted[user_id]
            return
        raise known.refusal.again(datetime.now(UTC))

    @contextlib.contextmanager
    def remembering(self, user_id: str) -> Iterator[None]:
        """That all is used up is remembered for a while; that it is reserved, not: an answer may end at any moment."""
        try:
            yield
        except BudgetExhausted as exc:
            self._exhausted.pop(user_id, None)
            self._exhausted[user_id] = _Known(exc, self._clock() + _REMEMBERED)
            _forget(self._exhausted)
            raise

    async def spending(self, conversation: Conversation, content: str = "") -> Spending | None:
        """What an answer in this conversation, to a message with this `content`, is reserved with; None if nothing is.

        Raises `BudgetExhausted`, and `Unavailable` if a plug-in that must be asked cannot say.
        """
        if self._ledger is None:
            return None
        self.check(conversation.user_id)
        prompt = self._system_prompt if conversation.system_prompt is None else conversation.system_prompt

        def expect(before: Usage | None) -> Usage:
            told = Ratio().estimate([Turn("system", prompt), Turn("user", content)]).prompt_tokens
            completion = before.completion_tokens if before is not None else _USUAL_COMPLETION
            if before is not None:  # what was sent and said then is sent again
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
        self, conversation: Conversation, answer: Answer, taken: Usage, newest: Usage, model: str | None
    ) -> bool:
        """Whether the model may be asked again within `answer`, which has `taken` so much, with `newest` the last time.

        If nobody can say, it may: what it takes is counted all the same, and the rounds of an answer are bounded.
        """
        if self._ledger is None:
            return True
        model = model or conversation.model
        taken, newest = self._priced(taken, model) or taken, self._priced(newest, model) or newest
        try:
            budget = await self._budget(conversation.user_id)
            return await self._ledger.extend(conversation.user_id, budget, answer, taken, newest)
        except Unavailable:
            return True

    async def confirm(self, spending: Spending | None) -> None:
        """Raises `OverBudget` if nothing is left: before something is ended for what would be refused."""
        if spending is not None and self._ledger is not None:
            with self.remembering(spending.user_id):
                await self._ledger.check(spending)

    async def took(self, user_id: str, moment: datetime, usage: Usage, model: str | None) -> None:
        """What was taken beside the answer that began at this `moment` counts, too. Raises `StorageUnavailable`."""
        if self._ledger is not None:
            await self._ledger.add(user_id, moment, usage, model)

    async def balances(self, user_id: str) -> list[Balance]:
        """How the user stands with each limit; empty where nobody has a budget. Raises `Unavailable`."""
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
