"""The reports that scripts/bench makes of its results. Measuring itself needs a quiet machine, so no test does it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmark import report
from scripts.benchmark.records import Records


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "results.jsonl")


def measured(records: Records, scenario: str, server: str, *values: Mapping[str, float], **more: Any) -> None:
    """One line for each round."""
    for number, figures in enumerate(values):
        records.add({"scenario": scenario, "server": server, "round": number, "figures": figures, **more})


def test_a_ratio_of_medians_says_how_many_times_better_we_are(records: Records) -> None:
    measured(records, "throughput", "chatstream", *({"chunks_per_s": n} for n in (90, 60_000, 120_000)))
    measured(records, "throughput", "nestjs", *({"chunks_per_s": n} for n in (20_000, 15_000, 999_999)))
    measured(records, "cold_start", "chatstream", {"ms": 600})
    measured(records, "cold_start", "nestjs", {"ms": 300})
    more, less = report.summary(records)["rows"]
    assert more["medians"] == {"chatstream": 60_000, "nestjs": 20_000}
    assert more["times_better"] == {"nestjs": 3}
    assert less["times_better"] == {"nestjs": 0.5}
    assert "| Start to first 200, ms | 600 | 300 | 0.5 |" in report.text(records)


def test_what_failed_is_said(records: Records) -> None:
    measured(records, "throughput", "chatstream", {"chunks_per_s": 1000, "failed": 0})
    measured(records, "throughput", "fastapi", {"chunks_per_s": 1000, "failed": 2}, {"chunks_per_s": 1000, "failed": 7})
    records.add({"scenario": "memory", "server": "fastapi", "round": 0, "error": "BenchError: It was not ready."})
    text = report.text(records)
    assert "FastAPI failed up to 7 streams of throughput." in text
    assert "chatstream failed" not in text
    assert "Failed: memory, fastapi: BenchError: It was not ready." in text


def test_an_interrupted_benchmark_goes_on_with_what_is_missing_or_failed(records: Records) -> None:
    measured(records, "throughput", "chatstream", {"chunks_per_s": 1000})
    records.add({"scenario": "memory", "server": "chatstream", "round": 0, "error": "BenchError: It was not ready."})
    again = Records(records.file)
    assert again.keys() == {("throughput", "chatstream", 0, None)}
    measured(again, "memory", "chatstream", {"kb_per_stream": 30})
    assert not Records(records.file).errors()


def test_a_curve_shows_how_far_its_rounds_lie_from_each_other(records: Records) -> None:
    measured(records, "viewers", "chatstream", *({"us_per_chunk": cost} for cost in (90, 70, 200)), size=1)
    assert "| 1 | 90 (70 to 200) |" in report.text(records)
    assert report.summary(records)["ranges"]["viewers"] == {"us_per_chunk": [(1, 70, 200)]}


def test_a_curve_is_a_table_by_size(records: Records) -> None:
    for size, cost in ((1001, 5090), (1, 90)):
        measured(records, "viewers", "chatstream", {"us_per_chunk": cost}, size=size)
    text = report.text(records)
    assert "| viewers of one answer | CPU of a chunk, µs |" in text
    assert text.index("| 1 | 90 |") < text.index("| 1,001 | 5,090 |")
    assert "A further viewer costs 5.0 µs a chunk." in text
