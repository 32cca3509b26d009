"""Starts servers and commands by forking a process that has already loaded all modules.

Loading a server's modules takes two seconds of CPU time under coverage: more than the rest of most tests. A
forked one is a process of its own as any other, with its own environment, directory, output, session and sockets, and
begins where ``python -m chatstream`` begins. Tests of the start itself start a new Python: each command has such a test
(tests/test_main.py, tests/scenarios/test_installation.py).

This file is also the program that forks: one for each of the test processes. Between it and each server is a process
that only waits for the server's end, and reports the exit status.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NoReturn

_REPOSITORY = Path(__file__).parents[2]
# The modules that a ready server with a model has loaded. A missing one only costs time.
_MODULES = (
    "chatstream.commands.preflight",
    "chatstream.llm.demo",
    "chatstream.llm.models_file",
    "chatstream.llm.openai_model",
    "chatstream.plugins.bets",
    "chatstream.plugins.bets.reader",
    "chatstream.seeding.chats",
    "chatstream.seeding.exports",
    "chatstream.seeding.files",
    "chatstream.seeding.storing",
    "chatstream.server",
    "chatstream.store.embedded",
    "chatstream.web",
    "faker",
    "openai.resources.chat",
    "tqdm",
    "uvloop",
)
# Prefixes of variables that Python or the C library reads only when a process starts.
_READ_AT_THE_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_", "TZ")
_LONGEST_REQUEST = 1_000_000
# Prefixes of the variables that turn on coverage, which a process begins to measure when it starts.
COVERAGE = ("COVERAGE", "COV_")


class Forked:
    """A forked process, with the used part of `subprocess.Popen`'s interface."""

    def __init__(self, told: socket.socket) -> None:
        self._told = told.makefile("r")
        told.close()
        self.pid = int(self._told.readline())
        self.returncode: int | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        with self._told:
            self.returncode = int(self._told.readline())
        self._ended.set()

    def poll(self) -> int | None:
        """The exit status; None while the process runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; returns the exit status. Raises `subprocess.TimeoutExpired`."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(["chatstream"], timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # the process has just ended
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Preloaded:
    """The process that forks. It is started at its first use."""

    def __init__(self, coverage: Mapping[str, str]) -> None:
        """`coverage`: the variables that turn it on, or none."""
        self._environment = coverage
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    def can_start(self, environment: Mapping[str, str]) -> bool:
        """Whether a forked process with this environment behaves like a Python started with it."""
        coverage = {name: value for name, value in environment.items() if name.startswith(COVERAGE)}
        return coverage == self._environment and not any(
            name.startswith(_READ_AT_THE_START) for name in environment if name != "PYTHONPATH"
        )

    def start(
        self,
        directory: Path,
        environment: Mapping[str, str],
        output: IO[bytes],
        log: IO[bytes],
        *arguments: str,
    ) -> Forked:
        """Start ``python -m chatstream`` with these arguments in `directory`."""
        if self._requests is None:
            self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.support.preloaded"],
                    cwd=_REPOSITORY,
                    env={"PATH": os.environ["PATH"], **self._environment},
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
        told, theirs = socket.socketpair()
        with theirs:
            request = json.dumps([str(directory), dict(environment), arguments]).encode()
            socket.send_fds(self._requests, [request], [output.fileno(), log.fileno(), theirs.fileno()])
        return Forked(told)

    def close(self) -> None:
        """End this process, by closing its channel. The servers keep running."""
        if self._requests is not None and self._process is not None:
            self._requests.close()
            assert self._process.wait(60) == 0


def _main() -> None:
    for name in ("chatstream.__main__", *_MODULES):
        importlib.import_module(name)
    # There must be only one thread: a fork does not copy the other threads.
    assert len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208 - counted, not used
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the intermediate processes leave no zombies
    with socket.socket(fileno=os.dup(0)) as requests:
        while True:
            request, descriptors, _, _ = socket.recv_fds(requests, _LONGEST_REQUEST, 3)
            if not request:
                return
            if os.fork() == 0:
                requests.close()
                _mind(*json.loads(request), *descriptors)
            for descriptor in descriptors:
                os.close(descriptor)


def _mind(directory: str, environment: dict[str, str], arguments: list[str], output: int, log: int, told: int) -> None:
    """Fork the requested process; report its pid and its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(told)
        _run(directory, environment, arguments, output, log)
    os.close(output)
    os.close(log)
    os.write(told, f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    os.write(told, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _run(directory: str, environment: dict[str, str], arguments: list[str], output: int, log: int) -> NoReturn:
    """Run the program, as Python does for ``python -m chatstream``."""
    os.setsid()
    os.chdir(directory)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    for descriptor, standard in ((output, 1), (log, 2)):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    main = importlib.import_module("chatstream.__main__")
    sys.argv[:] = [str(main.__file__), *arguments]
    # The first one is the repository, where this program was started.
    sys.path[:1] = [directory, *environment.get("PYTHONPATH", "").split(os.pathsep)]
    sys.exit(main.main())


if __name__ == "__main__":
    _main()
