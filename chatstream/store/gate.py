"""Limits how many database operations run at once and how long each waits. Every operation passes this gate.

motor runs each operation in one of a few threads. If the database stops, each thread is busy until the driver gives up,
and the operations in the queue behind them would wait for minutes. So:

- The gate lets in as many operations as there are threads. It refuses one that has waited for `_LONGEST_WAIT`. A
  request's second and later operations, and those of running answers, go before the first operations of requests.
- The operations of one request share a deadline (see `answer_within`) that includes waiting and running.
- After an operation times out, or a connection or heartbeat is lost, the gate sends one ping (the probe). If the answer
  does not come at once, the gate refuses all operations until it comes.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

from pymongo.errors import ConnectionFailure, ExecutionTimeout, PyMongoError

from chatstream.errors import ChatstreamError, StorageUnavailable
from chatstream.logs import describe

log = logging.getLogger("chatstream.store")

Document = dict[str, Any]
T = TypeVar("T")

# Longest wait at the gate, in seconds. With the driver's 2 s for the operation itself, that is less than the 5 s within
# which each request is answered.
_LONGEST_WAIT = 1.5
# Time limit in seconds, waiting included, for an operation outside of a request.
_DEADLINE = 4.0
# While a probe runs, operations wait this many seconds for its result; a healthy database answers within milliseconds.
_PATIENCE = 0.25
# Time limit of the first probe, in seconds: less than the 3 s within which `/readyz` answers. Later probes may take as
# long as any operation, since they may have to connect to a slow database. After each failed probe there is a pause.
_FIRST_PROBE = 1.0
_LATER_PROBE = 2.0
_PROBE_PAUSE = 0.5
# Documents per request when a cursor is iterated, unless `batch_size` was called.
_BATCH = 101


class _Request:
    """The state that the operations of one request share: the deadline, and whether one has passed the gate."""

    def __init__(self, task: "asyncio.Task[Any] | None", seconds: float) -> None:
        self.task = task
        self.seconds = seconds
        self.deadline: float | None = None
        self.let_in = False


_request: ContextVar[_Request | None] = ContextVar("chatstream_store_request", default=None)


def answer_within(seconds: float | None) -> None:
    """Set one deadline for all operations of the current task: `seconds` after the first one starts. None: no deadline.

    Tasks that the current task starts do not inherit the deadline, as they may have to run longer.
    """
    _request.set(None if seconds is None else _Request(asyncio.current_task(), seconds))


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors that mean "no answer now" into `StorageUnavailable`. Others are bugs: they pass."""
    try:
        yield
    except PyMongoError as exc:
        if _will_pass(exc):
            raise StorageUnavailable from exc
        raise


def _will_pass(exc: PyMongoError) -> bool:
    # A failover shows in many codes; the driver labels what may be tried again.
    known = exc.timeout or exc.has_error_label("RetryableWriteError") or may_be_repeated(exc)
    return known or isinstance(exc, ConnectionFailure | ExecutionTimeout)


def may_be_repeated(exc: PyMongoError) -> bool:
    """Whether a transaction that failed with this error can be repeated."""
    return exc.has_error_label("TransientTransactionError") or exc.has_error_label("UnknownTransactionCommitResult")


