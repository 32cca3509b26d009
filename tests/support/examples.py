"""How many examples a property is tried with that needs a server."""

import os

# Each run has others; so many times as many are tried where somebody asks for it: TEST_EXAMPLES=10 scripts/test tests/…
_FACTOR = int(os.environ.get("TEST_EXAMPLES", "1"))


def examples(usual: int) -> int:
    """Usually so many."""
    return usual * _FACTOR
