"""The openai package, without the nine tenths of it that this server does not use.

``import openai`` loads some 400 modules with a class for each object of OpenAI's API. That is half of the CPU time of a
start, and 25 MB of memory. Here only the client's own machinery is used. So the packages below ``openai.types`` and
``openai.lib`` are loaded only when other code, such as a plug-in, first uses one of their names.
"""

import sys
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from threading import get_ident
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["openai"]

_LAZY = ("openai.types", "openai.lib")
# `openai` imports these two functions from `openai.lib`, and importing them loads a third of the whole package. So
# `openai` gets stand-ins, which load the functions when they are called.
_FUNCTIONS = {"openai.lib": ("pydantic_function_tool", "pydantic_responses_function_tool")}


class _Finder(MetaPathFinder):
    """An import finder for the packages that are loaded lazily. The modules in these packages are loaded as usual."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Python's hook: return the module's loader; None leaves the module to other finders."""
        if not any(fullname == each or fullname.startswith(f"{each}.") for each in _LAZY):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None or spec.submodule_search_locations is None:
            return None
        spec.loader = _Later(spec.loader)
        return spec


class _Later(Loader):
    """A loader that runs a package's ``__init__.py`` when a missing name of the package is first used (PEP 562)."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def exec_module(self, module: ModuleType) -> None:
        """Python's hook, for a module that was just made."""

        running: set[int] = set()  # the threads that run it now

        def run(name: str) -> None:
            """Run it, unless it has run. Two threads may both do so: it only imports. A lock could wait for ever for a
            thread that waits for an import."""
            if "__getattr__" not in module.__dict__:
                return
            thread = get_ident()
            if thread in running:
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r} yet")
            running.add(thread)
            try:
                self._loader.exec_module(module)
            finally:
                running.discard(thread)
            module.__dict__.pop("__getattr__", None)

        def load(name: str) -> Any:
            if not name.startswith("__") and find_spec(f"{module.__name__}.{name}") is not None:
                return import_module(f"{module.__name__}.{name}")  # a module in the package: it needs no more of it
            run(name)
            return getattr(module, name)

        def call(name: str, *args: Any, **options: Any) -> Any:
            run(name)
            return getattr(module, name)(*args, **options)

        module.__dict__["__getattr__"] = load
        for name in _FUNCTIONS.get(module.__name__, ()):
            module.__dict__[name] = partial(call, name)


@contextmanager
def _loading_later() -> "Iterator[None]":
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


with _loading_later():
    import openai
