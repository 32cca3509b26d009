"""The gate that every operation passes on its way to the database, so that nothing waits there without a bound.

motor runs each operation in one of a few threads. If the database stops, each thread is busy until the driver gives up,
and what waits behind them would wait for minutes. So:

- Only as many operations are let in as there are threads for them; what waits for a place longer than `_LONGEST_WAIT`
  is refused. Operations of requests that have begun, and those of running answers, go before the first ones of others.
- The operations of one request share a deadline (see `answer_within`), which counts waiting and running.
- After an operation that timed out, or a lost connection or heartbeat, the database is asked one question (the probe).
  If the answer does not come at once, everything is refused at once, until it does.
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

# In seconds. A request waits so long for its place, and its operation then has the driver's 2 s: less than the 5 s
# within which each request is answered.
_LONGEST_WAIT = 1.5
# Waiting and running together, of an operation that belongs to no request.
_DEADLINE = 4.0
# A healthy database answers the probe within milliseconds. Those who come while it is asked wait this long.
_PATIENCE = 0.25
# What the probe may take: less than the 3 s within which `/readyz` answers. While everything is refused it may take as
# long as any operation, since it may have to open a connection to a slow database; a pause after each that failed.
_FIRST_PROBE = 1.0
_LATER_PROBE = 2.0
_PROBE_PAUSE = 0.5
# Documents that are read at once where a whole result is iterated over, unless the cursor was told otherwise.
_BATCH = 101


class _Request:
    """The operations of one request: their deadline, from the first of them on, and whether one has been let in."""

    def __init__(self, task: "asyncio.Task[Any] | None", seconds: float) -> None:
        self.task = task
        self.seconds = seconds
        self.deadline: float | None = None
        self.let_in = False


_request: ContextVar[_Request | None] = ContextVar("chatstream_store_request", default=None)


def answer_within(seconds: float | None) -> None:
    """Let all operations of the current task together take so long, from the first one on; None: no such deadline.

    It does not hold for tasks that this one starts: they may have to live longer.
    """
    _request.set(None if seconds is None else _Request(asyncio.current_task(), seconds))


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise `StorageUnavailable` for the driver's errors that say "no answer now"; the others are faults of ours."""
    try:
        yield
    except (ConnectionFailure, ExecutionTimeout) as exc:
        raise StorageUnavailable from exc
    except PyMongoError as exc:
        # A failover shows in many codes; the driver labels what may be tried again.
        if exc.timeout or exc.has_error_label("RetryableWriteError") or may_be_repeated(exc):
            raise StorageUnavailable from exc
        raise


def may_be_repeated(exc: PyMongoError) -> bool:
    """Whether a transaction that failed so is to be begun again."""
    return exc.has_error_label("TransientTransactionError") or exc.has_error_label("UnknownTransactionCommitResult")


class Gate:
    """Runs the database operations of one process, a limited number at a time. See `run`."""

    def __init__(self, ping: Callable[[float], Awaitable[object]], places: int) -> None:
        """`ping` asks the database for an answer, for so many seconds; `places` operations may run."""
        self._ping = ping
        self._free = places
        self._begun: deque[asyncio.Future[bool]] = deque()  # who waits for a place: what has begun ...
        self._fresh: deque[asyncio.Future[bool]] = deque()  # ... goes before what has not
        self._loop: asyncio.AbstractEventLoop | None = None
        self._probing: asyncio.Task[None] | None = None
        self._known: asyncio.Future[bool] | None = None  # while it is in doubt: whether the database answers

    async def run(self, operation: Callable[[], Awaitable[T]], *, seconds: float = _DEADLINE) -> T:
        """The operation's result. Raises `StorageUnavailable` at the latest after `seconds`: it may still be done then.

        An operation that has begun is never cut off: a write cannot be taken back, and a thread cannot be ended.
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
        finally:
            if not running.done():
                running.add_done_callback(_log_fault)
        with translated():
            return running.result()

    async def ping(self) -> None:
        """Raises `StorageUnavailable` unless the database answers; until it does, everybody else is refused, too."""
        self._loop = asyncio.get_running_loop()
        if self._known is None and await self._answers(_FIRST_PROBE):
            return
        await self._decided(self.doubt())

    def doubt(self) -> "asyncio.Future[bool]":
        """The database may be gone: ask it, and let nobody in meanwhile. The result is whether it answers at once."""
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
        """Ask no more."""
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
            await asyncio.wait((place,), timeout=min(deadline - loop.time(), _LONGEST_WAIT))
        except asyncio.CancelledError:
            if place.done() and place.result():
                self._leave()
            raise
        finally:
            if not place.done():
                place.set_result(False)  # whoever comes to it passes on
        if not place.result():
            raise StorageUnavailable

    def _leave(self) -> None:
        """Give the place to the next one, or keep it free."""
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
        """Everybody is refused from now on, and who waits, too."""
        if known.done():
            return
        known.set_result(False)
        log.warning("the database does not answer: everything that needs it is refused until it does")
        for queue in (self._begun, self._fresh):
            while queue:
                if not (place := queue.popleft()).done():
                    place.set_result(False)

    async def _probe(self, known: "asyncio.Future[bool]") -> None:
        """Ask until there is an answer."""
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
    """Wait for it until `deadline` on the loop's clock; it goes on if nobody waits any more.

    As `asyncio.wait` does, for two thirds of what that costs: every operation waits here.
    """
    waiter = asyncio.get_running_loop().create_future()

    def wake(_: object) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = waiter.get_loop().call_at(deadline, wake, None)
    future.add_done_callback(wake)
    try:
        await waiter
    finally:
        timer.cancel()
        future.remove_done_callback(wake)
    return future.done()


def _log_fault(abandoned: "asyncio.Future[Any]") -> None:
    """Log an exception that an operation raised after its caller had left, if it is neither the driver's nor ours."""
    if abandoned.cancelled():
        return
    exc = abandoned.exception()
    if isinstance(exc, Exception) and not isinstance(exc, ChatstreamError | PyMongoError):
        log.error("an operation failed after its caller had left: %s", describe(exc))


class Collection:
    """A motor collection, of which all operations pass the gate; those of a transaction have passed with it."""

    def __init__(self, gate: Gate, collection: Any) -> None:
        self._gate = gate
        self._collection = collection

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        """An operation of motor's that returns an awaitable."""
        method = getattr(self._collection, name)

        async def operation(*args: Any, **options: Any) -> Any:
            if options.get("session") is not None:
                return await method(*args, **options)
            return await self._gate.run(lambda: method(*args, **options))

        return operation

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
    """What is found; each batch of it passes the gate."""

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

    async def to_list(self, length: int | None) -> list[Document]:
        """The next `length` documents, or all."""
        return await self._gate.run(lambda: self._cursor.to_list(length))

    async def __aiter__(self) -> AsyncIterator[Document]:
        while batch := await self.to_list(self._batch):
            for document in batch:
                yield document
