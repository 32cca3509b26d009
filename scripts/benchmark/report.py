"""Reports the measurements for people: tables, and pictures of them."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.benchmark import build
from scripts.benchmark.growth import CURVES, FIGURES
from scripts.benchmark.records import Records
from scripts.benchmark.scenarios import ROWS, SCENARIOS, Row
from scripts.benchmark.servers import SERVERS

OURS = "chatstream"
_NONE = "\N{EN DASH}"

NOT_MEASURED = """\
Not measured: networks (all of it is loopback), TLS, proxies, HTTP/2, real models, other databases, hours of load, more
than one machine, other processors. The peers keep no log to resume from, check no owner and have no limits; they were
written for this comparison, by us.
"""


def summary(records: Records) -> dict[str, Any]:
    """Summarise the records: machine, medians and ratios."""
    rows = [_row(records, row) for row in ROWS if _known(records, row)]
    curves = {
        name: {figure: points for figure in FIGURES if (points := records.points(name, figure))} for name in CURVES
    }
    return {
        "machine": records.machine,
        "rounds": records.rounds(),
        "rows": rows,
        "curves": {name: found for name, found in curves.items() if found},
        "ranges": {name: {figure: records.ranges(name, figure) for figure in found} for name, found in curves.items()},
        "errors": records.errors(),
    }


def _known(records: Records, row: Row) -> bool:
    return records.median(row.scenario, OURS, row.figure) is not None


def _row(records: Records, row: Row) -> dict[str, Any]:
    medians = {
        server: value * row.scale
        for server in SERVERS
        if (value := records.median(row.scenario, server, row.figure)) is not None
    }
    # Inverted where less is better: a higher ratio is always in our favour.
    ratios = {
        server: (ours / value if row.more_is_better else value / ours)
        for server, value in medians.items()
        if server != OURS and value and (ours := medians[OURS])
    }
    return {"title": row.title, "unit": row.unit, "more_is_better": row.more_is_better} | {
        "medians": medians,
        "times_better": ratios,
    }


def text(records: Records) -> str:
    """The tables in Markdown, with remarks."""
    parts = []
    machine = records.machine
    if any(_known(records, row) for row in ROWS):
        parts += [_side_by_side(records), _remarks(records), NOT_MEASURED]
    parts += [_curve(records, name) for name in CURVES if any(records.points(name, figure) for figure in FIGURES)]
    parts += [f"Failed: {error}" for error in records.errors()]
    versions = machine.get("versions", {})
    parts.append(
        "\n".join(
            [
                f"{machine.get('processor')}, {machine.get('cores')} cores, {machine.get('system')}; "
                f"medians of {records.rounds()} round{'s' if records.rounds() != 1 else ''}; the server has one core.",
                *(
                    f"{server}: " + ", ".join(f"{k} {v}" for k, v in found.items())
                    for server, found in versions.items()
                ),
            ]
        )
    )
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _side_by_side(records: Records) -> str:
    servers = [server for server in SERVERS if server in records.servers()]
    peers = [server for server in servers if server != OURS]
    titles = [
        "",
        *(SERVERS[server].title for server in servers),
        *(f"\N{MULTIPLICATION SIGN} {SERVERS[peer].title}" for peer in peers),
    ]
    lines = []
    for row in ROWS:
        if not _known(records, row):
            continue
        found = _row(records, row)
        unit = f", {row.unit}" if row.unit else ""
        lines.append(
            [row.title + unit]
            + [_figure(found["medians"].get(server)) for server in servers]
            + [_times(found["times_better"].get(peer)) for peer in peers]
        )
    better = "The last columns say how many times better chatstream is: below 1, it is worse."
    return f"{_table(titles, lines)}\n\n{better}"


def _remarks(records: Records) -> str:
    remarks = [
        f"{SERVERS[server].title} failed up to {int(worst)} streams of {scenario}."
        for scenario in SCENARIOS
        for server in records.servers()
        if (worst := max(records.worst(scenario, server, "failed"), records.worst(scenario, server, "missing")))
    ]
    busy = max(records.worst("throughput", server, "load_percent") for server in records.servers())
    if busy:
        remarks.append(f"Load generator and model were busy for {busy:.0f} % of the time at most (throughput).")
    return "\n".join(remarks)


def _curve(records: Records, name: str) -> str:
    figures = [figure for figure in FIGURES if records.points(name, figure)]
    sizes = sorted({size for figure in figures for size, _ in records.points(name, figure)})
    found = {figure: {size: each for size, *each in records.ranges(name, figure)} for figure in figures}
    middle = {figure: dict(records.points(name, figure)) for figure in figures}
    titles = [CURVES[name].title, *(f"{FIGURES[figure][0]}, {FIGURES[figure][1]}" for figure in figures)]
    table = _table(
        titles,
        [[f"{size:,.0f}", *(_noisy(middle[f].get(size), found[f].get(size)) for f in figures)] for size in sizes],
    )
    if name == "viewers" and len(sizes) > 1:
        (fewest, alone), *_, (most, all_of_them) = records.points(name, "us_per_chunk")
        table += f"\n\nA further viewer costs {(all_of_them - alone) / (most - fewest):.1f} µs a chunk."
    return f"{table}\n\n{CURVES[name].note}"


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(titles) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [titles, rule, *lines])


def _figure(value: float | None) -> str:
    """Format a figure with three digits; a repetition changes even the third one."""
    if value is None:
        return _NONE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _noisy(median: float | None, rounds: list[float] | None) -> str:
    """Format a median with the lowest and the highest round, if they differ. Two points that differ by less count as
    equal.
    """
    if rounds is None or rounds[0] == rounds[1]:
        return _figure(median)
    return f"{_figure(median)} ({_figure(rounds[0])} to {_figure(rounds[1])})"


def _times(ratio: float | None) -> str:
    return _NONE if ratio is None else f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"


def draw(records: Records, file: Path) -> list[Path]:
    """Draw the pictures beside `file`, and store the summary from which they are made. Returns the paths of the
    pictures.
    """
    target = file.with_suffix(".json")
    target.write_text(json.dumps(summary(records) | {"figures": FIGURES, "titles": _titles()}, indent=1) + "\n")
    done = subprocess.run(  # noqa: S603 - ours
        [build.PYTHON, build.SOURCES / "draw.py", target], stdout=subprocess.PIPE, text=True, check=True
    )
    return [Path(line) for line in done.stdout.splitlines()]


def _titles() -> dict[str, str]:
    return {name: curve.title for name, curve in CURVES.items()} | {name: kind.title for name, kind in SERVERS.items()}
