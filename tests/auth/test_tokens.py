"""Valid and invalid tokens: a table, and further requirements."""

import asyncio
import contextlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import bson
import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from chatstream.auth import Authenticator, OneKey, Rules, mint
from chatstream.errors import ConfigurationError, Unauthenticated
from tests.support.processes import SECRET
from tests.support.tokens import BAD, DAY, GOOD, HOUR, NOW, claims, header, signed

LONG_SECRET = SECRET.ljust(64, "x")
NAME = "CHATSTREAM_JWT_PUBLIC_KEY_FILE"

PRIVATE: dict[str, Any] = {
    **dict.fromkeys(
        ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        rsa.generate_private_key(public_exponent=65_537, key_size=2048),
    ),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}

SHORT = rsa.generate_private_key(public_exponent=65_537, key_size=1024)  # noqa: S505 - to be refused


def with_secret(rules: Rules | None = None) -> Authenticator:
    return Authenticator(OneKey(SECRET.encode()), rules or Rules())


def pem(private: Any) -> bytes:
    key: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return key


def with_public_key(directory: Path, private: Any, *algorithms: str) -> Authenticator:
    (directory / "public.pem").write_bytes(pem(private))
    return Authenticator(OneKey.public(directory / "public.pem", algorithms, name=NAME), Rules(algorithms=algorithms))


async def refusal(authenticator: Authenticator, token: str) -> str:
    with pytest.raises(Unauthenticated) as refused:
        await authenticator.authenticate(token)
    return refused.value.reason


@pytest.mark.gen_test
@pytest.mark.parametrize("token", GOOD.values(), ids=GOOD)
async def test_a_good_token_names_its_user_and_its_end(token: str) -> None:
    user = await with_secret().authenticate(token)
    assert user.id == "u1"
    assert NOW < user.token_expires_at <= NOW + 365 * DAY


@pytest.mark.gen_test
@pytest.mark.parametrize("token", BAD.values(), ids=BAD)
async def test_a_bad_token_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await with_secret().authenticate(token)
    assert refused.value.token_given
    assert refused.value.reason
    assert SECRET not in refused.value.detail
    assert not token or token not in refused.value.detail
    # RFC 6750, section 3: the characters allowed in error_description.
    assert re.fullmatch(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+", refused.value.detail)


@pytest.mark.gen_test
async def test_a_token_that_has_expired_is_told_apart() -> None:
    with pytest.raises(Unauthenticated, match="has expired"):
        await with_secret().authenticate(BAD["exp past"])


@pytest.mark.gen_test
async def test_subjects_may_be_anything_else() -> None:
    for subject in ("u", "auth0|123", "ä@example.org", "⚽", "u" * 255, "../..", "$where"):
        assert (await with_secret().authenticate(signed(claims(sub=subject)))).id == subject


@pytest.mark.gen_test
async def test_each_token_is_counted_by_what_it_was() -> None:
    counted: Counter[str] = Counter()
    authenticator = Authenticator(OneKey(SECRET.encode()), Rules(), count=lambda outcome: counted.update([outcome]))
    await authenticator.authenticate(GOOD["plain"])
    for name in ("exp past", "other secret", "alg none, signed", "a megabyte", "sub empty", "exp missing", "garbage"):
        await refusal(authenticator, BAD[name])
    assert counted == Counter(
        ("accepted", "expired", "signature", "algorithm", "too_long", "subject", "claims", "malformed")
    )


TEXT = st.text(st.characters(codec=None), max_size=300)  # lone surrogates, too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
CLAIMS = st.fixed_dictionaries({}, optional=dict.fromkeys(("sub", "exp", "iat", "nbf", "jti", "aud", "iss"), JSON))
PARTS = st.fixed_dictionaries({}, optional=dict.fromkeys(("kid", "typ", "crit", "b64", "jku", "cty"), JSON))


@settings(max_examples=200)
@given(changes=CLAIMS, parts=PARTS)
def test_whatever_it_says_it_is_good_or_refused(changes: dict[str, Any], parts: dict[str, Any]) -> None:
    with contextlib.suppress(Unauthenticated):
        user = asyncio.run(with_secret().authenticate(signed(claims(**changes), header=header(**parts))))
        assert user.id == changes.get("sub", "u1")
        assert NOW < user.token_expires_at <= NOW + 367 * DAY
        bson.encode(msgspec.structs.asdict(user))  # the user can be stored in MongoDB


@settings(max_examples=200)
@given(TEXT | st.from_regex(r"[\w.-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}"))
def test_whatever_is_sent_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated):
        asyncio.run(with_secret().authenticate(token))


# What may be asked of them --------------------------------------------------------------------------------------------

