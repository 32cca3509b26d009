"""``…/{id}/messages``, ``…/stop``, ``…/regenerate`` and ``…/rating``."""

import re
from http import HTTPStatus
from typing import Any

from msgspec import UNSET

from chatstream.errors import (
    ConversationFull,
    InvalidContent,
    InvalidRequest,
    NotFound,
    OverBudget,
    RequestError,
    TooManyRequests,
    Unavailable,
)
from chatstream.events import Cursor
from chatstream.generations.commands import IfBusy
from chatstream.generations.deciding import Deciding
from chatstream.handlers.conversations import check_content
from chatstream.handlers.history import ConversationDoor, HistoryDoor, Shown
from chatstream.handlers.views import (
    CALL_ID_PATTERN,
    KEY_PATTERN,
    OBJECT_KEY,
    AnswerView,
    CallRequest,
    MessagePage,
    NewMessage,
    RatingRequest,
    RatingView,
    RegenerateRequest,
    StopRequest,
    UserMessageView,
    begun_answer,
    call_view,
    message_view,
    posted_message,
)
from chatstream.metrics import Metrics
from chatstream.models import Conversation, Message
from chatstream.store.attempts import Attempts
from chatstream.store.posting import Posted


class MessagesHandler(HistoryDoor):
    """The messages of a conversation."""

    def initialize(self, *, content_characters: int, **collaborators: Any) -> None:  # type: ignore[override]  # each door gets exactly its own collaborators
        """`content_characters`: the longest message, in characters; `collaborators`: the arguments of `HistoryDoor`."""
        super().initialize(**collaborators)
        self.content_characters = content_characters

    async def get(self, conversation_id: str) -> None:
        """Send a page of messages, oldest first. Without `before`: the newest ones of the active branch, or of the
        branch that ends at `leaf`."""
        shown = await self.history(conversation_id)
        self.send_json(
            MessagePage(
                messages=[self._view(message, shown) for message in shown.messages],
                next_cursor=shown.next_cursor,
                stream_cursor=shown.stream_cursor,
                previous=shown.previous or UNSET,
                head=shown.conversation.head or UNSET,
            )
        )

    def _view(self, message: Message, shown: Shown) -> UserMessageView | AnswerView:
        return message_view(
            message,
            reasoning=self.door.formats.reasoning,
            siblings=shown.siblings.get(message.id, ()),
            parent=shown.parents.get(message.id, UNSET),
        )

    head = get

    async def post(self, conversation_id: str) -> None:
        """Store a user message and start its answer. Responds with the answer's stream if the client asks for one."""
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
                    posted = await self._post(conversation, body, client_message_id, if_busy, background)
                except (OverBudget, ConversationFull) as refusal:
                    posted = await self._repeat(conversation, body, client_message_id, refusal)
            else:
                posted = await self._repeat(conversation, body, client_message_id, too_many)
            cursor = Cursor(posted.message.id, Cursor.USER)
            if self.wants_stream:
                await self.stream(conversation, cursor, once=True, accepted=True)
                return
        status = HTTPStatus.OK if posted.repeated else HTTPStatus.CREATED
        self.send_json(posted_message(posted.message, cursor), status)

    def _too_many(self, client_message_id: str | None) -> TooManyRequests | Unavailable | None:
        """Check the limits before any database read. Raises the refusal, or returns it if the request has an
        idempotency key: it may be a repetition of an accepted request."""
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
        body: NewMessage,
        client_message_id: str | None,
        if_busy: IfBusy,
        background: bool | None,
    ) -> Posted:
        posted = await self.commands.post(
            conversation,
            body.content,
            request_id=self.request_id,
            client_message_id=client_message_id,
            if_busy=if_busy,
            background=background,
            parent=body.goes_on_from,
        )
        if posted.repeated:
            self.door.limits.messages.give_back(self.user.id)
        return posted

    async def _repeat(
        self, conversation: Conversation, body: NewMessage, client_message_id: str | None, too_many: RequestError
    ) -> Posted:
        posted = client_message_id and await self.commands.repeat(
            conversation,
            body.content,
            request_id=self.request_id,
            client_message_id=client_message_id,
            parent=body.goes_on_from,
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


class MessageHandler(ConversationDoor):
    """``…/messages/{messageId}``."""

    async def delete(self, conversation_id: str, message_id: str) -> None:
        """Delete a user message that waits for its turn."""
        self.tell(self.door.limits.changes.take(self.user.id))
        conversation = await self.conversation(conversation_id)
        if not OBJECT_KEY.fullmatch(message_id):
            raise NotFound("There is no such message in this conversation.")
        await self.commands.withdraw(conversation, message_id)
        self.set_status(HTTPStatus.NO_CONTENT)


class StopHandler(ConversationDoor):
    """``POST …/stop``."""

    async def post(self, conversation_id: str) -> None:
        """Stop the running answer, or send how the named answer ended."""
        body = self.body(StopRequest) if self.has_body() else StopRequest()
        self.tell(self.door.limits.changes.take(self.user.id))
        conversation = await self.conversation(conversation_id)
        self.send_json(await self.commands.stop(conversation, body.message_id, body.seen_length))


class RegenerateHandler(ConversationDoor):
    """``POST …/regenerate``."""

    async def post(self, conversation_id: str) -> None:
        """Start another answer, to the newest or the named user message. Responds with its stream if the client asks
        for one."""
        self.negotiate()
        if_busy = self.if_busy(IfBusy.REFUSE, IfBusy.INTERRUPT)
        background = self.background()
        body = self.body(RegenerateRequest) if self.has_body() else RegenerateRequest()
        with self.stream_slot():
            self.door.limits.answers.check(self.user.id)
            self.door.budgets.check(self.user.id)
            self.tell(self.door.limits.messages.take(self.user.id))
            conversation = await self.conversation(conversation_id)
            answer = await self.commands.regenerate(
                conversation,
                request_id=self.request_id,
                if_busy=if_busy,
                background=background,
                message_id=body.message_id,
                continues=body.continue_,
            )
            cursor = Cursor(answer.id, 0)
            if self.wants_stream:
                await self.stream(conversation, cursor, once=True, accepted=True)
                return
        self.send_json(begun_answer(answer, cursor), HTTPStatus.ACCEPTED)


class CallHandler(ConversationDoor):
    """``POST …/tool-calls/{id}``."""

    def initialize(self, *, deciding: Deciding, **collaborators: Any) -> None:  # type: ignore[override]  # see above
        """`collaborators`: those of every `ConversationDoor`."""
        super().initialize(**collaborators)
        self.deciding = deciding

    async def post(self, conversation_id: str, call_id: str) -> None:
        """Approve, deny or answer a tool call. Responds with the stream of what follows if the client asks for one."""
        self.negotiate()
        body = self.body(CallRequest)
        if not re.fullmatch(CALL_ID_PATTERN, call_id):
            raise NotFound("There is no such call.")
        with self.stream_slot():
            self.tell(self.door.limits.changes.take(self.user.id))
            conversation = await self.conversation(conversation_id)
            if body.decision is not None:
                decided = await self.deciding.decide(
                    conversation, call_id, body.decision, reason=body.reason, request_id=self.request_id
                )
            elif body.question is not None and body.action is not None:
                decided = await self.deciding.reply(
                    conversation, call_id, body.question, body.action, body.content, request_id=self.request_id
                )
            else:
                output, failed = (body.output, False) if body.error is None else (body.error, True)
                decided = await self.deciding.answer(
                    conversation, call_id, output, failed=failed, request_id=self.request_id
                )
            if self.wants_stream:
                await self.stream(conversation, Cursor(decided.answer.id, decided.position), once=True, accepted=True)
                return
        self.send_json(call_view(decided))


class RatingHandler(ConversationDoor):
    """``PUT …/rating``."""

    def initialize(self, *, attempts: Attempts, metrics: Metrics, **collaborators: Any) -> None:  # type: ignore[override]  # see above
        """`collaborators`: those of every `ConversationDoor`."""
        super().initialize(**collaborators)
        self.attempts = attempts
        self.metrics = metrics

    async def put(self, conversation_id: str) -> None:
        """Store the user's rating of an answer; it replaces the earlier one."""
        body = self.body(RatingRequest)
        self.tell(self.door.limits.changes.take(self.user.id))
        conversation = await self.conversation(conversation_id)
        before, model = await self.attempts.rate(conversation.key, body.message_id, body.rating)
        if body.rating is not before:
            self.metrics.rated(body.rating, model)
            self.hub.rated(conversation, body.message_id, body.rating)
        self.send_json(RatingView(message_id=body.message_id, rating=body.rating))
