"""The HTTP handlers in this process, without a database or a model: for checks that come before any read or write."""

import contextlib
import inspect
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from tornado.testing import bind_unused_port

from chatstream.app import make_app
from chatstream.auth import Authenticator, OneKey, Rules
from chatstream.capacity import Capacity
from chatstream.handlers.connection import ChatServer
from chatstream.handlers.door import Door
from chatstream.handlers.listener import Listener
from chatstream.limits import Limits
from chatstream.metrics import Metrics
from chatstream.settings import Settings
from chatstream.store.mongo import Mongo
from chatstream.store.tickets import Tickets
from tests.support.processes import SECRET


class Doors(NamedTuple):
    """A server that listens on `port`."""

    server: ChatServer
    port: int
    limits: Limits


@contextlib.asynccontextmanager
async def doors_alone(**settings: Any) -> AsyncIterator[Doors]:
    """All routes, for tokens that are signed with `SECRET`."""
    configured = Settings(**settings)
    mongo = Mongo("mongodb://127.0.0.1:1", "none")
    door = Door(
        Authenticator(OneKey(SECRET.encode()), Rules()),
        configured.cors_origins,
        Limits.of(configured, Capacity.of(1024), lambda: 0),
        configured.trusted_proxies,
        tickets=Tickets(mongo),
        slow_reader_timeout=configured.slow_reader_timeout,
    )
    nobody: dict[str, Any] = dict.fromkeys(inspect.signature(make_app).parameters.keys() - {"settings"})
    nobody["page_words"] = nobody["page_cards"] = nobody["demo_models"] = {}
    server = ChatServer(make_app(configured, **nobody | {"door": door, "metrics": Metrics()}), room=1000)
    listening, port = bind_unused_port()
    server.listen_on([Listener(listening)])
    try:
        yield Doors(server, port, door.limits)
    finally:
        server.stop()
        await server.close_all_connections()
        mongo.close()
