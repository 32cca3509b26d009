"""``chatstream --processes N``: runs N servers, its *workers*, behind one port, one for each core.

All workers listen on the shared port, and the kernel spreads connections over them (``SO_REUSEPORT``). Each also
listens on a port of its own, for a proxy that sends a conversation to the same worker every time.

- The first worker starts alone, so that a fault in the settings is reported once. If a worker cannot start, the whole
  command ends.
- A worker that ends later is started again. If it keeps ending, the pauses before each start grow.
- At SIGINT, SIGTERM or SIGHUP all workers drain at the same time; a second SIGINT or SIGTERM ends them at once. The
  shared port is given up at the first, so that a new server can serve there meanwhile. A worker that hangs is killed a
  minute after its drain should have ended.
- A worker shares a socket with this process, and drains when that is closed: at such a signal, or because this process
  was killed. We send it no SIGTERM: whoever told each process of a group to end has sent it one already, and it would
  take ours for the second. That is also why it does not count the closed socket as a signal.
- The embedded database belongs to this process: a worker that ends leaves it running.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace

from tornado.netutil import bind_sockets

from chatstream import auth, logs
from chatstream.errors import ConfigurationError
from chatstream.settings import Settings
from chatstream.summary import address
from chatstream.worker import Worker

log = logging.getLogger("chatstream.supervisor")

# Seconds of pause before a worker is started again for the second time in a row; doubled each further time, up to the
# longest. Before the first restart there is no pause: the cause of the end may not come again.
_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
# Seconds of service after which a worker counts as healthy: if it ends later, the count of ends in a row begins again.
_PROVED = 60.0
# If every worker has ended this often in a row, and none is left, the supervisor ends, too: then systemd or the
# container's runtime sees that it does not serve. With the pauses this takes half a minute.
_MOST_ENDS = 6
# Seconds that a worker has to end, after the answers' time to finish: its other steps take at most ten seconds each.
# One that takes longer hangs, and is killed: the command and its database would wait for it for ever.
_END_SECONDS = 60.0


def run(settings: Settings, notes: Sequence[str], command: Sequence[str]) -> int:
    """Run the workers until a signal ends them; return the exit status. Raises `ConfigurationError`.

    `command` starts a worker; `Worker.argument` is added to it. `notes` are log lines about the settings.
    """
    return asyncio.run(Supervisor(settings, notes, command).run())


class Supervisor:
    """Starts the workers, and restarts those that end."""

    def __init__(
        self, settings: Settings, notes: Sequence[str], command: Sequence[str], *, pause: float = _PAUSE
    ) -> None:
        self._settings = settings
        self._notes = notes
        self._command = command
        self._pause = pause
        # By the worker's number: its process, and our end of the socket.
        self._running: dict[int, tuple[asyncio.subprocess.Process, socket.socket]] = {}
        self._ends_in_a_row: dict[int, int] = {}
        self._ready: set[int] = set()  # workers that have served, until all have
        self._go_on = asyncio.Event()  # the first worker serves, or the end has begun
        self._ending = asyncio.Event()
        self._signalled = False  # by SIGINT or SIGTERM
        self._reservation = contextlib.ExitStack()  # closes the sockets that hold the shared port
        self._status = 0

    async def run(self) -> int:
        """Run until a signal ends the workers; return the exit status. Raises `ConfigurationError`."""
        settings = self._settings
        logs.configure(settings.log_format, settings.log_level)
        for note in self._notes:
            log.warning("%s", note)
        if settings.verifies_with_secret:
            auth.secret(settings, make=True)  # otherwise each worker would make its own secret
        with contextlib.ExitStack() as self._reservation, self._signals():
            port = _reserve(self._reservation, settings)
            async with _embedded_database(settings) as database:
                await self._keep_all(port, database)
        log.info("stopped")
        return self._status

    async def _keep_all(self, port: int, database: str | None) -> None:
        count = self._settings.processes
        async with asyncio.TaskGroup() as kept:
            for number in range(1, count + 1):
                kept.create_task(self._keep(Worker(number, count, port, database, is_first=number == 1)))
                await self._go_on.wait()

    async def _keep(self, worker: Worker) -> None:
        """Run a worker, and run it again if it ends before it should."""
        while not self._ending.is_set():
            try:
                returncode, served = await self._run(worker)
            except OSError as exc:  # no memory or no more processes: a later start may succeed
                log.error("process %d of %d cannot be started: %s", worker.number, worker.count, exc.strerror)
                returncode, served = 1, 0.0
            if self._ending.is_set():
                self._status = self._status or int(returncode not in (0, -signal.SIGTERM))
            elif len(self._ready) < worker.count:
                self._fail(worker, returncode)
            else:
                before = 0 if served >= _PROVED else self._ends_in_a_row.get(worker.number, 0)
                self._ends_in_a_row[worker.number] = before + 1
                await self._after_an_end(worker, returncode)
            worker = replace(worker, is_first=False)

    async def _run(self, worker: Worker) -> tuple[int, float]:
        """Run a worker to its end. Returns its exit status, and how many seconds it has served. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            with theirs:
                # A session of its own: Ctrl-C in the terminal reaches only this process, which passes the signal on
                # once.
                process = await asyncio.create_subprocess_exec(
                    *self._command, worker.argument, stdin=theirs.fileno(), start_new_session=True
                )
            self._running[worker.number] = process, ours
            if self._ending.is_set():  # the signal came while it was being started
                _drain(ours)
            ready_at = None
            if await loop.sock_recv(ours, 1):
                ready_at = loop.time()
                self._serves(worker)
            returncode = await process.wait()
            del self._running[worker.number]
            return returncode, 0.0 if ready_at is None else loop.time() - ready_at

    def _serves(self, worker: Worker) -> None:
        if worker.number in self._ready:
            log.warning("process %d of %d serves again", worker.number, worker.count)
            return
        self._ready.add(worker.number)
        self._go_on.set()
        if len(self._ready) == worker.count:
            log.info("%d processes serve on %s", worker.count, address(self._settings.host, worker.port))

    def _fail(self, worker: Worker, returncode: int) -> None:
        """A worker ended before all were ready. A positive exit status means that the worker has printed the reason."""
        if returncode <= 0:
            log.error("process %d of %d ended at its start (%s)", worker.number, worker.count, _how(returncode))
        self._status = max(returncode, 1)
        self._end()

    async def _after_an_end(self, worker: Worker, returncode: int) -> None:
        """Wait until it is time to start the worker again; or give up."""
        if not self._running and min(self._ends_in_a_row.get(number, 0) for number in self._ready) >= _MOST_ENDS:
            log.critical(
                "none of the %d processes serves, and each has ended %d times in a row (the last: %s); giving up",
                *(worker.count, _MOST_ENDS, _how(returncode)),
            )
            self._status = 1
            self._end()
            return
        in_a_row = self._ends_in_a_row[worker.number]
        pause = 0 if in_a_row == 1 else min(self._pause * 2 ** (in_a_row - 2), _LONGEST_PAUSE)
        log.error(
            "process %d of %d has ended (%s); it is started again%s",
            *(worker.number, worker.count, _how(returncode), f" in {pause:g} s" if pause else ""),
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), pause)

    def _end(self) -> None:
        """Let the workers drain. A second call changes nothing."""
        if not self._ending.is_set():
            asyncio.get_running_loop().call_later(self._settings.drain_timeout + _END_SECONDS, self._kill_hanging)
        self._ending.set()
        self._go_on.set()
        self._reservation.close()
        for _, channel in self._running.values():
            _drain(channel)

    def _told_to_end(self) -> None:
        """Let the workers drain; at the second call, end them at once: nothing is saved."""
        if self._signalled:
            self._kill()
        self._signalled = True
        self._end()

    def _kill_hanging(self) -> None:
        for number in self._running:
            log.error("process %d of %d does not end; it is killed", number, self._settings.processes)
        self._kill()

    def _kill(self) -> None:
        for process, _ in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers = {signal.SIGINT: self._told_to_end, signal.SIGTERM: self._told_to_end}
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which `nohup` asks for
            handlers[signal.SIGHUP] = self._end  # a terminal that is closed may send it twice
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)


