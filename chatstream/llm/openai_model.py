"""A model behind an OpenAI-compatible endpoint. Streams its answers with the endpoint's API (see `apis`).

The SDK knows the address, the key and the headers, and its HTTP client sends the request. The SDK neither builds
the request nor parses the chunks: its objects cost more than everything else (see `_post` and `decoding`).
"""

import asyncio
import contextlib
import hashlib
import logging
import math
import random
import time
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httpx2
import msgspec

from chatstream.errors import ConfigurationError, ErrorCode
from chatstream.llm.apis import APIS
from chatstream.llm.arranging import Tags
from chatstream.llm.catalogue import Deadlines
from chatstream.llm.deadlines import Clock
from chatstream.llm.decoding import MAX_EVENT_BYTES, AnswerDecoder
from chatstream.llm.dialects import NONE, Dialects, Parts, ReasoningBack, is_in
from chatstream.llm.faults import Fault, Mend, Part, from_exception, from_response
from chatstream.llm.model import Delta, OfferedTool, Tell, Turn
from chatstream.llm.sdk import openai
from chatstream.llm.transport import READ, Push, Transport, before_sending
from chatstream.metrics import Metrics
from chatstream.pieces import Piece
from chatstream.proxies import proxy_for

__all__ = ["Deadlines", "OpenAIModel"]

_log = logging.getLogger("chatstream.llm")

OPENAI_URL: Final = "https://api.openai.com/v1"

# Seconds that an idle connection stays open: the next question often comes within half a minute, and new handshakes
# cost up to 0.25 s.
_KEEPALIVE: Final = 30
# Seconds to wait for the token counts after the finish reason.
_USAGE_PATIENCE: Final = 2.0
# Seconds to wait for the end of the body after the end mark: without it the connection cannot be reused.
_END_PATIENCE: Final = 0.1
# Longest pause before a retry, in seconds: users lose patience after it. If the endpoint asks for more, no retry.
_MAX_DELAY: Final = 10.0
# An attempt that fails after more than this many seconds is not retried: the endpoint would take as long again, as when
# a gateway times out while a local model is being loaded.
_LONG_ATTEMPT: Final = 10.0
# While the model is being loaded, the pause between retries doubles at most this many times.
_LOADING_DOUBLINGS: Final = 3
# Seconds between two log lines about the same configuration error, so that not every answer logs it.
_TELL_EVERY: Final = 60.0
# Maximum number of models for which the warning about unopened thinking is remembered: users may be free to name any
# model.
_MOST_TOLD: Final = 100
# Bytes per piece of a decompressed body: as much as one network read.
_PIECE_BYTES: Final = 64 * 1024
# Limits for reading the body of an error response, in bytes and in seconds: enough for any error object, and for the
# beginning of an HTML page.
_ERROR_BODY_BYTES: Final = 64 * 1024
_ERROR_BODY_PATIENCE: Final = 2.0

_HEADERS: Final[Mapping[str, str | openai.Omit]] = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",  # a compressor would delay chunks; we still decode gzip and zlib
    # The SDK's headers about this machine: half of all headers, made and sent anew with every request.
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

# The response headers that reading the body needs; the others are dropped.
_KEPT: Final = {b"content-type", b"content-encoding"}

# All exceptions of the SDK and its transport: they wrap most of each other's, but not all.
_TRANSPORT_ERRORS: Final = (openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, OSError)

_Read = Callable[[Push | None], Awaitable[bytes | None]]
"""Waits for the next bytes of a body; None at its end. Meanwhile it may give some to the function that it is called
with (see `transport`)."""


