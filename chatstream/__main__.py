"""``python -m chatstream``: the command line. Its commands are the only ones that read the environment."""

import errno
import gc
import sys
from argparse import Namespace
from typing import TYPE_CHECKING, TextIO

from chatstream import __version__

if TYPE_CHECKING:
    from chatstream.commands.parser import Parser

# The exit status for wrong options and settings: retrying does not help.
_WRONG_SETTINGS = 2
# The exit status after Ctrl-C, as shells use it.
_INTERRUPTED = 130


def _parser() -> "Parser":
    from chatstream.commands import chat, check_config, log_name, scrub, seed, serve, template, token, usage
    from chatstream.commands.parser import Parser

    parser = Parser(
        prog="chatstream",
        description="Stream LLM answers to chat clients over Server-Sent Events.",
        epilog="Settings come from the environment and from .env in the working directory; `chatstream settings` "
        "describes them (in a clone: conf/chatstream.env.example). With none at all, a development server starts: "
        "with a demo model and an embedded MongoDB.",
    )
    parser.add_argument("--version", action="version", version=f"chatstream {__version__}")
    serve.add_options(parser)
    parser.set_defaults(run=serve.run)
    commands = parser.add_subparsers(metavar="command", dest="command")
    for command in (serve, check_config, token, chat, seed, usage, scrub, log_name, template):
        command.add(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit status: 0; 1 with a reason if it failed; 2 for a wrong option or setting."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        _writes_anything(stream)
    try:
        try:
            return _run(sys.argv[1:] if arguments is None else arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # flush here: at Python's end, a failure would print a traceback
    except BrokenPipeError:  # the reader of the output has closed it
        _drop_output()
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as exc:
        if exc.errno != errno.ENOSPC or exc.filename is not None:
            raise
        from chatstream.commands import options

        options.say(f"The output cannot be written: {exc.strerror}")
        _drop_output()
        return 1


def _run(arguments: list[str]) -> int:
    # Loading makes hardly any garbage: without collections a start costs a seventh less CPU time. So a server does
    # without them until it serves, and all is imported below this line.
    gc.disable()
    try:
        from chatstream.commands import options, serve

        # Without arguments there is nothing to parse, and no other command to load.
        parsed = _parser().parse(arguments) if arguments else Namespace(run=serve.run)
        from chatstream.errors import ConfigurationError, InvalidSettings

        if parsed.run is not serve.run:
            gc.enable()
        try:
            return int(parsed.run(parsed))
        except InvalidSettings as exc:
            options.say(str(exc))
            return _WRONG_SETTINGS
        except ConfigurationError as exc:
            options.say(str(exc))
            return 1
    finally:
        gc.enable()


def _drop_output() -> None:
    from chatstream.logs import drop_output

    drop_output()


def _writes_anything(stream: TextIO | None) -> None:
    """Replace characters that the terminal cannot show: otherwise Python would end with a traceback."""
    reconfigure = getattr(stream, "reconfigure", None)
    if stream is None or reconfigure is None or (stream.encoding or "").lower().replace("-", "") == "utf8":
        return
    if stream is sys.stdin and stream.encoding.lower() in ("ascii", "us-ascii", "ansi_x3.4-1968"):
        reconfigure(encoding="utf-8", errors="replace")  # a person who types more than ASCII types UTF-8
    else:
        reconfigure(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
