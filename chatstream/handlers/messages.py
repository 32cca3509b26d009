"""``…/{id}/messages``, ``…/stop`` and ``…/regenerate``."""

import re
from contextlib import AbstractContextManager, aclosing, nullcontext, suppress
from http import HTTPStatus

from chatstream.errors import (
    BudgetExhausted,
    ConversationFull,
    InvalidContent,
    InvalidRequest,
    RequestError,
    StorageUnavailable,
    TooManyRequests,
    Unavailable,
)
from chatstream.events import Cursor
from chatstream.formats.ui_message_stream import ui_messages
from chatstream.generations.commands import Commands, IfBusy
from chatstream.generations.hub import Hub
from chatstream.handlers.base import whole_number
from chatstream.handlers.conversations import check_content
from chatstream.handlers.door import Door
from chatstream.handlers.streaming import StreamingHandler
from chatstream.handlers.views import (
    KEY_PATTERN,
    MessagePage,
    NewMessage,
    StopRequest,
    UIMessagePage,
    begun_answer,
    message_view,
    posted_message,
    stream_cursor,
    ui_stream_cursor,
)
from chatstream.models import Answer, Conversation, Message, UserMessage
from chatstream.store.attempts import Attempts
from chatstream.store.conversations import Conversations
from chatstream.store.posting import Posted
from chatstream.store.reading import Reading

# A page of the longest messages would be 40 MB or more. This much leaves within the time of a slow reader, at 26 KB/s.
_PAGE_CHARACTERS = 512 * 1024


class _ConversationDoor(StreamingHandler):
    """A door to something of one conversation of the caller's."""

    def initialize(  # type: ignore[override]  # each door gets exactly its own collaborators
        self,
        door: Door,
        hub: Hub,
        commands: Commands,
        conversations: Conversations,
    ) -> None:
        super().initialize(door, hub)
        self.commands = commands
        self.conversations = conversations

    async def conversation(self, conversation_id: str) -> Conversation:
        """Raises `InvalidRequest`, `NotFound`, `StorageUnavailable`."""
        return await self.conversations.get(self.user.id, self.conversation_id(conversation_id))

    def stream_slot(self) -> AbstractContextManager[object]:
        """Counts as one of the caller's streams if the response is to be one. Raises `TooManyRequests`."""
        return self.door.limits.streams.take(self.user.id) if self.wants_stream else nullcontext()

    def background(self) -> bool | None:
        """The query parameter `background`: the answer finishes though nobody watches. Raises `InvalidRequest`."""
        return None if self.parameter("background") is None else self.flag("background")

    def if_busy(self, *choices: IfBusy) -> IfBusy:
        """The query parameter `ifBusy`. Raises `InvalidRequest` for what is not among `choices`."""
        text = self.parameter("ifBusy")
        if text is None:
            return IfBusy.REFUSE
        if text not in choices:
            raise InvalidRequest(f"`ifBusy` must be one of: {', '.join(choices)}.")
        return IfBusy(text)


class _History(_ConversationDoor):
    """A door to the messages that there are."""

    def initialize(  # type: ignore[override]  # each door gets exactly its own collaborators
        self,
        door: Door,
        hub: Hub,
        commands: Commands,
        conversations: Conversations,
        attempts: Attempts,
        reading: Reading,
    ) -> None:
        super().initialize(door, hub, commands, conversations)
        self.attempts = attempts
        self.reading = reading

    async def history(self, conversation_id: str) -> tuple[Conversation, list[Message], str | None, bool]:
        """The page that the query asks for, oldest first; the cursor of the one before it; whether it is the newest.

        Raises `InvalidRequest`, `NotFound`, `StorageUnavailable`.
        """
        limit, before = self.limit(), self._before()
        self.tell(self.door.limits.reads.take(self.user.id))
        conversation = await self.conversation(conversation_id)
        shown, more = await self._page(conversation.key, limit, before)
        unseen = any(isinstance(message, Answer) and message.unseen for message in shown)
        if unseen and self.request.method != "HEAD":
            with suppress(StorageUnavailable):  # better told twice than not
                await self.attempts.mark_seen(conversation.key)
        return conversation, shown, str(shown[0].seq) if more else None, before is None

    async def hidden(self, conversation: Conversation, shown: list[Message]) -> Answer | None:
        """The answer that runs, if a page begins behind it: a message that waits may be shown without it."""
        waits = bool(shown) and all(isinstance(message, UserMessage) for message in shown)
        return await self.reading.running(conversation.key) if waits else None

    async def _page(self, key: str, limit: int, before: int | None) -> tuple[list[Message], bool]:
        """So many, oldest first, and whether there are older ones."""
        shown: list[Message] = []
        characters = 0
        async with aclosing(self.reading.newest_first(key, before=before)) as newest_first:
            async for message in newest_first:
                characters += len(message.content)
                if len(shown) == limit or (shown and characters > _PAGE_CHARACTERS):
                    return shown[::-1], True
                shown.append(message)
        return shown[::-1], False

    def _before(self) -> int | None:
        text = self.parameter("before")
        if text is None:
            return None
        seq = whole_number(text)
        if seq is None:
            raise InvalidRequest("`before` must be a nextCursor of this list.")
        return seq


class UIMessagesHandler(_History):
    """``GET …/ui-messages``: a history as the AI SDK has it."""

    async def get(self, conversation_id: str) -> None:
        """A page, oldest first; the newest messages without `before`."""
        conversation, shown, next_cursor, newest = await self.history(conversation_id)
        self.send_json(
            UIMessagePage(
                messages=ui_messages(shown, reasoning=self.door.formats.reasoning),
                next_cursor=next_cursor,
                stream_cursor=ui_stream_cursor(conversation.key, shown, await self.hidden(conversation, shown))
                if newest
                else None,
            )
        )

    head = get