class OpenAIModel:
    """A `Model` that serves any number of answers at once, on one event loop.

    A request is retried at most `retries` times, only before the first token and only for errors that may pass: no
    connection, a broken one, HTTP 408, 409, 429 or 5xx, such an error in the stream, a stream that ends without a
    token. If the model refuses a part of the request, the request is sent again without that part (see `dialects`).
    """

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str | None,
        model: str,
        metrics: Metrics,
        deadlines: Deadlines,
        api: str = "chat",
        retries: int = 2,
        backoff: float = 0.5,
        without: Parts = NONE,
        parameters: Mapping[str, Any] = {},
        settings: Mapping[str, str] = {},
        reasoning_back: ReasoningBack = ReasoningBack.OFF,
        tags: Tags = Tags.RECOGNISED,
    ) -> None:
        """`base_url`: None is OpenAI's own. `api`: a key of `APIS`. `backoff`: the longest pause before the first
        retry, in seconds; it doubles with each retry.

        `without`: parts that every request omits. `parameters`: further fields of every request. `settings`: the
        operator's names for the settings that a `Mend` names. `reasoning_back`: which earlier turns are sent to the
        model with their reasoning. `tags`: the meaning of tags such as <think> in its text.

        Raises `ConfigurationError` if the environment names an unusable proxy for the endpoint.
        """
        base_url = base_url or OPENAI_URL
        parts = urlsplit(base_url)
        self._address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        self._api = APIS[api]
        self._model = model
        self._metrics = metrics
        self._deadlines = deadlines
        self._retries = retries
        self._backoff = backoff
        self._without = without
        self._parameters = parameters
        self._settings = settings
        self._reasoning_back = reasoning_back
        self._tags = tags
        self._dialects = Dialects(time.monotonic)
        self._told_operator: dict[Mend, float] = {}
        self._told_of_thinking: set[str] = set()
        self._clocks: set[Clock] = set()
        way = transport(base_url, self._tell_of_repeat)
        self._holds = isinstance(way, Transport)  # only our transport can connect before `may_ask`
        self._http = openai.DefaultAsyncHttpxClient(
            transport=way, event_hooks={"response": [_refuse]}, follow_redirects=False
        )
        self._client = openai.AsyncOpenAI(api_key=api_key, base_url=base_url, http_client=self._http)
        base = self._client.base_url
        self._url = base.copy_with(raw_path=base.raw_path + self._api.path.lstrip("/").encode())
        self._headers = _headers_of(self._client, self._url).raw
        self._no_headers = httpx2.Headers()
        self._timeout = httpx2.Timeout(None, connect=deadlines.connect).as_dict()  # `Clock` has all other deadlines

    async def stream(
        self,
        turns: Sequence[Turn],
        *,
        model: str | None = None,
        tools: Sequence[OfferedTool] = (),
        cache_key: str | None = None,
        may_ask: "asyncio.Future[None] | None" = None,
        tell: Tell | None = None,
    ) -> AsyncGenerator[Delta, None]:
        """See `Model.stream`. A model's refusal is streamed as text, with the finish reason ``refusal``."""
        if self._client.is_closed():
            raise Fault(ErrorCode.UPSTREAM_UNAVAILABLE, "the model is closed")
        name = model or self._model
        clock = Clock(self._deadlines, begins=may_ask is None or may_ask.done())
        self._clocks.add(clock)
        known = self._without | self._dialects.of(name)
        without, certain = known, True
        retry = loads = 0
        try:
            while True:
                clock.asked(whole=Part.STREAM in without)
                try:
                    body = self._body(turns, tools, name, without, cache_key)
                    async with contextlib.aclosing(self._attempt(body, clock, without, may_ask, tell)) as deltas:
                        async for delta in deltas:
                            if without is not known and certain:
                                known = without
                                self._learn(name, without)
                            yield delta
                except Fault as fault:
                    refused = next((part for part in fault.refused if is_in(part, turns, without, tools)), None)
                    if refused is not None:
                        without, certain = without | {refused}, certain and fault.certain
                        continue
                    clock.asked()
                    delay = self._pause(fault, min(loads, _LOADING_DOUBLINGS) if fault.loading else retry)
                    hopeless = delay > min(_MAX_DELAY, clock.left())
                    if not fault.transient or hopeless or (retry == self._retries and not fault.loading):
                        raise
                    if fault.loading:
                        loads += 1
                        _log.info("the model is being loaded; asked again in %.1f s", delay)
                    else:
                        retry += 1
                        self._metrics.model_retried(fault.code)
                        _log.warning("model retry %d of %d in %.1f s: %s", retry, self._retries, delay, fault)
                else:
                    return
                with clock:
                    await asyncio.sleep(delay)
        except TimeoutError:
            raise clock.fault() from None
        except Fault as fault:
            self._tell_operator(fault)
            raise
        finally:
            clock.close()
            self._clocks.discard(clock)

    def _learn(self, model: str, without: Parts) -> None:
        self._dialects.learn(model, without)
        _log.info("a model refuses %s: for an hour it is asked without", " and ".join(sorted(without)))

    def _tell_of_thinking(self, model: str) -> None:
        """Log, once per model, that text sent to users was probably thinking; that shows only at its closing tag."""
        if model not in self._told_of_thinking and len(self._told_of_thinking) < _MOST_TOLD:
            self._told_of_thinking.add(model)
            _log.warning(
                "a model ended with </think> what it had not begun with <think>: if its prompt opens its thinking, "
                'users are shown that as text until its entry in CHATSTREAM_MODELS_FILE has think_tags = "opened"'
            )

    def _tell_of_repeat(self) -> None:
        """Log and count a request that the transport sends once more: an endpoint may charge for both. It is not one of
        `retries`: most endpoints that close an idle connection have not read the request.
        """
        self._metrics.model_retried(ErrorCode.UPSTREAM_UNAVAILABLE)
        _log.info("model retry at once, on a new connection: the endpoint closed the idle one without a byte")

    def _tell_operator(self, fault: Fault) -> None:
        """Log an error that only the operator can fix, with the address and how to fix it; at most once a minute."""
        now = time.monotonic()
        if fault.mend is not None and now - self._told_operator.get(fault.mend, -math.inf) >= _TELL_EVERY:
            self._told_operator[fault.mend] = now
            mend: str = fault.mend
            for name, ours in self._settings.items():
                mend = mend.replace(name, ours)
            if fault.mend in (Mend.PATH, Mend.API) and self._api.absent:
                mend += f" {self._api.absent}"
            _log.error("POST %s%s: %s. %s", self._address, self._api.path, fault, mend)

    async def close(self) -> None:
        """Close the connections. Running streams end with an error."""
        for clock in self._clocks:  # some wait for a retry, and have no connection
            clock.break_off()
        await self._client.close()

    def _pause(self, fault: Fault, retry: int) -> float:
        # With jitter, so that answers that failed together do not retry together.
        pause: float = self._backoff * 2**retry * random.uniform(0.5, 1)  # noqa: S311 - jitter is no secret
        return max(pause, fault.retry_after or 0)

    async def _attempt(
        self,
        asked: dict[str, Any],
        clock: Clock,
        without: Parts,
        may_ask: "asyncio.Future[None] | None",
        tell: Tell | None,
    ) -> AsyncGenerator[Delta, None]:
        """Send one request. The `Fault` it raises is transient only if no token came and it failed quickly."""
        decoder: AnswerDecoder | None = None
        fault: Fault | None = None
        asked_at = time.monotonic()
        tokens = 0
        begun = False  # a delta with pieces was yielded
        untold: list[Piece] = []  # decoded by `push`

        async def ask() -> None:
            nonlocal asked_at
            if may_ask is not None and not may_ask.done():
                await clock.wait(may_ask)
                clock.asked(whole=Part.STREAM in without)
                asked_at = time.monotonic()

        def push(data: bytes) -> bool:
            """Decode `data`, and pass its pieces to `tell` if they only continue the text; otherwise the loop below
            handles them.
            """
            nonlocal tokens
            assert decoder is not None  # noqa: S101 - for the type checker: it is made before the body is read
            pieces = decoder.feed(data)
            only_text = decoder.finished is None and decoder.usage is None and not decoder.over
            if pieces and only_text and tell is not None and tell(pieces):
                tokens = decoder.tokens
                clock.token()
                return True
            untold.extend(pieces)
            return False

        try:
            async with contextlib.AsyncExitStack() as stack:
                with clock:
                    response = await stack.enter_async_context(self._request(asked, ask))
                clock.responded(whole=Part.STREAM in without)
                self._metrics.model_responded(time.monotonic() - asked_at)
                read = await stack.enter_async_context(_body(response))
                content_type = response.headers.get("content-type", "text/event-stream")
                decoder = self._api.decoder(content_type, self._tags, self._origin(asked["model"]))
                while not decoder.over:
                    tokens = decoder.tokens
                    try:
                        with clock:
                            data = await read(push if begun else None)
                    except TimeoutError:
                        if not (decoder.settled or (decoder.finished is not None and not clock.is_over)):
                            raise
                        data = None  # the answer looks complete
                    pieces = [*untold]
                    untold.clear()
                    if data is None:
                        pieces += decoder.end()
                    elif data:  # otherwise `push` has decoded the data
                        pieces += decoder.feed(data)
                    if pieces or (decoder.usage is not None and decoder.finished is None):
                        yield Delta(pieces, usage=decoder.usage)
                        begun = begun or bool(pieces)
                    if decoder.tokens != tokens:
                        clock.token()  # after the yield: the reader's time must not count as the model's
                    if decoder.finished is not None and decoder.settled:
                        clock.settle(_USAGE_PATIENCE)
                    if data is None:
                        break
                if decoder.done:
                    await _read_end(read)
        except TimeoutError:
            if (counted := _counted(decoder)) is not None:
                yield counted
            raise  # a deadline has passed; `stream` turns the error into a `Fault`
        except Fault as exc:
            fault = exc
        except _TRANSPORT_ERRORS as exc:
            if decoder is None:
                fault = from_exception(exc, begun=False)
            elif pieces := decoder.end(broken=True):
                yield Delta(pieces)
            if decoder is not None and decoder.fault is not None and decoder.fault.transient:
                decoder.fault = from_exception(exc, begun=True)
        if decoder is not None:
            if decoder.end_of_unopened_thinking:
                self._tell_of_thinking(str(asked["model"]))
            fault = fault or decoder.fault
        if fault is not None:
            long = time.monotonic() - asked_at > _LONG_ATTEMPT and not fault.unreached
            if long or (decoder is not None and decoder.tokens):
                fault.transient = False
            if (counted := _counted(decoder)) is not None:
                yield counted
            raise fault from None
        assert decoder is not None  # noqa: S101 - for the type checker: without one there is a fault
        yield Delta([], decoder.finish)

    def _body(
        self, turns: Sequence[Turn], tools: Sequence[OfferedTool], name: str, without: Parts, cache_key: str | None
    ) -> dict[str, Any]:
        body = self._api.body(
            turns,
            name,
            without,
            reasoning=self._reasoning_back,
            tools=tools,
            cache_key=cache_key,
            origin=self._origin(name),
        )
        return {**self._parameters, **body}

    def _origin(self, name: str) -> str:
        """An opaque id of this endpoint and model. It is stored, so it is a hash."""
        return hashlib.blake2s(f"{self._address} {name}".encode(), digest_size=8).hexdigest()

    @contextlib.asynccontextmanager
    async def _request(
        self, body: dict[str, Any], ask: Callable[[], Awaitable[None]]
    ) -> AsyncGenerator[httpx2.Response, None]:
        """Send the request. `ask` is awaited last: after the request is built and its connection is open."""
        if not self._holds:
            await ask()
        held = before_sending.set(ask)
        try:
            response = await self._post(body)
        finally:
            before_sending.reset(held)
        # An answer may take minutes: keep in memory only the headers that reading the body needs.
        response.request.headers = self._no_headers
        response.headers = httpx2.Headers([pair for pair in response.headers.raw if pair[0].lower() in _KEPT])
        try:
            yield response
        finally:
            await response.aclose()

    async def _post(self, body: dict[str, Any]) -> httpx2.Response:
        # Not the SDK's `post`: it checks, copies and merges anew what is the same in every request, the address and the
        # headers, and costs 0.45 ms of CPU for each request. This costs 0.03 ms.
        content = msgspec.json.encode(body)
        request = httpx2.Request(
            "POST",
            self._url,
            headers=[*self._headers, (b"Content-Length", b"%d" % len(content))],
            cookies=self._http.cookies,
            stream=httpx2.ByteStream(content),
            extensions={"timeout": self._timeout},
        )
        return await self._http.send(request, stream=True)


