"""Stores whole conversations many at a time: examples, test data, histories from elsewhere. No server needs to run.

What is stored is what the server itself would have stored if these conversations had taken place.
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

# Documents per transaction: MongoDB's own advice is no more than this ("Production Considerations"). They are half a
# megabyte and take a twentieth of the time that one operation may take; five times as many are a fifth faster.
BATCH_DOCUMENTS = 1000

# What goes for one document: ten megabytes for a batch of them.
_CHARACTERS_PER_DOCUMENT = 10_000

# Of what plug-ins keep, 16 KiB each.
_DOCUMENTS_AT_ONCE = 100

# What stands as `owner`, where the server writes the name of its process.
OWNER = "seeding"

# To learn whether a mongod of this machine is there: it answers within milliseconds, or it is not.
_LOOK_TIMEOUT_MS = 1000

Name = tuple[str, str]
"""What a conversation is known by: its user's id and its own."""


class Line(NamedTuple):
    """One message of a history."""

    role: Literal["user", "assistant"]
    content: str
    created_at: datetime
    reasoning: str | None = None  # what the model thought before it said this


class OwnedDocument(NamedTuple):
    """A document of a plug-in's, and whose it is."""

    user_id: str
    document: PluginDocument


class History(NamedTuple):
    """A conversation and its messages, in order."""

    conversation: Conversation
    messages: list[Message]

    @property
    def name(self) -> Name:
        """What it is known by."""
        return self.conversation.user_id, self.conversation.id

    @property
    def size(self) -> int:
        """How much work it is to store: in documents, or in as many small ones as have the same text."""
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
    """A conversation that took place: each answer complete, and read.

    An assistant's line answers the user's line right before it; a user's line without an answer at the very end is
    answered when somebody watches. `found` says what is found in an answer, by its id and text. Without `id` one is
    made.
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
    """As the server makes them."""
    return str(ObjectId())


class Seeding:
    """All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def taken(self, names: Iterable[Name]) -> set[Name]:
        """Those of `names`, of which there should be no more than a batch, that conversations have."""
        asked = set(names)
        query = {
            "userId": {"$in": sorted({user_id for user_id, _ in asked})},
            "id": {"$in": sorted({id_ for _, id_ in asked})},
        }
        found = self._mongo.conversations.find(query, {"_id": 0, "userId": 1, "id": 1})
        return {name async for each in found if (name := (each["userId"], each["id"])) in asked}

    async def store(self, histories: Sequence[History]) -> None:
        """Store them all or, if an error is raised, none. Raises `AlreadyExists` if a user has one of the ids.

        They should be about `BATCH_DOCUMENTS` documents; a larger one comes alone.
        """
        conversations = [conversation_document(conversation) for conversation, _ in histories]
        messages = [
            answer_document(conversation.key, message)
            if isinstance(message, Answer)
            else user_message_document(conversation.key, message, owner=OWNER)
            for conversation, messages in histories
            for message in messages
        ]

        # Of one that is too large for a transaction the beginning is stored before: it belongs to nobody until its
        # conversation is there.
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
            if own is None:  # else this very transaction had succeeded, and its result was lost
                raise AlreadyExists("A user has a conversation with one of these ids.") from exc

    async def keep(self, documents: Iterable[OwnedDocument]) -> None:
        """Store what plug-ins keep, but for what is there already."""
        kept = PluginDocuments(self._mongo)
        every = iter(documents)
        while some := list(islice(every, _DOCUMENTS_AT_ONCE)):
            for user_id, own in groupby(some, lambda one: one.user_id):
                await kept.add(user_id, [one.document for one in own])

    async def drop(self) -> None:
        """Delete all conversations and messages of the database, whoever made them."""
        await self._mongo.messages.drop()
        await self._mongo.conversations.drop()
        await self._mongo.prepare()  # the indexes, and with them the lock, are gone too


def is_local(uri: str) -> bool:
    """Whether all the servers that a MongoDB URI names are on this machine, as far as their names tell."""
    if uri.startswith("mongodb+srv:"):  # its servers' names stand in the DNS
        return False
    try:
        # What begins with a slash is a Unix socket.
        return all(host.startswith("/") or is_loopback(host) for host, _ in parse_uri(uri)["nodelist"])
    except (InvalidURI, PyMongoConfigurationError, ValueError):
        return False


@asynccontextmanager
async def embedded_database(data_dir: Path) -> AsyncIterator[tuple[str, bool]]:
    """The development database in `data_dir`: its URI, and whether a running server has it open.

    If none has, it is opened here and closed at the end. Raises `ConfigurationError` like `embedded_mongod`.
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
    # The log may be of a run that is over, and the port somebody else's by now: whoever listens there is asked.
    with suppress(PyMongoError):
        async with AsyncMongoClient[dict[str, Any]](
            "127.0.0.1", port, directConnection=True, timeoutMS=_LOOK_TIMEOUT_MS
        ) as client:
            options = (await client.admin.command("getCmdLineOpts"))["parsed"]
            if options.get("storage", {}).get("dbPath") == str(db):
                return f"mongodb://127.0.0.1:{port}/?replicaSet={REPLICA_SET}"
    return None


def _logged(data_dir: Path) -> tuple[Path, int | None]:
    """Where the data are, by the one true name that mongod was given, and the port that its log names, if it does."""
    data_dir = data_dir.resolve()
    with suppress(FileNotFoundError), (data_dir / "mongod.log").open(errors="replace") as lines:
        for line in lines:
            with suppress(json.JSONDecodeError):
                if isinstance(entry := json.loads(line), dict) and entry.get("id") == WAITING_FOR_CONNECTIONS:
                    return data_dir / "db", int(entry["attr"]["port"])
    return data_dir / "db", None
