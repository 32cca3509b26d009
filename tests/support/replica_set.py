"""A replica set whose nodes can be killed, paused and started again, on ports that stay the same."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from chatstream.store.embedded import find_mongod
from tests.support.processes import free_port

# Seconds that a test waits for a primary; an election takes a few seconds.
PATIENCE = 60


class Node:
    """One mongod."""

    def __init__(self, directory: Path, name: str) -> None:
        self.port = free_port()
        self._directory = directory
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start or restart the node."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [
                *(find_mongod(), "--port", str(self.port), "--bind_ip", "127.0.0.1", "--nounixsocket"),
                *("--dbpath", str(self._directory), "--replSet", self._name, "--oplogSize", "64", "--quiet"),
                *("--wiredTigerCacheSizeGB", "0.25", "--setParameter", "diagnosticDataCollectionEnabled=false"),
            ],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def signal(self, number: int) -> None:
        """Send it a signal: SIGSTOP and SIGCONT pause it."""
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitpid(self._process.pid, os.WUNTRACED)  # until then a node still responds

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)


class ReplicaSet:
    """A set of `size` nodes; a context manager."""

    def __init__(self, directory: Path, size: int = 1) -> None:
        self.nodes = [Node(directory / f"node-{number}", "tests") for number in range(size)]
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        self.uri = f"mongodb://{hosts}/?replicaSet=tests"

    def __enter__(self) -> "ReplicaSet":
        for node in self.nodes:
            node.start()
        members = [{"_id": number, "host": f"127.0.0.1:{node.port}"} for number, node in enumerate(self.nodes)]
        # Elections in a second or two instead of ten: no test measures elections.
        settings = {"electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 200}
        for node in self.nodes:  # all nodes must be up to agree on the set
            with MongoClient[dict[str, object]](_direct(node)) as client:
                client.admin.command("ping")
        with MongoClient[dict[str, object]](_direct(self.nodes[0])) as client:
            client.admin.command("replSetInitiate", {"_id": "tests", "members": members, "settings": settings})
        self.primary()
        return self

    def __exit__(self, *_exc: object) -> None:
        for node in self.nodes:
            with contextlib.suppress(ProcessLookupError):
                node.signal(signal.SIGCONT)
            node.kill()

    def primary(self) -> Node:
        """Wait for a primary; returns it."""
        deadline = time.monotonic() + PATIENCE
        with MongoClient[dict[str, object]](self.uri, serverSelectionTimeoutMS=1000) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(PyMongoError):
                    client.admin.command("ping")
                    if client.primary is not None:
                        port = client.primary[1]
                        return next(node for node in self.nodes if node.port == port)
        raise AssertionError("no primary")


def _direct(node: Node) -> str:
    return f"mongodb://127.0.0.1:{node.port}/?directConnection=true"
