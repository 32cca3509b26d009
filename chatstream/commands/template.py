"""``chatstream settings``: prints an env file template with every setting, its default and its reason."""

import argparse
import sys
from importlib.resources import files


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "settings",
        help="print an env file with every setting, its default and its reason",
        description="Print every setting with its default and its reason, all commented out. To begin with: "
        "chatstream settings > .env",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the template; ``conf/`` has the same file."""
    sys.stdout.write(files("chatstream.config").joinpath("chatstream.env.example").read_text(encoding="utf-8"))
    return 0
