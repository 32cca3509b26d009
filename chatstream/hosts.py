"""Names of hosts."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether it is this machine's own loopback, as far as its name or address tells: nothing is looked up."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
