"""The environment of a scenario: a database, server processes, the model, and a proxy on each connection between
them.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.stress.faults import FaultProxy
from tests.stress.ledger import Ledger
from tests.stress.model import Model
from tests.stress.reconcile import DESCRIPTORS_MORE, SETTLING, Evidence, Message, Process, Violation, reconcile
from tests.stress.workload import Clients, Person, Tab
from tests.support.processes import SECRET, ServerProcess
from tests.support.replica_set import ReplicaSet

_KEY = "sk-stress-this-must-never-be-seen"
# Settings that are long by default are short here, in the same proportions.
_SETTINGS = {
    "JWT_SECRET": SECRET,
    "OPENAI_API_KEY": _KEY,
    "CHATSTREAM_LOG_FORMAT": "json",
    # Clients that are disconnected at random reconnect more often than people do.
    "CHATSTREAM_OPENINGS_PER_MINUTE": "1000000",
    "CHATSTREAM_HEARTBEAT_INTERVAL": "1.5",
    "CHATSTREAM_DISCONNECT_GRACE": "2",
    "CHATSTREAM_CONNECTION_TIMEOUT": "12",
    "CHATSTREAM_FIRST_TOKEN_TIMEOUT": "4",
    "CHATSTREAM_IDLE_TIMEOUT": "3",
    "CHATSTREAM_SAVE_DEADLINE": "3",
    "CHATSTREAM_DRAIN_TIMEOUT": "3",
}
# The protocol's promise: this many seconds after the last fault, nothing is `streaming`, and viewers have the ends.
RECOVERY = 30.0
# Seconds for which a closed connection may still be in /proc, until the other side has noticed its end.
_CLOSING = 5.0


class Server:
    """A server process, with proxies before it, behind it to the model, and, with `cut_off`, to the database."""

    def __init__(self, directory: Path, model_port: int, mongo: ReplicaSet, settings: Mapping[str, str]) -> None:
        self._directory, self._mongo, self._settings = directory, mongo, settings
        self.to_model = FaultProxy(lambda: model_port)
        self.to_database = FaultProxy(lambda: mongo.nodes[0].port)
        self.door = FaultProxy(lambda: self.process.port)
        self.process: ServerProcess
        self.serves = False  # whether a load balancer would send clients here
        self.descriptors_before = 0

    async def start(self, *, direct: bool) -> "Server":
        """Start it, the first time; `direct`: the database without its proxy, as for a set of several nodes."""
        await asyncio.gather(self.to_model.start(), self.to_database.start(), self.door.start())
        # A set names its members by their own addresses; with a direct connection the driver does not ask.
        uri = self._mongo.uri if direct else f"mongodb://127.0.0.1:{self.to_database.port}/?directConnection=true"
        model = {"OPENAI_BASE_URL": f"http://127.0.0.1:{self.to_model.port}/v1", "MONGODB_URI": uri}
        self.process = ServerProcess(self._directory, {**_SETTINGS, **model, **self._settings})
        return await self.restart()

    async def restart(self) -> "Server":
        """Restart the server."""
        self.process.start()
        await asyncio.to_thread(self.process.wait_until_ready)
        self.descriptors_before = self.descriptors
        self.serves = True
        return self

    async def kill(self) -> None:
        """End it at once."""
        self.serves = False
        await self.process.kill()

    async def stop(self) -> int:
        """Stop the server with SIGTERM; returns its exit status."""
        self.serves = False
        return await asyncio.to_thread(self.process.stop)

    @property
    def descriptors(self) -> int:
        """Its open file descriptors."""
        assert self.process.process is not None
        return len(os.listdir(f"/proc/{self.process.process.pid}/fd"))  # noqa: PTH208 - counted, not used

    @property
    def proxies(self) -> tuple[FaultProxy, ...]:
        """The proxies in front of the server, the model and the database."""
        return (self.door, self.to_model, self.to_database)

    async def close(self) -> None:
        """Close and stop everything."""
        if process := getattr(self, "process", None) and self.process.process:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            await self.process.ended()
        for proxy in self.proxies:
            if proxy.port:
                await proxy.close()


class Stage:
    """All parts of one run. An asynchronous context manager."""

    def __init__(self, seed: int, directory: Path, mongo: ReplicaSet, *, short: bool) -> None:
        """`directory` gets the logs and the ledger; `short` scenarios have less of everything."""
        self.rng = random.Random(seed)  # noqa: S311 - a seeded run
        self.short = short
        self.mongo = mongo
        self.orphans_allowed = False
        self.servers: list[Server] = []
        self._directory = directory
        self.database = f"stress-{directory.name}"[:60]
        self.ledger = Ledger(directory / "ledger.jsonl")
        self.model = Model(self.ledger, seed)
        self.clients = Clients(self.ledger, lambda: [one.door.port for one in self.servers if one.serves])
        self.people: list[Person] = []
        self.tabs: list[Tab] = []
        self._exits: list[int] = []

    async def __aenter__(self) -> "Stage":
        await self.model.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        everything: list[Tab | Person | Server | Model] = [*self.tabs, *self.people, *self.servers, self.model]
        for each in everything:
            await each.close()
        self.ledger.close()
        with contextlib.suppress(PyMongoError), self._open_database() as client:
            client.drop_database(self.database)

    def _open_database(self) -> MongoClient[dict[str, Any]]:
        return MongoClient(self.mongo.uri, serverSelectionTimeoutMS=2000, socketTimeoutMS=5000)

    async def serve(self, count: int = 1, **settings: str) -> list[Server]:
        """Start this many servers."""
        settings = {"MONGODB_DATABASE": self.database, **settings}
        new = [Server(self._directory, self.model.port, self.mongo, settings) for _ in range(count)]
        self.servers += new
        await asyncio.gather(*(server.start(direct=len(self.mongo.nodes) > 1) for server in new))
        return new

    async def person(self, name: str) -> Person:
        """A user with a new conversation."""
        rng = random.Random(self.rng.random())  # noqa: S311 - a seeded run
        person = Person(self.clients, name, rng)
        self.people.append(person)
        return await person.begin()

    def tab(self, person: Person, *, restless: float = 0.0, patience: float = 6.0) -> Tab:
        """Let a person watch."""
        self.tabs.append(Tab(self.clients, person, restless=restless, patience=patience).open())
        return self.tabs[-1]

    async def crowd(self, people: int, *, tabs: int = 2, restless: float = 0.3) -> list[Person]:
        """This many people, each with this many tabs."""
        crowd = [await self.person(str(number)) for number in range(people)]
        for person in crowd:
            for _ in range(tabs):
                self.tab(person, restless=restless)
        return crowd

    @contextlib.asynccontextmanager
    async def under_way(self, *actions: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
        """Run these tasks while the context is open; leaving it waits for them."""
        async with asyncio.TaskGroup() as group:
            for action in actions:
                group.create_task(action)
            yield

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until a condition is true."""
        async with asyncio.timeout(RECOVERY):
            while not holds():
                await asyncio.sleep(0.02)
        assert holds(), what

    async def settle(self) -> None:
        """End all faults, and wait for everything to end within the promised time. Anything later is a violation."""
        for server in self.servers:
            for proxy in server.proxies:
                proxy.heal()
        for tab in self.tabs:
            tab.restless = 0.0
        loop = asyncio.get_running_loop()
        deadline = loop.time() + RECOVERY
        while loop.time() < deadline:
            with contextlib.suppress(PyMongoError):
                if not reconcile(await self._evidence(), SETTLING) and not self.model.open:
                    break
            await asyncio.sleep(0.25)  # between two polls; there is no event to wait for in a database

    async def verdict(self) -> list[Violation]:
        """Stop everything, and compare."""
        evidence = await self._evidence()
        for tab in self.tabs:
            await tab.close()
        for person in self.people:
            await person.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _CLOSING
        running = [server for server in self.servers if server.serves]
        while loop.time() < deadline:
            self.model.close_idle()
            if all(one.descriptors <= one.descriptors_before + DESCRIPTORS_MORE for one in running):
                break
            await asyncio.sleep(0.1)  # between two polls; there is no event to wait for in another process
        descriptors = [(server.descriptors_before, server.descriptors) for server in running]
        self._exits += await asyncio.gather(*(server.stop() for server in running))
        for server in self.servers:
            if server not in running:  # these have ended during the scenario, on purpose
                descriptors.append((0, 0))
                self._exits.append(0)
        evidence.processes = [
            Process(log=server.process.log, exit_status=status, descriptors=counts)
            for server, status, counts in zip(
                running + [one for one in self.servers if one not in running], self._exits, descriptors, strict=True
            )
        ]
        evidence.entries = self.ledger.entries  # with the ends of all calls
        return reconcile(evidence)

    async def _evidence(self) -> Evidence:
        return Evidence(
            entries=self.ledger.entries,
            messages=await asyncio.to_thread(self._messages),
            secrets=[*self.clients.tokens, _KEY, SECRET],
            orphans_allowed=self.orphans_allowed,
            settled=frozenset(tab.chain for tab in self.tabs if not tab.over),
        )

    def _messages(self) -> list[Message]:
        with self._open_database() as client:
            database = client[self.database]
            names = {one["_id"]: one["id"] for one in database["conversations"].find()}
            return [_message(one, names) for one in database["messages"].find()]


