"""Directories for the data of the tests' databases."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# A directory in memory (Linux).
_MEMORY = Path("/dev/shm")  # noqa: S108 - what is made there has a name that nobody can foresee
# Bytes that must be free there: the data and journals of several databases. An empty database takes 300 MB.
_ROOM = 4 * 2**30
_PREFIX = "chatstream-tests-"


@contextlib.contextmanager
def data_directory() -> Iterator[Path]:
    """Make a data directory: in memory if there is room, so that writes do not wait for a busy disk. If a process is
    killed, its files in memory stay, too.
    """
    _delete_leftovers()
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM
    with tempfile.TemporaryDirectory(
        dir=_MEMORY if roomy else None, prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True
    ) as directory:
        yield Path(directory)


def _delete_leftovers() -> None:
    """Delete the directories that killed test runs have left behind: they would take memory until the next boot."""
    for left in _MEMORY.glob(f"{_PREFIX}*-*"):
        pid = left.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)
