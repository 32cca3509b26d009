"""Loads the plug-ins that a setting names: imports each one's function, calls it once and checks the result."""

import inspect
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from chatstream.config.imported import described, made_by
from chatstream.errors import ConfigurationError
from chatstream.llm.demo_answers import GENERAL, Subject
from chatstream.plugins.cards import Card
from chatstream.plugins.plugin import KIND, RULES, Hook, Plugin, Rule
from chatstream.plugins.threads import Threads

_SETTING = "CHATSTREAM_PLUGINS"
# Attributes that make an object a plug-in even if it has none of the methods.
_BROUGHT = ("tools", "system_prompt", "page_words", "demo", "cards")


class Loaded(Struct, frozen=True, eq=False):
    """A loaded plug-in, with the deadlines, rules and threads for calling its methods."""

    name: str  # as in the setting
    plugin: Plugin
    rules: dict[Hook, Rule]  # only for the methods that it has
    threads: Mapping[str, Threads]  # one pool per method and for `tools`: a hanging one blocks no other
    cards: Mapping[str, Mapping[str, bytes]] = {}  # for each kind of data: its card's files by name

    def has(self, hook: Hook) -> bool:
        """Whether the plug-in has this method."""
        return hook in self.rules

    def __str__(self) -> str:
        """The plug-in's name and what it has, for the operator: a method with a misspelt name is missing here."""
        brought = [name for name in _BROUGHT if getattr(self.plugin, name, None)]
        return f"{self.name} ({', '.join([*self.rules, *brought])})"


def load(names: Sequence[str]) -> list[Loaded]:
    """Load plug-ins named ``package.module:function``, in order. Raises `ConfigurationError` with a line per fault."""
    loaded, problems = [], []
    problems += [f"{_SETTING}: {name} is named twice" for name, times in Counter(names).items() if times > 1]
    for name in dict.fromkeys(names):
        try:
            loaded.append(_load(name))
        except ConfigurationError as exc:
            problems.append(str(exc))
    if problems:
        raise ConfigurationError("\n".join(problems))
    answerers = [each.name for each in loaded if each.has("answer")]
    if len(answerers) > 1:
        raise ConfigurationError(f"{_SETTING}: only one plug-in may answer, and these do: {', '.join(answerers)}")
    return loaded


def subject(loaded: Sequence[Loaded]) -> Subject:
    """The subject of made-up chats and demo answers: the `subject` of the first plug-in that has one."""
    said = (getattr(each.plugin, "demo", None) for each in loaded)
    return next((one for one in said if isinstance(one, Subject)), GENERAL)


def _load(name: str) -> Loaded:
    plugin = made_by(_SETTING, name)
    if inspect.iscoroutine(plugin):
        plugin.close()
        raise ConfigurationError(f"{_SETTING}: {name} must not be async: it is called once, before anything runs")
    if isinstance(plugin, type):
        raise ConfigurationError(
            f"{_SETTING}: {name} returns the class {plugin.__name__}: it must return an object of it"
        )
    rules = {hook: rule for hook, rule in RULES.items() if callable(getattr(plugin, hook, None))}
    brings = any(getattr(plugin, name, None) for name in _BROUGHT)
    if not rules and not brings:
        raise ConfigurationError(
            f"{_SETTING}: {name} returns {described(plugin)}, which has none of {', '.join((*RULES, *_BROUGHT))}"
        )
    if misfits := [*_misfits(plugin)]:
        raise ConfigurationError("\n".join(f"{_SETTING}: {name}: {misfit}" for misfit in misfits))
    if not isinstance(getattr(plugin, "demo", GENERAL), Subject):
        raise ConfigurationError(f"{_SETTING}: {name}: `demo` must be a Subject of chatstream.llm.demo_answers")
    if "answer" in rules and not inspect.isasyncgenfunction(plugin.answer):
        raise ConfigurationError(f"{_SETTING}: {name}: `answer` must be an async generator (async def … yield)")
    for hook in rules:
        problem = _unfit(getattr(plugin, hook), arguments=3 if hook == "release" else 1)
        if problem:
            raise ConfigurationError(f"{_SETTING}: {name}: `{hook}` {problem}")
    deadlines, problems = _settings_of(plugin, "deadlines", rules)
    for hook, deadline in deadlines.items():
        if isinstance(deadline, bool) or not isinstance(deadline, int | float) or not 0 < deadline < math.inf:
            problems.append(f"the deadline of `{hook}` must be a number of seconds")
        else:
            rules[hook] = rules[hook]._replace(deadline=deadline)
    failures, unknown = _settings_of(plugin, "failures", rules)
    problems += unknown
    for hook, rule in failures.items():
        if rule not in ("open", "closed"):
            problems.append(f'the failure rule of `{hook}` must be "open" or "closed"')
        else:
            rules[hook] = rules[hook]._replace(open=rule == "open")
    if problems:
        raise ConfigurationError("\n".join(f"{_SETTING}: {name}: {problem}" for problem in problems))
    return Loaded(name, plugin, rules, threads(name), _cards(name, plugin))