def command(arguments: Sequence[str]) -> list[str]:
    """The command that starts this program again with other arguments, in the same Python."""
    # -P keeps the working directory off Python's path, unless this program itself was found there.
    found_there = "-m" in sys.orig_argv and not sys.flags.safe_path
    return [sys.executable, *([] if found_there else ["-P"]), "-m", "chatstream", *arguments]


def _reserve(stack: contextlib.ExitStack, settings: Settings) -> int:
    """Reserve the shared port until `stack` is closed, while workers end and start. Returns its number.

    The sockets are bound and do not listen: they get no connections. Only this user's sockets that share the port, as
    the workers' do, can be bound to it, too. Raises `ConfigurationError` if another server listens on the port: the
    workers would not notice that.
    """
    try:
        for probe in bind_sockets(settings.port, settings.host):
            with probe:
                family, where = probe.family, probe.getsockname()
            held = stack.enter_context(socket.socket(family))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # A server that did not share the port leaves connections for a minute, which refuse a bind without this
            # option. With it on the bound socket, any other server could bind and listen there.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(where)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except (OSError, UnicodeError) as exc:
        reason = getattr(exc, "strerror", None) or "there is no such host"
        raise ConfigurationError(
            f"Cannot listen on {address(settings.host, settings.port)}: {reason}. "
            "Set CHATSTREAM_PORT or CHATSTREAM_HOST."
        ) from exc
    return int(where[1])


@contextlib.asynccontextmanager
async def _embedded_database(settings: Settings) -> AsyncIterator[str | None]:
    if not settings.uses_embedded_database:
        yield None
        return
    from chatstream.store.embedded import embedded_mongod

    async with embedded_mongod(settings.data_dir) as uri:
        yield uri


def _drain(channel: socket.socket) -> None:
    """Tell the worker at the other end to drain. It can still send that it serves."""
    with contextlib.suppress(OSError):  # it has ended
        channel.shutdown(socket.SHUT_WR)


def _how(returncode: int) -> str:
    return f"killed by signal {-returncode}" if returncode < 0 else f"exit status {returncode}"
