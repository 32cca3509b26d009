"""Checks that logs, metrics and errors contain nothing confidential: tokens, tickets, keys, prompts, texts of messages.

The clients and the scripted model of the tests `remember` what they send; `check` searches a server's output for them:
its log and metrics when it stops, each error when it arrives.
"""

import json
import re
from collections.abc import Iterable

from chatstream.plugins.bets import Bets

# Lengths in characters. Shorter texts ("Tell me.") may be in a log for other reasons; of longer ones the beginning is
# enough.
_SHORTEST, _LONGEST = 12, 100
# The fewest different characters of a secret: "aaaaaaaaaaaa" may be an id in another test.
_FEWEST_CHARACTERS = 3

_PATTERNS = (
    re.compile(r"eyJ[\w-]{8,}\.[\w-]+"),  # a JSON Web Token
    re.compile(r"\bsk-[\w-]{4,}"),  # a key for a model's API
)
# What was remembered, as it is and as JSON writes it, by its first `_SHORTEST` characters: a run remembers thousands of
# texts, and to search each of them in each log would take minutes.
_remembered: dict[str, set[str]] = {}


def remember(*texts: object) -> None:
    """Remember a confidential text. Other values and short texts are ignored."""
    for text in texts:
        if isinstance(text, str) and len(text) >= _SHORTEST and len(set(text)) > _FEWEST_CHARACTERS:
            for form in _forms(text[:_LONGEST]):
                _remembered.setdefault(form[:_SHORTEST], set()).add(form)


def check(text: str, where: str, *, also: Iterable[str] = ()) -> None:
    """Raises `AssertionError` if `text` contains anything confidential. `also`: the secrets of this one server."""
    found = [match[0] for pattern in _PATTERNS if (match := pattern.search(text))]
    found += [form for secret in (Bets.system_prompt, *filter(None, also)) for form in _forms(secret) if form in text]
    for start in range(len(text) - _SHORTEST + 1):
        if (beginning := text[start : start + _SHORTEST]) in _remembered:
            found += [form for form in _remembered[beginning] if text.startswith(form, start)]
    assert not found, f"confidential, but in {where}: {found}"


def _forms(text: str) -> set[str]:
    """The text as it is, and as JSON writes it."""
    return {text, json.dumps(text)[1:-1]}
