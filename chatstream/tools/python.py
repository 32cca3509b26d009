"""Makes tools of plug-ins' functions, with schemas from their signatures."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, get_type_hints

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError

from chatstream.config.imported import described
from chatstream.errors import ConfigurationError
from chatstream.plugins.loading import Loaded
from chatstream.plugins.plugins import listed
from chatstream.plugins.threads import TooBusy
from chatstream.plugins.tool import Caller, ToolFailed, manner_of
from chatstream.tools.tool import BadArguments, Tool

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST_PROBLEMS: Final = 5  # maximum number of errors in one call's arguments that are sent to the model


class _Arguments(BaseModel):
    # Unknown arguments are refused, and types are not converted.
    model_config = ConfigDict(extra="forbid", strict=True)


def python_tools(loaded: Iterable[Loaded]) -> list[Tool]:
    """The tools of these plug-ins. Raises `ConfigurationError`, which names the faulty function."""
    return [_tool(each, function) for each in loaded for function in _listed_tools(each)]


def _listed_tools(plugin: Loaded) -> Iterable[Callable[..., Any]]:
    given = getattr(plugin.plugin, "tools", None)
    if given is None:
        return ()
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise ConfigurationError(
            f"CHATSTREAM_PLUGINS: {plugin.name}: `tools` must be a list of functions, and is {described(given)}"
        )
    return given


def _tool(plugin: Loaded, function: Callable[..., Any]) -> Tool:
    name = getattr(function, "__name__", "")
    where = f"CHATSTREAM_PLUGINS: {plugin.name}: the tool {name or function!r}"
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{where} must be a function whose name has up to 64 ASCII letters, digits, _ or -")
    manner = manner_of(function)
    try:
        model, callers = _model(name, function)
        schema = model.model_json_schema()
    except (PydanticUserError, TypeError, NameError, ValueError) as exc:
        raise ConfigurationError(f"{where}: its parameters must have types that JSON can have ({exc})") from exc
    schema.pop("title", None)
    if manner.ask is not None:
        try:
            inspect.signature(manner.ask).bind(**dict.fromkeys(model.model_fields))
        except (TypeError, ValueError) as exc:
            raise ConfigurationError(f"{where}: its `ask` must take the same parameters ({exc})") from exc

    def check(given: dict[str, Any]) -> dict[str, Any]:
        try:
            # In JSON mode, a list may be a tuple and a text a date, but a text is no number.
            checked = model.model_validate_json(msgspec.json.encode(given))
        except ValidationError as exc:
            raise BadArguments(_explained(exc)) from exc
        return {field: getattr(checked, field) for field in model.model_fields}

    async def run(arguments: Mapping[str, Any], caller: Caller) -> object:
        given = {**arguments, **dict.fromkeys(callers, caller)}
        try:
            if inspect.iscoroutinefunction(function):
                return await function(**given)
            return await plugin.threads["tools"].run(lambda: listed(function, **given))
        except TooBusy as exc:
            raise ToolFailed("not carried out: it is called too often at the moment") from exc
        except ValueError as exc:  # the function's message is for the model
            raise ToolFailed(str(exc)) from exc

    return Tool(
        name=name,
        description=inspect.cleandoc(function.__doc__ or ""),
        parameters=schema,
        manner=manner,
        check=check,
        run=run,
        source=plugin.name,
    )


def _model(name: str, function: Callable[..., Any]) -> tuple[type[BaseModel], list[str]]:
    """A pydantic model of the function's parameters, and the names of those whose values the server supplies."""
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    callers = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"{parameter.name} must be a parameter with a name")
        if parameter.name not in hints:
            raise TypeError(f"{parameter.name} has no type")
        hint = hints[parameter.name]
        if hint is Caller:
            callers.append(parameter.name)
            continue
        words = [text for text in getattr(hint, "__metadata__", ()) if isinstance(text, str)]
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hint, Field(default, description=words[0] if words else None))
    return create_model(name, __base__=_Arguments, **fields), callers


def _explained(exc: ValidationError) -> str:
    problems = exc.errors(include_url=False, include_input=False, include_context=False)
    said = [f"{'.'.join(map(str, each['loc'])) or 'they'}: {each['msg']}" for each in problems[:_MOST_PROBLEMS]]
    return "bad arguments: " + "; ".join(said)
