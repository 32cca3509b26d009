"""``chatstream log-name``: prints the pseudonym that the log has in place of a user's id."""

import argparse
import sys

from chatstream.commands import options
from chatstream.errors import ConfigurationError


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "log-name",
        help="say what the log has in place of a user's id",
        description="Print the name that stands in the log for a user, or for a conversation whose id a client chose.",
        epilog="example: grep $(chatstream log-name ada) chatstream.log",
        allow_abbrev=False,
    )
    parser.add_argument("id", help="the user's id, as the token has it")
    parser.add_argument("--conversation", action="store_true", help="it is a conversation's id")
    options.add_env_file(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The exit status. Raises `ConfigurationError`."""
    settings = options.load(arguments)
    from chatstream import auth
    from chatstream.logs import Pseudonyms

    if settings.log_key is not None:
        key = settings.log_key.get_secret_value()
    elif settings.verifies_with_secret:
        key = auth.secret(settings)
    else:
        raise ConfigurationError("Each process has names of its own: set CHATSTREAM_LOG_KEY.")
    names = Pseudonyms.derived(key)
    name = names.conversation(arguments.id) if arguments.conversation else names.user(arguments.id)
    sys.stdout.write(f"{name}\n")
    return 0
