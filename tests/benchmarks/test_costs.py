"""The hot path costs no more than twice and a half what it did. A guard against the fourfold, which one innocent line
can bring; `scripts/bench` is what measures."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.processes import REPOSITORY

pytestmark = pytest.mark.xdist_group("costs")  # measured once, for all of them

# In passes of the reference loop (`costs.py`), 2.5 times what was measured on a busy machine in November 2026: 3.1 to
# 4.3 for decoding a chunk (5.5 line by line), 4.4 for one of the Responses API, 1.3 to 1.4 for its frame (2.3 with a
# look at each piece, 3.2 as an event that is made and encoded), 0.9 for a lean one, 0.4 for keeping it (1.4 with such
# a look), 8.8 to 9.6 for telling one viewer of a hundred (31 if each had it encoded anew).
BOUNDS = {"decode": 8.5, "decode_responses": 11.0, "encode": 3.4, "encode_lean": 2.3, "keep": 1.0, "fan_out": 24.0}
# These are counted, so a tenth more than the 93 of November 2026 is enough. There are 152 if a task is woken for each
# chunk, which then comes through the model's generators alone.
BOUNDS["calls_for_a_chunk_alone"] = 102.0


@pytest.fixture(scope="module")
def costs() -> dict[str, float]:
    """Measured in a process of its own: coverage, which traces this one, makes our code slower, and the loop not."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "COV_"))}
    command = [sys.executable, "-m", "tests.benchmarks.costs"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, check=True, timeout=60)
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("step", BOUNDS)
def test_a_chunk_costs_what_it_did(costs: dict[str, float], step: str) -> None:
    assert costs[step] < BOUNDS[step]
