"""Reads a file from ``GET /api/v1/chat/me/export``, to store the same history again with new message ids."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from chatstream.errors import ConfigurationError, ErrorCode
from chatstream.generations.rounds import settled
from chatstream.handlers.export import (
    VERSION,
    ExportBegun,
    ExportedConversation,
    ExportedDocument,
    ExportedMessage,
    ExportEnded,
    ExportLine,
)
from chatstream.handlers.views import AnswerView, ClientToolView, ConversationView, FailureView, UserMessageView
from chatstream.models import Answer, ClientTool, Conversation, Failure, Message, Status, UserMessage, recommendation
from chatstream.pieces import read
from chatstream.seeding import Source
from chatstream.store.documents import new_key
from chatstream.store.plugin_documents import PluginDocument, check
from chatstream.store.seeding import OWNER, History, Name, OwnedDocument, new_message_id

# Decodes a line; the lines have several types.
_LINE = msgspec.json.Decoder(ExportLine)
# Longest line in bytes: MongoDB's largest document, with every character as a JSON escape.
_MOST_LINE_BYTES = 128 * 1024 * 1024


class _Fault(Exception):
    """Raised for an invalid line. The message does not repeat the line's text."""


class _Read(NamedTuple):
    """A conversation of the file, and the lines of its messages."""

    line: ExportedConversation
    messages: list[ExportedMessage]

    @property
    def conversation(self) -> ConversationView:
        return self.line.conversation


def is_export(path: Path) -> bool:
    """Whether the file begins like an export."""
    try:
        with path.open("rb") as file:
            return isinstance(_LINE.decode(file.readline(_MOST_LINE_BYTES)), ExportBegun)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return False


def read_export(path: Path) -> Source:
    """The conversations of an export. Raises `ConfigurationError` before anything is stored if one cannot be read.

    Reads the file twice, one conversation at a time, since the file may be larger than the memory.
    """
    names: list[Name] = []
    user_id, messages = "", 0
    for number, line in _lines(path):
        if number == 1:
            user_id = _begun(path, line).user_id
    end = line  # `_lines` has checked that the last line is the end
    seen: set[str] = set()
    for one in _conversations(path):
        if one.conversation.id in seen:
            raise ConfigurationError(f"{path} is not acceptable, nothing was stored: a conversation is there twice.")
        seen.add(one.conversation.id)
        names.append((user_id, one.conversation.id))
        _history(path, user_id, one)
        messages += len(one.messages)
    documents = sum(1 for _ in _documents(path, user_id))
    found = (len(names), messages, documents)
    if isinstance(end, ExportEnded) and (end.conversations, end.messages, end.documents or 0) != found:
        raise ConfigurationError(f"{path} has other numbers of lines than its end says. Nothing was stored.")
    return Source(
        len(names),
        lambda: names,
        lambda: (_history(path, user_id, one) for one in _conversations(path)),
        lambda: _documents(path, user_id),
    )


def _begun(path: Path, line: ExportLine) -> ExportBegun:
    if not isinstance(line, ExportBegun) or not line.user_id or "\0" in line.user_id:
        raise ConfigurationError(f"{path} does not begin like an export.")
    if line.version > VERSION:
        raise ConfigurationError(f"{path} was exported by a later version of chatstream: update this one.")
    return line


def _lines(path: Path) -> Iterator[tuple[int, ExportLine]]:
    """Each line with its number. Raises `ConfigurationError` for an invalid line, and if the end is missing."""
    last: ExportLine | None = None
    try:
        with path.open("rb") as file:
            number = 0
            while text := file.readline(_MOST_LINE_BYTES):
                number += 1
                if isinstance(last, ExportEnded):
                    raise ConfigurationError(f"{path} goes on behind its end, in line {number}.")
                try:
                    last = _LINE.decode(text)
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    raise ConfigurationError(f"{path} is no export, or was cut off, in line {number}.") from None
                yield number, last
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc.strerror}") from exc
    if not isinstance(last, ExportEnded) or not last.complete:
        raise ConfigurationError(
            f"{path} was cut off: its last line does not say that it is complete. Nothing was stored; export it again."
        )


def _conversations(path: Path) -> Iterator[_Read]:
    current: _Read | None = None
    for number, line in _lines(path):
        match line:
            case ExportedConversation():
                if current is not None:
                    yield current
                current = _Read(line, [])
            case ExportedMessage():
                if current is None:
                    raise ConfigurationError(f"{path} has a message of no conversation in line {number}.")
                current.messages.append(line)
            case _:
                pass
    if current is not None:
        yield current


