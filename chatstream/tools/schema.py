"""Checks the JSON Schemas of tools that are not Python functions, and validates arguments against them.

The library is imported only if there is such a tool.
"""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final

from chatstream.tools.tool import BadArguments

_MOST_PROBLEMS: Final = 5  # maximum number of errors in one call's arguments that are sent to the model
_LONGEST_PROBLEM: Final = 300  # code points of one error, which may quote the arguments


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
