"""``/api/v1/chat/conversations`` and ``…/{id}``."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus

from msgspec import UNSET

from chatstream.blank import is_blank
from chatstream.errors import AlreadyExists, InvalidContent, OverBudget, counted
from chatstream.generations.commands import Commands
from chatstream.generations.hub import Hub
from chatstream.handlers.bodies import JSONHandler
from chatstream.handlers.door import Door
from chatstream.handlers.views import (
    MAX_CLIENT_TOOLS_CHARACTERS,
    MAX_QUERY,
    MAX_QUERY_TERMS,
    ConversationChanges,
    ConversationPage,
    DeclaredTool,
    NewConversation,
    conversation_view,
    listed_conversation,
    new_conversation_view,
)
from chatstream.llm.catalogue import UserChoices
from chatstream.models import ClientTool, Conversation, ConversationState
from chatstream.store.attempts import Attempts
from chatstream.store.conversations import Conversations, moved_head
from chatstream.store.documents import client_tools_document
from chatstream.store.reading import Reading
from chatstream.store.searching import Search
from chatstream.store.terms import terms
from chatstream.tools import schema
from chatstream.tools.tool import Tools


class ConversationsHandler(JSONHandler):
    """The caller's conversations."""

    def initialize(  # type: ignore[override]  # each door gets exactly its own collaborators
        self,
        door: Door,
        commands: Commands,
        conversations: Conversations,
        choices: UserChoices,
        content_characters: int,
        reading: Reading,
        search: Search,
        titles: bool,
    ) -> None:
        """`content_characters`: the longest message, in characters. `titles`: the model writes titles on request."""
        super().initialize(door)
        self.reading = reading
        self.titles = titles
        self.search = search
        self.choices = choices
        self.commands = commands
        self.conversations = conversations
        self.content_characters = content_characters

    async def get(self) -> None:
        """Send a page of conversations, most recently active first. ``q``: only those whose messages match the search;
        ``waiting``: only those in which an answer waits for the caller."""
        limit, before, sought = self.limit(), self.parameter("before"), self._sought()
        waits, limits = self.flag("waiting"), self.door.limits
        self.tell((limits.reads if sought is None else limits.searches).take(self.user.id))
        among, complete = (None, UNSET) if sought is None else await self.search.find(self.user.id, sought)
        if waits:
            waiting_keys = await self.reading.waiting_for(self.user.id)
            among = [key for key in waiting_keys if among is None or key in among]
        found, next_cursor = await self.conversations.page(self.user.id, limit=limit, before=before, among=among)
        keys = [one.key for one in found]
        running, waiting, unread = await asyncio.gather(
            self.reading.running_in(keys),
            self.reading.waiting_in(self.user.id, keys),
            self.reading.unread_in(keys),
        )
        states = dict.fromkeys(running, ConversationState.RUNNING) | dict.fromkeys(waiting, ConversationState.WAITING)
        listed = [
            listed_conversation(one, states.get(one.key, ConversationState.IDLE), unread=one.key in unread)
            for one in found
        ]
        self.send_json(ConversationPage(conversations=listed, next_cursor=next_cursor, complete=complete))

    def _sought(self) -> set[str] | None:
        """The search terms in the query parameter ``q``; None without it. Raises `InvalidContent` for no terms or too
        many.
        """
        text = self.parameter("q")
        if text is None:
            return None
        if len(text) > MAX_QUERY:
            raise InvalidContent("The search is too long.", fields={"q": f"at most {MAX_QUERY} characters"})
        sought = set(terms(text, sought=True))
        if not sought:
            raise InvalidContent(
                "There is nothing to search for: name a word.", fields={"q": "must have a letter, a digit or an emoji"}
            )
        if len(sought) > MAX_QUERY_TERMS:
            raise InvalidContent("The search is too long.", fields={"q": f"at most {MAX_QUERY_TERMS} words"})
        return sought

    head = get

    async def post(self) -> None:
        """Create a conversation, with its first message if the body has one."""
        body = self.body(NewConversation)
        check_content(body.initial_message, self.content_characters, "initialMessage")
        self.choices.check(model=body.model, system_prompt=body.system_prompt)
        limits = self.door.limits
        if body.initial_message is not None:
            limits.answers.check(self.user.id)
            self.door.budgets.check(self.user.id)
            limits.messages.take(self.user.id)
            await self.commands.admit_first(self._yet_to_be_created(body), body.initial_message)
        self.tell(limits.conversations.take(self.user.id))
        await limits.kept.take(self.user.id, lambda most: self.conversations.count(self.user.id, most))
        try:
            conversation = await self.conversations.create(
                self.user.id,
                id=body.id,
                title=body.title,
                system_prompt=body.system_prompt,
                model=body.model,
                background=bool(body.background),
                auto_title=bool(body.auto_title) and self.titles,
            )
        except AlreadyExists:
            limits.kept.give_back(self.user.id)
            raise
        message = None
        if body.initial_message is not None:
            try:
                posted = await self.commands.post(
                    conversation, body.initial_message, request_id=self.request_id, admitted=True
                )
            except OverBudget:  # the conversation stays; the response shows no message
                await self.conversations.delete(self.user.id, conversation.id)
                limits.kept.give_back(self.user.id)
                raise
            message = posted.message
        self.set_header("Location", f"{self.request.path}/{conversation.id}")
        self.send_json(new_conversation_view(conversation, message), HTTPStatus.CREATED)

    def _yet_to_be_created(self, body: NewConversation) -> Conversation:
        now = datetime.now(UTC)
        return Conversation(
            key="",
            user_id=self.user.id,
            id=body.id or "",
            title=body.title,
            system_prompt=body.system_prompt,
            model=body.model,
            created_at=now,
            updated_at=now,
        )


