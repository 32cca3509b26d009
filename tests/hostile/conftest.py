"""A server under attack, and its stored data."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from chatstream import auth
from tests.support.client import API
from tests.support.processes import SECRET, ServerProcess
from tests.support.raw import RawClient

# A text in all input that must not appear in the log.
MARK = "xyzzy-"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of `target` measure no coverage: thousands of requests take the same few paths, as other tests do."""
    for item in items:
        if item.path.parent == Path(__file__).parent and "target" in getattr(item, "fixturenames", ()):
            item.add_marker("unmeasured")


class Target:
    """A server, its database, and a connection to it with a user's token."""

    def __init__(self, server: ServerProcess, database: Any) -> None:
        self.server = server
        self.database = database
        self.http = RawClient(server.port)
        self.token = auth.mint(SECRET, "attacker", 3600)
        self.conversation = self.create()

    def request(self, method: str, target: str, *headers: str, body: bytes = b"", token: str | None = None) -> bytes:
        """Build a request: it is valid if its parts are."""
        head = [f"{method} {target} HTTP/1.1", "Host: x", f"Authorization: Bearer {token or self.token}", *headers]
        head.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*head, "", ""]).encode("latin-1") + body

    def create(self, token: str | None = None, **fields: Any) -> str:
        """Create a conversation; returns its id."""
        body = json.dumps(fields).encode()
        reply = self.http.exchange(self.request("POST", API, "Content-Type: application/json", body=body, token=token))
        assert reply.status == 201, reply
        return str(json.loads(reply.body)["id"])

    def stored(self) -> tuple[int, int]:
        """The number of stored conversations and user messages."""
        messages = self.database.messages.count_documents({"role": "user"})
        return self.database.conversations.count_documents({}), messages

    def everything(self) -> list[Any]:
        """All stored documents: users' messages and answers."""
        return [
            document for name in ("conversations", "messages") for document in self.database[name].find().sort("_id")
        ]


@pytest.fixture(scope="package")
def target(tmp_path_factory: pytest.TempPathFactory, mongodb_uri: str, environment: dict[str, str]) -> Iterator[Target]:
    """A server for the hostile requests of one file. It must survive, and its log must not show confidential input."""
    name = f"hostile-{uuid.uuid4().hex}"
    settings = environment | {
        "MONGODB_DATABASE": name,
        "OPENAI_BASE_URL": "",  # the demo model answers every accepted message
        "OPENAI_API_KEY": "",
        "CHATSTREAM_CONNECTION_TIMEOUT": "0.05",  # an open stream ends by itself
        "CHATSTREAM_HEARTBEAT_INTERVAL": "0.05",
    }
    server = ServerProcess(tmp_path_factory.mktemp("hostile"), settings, measure=False).start().wait_until_ready()
    with MongoClient[dict[str, Any]](mongodb_uri, tz_aware=True) as client:
        target = Target(server, client[name])
        began = len(server.log)
        yield target
        target.http.close()
        assert server.stop() == 0
        assert "Traceback" not in server.log
        lines = server.log[began:].splitlines()
        assert [
            line for line in lines if json.loads(line)["level"] != "info" and "CORS_ORIGINS" not in line
        ] == []  # nor a 5xx
        assert target.token not in server.log
        assert MARK not in server.log
