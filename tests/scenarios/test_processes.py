"""``--processes N``: several servers behind one port, which one supervisor starts, restarts and ends."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from pydantic import SecretStr

from chatstream import logs
from chatstream.commands.supervisor import Supervisor
from chatstream.settings import Settings
from tests.conftest import StartServer
from tests.support.client import PATIENCE
from tests.support.processes import REPOSITORY, ServerProcess, children, free_port


def pids(server: ServerProcess) -> dict[int, int]:
    """The workers' processes by their numbers."""
    assert server.process is not None
    found = {}
    for pid in children(server.process.pid):
        if number := re.search(rb'"number": (\d+)', Path(f"/proc/{pid}/cmdline").read_bytes()):
            found[int(number[1])] = pid
    return found


async def logged(server: ServerProcess, text: str, times: int = 1) -> None:
    """Wait until its log has this text this many times."""
    async with asyncio.timeout(PATIENCE):
        while server.log.count(text) < times:
            await asyncio.sleep(0.05)  # there is no event to wait for in another process


@pytest.mark.gen_test
async def test_one_that_is_killed_comes_again_and_all_end_with_the_one_who_started_them(
    start_server: StartServer,
) -> None:
    metrics = free_port(above=1)
    two = start_server(free_port(above=2), CHATSTREAM_PROCESSES="2", CHATSTREAM_METRICS_PORT=str(metrics))
    assert two.process is not None
    await logged(two, "2 processes serve on")
    before = pids(two)
    os.kill(before[1], signal.SIGKILL)
    await logged(two, "process 1 of 2 serves again")
    after = pids(two)
    assert after[1] != before[1]
    assert after[2] == before[2]
    assert "process 1 of 2 has ended (killed by signal 9); it is started again" in two.log
    assert re.search(r'"process":\s*2', two.log)
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        for port in (two.port, two.port + 1, two.port + 2):
            assert (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
        for port in (metrics, metrics + 1):
            assert "chatstream_streams_open 0" in (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    second = start_server(two.port, ready=False, CHATSTREAM_PROCESSES="2")
    assert await second.ended() == 1
    assert f"Cannot listen on 127.0.0.1:{two.port}: Address already in use. Set CHATSTREAM_PORT" in two.log
    await two.kill()
    await logged(two, '"stopped"', 2)


@pytest.mark.gen_test
async def test_told_to_end_all_drain_and_the_database_goes_last(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "chatstream", "serve", "--processes", "2")  # as people start it
    settings = {"CHATSTREAM_LOG_FORMAT": "text"}
    server = ServerProcess(tmp_path, settings, free_port(above=2), command).start().wait_until_ready()
    assert server.process is not None
    await logged(server, "2 processes serve on")
    started = children(server.process.pid)
    assert len(started) == 3
    printed = re.findall(r'curl -N -H "Authorization: Bearer (\S+)" (http://localhost:\d+\S+)', server.output)
    assert len(printed) == 1
    token, url = printed[0]
    assert f":{server.port}/" in url
    writing = pids(server)[2]
    async with (
        httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE) as http,
        http.stream("GET", url.replace(f":{server.port}/", f":{server.port + 2}/")) as watched,
    ):
        lines = watched.aiter_lines()
        while '"llm_chunk"' not in await anext(lines):
            pass
        server.signal(signal.SIGINT)
        await logged(server, "stopping; ", 2)
        with contextlib.suppress(ProcessLookupError):  # its answer has ended already, on a busy machine
            os.kill(writing, signal.SIGTERM)  # as `pkill` or a process manager that tells each process of a group
        rest = [line async for line in lines]
    assert any('"llm_complete"' in line for line in rest)  # a running answer has time to finish
    assert any('"server_shutdown"' in line for line in rest)
    assert await server.ended() == 0
    for pid in started:
        assert not Path(f"/proc/{pid}").exists()


@pytest.fixture
def _the_log_stays_pytests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_: None)


