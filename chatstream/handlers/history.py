"""Lists the messages of a conversation: one branch, page by page."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext, suppress
from typing import Any

from msgspec import Struct, structs

from chatstream.errors import InvalidRequest, NotFound, StorageUnavailable
from chatstream.formats.ui_message_stream import Version, ui_messages
from chatstream.generations.commands import Commands, IfBusy
from chatstream.generations.hub import Hub
from chatstream.handlers.base import whole_number
from chatstream.handlers.door import Door
from chatstream.handlers.streaming import StreamingHandler
from chatstream.handlers.views import OBJECT_KEY, UIMessagePage, stream_cursor, ui_stream_cursor
from chatstream.models import Answer, Conversation, Message, UserMessage
from chatstream.store.attempts import Attempts
from chatstream.store.conversations import Conversations
from chatstream.store.reading import Reading
from chatstream.store.tree import Node

# Maximum number of characters of a page; without it, a page of the longest messages would be 40 MB or more. A slow
# client, at 26 KB/s, reads this much before its timeout.
_PAGE_CHARACTERS = 512 * 1024
# Messages of a branch per database read. Few, because the messages beyond the page's character limit are read in vain.
_READ_AT_ONCE = 20


class Shown(Struct, frozen=True, kw_only=True):
    """A page of messages, oldest first, with its cursors and its messages' places in the tree."""

    conversation: Conversation
    messages: Sequence[Message]
    next_cursor: str | None  # the `before` of the page of older ones
    previous: str | None  # the id of the message right before the page, if there is one
    siblings: Mapping[str, Sequence[str]]  # by a message's id: all alternatives to it and itself
    parents: Mapping[str, str | None]  # by a user message's id: the message before it; with branches only
    newest: bool  # the page is the end of the active branch
    tail: Sequence[Message] = ()  # the newest messages of the log: the stream continues after them
    hidden: Answer | None = None  # the running answer, if it is older than the page
    runs_elsewhere: bool = False  # an answer runs on another branch

    @property
    def stream_cursor(self) -> str | None:
        """The cursor from which a stream continues this page without a gap."""
        return stream_cursor(self.conversation.key, self.tail, self.hidden) if self.newest else None

    @property
    def ui_stream_cursor(self) -> str | None:
        """The stream cursor for a page that omits the running answer. None if an answer runs on another branch: this
        branch's reader must not get it."""
        if not self.newest or self.runs_elsewhere:
            return None
        return ui_stream_cursor(self.conversation.key, self.tail, self.hidden)


class ConversationDoor(StreamingHandler):
    """The base of the handlers that act on one of the caller's conversations."""

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
        """Read a conversation of the caller. Raises `InvalidRequest`, `NotFound`, `StorageUnavailable`."""
        return await self.conversations.get(self.user.id, self.conversation_id(conversation_id))

    def stream_slot(self) -> AbstractContextManager[object]:
        """Take one of the caller's stream slots if the response is a stream. Raises `TooManyRequests`."""
        return self.door.limits.streams.take(self.user.id) if self.wants_stream else nullcontext()

    def background(self) -> bool | None:
        """The query parameter `background`: the answer goes on without viewers. Raises `InvalidRequest`."""
        return None if self.parameter("background") is None else self.flag("background")

    def if_busy(self, *choices: IfBusy) -> IfBusy:
        """The query parameter `ifBusy`. Raises `InvalidRequest` if it is not one of `choices`."""
        text = self.parameter("ifBusy")
        if text is None:
            return IfBusy.REFUSE
        if text not in choices:
            raise InvalidRequest(f"`ifBusy` must be one of: {', '.join(choices)}.")
        return IfBusy(text)


