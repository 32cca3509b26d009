"""Our two C programs: the model that answers, and the load generator."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from scripts.benchmark import build
from scripts.benchmark.machine import BenchError, Process, get
from tests.support.processes import free_port


class Model(Process):
    """See ``model.c``."""

    def __init__(self, cores: set[int], directory: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__([build.MODEL, str(self.port)], {}, cores, directory / "model.log", directory)

    def configure(self, chunks: int, interval_us: int = 0, first_us: int = 0) -> None:
        """Set the form of the following answers."""
        get(f"{self.url}/configure?chunks={chunks}&interval_us={interval_us}&first_us={first_us}")

    def stats(self) -> dict[str, Any]:
        """See ``model.c``."""
        return dict(json.loads(get(f"{self.url}/stats")))


def _command(port: int, path: str, file: Path, options: dict[str, float]) -> list[str]:
    named = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", f"{value:g}")]
    return [str(build.LOAD), str(port), path, str(file), *named]


def load(port: int, path: str, file: Path, *, timeout: float = 60, **options: float) -> dict[str, Any]:
    """Run a load to its end; see ``load.c`` for the options and the result."""
    command = _command(port, path, file, {"timeout": timeout, **options})
    # The program's own timeout comes first; this one is only for our own faults.
    done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=timeout + 30, check=True)  # noqa: S603 - ours
    return dict(json.loads(done.stdout.splitlines()[-1]))


@contextmanager
def holding(port: int, path: str, file: Path, *, timeout: float = 60, **options: float) -> Iterator[dict[str, Any]]:
    """Open streams, and keep them open within the context; yields the result at the moment when all are open."""
    command = _command(port, path, file, {"timeout": timeout, "hold": 1, **options})
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - ours
    assert process.stdin is not None  # noqa: S101 - of a pipe
    assert process.stdout is not None  # noqa: S101 - of a pipe
    try:
        first = json.loads(process.stdout.readline())
        if first["state"] != "holding" or first["failed"]:
            raise BenchError(f"Not all streams could be opened: {first}")
        yield first
    finally:
        process.stdin.close()
        process.stdout.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