class Gate:
    """Runs the database operations of one process, a limited number at a time. See `run`."""

    def __init__(self, ping: Callable[[float], Awaitable[object]], places: int) -> None:
        """`ping(seconds)` pings the database with that time limit. At most `places` operations run at once."""
        self._ping = ping
        self._free = places
        self._begun: deque[asyncio.Future[bool]] = deque()  # two queues: requests that have begun ...
        self._fresh: deque[asyncio.Future[bool]] = deque()  # ... go before new requests
        self._loop: asyncio.AbstractEventLoop | None = None
        self._probing: asyncio.Task[None] | None = None
        self._known: asyncio.Future[bool] | None = None  # while a probe runs: its result

    async def run(self, operation: Callable[[], Awaitable[T]], *, seconds: float = _DEADLINE) -> T:
        """Run the operation and return its result. Raises `StorageUnavailable` after `seconds` at the latest.

        The operation then goes on in its thread and may still succeed: a write cannot be undone, a thread not be ended.
        """
        self._loop = loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        request = _request.get()
        if request is not None and request.task is not asyncio.current_task():
            request = None
        if request is not None:
            if request.deadline is None:
                request.deadline = loop.time() + request.seconds
            deadline = min(deadline, request.deadline)
        if self._known is None and self._free:
            self._free -= 1
        else:
            await self._enter(deadline, fresh=request is not None and not request.let_in)
        if request is not None:
            request.let_in = True
        try:
            running = asyncio.ensure_future(operation())
        except BaseException:
            self._leave()
            raise
        running.add_done_callback(self._ended)
        try:
            if not await _done_by(running, deadline):
                raise StorageUnavailable
            return running.result()
        except PyMongoError as exc:
            if _will_pass(exc):  # as in `translated`, without a context manager for each operation
                raise StorageUnavailable from exc
            raise
        finally:
            if not running.done():
                running.add_done_callback(_log_fault)

    async def ping(self) -> None:
        """Raises `StorageUnavailable` if the database does not answer. The gate then refuses all operations as well."""
        self._loop = asyncio.get_running_loop()
        if self._known is None and await self._answers(_FIRST_PROBE):
            return
        await self._decided(self.doubt())

    def doubt(self) -> "asyncio.Future[bool]":
        """Start a probe, because the database may be gone; operations wait for it. The result: whether the database
        answered.
        """
        if self._known is None:
            loop = asyncio.get_running_loop()
            self._known = loop.create_future()
            self._probing = loop.create_task(self._probe(self._known))
            loop.call_later(_PATIENCE, self._close, self._known)
        return self._known

    def doubt_from_thread(self) -> None:
        """`doubt`, for the driver's monitoring threads."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.doubt)

    def close(self) -> None:
        """Stop probing."""
        self._loop = None
        if self._probing is not None:
            self._probing.cancel()

    async def _enter(self, deadline: float, *, fresh: bool) -> None:
        if self._known is not None:
            await self._decided(self._known)
        if self._free:
            self._free -= 1
            return
        loop = asyncio.get_running_loop()
        place: asyncio.Future[bool] = loop.create_future()
        (self._fresh if fresh else self._begun).append(place)
        try:
            await _done_by(place, min(deadline, loop.time() + _LONGEST_WAIT))
        except asyncio.CancelledError:
            if place.done() and place.result():
                self._leave()
            raise
        finally:
            if not place.done():
                place.set_result(False)  # `_leave` skips a future that is done
        if not place.result():
            raise StorageUnavailable

    def _leave(self) -> None:
        """Give this operation's slot to the next waiting operation; if none waits, free the slot."""
        for queue in (self._begun, self._fresh):
            while queue:
                place = queue.popleft()
                if not place.done():
                    place.set_result(True)
                    return
        self._free += 1

    def _ended(self, running: "asyncio.Future[Any]") -> None:
        self._leave()
        exc = None if running.cancelled() else running.exception()
        if (
            self._loop is not None
            and isinstance(exc, PyMongoError)
            and (isinstance(exc, ConnectionFailure) or exc.timeout)
        ):
            self.doubt()

    async def _decided(self, known: "asyncio.Future[bool]") -> None:
        if not await asyncio.shield(known):
            raise StorageUnavailable

    def _close(self, known: "asyncio.Future[bool]") -> None:
        """Refuse all operations from now on, also the waiting ones."""
        if known.done():
            return
        known.set_result(False)
        log.warning("the database does not answer: everything that needs it is refused until it does")
        for queue in (self._begun, self._fresh):
            while queue:
                if not (place := queue.popleft()).done():
                    place.set_result(False)

    async def _probe(self, known: "asyncio.Future[bool]") -> None:
        """Ping until the database answers."""
        seconds = _FIRST_PROBE
        while not await self._answers(seconds):
            self._close(known)
            seconds = _LATER_PROBE
            await asyncio.sleep(_PROBE_PAUSE)
        if known.done():
            log.info("the database answers again")
        else:
            known.set_result(True)
        self._known = self._probing = None

    async def _answers(self, seconds: float) -> bool:
        asking = asyncio.ensure_future(self._ping(seconds))
        await asyncio.wait((asking,), timeout=seconds)
        if not asking.done():
            asking.add_done_callback(_log_fault)
            return False
        return not isinstance(asking.exception(), PyMongoError)