def _message(document: dict[str, Any], names: Mapping[Any, str]) -> Message:
    """A document in the form for the rules. A message whose conversation is gone keeps the conversation's key."""
    error = document.get("error") or {}
    return Message(
        id=str(document["_id"]),
        conversation=names.get(document["conversationId"], str(document["conversationId"])),
        seq=document["seq"],
        role=document["role"],
        content=document["content"] if "content" in document else "".join(document["pieces"]),
        key=document.get("clientMessageId"),
        reply_to=str(document.get("replyTo", "")),
        attempt=document.get("attempt", 0),
        status=document.get("status", ""),
        finish_reason=document.get("finishReason"),
        error=error.get("code"),
        orphaned=_is_orphaned(document),
        unwatched=error.get("unwatched", False),
        recommendations=len(document.get("recommendations", [])),
    )


def _is_orphaned(document: dict[str, Any]) -> bool:
    """Whether another process has ended the answer. The sweeper's ends have no request id; a stopped one has no error,
    but another process wrote it.
    """
    error = document.get("error") or {}
    writer = document.get("writtenBy", document["owner"]).rpartition("#")[0]
    stopped_for_it = document.get("status") == "stopped" and writer not in ("", document["owner"])
    return stopped_for_it or (error.get("code") == "answer_interrupted" and error.get("requestId") is None)
