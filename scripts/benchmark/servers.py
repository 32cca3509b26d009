"""The compared servers: the start of each, and the seeding of its database."""

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import jwt
from pymongo import MongoClient

from scripts.benchmark import build
from scripts.benchmark.machine import Process, on
from tests.support.processes import SECRET, free_port

# Longer than any benchmark.
_TOKEN_LIFETIME: Final = timedelta(days=1)
# Conversations per seeding: enough for most scenarios, and seeded within seconds.
_SUPPLY: Final = 4000
# Options of scripts/seed_conversations: a user may have ten streams open. The number of users follows.
FIVE_EACH: Final = ("--conversations", "5", "--users")


class Server(ABC):
    """One of them. Each seeded conversation is used once: when its question is answered, opening it again calls no
    model.
    """

    name: str
    title: str
    stream: str = "/api/v1/chat/conversations/{}/stream"
    health: str = "/health"
    cwd: Path = build.ROOT
    scenarios: tuple[str, ...] = ()  # the only ones that say something of it; empty: all

    def __init__(self, mongodb_uri: str, directory: Path) -> None:
        """`directory` gets its log and the list of its conversations."""
        self.uri = mongodb_uri
        self.database = f"bench_{self.name}"
        self.directory = directory
        self.conversations = directory / f"{self.name}.conversations"
        self._used = self._there = 0

    @abstractmethod
    def command(self, port: int) -> list[str]:
        """The command that starts the server."""

    @abstractmethod
    def seed(self, count: int) -> list[tuple[str, str]]:
        """Fill an empty database with conversations that end with a question; returns their ids and owners."""

    def environment(self, port: int, model: str) -> dict[str, str]:
        """The server's environment variables."""
        return {
            "PORT": str(port),
            "MONGODB_URI": self.uri,
            "MONGODB_DATABASE": self.database,
            "JWT_SECRET": SECRET,
            "OPENAI_BASE_URL": f"{model}/v1",
            "OPENAI_API_KEY": "sk-bench",
            "OPENAI_MODEL": "gpt-4o-mini",
        }

    def deal(self, count: int) -> int:
        """The place in the list of the first of `count` conversations that nobody has opened yet."""
        if self._used + count > self._there:
            self.take(self.seed(max(count, _SUPPLY)))
        self._used += count
        return self._used - count

    def take(self, conversations: list[tuple[str, str]]) -> None:
        """Use these conversations, which were just seeded."""
        self.write_list(conversations)
        self._used, self._there = 0, len(conversations)

    def write_list(self, conversations: list[tuple[str, str]]) -> None:
        """Write the input of the load generator: a conversation's id and a token of its owner in each line."""
        until = datetime.now(UTC) + _TOKEN_LIFETIME
        owners = {owner for _, owner in conversations}
        tokens = {owner: jwt.encode({"sub": owner, "exp": until}, SECRET) for owner in owners}
        self.conversations.write_text("".join(f"{name} {tokens[owner]}\n" for name, owner in conversations))

    @contextmanager
    def running(self, cores: set[int], model: str, **settings: str) -> Iterator["Running"]:
        """Start it, on `cores`."""
        port = free_port()
        environment = self.environment(port, model) | settings
        with Process(self.command(port), environment, cores, self.directory / f"{self.name}.log", self.cwd) as process:
            yield Running(self, process, port)


class Running:
    """A server that runs."""

    def __init__(self, server: Server, process: Process, port: int) -> None:
        self.server = server
        self.process = process
        self.port = port
        self.seconds_to_start = process.wait_for(f"http://127.0.0.1:{port}{server.health}")


