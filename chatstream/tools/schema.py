"""A tool's JSON Schema where there is no signature that it could come from: what it may be, and how it is applied.

The library is loaded when there is such a tool.
"""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final

from chatstream.tools.tool import BadArguments

_MOST_PROBLEMS: Final = 5  # of one call's arguments: enough for a model to mend
_LONGEST_PROBLEM: Final = 300  # code points: a message may name what the model has written


def checking(schema: Mapping[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What checks arguments. It returns them as they are, or raises `BadArguments`.

    Raises `ValueError` unless `schema` describes an object (JSON Schema 2020-12). No address in it is asked, and its
    patterns take time that is linear in what a model has written, so that they can do less: no look-around.
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
