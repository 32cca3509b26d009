"""The capacity for a number of file descriptors."""

import subprocess
import sys

import pytest

from chatstream.capacity import Capacity
from tests.support.processes import REPOSITORY


@pytest.mark.parametrize(
    ("descriptors", "connections", "streams"),
    [(8, 2, 2), (256, 96, 72), (1024, 480, 416), (20_000, 9968, 9904), (1_048_576, 524_256, 524_192)],
)
def test_each_stream_has_a_descriptor_and_one_for_its_answer(descriptors: int, connections: int, streams: int) -> None:
    capacity = Capacity.of(descriptors)
    assert capacity == Capacity(connections=connections, streams=streams, answers=connections)


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    """In a separate process: a lowered hard limit cannot be raised again."""
    script = (
        "import resource\n"
        "from chatstream.capacity import raise_descriptor_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 500))\n"
        "assert raise_descriptor_limit() == 500\n"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == (500, 500)\n"
        "assert raise_descriptor_limit() == 500\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True)