ASKED = Rules(issuer="https://issuer.example", audience="chat", type="at+jwt")
TYPED = header(typ="at+jwt")
SAID = {"iss": "https://issuer.example", "aud": "chat"}


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "token",
    [
        mint(SECRET, "u1", HOUR, ASKED),
        signed(claims(**SAID), header=TYPED),
        signed(claims(**SAID | {"aud": ["other", "chat"]}), header=TYPED),
        signed(claims(**SAID), header=header(typ="application/AT+JWT")),
    ],
    ids=["minted", "plain", "one of several audiences", "type with its whole name"],
)
async def test_a_token_that_says_what_is_asked_for(token: str) -> None:
    assert (await with_secret(ASKED).authenticate(token)).id == "u1"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("reason", "said", "typed"),
    [
        ("claims", {"aud": "chat"}, TYPED),
        ("issuer", SAID | {"iss": "https://issuer.example/"}, TYPED),
        ("issuer", SAID | {"iss": "HTTPS://issuer.example"}, TYPED),
        ("issuer", SAID | {"iss": ["https://issuer.example"]}, TYPED),
        ("issuer", SAID | {"iss": None}, TYPED),
        ("claims", {"iss": SAID["iss"]}, TYPED),
        ("audience", SAID | {"aud": "chat2"}, TYPED),
        ("audience", SAID | {"aud": "Chat"}, TYPED),
        ("audience", SAID | {"aud": ["other"]}, TYPED),
        ("audience", SAID | {"aud": ["chat", 1]}, TYPED),
        ("audience", SAID | {"aud": {"chat": 1}}, TYPED),
        ("audience", SAID | {"aud": 1}, TYPED),
        ("claims", SAID | {"aud": []}, TYPED),
        ("claims", SAID | {"aud": None}, TYPED),
        ("type", SAID, header()),
        ("type", SAID, {"alg": "HS256"}),
        ("type", SAID, header(typ=None)),
        ("type", SAID, header(typ=["at+jwt"])),
        ("type", SAID, header(typ="text/at+jwt")),
    ],
)
async def test_a_token_that_does_not_say_it(reason: str, said: dict[str, Any], typed: dict[str, Any]) -> None:
    assert await refusal(with_secret(ASKED), signed(claims(**said), header=typed)) == reason


# Algorithms -----------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_secrets(algorithm: str) -> None:
    rules = Rules(algorithms=(algorithm,))
    authenticator = Authenticator(OneKey.secret(LONG_SECRET, rules.algorithms), rules)
    assert (await authenticator.authenticate(mint(LONG_SECRET, "u1", HOUR, rules))).id == "u1"
    for other in {"HS256", "HS384", "HS512"} - {algorithm}:
        token = mint(LONG_SECRET, "u1", HOUR, Rules(algorithms=(other,)))
        assert await refusal(authenticator, token) == "algorithm"


@pytest.mark.gen_test
@pytest.mark.parametrize("algorithm", PRIVATE)
async def test_public_keys(tmp_path: Path, algorithm: str) -> None:
    private = PRIVATE[algorithm]
    authenticator = with_public_key(tmp_path, private, algorithm)
    assert (await authenticator.authenticate(mint(private, "u1", HOUR, Rules(algorithms=(algorithm,))))).id == "u1"
    for other, key in PRIVATE.items():
        if other != algorithm:  # also another algorithm with the same key
            token = mint(key, "u1", HOUR, Rules(algorithms=(other,)))
            assert await refusal(authenticator, token) == "algorithm"


@pytest.mark.gen_test
@pytest.mark.parametrize("algorithm", PRIVATE)
async def test_a_public_key_is_no_secret(tmp_path: Path, algorithm: str) -> None:
    """CVE-2015-9235 and similar ones: an attacker signs with the public key as if it were a secret."""
    authenticator = with_public_key(tmp_path, PRIVATE[algorithm], algorithm)
    public = pem(PRIVATE[algorithm])
    for secret in (public, public.strip(), public.replace(b"\n", b"\r\n")):
        for alg in ("HS256", algorithm):
            token = signed(claims(), header=header(alg=alg), secret=secret)
            assert await refusal(authenticator, token) == ("algorithm" if alg == "HS256" else "signature")
    assert await refusal(authenticator, jwt.encode(claims(), "", algorithm="none")) == "malformed"


@pytest.mark.gen_test
async def test_another_private_key_and_signatures_of_zeros(tmp_path: Path) -> None:
    authenticator = with_public_key(tmp_path, PRIVATE["ES256"], "ES256")
    other = ec.generate_private_key(ec.SECP256R1())
    token = mint(other, "u1", HOUR, Rules(algorithms=("ES256",)))
    assert await refusal(authenticator, token) == "signature"
    # CVE-2022-21449: some libraries accepted r = s = 0.
    assert await refusal(authenticator, f"{token.rpartition('.')[0]}.{'A' * 86}") == "signature"


@pytest.mark.gen_test
async def test_several_algorithms_of_one_key(tmp_path: Path) -> None:
    authenticator = with_public_key(tmp_path, PRIVATE["RS256"], "RS256", "PS512")
    for algorithm in ("RS256", "PS512"):
        token = mint(PRIVATE["RS256"], "u1", HOUR, Rules(algorithms=(algorithm,)))
        assert (await authenticator.authenticate(token)).id == "u1"


