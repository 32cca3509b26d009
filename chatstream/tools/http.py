"""Tools that an HTTP endpoint carries out, for backends that are not in Python."""

import asyncio
import codecs
import logging
import ssl
from collections.abc import Mapping
from email.message import Message
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from chatstream import proxies
from chatstream.pieces import Effect
from chatstream.tools import schema
from chatstream.tools.addresses import NOT_REACHED, must_be_public, public_addresses
from chatstream.tools.file import SETTING, HttpTool
from chatstream.tools.tool import Caller, OutcomeUnknown, Tool, ToolFailed

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger("chatstream.tools")

# Maximum number of bytes that are read of a result. The model is sent less (`CHATSTREAM_TOOL_OUTPUT_CHARACTERS`).
_MOST_BYTES: Final = 1024 * 1024
# Seconds for connecting, or the tool's timeout if that is shorter. If no connection is made, the call was certainly not
# carried out, so this must fail before the tool's own timeout.
_CONNECTING: Final = 10.0
# A gateway's statuses that leave open whether the request was carried out.
_GATEWAY: Final = (502, 504)
# The accepted charsets. Others of Python's are unsafe: quadratic time (punycode), or not text at all (unicode_escape).
_CHARSETS: Final = frozenset(
    (
        *("utf-8", "ascii", "utf-16", "utf-16-le", "utf-16-be", "koi8-r", "koi8-u"),
        *("shift_jis", "cp932", "euc_jp", "euc_kr", "cp949", "gb2312", "gbk", "gb18030", "big5"),
    )
)
_CHARSET_FAMILIES: Final = ("iso8859-", "cp125")
# Characters that are not percent-encoded in a header: visible ASCII without the percent sign.
_VISIBLE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")


class HttpTools:
    """The file's HTTP tools and their connections."""

    def __init__(self, tools: list[HttpTool], *, output_characters: int) -> None:
        """`output_characters`: the most characters of a result that are sent to the model.

        Raises `ConfigurationError` if a tool's proxy is unusable.
        """
        tls = ssl.create_default_context()
        self._endpoints = [_Endpoint(tool, output_characters, tls) for tool in tools]

    @property
    def tools(self) -> list[Tool]:
        """The tools, as `Tool` objects."""
        return [each.tool for each in self._endpoints]

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(each.close() for each in self._endpoints))


