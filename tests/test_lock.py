"""The lock files have all packages that pyproject.toml requires, each with one version and its hashes."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SHIPPED = [*PROJECT["project"]["dependencies"], *chain(*PROJECT["project"]["optional-dependencies"].values())]
DEVELOPMENT = PROJECT["dependency-groups"]["dev"]


def locked(name: str) -> dict[str, list[str]]:
    """The versions of each package in a lock file: several where they depend on the platform."""
    versions: dict[str, list[str]] = {}
    for entry in re.split(r"\n(?=[a-z0-9])", (ROOT / "conf" / name).read_text(), flags=re.IGNORECASE):
        pin = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]+\])?==(\S+)", entry)
        assert pin, entry
        assert "--hash=sha256:" in entry
        versions.setdefault(canonicalize_name(pin[1]), []).append(pin[2])
    return versions


@pytest.mark.parametrize(
    ("name", "asked_for"),
    [
        ("requirements.txt", SHIPPED),
        ("requirements-dev.txt", SHIPPED + DEVELOPMENT),
        ("requirements-bench.txt", PROJECT["dependency-groups"]["bench"]),
    ],
)
def test_what_is_asked_for_is_locked(name: str, asked_for: list[str]) -> None:
    versions = locked(name)
    for requirement in map(Requirement, asked_for):
        found = versions[canonicalize_name(requirement.name)]
        assert any(requirement.specifier.contains(version) for version in found), (str(requirement), found)
