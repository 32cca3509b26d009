"""An issuer's keys, from a real HTTP server on this machine that rotates keys, stops, is slow, or sends wrong data."""

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms
from tornado.ioloop import IOLoop
from tornado.web import RequestHandler

from chatstream.auth import JWKS, Authenticator, Rules, jwks, mint
from chatstream.errors import ConfigurationError, Unauthenticated, Unavailable
from tests.conftest import NameProxies
from tests.support.issuer import Issuer, jwk
from tests.support.listening import listening
from tests.support.tokens import HOUR, claims, header, signed

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def token(private: Any, algorithm: str, kid: str | None, expires_in: float = HOUR) -> str:
    return mint(private, "u1", expires_in, Rules(algorithms=(algorithm,)), kid=kid)


class World:
    """An issuer, and the server's side that trusts it."""

    def __init__(self) -> None:
        self.issuer = Issuer(jwk(RSA, "RS256", kid="one"))
        self.now = 1000.0
        self.keys = JWKS(self.issuer.url, ALGORITHMS, clock=lambda: self.now)

    @property
    def authenticator(self) -> Authenticator:
        """An authenticator without a cache of tokens."""
        return Authenticator(self.keys, Rules(algorithms=ALGORITHMS))

    async def accepts(self, token: str) -> bool:
        """Whether the token is valid; raises `Unavailable` if that cannot be determined."""
        try:
            return (await self.authenticator.authenticate(token)).id == "u1"
        except Unauthenticated:
            return False

    async def settled(self) -> None:
        """Wait for the end of a background fetch."""
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
        # A token without a key's name is accepted if there is only one key.
        assert await world.accepts(token(private, algorithm, None)), algorithm
        await told_to_come_back(world, token(private, algorithm, "other"))
    assert world.issuer.asked == 1
    # A key is used only for its own algorithm, which must be accepted. A public key is not used as a secret.
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


async def told_to_come_back(world: World, token: str) -> float:
    """The seconds after which a client may retry."""
    with pytest.raises(Unavailable) as refused:
        await world.authenticator.authenticate(token)
    assert refused.value.code == "auth_unavailable"
    assert refused.value.retry_after is not None
    return refused.value.retry_after


@pytest.mark.gen_test
async def test_keys_that_nobody_knows_are_asked_for_only_so_often(world: World) -> None:
    assert await world.accepts(token(RSA, "RS256", "one"))
    refused = 0
    for second in range(100):
        with contextlib.suppress(Unavailable):
            assert not await world.accepts(token(RSA, "RS256", f"made up {second}"))
            refused += 1
        world.now += 1
    assert 9 <= world.issuer.asked <= 11
    assert refused == world.issuer.asked - 1  # each refused after a fetch that began after its arrival
    # A token that no key could verify causes no fetch.
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
    assert await world.accepts(old)  # this starts a fetch in the background
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
    with pytest.raises(Unavailable) as unknown:  # the key may be new
        await world.authenticator.authenticate(token(EC, "ES256", "two"))
    assert (unknown.value.code, unknown.value.retry_after) == ("auth_unavailable", 10)
    world.now += 2
    with pytest.raises(Unavailable):
        await world.authenticator.authenticate(good)
    world.issuer.publishes(jwk(RSA, "RS256", kid="one"))
    world.now += 10
    assert await world.accepts(good)


@pytest.mark.gen_test
async def test_whoever_comes_with_a_new_key_just_after_a_fetch_is_told_to_come_back(world: World) -> None:
    assert await world.accepts(token(RSA, "RS256", "one"))
    world.now += 3
    world.issuer.publishes(jwk(RSA, "RS256", kid="one"), jwk(EC, "ES256", kid="two"))
    new = token(EC, "ES256", "two")
    for _ in range(3):  # always the same, as no fetch has begun since
        assert await told_to_come_back(world, new) == 7
    world.now += 7
    assert await world.accepts(new)
    assert world.issuer.asked == 2


