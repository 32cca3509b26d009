"""Checks the JSON Schemas of tools that are not Python functions, and validates arguments against them.

The library is imported only if there is such a tool.
"""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final
from urllib.parse import unquote

from chatstream.tools.tool import BadArguments

_MOST_PROBLEMS: Final = 5  # maximum number of errors in one call's arguments that are sent to the model
_LONGEST_PROBLEM: Final = 300  # code points of one error, which may quote the arguments


# What a schema's references may lead to, all followed, in references and in parts. Each may be followed for each value:
# a reference takes up to 0.2 ms, so 20 definitions of 200 bytes that lead to one another twice would take minutes.
# 10,000 parts are as many as the 32,000 characters of an app's tools have, and take some milliseconds to count.
_MOST_REFERENCES: Final = 1000
_MOST_PARTS: Final = 10_000

# Keywords by the part of a value that their schemas are for. All others are taken to be for the value itself.
_FOR_PROPERTIES: Final = ("patternProperties", "additionalProperties", "unevaluatedProperties")
_FOR_ITEMS: Final = ("items", "contains", "unevaluatedItems")
_BY_NAME: Final = ("patternProperties", "dependentSchemas", "dependencies")  # a schema for each name
_FOR_NOTHING: Final = ("$defs", "definitions", "default", "examples")

# A part of a value: a kind, and the property or the position; None for any.
_Place = tuple[str, str | int | None]


def check_references(schema: Mapping[str, Any]) -> None:
    """Raises `ValueError` if the references of a schema could make a validation long. Takes linear time.

    Only references to the schema's own parts, ``#/…``, are accepted. A recursive schema may lead on in one way only for
    each part of a value, as trees and lists do: with two ways, each level of the arguments would double the time.
    """
    parts: list[Any] = [schema]
    while parts:
        part = parts.pop()
        parts.extend(part.values() if isinstance(part, dict) else part if isinstance(part, list) else ())
        if isinstance(part, dict):
            _check_names(part, inner=part is not schema)
    try:
        _References(schema).follow(schema, set())
    except RecursionError:
        raise ValueError("must not have references that lead so far") from None


def _check_names(part: Mapping[str, Any], *, inner: bool) -> None:
    # An `$id` changes what references lead to; a dynamic one depends on the path.
    if any(isinstance(part.get(name), str) for name in ("$dynamicRef", "$recursiveRef")) or (
        inner and isinstance(part.get("$id"), str)
    ):
        raise ValueError("must not have dynamic references, or parts with an $id")
    target = part.get("$ref")
    if isinstance(target, str) and target != "#" and not target.startswith("#/"):
        raise ValueError("must only have references to its own parts: #/…")


class _References:
    """Follows the references of a schema as a validation of a value would."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._path: set[int] = set()  # the `id` of each schema that led here
        self._targets: dict[str, Any] = {}
        self._references = 0
        self._parts = 0

    def follow(self, schema: Any, leads: set[_Place], *, referred: bool = False) -> None:
        """Add to `leads` the parts of the value for which `schema` is recursive. Raises `ValueError`.

        `leads`: from the other schemas for the same value. `referred`: a reference has led here.
        """
        self._parts += referred
        if self._parts > _MOST_PARTS:
            raise ValueError(f"is too large: its references may lead to at most {_MOST_PARTS:,} parts")
        if isinstance(schema, list):
            for each in schema:
                self.follow(each, leads, referred=referred)
        if not isinstance(schema, dict):
            return
        self._path.add(id(schema))
        for keyword, value in schema.items():
            if keyword == "$ref" and isinstance(value, str):
                self._refer(value, leads)
            elif keyword == "properties" and isinstance(value, dict):
                for name, inner in value.items():
                    self._inner(inner, leads, ("property", name), referred=referred)
            elif keyword == "prefixItems" and isinstance(value, list):
                for position, inner in enumerate(value):
                    self._inner(inner, leads, ("item", position), referred=referred)
            elif keyword not in _FOR_NOTHING:
                several = keyword in _BY_NAME and isinstance(value, dict)
                for inner in value.values() if several else [value]:
                    if keyword in _FOR_PROPERTIES:
                        self._inner(inner, leads, ("property", None), referred=referred)
                    elif keyword in _FOR_ITEMS:
                        self._inner(inner, leads, ("item", None), referred=referred)
                    else:
                        self.follow(inner, leads, referred=referred)
        self._path.discard(id(schema))

    def _inner(self, schema: Any, leads: set[_Place], place: _Place, *, referred: bool) -> None:
        inner: set[_Place] = set()
        self.follow(schema, inner, referred=referred)
        if inner:
            _lead_on(leads, place)

    def _refer(self, target: str, leads: set[_Place]) -> None:
        self._references += 1
        if self._references > _MOST_REFERENCES:
            raise ValueError(f"must have at most {_MOST_REFERENCES:,} references, with those of what they lead to")
        if target not in self._targets:
            self._targets[target] = _part(self._root, target)
        part = self._targets[target]
        if id(part) in self._path:
            _lead_on(leads, ("value", None))
        else:
            self.follow(part, leads, referred=True)


def _lead_on(leads: set[_Place], place: _Place) -> None:
    """Add a place. Raises `ValueError` if there is one that may be the same."""
    kind, which = place
    whole = kind == "value" and leads
    if (
        whole
        or place in leads
        or not leads.isdisjoint({("value", None), (kind, None)})
        or (which is None and any(other == kind for other, _ in leads))
    ):
        raise ValueError("must not be recursive in more than one way for the same part of the arguments")
    leads.add(place)


def _part(root: Any, pointer: str) -> Any:
    """The part of the schema at a JSON pointer (RFC 6901); None if there is none."""
    part = root
    for name in unquote(pointer).split("/")[1:]:
        key = name.replace("~1", "/").replace("~0", "~")
        if isinstance(part, list) and key.isdecimal() and int(key[:9]) < len(part):
            part = part[int(key[:9])]
        else:
            part = part.get(key) if isinstance(part, Mapping) else None
    return part


def checking(schema: Mapping[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function that validates arguments: it returns them unchanged, or raises `BadArguments`.

    Raises `ValueError` unless `schema` describes an object (JSON Schema 2020-12). URLs in it are never fetched. Its
    patterns must be of the kind that runs in linear time, without look-around; for its references, see
    `check_references`.
    """
    import jsonschema_rs

    if schema.get("type") != "object":
        raise ValueError('must be the schema of an object: type = "object"')
    check_references(schema)
    try:
        validator = jsonschema_rs.Draft202012Validator(
            dict(schema),
            offline=True,
            mask="what was given",
            pattern_options=jsonschema_rs.RegexOptions(),
            validate_formats=True,
        )
    except (jsonschema_rs.ValidationError, ValueError) as exc:
        where = ".".join(map(str, getattr(exc, "instance_path", [])))
        raise ValueError(f"is no JSON Schema{f': {where} is wrong' if where else ''}") from exc

    def check(given: dict[str, Any]) -> dict[str, Any]:
        problems = [
            f"{'.'.join(map(str, one.instance_path)) or 'they'}: {one.message}"[:_LONGEST_PROBLEM]
            for one in islice(validator.iter_errors(given), _MOST_PROBLEMS)
        ]
        if problems:
            raise BadArguments("bad arguments: " + "; ".join(problems))
        return given

    return check