def supervisor(script: str, tmp_path: Path, count: int = 2, port: int = 0) -> Supervisor:
    """A supervisor whose workers run this script, in which `worker` is their number."""
    file = tmp_path / "worker.py"
    begin = "import json, os, sys, time\nfrom pathlib import Path\nworker = json.loads(sys.argv[1])['number']\n"
    file.write_text(begin + textwrap.dedent(script))
    given: dict[str, Any] = {
        "mongodb_uri": SecretStr("mongodb://127.0.0.1:1/"),
        "data_dir": tmp_path,
        "port": port,
        "processes": count,
    }
    settings = Settings(**given)
    assert not settings.uses_embedded_database
    return Supervisor(settings, [], [sys.executable, str(file)], pause=0.01)


def status(ended: Supervisor) -> int:
    async def run() -> int:
        async with asyncio.timeout(PATIENCE):
            return await ended.run()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("script", "said", "started"),
    [
        (["sys.exit(2)"], 2, 1),
        (["worker == 2 and sys.exit(1)", "os.write(0, b'r')", "os.read(0, 1)"], 1, 2),
        (["os.kill(os.getpid(), 9)"], 1, 1),
    ],
)
@pytest.mark.usefixtures("_the_log_stays_pytests")
def test_what_cannot_start_is_not_tried_again(tmp_path: Path, script: Sequence[str], said: int, started: int) -> None:
    ended = supervisor("\n".join(["Path(__file__).with_suffix(f'.{os.getpid()}').touch()", *script]), tmp_path)
    assert status(ended) == said
    assert len([*tmp_path.glob("worker.*[0-9]")]) == started


@pytest.mark.usefixtures("_the_log_stays_pytests")
def test_told_to_end_it_gives_up_the_port_at_once(tmp_path: Path) -> None:
    """And not when the last answer has ended: until then, no new server could serve there."""
    script = """
    import signal, socket
    os.write(0, b"r")
    os.kill(os.getppid(), signal.SIGTERM)
    os.read(0, 1)
    with socket.socket() as a_new_server:
        a_new_server.bind(("127.0.0.1", json.loads(sys.argv[1])["port"]))
    """
    assert status(supervisor(script, tmp_path, count=1)) == 0


@pytest.mark.parametrize(
    ("signals", "said"),
    [
        (["signal.raise_signal(signal.SIGTERM)", "select.select([0], [], [])"], 0),
        (["select.select([0], [], [])", "signal.raise_signal(signal.SIGTERM)"], 0),
        (["signal.raise_signal(signal.SIGTERM)", "signal.raise_signal(signal.SIGTERM)"], 1),
    ],
    ids=["the signal comes first", "the supervisor is first", "two signals"],
)
@pytest.mark.usefixtures("_the_log_stays_pytests")
def test_told_by_a_signal_and_by_its_supervisor_a_worker_drains(
    tmp_path: Path, signals: Sequence[str], said: int
) -> None:
    """Also if its loop is busy until both have come. Only a second signal ends it at once."""
    script = f"""
    import asyncio, select, signal
    sys.path.insert(0, {str(REPOSITORY)!r})
    from chatstream.server import _signals

    async def main():
        told, handled = asyncio.Event(), asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, handled.set)
        with _signals(told, supervised=True):
            os.write(0, b"r")
            os.kill(os.getppid(), signal.SIGTERM)
            {signals[0]}
            {signals[1]}
            signal.raise_signal(signal.SIGUSR1)  # signals are handled in their order, so this one after the others
            await handled.wait()
            await told.wait()

    asyncio.run(main())
    """
    assert status(supervisor(script, tmp_path, count=1)) == said


@pytest.mark.usefixtures("_the_log_stays_pytests")
def test_told_twice_it_ends_the_workers_at_once(tmp_path: Path) -> None:
    script = """
    import signal
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # to a worker, this would be its first signal: it drains
    os.write(0, b"r")
    os.kill(os.getppid(), signal.SIGTERM)
    os.read(0, 1)
    os.kill(os.getppid(), signal.SIGTERM)
    signal.pause()
    """
    assert status(supervisor(script, tmp_path, count=1)) == 1


