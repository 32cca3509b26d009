"""Whole processes: the server under test, and a real mongod that outlives the tests of a session."""

import asyncio
import contextlib
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import httpx

from chatstream.settings import SECRET_FILE
from tests.support import confidential
from tests.support.preloaded import COVERAGE, Forked, Preloaded

REPOSITORY = Path(__file__).parents[2]
SECRET = "a-secret-for-tests-of-thirty-two-bytes-or-more"

_MONGOD = """
import asyncio, sys
from pathlib import Path
from chatstream.store.embedded import embedded_mongod

async def main():
    async with embedded_mongod(Path(sys.argv[1])) as uri:
        print(uri, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""


# The ports for tests. They are below those for outgoing connections, which could take a port between its choice and its
# use. Each test process (pytest-xdist) has its own part of the range.
_PORTS = range(12_000, 32_000)
_PORTS_PER_WORKER = 1_000


def free_port(above: int = 0) -> int:
    """A free port of 127.0.0.1, with this many free ports above it."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = _PORTS[worker * _PORTS_PER_WORKER : (worker + 1) * _PORTS_PER_WORKER]
    while True:
        port = random.choice(own)  # noqa: S311 - a port is no secret
        if all(map(_is_free, range(port, port + above + 1))):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as sock, contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        return True
    return False


def without_tls() -> ssl.SSLContext:
    """What httpx's clients of servers without TLS verify with: nothing. Otherwise each client would load all
    certificate authorities, which takes 50 ms of CPU time: more than most tests.
    """
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@contextlib.contextmanager
def mongod(data_dir: Path) -> Iterator[str]:
    """A mongod in a process of its own; yields its URI."""
    process = subprocess.Popen(
        [sys.executable, "-c", _MONGOD, str(data_dir)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        uri = process.stdout.readline().strip()
        assert uri, "mongod did not start"
        yield uri
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


def measured() -> dict[str, str]:
    """The environment variables that turn on coverage, for a process that inherits no others."""
    return {name: value for name, value in os.environ.items() if name.startswith(COVERAGE)}


class ServerProcess:
    """A process ``python -m chatstream`` with only the given environment."""

    preloaded: ClassVar[list[Preloaded]] = []
    """What starts those that have no command of their own, if it can."""

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        port: int | None = None,
        command: Sequence[str] | None = None,
        *,
        measure: bool = True,
    ) -> None:
        """`measure`: its coverage, which takes a third more CPU time."""
        self._command = command
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = directory / f"server-{self.port}.log"
        self.output_path = directory / f"server-{self.port}.out"
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "CHATSTREAM_PORT": str(self.port),
            **(measured() if measure else {}),
            **environment,
        }
        self._directory = directory
        self.process: subprocess.Popen[bytes] | Forked | None = None

    def start(self) -> "ServerProcess":
        """Start it; see `wait_until_ready`."""
        with self.log_path.open("ab") as log, self.output_path.open("ab") as output:
            preloaded = _preloaded_for(self._environment) if self._command is None else None
            if preloaded:
                self.process = preloaded.start(self._directory, self._environment, output, log)
                return self
            self.process = subprocess.Popen(
                self._command or (sys.executable, "-m", "chatstream"),
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                start_new_session=True,
            )
        return self

    def wait_until_ready(self, timeout: float = 60) -> "ServerProcess":
        """Poll ``/readyz`` until the server is ready."""
        assert self.process is not None
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the server ended:\n{self.log}"
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                urllib.request.urlopen(f"{self.url}/readyz", timeout=5).close()
                return self
            time.sleep(0.05)  # between two polls; there is no event to wait for in another process
        raise AssertionError(f"the server is not ready:\n{self.log}")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout: float = 60) -> int:
        """Wait for the end; returns the exit status."""
        assert self.process is not None
        return self.process.wait(timeout)

    async def ended(self, timeout: float = 60) -> int:
        """Like `wait`, in a coroutine."""
        return await asyncio.to_thread(self.wait, timeout)

    async def kill(self) -> None:
        """End it at once, and wait for its end: until then its port is in use."""
        self.signal(signal.SIGKILL)
        await self.ended()

    def stop(self) -> int:
        """Stop the server with SIGTERM; returns the exit status. Fails if its metrics or log contain anything
        confidential.
        """
        if self.process is None:
            return 0
        metrics = self._metrics()
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.wait(60)
            finally:
                self.process.kill()
        confidential.check(metrics, "the metrics", also=self._secrets())
        confidential.check(self.log, "the log", also=self._secrets())
        return self.wait()

    def _metrics(self) -> str:
        """The text of ``/metrics``; empty if the server does not respond."""
        port = self._environment.get("CHATSTREAM_METRICS_PORT", self.port)
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5, verify=without_tls()).text
        return ""

    def _secrets(self) -> list[str]:
        """The secrets of this server's environment."""
        own = Path(self._directory, self._environment.get("CHATSTREAM_DATA_DIR", "var"), SECRET_FILE)
        configured = ("JWT_SECRET", "OPENAI_API_KEY", "CHATSTREAM_SYSTEM_PROMPT")
        return [
            *(self._environment.get(name, "") for name in configured),
            *re.findall(r"//[^/]*:(.+)@", self._environment.get("MONGODB_URI", "")),
            own.read_text().strip() if own.exists() else "",
        ]

    @property
    def log(self) -> str:
        """The log so far. A request's line may come after its response: see `logged`."""
        return self.log_path.read_text()

    async def logged(self) -> str:
        """The log, with the lines of all answered requests: a server writes them before it answers another request."""
        # The server may be busy with earlier requests, for example of clients that did not wait for their response.
        async with httpx.AsyncClient(base_url=self.url, timeout=60, verify=without_tls()) as http:
            await http.get("/healthz")
        return self.log

    @property
    def output(self) -> str:
        """The standard output so far."""
        return self.output_path.read_text()


def _preloaded_for(environment: Mapping[str, str]) -> Preloaded | None:
    return next((each for each in ServerProcess.preloaded if each.can_start(environment)), None)


def chatstream(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m chatstream`` with these arguments in this directory, with only the given environment."""
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **measured(), **environment}
    preloaded = _preloaded_for(variables)
    if preloaded is None:
        return subprocess.run(
            [sys.executable, "-m", "chatstream", *arguments],
            cwd=directory,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as log:
        process = preloaded.start(directory, variables, output, log, *arguments)
        try:
            status = process.wait(100)
        finally:
            process.kill()
        for file in (output, log):
            file.seek(0)
        return subprocess.CompletedProcess(arguments, status, output.read().decode(), log.read().decode())


def children(pid: int) -> list[int]:
    """The processes that `pid` started and that still run (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            match = re.match(r"(\d+) \(.*\) \S (\d+)", stat.read_text())
            if match and int(match[2]) == pid:
                found.append(int(match[1]))
    return found
