"""Finds out why a database does not work. Connects to each server in the URI separately."""

import asyncio
import socket
from collections.abc import Iterable
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo import AsyncMongoClient
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from chatstream.errors import ConfigurationError, StorageUnavailable
from chatstream.store import uri as uris
from chatstream.store.mongo import Mongo, refusal

# Time limit per server, in seconds. A healthy one answers within milliseconds, on another continent within a second.
_SECONDS = 2.0
_MILLISECONDS = int(_SECONDS * 1000)
# Time limit of a DNS query, in seconds: a resolver tries its first server for five seconds before the second one.
_NAME_SECONDS = 6.0
# Maximum number of servers to report on; a replica set has three or five.
_MOST = 5
# Tries of the test transaction. The first ones may be slow on a new replica set with a busy disk: it creates its files
# then, which takes up to ten seconds. A try ends after about three seconds.
_TRIES = 5

_INITIATE = "run once: mongosh --port {port} --eval 'rs.initiate()'"


class Server(NamedTuple):
    """A server in a MongoDB URI."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class _Undo(Exception):
    """Raised to abort a transaction on purpose."""


async def why_not(uri: str) -> str:
    """Return one line that names the fault of the MongoDB servers, and how to fix it."""
    return await _unreached(uri) or "its servers answer, but none of them is the primary at the moment"


async def _unreached(uri: str) -> str:
    """The fault in reaching the servers or in their answers to `hello`; empty if there is none."""
    try:
        async with asyncio.timeout(_NAME_SECONDS):
            nodes = (await asyncio.to_thread(parse_uri, uri))["nodelist"]
    except TimeoutError:
        return f"the name server did not answer within {_NAME_SECONDS:g} s"
    except (PyMongoError, ValueError, OSError):
        return "the DNS knows no MongoDB of this name (mongodb+srv://): is it spelt right?"
    servers = [Server(host, port) for host, port in nodes if port is not None][:_MOST]
    if not servers:
        return "it is behind a Unix socket, and does not answer there"
    found = await asyncio.gather(*(_about(server, uri) for server in servers))
    return "; ".join(dict.fromkeys(reason for reason in found if reason))


async def try_out(mongo: Mongo, uri: str, database: str, tries: int = _TRIES) -> str | None:
    """Try the operations that the server needs, and undo them. Returns the first that fails, or None."""

    async def body(session: Any) -> None:
        await mongo.conversations.insert_one({"_id": ObjectId(), "userId": "", "id": str(ObjectId())}, session=session)
        raise _Undo

    try:
        try:
            await mongo.check()
            await mongo.transaction(body)
        except _Undo:
            async with mongo.watch([], _MILLISECONDS) as changes:
                await changes.try_next()
    except StorageUnavailable:
        return await why_not(uri)
    except ConfigurationError as exc:
        return str(exc)
    except OperationFailure as exc:
        return refusal(exc, database) or f"it refuses a transaction or a change stream: {exc.details and exc.code}"
    except PyMongoError as exc:
        if not exc.timeout and not isinstance(exc, ConnectionFailure):
            return f"it does not work: {type(exc).__name__}"
        if unreached := await _unreached(uri):
            return unreached
        if tries > 1:
            return await try_out(mongo, uri, database, tries - 1)
        return "it is reached, but what a server asks of it takes too long: is it overloaded, or far away?"
    return None


async def _about(server: Server, uri: str) -> str | None:
    """The fault of one server; None if it is a healthy member of the replica set."""
    if reason := await _unreachable(server):
        return reason
    try:
        hello = await _hello(server, uri)
    except (PyMongoError, OSError, ValueError) as exc:
        return _no_hello(server, uri, str(exc))
    wanted, name = uris.option(uri, "replicaSet"), hello.get("setName")
    if hello.get("msg") == "isdbgrid":
        return None
    if name is None and hello.get("isreplicaset"):
        return f"{server} answers, but its replica set is not initiated: {_INITIATE.format(port=server.port)}"
    if name is None:
        initiate = _INITIATE.format(port=server.port)
        return f"{server} is a standalone server: start mongod with --replSet rs0, then {initiate}"
    if wanted and name != wanted:
        return f"{server} is in the set {name}, not {wanted}: write replicaSet={name} in MONGODB_URI"
    if "primary" not in hello:
        return f"{server} answers, but its set {name} has no primary: are most of its members running?"
    return await _members(server, name, [*hello.get("hosts", ())])


async def _members(server: Server, name: str, hosts: Iterable[str]) -> str | None:
    """The fault in reaching the set's members by the names in its configuration; None if there is none.

    The driver connects to these names, and inside a container they may not resolve.
    """
    for each in hosts:
        host, _, port = each.rpartition(":")
        if await _unreachable(Server(host.strip("[]"), int(port))):
            return f"{server} answers, but its set {name} names a member {each}, which cannot be reached from here"
    return None


async def _unreachable(server: Server) -> str | None:
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(server.host, server.port)
    except socket.gaierror:
        return f"the name {server.host} is not known here"
    except TimeoutError:
        return f"{server} does not answer within {_SECONDS:g} s: is the address right, is a firewall in between?"
    except ConnectionRefusedError:
        return f"nobody listens at {server}"
    except (OSError, UnicodeError) as exc:
        return f"{server} cannot be reached: {getattr(exc, 'strerror', None) or type(exc).__name__}"
    finally:
        if writer is not None:
            writer.close()
    return None


async def _hello(server: Server, uri: str) -> dict[str, Any]:
    tls = "&".join(f"{name}={value}" for name, value in uris.options(uri) if name.lower().startswith(("tls", "ssl")))
    if uri.startswith("mongodb+srv:") and "tls=" not in tls and "ssl=" not in tls:
        tls += "&tls=true"
    async with AsyncMongoClient[dict[str, Any]](
        f"mongodb://{server}/?{tls}",
        directConnection=True,
        serverSelectionTimeoutMS=_MILLISECONDS,
        connectTimeoutMS=_MILLISECONDS,
        timeoutMS=_MILLISECONDS,
    ) as client:
        return dict(await client.admin.command("hello"))


def _no_hello(server: Server, uri: str, text: str) -> str:
    """The fault when `hello` failed. `text` is the driver's message. It has no credentials: this check connects without
    any.
    """
    tls = (uris.option(uri, "tls") or uris.option(uri, "ssl")) == "true" or uri.startswith("mongodb+srv:")
    if "certificate verify failed" in text:
        return f"{server} has a certificate that is not trusted here: name its authority with tlsCAFile in MONGODB_URI"
    if "SSL" in text or "ssl" in text or (tls and "closed" in text):
        return f"{server} does not speak TLS as MONGODB_URI asks: does it want tls=false, or a certificate of ours?"
    if "closed" in text or "reset" in text:
        return f"{server} closes the connection: does it want TLS (tls=true in MONGODB_URI), is it a MongoDB at all?"
    return f"{server} takes connections and does not answer as a MongoDB does"
