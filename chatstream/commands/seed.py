"""``chatstream seed``: stores example conversations, made up or from a file."""

import argparse
import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

from chatstream.commands import options
from chatstream.errors import ChatstreamError, ConfigurationError, StorageUnavailable
from chatstream.seeding import MOST_MESSAGES

EXAMPLES = """
examples:
  chatstream seed                            50 conversations of 10 users
  chatstream seed --user demo --unanswered   for the demo user; opening one starts an answer
  chatstream seed --users 1000 --conversations 1000 --messages 2 --drop
                                                        a million conversations instead of what is there
  chatstream seed --file chats.json          {"conversations": [{"userId": "ada", "id": "c1", "messages": [
                                                          {"role": "user", "content": "Who wins?"},
                                                          {"role": "assistant", "content": "Leeds."}]}]}
                                                        may have title, systemPrompt, model too, and needs no id;
                                                        an answer may have its reasoning
  chatstream seed --file export.ndjson       what GET /api/v1/chat/me/export gave: the same history of the same user
  chatstream seed --hook                     as a benchmark's seeding hook

The database is the one the server would use: MONGODB_URI and MONGODB_DATABASE from the environment or .env, and where
there is no MONGODB_URI, the embedded one in CHATSTREAM_DATA_DIR, whether or not a server has it open.

exit status: 0 done, 1 not possible, 2 wrong options, 130 interrupted. Conversations are stored whole or not at all.
"""

# For a benchmark's hook: conversations per user, few enough to watch all at once (CHATSTREAM_STREAMS_PER_USER is 10),
# and messages per conversation, as in the seeds of the other servers.
HOOK_CONVERSATIONS, HOOK_MESSAGES = 5, 1
# Maximum number of conversations to make. A larger number is a typing mistake.
MOST = 100_000_000


