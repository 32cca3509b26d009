"""``GET …/conversations/{id}/stream``: the events of a conversation."""

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
    """Streams a conversation. Stays open from answer to answer."""

    accepts_query_token = True

    def initialize(  # type: ignore[override]  # each door gets exactly its own collaborators
        self, door: Door, hub: Hub, conversations: Conversations
    ) -> None:
        """`conversations`: checks that the caller owns the conversation."""
        super().initialize(door, hub)
        self.conversations = conversations

    def admit(self) -> None:
        """Do nothing yet: `get` checks for permanent errors before temporary ones."""

    async def get(self, conversation_id: str) -> None:
        """Open the stream, after the client's cursor if it sends one."""
        self.negotiate()
        id_, once, limits = self.conversation_id(conversation_id), self.flag("once"), self.door.limits
        self.door.check()
        # Both limits come before any database read, as some clients reconnect for ever. The cap on open streams comes
        # first: requests it refuses do not count towards the rate, so a client that closes spare tabs gets in at once.
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
        """Send the status and headers of `get`. Opens no stream, and counts towards no limit of streams."""
        self.negotiate()
        id_ = self.conversation_id(conversation_id)
        self.flag("once")
        self.door.check()
        await self.conversations.get(self.user.id, id_)
        self._begin()
        with contextlib.suppress(StreamClosedError):
            await self.flush()

    def send_problem(self, error: RequestError) -> None:
        """Send temporary errors as a stream with status 200, after which an EventSource reconnects."""
        will_pass = isinstance(error, TooManyRequests | Unavailable)
        if will_pass and self.accepts_stream:
            self.refuse(error, ErrorCode(error.code))
        else:
            super().send_problem(error)

    def _cursor(self) -> Cursor | None:
        """The cursor from `Last-Event-ID`, which EventSource sends when it reconnects, or else from the query."""
        text = (
            self.request.headers.get("Last-Event-ID")
            or self.parameter("last_event_id")
            or self.parameter("lastEventId")
        )
        return Cursor.parse(text) if text else None
