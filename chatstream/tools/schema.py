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


# The most references that a declared schema may have, with those inside of what they lead to. Each may be followed for
# each value, at up to 0.2 ms: 20 definitions of 200 bytes that lead to one another twice would take minutes.
_MOST_REFERENCES: Final = 1000


def check_references(schema: Mapping[str, Any]) -> None:
    """For a schema that a user declared. Raises `ValueError` if its references could make a validation long.

    Only references to the schema's own parts, ``#/…``, are accepted.
    """
    try:
        if _references(schema, schema, {}, frozenset()) > _MOST_REFERENCES:
            raise ValueError(f"must have at most {_MOST_REFERENCES:,} references, with those of what they lead to")
    except RecursionError:
        raise ValueError("must not have references that lead so far") from None


def _references(node: Any, root: Mapping[str, Any], known: dict[str, int], followed: frozenset[str]) -> int:
    """The references in `node`, and in what they lead to. A recursive one counts once.

    `known`: their numbers for earlier targets. `followed`: the targets that led to `node`.
    """
    if isinstance(node, list):
        return sum(_references(each, root, known, followed) for each in node)
    if not isinstance(node, dict):
        return 0
    # An `$id` changes what references lead to; a dynamic one depends on the path.
    if any(isinstance(node.get(name), str) for name in ("$dynamicRef", "$recursiveRef")) or (
        node is not root and isinstance(node.get("$id"), str)
    ):
        raise ValueError("must not have dynamic references, or parts with an $id")
    count = sum(_references(each, root, known, followed) for each in node.values())
    target = node.get("$ref")
    if isinstance(target, str):
        if target != "#" and not target.startswith("#/"):
            raise ValueError("must only have references to its own parts: #/…")
        if target not in known and target not in followed:
            known[target] = _references(_part(root, target), root, known, followed | {target})
        count += 1 + known.get(target, 0)
    return count


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
    patterns must be of the kind that runs in linear time, without look-around.
    """
    import jsonschema_rs

    if schema.get("type") != "object":
        raise ValueError('must be the schema of an object: type = "object"')
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
