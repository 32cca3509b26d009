"""The stress scenarios in short: one of each kind of fault, one seed each. The rest: ``scripts/stress``.

The result does not depend on the seed. To repeat a run with its seed: ``scripts/stress --seed N --short``.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stress.scenarios import SCENARIOS, SHORT, play
from tests.support.data_directory import data_directory
from tests.support.replica_set import ReplicaSet

SEED = 1


@pytest.fixture(scope="module")
def mongo() -> Iterator[ReplicaSet]:
    """A database for this module alone, which the scenarios kill and stop."""
    with data_directory() as directory, ReplicaSet(directory) as mongo:
        yield mongo


@pytest.mark.parametrize("name", SHORT)
def test_no_rule_is_broken(name: str, mongo: ReplicaSet, tmp_path: Path) -> None:
    assert SCENARIOS[name].nodes == len(mongo.nodes)
    assert asyncio.run(play(name, SEED, tmp_path / name, mongo, short=True)) == [], f"seed {SEED}"