class HistoryDoor(ConversationDoor):
    """The base of the handlers that read messages."""

    def initialize(self, *, attempts: Attempts, reading: Reading, **collaborators: Any) -> None:  # type: ignore[override]  # each door gets exactly its own collaborators
        """`collaborators`: the arguments of `ConversationDoor`."""
        super().initialize(**collaborators)
        self.attempts = attempts
        self.reading = reading

    async def history(self, conversation_id: str) -> Shown:
        """The page that the query's `before`, `limit` and `leaf` ask for.

        Raises `InvalidRequest`, `NotFound`, `StorageUnavailable`.
        """
        limit, before, leaf, whole = self.limit(), self._before(), self._leaf(), self._all_branches()
        self.tell(self.door.limits.reads.take(self.user.id))
        conversation = await self.conversation(conversation_id)
        if whole and conversation.head is not None:
            shown = await self._with_branches(await self._whole_log(conversation, limit, before))
        elif whole or (leaf is None and conversation.head is None):
            shown = await self._whole_log(conversation, limit, before)
        else:
            shown = await self._branch(conversation, leaf, limit, before)
        unseen = any(isinstance(message, Answer) and message.unseen for message in shown.messages)
        if unseen and self.request.method != "HEAD":
            with suppress(StorageUnavailable):  # if this fails, the answer only stays unread
                await self.attempts.mark_seen(conversation.key)
        return shown

    async def _whole_log(self, conversation: Conversation, limit: int, before: int | None) -> Shown:
        """A page of the whole log: in a conversation with one branch, all messages and all attempts."""
        messages: list[Message] = []
        previous: Message | None = None
        characters = 0
        async with aclosing(self.reading.newest_first(conversation.key, before=before)) as newest_first:
            async for message in newest_first:
                characters += len(message.content)
                if len(messages) == limit or (messages and characters > _PAGE_CHARACTERS):
                    previous = message
                    break
                messages.append(message)
        messages.reverse()
        # The page may have only waiting user messages, while the running answer is older than the page.
        waits = before is None and messages and all(isinstance(message, UserMessage) for message in messages)
        return Shown(
            conversation=conversation,
            messages=messages,
            next_cursor=None if previous is None else str(messages[0].seq),
            previous=None if previous is None else previous.id,
            siblings=await self._attempts_at(conversation, messages, before),
            parents={},
            newest=before is None,
            tail=messages,
            hidden=await self.reading.running(conversation.key) if waits else None,
        )

    async def _with_branches(self, log: Shown) -> Shown:
        """Add the messages' places in the tree to a page of the log with all branches. It has no stream cursor."""
        tree = await self.reading.tree(log.conversation.key)
        placed = [one for one in log.messages if one.id in tree.nodes]
        return structs.replace(
            log,
            messages=placed,
            siblings={one.id: ids for one in placed if len(ids := tree.siblings(one.id)) > 1},
            parents={one.id: tree.nodes[one.id].parent for one in placed if isinstance(one, UserMessage)},
            newest=False,
        )

    async def _attempts_at(
        self, conversation: Conversation, messages: Sequence[Message], before: int | None
    ) -> Mapping[str, Sequence[str]]:
        answers = [message for message in messages if isinstance(message, Answer)]
        if before is None and all(one.attempt == 1 for one in answers):
            return {}  # every later attempt is on the page
        attempts = await self.reading.attempts(conversation.key, {one.reply_to for one in answers})
        return {one.id: ids for one in answers if len(ids := attempts.get(one.reply_to, [])) > 1}

    async def _branch(self, conversation: Conversation, leaf: str | None, limit: int, before: int | None) -> Shown:
        key = conversation.key
        tree = await self.reading.tree(key)
        if leaf is not None and leaf not in tree.nodes:
            raise NotFound("There is no such message in this conversation.")
        path = tree.path(leaf or tree.leaf(conversation.head) or "")
        pages = [node for node in path if before is None or node.seq < before]
        messages = await self._newest_of(key, pages, limit)
        # The stream must continue exactly after the page, so ignore messages that are newer than `tree`.
        end = tree.running or tree.newest
        tail = [message for message in messages if end is not None and message.id == end.id]
        is_shown = bool(tail)
        if end is not None and not is_shown:
            tail = await self.reading.at(key, [end.seq])
        running = next((one for one in tail if isinstance(one, Answer) and not one.status.is_final), None)
        on_path = running is not None and any(node.id == running.id for node in path)
        first = tree.nodes[messages[0].id] if messages else None
        previous = None if first is None else first.parent
        return Shown(
            conversation=conversation,
            messages=messages,
            next_cursor=str(first.seq) if first is not None and previous is not None else None,
            previous=previous,
            siblings={one.id: ids for one in messages if len(ids := tree.siblings(one.id)) > 1},
            parents={one.id: tree.nodes[one.id].parent for one in messages if isinstance(one, UserMessage)},
            newest=before is None,
            tail=tail,
            hidden=running if on_path and not is_shown else None,
            runs_elsewhere=running is not None and not on_path,
        )

    async def _newest_of(self, key: str, path: Sequence[Node], limit: int) -> list[Message]:
        """The newest messages of a path: one page."""
        found: list[Message] = []
        characters = 0
        for end in range(len(path), 0, -_READ_AT_ONCE):
            some = path[max(end - _READ_AT_ONCE, 0) : end]
            for message in reversed(await self.reading.at(key, [node.seq for node in some])):
                characters += len(message.content)
                if len(found) == limit or (found and characters > _PAGE_CHARACTERS):
                    return found[::-1]
                found.append(message)
        return found[::-1]

    def _before(self) -> int | None:
        text = self.parameter("before")
        if text is None:
            return None
        seq = whole_number(text)
        if seq is None:
            raise InvalidRequest("`before` must be a nextCursor of this list.")
        return seq

    def _all_branches(self) -> bool:
        text = self.parameter("branches")
        if text not in (None, "all"):
            raise InvalidRequest("`branches` must be all.")
        return text is not None

    def _leaf(self) -> str | None:
        text = self.parameter("leaf")
        if text is not None and not OBJECT_KEY.fullmatch(text):
            raise InvalidRequest("`leaf` must be the id of a message.")
        return text


class UIMessagesHandler(HistoryDoor):
    """``GET …/ui-messages``: messages in the AI SDK's form."""

    async def get(self, conversation_id: str) -> None:
        """A page, oldest first; the newest messages without `before`."""
        version = self._version()
        shown = await self.history(conversation_id)
        self.send_json(
            UIMessagePage(
                messages=ui_messages(shown.messages, reasoning=self.door.formats.reasoning, version=version),
                next_cursor=shown.next_cursor,
                stream_cursor=shown.ui_stream_cursor,
            )
        )

    head = get

    def _version(self) -> Version:
        """The query parameter `version`: the client's major version of the AI SDK. Raises `InvalidRequest`."""
        text = self.parameter("version")
        known = {one.value: one for one in Version}
        if text not in known:
            raise InvalidRequest(f"`version` must be one of: {', '.join(filter(None, known))}.")
        return known[text]
