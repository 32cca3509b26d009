"""``…/{id}/stream-tickets``."""

from http import HTTPStatus

from chatstream.events import timestamp
from chatstream.handlers.bodies import JSONHandler
from chatstream.handlers.door import Door
from chatstream.handlers.views import NewTicket
from chatstream.store.conversations import Conversations


class TicketsHandler(JSONHandler):
    """Makes tickets for the stream of a conversation."""

    def initialize(  # type: ignore[override]  # each door gets exactly its own collaborators
        self, door: Door, conversations: Conversations
    ) -> None:
        """`conversations`: checks that the caller owns the conversation."""
        super().initialize(door)
        self.conversations = conversations

    async def post(self, conversation_id: str) -> None:
        """Make a ticket: it opens one connection, within a minute."""
        id_ = self.conversation_id(conversation_id)
        self.tell(self.door.limits.tickets.take(self.user.id))
        conversation = await self.conversations.get(self.user.id, id_)
        ticket = await self.door.tickets.issue(self.user, conversation.id)
        self.send_json(NewTicket(ticket=ticket.text, expires_at=timestamp(ticket.expires_at)), HTTPStatus.CREATED)
