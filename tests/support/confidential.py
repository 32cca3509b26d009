"""What nobody may find in a log, in the metrics or in an error: tokens, tickets, keys, prompts, and what was written.

The clients and the scripted model of the tests `remember` what they send; whatever a server says for others to read is
held against it (`check`): its log and its metrics when it stops, each error when it arrives.
"""

import json
import re
from collections.abc import Iterable

from chatstream.plugins.bets import Bets

# Shorter texts ("Tell me.") may well stand in a log for other reasons; of longer ones the beginning is enough.
_SHORTEST, _LONGEST = 12, 100
# "aaaaaaaaaaaa" is nobody's secret, but may be anybody's id.
_FEWEST_CHARACTERS = 3

_PATTERNS = (
    re.compile(r"eyJ[\w-]{8,}\.[\w-]+"),  # a JSON Web Token
    re.compile(r"\bsk-[\w-]{4,}"),  # a key of the model's
)
_remembered: set[str] = set()


def remember(*texts: object) -> None:
    """Something that was written in confidence. What is no text, or a short one, is not kept."""
    for text in texts:
        if isinstance(text, str) and len(text) >= _SHORTEST and len(set(text)) > _FEWEST_CHARACTERS:
            _remembered.add(text[:_LONGEST])


def check(text: str, where: str, *, also: Iterable[str] = ()) -> None:
    """Raises `AssertionError` if there is anything confidential in `text`; `also` are secrets of this one server."""
    found = [match[0] for pattern in _PATTERNS if (match := pattern.search(text))]
    secrets = [*_remembered, Bets.system_prompt, *filter(None, also)]
    found += [secret for secret in secrets if secret in text or json.dumps(secret)[1:-1] in text]
    assert not found, f"confidential, but in {where}: {found}"