class ConversationHandler(JSONHandler):
    """One conversation."""

    def initialize(  # type: ignore[override]  # each door gets exactly its own collaborators
        self,
        door: Door,
        hub: Hub,
        conversations: Conversations,
        choices: UserChoices,
        attempts: Attempts,
        reading: Reading,
        tools: Tools,
    ) -> None:
        """`hub`: publishes deletions and changes of the active branch. `hub` and `attempts`: are notified whether the
        running answer goes on without viewers. `tools`: the server's own."""
        super().initialize(door)
        self.tools = tools
        self.reading = reading
        self.choices = choices
        self.hub = hub
        self.conversations = conversations
        self.attempts = attempts

    async def get(self, conversation_id: str) -> None:
        """Send the conversation."""
        id_ = self.conversation_id(conversation_id)
        self.tell(self.door.limits.reads.take(self.user.id))
        self._send(await self.conversations.get(self.user.id, id_))

    head = get

    async def patch(self, conversation_id: str) -> None:
        """Change the fields that the body names."""
        id_, body = self.conversation_id(conversation_id), self.body(ConversationChanges)
        changes = body.model_dump(exclude_unset=True)
        if not changes:
            raise InvalidContent("Nothing to change: name title, systemPrompt, model, background, clientTools or head.")
        if "client_tools" in changes:
            changes["client_tools"] = self._client_tools(body.client_tools or [])
        self.choices.check(model=body.model, system_prompt=body.system_prompt)
        self.tell(self.door.limits.changes.take(self.user.id))
        head = changes.pop("head", None)
        moved = None if head is None else moved_head(await self._leaf(id_, head), self.attempts.owner)
        changed = await self.conversations.update(self.user.id, id_, changes, head=moved)
        if moved is not None:
            self.hub.branch_shown(changed)
        if "title" in changes:
            self.hub.titled(changed)
        if "background" in changes:
            self.hub.let_finish(changed)
            await self.attempts.let_finish(changed)
        self._send(changed)

    def _client_tools(self, declared: Sequence[DeclaredTool]) -> str | None:
        """The app's tools as stored: one JSON text, or None if there are none. Raises `InvalidContent`."""
        made: list[ClientTool] = []
        for number, one in enumerate(declared):
            where = f"clientTools.{number}"
            if self.tools.get(one.name) is not None:
                raise _unacceptable(f"{where}.name", f"the server has a tool {one.name}")
            if any(other.name == one.name for other in made):
                raise _unacceptable(f"{where}.name", "there are two of this name")
            made.append(one.made())
        document = client_tools_document(made)
        if len(document) > MAX_CLIENT_TOOLS_CHARACTERS:
            raise _unacceptable(
                "clientTools", f"all of them together may have at most {MAX_CLIENT_TOOLS_CHARACTERS} characters"
            )
        # After the size: a body may be much larger, and a schema's check takes longer than its parsing.
        for number, tool in enumerate(made):
            try:
                schema.checking(tool.parameters)
            except ValueError as exc:
                raise _unacceptable(f"clientTools.{number}.parameters", str(exc)) from exc
        return document if made else None

    async def _leaf(self, id_: str, message_id: str) -> str:
        """The last message of the newest branch through this message. Raises `InvalidContent`, `NotFound`."""
        conversation = await self.conversations.get(self.user.id, id_)
        tree = await self.reading.tree(conversation.key)
        if message_id not in tree.nodes:
            raise InvalidContent.of("head", "must be a message of this conversation")
        return tree.newest_below(message_id)

    async def delete(self, conversation_id: str) -> None:
        """Delete the conversation and its messages."""
        id_, limits = self.conversation_id(conversation_id), self.door.limits
        self.tell(limits.changes.take(self.user.id))
        deleted = await self.conversations.delete(self.user.id, id_)
        limits.kept.give_back(self.user.id)
        self.hub.deleted(deleted)
        self.tools.open_calls.let_go(lambda caller: (caller.user, caller.conversation) == (self.user.id, id_))
        self.set_status(HTTPStatus.NO_CONTENT)

    def _send(self, conversation: Conversation) -> None:
        self.send_json(conversation_view(conversation))


def check_content(content: str | None, maximum: int, field: str) -> None:
    """Raise `InvalidContent` if a message is blank or has more than `maximum` characters."""
    if content is not None and is_blank(content):
        raise InvalidContent(
            "The message is empty: it has nothing that can be seen.", fields={field: "must not be blank"}
        )
    if content is not None and len(content) > maximum:
        words = f"`{field}` may have at most {counted(maximum, 'character')}."
        raise InvalidContent(words, fields={field: f"at most {maximum} characters"})


def _unacceptable(field: str, why: str) -> InvalidContent:
    return InvalidContent(f"`{field}` is not acceptable: {why}.", fields={field: why})
