"""The measured scenarios. Each starts its own server, warms it up and returns its figures by name."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from scripts.benchmark.servers import Running, Server
from scripts.benchmark.tools import Model, holding, load

Figures = dict[str, float | None]

CHUNKS: Final = 400  # chunks of an answer by default: some 300 words
PER_SECOND: Final = 50  # chunks of a paced stream, as a fast model writes
STREAMS: Final = 50
# Highest delay, in µs, of 99 % of the chunks: people notice a tenth of a second. And 97 % must arrive within the
# measured time.
SUSTAINED_P99_US: Final = 100_000
SUSTAINED_SHARE: Final = 0.97
LADDER: Final = (25, 50, 75, 100, 150, 200, 300, 400, 500, 700, 1000)


class Bench(NamedTuple):
    """The environment of a measurement: the model, the server's cores, and whether it is a quick run."""

    model: Model
    cores: set[int]  # the server's
    quick: bool

    @contextmanager
    def start(self, server: Server, **settings: str) -> Iterator[Running]:
        """Start a server and let it answer some questions, so that its connections are open and its code is warm."""
        with server.running(self.cores, self.model.url, **settings) as running:
            self.model.configure(100)
            self.play(running, 20, at_once=5)
            yield running

    def play(self, running: Running, streams: int, **options: float) -> dict[str, Any]:
        """Open this many streams, each of its own conversation, and read them to their end."""
        skip = running.server.deal(streams)
        return load(
            running.port, running.server.stream, running.server.conversations, skip=skip, streams=streams, **options
        )


def throughput(bench: Bench, server: Server) -> Figures:
    """50 streams at a time of 400 chunks each; the model sends as fast as the server reads."""
    with bench.start(server) as running:
        bench.model.configure(CHUNKS)
        probe = bench.play(running, STREAMS, at_once=STREAMS)
        seconds = 2 if bench.quick else 4
        streams = max(STREAMS, min(2000, round(seconds * probe["chunks"] / probe["elapsed_s"] / CHUNKS)))
        before, others = running.process.cpu(), bench.model.stats()["cpu_s"]
        told = bench.play(running, streams, at_once=STREAMS)
        cpu, others = running.process.cpu() - before, bench.model.stats()["cpu_s"] - others + told["cpu_s"]
        return {
            "chunks_per_s": told["chunks"] / told["elapsed_s"],
            "failed": told["failed"],
            "cpu_ms_per_1000": 1e6 * cpu / max(1, told["chunks"]),
            "load_percent": 100 * others / told["elapsed_s"],
        }


def paced(bench: Bench, server: Server) -> Figures:
    """50 streams, each of 50 chunks a second."""
    with bench.start(server) as running:
        return _paced(bench, running, STREAMS, 3 if bench.quick else 8)


