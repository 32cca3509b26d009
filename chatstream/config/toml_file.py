"""Reads files of settings in TOML, and describes their errors without quoting values.

A value may be a secret that was written into the wrong line.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from chatstream.config import words
from chatstream.errors import InvalidSettings

# Largest file, in bytes: hundreds of entries. A larger file must be something else.
_MOST_BYTES: Final = 1024 * 1024


class Table(BaseModel):
    """A table of a file. Unknown settings are refused, and types are not converted."""

    # `defer_build`: validators are built on first use, as most servers have no such file.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


Entry = TypeVar("Entry", bound=Table)


def read_table(
    table: type[Entry], given: Mapping[str, Any], stand_ins: Mapping[str, Any]
) -> tuple[Entry | None, list[Any]]:
    """Parse a table. Returns it with pydantic's errors; settings with errors are left out of it.

    `stand_ins`: values for required settings that are wrong or missing, so that the other settings can be checked at
    the same time. The table is None if it cannot be parsed even so.
    """
    try:
        return table.model_validate(given), []
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_input=False)
    wrong = {error["loc"][0] for error in errors if error["loc"]}
    left = {name: value for name, value in given.items() if name not in wrong}
    left |= {name: value for name, value in stand_ins.items() if name in wrong}
    try:
        return table.model_validate(left), [*errors]
    except ValidationError:
        return None, [*errors]


def document(path: Path, setting: str, most: int = _MOST_BYTES) -> dict[str, Any]:
    """Parse a file of at most `most` bytes. Raises `InvalidSettings`, which names the `setting` and the file."""
    import tomllib  # import on use: most servers have no such file

    try:
        if not path.is_file():
            there = "is not a file" if path.exists() else "does not exist"
            raise InvalidSettings([f"{setting}: {path} {there}"])
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as exc:
        raise InvalidSettings([f"{setting}: {path} cannot be read: {exc.strerror}"]) from exc
    if len(content) > most:
        raise InvalidSettings([f"{setting}: {path} is larger than {most // 1024:,} KiB"])
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InvalidSettings([f"{setting}: {path} is not UTF-8: save it as UTF-8"]) from None
    except RecursionError:
        raise InvalidSettings([f"{setting}: {path} is nested too deeply"]) from None
    except tomllib.TOMLDecodeError as exc:
        place = re.search(r"\(at (.+)\)$", str(exc))  # the text before may quote a value
        where = place[1] if place else "somewhere"
        raise InvalidSettings([f"{setting}: {path} is no TOML at {where} (texts stand in quotation marks)"]) from None


def strangers(given: Mapping[str, Any], known: Iterable[str]) -> Iterator[str]:
    """A line for each unknown name at the top level of the file."""
    known = [*known]
    for name in given:
        if name not in known:
            yield f"{quoted(name)}: there is no such setting{did_you_mean(name, known)}"


def named(kind: str, table: Mapping[str, Any], number: int) -> str:
    """Describe a table for an error message: by its name, or by its `number` if it has none."""
    name = table.get("name")
    return f"{kind} {quoted(name)}" if isinstance(name, str) and name else f"{kind} {number}, which has no name"


def quoted(text: str) -> str:
    """A name from the file in quotation marks, shortened and printable."""
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text[:80])
    return f'"{shown}"'


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The suffix of an error about an unknown `name`: the most similar known one, or empty."""
    near = get_close_matches(name, known, n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def explain(error: Any, table: type[Table]) -> str:
    """A line for one of pydantic's errors in a field of `table`."""
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{quoted(path)}: there is no such setting{did_you_mean(str(error['loc'][-1]), table.model_fields)}"
    return f"{path}: {_what(error, table)}"


def check_json(name: str, value: Any) -> None:
    """Raise `ValueError`, which mentions `name`, if a value cannot be written as JSON."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            check_json(name, each)
    elif not isinstance(value, str | bool | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{name} holds what JSON has no form for: a date, or a number that is none")


def _what(error: Any, table: type[Table]) -> str:
    plain = {
        "missing": "is missing",
        "string_type": "must be a text, in quotation marks",
        "bool_type": "must be true or false",
        "list_type": 'must be a list, such as ["a", "b"]',
        "too_long": "is too long a list",
        "tuple_type": 'must be a list, such as ["a", "b"]',
        "dict_type": "must be a table",
        "model_type": "must be a table",
    }
    field = table.model_fields.get(str(error["loc"][-1]))
    return plain.get(error["type"]) or words.explain(error, field.metadata if field else ())
