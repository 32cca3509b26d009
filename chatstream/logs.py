"""The log: lines for people on a terminal, otherwise one JSON object a line.

A record may carry facts as ``extra={"facts": {...}}``. Tokens, keys, prompts and message contents are never logged.
Every request and every answer has one line; repeated problems are limited to a few lines (`Flood`).

A user cannot be erased from stored logs. So the log has a pseudonym in place of the user's id, which only the holder of
a key can compute from the id (`Pseudonyms`); likewise for a conversation's id that a client chose.
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
from functools import lru_cache
from typing import Any

from chatstream.errors import EXPLANATIONS
from chatstream.settings import LogFormat

# Libraries whose log is reduced: they log secrets, or repeat our own lines. tornado.general quotes a malformed header,
# which may be the one with the token.
_QUIET = ("httpx2", "httpcore2", "openai", "pymongo", "tornado.access", "tornado.general", "asyncio")

# Codes of temporary refusals, after which many clients come back.
_WILL_PASS = frozenset(code for code, explanation in EXPLANATIONS.items() if explanation.retryable)


# The pattern of an id that this server made at random: it says nothing about a person.
_OURS = re.compile(r"[0-9a-f]{24}")
# Hex digits of a pseudonym. 64 bits: with a billion users, two share one with a chance of a few percent.
_NAME_DIGITS = 16
# The most names that are kept: each request and each answer has a line with the same two. 300 KB.
_MOST_NAMES = 1024


class Pseudonyms:
    """Pseudonyms of users and conversations: the same id and key give the same one; only the key holder can link
    them."""

    def __init__(self, key: bytes) -> None:
        # Copied for each name: that takes two thirds of the time of `hmac.digest`, and does not release the GIL.
        self._keyed = hmac.new(key, digestmod="sha256")
        self._name = lru_cache(_MOST_NAMES)(self._new_name)

    @classmethod
    def derived(cls, secret: str | None) -> "Pseudonyms":
        """Derive the key from a secret that all processes share. Without one, pseudonyms are valid for this process
        alone."""
        if secret is None:
            return cls(secrets.token_bytes(32))
        return cls(hmac.digest(secret.encode(errors="surrogatepass"), b"chatstream: names in logs", "sha256"))

    def user(self, user_id: str) -> str:
        """Return the pseudonym of a user."""
        return f"u-{self._name(b'user', user_id)}"

    def conversation(self, conversation_id: str) -> str:
        """Return the pseudonym of a conversation, or its own id if this server made that."""
        if _OURS.fullmatch(conversation_id):
            return conversation_id
        return f"c-{self._name(b'conversation', conversation_id)}"

    def facts(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Return the facts with pseudonyms in place of ids."""
        user, conversation = facts.get("user"), facts.get("conversation")
        named = facts if user is None else facts | {"user": self.user(str(user))}
        return named if conversation is None else named | {"conversation": self.conversation(str(conversation))}

    def _new_name(self, kind: bytes, id_: str) -> str:
        name = self._keyed.copy()
        name.update(kind + b" " + id_.encode(errors="surrogatepass"))
        return name.hexdigest()[:_NAME_DIGITS]


class _Formatter(logging.Formatter):
    """Logs only an exception's type and place, also for Tornado and asyncio, which would log its text."""

    pseudonyms: Pseudonyms
    process: int | None

    def facts(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return a record's facts, with pseudonyms in place of ids, and this process's number if there are several."""
        facts = self.pseudonyms.facts(_facts(record))
        return facts if self.process is None else {"process": self.process, **facts}

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return the usual traceback without the exception's text, which may quote a user; see `describe`."""
        where = "".join(traceback.format_tb(ei[2]))
        return f"Traceback (most recent call last):\n{where}{ei[0].__name__}"


class TextFormatter(_Formatter):
    """The format for people: ``10:40:00 warning  what happened  request=… user=…``."""

    def __init__(self, pseudonyms: Pseudonyms | None = None, process: int | None = None) -> None:
        """Without `pseudonyms`, this log makes its own."""
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        self.pseudonyms = pseudonyms or Pseudonyms.derived(None)
        self.process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, followed by the traceback if there is one."""
        line = super().format(record)
        facts = "  ".join(f"{name}={_printable(value)}" for name, value in self.facts(record).items())
        if not facts:
            return line
        first, newline, traceback = line.partition("\n")
        return f"{first}  {facts}{newline}{traceback}"


class JSONFormatter(_Formatter):
    """The JSON format: ``{"time": …, "level": …, "logger": …, "message": …, <facts>}``."""

    def __init__(self, pseudonyms: Pseudonyms | None = None, process: int | None = None) -> None:
        """Without `pseudonyms`, this log makes its own."""
        super().__init__()
        self.pseudonyms = pseudonyms or Pseudonyms.derived(None)
        self._encode = json.JSONEncoder(default=str).encode  # `json.dumps` would make an encoder for each line
        self.process = process

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"
    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; a traceback is a string in it."""
        line = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self.facts(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return self._encode(line)


class Flood(logging.Filter):
    """Limits each warning and each temporary refusal to five lines a second; the next line says how many were left out.

    Five lines show the problem. Without a limit, a failed database or many returning clients would fill the disk and
    take time from other requests. The metrics count them all.
    """

    _LINES_PER_SECOND = 5

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._written: dict[tuple[str, str, object], int] = {}  # lines written in this second
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written."""
        code = getattr(record, "facts", {}).get("code")
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
            record.facts = _facts(record) | {"left_out": self._left_out}
            self._left_out = 0
        return True


def _printable(value: object) -> str:
    """Return the value, escaped where it could end the line or move a terminal's cursor: users choose their own
    names."""
    text = str(value)
    return text if text.isprintable() else ascii(text)


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in getattr(record, "facts", {}).items() if value is not None}


def describe(exc: BaseException) -> str:
    """Describe an exception by its type and place, without its text, which may repeat what a user wrote."""
    return f"{type(exc).__name__}\n{''.join(traceback.format_tb(exc.__traceback__))}"


def configure(
    log_format: LogFormat, level: str, pseudonyms: Pseudonyms | None = None, process: int | None = None
) -> None:
    """Send the log of the whole process to standard error. Give `pseudonyms` as soon as their key is known.

    `process`: the number of this process, if several write the same log.
    """
    text = log_format is LogFormat.TEXT or (log_format is LogFormat.AUTO and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    formatter = TextFormatter if text else JSONFormatter
    handler.setFormatter(formatter(pseudonyms, process))
    handler.addFilter(Flood())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # No format has these, and each line looks them all up ("Optimization" in the Logging HOWTO).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # the caller's file and line
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def drop_output() -> None:
    """Discard the remaining output when nobody reads it, so that the process does not end with an error."""
    with contextlib.suppress(OSError, ValueError):  # it is not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
