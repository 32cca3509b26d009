"""Imports and calls the Python function that a setting names, ``package.module:function``."""

import importlib
import inspect
import traceback
from typing import Any

from chatstream.errors import ConfigurationError


def made_by(setting: str, name: str) -> Any:
    """The function's result. Raises `ConfigurationError`, which names the `setting` and a possible mend."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise ConfigurationError(f"{setting}: {name}: it must be written as package.module:function")
    try:
        make = getattr(importlib.import_module(module), function)
        if not callable(make):
            raise TypeError(f"it is {described(make)}, not a function")  # noqa: TRY301 - told as all that goes wrong here
        return make()
    except (Exception, SystemExit) as exc:
        raise ConfigurationError(f"{setting}: {name} cannot be called: {_why(exc, module, function)}") from exc


def described(value: object) -> str:
    """The type of an unexpected value, for an error message: "a dict"."""
    if value is None:
        return "nothing (None)"
    kind = type(value).__name__
    return f"a{'n' if kind[0] in 'AEIOUaeiou' else ''} {kind}"


def _why(exc: BaseException, module: str, function: str) -> str:
    """The reason for the failure in one line, with the search path if a module is missing."""
    if isinstance(exc, ModuleNotFoundError) and exc.name is not None and f"{module}.".startswith(f"{exc.name}."):
        if module.endswith(".py"):
            return f"a module is named without .py: {module.removesuffix('.py')}:{function}"
        file = f"{exc.name.replace('.', '/')}.py"
        return (
            f"there is no module {exc.name}: {file} must be in the directory in which chatstream is started, in one of "
            "PYTHONPATH, or installed"
        )
    if isinstance(exc, AttributeError) and exc.name == function and inspect.ismodule(exc.obj):
        return f"there is no {function} in {getattr(exc.obj, '__file__', None) or module}"
    raised_in = [frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(exc.__traceback__)]
    if isinstance(exc, KeyError) and raised_in[-1:] == ["os"]:  # os.environ["SERVICE_URL"]
        return f"it needs the environment variable {exc.args[0]}: set it in the environment or in the env file"
    return " ".join(f"{type(exc).__name__}: {exc}".split())
