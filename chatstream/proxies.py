"""Chooses the HTTP proxy for a URL. The same rules apply to the model, an issuer's keys and webhooks."""

import ssl
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from chatstream.errors import ConfigurationError
from chatstream.hosts import is_loopback

if TYPE_CHECKING:
    import httpx2

_PORTS = {"http": 80, "https": 443}
_SCHEMES = ("http", "https", "socks5", "socks5h")


def proxy_for(url: str) -> str | None:
    """Return the URL of the proxy for `url`; None if it is reached directly.

    The environment names it, in lower or upper case: ``HTTP_PROXY`` or ``HTTPS_PROXY``, after the scheme of `url`, else
    ``ALL_PROXY``. No proxy is asked for a loopback, nor for what ``NO_PROXY`` lists, separated by commas or spaces: a
    name stands for itself and for all names below it (``example.com``, ``.example.com`` and ``*.example.com`` are the
    same), an address or a network (``10.0.0.0/8``) for addresses, ``*`` for everything; ``:port`` may follow.

    Raises `ConfigurationError` if what the environment names is no proxy's address.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    proxies = getproxies()
    name = parts.scheme if proxies.get(parts.scheme) else "all"
    proxy = proxies.get(name, "").strip()
    if not proxy or is_loopback(host) or _needs_none(host, parts.port or _PORTS.get(parts.scheme), proxies.get("no")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not _is_address(proxy):
        raise ConfigurationError(
            f"{name.upper()}_PROXY is not the address of a proxy, such as http://proxy.example:3128 "
            f"(schemes: {', '.join(_SCHEMES)})"
        )
    return proxy


def client(
    url: str, setting: str, *, timeout: float, headers: Mapping[str, str], tls: ssl.SSLContext | None = None
) -> "httpx2.AsyncClient":
    """Return an HTTP client for `url`, with its proxy if there is one; it follows no redirects. `timeout` is in
    seconds. Several clients may share `tls`, which takes a while to make.

    Raises `ConfigurationError`, which names the `setting` that has the `url`, if the proxy cannot be used.
    """
    import httpx2  # import on use: a server that sends requests only to the model need not load it

    try:
        return httpx2.AsyncClient(
            proxy=proxy_for(url),
            trust_env=False,  # it would use proxies of other URLs, too
            verify=tls or ssl.create_default_context(),  # the system's authorities, to which a company adds its own
            timeout=timeout,
            headers=headers,
        )
    except (ImportError, ValueError, httpx2.InvalidURL) as exc:  # SOCKS without package, unknown protocol, not a URL
        raise ConfigurationError(
            f"{setting}: the proxy that the environment names for it cannot be used: {type(exc).__name__}"
        ) from exc


def _is_address(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy)
        return parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, or half an IPv6 address
        return False


def _needs_none(host: str, port: int | None, no_proxy: str | None) -> bool:
    if no_proxy is None:
        return bool(proxy_bypass(host))  # macOS and Windows have their own list
    return any(_covers(entry, host, port) for entry in no_proxy.replace(",", " ").split())


def _covers(entry: str, host: str, port: int | None) -> bool:
    """Whether one entry of ``NO_PROXY`` covers this host and port."""
    if entry == "*":
        return True
    try:  # try an address before a port: an IPv6 address contains colons, too
        return ip_address(host) in ip_network(entry.strip("[]"), strict=False)
    except ValueError:  # one of the two is not an address
        pass
    name, colon, number = entry.rpartition(":")
    if colon and number.isdigit():
        return int(number) == port and _covers(name, host, port)
    name = entry.lower().removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith("." + name))
