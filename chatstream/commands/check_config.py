"""``chatstream check-config``: shows the settings that a server would use, and their faults."""

import argparse
import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from chatstream.commands import options, serve
from chatstream.errors import ConfigurationError, InvalidSettings
from chatstream.settings import Settings, mistaken
from chatstream.summary import processes, summary

if TYPE_CHECKING:
    from chatstream.plugins.loading import Loaded


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "check-config",
        help="say what a server would use and what is wrong with the settings",
        description="Say what a server would use and what is wrong with the settings. Nothing is started or changed.",
        epilog="exit status: 0 all is well, 1 something that was asked does not work, 2 a setting is wrong",
    )
    parser.add_argument(
        "--connect",
        action="store_true",
        help="also ask the database, the model (which generates one token) and the issuer's keys; takes up to 40 s",
    )
    serve.add_options(parser)  # the same options as `serve`, to check the same settings
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Raises `InvalidSettings`."""
    env_file = options.env_file(arguments)
    try:
        settings = options.load(arguments)
    except InvalidSettings as exc:  # go on, to report all faults at once
        raise InvalidSettings(dict.fromkeys([*exc.problems, *_other_problems(env_file)])) from None
    from chatstream.commands import preflight
    from chatstream.llm.configuration import catalogue

    loaded = _check_all(settings)
    _write("settings", str(env_file.absolute()) if env_file else "from the environment alone")
    for name, text in summary(settings).items():
        _write(name, text)
    if settings.processes > 1:
        _write("processes", processes(settings))
    for line in [*map(str, loaded)] or ["none"]:
        _write("plug-in", line)
    if settings.models_file is not None:
        for line in catalogue(settings).described():
            _write("model", line)
    if settings.tools_file is not None:
        from chatstream.tools.configuration import read_file

        http, servers = read_file(settings)
        for tool in (*http, *(each for server in servers for each in (server, *server.tools))):
            _write("tool", str(tool))
    for note in (*preflight.notes(settings), *mistaken(options.names(env_file))):
        _write("note", note)
    if arguments.connect:
        from chatstream.commands import connecting

        return 0 if asyncio.run(connecting.check(settings, _write)) else 1
    print("The configuration is valid.")  # noqa: T201 - the command's output
    return 0


def _other_problems(env_file: Path | None) -> list[str]:
    """The faults besides the values that cannot be parsed."""
    found = Settings.readable(env_file)
    if found is None:
        return []
    settings, wrong = found
    problems, _ = _problems(settings)
    # Wrong values are replaced by valid ones for this check; do not report faults of the replacements.
    return [*settings.problems_but_of(wrong), *(each for each in problems if not each.startswith(tuple(wrong)))]


def _check_all(settings: Settings) -> "list[Loaded]":
    """Check everything that needs no network. Returns the plug-ins. Raises `InvalidSettings`."""
    from chatstream.commands import preflight

    problems, loaded = _problems(settings)
    if problems:
        raise InvalidSettings(dict.fromkeys(problems))
    preflight.require(settings)  # also checks that the needed programs are installed
    return loaded


def _problems(settings: Settings) -> "tuple[list[str], list[Loaded]]":
    from chatstream import auth
    from chatstream.commands import preflight
    from chatstream.plugins.loading import load

    problems = preflight.problems(settings)
    loaded: list[Loaded] = []
    try:  # programs of the operator's
        auth.guard(settings)
    except ConfigurationError as exc:
        problems.append(str(exc))
    try:
        loaded = load(settings.plugins)
        asyncio.run(_open_tools(settings, loaded))
    except ConfigurationError as exc:
        problems += str(exc).splitlines()
    return problems, loaded


async def _open_tools(settings: Settings, loaded: "list[Loaded]") -> None:
    """Open the tools of all plug-ins and of the tools file, to find conflicts between them."""
    from chatstream.tools.configuration import configured_tools

    with contextlib.suppress(InvalidSettings):  # the file is invalid; another check has reported it
        async with configured_tools(settings, loaded, connect=False):
            pass


def _write(name: str, text: str) -> None:
    print(f"{name:<9} {text}", flush=True, file=sys.stdout)  # noqa: T201 - the command's output
