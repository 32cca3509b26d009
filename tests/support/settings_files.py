"""The error messages for a wrong file of settings."""

from collections.abc import Callable
from pathlib import Path

import pytest

from chatstream.errors import InvalidSettings

SECRET = "sk-hunter2-must-never-be-seen"


def problems(setting: str, read: Callable[[Path, str], object], directory: Path, text: str) -> list[str]:
    """The error messages of `read` for a file with `text`, which `setting` names, line by line. Fails if one contains
    `SECRET`.
    """
    with pytest.raises(InvalidSettings) as refused:
        read(directory, text)
    assert "hunter2" not in str(refused.value)
    assert all(line.startswith(f"{setting}: ") for line in refused.value.problems)
    return [line.removeprefix(f"{setting}: ") for line in refused.value.problems]
