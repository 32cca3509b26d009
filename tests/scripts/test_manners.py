"""What all scripts have in common, from whatever directory they are called."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY

DIRECTORY = REPOSITORY / "scripts"
SCRIPTS = sorted(file.name for file in DIRECTORY.iterdir() if file.is_file() and os.access(file, os.X_OK))
# What they do not know themselves is pytest's business.
STRICT = [name for name in SCRIPTS if name != "test"]


def run(name: str, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DIRECTORY / name, *arguments], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_says_how_it_is_used(name: str, tmp_path: Path) -> None:
    told = run(name, tmp_path, "--help")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("usage: ")


@pytest.mark.parametrize("name", STRICT)
def test_it_does_nothing_if_it_is_not_understood(name: str, tmp_path: Path) -> None:
    told = run(name, tmp_path, "--no-such-option")
    assert (told.returncode, told.stdout) == (2, "")
    assert "Traceback" not in told.stderr
    assert 0 < len(told.stderr.splitlines()[-1]) <= 120
    assert [*tmp_path.iterdir()] == []


def test_the_readme_names_them_all() -> None:
    table = (DIRECTORY / "README.md").read_text()
    assert [name for name in SCRIPTS if f"| `{name}" not in table] == []
