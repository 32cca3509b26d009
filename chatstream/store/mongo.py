"""The connection to MongoDB: its indexes, its failures translated, its transactions repeated until they are known."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

import motor.frameworks.asyncio
import pymongo
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import (
    ConfigurationError as PyMongoConfigurationError,
)
from pymongo.errors import (
    ConnectionFailure,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)

from chatstream.errors import ConfigurationError, StorageUnavailable
from chatstream.metrics import Metrics
from chatstream.store.documents import NoMessage, NotUnderstood
from chatstream.store.gate import Collection, Document, Gate, may_be_repeated, translated
from chatstream.store.measuring import Commands, Heartbeats
from chatstream.store.uri import undecided

log = logging.getLogger("chatstream.store")

T = TypeVar("T")

# One operation in its thread. A healthy one takes milliseconds, so two seconds of silence are a fault. Without a limit
# a stopped mongod hangs a call for ever.
OPERATION_TIMEOUT_MS = 2000
# To build an index over all messages that an older version stored takes minutes. Nothing is served meanwhile, and the
# database is asked now and then whether it is still there.
_INDEX_TIMEOUT_SECONDS = 3600
_INDEX_CHECK_SECONDS = 5
# Threads of motor's that are not for operations: one listens to the change stream, one is for the probe.
_OTHER_THREADS = 2
# A transaction is begun again for this long, a failover's usual length; and waited for so long, a place at the gate
# included. A request that has less time left waits less.
TRANSACTION_RETRY_SECONDS = 2.5
TRANSACTION_TIMEOUT_SECONDS = 4.0
# The pause before it is begun again: about the time of one transaction, so that the other one of a conflict is over.
TRANSACTION_RETRY_PAUSE = 0.01

# How long a transaction may hold what it has written if nobody ends it (MongoDB's transactionLifetimeLimitSeconds), and
# the pause between tries to end it.
_TRANSACTION_LIFETIME_SECONDS = 60
_KILL_PAUSE = 0.5

# Unauthorized, AuthenticationFailed, and Atlas' own for the latter.
_NOT_ALLOWED, _NOT_KNOWN, _NOT_KNOWN_TO_ATLAS = 13, 18, 8000

CONVERSATION_INDEXES = [
    IndexModel([("userId", ASCENDING), ("id", ASCENDING)], name="owner_id", unique=True),
    IndexModel([("userId", ASCENDING), ("updatedAt", DESCENDING), ("_id", DESCENDING)], name="owner_recent"),
    # Those that nobody has used for longest.
    IndexModel([("updatedAt", ASCENDING), ("_id", ASCENDING)], name="activity"),
]
# What is to be sent: nothing, where there is no webhook.
_WEBHOOK_INDEX = IndexModel(
    [("webhook.dueAt", ASCENDING)], name="webhooks", partialFilterExpression={"webhook.dueAt": {"$exists": True}}
)
MESSAGE_INDEXES = [
    IndexModel([("conversationId", ASCENDING), ("seq", ASCENDING)], name="log", unique=True),
    IndexModel(
        [("conversationId", ASCENDING), ("clientMessageId", ASCENDING)],
        name="client_message_id",
        unique=True,
        partialFilterExpression={"clientMessageId": {"$exists": True}},
    ),
    # The lock: one running answer per conversation, whatever any process believes.
    IndexModel(
        [("conversationId", ASCENDING)],
        name="running",
        unique=True,
        partialFilterExpression={"status": "streaming"},
    ),
    # Two processes cannot both begin the second attempt at one message.
    IndexModel(
        [("conversationId", ASCENDING), ("replyTo", ASCENDING), ("attempt", ASCENDING)],
        name="attempts_in_conversation",
        unique=True,
        partialFilterExpression={"replyTo": {"$exists": True}},
    ),
    # Whether anything of a conversation was not seen is asked with every history.
    IndexModel([("conversationId", ASCENDING)], name="unseen", partialFilterExpression={"unseen": True}),
    # What waits for a user, of all their conversations, and what has waited for too long: few answers do.
    IndexModel(
        [("waiting.userId", ASCENDING), ("conversationId", ASCENDING)],
        name="waiting_for",
        partialFilterExpression={"waiting.userId": {"$exists": True}},
    ),
    IndexModel(
        [("waiting.expiresAt", ASCENDING)],
        name="waiting_until",
        partialFilterExpression={"waiting.expiresAt": {"$exists": True}},
    ),
    # What the sweeper looks at: there are only as many as answers running.
    IndexModel([("status", ASCENDING)], name="streaming", partialFilterExpression={"status": "streaming"}),
    _WEBHOOK_INDEX,
]
TICKET_INDEXES = [
    # What was never redeemed is deleted, some time after it has expired.
    IndexModel([("expiresAt", ASCENDING)], name="expired", expireAfterSeconds=0),
    IndexModel([("userId", ASCENDING)], name="owner"),
]
ERASURE_INDEXES = [
    # Of each user one at a time; one that is complete has no user any more.
    IndexModel(
        [("userId", ASCENDING)],
        name="running",
        unique=True,
        partialFilterExpression={"userId": {"$exists": True}},
    ),
    # A receipt says nothing of anybody. A year is longer than any question about it comes late.
    IndexModel([("completedAt", ASCENDING)], name="old", expireAfterSeconds=365 * 86_400),
]
# What nobody holds any more is of no use.
LEASE_INDEXES = [IndexModel([("heldUntil", ASCENDING)], name="over", expireAfterSeconds=3600)]
# See `chatstream.store.searching`.
SEARCH_INDEXES = [IndexModel([("userId", ASCENDING), ("terms", ASCENDING)], name="terms")]
LEDGER_INDEXES = [
    # For the report of a month.
    IndexModel([("month", ASCENDING), ("_id", ASCENDING)], name="month"),
    _WEBHOOK_INDEX,
    IndexModel([("userId", ASCENDING)], name="owner"),
    # Of whom something is to be told: few, and found so where the account has lost its user's id.
    IndexModel(
        [("webhook.userId", ASCENDING)],
        name="webhook_owner",
        partialFilterExpression={"webhook.userId": {"$exists": True}},
    ),
]
# A month's key goes some time after the month.
LEDGER_KEY_INDEXES = [IndexModel([("expiresAt", ASCENDING)], name="over", expireAfterSeconds=0)]
# What earlier versions made, and later ones have another in place of: a unique index must begin with the shard key. A
# process of the version before makes it again when it starts, and the next one of this version drops it again.
_FORMER_INDEXES = {"messages": ("attempts",)}
_NO_SUCH_INDEX = 27
PLUGIN_DOCUMENT_INDEXES = [
    # A key is used once, so that a write that is repeated stores nothing new.
    IndexModel([("userId", ASCENDING), ("plugin", ASCENDING), ("key", ASCENDING)], name="key", unique=True),
    IndexModel(
        [("userId", ASCENDING), ("plugin", ASCENDING), ("createdAt", DESCENDING), ("_id", DESCENDING)], name="newest"
    ),
]
INDEXES = {
    "conversations": CONVERSATION_INDEXES,
    "messages": MESSAGE_INDEXES,
    "tickets": TICKET_INDEXES,
    "erasures": ERASURE_INDEXES,
    "leases": LEASE_INDEXES,
    "search": SEARCH_INDEXES,
    "ledger": LEDGER_INDEXES,
    "ledgerKeys": LEDGER_KEY_INDEXES,
    "pluginDocuments": PLUGIN_DOCUMENT_INDEXES,
}


def refusal(exc: OperationFailure, database: str) -> str | None:
    """What a refusal means, if it is about who asks."""
    if exc.code in (_NOT_KNOWN, _NOT_KNOWN_TO_ATLAS):
        return (
            "MongoDB refuses the credentials in MONGODB_URI: are user and password right, and is authSource the "
            "database that the user was made in (often admin)?"
        )
    if exc.code == _NOT_ALLOWED and "requires authentication" in str(exc):
        return "MongoDB wants a user and a password, and MONGODB_URI has none"
    if exc.code == _NOT_ALLOWED:
        return (
            f"MongoDB does not let the user of MONGODB_URI use the database {database}: grant readWrite on it, or name "
            "another one in MONGODB_DATABASE"
        )
    return None


class Mongo:
    """An open database. Its collections are motor's collections, with majority writes and timezone-aware times."""

    def __init__(self, uri: str, database: str, metrics: Metrics | None = None) -> None:
        """Does not connect yet; scripts have no `metrics`. Raises `ConfigurationError` if the URI cannot be parsed."""
        try:
            self._client: Any = AsyncIOMotorClient(
                undecided(uri),
                appname="chatstream",
                tz_aware=True,
                datetime_conversion="DATETIME_AUTO",  # a time that Python cannot have spoils its own document alone
                timeoutMS=OPERATION_TIMEOUT_MS,
                serverSelectionTimeoutMS=OPERATION_TIMEOUT_MS,
                connectTimeoutMS=OPERATION_TIMEOUT_MS,
                w="majority",
                journal=True,
                readConcernLevel="majority",
                event_listeners=[Heartbeats(self._heartbeat_lost, metrics), *([Commands(metrics)] if metrics else [])],
            )
        except (InvalidURI, PyMongoConfigurationError, ValueError) as exc:
            # The driver's message may repeat parts of the URI, and with them the password.
            raise ConfigurationError("MONGODB_URI is not a valid MongoDB connection string") from exc
        self._metrics = metrics
        self._tasks: set[asyncio.Task[Any]] = set()
        self._building: asyncio.Task[None] | None = None
        self._database: AsyncIOMotorDatabase[Any] = self._client[database]
        self._gate = Gate(self._probe, max(1, motor.frameworks.asyncio.max_workers - _OTHER_THREADS))
        self.conversations: Any = self.collection("conversations")
        self.messages: Any = self.collection("messages")
        self.tickets: Any = self.collection("tickets")
        self.search: Any = self.collection("search")
        self.erasures: Any = self.collection("erasures")
        self.leases: Any = self.collection("leases")
        self.ledger: Any = self.collection("ledger")
        self.ledger_keys: Any = self.collection("ledgerKeys")
        self.plugin_documents: Any = self.collection("pluginDocuments")

    def collection(self, name: str) -> Any:
        """The collection of this name, behind the gate."""
        return Collection(self._gate, self._database[name])

    def understood(self, model: Callable[[Document], T], *documents: Document | None) -> list[T]:
        """The models of those documents that this version understands; the others are counted. None is no document."""
        found = []
        for document in documents:
            if document is not None:
                try:
                    found.append(model(document))
                except NoMessage:
                    pass
                except NotUnderstood:
                    self.passed_over("document")
        return found

    def passed_over(self, what: str) -> None:
        """A ``document`` or a ``change`` has a shape that this version does not know, as a later one may write it."""
        if self._metrics is not None:
            self._metrics.passed_over(what)

    async def prepare(self) -> None:
        """Check the server and create the indexes; safe to repeat.

        Raises `StorageUnavailable` if the server does not answer (yet), `ConfigurationError` if waiting will not help:
        wrong credentials, or no replica set.
        """
        await self.check()
        try:
            await self._indexes_built()
        except OperationFailure as exc:
            raise self._refused(exc) from exc

    async def check(self) -> None:
        """That it is a replica set, and lets us in. Raises like `prepare`."""
        try:
            with translated():
                hello = await self._client.admin.command("hello")
        except OperationFailure as exc:
            raise self._refused(exc) from exc
        if "setName" not in hello and hello.get("isreplicaset"):  # it will be one, once it is initiated
            raise StorageUnavailable
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise ConfigurationError(
                "MongoDB runs as a standalone server; chatstream needs a replica set (one node will do). "
                "Start mongod with --replSet rs0, then run once: mongosh --eval 'rs.initiate()'"
            )

    def _refused(self, exc: OperationFailure) -> Exception:
        reason = refusal(exc, self._database.name)
        return ConfigurationError(reason) if reason else exc

    async def _indexes_built(self) -> None:
        if self._building is None or self._building.done():
            self._building = self._task(self._build_indexes())
        while not (await asyncio.wait((self._building,), timeout=_INDEX_CHECK_SECONDS))[0]:
            log.info("the database builds indexes, which takes time if there is much to index")
            await self.ping()
        with translated():
            self._building.result()

    async def _build_indexes(self) -> None:
        for name, indexes in INDEXES.items():
            with pymongo.timeout(_INDEX_TIMEOUT_SECONDS):  # in place of the one operation's
                building = self._database[name].create_indexes(indexes)
            await building
        for name, former in _FORMER_INDEXES.items():
            for index in former:  # only now: between the two nothing is without its lock
                with pymongo.timeout(_INDEX_TIMEOUT_SECONDS):
                    dropping = self._database[name].drop_index(index)
                try:
                    await dropping
                except OperationFailure as exc:
                    if exc.code != _NO_SUCH_INDEX:
                        raise

    async def time(self) -> datetime:
        """The database's. Raises `StorageUnavailable`."""
        hello = await self._gate.run(lambda: self._client.admin.command("hello"))
        moment: datetime = hello["localTime"]
        return moment

    async def ping(self) -> None:
        """Raises `StorageUnavailable` unless the database answers."""
        await self._gate.ping()

    def _probe(self, seconds: float) -> Awaitable[object]:
        with pymongo.timeout(seconds):
            asked: Awaitable[object] = self._database.command("ping")
        return asked

    def _heartbeat_lost(self) -> None:
        self._gate.doubt_from_thread()

    async def transaction(self, body: Callable[[Any], Awaitable[T]]) -> T:
        """Run `body(session)` in a transaction; begun again as a whole on a conflict, and while its result is unknown.

        So `body` makes its ids beforehand, and takes a duplicate `_id` for its own earlier success. Raises
        `StorageUnavailable` when the result cannot be known in time; it may have succeeded, or still do.
        """
        # A task of its own: cancelling a write does not take it back, and a session is closed in its own time.
        return await self._gate.run(lambda: self._task(self._transaction(body)), seconds=TRANSACTION_TIMEOUT_SECONDS)

    def _task(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _transaction(self, body: Callable[[Any], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TRANSACTION_RETRY_SECONDS
        session = await self._client.start_session()
        known_to_be_over = True
        try:
            while True:
                try:
                    async with session.start_transaction():
                        result = await body(session)
                except PyMongoError as exc:
                    known_to_be_over = not (exc.timeout or isinstance(exc, ConnectionFailure))
                    if not may_be_repeated(exc) or loop.time() >= deadline:
                        raise
                else:
                    known_to_be_over = True
                    return result
                await asyncio.sleep(TRANSACTION_RETRY_PAUSE)
        finally:
            if known_to_be_over:
                await session.end_session()
            else:
                self._task(self._kill(session))

    async def _kill(self, session: Any) -> None:
        """End a session whose transaction was given up without the database's knowing that it is over.

        It would hold what it has written for a minute, and whoever wants to write there would time out.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _TRANSACTION_LIFETIME_SECONDS
        while loop.time() < end:
            with suppress(StorageUnavailable, PyMongoError):
                await self._gate.run(lambda: self._client.admin.command("killSessions", [session.session_id]))
                break
            await asyncio.sleep(_KILL_PAUSE)
        await session.end_session()

    def watch(self, pipeline: list[Document], max_await_ms: int) -> Any:
        """A change stream over the database: asynchronous context manager and iterator. Raises the driver's errors."""
        return self._database.watch(pipeline, max_await_time_ms=max_await_ms)

    def close(self) -> None:
        """Close the connections."""
        self._gate.close()
        self._client.close()