@pytest.mark.gen_test
async def test_nobody_can_have_the_users_of_a_new_key_refused(world: World) -> None:
    """Neither with invented names, nor with the name of the next key before it is published."""
    assert await world.accepts(token(RSA, "RS256", "one"))
    for _ in range(3):
        world.now += 10
        assert not await world.accepts(token(OTHER, "ES256", "two"))
    world.issuer.publishes(jwk(RSA, "RS256", kid="one"), jwk(EC, "ES256", kid="two"))
    new = token(EC, "ES256", "two")
    for _ in range(9):
        world.now += 1
        await told_to_come_back(world, new)
    world.now += 1
    with pytest.raises(Unauthenticated):  # refused by its signature: another request's fetch brought the key
        await world.authenticator.authenticate(token(OTHER, "ES256", "two", expires_in=HOUR + 1))
    assert await world.accepts(new)


@pytest.mark.gen_test
async def test_a_token_that_was_looked_for_in_vain_is_refused_until_the_next_fetch(world: World) -> None:
    assert await world.accepts(token(RSA, "RS256", "one"))
    old, other = token(EC, "ES256", "gone"), token(EC, "ES256", "gone", expires_in=HOUR + 1)
    await told_to_come_back(world, old)
    world.now += 10
    assert not await world.accepts(other)
    for _ in range(3):
        assert not await world.accepts(old)  # no new fetch is needed for this
    assert world.issuer.asked == 2
    world.issuer.publishes(jwk(EC, "ES256", kid="gone"))
    world.now += 10
    assert await world.accepts(old)


@pytest.mark.gen_test
async def test_one_that_comes_while_a_fetch_runs_may_have_come_too_late_for_it(world: World) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slowly(handler: RequestHandler) -> None:
        keys = [*world.issuer.keys]
        asked.set()
        await answer.wait()
        handler.finish({"keys": keys})

    world.issuer.respond = slowly
    first = asyncio.create_task(world.accepts(token(RSA, "RS256", "one")))
    await asked.wait()
    world.issuer.publishes(jwk(RSA, "RS256", kid="one"), jwk(EC, "ES256", kid="two"))
    new = asyncio.create_task(world.accepts(token(EC, "ES256", "two")))
    answer.set()
    assert await first
    with pytest.raises(Unavailable):
        await new
    world.now += 10
    assert await world.accepts(token(EC, "ES256", "two"))


@pytest.mark.gen_test
async def test_only_so_many_tokens_are_remembered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "_MOST_ASKED", 10)
    assert await world.accepts(token(RSA, "RS256", "one"))
    first = token(EC, "ES256", "0")
    await told_to_come_back(world, first)
    for number in range(1, 20):
        await told_to_come_back(world, token(EC, "ES256", str(number)))
    world.now += 10
    assert not await world.accepts(first)


@pytest.mark.gen_test
async def test_a_token_without_a_name_is_told_that_it_needs_one(world: World) -> None:
    world.issuer.publishes(jwk(EC, "ES256", kid="a"), jwk(OTHER, "ES256", kid="b"))
    with pytest.raises(Unauthenticated, match="`kid`") as refused:
        await world.authenticator.authenticate(token(EC, "ES256", None))
    assert refused.value.reason == "no_kid"


