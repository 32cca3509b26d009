"""Plays the scenarios of tests/stress, seed after seed. Run it as ``scripts/stress``."""

import argparse
import asyncio
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.stress.interleavings import play_all
from tests.stress.reconcile import Violation
from tests.stress.scenarios import LIBFAKETIME, SCENARIOS, SHORT, play
from tests.support.replica_set import ReplicaSet

# A thousand streams through a proxy in this process are three descriptors each.
_DESCRIPTORS = 8192


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/stress",
        description="Play the stress scenarios: servers, a database, a model and the network between them fail while "
        "people chat. Afterwards everything that was acknowledged, told, stored and logged must agree.",
        epilog="Scenarios: " + ", ".join(SCENARIOS) + ". The exit status is 1 if a rule was broken; the logs and the "
        "ledger of that run are kept. A scenario ends after five minutes at most.",
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="play each scenario so many times (1)")
    parser.add_argument("--seed", type=int, metavar="SEED", help="the first seed; else one is drawn")
    parser.add_argument(
        "--scenario", action="append", choices=SCENARIOS, metavar="NAME", help="only this one; may be repeated"
    )
    parser.add_argument("--short", action="store_true", help="as the tests do: the quick ones, with less of everything")
    parser.add_argument(
        "--interleavings", type=int, metavar="N", help="instead, play N interleavings of two processes, from SEED on"
    )
    parser.add_argument("--minutes", type=float, default=60, help="begin nothing new after so many (%(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="keep the logs and ledgers of all runs there")
    parser.add_argument("--json", action="store_true", help="print one JSON object a run")
    return parser.parse_args()


def _descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, resource.getrlimit(resource.RLIMIT_NOFILE)[0]), hard))


class Report:
    """The printed report: a line for each run, and on a terminal the name of the running one."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._looks = sys.stderr.isatty()
        self.failed = 0

    def begins(self, place: str, name: str, seed: int) -> None:
        """Somebody waits."""
        if self._looks:
            sys.stderr.write(f"\r\033[K{place} {name} --seed {seed} …")
            sys.stderr.flush()

    def ended(self, name: str, seed: int, seconds: float, violations: list[Violation], kept: Path | None) -> None:
        """Print the result of a run."""
        if self._looks:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
        self.failed += bool(violations)
        if self._as_json:
            broken = [{"rule": one.rule, "what": one.what} for one in violations]
            line: dict[str, object] = {"scenario": name, "seed": seed, "seconds": round(seconds, 1), "broken": broken}
            _print(json.dumps(line | ({"kept": str(kept)} if kept else {})))
            return
        _print(f"{'FAILED' if violations else 'ok':6}  --scenario {name} --seed {seed}  {seconds:.1f} s")
        for one in violations:
            _print(f"        {one.rule}: {one.what}")
        if kept:
            _print(f"        kept: {kept}")


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _run(name: str, seed: int, short: bool, directory: Path) -> list[Violation]:
    """Play one scenario on its own database, so that its data does not affect the next run."""
    with ReplicaSet(directory / "mongo", SCENARIOS[name].nodes) as mongo:
        try:
            return asyncio.run(play(name, seed, directory / name, mongo, short=short))
        except Exception as exc:  # noqa: BLE001 - a run that breaks off is a failed one; the others go on
            return [Violation("it_ends", repr(exc))]


def _interleavings(first: int, count: int) -> int:
    """Returns the exit status. Each violation is printed, with the steps before it."""
    broken = 0

    def failed(seed: int, log: list[str], exc: BaseException) -> None:
        nonlocal broken
        broken += 1
        _print(f"FAILED  --interleavings 1 --seed {seed}  {type(exc).__name__}: {exc}\n        {', '.join(log)}")

    logging.disable(logging.CRITICAL)
    directory = Path(tempfile.mkdtemp(prefix="chatstream-stress-"))
    try:
        with ReplicaSet(directory / "mongo") as mongo:
            asyncio.run(play_all(mongo.uri, range(first, first + count), failed))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    _print(f"{count} interleavings from seed {first} on, {broken} failed")
    return 1 if broken else 0


def main() -> int:
    """Returns the exit status."""
    options = _options()
    # As Ctrl-C: what was started is ended. Also where a shell has started it in the background, with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    _descriptors()
    first = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    if options.interleavings:
        try:
            return _interleavings(first, options.interleavings)
        except KeyboardInterrupt:
            return _interrupted()
    names = options.scenario or (SHORT if options.short else tuple(SCENARIOS))
    if "clock_stepped" in names and not LIBFAKETIME.exists():
        sys.stderr.write("clock_stepped is left out: it needs libfaketime (Debian and Ubuntu: apt-get install it)\n")
        names = tuple(name for name in names if name != "clock_stepped")
    runs = [(name, first + number) for number in range(options.seeds) for name in names]
    report = Report(as_json=options.json)
    begun = time.monotonic()
    done = 0
    try:
        for name, seed in runs:
            if time.monotonic() - begun > options.minutes * 60:
                break
            report.begins(f"{done + 1}/{len(runs)}", name, seed)
            started = time.monotonic()
            directory = Path(tempfile.mkdtemp(prefix="chatstream-stress-"))
            violations = _run(name, seed, options.short, directory)
            kept = _keep(directory / name, options.keep, f"{name}-{seed}", bool(violations))
            shutil.rmtree(directory / "mongo", ignore_errors=True)
            if kept is None or options.keep:
                shutil.rmtree(directory, ignore_errors=True)
            report.ended(name, seed, time.monotonic() - started, violations, kept)
            done += 1
    except KeyboardInterrupt:
        return _interrupted()
    sys.stderr.write(f"{done} of {len(runs)} runs, {report.failed} failed, in {time.monotonic() - begun:.0f} s\n")
    return 1 if report.failed else 0


def _interrupted() -> int:
    """Returns the exit status that shells expect."""
    sys.stderr.write("\nInterrupted.\n")
    return 130


def _keep(run: Path, keep: Path | None, name: str, failed: bool) -> Path | None:
    """The directory in which a run's logs and ledger are kept."""
    if keep is not None:
        target = Path(os.environ.get("CALLED_FROM", ""), keep) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(run, target, dirs_exist_ok=True)
        return target
    return run if failed else None


if __name__ == "__main__":
    sys.exit(main())
