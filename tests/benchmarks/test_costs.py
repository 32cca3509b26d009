"""The hot path costs at most 2.5 times its earlier cost. The test guards against the fourfold cost that one innocent
line can cause; `scripts/bench` measures exactly.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.support.processes import REPOSITORY

pytestmark = pytest.mark.xdist_group("costs")  # measured once for all tests

# In passes of the reference loop (`costs.py`), 2.5 times the measurements on a busy machine in November 2026: 3.1 to
# 4.3 for decoding a chunk (5.5 line by line), 4.4 for one of the Responses API, 1.3 to 1.4 for its frame (2.3 with a
# look at each piece, 3.2 as an event that is made and encoded), 0.9 for a lean one, 0.4 for keeping it (1.4 with such
# a look), 8.8 to 9.6 for sending to one viewer of a hundred (31 if it were encoded for each).
BOUNDS = {"decode": 8.5, "decode_responses": 11.0, "encode": 3.4, "encode_lean": 2.3, "keep": 1.0, "fan_out": 24.0}
# Calls are counted exactly, so a tenth more than the 93 of November 2026 is enough. There would be 152 if a task were
# woken for each chunk, and the chunk passed through the model's generators.
BOUNDS["calls_for_a_chunk_alone"] = 102.0


@pytest.fixture(scope="module")
def costs() -> dict[str, float]:
    """Measure in a separate process: coverage, which traces this process, slows down our code, but not the reference
    loop.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "COV_"))}
    command = [sys.executable, "-m", "tests.benchmarks.costs"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, check=True, timeout=60)
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("step", BOUNDS)
def test_a_chunk_costs_what_it_did(costs: dict[str, float], step: str) -> None:
    assert costs[step] < BOUNDS[step]
