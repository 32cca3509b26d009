"""``/api/v1/chat/usage``."""

from chatstream.handlers.base import BaseHandler
from chatstream.handlers.views import UsageView, balance_view


class UsageHandler(BaseHandler):
    """The caller's usage and remaining budget."""

    async def get(self) -> None:
        """Send each limit; an empty list if the server has no budgets."""
        self.tell(self.door.limits.reads.take(self.user.id))
        balances = await self.door.budgets.balances(self.user.id)
        self.send_json(UsageView(budgets=[balance_view(one) for one in balances]))

    head = get
