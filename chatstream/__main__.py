"""``python -m chatstream``: the command line. The only place that reads the environment."""

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from chatstream import __version__
from chatstream.errors import ConfigurationError
from chatstream.settings import Settings

ENV_FILE = Path(".env")

# Where a development server listens, and whom it greets; a chat of a working day needs no second token.
_DEFAULT_URL = "http://localhost:3000"
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_CHAT_USER = "demo"
_CHAT_SECONDS = 86_400


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
    chat = commands.add_parser(
        "chat",
        help="talk to a server from the terminal",
        description="Talk to a server. A broken connection is resumed; Ctrl-C stops an answer.",
        epilog="The token: --token-file, else the environment variable CHAT_TOKEN, else, for a server on this machine, "
        "one made with its secret, as scripts/mint_token does.",
    )
    chat.add_argument("question", nargs="?", help="ask this alone; else what is typed, or piped in, line by line")
    chat.add_argument("--url", type=_address, default=_DEFAULT_URL, help="of the server (%(default)s)")
    chat.add_argument("--conversation", metavar="ID", help="go on with this one; else a new one is begun")
    chat.add_argument("--model", metavar="NAME", help="of the new conversation; else the server's")
    chat.add_argument("--token-file", type=Path, metavar="FILE", help="holds the token")
    chat.add_argument("--json", action="store_true", help="write the stream's events, one a line")
    return parser


def _address(argument: str) -> str:
    if not argument.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError("it must begin with http:// or https://")
    return argument


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed (the extra `speed`)."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _chat(arguments: argparse.Namespace) -> int:
    """The terminal's exit status: 0 if the last answer is complete, else 1."""
    from chatstream.terminal.chat import Terminal
    from chatstream.terminal.client import ChatFailed

    try:
        terminal = Terminal(
            arguments.url,
            _token(arguments),
            conversation=arguments.conversation,
            model=arguments.model,
            as_json=arguments.json,
        )
        return terminal.talk(arguments.question)
    except ChatFailed as exc:
        print(exc, file=sys.stderr)  # noqa: T201 - for whoever asked
        return 1


def _token(arguments: argparse.Namespace) -> str:
    if arguments.token_file is not None:
        try:
            return str(arguments.token_file.read_text()).strip()
        except OSError as exc:
            raise ConfigurationError(f"{arguments.token_file} cannot be read: {exc.strerror}") from exc
    if token := os.environ.get("CHAT_TOKEN"):
        return token
    settings = Settings.load(os.environ, ENV_FILE if ENV_FILE.exists() else None)
    # Nobody else gets a token that this machine's server would accept.
    if urlsplit(arguments.url).hostname not in _THIS_MACHINE or not settings.verifies_with_secret:
        raise ConfigurationError("A token is needed: --token-file, or the environment variable CHAT_TOKEN.")
    from chatstream import auth

    return auth.mint(auth.secret(settings), _CHAT_USER, _CHAT_SECONDS, auth.rules(settings))


def main() -> int:
    """Returns the exit status: 0, or 1 with a message if the server cannot start like this."""
    arguments = _parser().parse_args()
    try:
        if arguments.command == "chat":
            return _chat(arguments)
        settings = Settings.load(os.environ, ENV_FILE if ENV_FILE.exists() else None)
        if arguments.command == "check-config":
            from chatstream.plugins.loading import load

            load(settings.plugins)
            print("The configuration is valid.")  # noqa: T201 - the command's output
            return 0
        # Hardly anything that is loaded becomes garbage: a tenth of the time to the first 200; see `server`.
        gc.disable()
        from chatstream.server import run

        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            runner.run(run(settings))
    except ConfigurationError as exc:
        print(exc, file=sys.stderr)  # noqa: T201 - for whoever started it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
