"""The error messages for wrong settings: one line each."""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic_core import ErrorDetails

# Metadata for a field's `Annotated`: the unit of its number.
SECONDS = "seconds"
SECONDS_OR_NEVER = "seconds, or never"

# Prefixes that other programs use, too: a variable with one counts as misspelt only if it is very similar to ours.
_SHARED = {
    "OPENAI_API_KEY": ("OPENAI_KEY", "OPENAI_TOKEN", "OPENAI_API_TOKEN", "OPENAI_SECRET", "OPENAI_SECRET_KEY"),
    "OPENAI_BASE_URL": ("OPENAI_API_BASE", "OPENAI_URL", "OPENAI_API_URL", "OPENAI_ENDPOINT", "OPENAI_HOST"),
    "OPENAI_MODEL": ("OPENAI_MODEL_NAME", "OPENAI_DEFAULT_MODEL", "OPENAI_API_MODEL"),
    "JWT_SECRET": ("JWT_KEY", "JWT_SECRET_KEY", "JWT_SIGNING_KEY", "SECRET_JWT"),
    "MONGODB_URI": ("MONGO_URI", "MONGO_URL", "MONGODB_URL", "MONGO_DB_URI", "MONGODB_CONNECTION_STRING"),
    "MONGODB_DATABASE": ("MONGO_DATABASE", "MONGODB_DB", "MONGO_DB", "MONGODB_NAME", "MONGODB_DB_NAME"),
}  # fmt: skip
_OURS = "CHATSTREAM_"


def explain(error: ErrorDetails, marks: Sequence[Any] = ()) -> str:
    """Say what is wrong with a value, without quoting it. `marks`: the metadata of its field."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return error["msg"].removeprefix("Value error, ")
    if kind in ("enum", "literal_error"):
        return f"must be one of {context['expected'].replace(chr(39), '')}"
    if kind.startswith("bool"):
        return "must be on or off"
    if kind.startswith(("int_", "float_", "greater_", "less_", "finite_")):
        return _number(kind, marks)
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "string_too_long":
        return f"may have at most {context['max_length']:,} characters"
    return "is not of the form that `chatstream settings` shows"


def _number(kind: str, marks: Sequence[Any]) -> str:
    bounds = _bounds(marks)
    unit = next((mark for mark in marks if mark in (SECONDS, SECONDS_OR_NEVER)), None)
    if unit:
        return f"must be {unit}{f' ({bounds})' if bounds else ''}: a number without a unit"
    whole = "" if kind.startswith("float") else "whole "
    return f"must be a {whole}number{f', {bounds}' if bounds else ''}"


def _bounds(marks: Sequence[Any]) -> str:
    def bound(*names: str) -> Any:
        return next((getattr(mark, name) for mark in marks for name in names if hasattr(mark, name)), None)

    least, most = bound("ge", "gt"), bound("le", "lt")
    if least is not None and most is not None:
        return f"{least:,} to {most:,}"
    return f"{least:,} or more" if least is not None else f"{most:,} or less" if most is not None else ""


def unknown(name: str, known: Collection[str]) -> str:
    """The message for an unknown ``CHATSTREAM_`` name."""
    near = _nearest(name, known)
    return f"{name}: there is no such setting" + (f"; did you mean {near}?" if near else "")


def _nearest(name: str, known: Collection[str]) -> str | None:
    rest = name.upper().removeprefix(_OURS)
    if rest in known:  # CHATSTREAM_JWT_SECRET
        return rest
    names = {each.removeprefix(_OURS): each for each in known}
    for near in get_close_matches(rest, names, n=1, cutoff=0.7):
        return names[near]
    # A word is missing or extra: CHATSTREAM_HEARTBEAT, CHATSTREAM_LOGLEVEL.
    words = {*rest.split("_")}
    candidates = [each for each in names if words <= {*each.split("_")}]
    return names[candidates[0]] if len(candidates) == 1 else None


def mistaken(names: Collection[str], known: Collection[str]) -> Mapping[str, str]:
    """The misspelt ones among `names`, each with the setting it resembles, if that setting itself is not given."""
    found = {}
    for ours, others in _SHARED.items():
        if ours in names:
            continue
        for name in names:
            upper = name.upper()
            begins = upper.startswith(("OPENAI_", "JWT_", "MONGO"))
            # 0.9 is six letters of seven: OPENAI_BASEURL counts as misspelt, OPEN_AI_KEY is another program's.
            if name not in known and (upper in others or (begins and get_close_matches(upper, [ours], cutoff=0.9))):
                found[name] = ours
    return found
