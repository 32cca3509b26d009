"""The client's address: only trusted proxies count, and only the entry that each added itself."""

from ipaddress import ip_network

import pytest
from tornado.httputil import HTTPHeaders

from chatstream.handlers.addresses import origin

TRUSTED = [ip_network("127.0.0.1"), ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
CLIENT = "198.51.100.1"
CLIENT_6, SUBSCRIBER = "2001:db8:1:2::99", "2001:0db8:0001:0002::/64"


def headers(name: str, *values: str) -> HTTPHeaders:
    """Headers with one field for each value."""
    found = HTTPHeaders()
    for value in values:
        found.add(name, value)
    return found


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"),
    [
        ("203.0.113.7", "", "203.0.113.7"),
        ("203.0.113.7", "198.51.100.1", "203.0.113.7"),  # sent by a peer that is not a trusted proxy
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
        ("::1", "198.51.100.1", None),  # this peer is not in the list of proxies
        ("::ffff:203.0.113.7", "", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "", "2001:0db8:0001:0002::/64"),
        ("fd00::1", "2001:db8:1:2::99", "2001:0db8:0001:0002::/64"),
        ("fe80::1%eth0", "", "fe80:0000:0000:0000::/64"),
    ],
)
def test_where_a_request_comes_from(peer: str, forwarded_for: str, expected: str | None) -> None:
    assert origin(peer, headers("X-Forwarded-For", forwarded_for), TRUSTED) == expected


def test_nobody_is_believed_by_default() -> None:
    assert origin("10.1.2.3", headers("X-Forwarded-For", CLIENT), ()) == "10.1.2.3"
    assert origin("10.1.2.3", headers("Forwarded", f"for={CLIENT}"), ()) == "10.1.2.3"


def test_who_has_no_address_has_none() -> None:
    assert origin(None, headers("X-Forwarded-For", CLIENT), TRUSTED) is None
    assert origin("", headers("X-Forwarded-For", CLIENT), TRUSTED) is None


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (CLIENT, CLIENT),
        (f"{CLIENT}:4711", CLIENT),
        (f"{CLIENT}:_port", CLIENT),
        (f'"{CLIENT}"', CLIENT),
        (f'"{CLIENT}:4711"', CLIENT),
        (CLIENT_6, SUBSCRIBER),
        (f"[{CLIENT_6}]", SUBSCRIBER),
        (f"[{CLIENT_6}]:4711", SUBSCRIBER),
        (f'"[{CLIENT_6}]:4711"', SUBSCRIBER),
        (f'"[{CLIENT_6}]:_x"', SUBSCRIBER),
        (f"[::ffff:{CLIENT}]:80", CLIENT),
        # In these cases only the proxy's own address is known.
        *((node, "10.1.2.3") for node in ("unknown", "_hidden", '"_hidden"', "unknown:80", '""', '"', "[", "[]")),
        *((node, "10.1.2.3") for node in ("[::1", f"{CLIENT}:", f"{CLIENT}:1:2", f"{CLIENT}:x", "1.2.3", "01.2.3.4")),
        ("a" * 9000, "10.1.2.3"),
    ],
)
def test_an_address_in_every_spelling(node: str, expected: str) -> None:
    assert origin("10.1.2.3", headers("X-Forwarded-For", f"6.6.6.6, {node}"), TRUSTED) == expected
    assert origin("10.1.2.3", headers("X-Forwarded-For", "6.6.6.6", node), TRUSTED) == expected
    assert origin("10.1.2.3", headers("X-Forwarded-For", f"6.6.6.6 ,{node} , ,", ""), TRUSTED) == expected
    for element in (f"for={node}", f"For={node};proto=https", f"by=10.1.2.3; FOR = {node} ;host=x"):
        assert origin("10.1.2.3", headers("Forwarded", f"for=6.6.6.6, {element}"), TRUSTED) == expected
        assert origin("10.1.2.3", headers("Forwarded", "for=6.6.6.6", element), TRUSTED) == expected


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("", "10.1.2.3"),
        ("proto=https", "10.1.2.3"),  # the header names no client
        (f"for={CLIENT};for=6.6.6.6", "10.1.2.3"),
        (f"for={CLIENT}, for=10.4.5.6;proto=http", CLIENT),
        (f'for="[{CLIENT_6}]:1", for="[fd00::7]:2"', SUBSCRIBER),
        (f'for="6.6.6.6, for={CLIENT}', CLIENT),  # the client's open quote does not hide later entries
        (f'for="a\\", for={CLIENT}', CLIENT),
        (f'for="{CLIENT[0]}\\{CLIENT[1:]}"', CLIENT),  # RFC 9110, section 5.6.4
        (f"for=10.4.5.6, for={CLIENT}, for=unknown", "10.1.2.3"),
        ("for=10.4.5.6," * 5000, "10.4.5.6"),
        (f"for={CLIENT}" + ", for=10.4.5.6" * 31, CLIENT),
        (f"for={CLIENT}" + ", for=10.4.5.6" * 32, "10.4.5.6"),  # more proxies than any real chain has
    ],
)
def test_the_standard_header(forwarded: str, expected: str) -> None:
    assert origin("10.1.2.3", headers("Forwarded", forwarded), TRUSTED) == expected


def test_of_both_headers_the_one_counts_that_proxies_set() -> None:
    """Most proxies set only X-Forwarded-For, and pass on the client's own `Forwarded`."""
    both = headers("X-Forwarded-For", CLIENT)
    both.add("Forwarded", "for=6.6.6.6")
    assert origin("10.1.2.3", both, TRUSTED) == CLIENT


def test_a_proxy_is_known_by_its_address_also_in_the_other_family() -> None:
    assert origin("::ffff:10.1.2.3", headers("X-Forwarded-For", CLIENT), TRUSTED) == CLIENT
    assert origin("10.1.2.3", headers("X-Forwarded-For", f"{CLIENT}, ::ffff:10.4.5.6"), TRUSTED) == CLIENT
