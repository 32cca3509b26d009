"""The connection to MongoDB: its indexes, its failures translated, its transactions repeated until they are known."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import (
    ConfigurationError as PyMongoConfigurationError,
)
from pymongo.errors import (
    ConnectionFailure,
    ExecutionTimeout,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)

from chatstream.errors import ConfigurationError, StorageUnavailable
from chatstream.metrics import Metrics
from chatstream.store.measuring import Commands, Heartbeats

log = logging.getLogger("chatstream.store")

Document = dict[str, Any]
T = TypeVar("T")

# One operation: a healthy one takes milliseconds, so two seconds of silence are a fault. Without a limit a stopped
# mongod hangs a call for ever.
OPERATION_TIMEOUT_MS = 2000
# A transaction is begun again for this long, a failover's usual length; and waited for only so long that a POST, with
# the one read before it, has failed or succeeded within 5 s.
TRANSACTION_RETRY_SECONDS = 2.5
TRANSACTION_TIMEOUT_SECONDS = 3.0
# The pause before it is begun again: about the time of one transaction, so that the other one of a conflict is over.
TRANSACTION_RETRY_PAUSE = 0.01

# Unauthorized, AuthenticationFailed, and Atlas' own for the latter.
_NOT_ALLOWED, _NOT_KNOWN, _NOT_KNOWN_TO_ATLAS = 13, 18, 8000

CONVERSATION_INDEXES = [
    IndexModel([("userId", ASCENDING), ("id", ASCENDING)], name="owner_id", unique=True),
    IndexModel([("userId", ASCENDING), ("updatedAt", DESCENDING), ("_id", DESCENDING)], name="owner_recent"),
]
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
        [("replyTo", ASCENDING), ("attempt", ASCENDING)],
        name="attempts",
        unique=True,
        partialFilterExpression={"replyTo": {"$exists": True}},
    ),
    # Whether anything of a conversation was not seen is asked with every history.
    IndexModel([("conversationId", ASCENDING)], name="unseen", partialFilterExpression={"unseen": True}),
    # What the sweeper looks at: there are only as many as answers running.
    IndexModel([("status", ASCENDING)], name="streaming", partialFilterExpression={"status": "streaming"}),
]
# What was never redeemed is deleted, some time after it has expired.
TICKET_INDEXES = [IndexModel([("expiresAt", ASCENDING)], name="expired", expireAfterSeconds=0)]


@contextmanager
def translated() -> Iterator[None]:
    """Raise `StorageUnavailable` for the driver's errors that say "no answer now"; the others are faults of ours."""
    try:
        yield
    except (ConnectionFailure, ExecutionTimeout) as exc:
        raise StorageUnavailable from exc
    except PyMongoError as exc:
        # A failover shows in many codes; the driver labels what may be tried again.
        if exc.timeout or exc.has_error_label("RetryableWriteError") or _may_be_repeated(exc):
            raise StorageUnavailable from exc
        raise


def _may_be_repeated(exc: PyMongoError) -> bool:
    return exc.has_error_label("TransientTransactionError") or exc.has_error_label("UnknownTransactionCommitResult")


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
    """An open database. Its collections are motor's collections, with majority writes and aware times."""

    def __init__(self, uri: str, database: str, metrics: Metrics | None = None) -> None:
        """Does not connect yet; scripts have no `metrics`. Raises `ConfigurationError` if the URI cannot be parsed."""
        try:
            self._client: Any = AsyncIOMotorClient(
                uri,
                appname="chatstream",
                tz_aware=True,
                timeoutMS=OPERATION_TIMEOUT_MS,
                serverSelectionTimeoutMS=OPERATION_TIMEOUT_MS,
                connectTimeoutMS=OPERATION_TIMEOUT_MS,
                w="majority",
                journal=True,
                readConcernLevel="majority",
                event_listeners=[Commands(metrics), Heartbeats(metrics)] if metrics else [],
            )
        except (InvalidURI, PyMongoConfigurationError, ValueError) as exc:
            # The driver's message may repeat parts of the URI, and with them the password.
            raise ConfigurationError("MONGODB_URI is not a valid MongoDB connection string") from exc
        self._transactions: set[asyncio.Task[Any]] = set()
        self._database: AsyncIOMotorDatabase[Any] = self._client[database]
        self.conversations: Any = self._database["conversations"]
        self.messages: Any = self._database["messages"]
        self.tickets: Any = self._database["tickets"]

    async def prepare(self) -> None:
        """Check the server and create the indexes; safe to repeat.

        Raises `StorageUnavailable` if the server does not answer (yet), `ConfigurationError` if waiting will not help:
        wrong credentials, or no replica set.
        """
        await self.check()
        try:
            with translated():
                await self.conversations.create_indexes(CONVERSATION_INDEXES)
                await self.messages.create_indexes(MESSAGE_INDEXES)
                await self.tickets.create_indexes(TICKET_INDEXES)
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

    async def ping(self) -> None:
        """Raises `StorageUnavailable` unless the database answers."""
        with translated():
            await self._database.command("ping")

    async def transaction(self, body: Callable[[Any], Awaitable[T]]) -> T:
        """Run `body(session)` in a transaction; begun again as a whole on a conflict, and while its result is unknown.

        So `body` makes its ids beforehand, and takes a duplicate `_id` for its own earlier success. Raises
        `StorageUnavailable` when the result cannot be known in time; it may have succeeded, or still do.
        """
        # A task of its own: cancelling a write does not take it back, and a session is closed in its own time.
        task = asyncio.create_task(self._transaction(body))
        self._transactions.add(task)
        task.add_done_callback(self._forget)
        await asyncio.wait((task,), timeout=TRANSACTION_TIMEOUT_SECONDS)
        if not task.done():
            raise StorageUnavailable
        return task.result()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._transactions.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has seen it, or has been told that the result is unknown

    async def _transaction(self, body: Callable[[Any], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TRANSACTION_RETRY_SECONDS
        with translated():
            async with await self._client.start_session() as session:
                while True:
                    try:
                        async with session.start_transaction():
                            return await body(session)
                    except PyMongoError as exc:
                        if not _may_be_repeated(exc) or loop.time() >= deadline:
                            raise
                    await asyncio.sleep(TRANSACTION_RETRY_PAUSE)

    def watch(self, pipeline: list[Document], max_await_ms: int) -> Any:
        """A change stream over the database: asynchronous context manager and iterator. Raises the driver's errors."""
        return self._database.watch(pipeline, max_await_time_ms=max_await_ms)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
