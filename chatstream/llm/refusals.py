"""Reads an endpoint's error object, in any of the forms in use. Pure."""

import json
import re
from typing import Any, Final, Self

from msgspec import Struct

# Fields with codes, with sentences, and with nested objects. Other fields are not read: they may quote the request
# (FastAPI's `input`) and say nothing about the error.
_NAMES: Final = (
    "code",
    "type",
    "status",
    "reason",
    "param",
    "loc",
    "name",
    "__type",
    "error_code",
    "errorCode",
    "status_code",
    "statusCode",
    "http_status",
)
_WORDS: Final = (
    "message",
    "msg",
    "detail",
    "error",
    "error_message",
    "errorMessage",
    "error_msg",
    "status_msg",
    "title",
    "description",
    "raw",
    "retryDelay",
)
_MORE: Final = ("error", "errors", "detail", "details", "innererror", "inner_error", "metadata", "message", "base_resp")
# Deepest nesting and most entries of errors that are read.
_MAX_DEPTH: Final = 5
_MAX_ITEMS: Final = 20
_MAX_WORDS: Final = 16 * 1024

_STATUS: Final = re.compile(r"[45][0-9]{2}", re.ASCII)
# A quoted request: its field `messages` or `input`, in the notation of JSON or Python.
_REPEATED: Final = re.compile(r"""["'](?:messages|input)\\?["']\s*:|\b(?:messages|input)=\[""")


class Refusal(Struct, frozen=True):
    """The content of an error. `names`: codes, types and fields; `words`: all sentences; `fields`: all other fields."""

    names: frozenset[str]
    words: str
    fields: dict[str, Any]

    @classmethod
    def of(cls, error: object) -> Self:
        """Read an error: an object, a list of objects, or a text."""
        names: set[str] = set()
        words: list[str] = []
        fields: dict[str, Any] = {}
        _collect(error, names, words, fields, _MAX_DEPTH)
        return cls(frozenset(names), "\n".join(words)[:_MAX_WORDS], fields)

    @property
    def status(self) -> int | None:
        """The HTTP status in the error, if it has one."""
        return next((int(name) for name in sorted(self.names) if _STATUS.fullmatch(name)), None)

    @property
    def repeats_request(self) -> bool:
        """Whether the error's text quotes the request. Then a name in it does not mean that this part is wrong."""
        return bool(_REPEATED.search(self.words))


def read_body(body: bytes) -> object:
    """The error in a response's body: parsed JSON, else the text."""
    text = body.decode("utf-8", "replace")
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return document


def _collect(error: object, names: set[str], words: list[str], fields: dict[str, Any], depth: int) -> None:
    if isinstance(error, str):
        words.append(error[:_MAX_WORDS])
    elif isinstance(error, list) and depth:
        for item in error[:_MAX_ITEMS]:
            _collect(item, names, words, fields, depth - 1)
    elif isinstance(error, dict) and depth:
        for key in _NAMES:
            names.update(_identifiers(error.get(key)))
        words += [error[key][:_MAX_WORDS] for key in _WORDS if isinstance(error.get(key), str)]
        fields.update({key: value for key, value in error.items() if key not in fields})
        for key in _MORE:
            if isinstance(error.get(key), dict | list):
                _collect(error[key], names, words, fields, depth - 1)


def _identifiers(value: object) -> list[str]:
    if isinstance(value, bool):
        return []
    if isinstance(value, list):  # FastAPI: ["body", "stream_options"]
        return [str(item) for item in value[:_MAX_ITEMS] if isinstance(item, str)]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return [str(value)] if isinstance(value, str | int) and len(str(value)) <= 200 else []
