"""`check-config --connect`: connects to the database, models, the issuer's keys and MCP servers, with time limits."""

import asyncio
import json
import logging
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from chatstream.auth import JWKS
from chatstream.errors import Unauthenticated, Unavailable
from chatstream.settings import Settings
from chatstream.store.diagnosis import try_out as try_database
from chatstream.store.mongo import Mongo

# Time limit of one check, in seconds. The steps have their own, shorter limits; this one is for unexpected hangs.
_SECONDS = 60.0


async def check(settings: Settings, write: Callable[[str, str], None]) -> bool:
    """Run all checks at once and write a line for each; returns whether all have passed."""
    asked = {"database": _database, "model": _models, "tokens": _keys, "tools": _servers}
    logging.disable()  # otherwise the log would repeat the same faults
    try:
        results = await asyncio.gather(*(_bounded(ask(settings)) for ask in asked.values()))
    finally:
        logging.disable(logging.NOTSET)
    for name, found in zip(asked, results, strict=True):
        for good, text in found:
            write(name, f"{'ok' if good else 'WRONG'}: {text}")
    return all(good for found in results for good, _ in found)


async def _bounded(asking: Awaitable[list[tuple[bool, str]]]) -> list[tuple[bool, str]]:
    try:
        async with asyncio.timeout(_SECONDS):
            return await asking
    except TimeoutError:
        return [(False, f"nothing was known after {_SECONDS:g} s")]


async def _database(settings: Settings) -> list[tuple[bool, str]]:
    if settings.mongodb_uri is None:
        return [(True, "the server starts a mongod of its own")]
    uri = settings.mongodb_uri.get_secret_value()
    mongo = Mongo(uri, settings.mongodb_database)
    try:
        problem = await try_database(mongo, uri, settings.mongodb_database)
    finally:
        mongo.close()
    return [(problem is None, problem or "a transaction and a change stream work")]


async def _models(settings: Settings) -> list[tuple[bool, str]]:
    if settings.uses_demo_model:
        return [(True, "the demo model, which the server brings with it")]
    from chatstream.llm.probe import try_out

    return await try_out(settings)


async def _servers(settings: Settings) -> list[tuple[bool, str]]:
    from chatstream.tools.configuration import read_file

    _, servers = read_file(settings)
    if not servers:
        return []
    from chatstream.tools.mcp_servers.servers import try_out

    return await asyncio.gather(*map(try_out, servers))


async def _keys(settings: Settings) -> list[tuple[bool, str]]:
    if settings.jwks_url is None:
        return [(True, "the key is here already")]
    remote = JWKS(settings.jwks_url, settings.accepted_algorithms)
    # A token with a made-up signature. The check only asks whether the issuer's keys can be fetched.
    header = json.dumps({"kid": "check-config", "alg": settings.accepted_algorithms[0]}).encode()
    token = f"{urlsafe_b64encode(header).decode().rstrip('=')}.e30.AA"
    try:
        await remote.find(token)
    except Unauthenticated:
        pass
    except Unavailable:
        parts = urlsplit(settings.jwks_url)  # a query may hold a key
        where = f"{parts.scheme}://{parts.netloc}{parts.path}"
        return [
            (False, f"CHATSTREAM_JWKS_URL: the keys cannot be had: GET {where}: {remote.fault or 'no answer in time'}")
        ]
    finally:
        await remote.close()
    return [(True, "the issuer's keys are there")]
