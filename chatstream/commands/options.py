"""Loads the settings for all commands."""

import argparse
import os
import sys
from pathlib import Path

from chatstream.config import env_file as env_files
from chatstream.errors import ConfigurationError, InvalidSettings
from chatstream.settings import Settings

ENV_FILE = Path(".env")


def add_env_file(parser: argparse.ArgumentParser) -> None:
    """The option that all commands have."""
    parser.add_argument(
        "--env-file",
        type=Path,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="read settings from this file (default: .env, if there is one; the environment wins over both)",
    )


def env_file(arguments: argparse.Namespace) -> Path | None:
    """The env file to read, or None."""
    named: Path | None = getattr(arguments, "env_file", None)
    if named is not None:
        if not os.path.lexists(named):
            raise ConfigurationError(f"--env-file: {named} does not exist")
        return named
    return ENV_FILE if os.path.lexists(ENV_FILE) else None


def load(arguments: argparse.Namespace) -> Settings:
    """The settings, those among the arguments included. Raises `InvalidSettings`.

    From now on `os.environ` has what the env file sets, and Python finds modules in the working directory.
    """
    # Options on the command line are checked like settings.
    for name, value in vars(arguments).items():
        if name.startswith("set_") and value is not None:
            os.environ[name.removeprefix("set_")] = value
    file = env_file(arguments)
    if file is not None:
        try:
            env_files.into_environment(file)
        except ConfigurationError as exc:
            raise InvalidSettings([str(exc)]) from exc
    _from_a_clone(file)
    # Last on the path, so that a file there cannot replace a library. An env file may name more directories.
    named = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    for directory in (Path.cwd(), *map(Path.absolute, map(Path, named))):
        if str(directory) not in sys.path and not (directory == Path.cwd() and "" in sys.path):
            sys.path.append(str(directory))
    return Settings.load(os.environ, file)


def names(env_file: Path | None) -> set[str]:
    """The names of all settings in the environment and in the env file."""
    return {*os.environ, *(env_files.names_in(env_file) if env_file else ())}


def _from_a_clone(env_file: Path | None) -> None:
    """In a clone, keep generated data in the clone's directory, so that its scripts find it from any directory."""
    clone = Path(os.environ.get("CLONE_OF_CHATSTREAM", ""))
    if "CLONE_OF_CHATSTREAM" not in os.environ or clone == Path.cwd():
        return
    if not os.environ.get("CHATSTREAM_DATA_DIR"):
        os.environ["CHATSTREAM_DATA_DIR"] = str(clone / "var")
    beside = clone / ENV_FILE
    if env_file is None and beside.is_file():
        say(f"{beside} is not read from here; to use it, add: --env-file {beside}")


def say(text: str) -> None:
    """Print a line to standard error, for the person at the terminal; it is not part of the command's output."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a command line speaks
