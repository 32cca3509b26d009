"""Names of hosts."""

from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import Final

_NAT64: Final = IPv6Network("64:ff9b::/96")


def is_loopback(host: str) -> bool:
    """Whether it is this machine's own loopback, as far as its name or address tells: nothing is looked up."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, and not of a network of the operator's."""
    found = ip_address(address.partition("%")[0])
    # An IPv4 address in an IPv6 one (RFC 4291, 3056, 6052) leads where the IPv4 address does.
    inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    if inner is None and found in _NAT64:
        inner = IPv4Address(int(found) & 0xFFFF_FFFF)
    return (inner or found).is_global and not (inner or found).is_multicast


def is_inside(host: str) -> bool:
    """Whether a host, as it is written, can only be meant as one of the operator's network: an address, a name without
    a dot, or below a domain that is no public one (RFC 6761, 6762, 8375; .internal is reserved by ICANN)."""
    try:
        ip_address(host)
    except ValueError:
        name = host.lower().rstrip(".")
        return "." not in name or name.endswith((".localhost", ".local", ".internal", ".home.arpa"))
    return True
