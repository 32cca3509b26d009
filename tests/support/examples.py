"""The number of examples of a property test that needs a server."""

import os

# Each run has other examples. To try ten times as many: TEST_EXAMPLES=10 scripts/test tests/……
_FACTOR = int(os.environ.get("TEST_EXAMPLES", "1"))


def examples(usual: int) -> int:
    """Hypothesis settings with this number of examples, times `TEST_EXAMPLES`."""
    return usual * _FACTOR
