"""Bulk-loads conversations: examples, test data, imported histories. No server needs to run.

The documents are the same as those that the server stores.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bson import ObjectId
from pymongo import AsyncMongoClient
from pymongo.errors import BulkWriteError, InvalidURI, PyMongoError
from pymongo.errors import ConfigurationError as PyMongoConfigurationError
from pymongo.uri_parser import parse_uri

from chatstream.errors import AlreadyExists
from chatstream.hosts import is_loopback
from chatstream.models import Annotation, Answer, Conversation, Message, Status, UserMessage
from chatstream.pieces import OpenReasoning, OpenText
from chatstream.store.documents import answer_document, conversation_document, new_key, user_message_document
from chatstream.store.embedded import REPLICA_SET, WAITING_FOR_CONNECTIONS, embedded_mongod
from chatstream.store.mongo import Mongo
from chatstream.store.plugin_documents import PluginDocument, PluginDocuments

# Documents per transaction: the maximum that MongoDB advises ("Production Considerations"). They have about 0.5 MB and
# take 5 % of the time limit of an operation. Five times as many would be only 20 % faster.
BATCH_DOCUMENTS = 1000

# A longer text counts as several documents, one per this many characters, so that a batch has at most ten megabytes.
_CHARACTERS_PER_DOCUMENT = 10_000

# Plug-in documents per operation; each has at most 16 KiB.
_DOCUMENTS_AT_ONCE = 100

# The `owner` of seeded documents. The server writes the name of its process there.
OWNER = "seeding"

# Timeout for finding out whether a mongod runs on this machine. A running one answers within milliseconds.
_LOOK_TIMEOUT_MS = 1000

Name = tuple[str, str]
"""Identifies a conversation: the user's id and the conversation's id."""


class Line(NamedTuple):
    """One message of a history."""

    role: Literal["user", "assistant"]
    content: str
    created_at: datetime
    reasoning: str | None = None  # the model's reasoning before the text


class OwnedDocument(NamedTuple):
    """A plug-in's document and the user that it belongs to."""

    user_id: str
    document: PluginDocument


class History(NamedTuple):
    """A conversation and its messages, in order."""

    conversation: Conversation
    messages: list[Message]

    @property
    def name(self) -> Name:
        """The pair that identifies the conversation."""
        return self.conversation.user_id, self.conversation.id

    @property
    def size(self) -> int:
        """The cost of storing the conversation, in documents. A long text counts as several small ones."""
        characters = sum(len(message.content) for message in self.messages)
        return 1 + len(self.messages) + characters // _CHARACTERS_PER_DOCUMENT


def history(
    user_id: str,
    lines: Sequence[Line],
    *,
    created_at: datetime,
    found: Callable[[str, str], tuple[Annotation, ...]],
    id: str | None = None,  # noqa: A002 - the protocol's name for it
    title: str | None = None,
    system_prompt: str | None = None,
    model: str | None = None,
) -> History:
    """Make a past conversation, with every answer complete and read.

    An assistant's line answers the user's line right before it. A last user's line without an answer is answered when
    somebody watches. `found(id, text)` returns the annotations of an answer. Without `id`, a new one is generated.
    """
    key = new_key()
    messages: list[Message] = []
    question = ""
    for seq, line in enumerate(lines, start=1):
        message_id = str(ObjectId())
        if line.role == "user":
            question = message_id
            messages.append(UserMessage(id=message_id, seq=seq, content=line.content, created_at=line.created_at))
        else:
            messages.append(
                Answer(
                    id=message_id,
                    seq=seq,
                    reply_to=question,
                    attempt=1,
                    status=Status.COMPLETE,
                    content=line.content,
                    created_at=line.created_at,
                    finish_reason="stop",
                    annotations=found(message_id, line.content),
                    owner=OWNER,
                ).made_of(
                    [OpenReasoning(), line.reasoning, OpenText(), line.content] if line.reasoning else [line.content]
                )
            )
    conversation = Conversation(
        key=str(key),
        user_id=user_id,
        id=id or str(key),
        title=title,
        system_prompt=system_prompt,
        model=model,
        created_at=created_at,
        updated_at=lines[-1].created_at if lines else created_at,
    )
    return History(conversation, messages)


def new_message_id() -> str:
    """A new message id, made as the server makes them."""
    return str(ObjectId())


