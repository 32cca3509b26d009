"""``/api/v1/chat/usage``."""

from chatstream.handlers.base import BaseHandler
from chatstream.handlers.views import UsageView, balance_view


class UsageHandler(BaseHandler):
    """What the caller has spent, and what is left."""

    async def get(self) -> None:
        """Each limit; none where nobody has a budget."""
        self.tell(self.door.limits.reads.take(self.user.id))
        balances = await self.door.budgets.balances(self.user.id)
        self.send_json(UsageView(budgets=[balance_view(one) for one in balances]))

    head = get