class Chatstream(Server):
    """As it is shipped, in production."""

    name = "chatstream"
    title = "chatstream"
    stream = "/api/v1/chat/conversations/{}/stream?once=true"
    health = "/readyz"

    def command(self, port: int) -> list[str]:
        """The command of ``scripts/serve``."""
        return [sys.executable, "-m", "chatstream"]

    def environment(self, port: int, model: str) -> dict[str, str]:
        """Only the settings that production requires."""
        return super().environment(port, model) | {"CHATSTREAM_ENV": "production", "CHATSTREAM_PORT": str(port)}

    def seed(self, count: int) -> list[tuple[str, str]]:
        """Seed with chatstream's own script: five conversations of each user, who may have ten streams open."""
        return self.seed_with("--drop", *FIVE_EACH, str(-(-count // 5)), "--messages", "1", "--unanswered")

    def seed_with(self, *options: str) -> list[tuple[str, str]]:
        """Run ``scripts/seed_conversations`` with `options`; the ids and owners it has written."""
        ids, owners = self.directory / "ids", self.directory / "owners"
        where = ("--uri", self.uri, "--database", self.database, "--ids-file", str(ids), "--owners-file", str(owners))
        # On all cores, as nothing is measured at this time.
        with (self.directory / "seed.log").open("wb") as log, on(set(range(os.cpu_count() or 1))):
            subprocess.run(  # noqa: S603 - ours
                [sys.executable, "-m", "chatstream", "seed", *where, *options],
                cwd=build.ROOT,
                env={"PATH": os.environ["PATH"]},
                stdout=log,
                stderr=log,
                check=True,
                timeout=900,  # a million take three minutes
            )
        return list(zip(ids.read_text().split(), owners.read_text().split(), strict=True))


class Peer(Server):
    """A server that stores the same data as the reference server: messages by conversation, without an owner."""

    def seed(self, count: int) -> list[tuple[str, str]]:
        """Seed with inserts, and make the index for the server's query."""
        names = [f"c{number}" for number in range(count)]
        asked_at = datetime.now(UTC)
        with MongoClient[dict[str, Any]](self.uri) as client:
            messages = client[self.database]["messages"]
            messages.drop()
            messages.create_index([("conversationId", 1), ("role", 1), ("createdAt", -1)])
            messages.insert_many(
                {"conversationId": name, "role": "user", "content": "Who will win on Sunday?", "createdAt": asked_at}
                for name in names
            )
        return [(name, f"user-{number // 5}") for number, name in enumerate(names)]


class NestJS(Peer):
    """The server whose protocol chatstream keeps."""

    name = "nestjs"
    title = "NestJS"
    cwd = build.NESTJS

    def command(self, port: int) -> list[str]:
        """Compiled, without a watcher."""
        return [str(build.NODE), "dist/main.js"]

    def environment(self, port: int, model: str) -> dict[str, str]:
        """Express trusts this variable for its caches."""
        return super().environment(port, model) | {"NODE_ENV": "production"}


class Express(Peer):
    """The same protocol on Express, without a framework."""

    name = "express"
    title = "Express"
    cwd = build.EXPRESS

    def command(self, port: int) -> list[str]:
        """As it is."""
        return [str(build.NODE), "server.js"]

    def environment(self, port: int, model: str) -> dict[str, str]:
        """See `NestJS`."""
        return super().environment(port, model) | {"NODE_ENV": "production"}


class FastAPI(Peer):
    """A typical Python server."""

    name = "fastapi"
    title = "FastAPI"
    cwd = build.SOURCES

    def command(self, port: int) -> list[str]:
        """uvicorn with its fastest parts, and without an access log."""
        options = ("--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", "--http", "httptools")
        return [str(build.PYTHON), "-m", "uvicorn", "fastapi_server:app", *options, "--no-access-log"]


class Floor(Chatstream):
    """What chatstream asks of its libraries, with nothing around it; on chatstream's documents."""

    name = "floor"
    title = "the floor"
    stream = Server.stream
    health = Server.health
    scenarios = ("first_alone", "first_among_100", "requests", "cold_start")

    def command(self, port: int) -> list[str]:
        """With the libraries of chatstream's environment."""
        return [sys.executable, str(build.SOURCES / "floor_server.py")]


SERVERS: Final[dict[str, type[Server]]] = {
    server.name: server for server in (Chatstream, NestJS, Express, FastAPI, Floor)
}
