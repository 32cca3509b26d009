"""``/api/v1/chat/me/export``: all data of the caller, in a form that can be imported again."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from tornado.iostream import StreamClosedError

from chatstream.errors import StorageUnavailable
from chatstream.events import Timestamp, timestamp
from chatstream.handlers.base import BaseHandler
from chatstream.handlers.connection import Connection
from chatstream.handlers.door import Door
from chatstream.handlers.views import AnswerView, ConversationView, UserMessageView, conversation_view, message_view
from chatstream.models import Answer, Conversation, Message, UserMessage
from chatstream.pieces import stored, without_reasoning, without_secrets
from chatstream.store.conversations import Conversations
from chatstream.store.gate import answer_within
from chatstream.store.plugin_documents import PluginDocument, PluginDocuments
from chatstream.store.reading import Reading

log = logging.getLogger("chatstream.http")

NDJSON = "application/x-ndjson"
# The version of the export's format; raised when older readers could misread a newer export.
VERSION = 1
# Bytes per write. With one message, this is the most memory that an export uses, besides the kernel's socket buffer.
_FLUSH_BYTES = 64 * 1024


class _Line(Struct, frozen=True, kw_only=True, rename="camel", tag_field="type"):
    pass


class ExportBegun(_Line, frozen=True, kw_only=True, rename="camel", tag="export"):
    """The first line of an export."""

    version: int
    user_id: str
    exported_at: Timestamp


class ExportedConversation(_Line, frozen=True, kw_only=True, rename="camel", tag="conversation"):
    """A conversation; its messages follow, oldest first. `autoTitle`: its title is to be made by the model."""

    conversation: ConversationView
    auto_title: bool | UnsetType = UNSET


class ExportedMessage(_Line, frozen=True, kw_only=True, rename="camel", tag="message"):
    """A message of the conversation before it. `pieces` is what an answer is made of, if that is more than text.

    `contextBegins`: the model is not told the messages before this one. `unread`: the answer ended while nobody
    watched, and was not read since. Both are there only where they are true.
    """

    message: UserMessageView | AnswerView
    pieces: list[str | dict[str, Any]] | UnsetType = UNSET
    context_begins: bool | UnsetType = UNSET
    unread: bool | UnsetType = UNSET


class ExportedDocument(_Line, frozen=True, kw_only=True, rename="camel", tag="document"):
    """What a plug-in keeps about the user, under a key of its own."""

    plugin: str
    key: str
    created_at: Timestamp
    data: Any


class ExportEnded(_Line, frozen=True, kw_only=True, rename="camel", tag="end"):
    """The last line. Without it, or if `complete` is false, something is missing."""

    complete: bool
    conversations: int
    messages: int
    documents: int | UnsetType = UNSET


ExportLine = ExportBegun | ExportedConversation | ExportedMessage | ExportedDocument | ExportEnded


class ExportHandler(BaseHandler):
    """Sends JSON lines, as fast as the client reads."""

    def initialize(  # type: ignore[override]  # each door gets exactly its own collaborators
        self, door: Door, conversations: Conversations, reading: Reading, documents: PluginDocuments
    ) -> None:
        """`conversations`, `reading`, `documents`: the sources of the export."""
        super().initialize(door)
        self.conversations = conversations
        self.reading = reading
        self.documents = documents
        self._revoked = False

    async def get(self) -> None:
        """Send the export."""
        with self.door.limits.exports.take(self.user.id):
            self._count()
            pages = self.conversations.all_of(self.user.id)
            async with aclosing(pages):
                first: list[Conversation] = await anext(pages, [])  # errors must come before the first write
                self._begin()
                with self.door.authenticator.guard.watch(self.user, partial(setattr, self, "_revoked", True)):
                    await self._write_all(self._lines(first, pages))

    async def head(self) -> None:
        """Send the status and headers of `get`."""
        self._count()
        self._begin()

    def _count(self) -> None:
        """Count the export towards its rate. Raises `TooManyRequests`."""
        self.tell(self.door.limits.export_openings.take(self.user.id))

    def _begin(self) -> None:
        answer_within(None)  # no deadline
        connection = self.connection_stream()
        if isinstance(connection, Connection):
            connection.begin_stream()
        self.set_status(HTTPStatus.OK)
        self.set_header("Content-Type", NDJSON)
        self.set_header("Content-Disposition", 'attachment; filename="chatstream-export.ndjson"')
        self.set_header("X-Accel-Buffering", "no")

    async def _write_all(self, lines: AsyncIterator[bytes]) -> None:
        gathered = bytearray()
        try:
            async for line in lines:
                gathered += line
                if len(gathered) >= _FLUSH_BYTES:
                    await self._send(bytes(gathered))
                    gathered.clear()
            self.finish(bytes(gathered))
        except StreamClosedError:
            pass  # the client left
        except TimeoutError:
            self.stream_end = "does_not_read"
            self.connection_stream().close()

    async def _send(self, lines: bytes) -> None:
        """Write, and wait until the socket has taken it. Raises `TimeoutError` if the client reads too slowly."""
        self.write(lines)
        await asyncio.wait_for(self.flush(), self.door.slow_reader_timeout)

    async def _lines(self, page: list[Conversation], pages: AsyncIterator[list[Conversation]]) -> AsyncIterator[bytes]:
        conversations = messages = documents = 0
        complete = False
        yield _line(ExportBegun(version=VERSION, user_id=self.user.id, exported_at=timestamp()))
        try:
            while page:
                for conversation in page:
                    yield _line(_conversation(conversation))
                    conversations += 1
                    context_from = conversation.context_from
                    async with aclosing(self.reading.all_of(conversation.key)) as found:
                        async for message in found:
                            exported = self._message(message)
                            if context_from is not None and message.seq >= context_from:
                                exported = msgspec.structs.replace(exported, context_begins=True)
                                context_from = None
                            yield _line(exported)
                            messages += 1
                            if self._revoked:
                                self.stream_end = "revoked"
                                return
                page = await anext(pages, [])
            async with aclosing(self.documents.all_of(self.user.id)) as kept:
                async for one in kept:
                    yield _line(_document(one))
                    documents += 1
                    if self._revoked:
                        self.stream_end = "revoked"
                        return
            complete = True
        except StorageUnavailable as exc:
            self.stream_end = exc.code
        yield _line(
            ExportEnded(complete=complete, conversations=conversations, messages=messages, documents=documents or UNSET)
        )

    def _message(self, message: Message) -> ExportedMessage:
        """A message as its user may see it: without hidden reasoning, and without what no client may see."""
        shows = self.door.formats.reasoning
        pieces: list[Any] | UnsetType = UNSET
        if isinstance(message, Answer) and message.mixed:
            seen = message.mixed if shows else without_reasoning(message.mixed)
            pieces = stored(without_secrets(seen))
        view = message_view(message, reasoning=shows)
        if isinstance(view, AnswerView):
            view = msgspec.structs.replace(view, parts=UNSET)  # redundant: `pieces` has them
        elif isinstance(message, UserMessage):
            view = msgspec.structs.replace(view, parent=message.parent)
        unread = isinstance(message, Answer) and message.unseen
        return ExportedMessage(message=view, pieces=pieces, unread=unread or UNSET)


def _conversation(conversation: Conversation) -> ExportedConversation:
    return ExportedConversation(
        conversation=conversation_view(conversation), auto_title=conversation.auto_title or UNSET
    )


def _document(one: PluginDocument) -> ExportedDocument:
    return ExportedDocument(plugin=one.plugin, key=one.key, created_at=timestamp(one.created_at), data=one.data)


def _line(line: ExportLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"
