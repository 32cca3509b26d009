"""``chatstream check-config``: what a server would use, and what is wrong with it."""

import argparse
import asyncio
import contextlib
import os
import sys
from pathlib import Path

from chatstream.commands import options
from chatstream.config import env_file as env_files
from chatstream.errors import ConfigurationError, InvalidSettings
from chatstream.settings import Settings, mistaken, plugin_names
from chatstream.summary import summary


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
    options.add_env_file(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Raises `InvalidSettings`."""
    env_file = options.env_file(arguments)
    try:
        settings = options.load(arguments)
    except InvalidSettings as exc:
        raise InvalidSettings([*exc.problems, *_plugin_problems(env_file, exc.problems)]) from None
    from chatstream.commands import preflight
    from chatstream.llm.configuration import catalogue

    _check_all(settings)
    _write("settings", str(env_file.absolute()) if env_file else "from the environment alone")
    for name, text in summary(settings).items():
        _write(name, text)
    if settings.models_file is not None:
        for line in catalogue(settings).described():
            _write("model", line)
    if settings.tools_file is not None:
        from chatstream.tools import file

        for tool in file.read(settings.tools_file, settings):
            _write("tool", str(tool))
    for note in (*preflight.notes(settings), *mistaken(options.names(env_file))):
        _write("note", note)
    if arguments.connect:
        from chatstream.commands import connecting

        return 0 if asyncio.run(connecting.check(settings, _write)) else 1
    print("The configuration is valid.")  # noqa: T201 - the command's output
    return 0


def _plugin_problems(env_file: Path | None, known: list[str]) -> list[str]:
    """What is wrong with the plug-ins, where other settings cannot be read: one look is to show all that is wrong."""
    name = "CHATSTREAM_PLUGINS"
    if any(problem.startswith(name) for problem in known):
        return []
    from chatstream.plugins.loading import load

    try:
        text = os.environ.get(name) or (env_files.value_of(name, env_file) if env_file else None)
        load(plugin_names(text) if text else ())
    except ConfigurationError as exc:
        problem = str(exc)
        return [] if problem in known else [problem]  # of the file itself it is said already
    return []


def _check_all(settings: Settings) -> None:
    """All that can be tried without asking anybody."""
    from chatstream import auth
    from chatstream.commands import preflight

    problems = preflight.problems(settings)
    for try_out in (lambda: auth.guard(settings), lambda: _load(settings)):  # programs of the operator's
        try:
            try_out()
        except ConfigurationError as exc:
            problems.append(str(exc))
    if problems:
        raise InvalidSettings(dict.fromkeys(problems))
    preflight.require(settings)  # which also looks for the programs that a server needs


def _load(settings: Settings) -> None:
    """The plug-ins, and the tools of all of them and of the file together."""
    from chatstream.plugins.loading import load
    from chatstream.tools.configuration import configured_tools

    async def open_tools() -> None:
        async with configured_tools(settings, loaded):
            pass

    loaded = load(settings.plugins)
    with contextlib.suppress(InvalidSettings):  # the file is wrong, which the other checks have said
        asyncio.run(open_tools())


def _write(name: str, text: str) -> None:
    print(f"{name:<9} {text}", flush=True, file=sys.stdout)  # noqa: T201 - the command's output
