"""Two processes in any order: two hundred interleavings. Thousands more: ``scripts/stress --interleavings``."""

import asyncio
import traceback

import pytest

from tests.stress.interleavings import play_all

# The seeds, in portions that can run concurrently.
PORTIONS = [range(first, first + 16) for first in range(1, 209, 16)]


@pytest.mark.unmeasured
@pytest.mark.parametrize("seeds", PORTIONS, ids=str)
def test_between_two_processes_nothing_is_lost_and_nothing_comes_twice(mongodb_uri: str, seeds: range) -> None:
    broken: list[str] = []

    def failed(seed: int, log: list[str], exc: BaseException) -> None:
        broken.append(f"seed {seed}: {''.join(traceback.format_exception(exc))}")

    asyncio.run(play_all(mongodb_uri, seeds, failed))
    assert not broken, "\n".join(broken)