def threads(name: str) -> Mapping[str, Threads]:
    """The threads for a plug-in's blocking methods."""
    return {each: Threads(f"{name} {each}") for each in (*RULES, "tools")}


def _cards(name: str, plugin: Plugin) -> Mapping[str, Mapping[str, bytes]]:
    given = getattr(plugin, "cards", None) or {}
    if not isinstance(given, Mapping) or not all(isinstance(card, Card) for card in given.values()):
        raise ConfigurationError(
            f"{_SETTING}: {name}: `cards` must have a Card of chatstream.plugins.cards for each kind"
        )
    for kind in given:
        if not isinstance(kind, str) or not KIND.fullmatch(kind):
            raise ConfigurationError(f"{_SETTING}: {name}: `cards` names {kind!r}, which is no kind of data")
    try:
        return {kind: card.read(kind) for kind, card in given.items()}
    except ValueError as exc:
        raise ConfigurationError(f"{_SETTING}: {name}: `cards`: {exc}") from exc


def _misfits(plugin: Plugin) -> Iterator[str]:
    """Faults in the plug-in's attributes and methods. A method that is None counts as missing."""
    for hook in RULES:
        method = getattr(plugin, hook, None)
        if method is not None and not callable(method):
            yield f"`{hook}` must be a method, and is {described(method)}"
        elif hook != "answer" and inspect.isasyncgenfunction(method):
            yield f"`{hook}` must return what it has, and not yield it (async def … yield)"
    prompt = getattr(plugin, "system_prompt", None)
    if prompt is not None and not isinstance(prompt, str):
        yield f"`system_prompt` must be a text, and is {described(prompt)}"
    words = getattr(plugin, "page_words", None)
    if words is not None:
        try:
            msgspec.convert(words, dict[str, dict[str, str | tuple[str, ...]]])
        except msgspec.ValidationError as exc:
            yield f"`page_words` must have names and texts for each language: {exc}"


def _unfit(method: Any, *, arguments: int) -> str | None:
    try:
        inspect.signature(method).bind(*range(arguments))
    except TypeError:
        return f"must take {arguments} argument{'s' if arguments > 1 else ''} besides self"
    except ValueError:  # written in C: it has no signature to check
        return None
    return None


def _settings_of(plugin: Plugin, attribute: str, rules: dict[Hook, Rule]) -> tuple[dict[Hook, Any], list[str]]:
    """Return the plug-in's valid settings by method, and error messages for the invalid ones."""
    given = getattr(plugin, attribute, None) or {}
    if not isinstance(given, dict):
        return {}, [f"`{attribute}` must be a dict by names of methods, and is {described(given)}"]
    unknown = [f"`{attribute}` names {hook!r}, which is no method of it" for hook in given if hook not in rules]
    return {hook: value for hook, value in given.items() if hook in rules}, unknown
