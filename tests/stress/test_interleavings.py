"""Two processes in any order: a hundred interleavings and some. More: ``scripts/stress --interleavings``."""

import asyncio
import traceback

import pytest

from tests.stress.interleavings import play_all

# In four portions, which can be run beside each other.
PORTIONS = [range(first, first + 30) for first in range(1, 121, 30)]


# Seeds 13 and 54 are broken since an answer that nobody watched is not begun again by itself: a viewer is not told one
# end. Not explained yet, and not mended. Which seeds meet it depends on the machine's speed, so it is not strict.
@pytest.mark.xfail(strict=False, reason="a fault that is known and not mended yet: seeds 13 and 54")
@pytest.mark.parametrize("seeds", PORTIONS, ids=str)
def test_between_two_processes_nothing_is_lost_and_nothing_comes_twice(mongodb_uri: str, seeds: range) -> None:
    broken: list[str] = []

    def failed(seed: int, log: list[str], exc: BaseException) -> None:
        broken.append(f"seed {seed}: {''.join(traceback.format_exception(exc))}")

    asyncio.run(play_all(mongodb_uri, seeds, failed))
    assert not broken, "\n".join(broken)
