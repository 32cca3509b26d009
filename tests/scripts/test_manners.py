"""The common behaviour of all scripts, called from any directory."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY

DIRECTORY = REPOSITORY / "scripts"
SCRIPTS = sorted(file.name for file in DIRECTORY.iterdir() if file.is_file() and os.access(file, os.X_OK))
# Scripts that refuse unknown arguments; the others pass them on to pytest.
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


def test_what_runs_the_program_reads_settings_and_plug_ins_where_one_stands(tmp_path: Path) -> None:
    (tmp_path / "rules_of_mine.py").write_text("class Rules:\n    def admit(self, turn): ...\n")
    (tmp_path / "secrets.py").write_text("raise SystemExit('this is not the library')\n")
    (tmp_path / "page.toml").write_text('name = "Mine"\n')
    (tmp_path / ".env").write_text("CHATSTREAM_PLUGINS=rules_of_mine:Rules\nCHATSTREAM_PAGE_FILE=page.toml\n")
    told = run("serve", tmp_path, "check-config")
    assert told.returncode == 0, told.stderr
    assert f"settings  {tmp_path / '.env'}\n" in told.stdout
    assert "plug-in   rules_of_mine:Rules (admit)\n" in told.stdout
    # A development server's data is in the clone's directory, so that `mint_token` finds its secret from any directory.
    assert f"embedded, in {REPOSITORY / 'var'}/\n" in told.stdout
    (tmp_path / ".env").write_text("CHATSTREAM_DATA_DIR=here\n")
    assert "embedded, in here/\n" in run("serve", tmp_path, "check-config").stdout


def test_the_readme_names_them_all() -> None:
    table = (DIRECTORY / "README.md").read_text()
    assert [name for name in SCRIPTS if f"| `{name}" not in table] == []
