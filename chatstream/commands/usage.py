"""``chatstream usage``: prints tokens and costs per user and model for a month, as CSV or JSON."""

import argparse
import asyncio
import csv
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from chatstream.commands import options
from chatstream.errors import StorageUnavailable

if TYPE_CHECKING:
    from chatstream.settings import Settings
    from chatstream.store.ledger import Row

_EPILOG = """\
Of the ledger, which the server keeps where somebody has a budget: what was deleted counts, and users who were erased
are called erased-…. Without a ledger, of the messages that are there; what titles took is in the ledger alone.

Costs are in millionths of the currency that the catalogue's prices are in. Days and months are those of UTC.
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "usage",
        help="print what each user took of each model in a month",
        description="Print what each user took of each model in a month: answers, tokens and their cost.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--month", type=_month, metavar="YYYY-MM", default=f"{datetime.now(UTC):%Y-%m}", help="(default: this one)"
    )
    parser.add_argument(
        "--format", choices=("csv", "json"), default="csv", help="json is one object a line (%(default)s)"
    )
    parser.add_argument(
        "--source",
        choices=("ledger", "messages"),
        help="(default: the ledger, if a setting gives users a budget, else the messages)",
    )
    options.add_env_file(parser)
    parser.set_defaults(run=run)


def _month(text: str) -> str:
    if not re.fullmatch(r"20[0-9]{2}-(0[1-9]|1[0-2])", text):
        raise argparse.ArgumentTypeError("must be a month, such as 2026-11")
    return text


def run(arguments: argparse.Namespace) -> int:
    """The exit status. Raises `ConfigurationError`."""
    settings = options.load(arguments)
    from chatstream.commands import preflight

    preflight.require_database(settings)
    try:
        asyncio.run(_print(settings, arguments))
    except StorageUnavailable as exc:
        options.say(str(exc))
        return 1
    return 0


async def _print(settings: "Settings", arguments: argparse.Namespace) -> None:
    import msgspec

    from chatstream.store.ledger import Row

    names = [field.encode_name for field in msgspec.structs.fields(Row)]
    table = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    if arguments.format == "csv":
        table.writeheader()
    async with AsyncExitStack() as stack:
        async for row in await _rows(stack, settings, arguments):
            if arguments.format == "csv":
                table.writerow(msgspec.to_builtins(row))
            else:
                sys.stdout.write(f"{msgspec.json.encode(row).decode()}\n")


async def _rows(stack: AsyncExitStack, settings: "Settings", arguments: argparse.Namespace) -> "AsyncIterator[Row]":
    from chatstream.store.ledger import Ledger
    from chatstream.store.mongo import Mongo
    from chatstream.store.report import rows
    from chatstream.store.seeding import embedded_database

    if settings.mongodb_uri is not None:
        uri = settings.mongodb_uri.get_secret_value()
    else:
        uri, _ = await stack.enter_async_context(embedded_database(settings.data_dir))
    mongo = Mongo(uri, settings.mongodb_database)
    stack.callback(mongo.close)
    await mongo.check()
    source = arguments.source or ("ledger" if settings.gives_budgets else "messages")
    return Ledger(mongo).rows(arguments.month) if source == "ledger" else rows(mongo, arguments.month)
