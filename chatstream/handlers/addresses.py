"""Whose connection it is: the client's address, also behind proxies."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network


def origin(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str | None:
    """Where a request comes from: an IPv4 address or the first 64 bits of an IPv6 one, which one subscriber has.

    `peer` is the other end of the connection. If it is a `trusted` proxy, it is believed what it has added to
    `forwarded_for`, the request's ``X-Forwarded-For``; what others wrote there before is not. (Tornado's `xheaders`
    believe everybody who connects.) None for this machine itself: a developer, or a proxy that is not named as trusted;
    then all of its users have this address, and one of them must not keep out the others.
    """
    address = ip_address(peer)
    for hop in reversed(forwarded_for.split(",")):
        if not any(address in network for network in trusted):
            break
        try:
            address = ip_address(hop.strip())
        except ValueError:
            break  # then it is the proxy that sent it who is known
    return _subscriber(address)


def _subscriber(address: IPv4Address | IPv6Address) -> str | None:
    if isinstance(address, IPv6Address) and address.ipv4_mapped:  # an IPv4 client of a socket for both
        address = address.ipv4_mapped
    if address.is_loopback:
        return None
    return str(address) if isinstance(address, IPv4Address) else address.packed[:8].hex(":", 2) + "::/64"
