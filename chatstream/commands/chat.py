"""``chatstream chat``: a conversation in the terminal."""

import argparse
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from chatstream.commands import options
from chatstream.config import values
from chatstream.errors import ConfigurationError
from chatstream.hosts import is_loopback
from chatstream.settings import Settings

# The user of a development server's demo conversation.
_USER = "demo"
_TOKEN_SECONDS = 86_400
# The hosts that mean all addresses of this machine.
_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared
# A JSON Web Token: its first part encodes an object, which begins with `{"`.
_TOKEN = re.compile(r"eyJ[\w-]*\.[\w-]+\.[\w-]*")


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "chat",
        help="talk to a server from the terminal",
        description="Talk to a server. A broken connection is resumed; Ctrl-C stops an answer.",
        epilog="The token: --token-file, else the environment variable CHAT_TOKEN, else, for a server on this machine, "
        "one made with its secret, as `chatstream token` does.",
    )
    parser.add_argument("question", nargs="?", help="ask this alone; else what is typed, or piped in, line by line")
    parser.add_argument(
        "--url", type=_address, help="server address (default: this machine, at CHATSTREAM_PORT or 3000)"
    )
    parser.add_argument("--conversation", metavar="ID", help="continue this conversation (default: a new one)")
    parser.add_argument("--model", metavar="NAME", help="model of the new conversation (default: the server's model)")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="the file that holds the token")
    parser.add_argument("--json", action="store_true", help="write the stream's events, one per line")
    options.add_env_file(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit status: 0 if the last answer is complete, else 1."""
    token = _given_token(arguments)
    settings = None if token is not None and arguments.url else options.load(arguments)
    url = arguments.url or _url(settings)
    from chatstream.terminal.chat import Terminal
    from chatstream.terminal.client import ChatFailed

    try:
        terminal = Terminal(
            url,
            token or _made_token(url, settings),
            conversation=arguments.conversation,
            model=arguments.model,
            as_json=arguments.json,
        )
        return terminal.talk(_as_typed(arguments.question))
    except ChatFailed as exc:
        options.say(str(exc))
        return 1


def _address(argument: str) -> str:
    try:
        return values.url(argument.strip())
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"it {exc}") from exc


def _as_typed(question: str | None) -> str | None:
    """The question with its characters decoded again: with an ASCII locale, Python passes UTF-8 bytes as surrogates."""
    return question and os.fsencode(question).decode("utf-8", "replace")


def _url(settings: Settings | None) -> str:
    assert settings is not None  # noqa: S101 - for the type checker
    host = "localhost" if settings.host in (*_EVERY_ADDRESS, "127.0.0.1") else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _given_token(arguments: argparse.Namespace) -> str | None:
    if arguments.token_file is None:
        token = os.environ.get("CHAT_TOKEN", "").strip() or None
        name = "CHAT_TOKEN"
    else:
        token, name = _read(arguments.token_file), "--token-file"
    try:
        return values.header_text(token) if token is not None else None
    except ValueError as exc:
        raise ConfigurationError(f"{name}: {exc}") from exc


def _read(file: Path) -> str:
    if _TOKEN.fullmatch(str(file)):  # argparse takes `--token TOKEN` for this option; the token must not be printed
        raise ConfigurationError("--token-file takes a file's name, not a token: put the token in CHAT_TOKEN.")
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as exc:
        raise ConfigurationError(f"{file} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file} does not hold a token: it is not text") from None


def _made_token(url: str, settings: Settings | None) -> str:
    # Make a token only for this machine's server: it must not be sent to another one.
    own = settings is not None and (is_loopback(urlsplit(url).hostname or "") or url == _url(settings))
    if settings is None or not own or not settings.verifies_with_secret:
        raise ConfigurationError("A token is needed: --token-file, or the environment variable CHAT_TOKEN.")
    from chatstream import auth

    return auth.mint(auth.secret(settings), _USER, _TOKEN_SECONDS, auth.rules(settings))
