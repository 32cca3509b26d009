"""``python -m chatstream``: the command line. The only place that reads the environment."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from chatstream import __version__
from chatstream.errors import ConfigurationError
from chatstream.settings import Settings

ENV_FILE = Path(".env")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chatstream",
        description="Stream LLM answers to chat clients over Server-Sent Events.",
        epilog="Settings come from the environment and from .env in the working directory; "
        "conf/chatstream.env.example describes them. With none at all, a development server starts: "
        "with a demo model and an embedded MongoDB.",
    )
    parser.add_argument("--version", action="version", version=f"chatstream {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser("serve", help="serve until interrupted (the default)")
    commands.add_parser("check-config", help="check the settings, say what is wrong with them, and exit")
    return parser


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed (the extra `speed`)."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def main() -> int:
    """Returns the exit status: 0, or 1 with a message if the server cannot start like this."""
    arguments = _parser().parse_args()
    try:
        settings = Settings.load(os.environ, ENV_FILE if ENV_FILE.exists() else None)
        if arguments.command == "check-config":
            print("The configuration is valid.")  # noqa: T201 - the command's output
            return 0
        from chatstream.server import run

        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            runner.run(run(settings))
    except ConfigurationError as exc:
        print(exc, file=sys.stderr)  # noqa: T201 - for whoever started it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
