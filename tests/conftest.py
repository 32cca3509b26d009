"""Fixtures. Only this module uses pytest-tornado's `io_loop`, and knows that fixtures are synchronous."""

import asyncio
import gc
import socket
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck
from tornado.ioloop import IOLoop

from tests.support.client import Client
from tests.support.data_directory import data_directory
from tests.support.preloaded import Preloaded
from tests.support.processes import SECRET, ServerProcess, free_port, measured, mongod
from tests.support.upstream import Upstream

MakeClient = Callable[..., Client]
StartServer = Callable[..., ServerProcess]
NameProxies = Callable[..., None]


def pytest_configure() -> None:
    """Hypothesis: set no deadline. On a busy machine everything may be slow, and tests assert no durations."""
    usual = hypothesis.settings.default
    hypothesis.settings.register_profile("untimed", usual, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest tests first and the quick ones last, so that at the end no test process works for another minute
    while the others are idle. Spread the files of browser tests, which keep more than one core busy, evenly over the
    other slow tests, which mostly wait.
    """

    def turn(item: pytest.Item) -> int:
        if item.path.parent.name == "stress" or item.path.stem == "test_silence":
            return 0  # up to a minute for a test
        together = item.get_closest_marker("xdist_group") is not None
        return 1 if together or item.path.parent.name in ("hostile", "scenarios", "scripts", "terminal") else 2

    in_a_browser: dict[Path, list[pytest.Item]] = {}
    others: list[pytest.Item] = []
    for item in sorted(items, key=turn):
        if item.path.parent.name == "page":
            in_a_browser.setdefault(item.path, []).append(item)  # the tests of a file share a browser
        else:
            others.append(item)
    files = sorted(in_a_browser.values(), key=len)  # the longest one is taken first
    apart = sum(turn(item) < 2 for item in others) // max(1, len(files)) + 1
    items.clear()
    for number, item in enumerate(others):
        if files and number % apart == 0:
            items += files.pop()
        items.append(item)
    for file in reversed(files):
        items += file


def pytest_collection_finish() -> None:
    """Exclude the objects that exist now from garbage collection: the collection after each test then only takes
    milliseconds.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def _opened() -> Counter[str]:
    """Count what this process opens and has to close: sockets, files and processes, by the name of the audit event."""
    opened = Counter[str]()

    def count(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("socket.__new__", "open", "subprocess.Popen"):
            opened[event] += 1

    sys.addaudithook(count)
    return opened


@pytest.fixture(scope="session", autouse=True)
def _sockets_that_pymongo_forgets() -> Iterator[None]:
    """Do not report an unclosed socket that pymongo made: a client that is closed in the middle of a handshake forgets
    its socket.
    """
    made: set[int] = set()  # the ids of these sockets; no references, which would keep them alive

    def remember(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.__new__":
            maker = sys._getframe(2).f_globals.get("__name__", "")  # behind the constructor of `socket.socket`
            change = made.add if maker.startswith("pymongo.") else made.discard
            change(id(arguments[0]))

    def report(unraisable: "sys.UnraisableHookArgs") -> None:
        if not (isinstance(unraisable.object, socket.socket) and id(unraisable.object) in made):
            usual(unraisable)

    sys.addaudithook(remember)
    usual, sys.unraisablehook = sys.unraisablehook, report
    yield
    sys.unraisablehook = usual


@pytest.fixture(scope="module", autouse=True)
def _what_was_loaded_stays() -> None:
    """Exclude from garbage collection, too, what the modules before have loaded: the model's library is loaded at its
    first use, and looking through it would take longer than most tests.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _leaves_nothing_open(_opened: Counter[str]) -> Iterator[None]:
    """Collect garbage after each test that opened something, so that a socket that a test forgot to close fails this
    test, and not a later one. Most tests open nothing, and many take less time than a collection.
    """
    before = _opened.total()
    yield
    if _opened.total() > before:
        gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Do not measure the coverage of tests that repeat with many values, or through a browser, what other tests cover:
    measuring doubles the CPU time of a test that only computes. These are all of Hypothesis, and those that are marked,
    whose servers are not measured either.

    Nor measure a test that uses a server: what runs in its own process is the client, and the server measures itself.
    """
    traces = sys.gettrace(), threading.gettrace()
    uses_a_server = {"shared_server", "start_server"} & {*getattr(item, "fixturenames", ())}
    if uses_a_server or item.get_closest_marker("hypothesis") or item.get_closest_marker("unmeasured"):
        sys.settrace(None)
        threading.settrace(None)  # for threads that the test starts, such as the database driver's
    try:
        yield
    finally:
        sys.settrace(traces[0])
        threading.settrace(traces[1])


@pytest.fixture(scope="session", autouse=True)
def _no_event_loop_of_its_own() -> None:
    """Set no current event loop. Otherwise asyncio makes one for the first `io_loop` to restore, and nobody closes
    it.
    """
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session", autouse=True)
def _preloaded() -> Iterator[None]:
    """The processes from which servers are forked, with all their modules already loaded: one whose servers measure
    coverage, and one whose servers do not.
    """
    ServerProcess.preloaded = preloaded = [Preloaded(measured()), Preloaded({})]
    yield
    ServerProcess.preloaded = []
    for each in preloaded:
        each.close()


@pytest.fixture(scope="session")
def mongodb_uri() -> Iterator[str]:
    """The URI of a real MongoDB for all tests; each server has a database of its own."""
    with data_directory() as directory, mongod(directory) as uri:
        yield uri


@pytest.fixture(scope="session")
def upstream_port() -> int:
    """The port on which the model listens while a test runs."""
    return free_port()


@pytest.fixture
def upstream(io_loop: IOLoop, upstream_port: int) -> Iterator[Upstream]:
    """The model's endpoint: it sends the responses that the test scripts, and counts the requests."""
    upstream = io_loop.run_sync(lambda: Upstream.start(upstream_port))
    yield upstream
    io_loop.run_sync(upstream.close)


@pytest.fixture(scope="session")
def environment(mongodb_uri: str, upstream_port: int) -> dict[str, str]:
    """The settings of a server whose model is `upstream`. Intervals that are long by default are short here."""
    return {
        "MONGODB_URI": mongodb_uri,
        "JWT_SECRET": SECRET,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "OPENAI_API_KEY": "sk-test-this-must-never-be-seen",
        "CHATSTREAM_USER_MODELS": "any",
        # Shorter than by default, and longer than a client takes to come, or to come back, on a busy machine.
        "CHATSTREAM_DISCONNECT_GRACE": "3",
        "CHATSTREAM_HEARTBEAT_INTERVAL": "1",
        # Rate limits far above what a test sends: one user sends thousands of requests, also with bad tokens.
        "CHATSTREAM_FAILURES_PER_MINUTE": "1000000",
        "CHATSTREAM_OPENINGS_PER_MINUTE": "1000000",
        "CHATSTREAM_MESSAGES_PER_MINUTE": "1000000",
        "CHATSTREAM_READS_PER_MINUTE": "1000000",
        "CHATSTREAM_SEARCHES_PER_MINUTE": "1000000",
        "CHATSTREAM_CHANGES_PER_MINUTE": "1000000",
        "CHATSTREAM_CONVERSATIONS_PER_USER": "1000000",
    }


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[ServerProcess]:
    """One server for all tests that need no settings of their own; each has users of its own."""
    settings = environment | {"MONGODB_DATABASE": "shared"}
    server = ServerProcess(tmp_path_factory.mktemp("shared"), settings).start().wait_until_ready()
    yield server
    assert server.stop() == 0


@pytest.fixture
def start_server(tmp_path: Path, environment: dict[str, str], request: pytest.FixtureRequest) -> Iterator[StartServer]:
    """Start a server with further settings, in a database of its own; it is stopped after the test."""
    measure = request.node.get_closest_marker("unmeasured") is None
    database = f"test-{uuid.uuid4().hex}"
    started: list[ServerProcess] = []

    def start(port: int | None = None, *, ready: bool = True, **settings: str) -> ServerProcess:
        if settings.get("CHATSTREAM_ENV") == "production":
            settings = {"CHATSTREAM_USER_MODELS": "on", **settings}
        variables = {**environment, "MONGODB_DATABASE": database, **settings}
        server = ServerProcess(tmp_path, variables, port, measure=measure).start()
        started.append(server)
        return server.wait_until_ready() if ready else server

    yield start
    with ThreadPoolExecutor() as pool:  # in threads, since each server takes a second to stop
        list(pool.map(ServerProcess.stop, started))


@pytest.fixture
def make_client(io_loop: IOLoop) -> Iterator[MakeClient]:
    """A function that makes clients of a server, each for a user of its own."""
    clients: list[Client] = []

    def make(server: ServerProcess, user: str | None = None) -> Client:
        clients.append(Client(server.url, user or f"user-{uuid.uuid4().hex}"))
        return clients[-1]

    yield make
    for client in clients:
        io_loop.run_sync(client.close)


@pytest.fixture
def client(io_loop: IOLoop, shared_server: ServerProcess, make_client: MakeClient) -> Iterator[Client]:
    """A client of the shared server. Its answers are stopped after the test, so that none asks the next test's
    model.
    """
    client = make_client(shared_server)
    yield client
    io_loop.run_sync(client.stop_all)


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> NameProxies:
    """A function that sets the proxy variables of the environment, and removes all others."""

    def proxies(**named: str) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        for name, proxy in named.items():
            monkeypatch.setenv(name, proxy)

    return proxies
