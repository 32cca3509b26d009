"""Measures chatstream beside other servers, and as things grow. Run it as ``scripts/bench``."""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from subprocess import CalledProcessError, TimeoutExpired
from typing import NamedTuple

from tqdm import tqdm

from chatstream.errors import ChatstreamError
from scripts.benchmark import machine, report
from scripts.benchmark.build import BUILT, build, build_python
from scripts.benchmark.growth import CURVES
from scripts.benchmark.machine import BenchError
from scripts.benchmark.records import Records
from scripts.benchmark.scenarios import QUICK, SCENARIOS, Bench, Figures
from scripts.benchmark.servers import SERVERS, Chatstream
from scripts.benchmark.tools import Model
from tests.support.processes import mongod

_EPILOG = """\
Everything runs on 127.0.0.1, and ends with this script. The server that is measured has a core for itself; the model,
the load generator and the database share the others. Every scenario measures the servers in turn, round after round,
so that a slow phase of the machine hits all of them. What counts is a ratio of medians: absolute figures are one
machine's. Leave the machine alone meanwhile.

scenarios: {scenarios}
curves (--growth): {curves}
servers: {servers}

The first run compiles two C programs and installs the other servers (two minutes more). Linux only.
"""


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        given = [name for name in text.split(",") if name]
        if unknown := [name for name in given if name not in known]:
            raise argparse.ArgumentTypeError(f"there is no {unknown[0]}: {', '.join(known)}")
        return given

    return names


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure chatstream beside the NestJS server whose protocol it keeps, and beside Express and "
        "FastAPI; print a table of ratios and draw it.",
        epilog=_EPILOG.format(scenarios=", ".join(SCENARIOS), curves=", ".join(CURVES), servers=", ".join(SERVERS)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one short round, three minutes; else three, 25 minutes")
    parser.add_argument(
        "--growth", action="store_true", help="chatstream alone, as things grow: three quarters of an hour"
    )
    parser.add_argument("--rounds", type=int, help="how often each scenario is measured (3; 1 with --quick)")
    peers = [name for name in SERVERS if name != "chatstream"]
    parser.add_argument(
        "--peers", type=_names(peers), default=peers, help=f"beside which, separated by commas ({','.join(peers)})"
    )
    parser.add_argument("--scenarios", type=_names([*SCENARIOS, *CURVES]), help="only these, separated by commas (all)")
    parser.add_argument("--minutes", type=float, default=60, help="begin nothing new after so many (%(default)g)")
    parser.add_argument("--out", type=_path, metavar="DIR", help="for results, pictures and logs (build/bench/results)")
    parser.add_argument("--resume", action="store_true", help="measure only what is not in DIR yet")
    parser.add_argument(
        "--report", type=_path, metavar="FILE", help="measure nothing: show what is in this .jsonl again"
    )
    parser.add_argument("--json", action="store_true", help="print medians and ratios as one JSON object")
    options = parser.parse_args()
    known = CURVES if options.growth else SCENARIOS
    if unknown := [name for name in options.scenarios or () if name not in known]:
        parser.error(
            f"{unknown[0]} is not one of {', '.join(known)}{'' if options.growth else '; curves need --growth'}"
        )
    return options


def _path(argument: str) -> Path:
    return Path(os.environ.get("CALLED_FROM", ""), argument)


@contextmanager
def _stage(directory: Path, *, quick: bool) -> Iterator[tuple[Bench, str]]:
    """The database and the model; yields with the database's URI."""
    data = directory / "mongo"
    shutil.rmtree(data, ignore_errors=True)
    servers, others = machine.split_cores()
    os.sched_setaffinity(0, others)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, data, ignore_errors=True)  # a million conversations
        uri = stack.enter_context(mongod(data))
        model = stack.enter_context(Model(others, directory))
        model.wait_for(f"{model.url}/stats")
        yield Bench(model, servers, quick), uri


