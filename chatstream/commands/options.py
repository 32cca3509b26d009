"""What the commands have in common: where settings come from, and paths as whoever calls means them."""

import argparse
import os
import sys
from pathlib import Path

from chatstream.config.env_file import names_in
from chatstream.errors import ConfigurationError
from chatstream.settings import Settings

ENV_FILE = Path(".env")


def path(text: str) -> Path:
    """A path from where the command was called: the scripts work in the root of the repository."""
    return Path(os.environ.get("CALLED_FROM", ""), text)


def add_env_file(parser: argparse.ArgumentParser) -> None:
    """The option that all commands have."""
    parser.add_argument(
        "--env-file",
        type=path,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="read settings from this file (default: .env, if there is one; the environment wins over both)",
    )


def env_file(arguments: argparse.Namespace) -> Path | None:
    """The one to read."""
    named: Path | None = getattr(arguments, "env_file", None)
    if named is not None:
        if not os.path.lexists(named):
            raise ConfigurationError(f"--env-file: {named} does not exist")
        return named
    return ENV_FILE if os.path.lexists(ENV_FILE) else None


def load(arguments: argparse.Namespace) -> Settings:
    """The settings, those among the arguments included. Raises `InvalidSettings`."""
    # An option is a setting given on the command line: checked like one.
    for name, value in vars(arguments).items():
        if name.startswith("set_") and value is not None:
            os.environ[name.removeprefix("set_")] = value
    if not hasattr(arguments, "env_file"):
        _say_which_is_not_read()
    return Settings.load(os.environ, env_file(arguments))


def names(env_file: Path | None) -> set[str]:
    """Everything that is set, by whomever."""
    return {*os.environ, *(names_in(env_file) if env_file else ())}


def _say_which_is_not_read() -> None:
    """A script goes to the repository: the .env beside whoever called it is easily taken for the one that is read."""
    called_from = os.environ.get("CALLED_FROM")
    beside = Path(called_from or ".", ENV_FILE)
    if called_from and beside.is_file() and not (ENV_FILE.is_file() and beside.samefile(ENV_FILE)):
        say(f"{beside} is not read; to use it, add: --env-file {ENV_FILE}")


def say(text: str) -> None:
    """A line for whoever started the command, and not part of its output."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a command line speaks