def _documents(path: Path, user_id: str) -> Iterator[OwnedDocument]:
    for number, line in _lines(path):
        if isinstance(line, ExportedDocument):
            try:
                made = PluginDocument(
                    plugin=line.plugin, key=line.key, data=line.data, created_at=_time(line.created_at)
                )
                check(made)
            except ValueError as exc:
                raise ConfigurationError(
                    f"{path}: the document in line {number} is not acceptable. Nothing was stored."
                ) from exc
            yield OwnedDocument(user_id, made)


def _history(path: Path, user_id: str, one: _Read) -> History:
    try:
        return _made(user_id, one)
    except (_Fault, ValueError, KeyError) as exc:
        why = str(exc) if isinstance(exc, _Fault) else "a field of it cannot be read"
        raise ConfigurationError(f"{path}: the conversation {one.conversation.id} is not acceptable: {why}") from None


def _made(user_id: str, one: _Read) -> History:
    view = one.conversation
    bare = Conversation(
        key=str(new_key()),
        user_id=user_id,
        id=view.id,
        title=view.title,
        system_prompt=view.system_prompt,
        model=view.model,
        created_at=_time(view.created_at),
        updated_at=_time(view.updated_at),
        background=view.background,
        client_tools=() if view.client_tools is UNSET else tuple(map(_client_tool, view.client_tools)),
        auto_title=one.line.auto_title is True,
    )
    context_from: int | None = None
    ids: dict[str, str] = {}
    messages: list[Message] = []
    attempts: set[tuple[str, int]] = set()
    for seq, line in enumerate(one.messages, start=1):
        message = line.message
        if message.id in ids:
            raise _Fault("two of its messages have the same id")
        ids[message.id] = new_message_id()
        if line.context_begins is True:
            context_from = seq
        if isinstance(message, UserMessageView):
            messages.append(_user_message(message, ids, seq))
            continue
        if message.reply_to not in ids:
            raise _Fault("an answer stands before its question")
        if (message.reply_to, message.attempt) in attempts:
            raise _Fault("two answers are the same attempt")
        attempts.add((message.reply_to, message.attempt))
        messages.append(_answer(line, message, ids, seq))
    head = None if view.head is UNSET else ids.get(view.head)
    return History(msgspec.structs.replace(bare, head=head, context_from=context_from), messages)


def _client_tool(view: ClientToolView) -> ClientTool:
    return ClientTool(**msgspec.structs.asdict(view))


def _user_message(view: UserMessageView, ids: dict[str, str], seq: int) -> UserMessage:
    return UserMessage(
        id=ids[view.id],
        seq=seq,
        content=view.content,
        created_at=_time(view.created_at),
        client_message_id=None if view.client_message_id is UNSET else view.client_message_id,
        parent=ids[view.parent] if isinstance(view.parent, str) else view.parent,
    )


def _answer(line: ExportedMessage, view: AnswerView, ids: dict[str, str], seq: int) -> Answer:
    status, failure = view.status, _failure(view.error)
    if not status.is_final:  # no process generates it; only its user may ask again
        status = Status.INTERRUPTED
        failure = Failure(code=ErrorCode.ANSWER_INTERRUPTED, request_id=None)
    if status is Status.INTERRUPTED:
        code = Failure(code=ErrorCode.ANSWER_INTERRUPTED, request_id=None)
        failure = msgspec.structs.replace(failure or code, unwatched=failure is not None)
    answer = Answer(
        id=ids[view.id],
        seq=seq,
        reply_to=ids[view.reply_to],
        attempt=view.attempt,
        status=status,
        content="",
        created_at=_time(view.created_at),
        finish_reason=view.finish_reason,
        usage=view.usage,
        failure=failure,
        annotations=(*map(recommendation, view.recommendations), *(view.annotations or ())),
        owner=OWNER,
        rounds=() if view.rounds is UNSET else view.rounds,
        model=None if view.model is UNSET else view.model,
        continues=None if view.continues is UNSET else ids.get(view.continues),
        rating=None if view.rating is UNSET else view.rating,
        unseen=line.unread is True,
    )
    made = answer.made_of([view.content] if line.pieces is UNSET else read(line.pieces))
    if made.content != view.content:
        raise _Fault("an answer's text is not what it is made of")
    return settled(made)  # in the copy, waiting tool calls are ended


def _failure(view: FailureView | None) -> Failure | None:
    return None if view is None else Failure(code=view.error, request_id=view.request_id)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