async def _done_by(future: "asyncio.Future[Any]", deadline: float) -> bool:
    """Wait for the future until `deadline` on the loop's clock, without cancelling it. Returns whether it is done.

    Like `asyncio.wait`, at half of its cost. Every operation waits here.
    """
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake(_: object) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = loop.call_at(deadline, wake, None)
    future.add_done_callback(wake)  # the callback may stay on the future: called later, it does nothing
    try:
        await waiter
    finally:
        timer.cancel()
    return future.done()


def _log_fault(abandoned: "asyncio.Future[Any]") -> None:
    """Log an unexpected exception of an operation whose caller no longer waits for it."""
    if abandoned.cancelled():
        return
    exc = abandoned.exception()
    if isinstance(exc, Exception) and not isinstance(exc, ChatstreamError | PyMongoError):
        log.error("an operation failed after its caller had left: %s", describe(exc))


class Collection:
    """A motor collection whose operations pass the gate. A transaction passes once, with all its operations."""

    def __init__(self, gate: Gate, collection: Any) -> None:
        self._gate = gate
        self._collection = collection

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        """An operation of motor's that returns an awaitable."""
        method, gate = getattr(self._collection, name), self._gate

        def operation(*args: Any, **options: Any) -> Awaitable[Any]:
            if options.get("session") is not None:
                awaitable: Awaitable[Any] = method(*args, **options)
                return awaitable
            return gate.run(lambda: method(*args, **options))

        return operation

    @property
    def in_thread(self) -> Any:
        """pymongo's own collection, whose operations block; for `Mongo.in_thread`."""
        return self._collection.delegate

    def find(self, *args: Any, **options: Any) -> "Cursor":
        """Like motor's."""
        return Cursor(self._gate, self._collection.find(*args, **options))

    def aggregate(self, *args: Any, **options: Any) -> "Cursor":
        """Like motor's."""
        return Cursor(self._gate, self._collection.aggregate(*args, **options))

    def with_options(self, **options: Any) -> "Collection":
        """Like motor's."""
        return Collection(self._gate, self._collection.with_options(**options))


class Cursor:
    """A motor cursor. Each batch that it reads passes the gate."""

    def __init__(self, gate: Gate, cursor: Any) -> None:
        self._gate = gate
        self._cursor = cursor
        self._batch = _BATCH

    def sort(self, *by: Any) -> "Cursor":
        """Like motor's."""
        self._cursor.sort(*by)
        return self

    def limit(self, limit: int) -> "Cursor":
        """Like motor's."""
        self._cursor.limit(limit)
        return self

    def hint(self, index: Any) -> "Cursor":
        """Like motor's."""
        self._cursor.hint(index)
        return self

    def batch_size(self, size: int) -> "Cursor":
        """Like motor's."""
        self._cursor.batch_size(size)
        self._batch = size
        return self

    def to_list(self, length: int | None) -> Awaitable[list[Document]]:
        """The next `length` documents, or all."""
        return self._gate.run(lambda: self._cursor.to_list(length))

    async def __aiter__(self) -> AsyncIterator[Document]:
        while batch := await self.to_list(self._batch):
            for document in batch:
                yield document
