"""Marks functions as tools that a model may call; see `Plugin.tools` in README.md beside this file.

A tool is a function, `async` or not. Its name, the types of its parameters and its docstring describe it to the model.
It returns any JSON value, which the model and the user get. If it raises `ToolFailed` or `ValueError`, the call fails
and the model gets the text. After any other exception the model learns only that the call failed; for a tool with the
effect `once`, the outcome then counts as unknown.
"""

import inspect
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, TypeVar, overload

from msgspec import Struct

from chatstream.pieces import Effect
from chatstream.plugins.storage import NoStorage, Storage

Function = TypeVar("Function", bound=Callable[..., Any])
Choice = TypeVar("Choice", Effect, "Approval")

# Default time limit of a call, in seconds: the user waits for the answer meanwhile.
TIMEOUT: Final = 30.0
# Default time for a person to approve a call, in seconds: a day.
APPROVAL_TIMEOUT: Final = 86_400.0
_LONGEST_APPROVAL: Final = 30 * 86_400


class Approval(StrEnum):
    """Whether a person must approve a call before it runs."""

    NEVER = "never"
    ALWAYS = "always"


class Ask(Struct, frozen=True, kw_only=True):
    """The question to the person who approves a call."""

    text: str | None = None  # the question; without it, only the tool's name and the arguments are shown
    seconds: float | None = None  # time to approve, if less than the tool's `approval_timeout`


class Manner(Struct, frozen=True, kw_only=True):
    """How a tool may be used. The defaults are safe for an unknown tool."""

    effect: Effect = Effect.ONCE
    approval: Approval | None = None  # None: always if the effect is `once`, else never
    timeout: float = TIMEOUT
    approval_timeout: float = APPROVAL_TIMEOUT  # seconds until the approval expires
    ask: Callable[..., Ask] | None = None  # see `tool`

    @property
    def asks(self) -> bool:
        """Whether a person must approve a call."""
        return (self.approval or (Approval.ALWAYS if self.effect is Effect.ONCE else Approval.NEVER)) is Approval.ALWAYS


def _unheard(text: str) -> None:
    pass


class Caller(Struct, frozen=True, kw_only=True):
    """The user and the conversation of a call. A tool's parameter of this type gets it; the model does not see it.

    `key` is an idempotency key: it stays the same if the call is repeated. `progress` may be called from any thread;
    at most one text per second is shown.
    """

    user: str
    conversation: str
    answer: str
    key: str
    storage: Storage = NoStorage()  # the plug-in's documents about this user
    progress: Callable[[str], None] = _unheard  # shows the user a few words on how far the call is


class ToolFailed(Exception):
    """Raised by a tool that did nothing or failed. The model and the user get the text."""


class OutcomeUnknown(Exception):
    """Raised by a tool when it is unknown whether the call took effect."""


@overload
def tool(function: Function, /) -> Function: ...


@overload
def tool(
    *,
    effect: Effect | str = Effect.ONCE,
    approval: Approval | str | None = None,
    timeout: float = TIMEOUT,
    approval_timeout: float = APPROVAL_TIMEOUT,
    ask: Callable[..., Ask] | None = None,
) -> Callable[[Function], Function]: ...


def tool(
    function: Any = None,
    /,
    *,
    effect: Effect | str = Effect.ONCE,
    approval: Approval | str | None = None,
    timeout: float = TIMEOUT,
    approval_timeout: float = APPROVAL_TIMEOUT,
    ask: Callable[..., Ask] | None = None,
) -> Any:
    """Decorator that sets how a function is used as a tool; a bare ``@tool`` has the defaults.

    `timeout`: the time limit of a call in seconds, with the wait for a thread. `approval_timeout`: the seconds that a
    person has to approve a call.

    `ask` gets the call's arguments by name and returns the question for the person. If the call cannot succeed, it
    raises `ValueError` with a text for the model, and no person is asked. It runs on the event loop and must not block.

    Raises `ValueError` for wrong options.
    """
    if function is not None and not callable(function):
        raise ValueError('its options have names: @tool(effect="none")')
    if not _is_within(timeout, 86_400):
        raise ValueError("timeout must be a number of seconds, up to a day")
    if not _is_within(approval_timeout, _LONGEST_APPROVAL):
        raise ValueError("approval_timeout must be a number of seconds, up to 30 days")
    if inspect.iscoroutinefunction(ask):
        raise ValueError("ask must be a plain function, and not async")
    approves = None if approval is None else _one_of(Approval, approval, "approval")
    manner = Manner(
        effect=_one_of(Effect, effect, "effect"),
        approval=approves,
        timeout=timeout,
        approval_timeout=approval_timeout,
        ask=ask,
    )

    def mark(function: Function) -> Function:
        function.__chatstream_tool__ = manner  # type: ignore[attr-defined]  # where `manner_of` finds it
        return function

    return mark if function is None else mark(function)


def _is_within(given: object, most: float) -> bool:
    return isinstance(given, int | float) and 0 < given <= most


def _one_of(kind: type[Choice], given: str, name: str) -> Choice:
    try:
        return kind(given)
    except ValueError:
        raise ValueError(f"{name} must be one of {', '.join(kind)}") from None


def manner_of(function: Callable[..., Any]) -> Manner:
    """The function's options as a tool; the defaults if it is not decorated."""
    manner = getattr(function, "__chatstream_tool__", None)
    return manner if isinstance(manner, Manner) else Manner()
