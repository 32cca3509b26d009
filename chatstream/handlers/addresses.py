"""Whose connection it is: the client's address, also behind proxies."""

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from tornado.httputil import HTTPHeaders

Network = IPv4Network | IPv6Network

# More proxies than there are between anybody and a server. What stands before them in a header is not looked at.
_MOST_HOPS = 32
# An address as proxies write it, with the brackets that IPv6 has where a port may follow, and with a port, which may
# also be a made-up name (RFC 7239, section 6). Azure's gateways add ports to X-Forwarded-For.
_WITH_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9.]{7,15}))(?::[0-9]{1,5}|:_[\w.-]{1,64})?", re.ASCII)
_LONGEST_NODE = 128


def origin(peer: str | None, headers: HTTPHeaders, trusted: Sequence[Network]) -> str | None:
    """Where a request comes from: an IPv4 address or the first 64 bits of an IPv6 one, which one subscriber has.

    `peer` is the other end of the connection. If it is a `trusted` proxy, it is believed what it has added to the
    request's ``X-Forwarded-For`` or, if there is none, its ``Forwarded`` (RFC 7239); what others wrote there before is
    not. (Tornado's `xheaders` believe everybody who connects.) A hop that does not say its client's address ends the
    search: then it is this proxy that is known.

    None for this machine itself: a developer, or a proxy that is not named as trusted; then all of its users have this
    address, and one of them must not keep out the others.
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
    """What each proxy wrote of its client, the last proxy first."""
    # Tornado joins several fields of one name with commas, as RFC 9110 has it. A comma in quotes is in no address, and
    # so what a client writes can hide nothing of what stands behind it.
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
    """None for what is none: ``unknown``, a made-up name, nonsense."""
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
