"""Whose address counts: a proxy is believed only if it is trusted, and only what it added itself."""

from ipaddress import ip_network

import pytest

from chatstream.handlers.addresses import origin

TRUSTED = [ip_network("127.0.0.1"), ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"),
    [
        ("203.0.113.7", "", "203.0.113.7"),
        ("203.0.113.7", "198.51.100.1", "203.0.113.7"),  # says who is no proxy of ours
        ("10.1.2.3", "198.51.100.1", "198.51.100.1"),
        ("10.1.2.3", "6.6.6.6, 198.51.100.1", "198.51.100.1"),  # the client wrote the first one itself
        ("10.1.2.3", "6.6.6.6, 10.9.9.9, 198.51.100.1, 10.4.5.6", "198.51.100.1"),
        ("10.1.2.3", "10.4.5.6", "10.4.5.6"),
        ("10.1.2.3", "", "10.1.2.3"),
        ("10.1.2.3", "not an address", "10.1.2.3"),
        ("10.1.2.3", "198.51.100.1, <script>", "10.1.2.3"),
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "", None),
        ("127.0.0.1", "::1", None),
        ("::1", "198.51.100.1", None),  # not in the list
        ("::ffff:203.0.113.7", "", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "", "2001:0db8:0001:0002::/64"),
        ("fd00::1", "2001:db8:1:2::99", "2001:0db8:0001:0002::/64"),
        ("fe80::1%eth0", "", "fe80:0000:0000:0000::/64"),
    ],
)
def test_where_a_request_comes_from(peer: str, forwarded_for: str, expected: str | None) -> None:
    assert origin(peer, forwarded_for, TRUSTED) == expected


def test_nobody_is_believed_by_default() -> None:
    assert origin("10.1.2.3", "198.51.100.1", ()) == "10.1.2.3"
