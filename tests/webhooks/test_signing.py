"""Signatures as defined by the standard."""

import pytest

from chatstream.webhooks import signing


def test_the_example_of_the_standard() -> None:
    """The standard's own libraries make the same signature."""
    key = signing.key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signing.headers(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("changed", [("id", 1, b"body"), ("di", 2, b"body"), ("id", 2, b"bodY")])
def test_whatever_is_signed_counts(changed: tuple[str, int, bytes]) -> None:
    key = b"k" * 24
    original = signing.headers(key, "id", 2, b"body")["webhook-signature"]
    assert signing.headers(key, *changed)["webhook-signature"] != original
    assert signing.headers(b"K" * 24, "id", 2, b"body")["webhook-signature"] != original
