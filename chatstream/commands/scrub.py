"""``chatstream scrub``: removes deleted data from the files of the development database."""

import argparse
import asyncio
import sys

from chatstream.commands import options
from chatstream.errors import ConfigurationError


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "scrub",
        help="write the development database anew: what was deleted is in its files no more",
        description="Write the development database in CHATSTREAM_DATA_DIR anew, and delete its old files and logs. "
        "What was deleted or erased is in none of its files then. Stop the server before.",
        epilog="For a database of your own (MONGODB_URI) chatstream cannot do this: see “What stays for a time” in "
        "chatstream/handlers/README.md.",
    )
    options.add_env_file(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The exit status. Raises `ConfigurationError`."""
    settings = options.load(arguments)
    if not settings.uses_embedded_database:
        raise ConfigurationError("MONGODB_URI names a database of your own: its files are not chatstream's to write.")
    if not (settings.data_dir / "db").exists() and not (settings.data_dir / "db.old").exists():
        raise ConfigurationError(f"There is no development database in {settings.data_dir}.")
    from chatstream.store.rewriting import rewrite

    copied = asyncio.run(rewrite(settings.data_dir))
    sys.stdout.write(f"{copied:,} documents were written anew; the old files and logs are deleted.\n")
    return 0