@pytest.mark.gen_test
async def test_one_bad_key_spoils_no_good_one(world: World) -> None:
    """The good keys are among unusable keys of every kind, some of which have the same names."""
    world.issuer.keys = [
        None,
        7,
        {},
        {"kty": "EC", "crv": "P-256", "kid": "ec", "x": "AA", "y": "!"},
        {"kty": "unheard-of", "kid": "ec"},
        jwk(RSA, "RS256", kid="ec"),  # one name may stand for keys of several kinds (RFC 7517, section 4.5)
        jwk(OTHER, "ES256", kid="ec", use="enc"),
        jwk(OTHER, "ES256", kid="ec", key_ops=7),
        jwk(OTHER, "ES256", kid="ec", alg=["ES256"]),
        jwk(OTHER, "ES256", kid=None),
        jwk(EC, "ES256", kid="ec"),
        jwk(OTHER, "ES256", kid="ec"),  # of two with the same id and algorithm, the first counts
    ]
    assert await world.accepts(token(EC, "ES256", "ec"))
    assert not await world.accepts(token(OTHER, "ES256", "ec"))
    assert await world.accepts(token(RSA, "RS256", "ec"))


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
async def test_garbage_is_no_key_and_no_reason_to_refuse_anybody_for_good(
    world: World, answer: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    world.issuer.says(**answer)
    with pytest.raises(Unavailable):
        await world.authenticator.authenticate(token(RSA, "RS256", "one"))
    assert world.issuer.asked == 1
    [said] = [record for record in caplog.records if record.name == "chatstream.auth"]
    assert re.fullmatch(
        r"the keys at CHATSTREAM_JWKS_URL cannot be had: "
        r"(HTTP [345]\d\d.*|it is (?:a web page, and )?no JWK Set|no key in it is for .+|more than 262144 bytes)",
        said.getMessage(),
    )
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
            await asyncio.sleep(0.01)  # slow, but never silent

    world.issuer.respond = drip
    with pytest.raises(Unavailable):
        await world.authenticator.authenticate(token(RSA, "RS256", "one"))
    hang_up.set()


@pytest.mark.gen_test
async def test_one_that_is_not_there(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.issuer.close()
    with pytest.raises(Unavailable):
        await world.authenticator.authenticate(token(RSA, "RS256", "one"))
    assert "the keys at CHATSTREAM_JWKS_URL cannot be had: nobody listens there" in caplog.text


@pytest.mark.gen_test
async def test_neither_its_name_nor_an_address_in_a_token_leads_anywhere(world: World) -> None:
    elsewhere = Issuer()
    elsewhere.publishes(jwk(EC, "ES256", kid=elsewhere.url))
    headers = {"kid": elsewhere.url, "jku": elsewhere.url, "x5u": elsewhere.url, "jwk": jwk(EC, "ES256")}
    assert not await world.accepts(jwt.encode(claims(), EC, algorithm="ES256", headers=headers))
    assert elsewhere.asked == 0
    await elsewhere.close()


# Through a proxy ------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def connect_proxy(port: int) -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy that connects every CONNECT to `port` of this machine. Yields its URL, and the received request lines."""
    asked: list[str] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            try:
                while data := await reader.read(65_536):
                    writer.write(data)
            finally:
                writer.close()
                await writer.wait_closed()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.partition(b"\r\n")[0].decode())
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pipe(reader, there_writer), pipe(there_reader, writer))

    async with listening(serve) as proxy:
        yield f"http://127.0.0.1:{proxy}", asked


@pytest.mark.gen_test
@pytest.mark.parametrize("no_proxy", ["", "other.invalid,10.0.0.0/8,issuer.invalid:8443"])
async def test_keys_that_only_a_proxy_reaches(
    monkeypatch: pytest.MonkeyPatch, proxies: NameProxies, tmp_path: Path, no_proxy: str
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("issuer.invalid").configure_cert(tls)
    issuer = Issuer(jwk(RSA, "RS256", kid="one"), tls=tls)
    async with connect_proxy(issuer.port) as (proxy, asked):
        proxies(HTTPS_PROXY=proxy, NO_PROXY=no_proxy)
        keys = JWKS("https://issuer.invalid/keys", ("RS256",))
        authenticator = Authenticator(keys, Rules(algorithms=("RS256",)))
        assert (await authenticator.authenticate(token(RSA, "RS256", "one"))).id == "u1"
        assert asked == ["CONNECT issuer.invalid:443 HTTP/1.1"]
        await keys.close()
    await issuer.close()


@pytest.mark.gen_test
async def test_keys_that_need_no_proxy(proxies: NameProxies) -> None:
    async with connect_proxy(1) as (proxy, asked):
        proxies(HTTPS_PROXY=proxy, NO_PROXY="invalid:443")
        keys = JWKS("https://issuer.invalid/keys", ("RS256",))
        with pytest.raises(Unavailable):  # this host name does not exist
            await keys.find(token(RSA, "RS256", "one"))
        assert asked == []
        await keys.close()


@pytest.mark.parametrize("proxy", ["socks5://user:SECRET@127.0.0.1:9", "gopher://SECRET", "http://SECRET:port"])
def test_a_proxy_that_cannot_be_used(proxies: NameProxies, proxy: str) -> None:
    proxies(HTTPS_PROXY=proxy)
    with pytest.raises(ConfigurationError, match=r"(?i)proxy") as raised:
        JWKS("https://issuer.invalid/keys", ("RS256",))
    assert "SECRET" not in str(raised.value)
