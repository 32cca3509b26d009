"""The choice of the proxy for a URL."""

import pytest

from chatstream.errors import ConfigurationError
from chatstream.proxies import proxy_for
from tests.conftest import NameProxies

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "https://model.example/v1", None),
        ({"HTTPS_PROXY": PROXY}, "https://model.example/v1", PROXY),
        ({"https_proxy": PROXY}, "https://model.example/v1", PROXY),
        ({"https_proxy": PROXY, "HTTPS_PROXY": "http://other.example"}, "https://model.example/v1", PROXY),
        ({"HTTP_PROXY": PROXY}, "https://model.example/v1", None),
        ({"HTTP_PROXY": PROXY}, "http://model.example/v1", PROXY),
        ({"ALL_PROXY": "socks5://proxy.example:1080"}, "https://model.example/v1", "socks5://proxy.example:1080"),
        ({"HTTPS_PROXY": PROXY, "ALL_PROXY": "http://other.example"}, "https://model.example/v1", PROXY),
        ({"HTTPS_PROXY": "proxy.example:3128"}, "https://model.example/v1", PROXY),
        ({"HTTPS_PROXY": f" {PROXY} "}, "https://model.example/v1", PROXY),
        ({"HTTPS_PROXY": " "}, "https://model.example/v1", None),
        ({"HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY}, "http://localhost:11434/v1", None),
        ({"HTTP_PROXY": PROXY}, "http://127.0.0.2/v1", None),
        ({"HTTP_PROXY": PROXY}, "http://[::1]:8000/v1", None),
    ],
)
def test_which_one_is_asked(proxies: NameProxies, environment: dict[str, str], url: str, proxy: str | None) -> None:
    proxies(**environment)
    assert proxy_for(url) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "url", "asked"),
    [
        ("model.example", "https://model.example/v1", False),
        ("MODEL.Example", "https://Model.example/v1", False),
        ("example", "https://model.example/v1", False),
        (".example", "https://model.example/v1", False),
        ("*.example", "https://model.example/v1", False),
        ("model.example", "https://model.example./v1", False),
        ("odel.example", "https://model.example/v1", True),
        ("other.example , model.example", "https://model.example/v1", False),
        ("other.example model.example", "https://model.example/v1", False),
        ("*", "https://model.example/v1", False),
        ("", "https://model.example/v1", True),
        (",. ,", "https://model.example/v1", True),
        ("model.example:443", "https://model.example/v1", False),
        ("model.example:8443", "https://model.example/v1", True),
        ("model.example:8443", "https://model.example:8443/v1", False),
        ("10.1.2.3", "https://10.1.2.3/v1", False),
        ("10.0.0.0/8", "https://10.1.2.3/v1", False),
        ("10.0.0.1/8", "https://10.1.2.3/v1", False),
        ("10.0.0.0/8", "https://11.1.2.3/v1", True),
        ("10.0.0.0/8", "https://model.example/v1", True),
        ("10.1.2.3:8000", "http://10.1.2.3:8000/v1", False),
        ("fd00::/8", "https://[fd00::1]/v1", False),
        ("[fd00::1]", "https://[fd00::1]/v1", False),
        ("[fd00::1]:8000", "http://[fd00::1]:8000/v1", False),
        ("fd00::2", "https://[fd00::1]/v1", True),
    ],
)
def test_for_what_none_is_asked(proxies: NameProxies, no_proxy: str, url: str, asked: bool) -> None:
    proxies(HTTP_PROXY=PROXY, HTTPS_PROXY=PROXY, NO_PROXY=no_proxy)
    assert (proxy_for(url) is not None) is asked


@pytest.mark.parametrize("proxy", ["gopher://SECRET", "http://SECRET:port", "http://", "http://[SECRET", "SECRET:0"])
def test_what_is_no_proxy(proxies: NameProxies, proxy: str) -> None:
    proxies(HTTPS_PROXY=proxy)
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY") as raised:
        proxy_for("https://model.example/v1")
    assert "SECRET" not in str(raised.value)
