"""Draws a summary of `report`: ``draw.py FILE.json`` makes ``FILE*.svg`` and prints their paths.

It is a separate program, because only the benchmark's environment has matplotlib.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams.update(
    {
        "svg.hashsalt": "chatstream",  # the same figures give an identical file
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
    }
)
from matplotlib import pyplot  # noqa: E402 - after the backend was chosen

_COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed")


def ratios(summary: dict[str, Any], target: Path) -> None:
    """Draw the ratios, a bar for each row and server; on a logarithmic scale equal factors have equal lengths."""
    rows = [row for row in summary["rows"] if row["times_better"]][::-1]
    peers = list(dict.fromkeys(peer for row in rows for peer in row["times_better"]))
    figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.2 * len(rows) * (len(peers) + 1)), layout="constrained")
    height = 0.8 / len(peers)
    titles = []
    for place, row in enumerate(rows):
        for number, peer in enumerate(peers):
            if (value := row["times_better"].get(peer)) is None:
                continue
            label = f"\N{MULTIPLICATION SIGN} {summary['titles'][peer]}" if place == 0 else None
            y = place + 0.4 - height * (number + 0.5)
            axes.barh(y, value - 1, height, left=1, color=_COLOURS[number], label=label)
            axes.annotate(
                f" {value:.1f}" if value < 10 else f" {value:.0f}", (max(value, 1), y), va="center", fontsize=8
            )
        titles.append(row["title"])
    for place in range(len(rows)):  # "… p99" belongs to the row above it
        if titles[place].startswith("…"):
            titles[place] = f"{titles[place + 1].removesuffix(', p50')}, p99"
    axes.set(xscale="log", yticks=range(len(rows)), yticklabels=titles)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("how many times better chatstream is (1: the same)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower right")
    _save(figure, target)


def curves(summary: dict[str, Any], target: Path) -> None:
    """Draw the growth curves, a panel for each curve and unit."""
    panels = []
    for name, figures in summary["curves"].items():
        units = list(dict.fromkeys(summary["figures"][figure][1] for figure in figures))
        panels += [(name, unit, [f for f in figures if summary["figures"][f][1] == unit]) for unit in units]
    columns = 3
    lines = -(-len(panels) // columns)
    figure, grid = pyplot.subplots(lines, columns, figsize=(11, 2.6 * lines), layout="constrained", squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes, (name, unit, figures) in zip(grid.flat, panels, strict=False):
        for number, each in enumerate(figures):
            points = summary["curves"][name][each]
            if ranges := summary["ranges"][name][each]:  # the range of the rounds
                axes.fill_between(*zip(*ranges, strict=True), color=_COLOURS[number], alpha=0.15, linewidth=0)
            axes.plot(*zip(*points, strict=True), "o-", color=_COLOURS[number], label=summary["figures"][each][0])
        if name not in ("processes", "cores"):
            axes.set_xscale("symlog", linthresh=1)
            axes.xaxis.set_major_formatter(_size)
        else:
            axes.set_xticks([size for size, _ in summary["curves"][name][figures[0]]])
        if name == "viewers":
            axes.set_yscale("log")  # a straight line that rises with the scale is a cost per viewer
        else:
            most = max(value for each in figures for _, value in summary["curves"][name][each])
            axes.set_ylim(0, 1.2 * most)  # from zero, so that a flat line looks flat
        axes.set(xlabel=summary["titles"][name], ylabel=unit)
        axes.legend(fontsize=7)
    _save(figure, target)


def _size(value: float, _: int) -> str:
    """The size as a short label, since 100,000 and 1,000,000 are side by side."""
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k" if value >= 1e3 else f"{value:g}"


def _save(figure: Any, target: Path) -> None:
    figure.savefig(target, metadata={"Date": None}, facecolor="white")
    pyplot.close(figure)
    sys.stdout.write(f"{target}\n")


def main() -> None:
    """Draw all pictures for which there is data."""
    file = Path(sys.argv[1])
    summary = json.loads(file.read_text())
    if summary["rows"] and any(row["times_better"] for row in summary["rows"]):
        ratios(summary, file.with_name(f"{file.stem}-ratios.svg"))
    if summary["curves"]:
        curves(summary, file.with_name(f"{file.stem}-curves.svg"))


if __name__ == "__main__":
    main()