class Run(NamedTuple):
    """One measurement."""

    scenario: str
    server: str
    round: int
    size: float | None  # a curve's
    measure: Callable[[], Figures]


def _side_by_side(options: argparse.Namespace, bench: Bench, uri: str, directory: Path) -> list[Run]:
    servers = [kind(uri, directory) for name, kind in SERVERS.items() if name in ("chatstream", *options.peers)]
    rounds = options.rounds or (1 if options.quick else 3)
    scenarios = options.scenarios or (QUICK if options.quick else SCENARIOS)
    return [
        Run(name, server.name, number, None, partial(measure, bench, server))
        for number in range(rounds)
        for name, measure in SCENARIOS.items()
        if name in scenarios
        for server in (servers if number % 2 == 0 else servers[::-1])
        if name in (server.scenarios or SCENARIOS)
    ]


def _growth(options: argparse.Namespace, bench: Bench, uri: str, directory: Path) -> list[Run]:
    server = Chatstream(uri, directory)
    return [
        Run(name, server.name, number, size, partial(curve.measure, bench, server, size))
        for name, curve in CURVES.items()
        if not options.scenarios or name in options.scenarios
        for size in (curve.sizes[:2] if options.quick else curve.sizes)
        for number in range(options.rounds or (1 if options.quick else 3))
    ]


def _measure(options: argparse.Namespace, records: Records, directory: Path) -> None:
    ends = time.monotonic() + 60 * options.minutes
    with _stage(directory, quick=options.quick) as (bench, uri):
        if not records.machine:
            records.add({"machine": machine.describe(), "quick": options.quick})
        work = (_growth if options.growth else _side_by_side)(options, bench, uri, directory)
        done = records.keys() if options.resume else set()
        with tqdm(work, unit="run", disable=None, bar_format="{desc:<44} {bar} {n_fmt}/{total_fmt} {elapsed}") as bar:
            for name, server, number, size, measure in bar:
                what = f"{name}, {server}" if size is None else f"{name} {size:,.0f}"
                bar.set_description(what)
                if (name, server, number, size) in done:
                    continue
                if time.monotonic() > ends:
                    sys.stderr.write(f"\n{options.minutes:g} minutes are over: --resume goes on from here.\n")
                    return
                line: dict[str, object] = {"scenario": name, "server": server, "round": number}
                if size is not None:
                    line["size"] = size
                begun = time.monotonic()
                try:
                    line["figures"] = measure()
                except (BenchError, OSError, CalledProcessError, TimeoutExpired, ValueError) as exc:
                    line["error"] = f"{type(exc).__name__}: {exc}"  # the others are measured all the same
                    bar.write(f"{what}: {line['error']}", file=sys.stderr)
                line["seconds"] = round(time.monotonic() - begun, 1)
                line["load_average"] = os.getloadavg()[0]
                records.add(line)


def main() -> int:
    """Returns the exit status: 0, 1 if something could not be measured, 130 if it was interrupted."""
    options = _options()
    directory = (options.out or BUILT / "results").resolve()
    file = options.report or directory / ("growth.jsonl" if options.growth else "results.jsonl")
    if options.report is None and sys.platform != "linux":
        sys.stderr.write("It measures with epoll and /proc: on Linux only.\n")
        return 1
    # As Ctrl-C: what was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        build_python()
        if options.report is None:
            build()
            directory.mkdir(parents=True, exist_ok=True)
            if not options.resume:
                file.unlink(missing_ok=True)
            _measure(options, Records(file), directory)
        records = Records(file)
        if options.json:
            sys.stdout.write(json.dumps(report.summary(records), indent=1) + "\n")
        else:
            sys.stdout.write(report.text(records))
        for picture in report.draw(records, file):
            sys.stderr.write(f"{picture}\n")
    except ChatstreamError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted; --resume goes on from here.\n")
        return 130
    return 1 if records.errors() else 0


if __name__ == "__main__":
    sys.exit(main())