def _headers_of(client: openai.AsyncOpenAI, url: httpx2.URL) -> httpx2.Headers:
    """The headers that the SDK would send with each request: the key, and the headers from the SDK's environment
    variables.
    """
    headers = httpx2.Headers({"Host": url.netloc.decode("ascii")})
    for some in (client.auth_headers, client.default_headers, _HEADERS):
        for name, text in some.items():
            if isinstance(text, str):
                headers[name] = text
            else:
                headers.pop(name, None)  # `openai.omit`
    return headers


@contextlib.asynccontextmanager
async def _body(response: httpx2.Response) -> AsyncGenerator[_Read, None]:
    """The body, decompressed if need be. Raises `Fault` for an unknown encoding."""
    raw = response.stream
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding == "identity" and READ in response.extensions:
        yield cast("_Read", response.extensions[READ])
        return
    if not isinstance(raw, httpx2.AsyncByteStream):
        raise Fault(ErrorCode.UPSTREAM_PROTOCOL, "a body that is no stream")
    parts = cast("AsyncGenerator[bytes, None]", aiter(raw))
    if coding in ("gzip", "x-gzip", "deflate"):
        parts = _unpacked(parts)
    elif coding != "identity":
        raise Fault(ErrorCode.UPSTREAM_PROTOCOL, "a body that is packed, although it was not to be")
    async with contextlib.aclosing(parts):
        yield lambda push: anext(parts, None)


