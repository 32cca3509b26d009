"""Measures how chatstream's cost grows with the load, as curves: of CPU time where possible, which depends least on
other load.
"""

import http.client
import os
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final, NamedTuple

from scripts.benchmark.machine import BenchError, on
from scripts.benchmark.scenarios import CHUNKS, PER_SECOND, STREAMS, Bench, Figures
from scripts.benchmark.servers import FIVE_EACH, Chatstream, Running
from scripts.benchmark.tools import holding, load

_SECONDS: Final = 5.0
_CORES: Final = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
_STREAM: Final = Chatstream.stream.partition("?")[0]
# The most streams of one process: each may need two file descriptors, and some are reserved.
_MOST_STREAMS: Final = resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2 - 300
# Settings without limits per user, since one user makes the whole load here.
_ONE_USER: Final = {"CHATSTREAM_STREAMS_PER_USER": "2000", "CHATSTREAM_OPENINGS_PER_MINUTE": "1000000"}


def viewers(bench: Bench, server: Chatstream, size: float) -> Figures:
    """One answer of 50 chunks a second, with this many viewers."""
    with bench.start(server, **_ONE_USER) as running:
        # All viewers open the first conversation of the file.
        file = server.directory / "one.conversation"
        file.write_text(server.conversations.read_text().splitlines()[server.deal(1)] + "\n")
        bench.model.configure(10_000, 1_000_000 // PER_SECOND)  # more chunks than are read
        options = {"same": 1, "streams": size, "at_once": size, "per_second": 400, "chunks": 1}
        with holding(running.port, _STREAM, file, **options):
            cpu, wall = _used(running, _SECONDS)
        return {"us_per_chunk": 1e6 * cpu / (wall * PER_SECOND)}


def _used(running: Running, seconds: float) -> tuple[float, float]:
    """The CPU time and the elapsed time of about this many seconds."""
    cpu, began = running.process.cpu(), time.monotonic()
    time.sleep(seconds)  # the server's work during this time is measured
    return running.process.cpu() - cpu, time.monotonic() - began


def idle(bench: Bench, server: Chatstream, size: float) -> Figures:
    """This many streams of idle conversations, and 50 paced streams beside them."""
    count = int(size)
    file = server.directory / "idle.conversations"
    server.write_list(server.seed_with("--drop", *FIVE_EACH, str(max(1, count // 5)), "--messages", "2"))
    server.conversations.replace(file)
    asked = ("--messages", "1", "--unanswered", "--id-prefix", "q", "--seed", "1")
    server.take(server.seed_with(*FIVE_EACH, "200", *asked))
    with ExitStack() as stack:
        running = stack.enter_context(bench.start(server))
        before = running.process.memory()
        if count:
            options = {"streams": count, "at_once": count, "per_second": 500}
            # Opening 10,000 takes half a minute; none of them is renewed before four minutes.
            stack.enter_context(holding(running.port, _STREAM, file, timeout=150, **options))
        cpu, wall = _used(running, _SECONDS)
        after = running.process.memory()
        bench.model.configure(int(_SECONDS * PER_SECOND), 1_000_000 // PER_SECOND)
        beside = running.process.cpu()
        told = bench.play(running, 50, at_once=50, per_second=50)
        beside = running.process.cpu() - beside
        seconds = told["elapsed_s"]
        bench.model.configure(3, 1000)
        first = bench.play(running, 50)["first"]
        return {
            "cpu_percent_idle": 100 * cpu / wall,
            "us_per_chunk": 1e6 * max(0, beside - cpu / wall * seconds) / max(1, told["chunks"]),
            "chunk_p99_ms": told["chunk"]["p99_us"] / 1000,
            "open_ms": first["p50_us"] / 1000,
            "kb_per_stream": (after - before) / count / 1024 if count else None,
        }


def length(bench: Bench, server: Chatstream, size: float) -> Figures:
    """Answers of this many tokens, 10 at a time, without pauses."""
    tokens = int(size)
    with bench.start(server, CHATSTREAM_ANSWER_CHARACTERS="3000000") as running:
        bench.model.configure(tokens)
        streams = max(5, min(1000, 200_000 // tokens))
        cpu = running.process.cpu()
        told = bench.play(running, streams, at_once=min(10, streams))
        cpu = running.process.cpu() - cpu
        if told["failed"]:
            raise BenchError(f"{told['failed']} of {streams} answers were not whole.")
        return {"us_per_chunk": 1e6 * cpu / told["chunks"]}


def history(bench: Bench, server: Chatstream, size: float) -> Figures:
    """Conversations with this many messages before the question."""
    count = 30
    server.take(server.seed_with("--drop", *FIVE_EACH, "6", "--messages", str(int(size) + 1), "--unanswered"))
    with server.running(bench.cores, bench.model.url) as running:
        bench.model.configure(3, 1000)
        bench.play(running, 10)
        cpu = running.process.cpu()
        told = bench.play(running, count - 10)
        cpu = running.process.cpu() - cpu
        name, token = server.conversations.read_text().splitlines()[0].split()
        return {
            "open_ms": told["first"]["p50_us"] / 1000,
            "cpu_ms_per_request": 1000 * cpu / (count - 10),
            "messages_ms": _get(running, f"/api/v1/chat/conversations/{name}/messages?limit=2", token),
        }


def conversations(bench: Bench, server: Chatstream, size: float) -> Figures:
    """This many conversations in the database, of at most a thousand users."""
    count = int(size)
    users = max(2, min(1000, count // 5))
    dealt = ("--users", str(users), "--conversations", str(count // users))
    server.take(server.seed_with("--drop", *dealt, "--messages", "1", "--unanswered"))
    with server.running(bench.cores, bench.model.url) as running:
        bench.model.configure(3, 1000)
        warm = min(50, count // 2)
        bench.play(running, warm)
        streams = min(100, count - warm)
        cpu = running.process.cpu()
        told = bench.play(running, streams)
        cpu = running.process.cpu() - cpu
        name, token = server.conversations.read_text().splitlines()[0].split()
        return {
            "open_ms": told["first"]["p50_us"] / 1000,
            "cpu_ms_per_request": 1000 * cpu / streams,
            "list_ms": _get(running, "/api/v1/chat/conversations?limit=5", token),
            "messages_ms": _get(running, f"/api/v1/chat/conversations/{name}/messages?limit=2", token),
        }


def _get(running: Running, path: str, token: str) -> float:
    """Milliseconds of a request: the median of 200 over one connection. The page has the same size, however much is
    stored.
    """
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    seconds = []
    for _ in range(200):
        began = time.perf_counter()
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        response.read()
        seconds.append(time.perf_counter() - began)
        if response.status != 200:
            raise BenchError(f"{path} was answered with {response.status}.")
    connection.close()
    return 1000 * statistics.median(seconds)


def processes(bench: Bench, server: Chatstream, size: float) -> Figures:
    """This many processes on one database and one core, each with 25 streams of 20 chunks a second."""
    count, streams = int(size), 25
    with ExitStack() as stack:
        each = [stack.enter_context(server.running(bench.cores, bench.model.url)) for _ in range(count)]
        for running in each:
            bench.model.configure(20)
            bench.play(running, 20, at_once=5)
        skips = [server.deal(streams) for _ in each]
        cpu = sum(running.process.cpu() for running in each)
        began = time.monotonic()
        bench.model.configure(100, 50_000)
        with ThreadPoolExecutor(count) as pool:
            told = list(
                pool.map(
                    lambda running, skip: load(
                        running.port, server.stream, server.conversations, skip=skip, streams=streams, at_once=streams,
                        per_second=streams,
                    ),
                    each,
                    skips,
                )
            )  # fmt: skip
        cpu = sum(running.process.cpu() for running in each) - cpu
        seconds = time.monotonic() - began
        idle_cpu = sum(_used(running, 3)[0] for running in each) / 3
        return {
            "us_per_chunk": 1e6 * max(0, cpu - idle_cpu * seconds) / sum(one["chunks"] for one in told),
            "chunk_p99_ms": max(one["chunk"]["p99_us"] for one in told) / 1000,
            "cpu_percent_idle": 100 * idle_cpu / count,
        }


def cores(bench: Bench, server: Chatstream, size: float) -> Figures:
    """This many processes on one database, each on its own core, with 50 unpaced streams each.

    The model and the load generators run on all cores, also where one process is measured.
    """
    own = _CORES[: int(size)]
    with ExitStack() as stack:
        each = [stack.enter_context(server.running({core}, bench.model.url)) for core in own]
        stack.enter_context(bench.model.moved(set(_CORES)))
        stack.enter_context(on(set(_CORES)))
        for running in each:
            bench.model.configure(100)
            bench.play(running, 20, at_once=5)
        bench.model.configure(CHUNKS)
        streams = STREAMS * (4 if bench.quick else 16)
        skips = [server.deal(streams) for _ in each]
        ours, others = sum(running.process.cpu() for running in each), bench.model.stats()["cpu_s"]
        began = time.monotonic()
        with ThreadPoolExecutor(len(each)) as pool:
            told = list(
                pool.map(
                    lambda running, skip: load(
                        running.port, server.stream, server.conversations, skip=skip, streams=streams, at_once=STREAMS
                    ),
                    each,
                    skips,
                )
            )
        wall = time.monotonic() - began
        chunks = sum(one["chunks"] for one in told)
        ours = sum(running.process.cpu() for running in each) - ours
        others = bench.model.stats()["cpu_s"] - others + sum(one["cpu_s"] for one in told)
        return {
            "chunks_per_s": chunks / wall,
            "us_per_chunk": 1e6 * ours / chunks,
            "server_cores": ours / wall,
            "other_cores": others / wall,
        }


class Curve(NamedTuple):
    """A growth curve."""

    title: str
    sizes: tuple[float, ...]
    measure: Callable[[Bench, Chatstream, float], Figures]
    note: str  # a remark for the reader of the curve


CURVES: Final = {
    "viewers": Curve(
        "viewers of one answer",
        (1, 3, 10, 30, 100, 300, 1000),
        viewers,
        "CHATSTREAM_STREAMS_PER_USER and CHATSTREAM_OPENINGS_PER_MINUTE are raised: all of them are one user.",
    ),
    "idle": Curve(
        "idle open streams",
        (0, 100, 1000, 3000, min(10_000, _MOST_STREAMS)),
        idle,
        "As many as `ulimit -Hn` allows, 10,000 at most. Beside them 50 streams are paced; what the idle ones cost at "
        "rest is not counted among the CPU of a chunk.",
    ),
    "length": Curve(
        "tokens of an answer",
        (100, 1000, 10_000, 50_000),
        length,
        "CHATSTREAM_ANSWER_CHARACTERS is 3,000,000. The request is shared out among the chunks of its answer.",
    ),
    "history": Curve(
        "messages of a conversation",
        (2, 20, 200, 2000),
        history,
        "The model is sent as much of it as CHATSTREAM_CONTEXT_CHARACTERS allows, 48,000: up to there a request's cost "
        "grows.",
    ),
    "conversations": Curve(
        "conversations in the database",
        (10, 1000, 10_000, 100_000, 1_000_000),
        conversations,
        "Of a thousand users, or of fewer where there are less than 5,000.",
    ),
    "processes": Curve(
        "processes on one database",
        (1, 2, 3, 4),
        processes,
        "Each has 25 streams of 20 chunks a second; all are on one core: it is their cost that is compared.",
    ),
    "cores": Curve(
        "processes, each on a core of its own",
        tuple(range(1, min(4, len(_CORES)) + 1)),
        cores,
        "Each has 50 unpaced streams. The model and the load generators (the others) run on the same cores: where they "
        "are too few, the processes get what the others leave.",
    ),
}

# The titles of the curves' figures; figures with the same unit share a picture.
FIGURES: Final = {
    "us_per_chunk": ("CPU of a chunk", "µs"),
    "chunk_p99_ms": ("latency of a chunk, p99", "ms"),
    "open_ms": ("time to the first chunk, p50", "ms"),
    "cpu_ms_per_request": ("CPU of a whole request", "ms"),
    "list_ms": ("GET five conversations, p50", "ms"),
    "messages_ms": ("GET two messages, p50", "ms"),
    "kb_per_stream": ("memory of a stream", "KB"),
    "cpu_percent_idle": ("CPU of a process at rest", "% of a core"),
    "chunks_per_s": ("chunks of all processes", "a second"),
    "server_cores": ("cores that the processes used", "cores"),
    "other_cores": ("cores that the others used", "cores"),
}