def _paced(bench: Bench, running: Running, streams: int, seconds: float) -> Figures:
    # Streams are opened within a second, but at most 200 a second. Delays count from half a second after that on.
    ramp = max(1.0, streams / 200)
    bench.model.configure(round((seconds + ramp) * PER_SECOND), 1_000_000 // PER_SECOND)
    before = running.process.cpu()
    told = bench.play(
        running,
        streams,
        at_once=streams,
        per_second=streams / ramp,
        **{"from": ramp + 0.5},
        until=ramp + seconds,
        timeout=2 * (seconds + ramp) + 5,
    )
    cpu = running.process.cpu() - before
    latency = told["chunk"] or {"p50_us": None, "p99_us": None}
    return {
        "p50_us": latency["p50_us"],
        "p99_us": latency["p99_us"],
        "cpu_ms_per_1000": 1e6 * cpu / max(1, told["chunks"]),
        "delivered": told["window_chunks"] / (streams * PER_SECOND * (seconds - 0.5)),
        "failed": told["failed"],
    }


def sustained(bench: Bench, server: Server) -> Figures:
    """Increase the number of paced streams as long as 99 % of the chunks are less than 100 ms late and none is
    missing.
    """
    most = 0
    with bench.start(server) as running:
        for streams in LADDER:
            step = _paced(bench, running, streams, 3 if bench.quick else 4)
            late = step["p99_us"] is None or step["p99_us"] > SUSTAINED_P99_US
            if late or step["failed"] or (step["delivered"] or 0) < SUSTAINED_SHARE:
                break
            most = streams
    return {"streams": most}


def first_alone(bench: Bench, server: Server) -> Figures:
    """One stream at a time: the time from the request to the first chunk, with a model that answers at once."""
    streams = 100 if bench.quick else 200
    with bench.start(server) as running:
        bench.model.configure(3, 1000)
        bench.play(running, 50)
        before = running.process.cpu()
        told = bench.play(running, streams)
        return _firsts(told) | {"cpu_ms_per_request": 1000 * (running.process.cpu() - before) / streams}


def first_among_100(bench: Bench, server: Server) -> Figures:
    """The time to the first chunk while 100 streams are open, each of 20 chunks at 20 a second."""
    with bench.start(server) as running:
        bench.model.configure(20, 50_000)
        return _firsts(bench.play(running, 200 if bench.quick else 500, at_once=100, per_second=90))


def _firsts(told: dict[str, Any]) -> Figures:
    first = told["first"] or {"p50_us": None, "p99_us": None}
    return {"p50_us": first["p50_us"], "p99_us": first["p99_us"], "failed": told["failed"]}


def requests(bench: Bench, server: Server) -> Figures:
    """Answers of 5 chunks, 50 at a time: the cost to begin and to end an answer."""
    with bench.start(server) as running:
        bench.model.configure(5)
        probe = bench.play(running, 200, at_once=STREAMS)
        seconds = 2 if bench.quick else 4
        streams = max(200, min(4000, round(seconds * 200 / probe["elapsed_s"])))
        before = running.process.cpu()
        told = bench.play(running, streams, at_once=STREAMS)
        return {
            "requests_per_s": told["ok"] / told["elapsed_s"],
            "cpu_ms_per_request": 1000 * (running.process.cpu() - before) / streams,
            "failed": told["failed"],
        }


def memory(bench: Bench, server: Server) -> Figures:
    """The memory of 2,000 streams that wait for their first chunk."""
    streams = 1000 if bench.quick else 2000
    with bench.start(server) as running:
        bench.model.configure(5, 0, 600_000_000)
        skip = server.deal(streams)
        before = running.process.memory()
        options = {"skip": skip, "streams": streams, "at_once": streams, "per_second": 300}
        with holding(running.port, server.stream, server.conversations, **options):
            deadline = time.monotonic() + 20
            while bench.model.stats()["active"] < streams and time.monotonic() < deadline:
                time.sleep(0.1)  # the model sends no signal
            time.sleep(1)  # the memory used only for opening them is freed
            after, waiting = running.process.memory(), bench.model.stats()["active"]
        # Of those that are open: a server may have refused some.
        return {"kb_per_stream": (after - before) / max(1, waiting) / 1024, "missing": streams - waiting}


def cold_start(bench: Bench, server: Server) -> Figures:
    """From the start of the process to the first 200, with the database running; and the time of the first answer after
    that. Medians of three.
    """
    bench.model.configure(3, 1000)
    starts, firsts, seconds = [], [], []
    for _ in range(3):
        with server.running(bench.cores, bench.model.url) as running:
            starts.append(running.seconds_to_start)
            first = bench.play(running, 1)["first"]
            firsts.append(first["p50_us"] / 1000 if first else None)
            later = bench.play(running, 20)["first"]
            seconds.append(later["p50_us"] / 1000 if later else None)
    answered = [one for one in firsts if one is not None]
    return {
        "ms": 1000 * statistics.median(starts),
        "first_answer_ms": statistics.median(answered) if answered else None,
        "to_first_answer_ms": 1000 * statistics.median(starts) + statistics.median(answered) if answered else None,
        "later_answer_ms": statistics.median([one for one in seconds if one is not None] or [0]) or None,
        "failed": firsts.count(None),
    }


SCENARIOS: Final[dict[str, Callable[[Bench, Server], Figures]]] = {
    each.__name__: each
    for each in (throughput, paced, sustained, first_alone, first_among_100, requests, memory, cold_start)
}

QUICK: Final = tuple(name for name in SCENARIOS if name != "sustained")  # which takes as long as all others together


class Row(NamedTuple):
    """A row of the table."""

    scenario: str
    figure: str
    title: str
    unit: str
    scale: float  # factor from the figure to the unit
    more_is_better: bool


ROWS: Final = (
    Row("throughput", "chunks_per_s", "Chunks a second, 50 streams, unpaced", "", 1, True),
    Row("throughput", "cpu_ms_per_1000", "CPU for 1,000 chunks, unpaced", "ms", 1, False),
    Row("sustained", "streams", "Streams sustained at 50 chunks/s", "", 1, True),
    Row("paced", "p50_us", "Added latency of a chunk, 50 paced streams, p50", "ms", 0.001, False),
    Row("paced", "p99_us", "… p99", "ms", 0.001, False),
    Row("paced", "cpu_ms_per_1000", "CPU for 1,000 paced chunks", "ms", 1, False),
    Row("first_alone", "p50_us", "Time to the first chunk, alone, p50", "ms", 0.001, False),
    Row("first_alone", "p99_us", "… p99", "ms", 0.001, False),
    Row("first_among_100", "p50_us", "Time to the first chunk among 100, p50", "ms", 0.001, False),
    Row("first_among_100", "p99_us", "… p99", "ms", 0.001, False),
    Row("requests", "cpu_ms_per_request", "CPU for a whole request", "ms", 1, False),
    Row("memory", "kb_per_stream", "Memory of an open stream", "KB", 1, False),
    Row("cold_start", "ms", "Start to first 200", "ms", 1, False),
    Row("cold_start", "first_answer_ms", "Time to the first chunk, of the very first answer", "ms", 1, False),
    Row("cold_start", "to_first_answer_ms", "Start to the first chunk of an answer", "ms", 1, False),
)
