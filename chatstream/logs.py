"""The log: lines for people on a terminal, one JSON object a line otherwise.

A record may carry facts as ``extra={"facts": {...}}``. Tokens, keys, prompts and message contents are never logged.
Every request has one line, and every answer; only of what goes wrong all the time not every line is written (`Flood`).

Logs are kept where nobody can erase a user from them. So of a user they have a name that only the holder of a key can
make from the user's id (`Pseudonyms`), and of a conversation whose id a client chose, too.
"""

import contextlib
import hmac
import json
import logging
import os
import re
import secrets
import sys
import time
import traceback
from typing import Any

from chatstream.errors import EXPLANATIONS
from chatstream.settings import LogFormat

# Libraries that would tell too much, or what our own lines tell better. tornado.general quotes a malformed header,
# which may be the one with the token.
_QUIET = ("httpx2", "httpcore2", "openai", "pymongo", "tornado.access", "tornado.general", "asyncio")

# What clients are told to come back from, many of them at once.
_WILL_PASS = frozenset(code for code, explanation in EXPLANATIONS.items() if explanation.retryable)


# An id that we made, by chance alone: it says nothing of anybody.
_OURS = re.compile(r"[0-9a-f]{24}")
# 64 bits: two of a billion users have one name with a chance of a few percent.
_NAME_DIGITS = 16


class Pseudonyms:
    """Names for users and conversations: the same for the same id and key, and nothing leads back without the key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def derived(cls, secret: str | None) -> "Pseudonyms":
        """From a secret that all processes share; without one, names are good for this process alone."""
        if secret is None:
            return cls(secrets.token_bytes(32))
        return cls(hmac.digest(secret.encode(errors="surrogatepass"), b"chatstream: names in logs", "sha256"))

    def user(self, user_id: str) -> str:
        """What stands for this user."""
        return f"u-{self._name(b'user', user_id)}"

    def conversation(self, conversation_id: str) -> str:
        """What stands for this conversation: its own id, if we made that."""
        if _OURS.fullmatch(conversation_id):
            return conversation_id
        return f"c-{self._name(b'conversation', conversation_id)}"

    def facts(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The same facts, with names in place of ids."""
        user, conversation = facts.get("user"), facts.get("conversation")
        named = facts if user is None else facts | {"user": self.user(str(user))}
        return named if conversation is None else named | {"conversation": self.conversation(str(conversation))}

    def _name(self, kind: bytes, id_: str) -> str:
        text = kind + b" " + id_.encode(errors="surrogatepass")
        return hmac.digest(self._key, text, "sha256").hex()[:_NAME_DIGITS]


class _Formatter(logging.Formatter):
    """Of an exception only its kind and where it came from, whoever logs it: Tornado and asyncio would log its text."""

    pseudonyms: Pseudonyms

    def facts(self, record: logging.LogRecord) -> dict[str, Any]:
        """What a record carries, with names in place of ids."""
        return self.pseudonyms.facts(_facts(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """A traceback as usual, but without the exception's text, which may quote a user; see `describe`."""
        where = "".join(traceback.format_tb(ei[2]))
        return f"Traceback (most recent call last):\n{where}{ei[0].__name__}"


class TextFormatter(_Formatter):
    """``10:40:00 warning  what happened  request=… user=…``."""

    def __init__(self, pseudonyms: Pseudonyms | None = None) -> None:
        """`pseudonyms` are for this one log if there are none given."""
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        self.pseudonyms = pseudonyms or Pseudonyms.derived(None)

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback if there is one."""
        line = super().format(record)
        facts = "  ".join(f"{name}={_printable(value)}" for name, value in self.facts(record).items())
        if not facts:
            return line
        first, newline, traceback = line.partition("\n")
        return f"{first}  {facts}{newline}{traceback}"


class JSONFormatter(_Formatter):
    """``{"time": …, "level": …, "logger": …, "message": …, <facts>}``."""

    def __init__(self, pseudonyms: Pseudonyms | None = None) -> None:
        """`pseudonyms` are for this one log if there are none given."""
        super().__init__()
        self.pseudonyms = pseudonyms or Pseudonyms.derived(None)

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"
    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback is a string in it."""
        line = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self.facts(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class Flood(logging.Filter):
    """Of one warning, or one refusal that will pass, five lines a second; the next line says how many are left out.

    Five show what is going on. A database that is away, or clients that all come back at once, would fill the disk, and
    writing it takes the time of those who are served. The metrics count them all.
    """

    _LINES_PER_SECOND = 5

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._written: dict[tuple[str, str, object], int] = {}  # in this second
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is written."""
        facts = _facts(record)
        code = facts.get("code")
        if record.levelno >= logging.WARNING or code in _WILL_PASS:
            second = int(time.monotonic())
            if second != self._second:
                self._second = second
                self._written.clear()
            kind = (record.name, record.msg, code)
            self._written[kind] = self._written.get(kind, 0) + 1
            if self._written[kind] > self._LINES_PER_SECOND:
                self._left_out += 1
                return False
        if self._left_out:
            record.facts = facts | {"left_out": self._left_out}
            self._left_out = 0
        return True


def _printable(value: object) -> str:
    """As it is, or escaped where it could end the line or move a terminal's cursor: a user may choose the own name."""
    text = str(value)
    return text if text.isprintable() else ascii(text)


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in getattr(record, "facts", {}).items() if value is not None}


def describe(exc: BaseException) -> str:
    """What kind of exception it is and where it came from, without its text, which may repeat what a user wrote."""
    return f"{type(exc).__name__}\n{''.join(traceback.format_tb(exc.__traceback__))}"


def configure(log_format: LogFormat, level: str, pseudonyms: Pseudonyms | None = None) -> None:
    """Send the log of the whole process to standard error. `pseudonyms`, as soon as their key is known."""
    text = log_format is LogFormat.TEXT or (log_format is LogFormat.AUTO and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter(pseudonyms) if text else JSONFormatter(pseudonyms))
    handler.addFilter(Flood())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def drop_output() -> None:
    """Nobody takes what this process prints: what is left of it goes nowhere, and not into an error at its end."""
    with contextlib.suppress(OSError, ValueError):  # it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
