"""The HTTP transport for MCP servers. It bounds responses, connects to checked addresses only, and notes whether a call
was sent."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import httpx2

from chatstream import proxies
from chatstream.tools.addresses import must_be_public, public_addresses
from chatstream.tools.file import SETTING
from chatstream.tools.mcp_file import McpServer
from chatstream.tools.tool import ToolFailed

# Largest response, in bytes: a list of a hundred tools with large schemas has some hundred KB.
_MOST_BYTES: Final = 4 * 1024 * 1024
# Seconds to wait for a server to end its session.
_FAREWELL: Final = 1.0
_CALL: Final = b'"tools/call"'


class Guard(httpx2.AsyncBaseTransport):
    """The transport through which `mcp` sends its requests; one for each connection."""

    def __init__(self, server: McpServer, tls: ssl.SSLContext, *, connecting: float, timeout: float) -> None:
        """`connecting`, `timeout`: in seconds.

        Raises `ConfigurationError` if the environment names an unusable proxy.
        """
        url = server.url or ""
        self._name = server.name
        self._url = url
        self._checks = must_be_public(url, internal=server.internal)
        self._timeout = httpx2.Timeout(timeout, connect=connecting)
        self._client = proxies.client(url, SETTING, timeout=timeout, headers={}, tls=tls)
        # No cookies: one user's must not be sent with another user's call.
        self._client.cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        self.sent = False  # a call may have reached the server
        self.status: int | None = None  # the response's status for the call

    def client(self, headers: Mapping[str, str]) -> httpx2.AsyncClient:
        """The HTTP client for `mcp`. It follows no redirects."""
        return httpx2.AsyncClient(
            transport=self, headers=headers, timeout=self._timeout, trust_env=False, max_redirects=0
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":  # the stream for the server's own messages, which are not used
            return httpx2.Response(405, request=request)
        if request.method == "DELETE":
            with contextlib.suppress(TimeoutError, httpx2.HTTPError, OSError, ToolFailed):
                async with asyncio.timeout(_FAREWELL):
                    await (await self._sent(request, b"")).aclose()
            return httpx2.Response(204, request=request)
        content = await request.aread()
        is_call = _CALL in content
        response = await self._sent(request, content, is_call=is_call)
        if is_call:
            self.status = response.status_code
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            raise httpx2.RemoteProtocolError("a body that is packed, which was not asked for")
        return httpx2.Response(
            response.status_code, headers=response.headers, stream=_Bounded(response), request=request
        )

    async def _sent(self, request: httpx2.Request, content: bytes, *, is_call: bool = False) -> httpx2.Response:
        addresses: list[str] | list[None] = [None]
        if self._checks:
            addresses = await public_addresses(self._url, self._name)
        failure: Exception | None = None
        for address in addresses:
            url, headers = request.url, request.headers.copy()
            extensions: dict[str, Any] = {"timeout": self._timeout.as_dict()}
            headers["accept-encoding"] = "identity"  # no decompression: a small body could become a huge one
            headers["connection"] = "close"  # a reused connection may close during a call, with unknown outcome
            if address is not None:
                headers["host"] = url.netloc.decode("ascii")
                extensions["sni_hostname"] = url.host  # also checked against the certificate
                url = url.copy_with(host=address)
            asked = httpx2.Request(request.method, url, headers=headers, content=content, extensions=extensions)
            try:
                self.sent = self.sent or is_call
                return await self._client.send(asked, stream=True)
            except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as exc:
                self.sent = self.sent and not is_call  # not sent
                failure = exc
        raise failure or httpx2.ConnectError("no address")

    async def aclose(self) -> None:
        await self._client.aclose()


class _Bounded(httpx2.AsyncByteStream):
    """A response body with a size limit."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._response.aiter_raw():
            size += len(part)
            if size > _MOST_BYTES:
                raise httpx2.ReadError(f"more than {_MOST_BYTES} bytes")
            yield part

    async def aclose(self) -> None:
        await self._response.aclose()