@pytest.mark.usefixtures("_the_log_stays_pytests")
def test_a_worker_that_hangs_at_its_end_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
    import signal
    os.write(0, b"r")
    os.kill(os.getppid(), signal.SIGTERM)
    os.read(0, 1)
    signal.pause()
    """
    monkeypatch.setattr("chatstream.commands.supervisor._END_SECONDS", 0.1)
    hangs = supervisor(script, tmp_path, count=1)
    hangs._settings = replace(hangs._settings, drain_timeout=0)
    assert status(hangs) == 1
    assert "process 1 of 1 does not end; it is killed" in caplog.text


@pytest.mark.usefixtures("_the_log_stays_pytests")
def test_a_first_sigterm_after_the_terminal_was_closed_lets_the_workers_drain(tmp_path: Path) -> None:
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        pytest.skip("the tests run under nohup, and so does the supervisor")
    script = """
    import signal
    signal.signal(signal.SIGTERM, lambda *_: os._exit(1))
    os.write(0, b"r")
    os.kill(os.getppid(), signal.SIGHUP)
    os.read(0, 1)
    os.kill(os.getppid(), signal.SIGTERM)
    os.kill(os.getppid(), signal.SIGUSR1)
    while not Path(__file__).with_name("handled").exists():
        time.sleep(0.01)
    """
    ended = supervisor(script, tmp_path, count=1)

    async def run() -> int:
        # Signals are handled in their order, so this one after the others.
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, (tmp_path / "handled").touch)
        async with asyncio.timeout(PATIENCE):
            return await ended.run()

    assert asyncio.run(run()) == 0


@pytest.mark.parametrize("connected", [False, True], ids=["a free port", "it has just closed a connection"])
@pytest.mark.usefixtures("_the_log_stays_pytests")
def test_it_can_follow_a_single_server_at_its_port_at_once_and_holds_it(tmp_path: Path, connected: bool) -> None:
    """The kernel remembers for a minute each connection that the single server has closed. While no worker listens,
    the port is refused to every other server, and not to a worker.
    """
    with socket.create_server(("127.0.0.1", free_port())) as single:
        port = single.getsockname()[1]
        if connected:
            with socket.create_connection(single.getsockname()) as client:
                single.accept()[0].close()
                assert client.recv(1) == b""
    script = f"""
    import errno, socket
    from tornado.netutil import bind_sockets
    try:
        socket.create_server(("127.0.0.1", {port})).close()
        sys.exit("another server has taken the port")
    except OSError as exc:
        assert exc.errno == errno.EADDRINUSE, exc
    bind_sockets({port}, "127.0.0.1", reuse_port=True)
    os.write(0, b"r")
    os.kill(os.getppid(), 15)
    os.read(0, 1)
    """
    assert status(supervisor(script, tmp_path, count=1, port=port)) == 0


@pytest.mark.usefixtures("_the_log_stays_pytests")
def test_when_none_stays_up_it_gives_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Both workers serve once, and never again."""
    script = """
    served = Path(__file__).with_suffix(f".{worker}")
    if served.exists():
        sys.exit(3)
    served.touch()
    os.write(0, b"r")
    while not Path(__file__).with_suffix(".2").exists():
        time.sleep(0.01)
    """
    assert status(supervisor(script, tmp_path)) == 1
    assert (
        "none of the 2 processes serves, and each has ended 6 times in a row (the last: exit status 3)" in caplog.text
    )


@pytest.mark.usefixtures("_the_log_stays_pytests")
def test_what_cannot_be_started_at_all_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    missing = supervisor("", tmp_path)
    missing._command = [str(tmp_path / "no-such-program")]
    assert status(missing) == 1
    assert "process 1 of 2 cannot be started: No such file or directory" in caplog.text
