"""The vendored libraries are what their packages hold, byte for byte."""

import subprocess

from tests.support.processes import REPOSITORY


def test_nothing_was_changed_in_the_vendored_libraries() -> None:
    checked = subprocess.run(["scripts/vendor", "--check"], cwd=REPOSITORY, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