async def _unpacked(parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Decompress gzip or zlib in small pieces: a few bytes may expand to more than the memory holds."""
    unpacking = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)  # detects gzip or zlib
    try:
        async with contextlib.aclosing(parts):
            async for part in parts:
                packed = part
                while packed:
                    yield unpacking.decompress(packed, _PIECE_BYTES)
                    packed = unpacking.unconsumed_tail
                    await asyncio.sleep(0)  # let other tasks and the deadlines run
    except zlib.error as exc:
        raise Fault(ErrorCode.UPSTREAM_PROTOCOL, "a body that cannot be unpacked") from exc


async def _refuse(response: httpx2.Response) -> None:
    """Raise the `Fault` for an unsuccessful response, after reading a bounded part of its body."""
    if response.is_success:
        return
    if response.has_redirect_location:  # its body is not needed
        raise from_response(response.status_code, response.headers, b"")
    body = bytearray()
    with contextlib.suppress(TimeoutError, Fault, *_TRANSPORT_ERRORS):  # if reading fails, the status alone is used
        async with asyncio.timeout(_ERROR_BODY_PATIENCE), _body(response) as read:
            while len(body) <= _ERROR_BODY_BYTES and (part := await read(None)) is not None:
                body += part
    raise from_response(response.status_code, response.headers, bytes(body[:_ERROR_BODY_BYTES]))


def _counted(decoder: AnswerDecoder | None) -> Delta | None:
    """The token counts of an interrupted answer, if the endpoint sent any."""
    usage = decoder.finish.usage if decoder is not None else None
    return None if usage is None else Delta([], usage=usage)


async def _read_end(read: _Read) -> None:
    """Wait a moment for the end of the body after the end mark. Errors are ignored: the answer is complete."""
    with contextlib.suppress(TimeoutError, Fault, *_TRANSPORT_ERRORS):
        async with asyncio.timeout(_END_PATIENCE):
            size = 0
            while size < MAX_EVENT_BYTES and (data := await read(None)) is not None:
                size += len(data)


def transport(url: str, on_repeat: Callable[[], None] = lambda: None) -> httpx2.AsyncBaseTransport:
    """The transport for `url`: ours, or httpx2's (with fewer kinds of errors) if the environment names a proxy.
    `on_repeat`: see `Transport`; httpx2's never repeats a request.
    """
    proxy = proxy_for(url)
    if proxy is None:
        return Transport(keepalive=_KEEPALIVE, on_repeat=on_repeat)
    try:
        limits = httpx2.Limits(keepalive_expiry=_KEEPALIVE)  # no limit on their number
        return httpx2.AsyncHTTPTransport(proxy=proxy, limits=limits)
    except (ImportError, ValueError, httpx2.InvalidURL) as exc:  # SOCKS without its package, no such protocol, no URL
        raise ConfigurationError(f"The proxy for the model's endpoint cannot be used: {type(exc).__name__}") from exc
