"""An issuer's keys, from a real HTTP server on this machine that rotates them, goes down, dawdles and lies."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms
from tornado.ioloop import IOLoop
from tornado.web import RequestHandler

from chatstream.auth import JWKS, Authenticator, Rules, jwks, mint
from chatstream.errors import Unauthenticated, Unavailable
from tests.support.issuer import Issuer, jwk
from tests.support.tokens import HOUR, claims, header, signed

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def token(private: Any, algorithm: str, kid: str | None, expires_in: float = HOUR) -> str:
    return mint(private, "u1", expires_in, Rules(algorithms=(algorithm,)), kid=kid)


class World:
    """An issuer, and who trusts it."""

    def __init__(self) -> None:
        self.issuer = Issuer(jwk(RSA, "RS256", kid="one"))
        self.now = 1000.0
        self.keys = JWKS(self.issuer.url, ALGORITHMS, clock=lambda: self.now)

    @property
    def authenticator(self) -> Authenticator:
        """One that remembers no token."""
        return Authenticator(self.keys, Rules(algorithms=ALGORITHMS))

    async def accepts(self, token: str) -> bool:
        """Whether the token is good; raises `Unavailable` if that cannot be known."""
        try:
            return (await self.authenticator.authenticate(token)).id == "u1"
        except Unauthenticated:
            return False

    async def settled(self) -> None:
        """The fetch that nobody waits for is over."""
        if fetching := self.keys.refresh():
            await asyncio.wait((fetching,))


@pytest.fixture
def world(io_loop: IOLoop) -> Iterator[World]:
    made: list[World] = []

    async def make() -> None:
        made.append(World())

    io_loop.run_sync(make)
    [world] = made
    yield world
    io_loop.run_sync(world.keys.close)
    io_loop.run_sync(world.issuer.close)


@pytest.mark.gen_test
async def test_each_kind_of_key(world: World) -> None:
    world.issuer.publishes(
        jwk(RSA, "RS256", kid="rsa", use="sig"),
        jwk(EC, "ES256", kid="ec", alg="ES256"),
        jwk(ED, "EdDSA", kid="ed", use=None, key_ops=["verify"]),
    )
    world.issuer.keys += [jwk(OTHER, "ES256", kid=["ec"]), jwk(OTHER, "ES256", kid=None, use="enc"), "no key"]
    for private, algorithm, kid in (
        (RSA, "RS256", "rsa"),
        (RSA, "PS256", "rsa"),
        (EC, "ES256", "ec"),
        (ED, "EdDSA", "ed"),
    ):
        assert await world.accepts(token(private, algorithm, kid)), algorithm
        # Without its name, if there is no other.
        assert await world.accepts(token(private, algorithm, None)), algorithm
        assert not await world.accepts(token(private, algorithm, "other")), algorithm
    assert world.issuer.asked == 1
    # A key for one algorithm serves no other, and none that is not accepted; nor is a public key a secret.
    world.issuer.publishes(jwk(RSA, "RS256", kid="rsa", alg="RS256"))
    world.now += 1000
    await world.settled()
    assert await world.accepts(token(RSA, "RS256", "rsa"))
    assert not await world.accepts(token(RSA, "PS256", "rsa"))
    assert not await world.accepts(token(RSA, "RS512", "rsa"))
    assert not await world.accepts(signed(claims(), header=header(kid="rsa"), secret=world.issuer.keys[0]["n"]))


@pytest.mark.gen_test
async def test_without_a_name_there_must_be_no_choice(world: World) -> None:
    world.issuer.publishes(jwk(EC, "ES256", kid=None), jwk(OTHER, "ES256", kid=None), jwk(ED, "EdDSA", kid=None))
    assert await world.accepts(token(ED, "EdDSA", None))
    for private in (EC, OTHER):
        assert not await world.accepts(token(private, "ES256", None))


@pytest.mark.gen_test
async def test_many_who_come_at_once_are_one_fetch(world: World) -> None:
    good, unknown = token(RSA, "RS256", "one"), token(RSA, "RS256", "two")
    assert all(await asyncio.gather(*(world.accepts(good) for _ in range(1000))))
    assert world.issuer.asked == 1
    world.now += 20
    assert not any(await asyncio.gather(*(world.accepts(unknown) for _ in range(1000))))
    assert world.issuer.asked == 2


@pytest.mark.gen_test
async def test_keys_that_nobody_knows_are_asked_for_only_so_often(world: World) -> None:
    assert await world.accepts(token(RSA, "RS256", "one"))
    for second in range(100):
        assert not await world.accepts(token(RSA, "RS256", f"made up {second}"))
        world.now += 1
    assert 9 <= world.issuer.asked <= 11
    # What no key could verify asks for none.
    world.now += 100
    for bad in (signed(claims()), signed(claims(), header=header(alg="none")), signed(claims(), header=header(kid=1))):
        assert not await world.accepts(bad)
    assert not await world.accepts(token(RSA, "RS256", "one", -1))
    assert world.issuer.asked <= 11


@pytest.mark.gen_test
async def test_a_new_key_is_found_and_an_old_one_is_forgotten(world: World) -> None:
    old, new = token(RSA, "RS256", "one"), token(EC, "ES256", "two")
    assert await world.accepts(old)
    world.issuer.publishes(jwk(RSA, "RS256", kid="one"), jwk(EC, "ES256", kid="two"))
    world.now += 11
    assert await world.accepts(new)
    assert world.issuer.asked == 2
    world.issuer.publishes(jwk(EC, "ES256", kid="two"))
    world.now += 301
    assert await world.accepts(old)  # nobody waits for the fetch that this begins
    await world.settled()
    assert not await world.accepts(old)
    assert await world.accepts(new)


@pytest.mark.gen_test
async def test_while_the_issuer_is_down_the_last_keys_serve_for_an_hour(world: World) -> None:
    good = token(RSA, "RS256", "one")
    assert await world.accepts(good)
    world.issuer.says(500)
    world.now += 3599
    assert await world.accepts(good)
    await world.settled()
    assert await world.accepts(good)
    with pytest.raises(Unavailable) as unknown:  # it may be a new one
        await world.authenticator.authenticate(token(EC, "ES256", "two"))
    assert (unknown.value.code, unknown.value.retry_after) == ("auth_unavailable", 10)
    world.now += 2
    with pytest.raises(Unavailable):
        await world.authenticator.authenticate(good)
    world.issuer.publishes(jwk(RSA, "RS256", kid="one"))
    world.now += 10
    assert await world.accepts(good)


GARBAGE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "not found": {"status": 404},
    "elsewhere": {"status": 302, "Location": "/keys"},
    "no JSON": {"body": b"<html>"},
    "not UTF-8": {"body": b'{"keys": "\xff"}'},
    "nested deeply": {"body": b"[" * 100_000},
    "a list": {"body": b"[]"},
    "no keys": {"body": b'{"keys": []}'},
    "null": {"body": b'{"keys": null}'},
    "keys that are none": {"body": b'{"keys": [null, 1, "x", [], {}, {"kty": "RSA"}, {"kty": "EC", "crv": "P-256"}]}'},
    "a secret": {"body": b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "one"}]}'},
    "a key to encrypt with": {"body": json.dumps({"keys": [jwk(RSA, "RS256", kid="one", use="enc")]}).encode()},
    "a key to sign with": {"body": json.dumps({"keys": [jwk(RSA, "RS256", key_ops=["sign"])]}).encode()},
    "a private key": {
        "body": json.dumps({"keys": [get_default_algorithms()["RS256"].to_jwk(RSA, as_dict=True)]}).encode()
    },
    "another curve": {"body": json.dumps({"keys": [jwk(ec.generate_private_key(ec.SECP384R1()), "ES384")]}).encode()},
    "a short key": {
        "body": json.dumps(
            {"keys": [jwk(rsa.generate_private_key(public_exponent=65_537, key_size=1024), "RS256", kid="one")]}  # noqa: S505 - to be refused
        ).encode()
    },
    "too much": {"body": b" " * 300_000},
}


@pytest.mark.gen_test
@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_is_no_key_and_no_reason_to_refuse_anybody_for_good(world: World, answer: dict[str, Any]) -> None:
    world.issuer.says(**answer)
    with pytest.raises(Unavailable):
        await world.authenticator.authenticate(token(RSA, "RS256", "one"))
    assert world.issuer.asked == 1
    world.issuer.publishes(jwk(RSA, "RS256", kid="one"))
    world.now += 10
    assert await world.accepts(token(RSA, "RS256", "one"))


@pytest.mark.gen_test
async def test_one_that_dawdles_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "_FETCH_SECONDS", 0.2)
    hang_up = asyncio.Event()

    async def drip(handler: RequestHandler) -> None:
        while not hang_up.is_set():
            handler.write(" ")
            await handler.flush()
            await asyncio.sleep(0.01)  # so slowly, but never silent

    world.issuer.respond = drip
    with pytest.raises(Unavailable):
        await world.authenticator.authenticate(token(RSA, "RS256", "one"))
    hang_up.set()


@pytest.mark.gen_test
async def test_one_that_is_not_there(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.issuer.close()
    with pytest.raises(Unavailable):
        await world.authenticator.authenticate(token(RSA, "RS256", "one"))
    assert "the keys at CHATSTREAM_JWKS_URL cannot be had: ConnectionRefusedError" in caplog.text


@pytest.mark.gen_test
async def test_neither_its_name_nor_an_address_in_a_token_leads_anywhere(world: World) -> None:
    elsewhere = Issuer()
    elsewhere.publishes(jwk(EC, "ES256", kid=elsewhere.url))
    headers = {"kid": elsewhere.url, "jku": elsewhere.url, "x5u": elsewhere.url, "jwk": jwk(EC, "ES256")}
    assert not await world.accepts(jwt.encode(claims(), EC, algorithm="ES256", headers=headers))
    assert elsewhere.asked == 0
    await elsewhere.close()
