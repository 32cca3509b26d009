"""What is said of a file of settings that is wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

from chatstream.errors import InvalidSettings

SECRET = "sk-hunter2-must-never-be-seen"


def problems(setting: str, read: Callable[[Path, str], object], directory: Path, text: str) -> list[str]:
    """What `read` says of `text` in the file that `setting` names, a line each; never with `SECRET` in it."""
    with pytest.raises(InvalidSettings) as refused:
        read(directory, text)
    assert "hunter2" not in str(refused.value)
    assert all(line.startswith(f"{setting}: ") for line in refused.value.problems)
    return [line.removeprefix(f"{setting}: ") for line in refused.value.problems]
