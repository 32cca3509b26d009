"""``chatstream serve``: runs the server until it is interrupted."""

import argparse
import asyncio
import gc
import os
from collections.abc import Callable

from chatstream.commands import options
from chatstream.worker import Worker

_WORKER = "--worker"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `serve`. Also called for the main parser, since `serve` is the default command."""
    parser.add_argument(
        "--port",
        dest="set_CHATSTREAM_PORT",
        metavar="PORT",
        default=argparse.SUPPRESS,
        help="listen on this port (default: CHATSTREAM_PORT, else 3000; 0 takes a free one)",
    )
    parser.add_argument(
        "--host",
        dest="set_CHATSTREAM_HOST",
        metavar="HOST",
        default=argparse.SUPPRESS,
        help="listen on this address (default: CHATSTREAM_HOST, else 127.0.0.1; 0.0.0.0 is every one)",
    )
    parser.add_argument(
        "--processes",
        dest="set_CHATSTREAM_PROCESSES",
        metavar="N",
        default=argparse.SUPPRESS,
        help="serve with so many processes on the same port, one for each core (default: CHATSTREAM_PROCESSES, else 1)",
    )
    options.add_env_file(parser)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    text = "Serve until interrupted. Without any settings: a demo model and an embedded MongoDB, for development."
    parser = commands.add_parser("serve", help="serve until interrupted (the default)", description=text)
    add_options(parser)
    parser.add_argument(_WORKER, type=Worker.parse, help=argparse.SUPPRESS)  # for the supervisor alone
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Raises `ConfigurationError` if the server cannot start."""
    settings = options.load(arguments)
    from chatstream.commands import preflight

    preflight.require(settings)
    from chatstream.settings import mistaken

    worker: Worker | None = getattr(arguments, "worker", None)
    env_file = options.env_file(arguments)
    notes = [*preflight.notes(settings), *mistaken(options.names(env_file))] if worker is None else []
    if settings.processes > 1 and worker is None:
        from chatstream.commands import supervisor

        # `load` has already chosen the data's directory by it. The workers would print the same hint again.
        os.environ.pop("CLONE_OF_CHATSTREAM", None)
        same_file = ["--env-file", str(env_file)] if env_file else []
        gc.enable()
        return supervisor.run(settings, notes, supervisor.command(["serve", *same_file, _WORKER]))
    from chatstream.server import run as serve  # which turns on collections when it is ready

    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        runner.run(serve(settings, notes, worker))
    return 0


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's event loop, if it is installed (the extra `speed`); else None."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
