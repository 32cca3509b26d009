"""Fixtures. The only place that knows pytest-tornado's: its `io_loop`, and that fixtures are synchronous."""

import asyncio
import gc
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
    """On a busy machine anything may take long, and how long is no property."""
    usual = hypothesis.settings.default
    hypothesis.settings.register_profile("untimed", usual, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first: at the end, no process has a minute to go while the others have nothing left."""
    items.sort(key=lambda item: item.path.parent.name not in ("page", "stress") and item.path.stem != "test_silence")


def pytest_collection_finish() -> None:
    """What is loaded by now stays: a collection after each test looks at what came since, in milliseconds."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _leaves_nothing_open() -> Iterator[None]:
    """A socket that a test forgot fails this test, not whichever one runs when Python's collector comes by."""
    yield
    gc.collect()


@pytest.fixture(scope="session", autouse=True)
def _no_event_loop_of_its_own() -> None:
    """Without this, asyncio makes one for the first `io_loop` to go back to, and nobody closes it."""
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session", autouse=True)
def _preloaded() -> Iterator[None]:
    """Servers begin with what they need loaded already."""
    ServerProcess.preloaded = preloaded = Preloaded(measured())
    yield
    ServerProcess.preloaded = None
    preloaded.close()


@pytest.fixture(scope="session")
def mongodb_uri() -> Iterator[str]:
    """A real MongoDB for all tests; each server has a database of its own."""
    with data_directory() as directory, mongod(directory) as uri:
        yield uri


@pytest.fixture(scope="session")
def upstream_port() -> int:
    """Where the model listens while a test runs."""
    return free_port()


@pytest.fixture
def upstream(io_loop: IOLoop, upstream_port: int) -> Iterator[Upstream]:
    """The model: it says what the test scripts, and counts."""
    upstream = io_loop.run_sync(lambda: Upstream.start(upstream_port))
    yield upstream
    io_loop.run_sync(upstream.close)


@pytest.fixture(scope="session")
def environment(mongodb_uri: str, upstream_port: int) -> dict[str, str]:
    """The settings of a server that talks to `upstream`. What takes long by default is short here."""
    return {
        "MONGODB_URI": mongodb_uri,
        "JWT_SECRET": SECRET,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "OPENAI_API_KEY": "sk-test-this-must-never-be-seen",
        "CHATSTREAM_USER_MODELS": "any",
        "CHATSTREAM_DISCONNECT_GRACE": "1",
        "CHATSTREAM_HEARTBEAT_INTERVAL": "1",
        # One user may send thousands of requests here, and with bad tokens, too.
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
def start_server(tmp_path: Path, environment: dict[str, str]) -> Iterator[StartServer]:
    """Start a server with further settings, in a database of its own; it is stopped after the test."""
    database = f"test-{uuid.uuid4().hex}"
    started: list[ServerProcess] = []

    def start(port: int | None = None, *, ready: bool = True, **settings: str) -> ServerProcess:
        if settings.get("CHATSTREAM_ENV") == "production":
            settings = {"CHATSTREAM_USER_MODELS": "on", **settings}
        server = ServerProcess(tmp_path, {**environment, "MONGODB_DATABASE": database, **settings}, port).start()
        started.append(server)
        return server.wait_until_ready() if ready else server

    yield start
    with ThreadPoolExecutor() as pool:  # each takes a second, in which it only waits
        list(pool.map(ServerProcess.stop, started))


@pytest.fixture
def make_client(io_loop: IOLoop) -> Iterator[MakeClient]:
    """Clients of a server, each of a user nobody else is."""
    clients: list[Client] = []

    def make(server: ServerProcess, user: str | None = None) -> Client:
        clients.append(Client(server.url, user or f"user-{uuid.uuid4().hex}"))
        return clients[-1]

    yield make
    for client in clients:
        io_loop.run_sync(client.close)


@pytest.fixture
def client(io_loop: IOLoop, shared_server: ServerProcess, make_client: MakeClient) -> Iterator[Client]:
    """A client of the shared server. It leaves no answer behind that would ask the next test's model."""
    client = make_client(shared_server)
    yield client
    io_loop.run_sync(client.stop_all)


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> NameProxies:
    """Name the proxies of the environment, and no others."""

    def proxies(**named: str) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        for name, proxy in named.items():
            monkeypatch.setenv(name, proxy)

    return proxies
