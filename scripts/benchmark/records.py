"""Results in a file, one JSON object a line; the first describes the machine. Whatever is shown is made of them."""

import json
import statistics
from pathlib import Path
from typing import Any

Key = tuple[str, str, int, float | None]
"""The scenario, the server, the round, and of a growth curve how much there was."""


def key(line: dict[str, Any]) -> Key:
    """Return the key of a line with a measurement."""
    return line["scenario"], line["server"], line["round"], line.get("size")


class Records:
    """The lines of one file. What is there already need not be measured again."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: list[dict[str, Any]] = []
        if file.exists():
            self.lines = [json.loads(line) for line in file.read_text().splitlines()]

    def add(self, line: dict[str, Any]) -> None:
        """Write it at once: an interrupted benchmark goes on from there."""
        self.lines.append(line)
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")

    @property
    def machine(self) -> dict[str, Any]:
        """What `machine.describe` found; empty if it is not there."""
        return next((line["machine"] for line in self.lines if "machine" in line), {})

    def keys(self) -> set[Key]:
        """What was measured, and did not fail."""
        return {key(line) for line in self.lines if "figures" in line}

    def servers(self) -> list[str]:
        """Those that were measured, in the order in which they came."""
        return list(dict.fromkeys(line["server"] for line in self.lines if "figures" in line))

    def rounds(self) -> int:
        """How often the most measured scenario was."""
        return max((line["round"] + 1 for line in self.lines if "figures" in line), default=0)

    def median(self, scenario: str, server: str, figure: str) -> float | None:
        """Over the rounds; None if there is none."""
        values = [line["figures"].get(figure) for line in self._of(scenario, server)]
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    def worst(self, scenario: str, server: str, figure: str) -> float:
        """The highest over the rounds; 0 if there is none."""
        return max((line["figures"].get(figure) or 0 for line in self._of(scenario, server)), default=0)

    def ranges(self, scenario: str, figure: str) -> list[tuple[float, float, float]]:
        """Of a growth curve: how much there was, and the least and the most that it cost in a round."""
        found = sorted(self._values(scenario, figure).items())
        return [(size, min(values), max(values)) for size, values in found]

    def points(self, scenario: str, figure: str) -> list[tuple[float, float]]:
        """Of a growth curve: how much there was, and the median of what it cost."""
        return [(size, statistics.median(found)) for size, found in sorted(self._values(scenario, figure).items())]

    def _values(self, scenario: str, figure: str) -> dict[float, list[float]]:
        values: dict[float, list[float]] = {}
        for line in self.lines:
            if line.get("scenario") == scenario and (value := line.get("figures", {}).get(figure)) is not None:
                values.setdefault(line["size"], []).append(value)
        return values

    def errors(self) -> list[str]:
        """What failed, in words; not what was measured later all the same."""
        done = self.keys()
        return [
            f"{line['scenario']}, {line['server']}: {line['error']}"
            for line in self.lines
            if "error" in line and key(line) not in done
        ]

    def _of(self, scenario: str, server: str) -> list[dict[str, Any]]:
        lines = [line for line in self.lines if "figures" in line]
        return [line for line in lines if line["scenario"] == scenario and line["server"] == server]
