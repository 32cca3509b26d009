"""Runs processes on their own cores, measures their CPU time and memory, and describes the machine. Needs Linux's
``/proc``.
"""

import contextlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from chatstream.errors import ChatstreamError
from scripts.benchmark import build

# A program that prints versions, run by another environment's Python.
_VERSIONS = """
import json, sys
from importlib.metadata import version
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""
_PAGE = os.sysconf("SC_PAGE_SIZE")


class BenchError(ChatstreamError):
    """A measurement failed; the text names the reason."""


def split_cores() -> tuple[set[int], set[int]]:
    """The server's core, and the cores for everything else. On a machine with one core, both are this core."""
    cores = sorted(os.sched_getaffinity(0))
    return {cores[0]}, set(cores[1:]) or {cores[0]}


def describe() -> dict[str, Any]:
    """Describe the machine, and the versions of the measured programs."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.*)", cpuinfo)
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    names = ("tornado", "motor", "pymongo", "openai", "httptools", "msgspec", "uvloop")
    others = ("fastapi", "sse-starlette", "uvicorn", "uvloop", "httptools", "openai", "aiohttp", "pymongo")
    node = _output(str(build.NODE), "--version")
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory[1]) / 2**20, 1) if memory else None,
        "system": platform.platform(),
        "versions": {
            "chatstream": {"revision": _output("git", "describe", "--always", "--dirty")}
            | {"python": platform.python_version()}
            | _versions(Path(sys.executable), names),
            "nestjs": {"node": node} | _locked(build.NESTJS, ("@nestjs/core", "openai", "mongodb", "rxjs")),
            "express": {"node": node} | _locked(build.EXPRESS, ("express", "openai", "mongodb")),
            "fastapi": {"python": platform.python_version()} | _versions(build.PYTHON, others),
        },
    }


def _locked(package: Path, names: Sequence[str]) -> dict[str, str]:
    lock = json.loads((package / "package-lock.json").read_text())["packages"]
    return {name: lock[f"node_modules/{name}"]["version"] for name in names}


def _versions(python: Path, names: Sequence[str]) -> dict[str, str]:
    return dict(json.loads(_output(str(python), "-c", _VERSIONS, *names)))


def _output(*command: str) -> str:
    done = subprocess.run(command, cwd=build.ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    return done.stdout.strip()


@contextlib.contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Within this context, started processes run on `cores`, for their whole life."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def get(url: str, timeout: float = 10) -> bytes:
    """The body of a response with status 200; raises `OSError` for anything else."""
    with urllib.request.urlopen(url, timeout=timeout) as response:  # noqa: S310 - loopback
        return bytes(response.read())


def _ending_with_us() -> list[str]:
    """A command prefix: the command after it is ended if this process is killed (Linux, ``prctl(2)``)."""
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


class Process:
    """A program that is ended with the context. Measurements include all its child processes."""

    def __init__(
        self, command: Sequence[str | Path], environment: Mapping[str, str], cores: set[int], log: Path, cwd: Path
    ) -> None:
        self.log = log
        self.started_at = time.monotonic()
        with log.open("ab") as output, on(cores):
            self._process = subprocess.Popen(  # noqa: S603 - ours
                [*_ending_with_us(), *map(str, command)],
                cwd=cwd,
                env={"PATH": os.environ["PATH"], **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(5)  # chatstream waits for open streams, which do not matter any more
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @contextlib.contextmanager
    def moved(self, cores: set[int]) -> Iterator[None]:
        """Within this context, the program runs on other cores; only for a single thread."""
        before = os.sched_getaffinity(self._process.pid)
        os.sched_setaffinity(self._process.pid, cores)
        try:
            yield
        finally:
            os.sched_setaffinity(self._process.pid, before)

    def wait_for(self, url: str, timeout: float = 60) -> float:
        """Seconds from the start to the first response with status 200. Raises `BenchError`."""
        while time.monotonic() < self.started_at + timeout:
            if self._process.poll() is not None:
                raise BenchError(f"It ended at its start; {self.log} says why.")
            with contextlib.suppress(OSError):
                get(url, timeout=5)
                return time.monotonic() - self.started_at
            time.sleep(0.001)  # the server sends no signal when it is ready
        raise BenchError(f"It was not ready within {timeout:g} s; {self.log} says why.")

    def _tree(self) -> list[Path]:
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parents.setdefault(int(_stat(entry)[1]), []).append(int(entry.name))
        pids = [self._process.pid]
        for pid in pids:
            pids += parents.get(pid, [])
        return [Path(f"/proc/{pid}") for pid in pids]

    def cpu(self) -> float:
        """The CPU time so far, in seconds, exact to the nanosecond; `/proc` counts in steps of ten milliseconds."""
        total = 0.0
        for process in self._tree():
            with contextlib.suppress(OSError):
                # The id of a process's CPU clock, computed as by clock_getcpuclockid(3).
                total += time.clock_gettime(~int(process.name) << 3 | 2)
        return total

    def memory(self) -> int:
        """The resident memory, in bytes."""
        total = 0
        for process in self._tree():
            with contextlib.suppress(OSError):
                total += int((process / "statm").read_text().split()[1]) * _PAGE
        return total


def _stat(process: Path) -> list[str]:
    """The fields of ``/proc/PID/stat`` after the name, which may have spaces."""
    return (process / "stat").read_text().rpartition(")")[2].split()