class Seeding:
    """Bulk writes. All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def taken(self, names: Iterable[Name]) -> set[Name]:
        """The `names` that existing conversations have. Pass at most one batch of names."""
        asked = set(names)
        query = {
            "userId": {"$in": sorted({user_id for user_id, _ in asked})},
            "id": {"$in": sorted({id_ for _, id_ in asked})},
        }
        found = self._mongo.conversations.find(query, {"_id": 0, "userId": 1, "id": 1})
        return {name async for each in found if (name := (each["userId"], each["id"])) in asked}

    async def store(self, histories: Sequence[History]) -> None:
        """Store all the conversations, or none on an error. Raises `AlreadyExists` if a user has one of the ids.

        Pass about `BATCH_DOCUMENTS` documents; pass a larger conversation alone.
        """
        conversations = [conversation_document(conversation) for conversation, _ in histories]
        messages = [
            answer_document(conversation.key, message)
            if isinstance(message, Answer)
            else user_message_document(conversation.key, message, owner=OWNER)
            for conversation, messages in histories
            for message in messages
        ]

        # Messages that do not fit into the transaction are stored before it. No conversation shows them until theirs is
        # stored.
        large = len(messages) > 2 * BATCH_DOCUMENTS
        while large and len(messages) > BATCH_DOCUMENTS:
            await self._mongo.messages.insert_many(messages[:BATCH_DOCUMENTS])
            del messages[:BATCH_DOCUMENTS]

        async def both(session: Any) -> None:
            await self._mongo.conversations.insert_many(conversations, session=session)
            if messages:
                await self._mongo.messages.insert_many(messages, session=session)

        try:
            await self._mongo.transaction(both)
        except BulkWriteError as exc:
            if any(error["code"] != 11000 for error in exc.details["writeErrors"]):  # DuplicateKey
                raise
            own = await self._mongo.conversations.find_one(
                {name: conversations[0][name] for name in ("_id", "userId")}, {"_id": 1}
            )
            if own is None:  # else an earlier try of this transaction had succeeded, but its result was lost
                raise AlreadyExists("A user has a conversation with one of these ids.") from exc

    async def keep(self, documents: Iterable[OwnedDocument]) -> None:
        """Store plug-in documents, except those that exist already."""
        kept = PluginDocuments(self._mongo)
        every = iter(documents)
        while some := list(islice(every, _DOCUMENTS_AT_ONCE)):
            for user_id, own in groupby(some, lambda one: one.user_id):
                await kept.add(user_id, [one.document for one in own])

    async def drop(self) -> None:
        """Delete all conversations and messages of the database, not only seeded ones."""
        await self._mongo.messages.drop()
        await self._mongo.conversations.drop()
        await self._mongo.prepare()  # builds the indexes again, which were dropped with the data


def is_local(uri: str) -> bool:
    """Whether all servers in a MongoDB URI are on this machine, judged by their names."""
    if uri.startswith("mongodb+srv:"):  # the DNS has its servers' names
        return False
    try:
        # A host that begins with a slash is a Unix socket.
        return all(host.startswith("/") or is_loopback(host) for host, _ in parse_uri(uri)["nodelist"])
    except (InvalidURI, PyMongoConfigurationError, ValueError):
        return False


@asynccontextmanager
async def embedded_database(data_dir: Path) -> AsyncIterator[tuple[str, bool]]:
    """The URI of the development database in `data_dir`, and whether a running server has it open.

    If no server has, start it here and stop it at the end. Raises `ConfigurationError` like `embedded_mongod`.
    """
    if uri := await _running(data_dir):
        yield uri, True
        return
    async with embedded_mongod(data_dir) as uri:
        yield uri, False


async def _running(data_dir: Path) -> str | None:
    """The URI of the mongod that a running server has started in `data_dir`."""
    db, port = _logged(data_dir)
    if port is None:
        return None
    # The log may be of an earlier run, and another program may have the port now. So ask the server at that port.
    with suppress(PyMongoError):
        async with AsyncMongoClient[dict[str, Any]](
            "127.0.0.1", port, directConnection=True, timeoutMS=_LOOK_TIMEOUT_MS
        ) as client:
            options = (await client.admin.command("getCmdLineOpts"))["parsed"]
            if options.get("storage", {}).get("dbPath") == str(db):
                return f"mongodb://127.0.0.1:{port}/?replicaSet={REPLICA_SET}"
    return None


def _logged(data_dir: Path) -> tuple[Path, int | None]:
    """The resolved data directory, as on mongod's command line, and the port in mongod's log, or None."""
    data_dir = data_dir.resolve()
    with suppress(FileNotFoundError), (data_dir / "mongod.log").open(errors="replace") as lines:
        for line in lines:
            with suppress(json.JSONDecodeError):
                if isinstance(entry := json.loads(line), dict) and entry.get("id") == WAITING_FOR_CONNECTIONS:
                    return data_dir / "db", int(entry["attr"]["port"])
    return data_dir / "db", None
