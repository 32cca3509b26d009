"""Finds the client's IP address, also behind proxies."""

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from tornado.httputil import HTTPHeaders

from chatstream.config.values import Network

# Maximum number of proxies that are read from a header: more than any real chain has.
_MOST_HOPS = 32
# An address with an optional port, as proxies write it. IPv6 is in brackets if a port may follow; the port may be a
# pseudonym (RFC 7239, section 6). Azure's gateways add ports to X-Forwarded-For.
_WITH_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9.]{7,15}))(?::[0-9]{1,5}|:_[\w.-]{1,64})?", re.ASCII)
_LONGEST_NODE = 128


def origin(peer: str | None, headers: HTTPHeaders, trusted: Sequence[Network]) -> str | None:
    """The client's address: IPv4, or the first 64 bits of IPv6, which belong to one subscriber.

    `peer`: the other end of the connection. If it is a `trusted` proxy, the entry that it added to ``X-Forwarded-For``
    or, without that header, to ``Forwarded`` (RFC 7239) counts; entries of untrusted senders do not. (Tornado's
    `xheaders` trust every peer.) If a proxy does not name its client, the result is the proxy's own address.

    None for this machine itself: a developer, or a proxy that is not configured as trusted. All users of that proxy
    share its address, so one of them must not exhaust a limit for the others.
    """
    address = _address(peer or "")
    if address is None:  # a Unix socket
        return None
    for hop in _hops(headers):
        if not any(address in network for network in trusted):
            break
        before = _address(hop)
        if before is None:
            break
        address = before
    if address.is_loopback:
        return None
    return str(address) if isinstance(address, IPv4Address) else address.packed[:8].hex(":", 2) + "::/64"


def _hops(headers: HTTPHeaders) -> Iterator[str]:
    """The client that each proxy names in the headers, the last proxy first."""
    # Tornado joins repeated headers with commas (RFC 9110). No address has a quoted comma, so splitting at every comma
    # is safe: a client's quotes cannot hide later entries.
    forwarded_for = headers.get("X-Forwarded-For")
    if forwarded_for is not None:
        yield from filter(None, map(str.strip, _from_the_end(forwarded_for)))
        return
    for element in filter(None, map(str.strip, _from_the_end(headers.get("Forwarded", "")))):
        pairs = [pair.partition("=") for pair in element[: 4 * _LONGEST_NODE].split(";")]
        nodes = [value.strip() for name, _, value in pairs if name.strip().lower() == "for"]
        yield nodes[0] if len(nodes) == 1 else ""


def _from_the_end(text: str) -> list[str]:
    return text.rsplit(",", _MOST_HOPS)[: -_MOST_HOPS - 1 : -1]


def _address(node: str) -> IPv4Address | IPv6Address | None:
    """Parse an address; None for ``unknown``, a pseudonym, or invalid text."""
    if len(node) > _LONGEST_NODE:
        return None
    if len(node) > 1 and node[0] == node[-1] == '"':
        node = re.sub(r"\\(.)", r"\1", node[1:-1])
    if found := _WITH_PORT.fullmatch(node):
        node = found[1] or found[2]
    try:
        address = ip_address(node)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:  # an IPv4 client on an IPv6 socket
        return address.ipv4_mapped
    return address
