"""What makes a function a tool that a model may call; see `Plugin.tools` in README.md beside this file.

A tool is a plain function, `async` or not. Its name, its parameters' types and its first lines say how it is called;
what it returns is any JSON, and is told to the model and to the user. What it raises fails the call: the text of a
`ToolFailed` or a `ValueError` is told to the model, of anything else only that it failed. Of a tool with the effect
`once` that raises anything else, nobody knows whether it was carried out.
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

# A person waits for the answer meanwhile.
TIMEOUT: Final = 30.0
# Somebody is asked today, and answers tomorrow.
APPROVAL_TIMEOUT: Final = 86_400.0
_LONGEST_APPROVAL: Final = 30 * 86_400


class Approval(StrEnum):
    """Whether a person has to agree before a call is carried out."""

    NEVER = "never"
    ALWAYS = "always"


class Ask(Struct, frozen=True, kw_only=True):
    """What a person is asked to agree to."""

    text: str | None = None  # in words, for people; without it, they see the tool's name and the arguments alone
    seconds: float | None = None  # how long they may agree to it, if that is less than the tool's `approval_timeout`


class Manner(Struct, frozen=True, kw_only=True):
    """How a tool may be used. The defaults are for one of which nothing is known."""

    effect: Effect = Effect.ONCE
    approval: Approval | None = None  # None: always for an effect that may happen once, else never
    timeout: float = TIMEOUT
    approval_timeout: float = APPROVAL_TIMEOUT  # seconds until nobody may agree any more
    ask: Callable[..., Ask] | None = None  # see `tool`

    @property
    def asks(self) -> bool:
        """A person has to agree."""
        return (self.approval or (Approval.ALWAYS if self.effect is Effect.ONCE else Approval.NEVER)) is Approval.ALWAYS


class Caller(Struct, frozen=True, kw_only=True):
    """For whom a call is made. A parameter of this type is given it, and is none of the model's.

    `key` is the same whenever this call is carried out again: under it, nothing should happen twice.
    """

    user: str
    conversation: str
    answer: str
    key: str
    storage: Storage = NoStorage()  # what the plug-in keeps about this user


class ToolFailed(Exception):
    """Raised by a tool: it was not carried out, or it failed. The text is for the model, and users see it."""


class OutcomeUnknown(Exception):
    """Raised by a tool: nobody knows whether it was carried out."""


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
    """Say how a function may be used as a tool. `timeout` is in seconds, and covers the wait for a thread;
    `approval_timeout`, too: so long a person may take to agree. A bare ``@tool`` has the defaults.

    `ask` makes of a call's arguments, which it gets by their names, what a person is asked. It raises `ValueError`, its
    text written for the model, if nobody need be asked, since the call cannot be carried out. It is called on the event
    loop and must not block.

    Raises `ValueError`, which says what is wrong.
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
    """How it may be used; the defaults if it does not say."""
    manner = getattr(function, "__chatstream_tool__", None)
    return manner if isinstance(manner, Manner) else Manner()
