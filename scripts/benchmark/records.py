"""The results in a file, one JSON object a line; the first describes the machine. All tables and pictures are made from
them.
"""

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
    """The lines of one file. Existing results are not measured again."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: list[dict[str, Any]] = []
        if file.exists():
            self.lines = [json.loads(line) for line in file.read_text().splitlines()]

    def add(self, line: dict[str, Any]) -> None:
        """Add a result and write it at once, so that an interrupted benchmark continues from there."""
        self.lines.append(line)
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")

    @property
    def machine(self) -> dict[str, Any]:
        """The result of `machine.describe`; empty if the file has none."""
        return next((line["machine"] for line in self.lines if "machine" in line), {})

    def keys(self) -> set[Key]:
        """The keys of the successful measurements."""
        return {key(line) for line in self.lines if "figures" in line}

    def servers(self) -> list[str]:
        """The measured servers, in the order of their measurement."""
        return list(dict.fromkeys(line["server"] for line in self.lines if "figures" in line))

    def rounds(self) -> int:
        """The number of rounds of the most often measured scenario."""
        return max((line["round"] + 1 for line in self.lines if "figures" in line), default=0)

    def median(self, scenario: str, server: str, figure: str) -> float | None:
        """The median of a figure over the rounds; None without any."""
        values = [line["figures"].get(figure) for line in self._of(scenario, server)]
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    def worst(self, scenario: str, server: str, figure: str) -> float:
        """The highest value of a figure over the rounds; 0 without any."""
        return max((line["figures"].get(figure) or 0 for line in self._of(scenario, server)), default=0)

    def ranges(self, scenario: str, figure: str) -> list[tuple[float, float, float]]:
        """The points of a growth curve: the size, and the lowest and the highest cost of the rounds."""
        found = sorted(self._values(scenario, figure).items())
        return [(size, min(values), max(values)) for size, values in found]

    def points(self, scenario: str, figure: str) -> list[tuple[float, float]]:
        """The points of a growth curve: the size, and the median cost."""
        return [(size, statistics.median(found)) for size, found in sorted(self._values(scenario, figure).items())]

    def _values(self, scenario: str, figure: str) -> dict[float, list[float]]:
        values: dict[float, list[float]] = {}
        for line in self.lines:
            if line.get("scenario") == scenario and (value := line.get("figures", {}).get(figure)) is not None:
                values.setdefault(line["size"], []).append(value)
        return values

    def errors(self) -> list[str]:
        """The error messages of failed measurements, except those that succeeded later."""
        done = self.keys()
        return [
            f"{line['scenario']}, {line['server']}: {line['error']}"
            for line in self.lines
            if "error" in line and key(line) not in done
        ]

    def _of(self, scenario: str, server: str) -> list[dict[str, Any]]:
        lines = [line for line in self.lines if "figures" in line]
        return [line for line in lines if line["scenario"] == scenario and line["server"] == server]