def _number(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be a number from {least} to {most}")
        return int(text)

    return number


def _matching(pattern: str, what: str) -> Callable[[str], str]:
    def matching(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f"must be {what}")
        return text

    return matching


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "seed",
        help="fill a database with example conversations, or with those of a file",
        description="Fill a chatstream database with conversations: made up on the plug-ins' subject, or from a file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made = parser.add_argument_group("made-up conversations")
    users = made.add_mutually_exclusive_group()
    users.add_argument("--users", type=_number(1, MOST), metavar="N", help="user-0, user-1 … (default: 10)")
    users.add_argument(
        "--user", type=_matching(r"[^\0]{1,255}", "1 to 255 characters"), metavar="ID", help="of this one user only"
    )
    made.add_argument("--conversations", type=_number(1, MOST), metavar="N", help="of each user (default: 5)")
    made.add_argument(
        "--messages",
        type=_number(0, MOST_MESSAGES),
        metavar="N",
        help="of each conversation, questions and answers in turn (default: 6, with --unanswered 5)",
    )
    made.add_argument(
        "--unanswered",
        action="store_true",
        help="end on a question: the first who watches starts its answer; --messages is odd then, else even",
    )
    made.add_argument(
        "--id-prefix",
        type=_matching(r"[A-Za-z0-9_-]{0,50}", "at most 50 of A-Z a-z 0-9 _ -"),
        metavar="TEXT",
        help="what the conversations' ids begin with (default: c, for c000000 …)",
    )
    made.add_argument(
        "--seed",
        type=_number(0, 2**63),
        metavar="N",
        help="the same seed makes the same ids and texts; times count back from now (default: 0)",
    )
    made.add_argument(
        "--hook",
        action="store_true",
        help="take --uri, --database, --ids-file and --owners-file from MONGO_URL, MONGO_DB, IDS_FILE and OWNERS_FILE, "
        f"and store COUNT conversations in all, {HOOK_CONVERSATIONS} of each user, with --drop --unanswered "
        f"--messages {HOOK_MESSAGES}",
    )
    source = parser.add_argument_group("or conversations from a file")
    source.add_argument(
        "--file", type=Path, metavar="JSON", help="see the example below; checked before anything is stored"
    )
    target = parser.add_argument_group("where to")
    target.add_argument("--uri", help="of a MongoDB replica set (default: MONGODB_URI or DATABASE_URL, else embedded)")
    target.add_argument("--database", metavar="NAME", help="(default: MONGODB_DATABASE, else chatstream)")
    there = target.add_mutually_exclusive_group()
    there.add_argument(
        "--drop",
        action="store_true",
        help="first delete ALL conversations and messages of the database; if it is on another machine, only with "
        "--database. For a database that no server is using",
    )
    there.add_argument("--skip-existing", action="store_true", help="leave conversations alone that are there already")
    out = parser.add_argument_group("what to tell")
    out.add_argument("--ids-file", type=Path, metavar="FILE", help="write the conversations' ids to it, one a line")
    out.add_argument("--owners-file", type=Path, metavar="FILE", help="write their users' ids to it, in the same order")
    out.add_argument("--json", action="store_true", help="print the summary as JSON")
    options.add_env_file(parser)
    parser.set_defaults(run=run, parser=parser)


def _complete(arguments: argparse.Namespace) -> argparse.Namespace:
    """Fill in the options' defaults. `total` is the number of conversations to make."""
    parser = arguments.parser
    if arguments.file:
        made = ("users", "user", "conversations", "messages", "unanswered", "id_prefix", "seed", "hook")
        # Compare with `is`: 0 is a valid seed, and equal to False.
        if given := [name for name in made if not any(getattr(arguments, name) is absent for absent in (None, False))]:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            parser.error(f"with --file, the conversations are in the file: leave out {names}")
        return arguments
    count = _hook(parser, arguments) if arguments.hook else None
    arguments.users = (
        1 if arguments.user is not None else arguments.users or (-(-count // HOOK_CONVERSATIONS) if count else 10)
    )
    arguments.total = (
        count if arguments.conversations is None and count else arguments.users * (arguments.conversations or 5)
    )
    if arguments.messages is None:
        arguments.messages = HOOK_MESSAGES if arguments.hook else 5 if arguments.unanswered else 6
    if arguments.messages % 2 != arguments.unanswered:
        parser.error(
            "--messages must be odd with --unanswered: the last one waits for its answer"
            if arguments.unanswered
            else "--messages must be even: each question has its answer (or add --unanswered)"
        )
    if arguments.total > MOST:
        parser.error(f"these are {arguments.total:,} conversations: {MOST:,} is the most")
    arguments.id_prefix = "c" if arguments.id_prefix is None else arguments.id_prefix
    arguments.seed = arguments.seed or 0
    return arguments


def _hook(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Take missing options from the environment; returns COUNT."""
    if missing := [name for name in ("MONGO_URL", "MONGO_DB", "COUNT") if not os.environ.get(name)]:
        parser.error(f"--hook needs {', '.join(missing)} in the environment")
    arguments.uri = arguments.uri or os.environ["MONGO_URL"]
    arguments.database = arguments.database or os.environ["MONGO_DB"]
    for name in ("IDS_FILE", "OWNERS_FILE"):
        if os.environ.get(name) and getattr(arguments, name.lower()) is None:
            setattr(arguments, name.lower(), Path(os.environ[name]))
    arguments.unanswered = True
    arguments.drop = not arguments.skip_existing
    try:
        return _number(1, MOST)(os.environ["COUNT"])
    except argparse.ArgumentTypeError as exc:
        parser.error(f"COUNT {exc}")


def run(arguments: argparse.Namespace) -> int:
    """The exit status. Raises `ConfigurationError`."""
    arguments = _complete(arguments)
    # An option is a setting given on the command line: checked like one.
    for name, value in (("MONGODB_URI", arguments.uri), ("MONGODB_DATABASE", arguments.database)):
        if value is not None:
            os.environ[name] = value
    settings = options.load(arguments)
    from chatstream.commands import preflight
    from chatstream.seeding.storing import Summary, seed

    summary = Summary()
    try:
        preflight.require_database(settings)
        asyncio.run(seed(arguments, settings, summary))
    except KeyboardInterrupt:
        summary.interrupted = True
    except ConfigurationError:
        raise
    except ChatstreamError as exc:
        options.say(str(exc))
        if isinstance(exc, StorageUnavailable) and summary.conversations:
            options.say(f"{summary} --skip-existing goes on from there.")
        return 1
    if summary.interrupted:
        options.say(f"Interrupted. {summary} --skip-existing goes on from there.")
        return 130
    print(summary.json(settings.mongodb_database) if arguments.json else summary)  # noqa: T201 - its output
    return 0