class MessagesHandler(_History):
    """The messages of a conversation."""

    def initialize(  # type: ignore[override]  # each door gets exactly its own collaborators
        self,
        door: Door,
        hub: Hub,
        commands: Commands,
        conversations: Conversations,
        attempts: Attempts,
        reading: Reading,
        content_characters: int,
    ) -> None:
        """`content_characters`: the longest message."""
        super().initialize(door, hub, commands, conversations, attempts, reading)
        self.content_characters = content_characters

    async def get(self, conversation_id: str) -> None:
        """A page, oldest first; the newest messages without `before`."""
        conversation, shown, next_cursor, newest = await self.history(conversation_id)
        self.send_json(
            MessagePage(
                messages=[message_view(message, reasoning=self.door.formats.reasoning) for message in shown],
                next_cursor=next_cursor,
                stream_cursor=stream_cursor(conversation.key, shown, await self.hidden(conversation, shown))
                if newest
                else None,
            )
        )

    head = get

    async def post(self, conversation_id: str) -> None:
        """Store a user message and begin its answer. To whom wants a stream the response is that answer."""
        body = self.body(NewMessage)
        check_content(body.content, self.content_characters, "content")
        self.negotiate()
        client_message_id, if_busy = self._client_message_id(body), self.if_busy(*IfBusy)
        background = self.background() if body.background is None else body.background
        with self.stream_slot():
            too_many = self._too_many(client_message_id)
            conversation = await self.conversation(conversation_id)
            if too_many is None:
                try:
                    posted = await self._post(conversation, body.content, client_message_id, if_busy, background)
                except (BudgetExhausted, ConversationFull) as refusal:
                    posted = await self._repeat(conversation, body.content, client_message_id, refusal)
            else:
                posted = await self._repeat(conversation, body.content, client_message_id, too_many)
            cursor = Cursor(posted.message.id, Cursor.USER)
            if self.wants_stream:
                await self.stream(conversation, cursor, once=True, accepted=True)
                return
        status = HTTPStatus.OK if posted.repeated else HTTPStatus.CREATED
        self.send_json(posted_message(posted.message, cursor), status)

    def _too_many(self, client_message_id: str | None) -> TooManyRequests | Unavailable | None:
        """Raises the refusal before anything is read, or returns it if this may be an earlier request's repetition."""
        limits = self.door.limits
        try:
            limits.answers.check(self.user.id)
            self.door.budgets.check(self.user.id)
            self.tell(limits.messages.take(self.user.id))
        except (TooManyRequests, Unavailable) as exc:
            if client_message_id is None:
                raise
            limits.repeats.take(self.user.id)
            return exc
        return None

    async def _post(
        self,
        conversation: Conversation,
        content: str,
        client_message_id: str | None,
        if_busy: IfBusy,
        background: bool | None,
    ) -> Posted:
        posted = await self.commands.post(
            conversation,
            content,
            request_id=self.request_id,
            client_message_id=client_message_id,
            if_busy=if_busy,
            background=background,
        )
        if posted.repeated:
            self.door.limits.messages.give_back(self.user.id)
        return posted

    async def _repeat(
        self, conversation: Conversation, content: str, client_message_id: str | None, too_many: RequestError
    ) -> Posted:
        posted = client_message_id and await self.commands.repeat(
            conversation, content, request_id=self.request_id, client_message_id=client_message_id
        )
        if not posted:
            raise too_many
        return posted

    def _client_message_id(self, body: NewMessage) -> str | None:
        key = self.request.headers.get("Idempotency-Key")
        if key is None:
            return body.client_message_id
        if not re.fullmatch(KEY_PATTERN, key):
            raise InvalidRequest("Idempotency-Key must have 1 to 128 printable ASCII characters.")
        if body.client_message_id not in (None, key):
            raise InvalidContent("Idempotency-Key and clientMessageId differ.")
        return key


class StopHandler(_ConversationDoor):
    """``POST …/stop``."""

    async def post(self, conversation_id: str) -> None:
        """End the running answer, or say how the one named has ended."""
        body = self.body(StopRequest) if self.has_body() else StopRequest()
        self.tell(self.door.limits.changes.take(self.user.id))
        conversation = await self.conversation(conversation_id)
        self.send_json(await self.commands.stop(conversation, body.message_id, body.seen_length))


class RegenerateHandler(_ConversationDoor):
    """``POST …/regenerate``."""

    async def post(self, conversation_id: str) -> None:
        """Begin another answer to the newest user message. To whom wants a stream the response is that answer."""
        self.negotiate()
        if_busy = self.if_busy(IfBusy.REFUSE, IfBusy.INTERRUPT)
        background = self.background()
        with self.stream_slot():
            self.door.limits.answers.check(self.user.id)
            self.door.budgets.check(self.user.id)
            self.tell(self.door.limits.messages.take(self.user.id))
            conversation = await self.conversation(conversation_id)
            answer = await self.commands.regenerate(
                conversation, request_id=self.request_id, if_busy=if_busy, background=background
            )
            cursor = Cursor(answer.id, 0)
            if self.wants_stream:
                await self.stream(conversation, cursor, once=True, accepted=True)
                return
        self.send_json(begun_answer(answer, cursor), HTTPStatus.ACCEPTED)
