"""The connection to MongoDB: builds the indexes, translates the driver's errors, and repeats failed transactions."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
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
from chatstream.store.threads import Threads
from chatstream.store.uri import undecided
from chatstream.store.watching import Watching

log = logging.getLogger("chatstream.store")

T = TypeVar("T")

# Time limit of one operation. A healthy one takes milliseconds, so two seconds mean a fault. Without a limit, a call to
# a stopped mongod never returns.
OPERATION_TIMEOUT_MS = 2000
# Time limit for building the indexes, and the pause between checks that the database still answers. Building an index
# over many messages of an older version takes minutes; nothing is served meanwhile.
_INDEX_TIMEOUT_SECONDS = 3600
_INDEX_CHECK_SECONDS = 5
# Time limit for closing a change stream, and for closing the client, in seconds. Without one the driver waits for a
# stopped database for 11 s.
_CLOSE_SECONDS = 2.0
# motor's threads besides those for operations: one to close the change stream, one for the probe.
_OTHER_THREADS = 2
# Retry a transaction for this long, the usual length of a failover. The caller waits at most the second time, which
# includes waiting at the gate; a request with less time left waits less.
TRANSACTION_RETRY_SECONDS = 2.5
TRANSACTION_TIMEOUT_SECONDS = 4.0
# Seconds before a transaction is retried: about the length of one, so that the conflicting one has ended.
TRANSACTION_RETRY_PAUSE = 0.01

# MongoDB aborts an open transaction after this many seconds (its transactionLifetimeLimitSeconds). Until then, try to
# abort it ourselves, with this pause between tries.
_TRANSACTION_LIFETIME_SECONDS = 60
_KILL_PAUSE = 0.5

# MongoDB's error codes Unauthorized and AuthenticationFailed, and Atlas' own code for AuthenticationFailed.
_NOT_ALLOWED, _NOT_KNOWN, _NOT_KNOWN_TO_ATLAS = 13, 18, 8000

CONVERSATION_INDEXES = [
    IndexModel([("userId", ASCENDING), ("id", ASCENDING)], name="owner_id", unique=True),
    IndexModel([("userId", ASCENDING), ("updatedAt", DESCENDING), ("_id", DESCENDING)], name="owner_recent"),
    # For retention: the least recently used conversations first.
    IndexModel([("updatedAt", ASCENDING), ("_id", ASCENDING)], name="activity"),
]
# Finds the webhook events that are due. Empty if no webhook is configured.
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
    # The lock: MongoDB allows one running answer per conversation, whatever the processes do.
    IndexModel(
        [("conversationId", ASCENDING)],
        name="running",
        unique=True,
        partialFilterExpression={"status": "streaming"},
    ),
    # Keeps two processes from both beginning attempt 2 at the same message.
    IndexModel(
        [("conversationId", ASCENDING), ("replyTo", ASCENDING), ("attempt", ASCENDING)],
        name="attempts_in_conversation",
        unique=True,
        partialFilterExpression={"replyTo": {"$exists": True}},
    ),
    # Unread answers. Each read of a history asks for them.
    IndexModel([("conversationId", ASCENDING)], name="unseen", partialFilterExpression={"unseen": True}),
    # The waiting answers of one user, and those whose wait has expired. Small: few answers wait.
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
    # For the sweeper: the answers with queued messages behind them. Small: the sweeper takes the mark off again.
    IndexModel([("status", ASCENDING)], name="queued_behind", partialFilterExpression={"queued": True}),
    # For the sweeper: the running answers alone.
    IndexModel([("status", ASCENDING)], name="streaming", partialFilterExpression={"status": "streaming"}),
    _WEBHOOK_INDEX,
]
TICKET_INDEXES = [
    # MongoDB deletes expired tickets, also those that were never redeemed.
    IndexModel([("expiresAt", ASCENDING)], name="expired", expireAfterSeconds=0),
    IndexModel([("userId", ASCENDING)], name="owner"),
]
ERASURE_INDEXES = [
    # Allows one running erasure per user. A complete erasure has no `userId` any more.
    IndexModel(
        [("userId", ASCENDING)],
        name="running",
        unique=True,
        partialFilterExpression={"userId": {"$exists": True}},
    ),
    # Deletes receipts of erasures after a year; questions about one come earlier. A receipt has no personal data.
    IndexModel([("completedAt", ASCENDING)], name="old", expireAfterSeconds=365 * 86_400),
]
# Deletes leases an hour after they have expired.
LEASE_INDEXES = [IndexModel([("heldUntil", ASCENDING)], name="over", expireAfterSeconds=3600)]
# See `chatstream.store.searching`.
SEARCH_INDEXES = [IndexModel([("userId", ASCENDING), ("terms", ASCENDING)], name="terms")]
LEDGER_INDEXES = [
    # For the monthly report.
    IndexModel([("month", ASCENDING), ("_id", ASCENDING)], name="month"),
    _WEBHOOK_INDEX,
    IndexModel([("userId", ASCENDING)], name="owner"),
    # Finds accounts with an unsent webhook event about a user, even if the account itself no longer has the user's id.
    # There are few.
    IndexModel(
        [("webhook.userId", ASCENDING)],
        name="webhook_owner",
        partialFilterExpression={"webhook.userId": {"$exists": True}},
    ),
]
# MongoDB deletes the key of a month's pseudonyms some time after the month.
LEDGER_KEY_INDEXES = [IndexModel([("expiresAt", ASCENDING)], name="over", expireAfterSeconds=0)]
# Indexes of earlier versions to drop; new ones replace them, since a unique index must begin with the shard key. A
# process of an earlier version creates them again at its start, and the next process of this version drops them again.
_FORMER_INDEXES = {"messages": ("attempts",)}
_NO_SUCH_INDEX = 27
PLUGIN_DOCUMENT_INDEXES = [
    # Makes keys unique per user and plug-in, so that a repeated write stores no second document.
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
    """The error message for a refusal that concerns credentials or permissions; None for any other failure."""
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
                datetime_conversion="DATETIME_AUTO",  # a time out of Python's range spoils only its own document
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
        places = max(1, motor.frameworks.asyncio.max_workers - _OTHER_THREADS)
        self._gate = Gate(self._probe, places)
        self._threads = Threads(places)
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
        """The models of the documents that this version can read. Counts the others in a metric; skips None."""
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
        """Count a ``document`` or a ``change`` that this version cannot read; a later version may have written it."""
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
        """Check that the server is in a replica set and accepts our credentials. Raises like `prepare`."""
        try:
            with translated():
                # In a thread for operations: so the first request finds one that runs, and an open connection.
                hello = await self._threads.run(lambda: self._client.delegate.admin.command("hello"))
        except OperationFailure as exc:
            raise self._refused(exc) from exc
        if "setName" not in hello and hello.get("isreplicaset"):  # a replica set that is not initiated yet
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
        database = self._database.delegate

        def build() -> None:
            for name, indexes in INDEXES.items():
                with pymongo.timeout(_INDEX_TIMEOUT_SECONDS):  # replaces the limit of a single operation
                    database[name].create_indexes(indexes)
            for name, former in _FORMER_INDEXES.items():
                for index in former:  # dropped after the new ones are built, so that a unique index exists at any time
                    with pymongo.timeout(_INDEX_TIMEOUT_SECONDS):
                        _drop(database[name], index)

        # In one thread: while the model's library is loaded, each way back to the event loop waits. In one of motor's:
        # it may take an hour, and those of `in_thread` are as many as pass the gate at once.
        await _in_motors_thread(asyncio.get_running_loop(), build)

    async def time(self) -> datetime:
        """The current time of the database's clock. Raises `StorageUnavailable`."""
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

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread: operations one after the other, without the event loop between them.

        To hand an operation to a thread and its result back costs a third of what the operation costs, with motor; half
        of that with `Threads`. `work` uses collections' `in_thread`; all its operations together have the time of one.
        Raises `StorageUnavailable`.
        """

        def timed() -> T:
            with pymongo.timeout(OPERATION_TIMEOUT_MS / 1000):
                return work()

        return await self._gate.run(lambda: self._threads.run(timed))

    async def transaction(self, body: Callable[[Any], Awaitable[T]]) -> T:
        """Run `body(session)` in a transaction. Repeat all of it on a conflict, and while the result is unknown.

        So `body` must use ids made before the call, and treat a duplicate `_id` as its own earlier success. Raises
        `StorageUnavailable` on timeout: the transaction may have been committed, or may still be.
        """
        # In its own task, which the caller's cancellation does not reach: a write cannot be undone by cancelling, and
        # the session must be closed.
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
        """Kill the session of a transaction that was given up while the database still holds it open.

        Otherwise its write locks stay for a minute, and other writes to the same documents time out.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _TRANSACTION_LIFETIME_SECONDS
        while loop.time() < end:
            with suppress(StorageUnavailable, PyMongoError):
                await self._gate.run(lambda: self._client.admin.command("killSessions", [session.session_id]))
                break
            await asyncio.sleep(_KILL_PAUSE)
        await session.end_session()

    @asynccontextmanager
    async def watch(self, pipeline: list[Document], max_await_ms: int) -> AsyncIterator[Watching]:
        """Open a change stream over the database: an iterator. Raises the driver's errors."""
        thread = Threads(1)
        try:
            stream = await thread.run(
                lambda: self._database.delegate.watch(pipeline, max_await_time_ms=max_await_ms),
            )
            try:
                yield Watching(stream, thread)
            finally:
                # The driver tells the database, which may be gone, to forget the cursor. If that fails, it must not
                # raise here: it would hide what ended the stream, and after a cancellation the task would go on for
                # ever. The thread may still be reading.
                with pymongo.timeout(_CLOSE_SECONDS):
                    closing = asyncio.ensure_future(_in_motors_thread(asyncio.get_running_loop(), stream.close))
                closing.add_done_callback(lambda closed: closed.cancelled() or closed.exception())
                await asyncio.wait((closing,))
        finally:
            thread.close()

    def close(self) -> None:
        """Close the connections."""
        self._gate.close()
        self._threads.close()
        with pymongo.timeout(_CLOSE_SECONDS):
            self._client.close()


def _drop(collection: Any, index: str) -> None:
    try:
        collection.drop_index(index)
    except OperationFailure as exc:
        if exc.code != _NO_SUCH_INDEX:
            raise


_in_motors_thread: Callable[..., Awaitable[Any]] = motor.frameworks.asyncio.run_on_executor  # motor has no types