@pytest.mark.parametrize("secret", [pem(PRIVATE["RS256"]).decode(), f'{{"kty": "oct", "k": "{"A" * 64}"}}'])
def test_a_key_of_another_kind_is_not_taken_for_a_secret(secret: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^JWT_SECRET does not hold a key for HS256\.$"):
        OneKey.secret(secret, ("HS256",))


@pytest.mark.parametrize(
    ("key", "algorithms", "problem"),
    [
        (None, ("RS256",), "cannot be read: No such file or directory."),
        (b"", ("RS256",), "does not hold a key for RS256."),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", ("ES256",), "hold a key for ES256."),
        (pem(PRIVATE["RS256"]), ("ES256",), "does not hold a key for ES256."),
        (pem(PRIVATE["RS256"]), ("RS256", "EdDSA"), "does not hold a key for EdDSA."),
        (pem(PRIVATE["ES256"]), ("ES384",), "does not hold a key for ES384."),
        (pem(ec.generate_private_key(ec.SECP256K1())), ("ES256",), "does not hold a key for ES256."),
        (pem(SHORT), ("PS256",), "holds a key that is too short for PS256."),
        (
            PRIVATE["EdDSA"].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            ("EdDSA",),
            "holds a private key; it does not belong on this server.",
        ),
    ],
)
def test_a_public_key_that_does_not_fit(
    tmp_path: Path, key: bytes | None, algorithms: tuple[str, ...], problem: str
) -> None:
    if key is not None:
        (tmp_path / "public.pem").write_bytes(key)
    with pytest.raises(ConfigurationError) as refused:
        OneKey.public(tmp_path / "public.pem", algorithms, name=NAME)
    assert str(refused.value).startswith(NAME)
    assert str(refused.value).endswith(problem)
    assert "AAAA" not in str(refused.value)


@pytest.mark.gen_test
async def test_ed448_is_eddsa_too(tmp_path: Path) -> None:
    private = ed448.Ed448PrivateKey.generate()
    token = mint(private, "u1", HOUR, Rules(algorithms=("EdDSA",)))
    assert (await with_public_key(tmp_path, private, "EdDSA").authenticate(token)).id == "u1"


# The user's claim -----------------------------------------------------------------------------------------------------

ELSEWHERE = Rules(user_claim="https://app.example/user_id")


def without_subject(**more: Any) -> dict[str, Any]:
    return {name: value for name, value in claims().items() if name != "sub"} | more


@pytest.mark.gen_test
async def test_the_user_may_stand_in_another_claim() -> None:
    authenticator = with_secret(ELSEWHERE)
    token = signed(without_subject(**{ELSEWHERE.user_claim: "u5"}))
    assert (await authenticator.authenticate(token)).id == "u5"
    # Then the standard's claim `sub` is ignored, whatever its value or type.
    for subject in ("u1", 7, None, ["u1"]):
        token = signed(claims(**{"sub": subject, ELSEWHERE.user_claim: "u5"}))
        assert (await authenticator.authenticate(token)).id == "u5"
    assert (await authenticator.authenticate(mint(SECRET, "u6", HOUR, ELSEWHERE))).id == "u6"


@pytest.mark.gen_test
@pytest.mark.parametrize("value", ["", " " * 256, 5, 5.5, True, ["u5"], {"id": "u5"}, "a\0b", "\ud800"])
@pytest.mark.parametrize("rules", [Rules(), ELSEWHERE, Rules(user_claim="user_id")])
async def test_a_user_who_is_none_is_refused_by_the_claims_name(rules: Rules, value: object) -> None:
    token = signed(without_subject(**{rules.user_claim: value}))
    with pytest.raises(Unauthenticated, match=re.escape(f"`{rules.user_claim}` does not name a user")) as refused:
        await with_secret(rules).authenticate(token)
    assert refused.value.reason == "subject"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("rules", "said", "lacks"),
    [
        (Rules(), {"user_id": "u5"}, "sub"),
        (Rules(), {"sub": None}, "sub"),
        (Rules(user_claim="user_id"), {"sub": "u1"}, "user_id"),
        (Rules(user_claim="user_id"), {"user_id": None}, "user_id"),
        (Rules(user_claim="user.id"), {"user": {"id": "u5"}}, "user.id"),
        (ELSEWHERE, {"user_id": "u5"}, ELSEWHERE.user_claim),
        (Rules(), {"sub": "u1", "exp": None}, "exp"),
        (Rules(issuer="us"), {"sub": "u1"}, "iss"),
        (Rules(audience="chat"), {"sub": "u1"}, "aud"),
    ],
)
async def test_a_refusal_names_the_claim_that_is_missing(rules: Rules, said: dict[str, Any], lacks: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await with_secret(rules).authenticate(signed(without_subject(**said)))
    assert refused.value.detail == f"The token has no `{lacks}` claim."
    assert refused.value.reason == "claims"


@pytest.mark.gen_test
@pytest.mark.parametrize(("claim", "value"), [("nbf", True), ("iat", True), ("jti", "a\0b")])
async def test_a_refusal_names_the_claim_that_is_not_valid(claim: str, value: object) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await with_secret().authenticate(signed(claims(**{claim: value})))
    assert refused.value.detail == f"The token's `{claim}` is not valid."
