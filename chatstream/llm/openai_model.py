"""The model behind any OpenAI-compatible endpoint: ``POST {base_url}/chat/completions``, streamed.

The SDK sends the request; its chunk objects are not made: they cost more than all the rest (see `decoding`).
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final, cast

import httpx2
import openai

from chatstream.errors import ConfigurationError, ErrorCode
from chatstream.llm.deadlines import Clock, Deadlines
from chatstream.llm.decoding import MAX_EVENT_BYTES, AnswerDecoder
from chatstream.llm.faults import Fault, UsageRefused, from_exception, from_response
from chatstream.llm.model import Delta, Turn
from chatstream.llm.transport import Transport
from chatstream.metrics import Metrics
from chatstream.proxies import proxy_for

__all__ = ["Deadlines", "OpenAIModel"]

_log = logging.getLogger("chatstream.llm")

OPENAI_URL: Final = "https://api.openai.com/v1"

# A next question often comes within half a minute, and the handshakes cost up to a quarter of a second.
_KEEPALIVE: Final = 30
# After the finish reason only the token counts are missing: worth two seconds of a reader's time ...
_USAGE_PATIENCE: Final = 2.0
# ... and after the end mark only the end of the body, without which the connection cannot be used again.
_END_PATIENCE: Final = 0.1
# Longer than a reader waits for a retry without wondering; whoever asks for more is not asked again.
_MAX_DELAY: Final = 10.0
# Enough for any error object, and for the first lines of any other page.
_ERROR_BODY_BYTES: Final = 64 * 1024
_ERROR_BODY_PATIENCE: Final = 2.0

_HEADERS: Final[Mapping[str, str | openai.Omit]] = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",  # a compressor would hold chunks back; it is decoded all the same if it comes
    # What the SDK tells of this machine is half of all fields: made anew, sent and kept with every request.
    **dict.fromkeys(
        [
            "X-Stainless-Arch",
            "X-Stainless-Async",
            "X-Stainless-Lang",
            "X-Stainless-OS",
            "X-Stainless-Package-Version",
            "X-Stainless-Retry-Count",
            "X-Stainless-Runtime",
            "X-Stainless-Runtime-Version",
        ],
        openai.omit,
    ),
}

# What reading a body needs to know of its head.
_KEPT: Final = {"content-type", "content-encoding"}

# What comes out of the SDK and its transport: they wrap each other's exceptions, but not all of them.
_TRANSPORT_ERRORS: Final = (openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, OSError)


class OpenAIModel:
    """A `Model`. Safe to use for any number of answers at once, from one event loop.

    A request is repeated, `retries` times at most, only while no token has come and only where that can help: no
    connection, a broken one, HTTP 408, 409, 429 or 5xx, their like in the stream, a stream that ends before it begins.
    """

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str | None,
        model: str,
        metrics: Metrics,
        deadlines: Deadlines,
        retries: int = 2,
        backoff: float = 0.5,
    ) -> None:
        """`base_url` None is OpenAI's own. `backoff` is the longest first pause, in seconds; it doubles each time.

        Raises `ConfigurationError` if the environment names a proxy for it that cannot be used.
        """
        base_url = base_url or OPENAI_URL
        self._model = model
        self._metrics = metrics
        self._deadlines = deadlines
        self._retries = retries
        self._backoff = backoff
        self._ask_for_usage = True
        self._clocks: set[Clock] = set()
        self._client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,  # ours know when the first token came
            timeout=httpx2.Timeout(None, connect=deadlines.connect),  # what else is late, `Clock` knows
            http_client=openai.DefaultAsyncHttpxClient(
                transport=_transport(base_url), event_hooks={"response": [_refuse]}
            ),
        )

    async def stream(self, turns: Sequence[Turn], *, model: str | None = None) -> AsyncGenerator[Delta, None]:
        """See `Model.stream`. A refusal is answer text, with the finish reason ``refusal``; reasoning is never text."""
        if self._client.is_closed():
            raise Fault(ErrorCode.UPSTREAM_UNAVAILABLE, "the model is closed")
        clock = Clock(self._deadlines)
        self._clocks.add(clock)
        retry = 0
        try:
            while True:
                ask_for_usage = self._ask_for_usage
                try:
                    async with contextlib.aclosing(self._attempt(turns, model, clock, ask_for_usage)) as deltas:
                        async for delta in deltas:
                            yield delta
                except Fault as fault:
                    if isinstance(fault, UsageRefused) and ask_for_usage:
                        self._ask_for_usage = False
                        _log.info("the endpoint refuses stream_options: token counts are not asked for any more")
                        continue
                    delay = self._pause(fault, retry)
                    if not fault.transient or retry == self._retries or delay > min(_MAX_DELAY, clock.left()):
                        raise
                    retry += 1
                    self._metrics.model_retried(fault.code)
                    _log.warning("model retry %d of %d in %.1f s: %s", retry, self._retries, delay, fault)
                else:
                    return
                with clock:
                    await asyncio.sleep(delay)
        except TimeoutError:
            raise clock.fault() from None
        finally:
            clock.close()
            self._clocks.discard(clock)

    async def close(self) -> None:
        """Release the connections. Running streams break off."""
        for clock in self._clocks:  # some of them wait for no connection, but for their next attempt
            clock.break_off()
        await self._client.close()

    def _pause(self, fault: Fault, retry: int) -> float:
        # Jittered, so that answers that failed together do not come back together.
        pause: float = self._backoff * 2**retry * random.uniform(0.5, 1)  # noqa: S311 - jitter is no secret
        return max(pause, fault.retry_after or 0)

    async def _attempt(
        self, turns: Sequence[Turn], model: str | None, clock: Clock, ask_for_usage: bool
    ) -> AsyncGenerator[Delta, None]:
        """One request. Its `Fault` is transient only if no token came."""
        decoder = AnswerDecoder()
        begun = False
        now = asyncio.get_running_loop().time
        asked_at = now()
        try:
            async with contextlib.AsyncExitStack() as stack:
                with clock:
                    response = await stack.enter_async_context(self._request(turns, model, ask_for_usage))
                begun = True
                self._metrics.model_responded(now() - asked_at)
                body = await stack.enter_async_context(contextlib.aclosing(_body(response)))
                kind = response.headers.get("content-type", "text/event-stream").partition(";")[0].strip().lower()
                if kind != "text/event-stream":
                    with clock:
                        texts = await _read_whole(kind, body, decoder)
                    if texts:
                        yield Delta(texts)
                while decoder.finished is None and decoder.fault is None:
                    with clock:
                        data = await anext(body, None)
                    tokens = decoder.tokens
                    texts = decoder.end() if data is None else decoder.feed(data)
                    if texts:
                        yield Delta(texts)
                    if decoder.tokens != tokens:
                        clock.token()  # after the yield: the reader's time is not the model's silence
                if decoder.fault is None:
                    await _read_rest(body, decoder)
        except TimeoutError:
            raise  # the clock's; `stream` knows what was late
        except _TRANSPORT_ERRORS as exc:
            if decoder.finished is None and decoder.fault is None:
                decoder.fault = from_exception(exc, begun=begun)
        if decoder.fault is not None:
            if decoder.tokens:
                decoder.fault.transient = False
            raise decoder.fault from None
        yield Delta([], decoder.finish)

    @contextlib.asynccontextmanager
    async def _request(
        self, turns: Sequence[Turn], model: str | None, ask_for_usage: bool
    ) -> AsyncGenerator[httpx2.Response, None]:
        body: dict[str, Any] = {
            "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
            "model": model or self._model,
            "stream": True,
        }
        if ask_for_usage:
            body["stream_options"] = {"include_usage": True}
        # The SDK's way to any endpoint, and not its `chat.completions.create`: that one walks through the type of every
        # field of every turn, and then sends the dicts as they are: nearly half of a request's cost (0.78 to 0.44 ms).
        response: httpx2.Response = await self._client.post(
            "/chat/completions",
            cast_to=cast("Any", httpx2.Response),  # which it is, also with `stream`: there the types know only its own
            body=body,
            options={"headers": _HEADERS},
            stream=True,
            stream_cls=openai.AsyncStream[Any],
        )
        # An answer may take minutes: of the heads only what reading the body needs stays in memory.
        response.request.headers = httpx2.Headers()
        response.headers = httpx2.Headers({name: text for name, text in response.headers.items() if name in _KEPT})
        try:
            yield response
        finally:
            await response.aclose()


def _body(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    """The bytes of the body as they come, decoded if they are encoded."""
    if "content-encoding" in response.headers or not isinstance(response.stream, httpx2.AsyncByteStream):
        return response.aiter_bytes()
    return cast("AsyncGenerator[bytes, None]", aiter(response.stream))


async def _refuse(response: httpx2.Response) -> None:
    """Raise the `Fault` of a response that is neither a success nor a redirect, after reading a bounded part of it."""
    if response.is_success or response.has_redirect_location:
        return
    body = bytearray()
    with contextlib.suppress(TimeoutError, *_TRANSPORT_ERRORS):  # the status alone says enough
        async with asyncio.timeout(_ERROR_BODY_PATIENCE), contextlib.aclosing(response.aiter_bytes()) as parts:
            async for part in parts:
                body += part
                if len(body) > _ERROR_BODY_BYTES:
                    break
    raise from_response(response.status_code, response.headers, bytes(body[:_ERROR_BODY_BYTES]))


async def _read_whole(kind: str, body: AsyncGenerator[bytes, None], decoder: AnswerDecoder) -> list[str]:
    """The texts of an answer that came as one JSON document: some endpoints cannot stream, some send errors so."""
    if kind != "application/json":
        raise Fault(ErrorCode.UPSTREAM_PROTOCOL, "neither an event stream nor JSON")
    document = bytearray()
    async for data in body:
        document += data
        if len(document) > MAX_EVENT_BYTES:
            raise Fault(ErrorCode.UPSTREAM_PROTOCOL, "a JSON document over 4 MiB")
    return decoder.complete(bytes(document))


async def _read_rest(body: AsyncGenerator[bytes, None], decoder: AnswerDecoder) -> None:
    """After the finish reason: the token counts and the end of the body, for a while. No fault counts any more."""
    now = asyncio.get_running_loop().time
    with contextlib.suppress(TimeoutError, *_TRANSPORT_ERRORS):
        async with asyncio.timeout_at(now() + _USAGE_PATIENCE) as patience:
            in_a_hurry = False
            size = 0
            while size < MAX_EVENT_BYTES:
                if decoder.done and not in_a_hurry:
                    in_a_hurry = True
                    patience.reschedule(min(now() + _END_PATIENCE, patience.when() or 0))
                if (data := await anext(body, None)) is None:
                    break
                decoder.feed(data)
                size += len(data)


def _transport(url: str) -> httpx2.AsyncBaseTransport:
    """Ours, or httpx2's if the environment names a proxy; that one tells fewer faults apart."""
    proxy = proxy_for(url)
    if proxy is None:
        return Transport(keepalive=_KEEPALIVE)
    try:
        limits = httpx2.Limits(keepalive_expiry=_KEEPALIVE)  # and none on their number
        return httpx2.AsyncHTTPTransport(proxy=proxy, limits=limits)
    except (ImportError, ValueError, httpx2.InvalidURL) as exc:  # SOCKS without its package, no such protocol, no URL
        raise ConfigurationError(f"The proxy for the model's endpoint cannot be used: {type(exc).__name__}") from exc
