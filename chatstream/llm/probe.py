"""The models asked as a server asks them: what their endpoints have, and one token of an answer of each."""

import asyncio
import json
from contextlib import aclosing

import httpx2

from chatstream.errors import ConfigurationError, ErrorCode, ModelError
from chatstream.llm.catalogue import Entry
from chatstream.llm.configuration import catalogue, endpoint
from chatstream.llm.model import Turn
from chatstream.llm.openai_model import OPENAI_URL, transport
from chatstream.metrics import Metrics
from chatstream.settings import Settings

# A healthy endpoint lists its models in a second; a local one may load the model before its first token.
_LIST_SECONDS = 10.0
_TOKEN_SECONDS = 30.0
# So many at a time: a local server may have to load each of them.
_AT_ONCE = 8
# OpenAI's own list is 20 KB.
_MOST_BYTES = 4 * 1024 * 1024


async def try_out(settings: Settings) -> list[tuple[bool, str]]:
    """Whether each model answers, and a line about it."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def ask(entry: Entry) -> tuple[bool, str]:
        async with places:
            good, text = await _asked(entry)
        return good, f"{entry.name}: {text}" if entry.from_file else text

    return await asyncio.gather(*map(ask, catalogue(settings).entries.values()))


async def _asked(entry: Entry) -> tuple[bool, str]:
    names, listed = await _listed(entry)
    try:
        model = endpoint(entry, Metrics())
        try:
            async with asyncio.timeout(_TOKEN_SECONDS):
                async with aclosing(model.stream([Turn(role="user", content="Say: ok")])) as deltas:
                    async for _ in deltas:
                        break
        finally:
            await model.close()
    except TimeoutError:
        return False, f"no token came within {_TOKEN_SECONDS:g} s{_unless_listed(entry, names)}"
    except ConfigurationError as exc:
        return False, str(exc)
    except ModelError as exc:
        return False, f"it does not answer: {exc}{_mend(exc, entry, names, listed)}"
    return True, f"it answers; {_unless_listed(entry, names).strip('; ') or listed}"


async def _listed(entry: Entry) -> tuple[set[str] | None, str]:
    """The models that the endpoint says it has, if it says so; and in words."""
    url = (entry.base_url or OPENAI_URL).rstrip("/") + "/models"
    headers = {"Authorization": f"Bearer {entry.key or 'none'}"}
    try:
        async with (
            asyncio.timeout(_LIST_SECONDS),
            httpx2.AsyncClient(transport=transport(url), headers=headers) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code != 200:
                return None, f"GET {url} says {response.status_code}"
            body = b""
            async for part in response.aiter_bytes():
                body += part
                if len(body) > _MOST_BYTES:
                    break
        return {str(each["id"]) for each in json.loads(body)["data"]}, "its list of models has it"
    except (TimeoutError, OSError, httpx2.HTTPError, ValueError, KeyError, TypeError, ConfigurationError) as exc:
        return None, f"GET {url} brings no list of models ({type(exc).__name__})"


def _unless_listed(entry: Entry, names: set[str] | None) -> str:
    if not names or entry.model in names:
        return ""
    some = ", ".join(sorted(names)[:5])
    return f"; {entry.model} is not in its list of models, which has {some}{' …' if len(names) > 5 else ''}"


def _mend(exc: ModelError, entry: Entry, names: set[str] | None, listed: str) -> str:
    key, address, model = entry.settings
    if not_listed := _unless_listed(entry, names):
        return f"{not_listed}: set {model}"
    text = str(exc)
    if "401" in text or "403" in text:
        return f"; is {key} right?"
    if "404" in text:
        lacks = ' Or has it no Responses API? Then write api = "chat".' if entry.api == "responses" else ""
        return f"; is {address} right (it usually ends in /v1), and {model}? {listed}{lacks}"
    if exc.code in (ErrorCode.UPSTREAM_UNAVAILABLE, ErrorCode.UPSTREAM_TIMEOUT) and names is None:
        return f"; is the address in {address} right, and does it run? {listed}"
    return ""
