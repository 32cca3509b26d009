"""Where the databases of the tests have their data."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Linux has files in memory here.
_MEMORY = Path("/dev/shm")  # noqa: S108 - what is made there has a name that nobody can foresee
# What must be free: the data and the journals of several databases, of which one begins with 300 MB.
_ROOM = 4 * 2**30
_PREFIX = "chatstream-tests-"


@contextlib.contextmanager
def data_directory() -> Iterator[Path]:
    """One for a database of tests: in memory if there is room, since what is written elsewhere waits for a busy disk.

    A killed process loses nothing there, either.
    """
    _delete_leftovers()
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM
    with tempfile.TemporaryDirectory(
        dir=_MEMORY if roomy else None, prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True
    ) as directory:
        yield Path(directory)


def _delete_leftovers() -> None:
    """What tests left behind that were killed: it takes memory until the machine is started again."""
    for left in _MEMORY.glob(f"{_PREFIX}*-*"):
        pid = left.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)
