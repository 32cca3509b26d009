"""The issuer of the tokens: it signs them, and publishes its keys on an HTTP server in this process."""

import asyncio
import json
import ssl
from collections.abc import Callable
from typing import Any

from jwt.algorithms import get_default_algorithms
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler


def jwk(private: Any, algorithm: str, **members: Any) -> dict[str, Any]:
    """The public key as a JWK; members that are None are left out."""
    made: dict[str, Any] = get_default_algorithms()[algorithm].to_jwk(private.public_key(), as_dict=True)
    return {name: value for name, value in (made | members).items() if value is not None}


class Issuer:
    """An issuer that publishes `keys`, or sends any other response."""

    def __init__(self, *keys: Any, tls: ssl.SSLContext | None = None) -> None:
        self.keys = [*keys]
        self.respond: Callable[[RequestHandler], Any] = lambda handler: handler.finish({"keys": self.keys})
        self.asked = 0
        issuer = self

        class Handler(RequestHandler):
            async def get(self) -> None:
                issuer.asked += 1
                answered = issuer.respond(self)
                if asyncio.iscoroutine(answered):
                    await answered

        self._server = HTTPServer(Application([("/keys", Handler)], log_function=lambda handler: None), ssl_options=tls)
        listening, self.port = bind_unused_port()
        self._server.add_sockets([listening])
        self.url = f"http://127.0.0.1:{self.port}/keys"

    def says(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """From now on, send this response."""

        def respond(handler: RequestHandler) -> None:
            handler.set_status(status)
            for name, value in headers.items():
                handler.set_header(name, value)
            handler.finish(body)

        self.respond = respond

    def publishes(self, *keys: Any) -> None:
        """From now on, publish these keys."""
        self.keys = [*keys]
        self.respond = lambda handler: handler.finish(json.dumps({"keys": self.keys}))

    async def close(self) -> None:
        self._server.stop()
        await self._server.close_all_connections()