class _Endpoint:
    """The endpoint of one tool."""

    def __init__(self, tool: HttpTool, output_characters: int, tls: ssl.SSLContext) -> None:
        import httpx2

        self._url = tool.url
        self._most = output_characters
        self._once = tool.manner.effect is Effect.ONCE
        self._headers = {
            "user-agent": "chatstream",
            **{name.lower(): value for name, value in tool.headers.items()},
            "accept": "application/json, text/*",
            "accept-encoding": "identity",  # no decompression: a small body could become a huge one
            "connection": "close",  # a reused connection may close during a call, with unknown outcome
            "content-type": "application/json",
        }
        self._checks_address = must_be_public(tool.url, internal=tool.internal)
        self._client = proxies.client(tool.url, SETTING, timeout=tool.manner.timeout, headers={}, tls=tls)
        connecting = min(_CONNECTING, tool.manner.timeout / 2)
        self._client.timeout = httpx2.Timeout(tool.manner.timeout, connect=connecting)
        # No cookies: one user's must not be sent with another user's call.
        self._client.cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        self.tool = Tool(
            name=tool.name,
            description=tool.description,
            parameters=tool.parameters,
            manner=tool.manner,
            check=schema.checking(tool.parameters),
            run=self._run,
            source=SETTING,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def _run(self, arguments: Mapping[str, Any], caller: Caller) -> object:
        """Carry out a call. Raises `ToolFailed`, or `OutcomeUnknown` if its effect may have happened."""
        headers = self._headers | {
            "idempotency-key": caller.key,
            "x-user-id": header_text(caller.user),
            "x-conversation-id": header_text(caller.conversation),
            "x-message-id": header_text(caller.answer),
        }
        try:
            return await self._asked(headers, msgspec.json.encode(arguments))
        except ToolFailed as exc:
            log.warning("tool %s: %s", self.tool.name, exc)
            raise

    async def _asked(self, headers: dict[str, str], body: bytes) -> object:
        import httpx2

        for address in await public_addresses(self._url, self.tool.name) if self._checks_address else [None]:
            try:
                return await self._ask(address, headers, body)
            except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError):
                continue  # nothing was sent
            except (httpx2.TransportError, httpx2.StreamError, OSError) as exc:
                log.warning("tool %s: %s after the request was sent", self.tool.name, type(exc).__name__)
                raise (OutcomeUnknown() if self._once else ToolFailed("the service broke off")) from exc
        raise ToolFailed(NOT_REACHED)

    async def _ask(self, address: str | None, headers: dict[str, str], body: bytes) -> object:
        """Send the request to one of the endpoint's IP addresses; None: let the HTTP client resolve the name."""
        import httpx2

        url = httpx2.URL(self._url)
        extensions: dict[str, Any] = {}
        if address is not None:
            headers = headers | {"host": url.netloc.decode("ascii")}
            extensions["sni_hostname"] = url.host  # also checked against the certificate
            url = url.copy_with(host=address)
        async with self._client.stream("POST", url, content=body, headers=headers, extensions=extensions) as response:
            return await self._result(response)

    async def _result(self, response: "httpx2.Response") -> object:
        status = response.status_code
        if response.is_redirect:
            raise ToolFailed(f"the service answered HTTP {status}, a redirect, which is not followed")
        if self._once and status in _GATEWAY:
            raise OutcomeUnknown
        if not response.is_success:  # its body is not trusted, and not read
            raise ToolFailed(f"the service answered HTTP {status}")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise self._unreadable("it is compressed, which was not asked for")
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > _MOST_BYTES:
                return self._beginning(bytes(content), response)
        return self._read(bytes(content), response)

    def _read(self, content: bytes, response: "httpx2.Response") -> object:
        if not content:
            return None
        kind, charset = _kind(response)
        try:
            if kind == "application/json" or kind.endswith("+json"):
                return msgspec.json.decode(content)
            if kind.startswith("text/"):
                return content.decode(charset)
            if not kind:
                text = content.decode()
                try:
                    return msgspec.json.decode(content)
                except msgspec.DecodeError:
                    return text
        except (ValueError, LookupError, RecursionError) as exc:
            raise self._unreadable(f"it is no valid {'text' if kind.startswith('text/') else 'JSON'}") from exc
        raise self._unreadable("it is neither JSON nor text")

    def _beginning(self, content: bytes, response: "httpx2.Response") -> str:
        """The beginning of a result that is too long, as text with a note that it was truncated."""
        _, charset = _kind(response)
        note = "… (cut: the service sent more than a megabyte)"
        try:
            text = content.decode(charset, "ignore")
        except LookupError as exc:
            raise self._unreadable("it is no valid text") from exc
        return text[: self._most - len(note)] + note

    def _unreadable(self, why: str) -> ToolFailed:
        did = "it may have done what it was asked for, but " if self._once else ""
        return ToolFailed(f"{did}its answer cannot be read: {why}")


def header_text(text: str) -> str:
    """An id in a form for headers: percent-encoded UTF-8, except visible ASCII other than the percent sign."""
    return quote(text, safe=_VISIBLE, errors="surrogatepass")


def _kind(response: "httpx2.Response") -> tuple[str, str]:
    """The response's media type, in lower case, and its charset."""
    header = Message()
    header["Content-Type"] = response.headers.get("Content-Type", "")
    kind = header.get_content_type() if response.headers.get("Content-Type") else ""
    return kind, _charset(str(header.get_param("charset") or "utf-8"))


def _charset(name: str) -> str:
    """Python's name of a charset; ``unknown`` if it is not accepted."""
    try:
        known = codecs.lookup(name).name
    except (LookupError, ValueError):
        return "unknown"
    return known if known in _CHARSETS or known.startswith(_CHARSET_FAMILIES) else "unknown"
