"""Classifies host names and addresses."""

from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import Final

_NAT64: Final = IPv6Network("64:ff9b::/96")


def is_loopback(host: str) -> bool:
    """Whether the host is a loopback by its name or address; no DNS look-up."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, not to a private network."""
    found = ip_address(address.partition("%")[0])
    # An IPv6 address that contains an IPv4 address (RFC 4291, 3056, 6052) leads to the IPv4 address.
    inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    if inner is None and found in _NAT64:
        inner = IPv4Address(int(found) & 0xFFFF_FFFF)
    return (inner or found).is_global and not (inner or found).is_multicast


def is_inside(host: str) -> bool:
    """Whether a host, as written, can only be in the operator's network: an IP address, a name without a dot, or a name
    below a domain that is not public (RFC 6761, 6762, 8375; .internal is reserved by ICANN)."""
    try:
        ip_address(host)
    except ValueError:
        name = host.lower().rstrip(".")
        return "." not in name or name.endswith((".localhost", ".local", ".internal", ".home.arpa"))
    return True
