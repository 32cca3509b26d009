"""``GET …/conversations/{id}/stream``: watch a conversation."""

from chatstream.errors import ErrorCode, TooManyRequests, Unavailable
from chatstream.events import Cursor
from chatstream.generations.hub import Hub
from chatstream.handlers.base import Door
from chatstream.handlers.streaming import StreamingHandler
from chatstream.store.conversations import Conversations


class StreamHandler(StreamingHandler):
    """Stays open, turn after turn."""

    accepts_query_token = True

    def initialize(  # type: ignore[override]  # each door gets exactly its own collaborators
        self, door: Door, hub: Hub, slow_reader_timeout: float, conversations: Conversations
    ) -> None:
        """`conversations` checks the owner."""
        super().initialize(door, hub, slow_reader_timeout)
        self.conversations = conversations

    def admit(self) -> None:
        """Not yet: `get` refuses in a way that an EventSource survives."""

    async def get(self, conversation_id: str) -> None:
        """The stream, from the client's cursor on if it has one."""
        id_, once = self.conversation_id(conversation_id), self.flag("once")
        try:
            self.door.check()
            conversation = await self.conversations.get(self.user.id, id_)
            await self.stream(conversation, self._cursor(), once=once)
        except (TooManyRequests, Unavailable) as exc:
            if "text/event-stream" not in self.request.headers.get("Accept", ""):
                raise
            self.refuse(exc, ErrorCode(exc.code))

    def _cursor(self) -> Cursor | None:
        """A browser's EventSource sends the header when it reconnects; the first time it can only use the query."""
        text = (
            self.request.headers.get("Last-Event-ID")
            or self.parameter("last_event_id")
            or self.parameter("lastEventId")
        )
        return Cursor.parse(text) if text else None
