"""Checks the IP addresses of tools' hosts."""

import asyncio
import logging
import socket
from typing import Final
from urllib.parse import urlsplit

from chatstream import hosts, proxies
from chatstream.tools.tool import ToolFailed

log = logging.getLogger("chatstream.tools")

NOT_REACHED: Final = "not carried out: the service cannot be reached"


def must_be_public(url: str, *, internal: bool) -> bool:
    """Whether a URL's host must have public addresses only: it is not marked as `internal`, and no proxy resolves it.
    Raises `ConfigurationError` if the environment names an unusable proxy."""
    return not (internal or hosts.is_inside(urlsplit(url).hostname or "") or proxies.proxy_for(url))


async def public_addresses(url: str, name: str) -> list[str]:
    """The public addresses of a tool's host. Others are refused, so that a change of the host's DNS records cannot
    open the operator's network. `name`: the tool's.

    Raises `ToolFailed`.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise ToolFailed("not carried out: the service cannot be found") from exc
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    if not all(map(hosts.is_public, addresses)):
        log.error("tool %s: its name leads into your own network; if it should, write internal = true", name)
        raise ToolFailed(NOT_REACHED)
    return addresses
