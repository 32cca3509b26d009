"""``GET …/conversations/{id}/stream``: watch a conversation."""

import contextlib

from tornado.iostream import StreamClosedError

from chatstream.errors import ErrorCode, RequestError, TooManyRequests, Unavailable
from chatstream.events import Cursor
from chatstream.generations.ahead import ReadAhead
from chatstream.generations.hub import Hub
from chatstream.generations.replay import NEWEST
from chatstream.handlers.door import Door
from chatstream.handlers.streaming import StreamingHandler
from chatstream.store.conversations import Conversations


class StreamHandler(StreamingHandler):
    """Stays open, turn after turn."""

    accepts_query_token = True

    def initialize(  # type: ignore[override]  # each door gets exactly its own collaborators
        self, door: Door, hub: Hub, conversations: Conversations
    ) -> None:
        """`conversations` checks the owner."""
        super().initialize(door, hub)
        self.conversations = conversations

    def admit(self) -> None:
        """Not yet: what is wrong for good is said first."""

    async def get(self, conversation_id: str) -> None:
        """The stream, from the client's cursor on if it has one."""
        self.negotiate()
        id_, once, limits = self.conversation_id(conversation_id), self.flag("once"), self.door.limits
        self.door.check()
        # Refused before anything is read: some clients come back for ever. The cap first: what it refuses is not
        # counted, so that a client with too many tabs is not kept out once it has closed them.
        with limits.streams.take(self.user.id):
            limits.openings.take(self.user.id)
            cursor, ahead, moment = self._cursor(), None, self.hub.moment
            if cursor is None:
                conversation, newest = await self.conversations.get_with_newest(self.user.id, id_, NEWEST)
                ahead = None if newest is None else ReadAhead(moment, newest)
            else:
                conversation = await self.conversations.get(self.user.id, id_)
            await self.stream(conversation, cursor, once=once, ahead=ahead)

    async def head(self, conversation_id: str) -> None:
        """The status and headers that `get` would send. Opens no stream, and counts towards no limit of streams."""
        self.negotiate()
        id_ = self.conversation_id(conversation_id)
        self.flag("once")
        self.door.check()
        await self.conversations.get(self.user.id, id_)
        self._begin()
        with contextlib.suppress(StreamClosedError):
            await self.flush()

    def send_problem(self, error: RequestError) -> None:
        """What will pass is told so that an EventSource survives it."""
        will_pass = isinstance(error, TooManyRequests | Unavailable)
        if will_pass and self.accepts_stream:
            self.refuse(error, ErrorCode(error.code))
        else:
            super().send_problem(error)

    def _cursor(self) -> Cursor | None:
        """A browser's EventSource sends the header when it reconnects; the first time it can only use the query."""
        text = (
            self.request.headers.get("Last-Event-ID")
            or self.parameter("last_event_id")
            or self.parameter("lastEventId")
        )
        return Cursor.parse(text) if text else None
