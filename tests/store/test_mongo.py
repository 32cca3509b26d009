"""The connection: refusals, translated errors, repeated transactions."""

import asyncio
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError, WTimeoutError

from chatstream.errors import ConfigurationError, StorageUnavailable
from chatstream.store.embedded import find_mongod
from chatstream.store.gate import translated
from chatstream.store.mongo import Mongo
from tests.support.client import PATIENCE
from tests.support.processes import free_port


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a mongod without a replica set, which checks passwords."""
    directory = tmp_path_factory.mktemp("standalone")
    log, port = directory / "log", free_port()
    options = ["--bind_ip", "127.0.0.1", "--nounixsocket", "--auth", "--wiredTigerCacheSizeGB", "0.25"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [find_mongod(), "--dbpath", str(directory), "--port", str(port), *options], stdout=output, stderr=output
        )
    try:
        _wait_until_it_listens(process, log)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_it_listens(process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 30
    while not re.search(rb'"id":23016\b', log.read_bytes()):  # "Waiting for connections"
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)  # between two polls; there is no event to wait for in another process


@pytest.mark.gen_test
async def test_a_standalone_server_is_refused_with_the_command_that_fixes_it(standalone: int) -> None:
    mongo = Mongo(f"mongodb://127.0.0.1:{standalone}/", "test")
    with pytest.raises(ConfigurationError, match=r"rs\.initiate\(\)"):
        await mongo.prepare()
    mongo.close()


@pytest.mark.gen_test
async def test_wrong_credentials_are_refused_and_not_repeated(standalone: int) -> None:
    mongo = Mongo(f"mongodb://somebody:hunter2@127.0.0.1:{standalone}/", "test")
    with pytest.raises(ConfigurationError) as caught:
        await mongo.prepare()
    assert "credentials" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    mongo.close()


@pytest.mark.gen_test
async def test_where_nothing_listens_the_storage_is_unavailable() -> None:
    mongo = Mongo(f"mongodb://127.0.0.1:{free_port()}/?replicaSet=rs0", "test")
    for action in (mongo.prepare, mongo.ping):
        with pytest.raises(StorageUnavailable):
            await action()
    mongo.close()


@pytest.mark.parametrize(
    "uri",
    ["mongodb://", "mongodb://user:hunter2@", "mongodb://127.0.0.1:99999", "mongodb://u:hunter2@h:0"],
)
@pytest.mark.gen_test
async def test_a_uri_that_cannot_be_parsed_is_refused_without_its_password(uri: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Mongo(uri, "test")
    assert "MONGODB_URI" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.gen_test
async def test_preparing_can_be_repeated(mongodb_uri: str) -> None:
    mongo = Mongo(mongodb_uri, "store")
    await mongo.prepare()
    await mongo.prepare()
    await mongo.ping()
    mongo.close()


def labelled(error: PyMongoError, label: str) -> PyMongoError:
    error._add_error_label(label)
    return error


@pytest.mark.parametrize(
    "error",
    [
        AutoReconnect("connection closed"),
        WTimeoutError("waiting for replication timed out"),
        labelled(OperationFailure("conflict", 112), "TransientTransactionError"),
        labelled(OperationFailure("unknown", 50), "UnknownTransactionCommitResult"),
        labelled(OperationFailure("stepped down", 189), "RetryableWriteError"),
    ],
)
def test_no_answer_now_is_storage_unavailable(error: PyMongoError) -> None:
    with pytest.raises(StorageUnavailable), translated():
        raise error


def test_faults_of_ours_stay_what_they_are() -> None:
    with pytest.raises(OperationFailure), translated():
        raise OperationFailure("bad query", 2)


@pytest.mark.gen_test
async def test_a_transaction_is_begun_again_on_a_conflict(mongodb_uri: str) -> None:
    mongo = Mongo(mongodb_uri, "store")
    tries = 0

    async def body(session: object) -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise labelled(OperationFailure("conflict", 112), "TransientTransactionError")
        return "done"

    assert await mongo.transaction(body) == "done"
    assert tries == 3
    mongo.close()


@pytest.mark.gen_test
async def test_a_transaction_that_never_gets_through_is_given_up(
    mongodb_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatstream.store.mongo.TRANSACTION_RETRY_SECONDS", 0.05)
    mongo = Mongo(mongodb_uri, "store")

    async def body(session: object) -> None:
        raise labelled(OperationFailure("conflict", 112), "TransientTransactionError")

    with pytest.raises(StorageUnavailable):
        await mongo.transaction(body)
    mongo.close()


@pytest.mark.gen_test
async def test_what_a_transaction_raises_leaves_nothing_behind(mongodb_uri: str) -> None:
    mongo = Mongo(mongodb_uri, "store")

    async def body(session: object) -> None:
        await mongo.conversations.insert_one({"_id": "left behind", "userId": "nobody", "id": "x"}, session=session)
        raise LookupError

    with pytest.raises(LookupError):
        await mongo.transaction(body)
    assert await mongo.conversations.find_one({"_id": "left behind"}) is None
    mongo.close()


@pytest.mark.gen_test
async def test_a_transaction_that_hangs_is_not_waited_for(mongodb_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatstream.store.mongo.TRANSACTION_TIMEOUT_SECONDS", 0.1)
    mongo = Mongo(mongodb_uri, "transactions")
    go_on, ended = asyncio.Event(), asyncio.Event()

    async def body(_session: object) -> None:
        await go_on.wait()
        ended.set()

    with pytest.raises(StorageUnavailable):
        await mongo.transaction(body)
    go_on.set()  # a write is not interrupted, as it cannot be undone
    await asyncio.wait_for(ended.wait(), 5)
    await asyncio.gather(*mongo._tasks)  # before the loop is closed
    mongo.close()


@pytest.mark.gen_test
async def test_a_fault_of_ours_is_logged_although_whoever_asked_has_left(
    mongodb_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("chatstream.store.mongo.TRANSACTION_TIMEOUT_SECONDS", 0.1)
    mongo = Mongo(mongodb_uri, "transactions")
    go_on, said = asyncio.Event(), "what somebody wrote"

    async def body(_session: object) -> None:
        await go_on.wait()
        raise LookupError(said)

    with pytest.raises(StorageUnavailable):
        await mongo.transaction(body)
    go_on.set()
    async with asyncio.timeout(PATIENCE):
        while "LookupError" not in caplog.text:
            await asyncio.sleep(0.01)  # there is no event: nobody is notified, by design
    assert said not in caplog.text
    mongo.close()
