"""Tests the configured models: lists the models of each endpoint, and asks each model for one token."""

import asyncio
import json
from contextlib import aclosing

import httpx2

from chatstream import unreached
from chatstream.errors import ConfigurationError, ErrorCode, ModelError
from chatstream.llm.catalogue import Entry
from chatstream.llm.configuration import catalogue, endpoint
from chatstream.llm.faults import Fault
from chatstream.llm.model import Turn
from chatstream.llm.openai_model import OPENAI_URL, transport
from chatstream.metrics import Metrics
from chatstream.settings import Settings

# Seconds for the list of models (a healthy endpoint needs one), and for the first token: a local endpoint may load the
# model first.
_LIST_SECONDS = 10.0
_TOKEN_SECONDS = 30.0
# Models tested at the same time: a local server may have to load each.
_AT_ONCE = 8
# Size limit of a list of models, in bytes. The list of OpenAI has 20 KB.
_MOST_BYTES = 4 * 1024 * 1024


async def try_out(settings: Settings) -> list[tuple[bool, str]]:
    """Test each model. Yield whether it answers, and a line about it for the operator."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def ask(entry: Entry) -> tuple[bool, str]:
        async with places:
            good, text = await _asked(entry)
        return good, f"{entry.name}: {text}" if entry.from_file else text

    return await asyncio.gather(*map(ask, catalogue(settings).entries.values()))


async def _asked(entry: Entry) -> tuple[bool, str]:
    url = (entry.base_url or OPENAI_URL).rstrip("/")
    names, listed, nobody = await _listed(entry, url)
    if nobody:  # unreachable: a token request would fail as well
        return False, f"{url}: {nobody}{_way(nobody, url, entry)}"
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
        return False, (
            f"{url}: no token came within {_TOKEN_SECONDS:g} s"
            + (_unless_listed(entry, names) or f"; is the address right, or is the model still being loaded? {listed}")
        )
    except ConfigurationError as exc:
        return False, str(exc)
    except ModelError as exc:
        way = exc.way if isinstance(exc, Fault) else None
        path = "responses" if entry.api == "responses" else "chat/completions"
        said = f"{url}: {way}" if way else f"POST {url}/{path}: {exc}"
        return False, f"{said}{_mend(exc, way, url, entry, names, listed)}"
    return True, f"it answers; {_unless_listed(entry, names).strip('; ') or listed}"


async def _listed(entry: Entry, url: str) -> tuple[set[str] | None, str, str | None]:
    """The endpoint's models, if it lists them; a line about them; and why the endpoint cannot be reached, if so."""
    headers = {"Authorization": f"Bearer {entry.key or 'none'}"}
    try:
        async with (
            asyncio.timeout(_LIST_SECONDS),
            httpx2.AsyncClient(transport=transport(f"{url}/models"), headers=headers) as client,
            client.stream("GET", f"{url}/models") as response,
        ):
            if response.status_code != 200:
                return None, f"GET {url}/models says HTTP {response.status_code}", None
            body = b""
            async for part in response.aiter_bytes():
                body += part
                if len(body) > _MOST_BYTES:
                    break
        return {str(each["id"]) for each in json.loads(body)["data"]}, "its list of models has it", None
    except (OSError, httpx2.HTTPError) as exc:
        why = unreached.why(exc) or "no answer in time"
        return None, f"GET {url}/models: {why}", why if unreached.is_certain(exc) else None
    except (ValueError, KeyError, TypeError):
        return None, f"GET {url}/models brings something else than a list of models", None
    except ConfigurationError as exc:
        return None, str(exc), None


def _unless_listed(entry: Entry, names: set[str] | None) -> str:
    if not names or entry.model in names:
        return ""
    some = ", ".join(sorted(names)[:5])
    return f"; {entry.model} is not in its list of models, which has {some}{' …' if len(names) > 5 else ''}"


def _way(why: str, url: str, entry: Entry) -> str:
    """A line on how to make the endpoint reachable."""
    address = entry.settings[1]
    if "TLS" in why or ("in time" in why and url.startswith("https://")):
        return f"; is {address} right, and does it speak TLS there (else write http://)?"
    if "certificate" in why:
        return ""
    if "proxy" in why:
        return "; check HTTPS_PROXY or ALL_PROXY, and NO_PROXY"
    if "hangs up" in why and url.startswith("http://"):
        return f"; does it want https://, and is {address} right?"
    return f"; is {address} right, and does it run?"


def _mend(exc: ModelError, way: str | None, url: str, entry: Entry, names: set[str] | None, listed: str) -> str:
    key, address, model = entry.settings
    if way:
        return _way(way, url, entry)
    if not_listed := _unless_listed(entry, names):
        return f"{not_listed}: set {model}"
    text = str(exc)
    if "401" in text or "403" in text:
        return f"; is {key} right?"
    if "404" in text:
        lacks = ' Or has it no Responses API? Then write api = "chat".' if entry.api == "responses" else ""
        return f"; is {address} right (it usually ends in /v1), and {model}? {listed}{lacks}"
    if isinstance(exc, Fault) and exc.mend is not None:
        return f". {exc.mend.in_words_of(entry.settings)}"
    if exc.code is ErrorCode.UPSTREAM_RATE_LIMITED:
        return "; the address and the key are good, the limit is theirs: try again later"
    if exc.code is ErrorCode.UPSTREAM_REJECTED:
        return f"; is {model} right, or one of its parameters wrong?"
    return f"; is there an OpenAI-compatible API at {address}, and what does its log say? {listed}"
