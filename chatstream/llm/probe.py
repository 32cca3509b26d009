"""The model asked as a server asks it: what it has, and one token of an answer."""

import asyncio
import json
from contextlib import aclosing

import httpx2

from chatstream.errors import ConfigurationError, ErrorCode, ModelError
from chatstream.llm.configuration import configured_model
from chatstream.llm.model import Turn
from chatstream.llm.openai_model import OPENAI_URL, transport
from chatstream.metrics import Metrics
from chatstream.settings import Settings

# A healthy endpoint lists its models in a second; a local one may load the model before its first token.
_LIST_SECONDS = 10.0
_TOKEN_SECONDS = 30.0
# OpenAI's own list is 20 KB.
_MOST_BYTES = 4 * 1024 * 1024


async def try_out(settings: Settings) -> tuple[bool, str]:
    """Whether the model answers, and a line about it."""
    names, listed = await _listed(settings)
    try:
        async with asyncio.timeout(_TOKEN_SECONDS), configured_model(settings, Metrics()) as model:
            await model.load()
            async with aclosing(model.stream([Turn(role="user", content="Say: ok")])) as deltas:
                async for _ in deltas:
                    break
    except TimeoutError:
        return False, f"no token came within {_TOKEN_SECONDS:g} s{_unless_listed(settings, names)}"
    except ConfigurationError as exc:
        return False, str(exc)
    except ModelError as exc:
        return False, f"it does not answer: {exc}{_mend(exc, settings, names, listed)}"
    return True, f"it answers; {_unless_listed(settings, names).strip('; ') or listed}"


async def _listed(settings: Settings) -> tuple[set[str] | None, str]:
    """The models that the endpoint says it has, if it says so; and in words."""
    url = (settings.openai_base_url or OPENAI_URL).rstrip("/") + "/models"
    key = settings.openai_api_key
    headers = {"Authorization": f"Bearer {key.get_secret_value() if key else 'none'}"}
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


def _unless_listed(settings: Settings, names: set[str] | None) -> str:
    if not names or settings.openai_model in names:
        return ""
    some = ", ".join(sorted(names)[:5])
    return f"; {settings.openai_model} is not in its list of models, which has {some}{' …' if len(names) > 5 else ''}"


def _mend(exc: ModelError, settings: Settings, names: set[str] | None, listed: str) -> str:
    if not_listed := _unless_listed(settings, names):
        return f"{not_listed}: set OPENAI_MODEL"
    text = str(exc)
    if "401" in text or "403" in text:
        return "; is OPENAI_API_KEY right?"
    if "404" in text:
        return f"; is OPENAI_BASE_URL right (it usually ends in /v1), and OPENAI_MODEL? {listed}"
    if exc.code in (ErrorCode.UPSTREAM_UNAVAILABLE, ErrorCode.UPSTREAM_TIMEOUT) and names is None:
        return f"; is the address in OPENAI_BASE_URL right, and does it run? {listed}"
    return ""
