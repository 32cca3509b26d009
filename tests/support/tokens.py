"""Tokens of every kind, also invalid ones that a library refuses to make, but that somebody may send."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt

from chatstream.auth import mint
from tests.support.processes import SECRET

OTHER_SECRET = "another-secret-of-thirty-two-bytes-or-more"
NOW = int(time.time())
HOUR = 3600
DAY = 86_400


def signed(claims: object, *, header: object = None, secret: str | bytes = SECRET) -> str:
    """A token with any claims and any header, signed with HS256; bytes are sent as they are."""
    parts = [
        part if isinstance(part, bytes) else json.dumps(part).encode()
        for part in ({"alg": "HS256", "typ": "JWT"} if header is None else header, claims)
    ]
    signing_input = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    key = secret.encode() if isinstance(secret, str) else secret
    signature = hmac.new(key, signing_input, hashlib.sha256).digest()
    return (signing_input + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def claims(**changes: Any) -> dict[str, Any]:
    """Valid claims with these changes."""
    return {"sub": "u1", "exp": NOW + HOUR, **changes}


def without(name: str) -> dict[str, Any]:
    """Valid claims without this one."""
    return {key: value for key, value in claims().items() if key != name}


def header(**changes: Any) -> dict[str, Any]:
    """A valid header with these changes."""
    return {"alg": "HS256", "typ": "JWT", **changes}


GOOD = {
    "plain": signed(claims()),
    "minted": mint(SECRET, "u1", HOUR),
    "fraction of a second": signed(claims(exp=NOW + HOUR + 0.5)),
    "further claims": signed(claims(iat=NOW, nbf=NOW, jti="1", scope="chat")),
    "no typ": signed(claims(), header={"alg": "HS256"}),
    "any typ, where none is asked for": signed(claims(), header=header(typ="x")),
    "an issuer, where none is asked for": signed(claims(iss="https://issuer.example")),
    "iat a little ahead": signed(claims(iat=NOW + 20)),
    "nbf a little ahead": signed(claims(nbf=NOW + 20)),
    # Key names, key URLs and whole keys in the header are ignored.
    "kid a path": signed(claims(), header=header(kid="../../../../dev/null")),
    "kid an address": signed(claims(), header=header(kid="http://127.0.0.1:1/")),
    "kid a query": signed(claims(), header=header(kid="' or 1=1; --")),
    "jku": signed(claims(), header=header(jku="http://127.0.0.1:1/jwks.json")),
    "x5u": signed(claims(), header=header(x5u="file:///etc/passwd", x5c=["AAAA"], x5t="A")),
    "jwk": signed(claims(), header=header(jwk={"kty": "oct", "k": "AAAA"})),
    "sub twice: the last one counts (RFC 7519, section 4)": signed(
        b'{"sub": "u2", "exp": %d, "sub": "u1"}' % (NOW + HOUR)
    ),
    "a year": signed(claims(exp=NOW + 365 * DAY)),
}

BAD = {
    "empty": "",
    "garbage": "garbage",
    "three parts of garbage": "a.b.c",
    "not base64": "ä.ö.ü",
    "NUL": "\0",
    "lone surrogate": "\ud800.\ud800.\ud800",
    "one part too many": signed(claims()) + ".e30",
    "no signature": signed(claims()).rpartition(".")[0] + ".",
    "other signature": signed(claims())[:-4] + "AAAA",
    "other secret": signed(claims(), secret=OTHER_SECRET),
    "alg none": jwt.encode(claims(), "", algorithm="none"),
    "alg None": signed(claims(), header={"alg": "None"}),
    "alg HS384": jwt.encode(claims(), SECRET.ljust(48), algorithm="HS384"),
    "alg HS512": jwt.encode(claims(), SECRET.ljust(64), algorithm="HS512"),
    "alg RS256, signed with HMAC": signed(claims(), header={"alg": "RS256"}),
    "no alg": signed(claims(), header={"typ": "JWT"}),
    "alg a list": signed(claims(), header={"alg": ["HS256"]}),
    "header a list": signed(claims(), header=["HS256"]),
    "header nested deeply": signed(claims(), header=b"[" * 5000),
    "header with a long number": signed(claims(), header=b'{"alg": "HS256", "x": %s}' % (b"9" * 5000)),
    "padded": signed(claims()) + "=",
    "a space before it": " " + signed(claims()),
    "a line after it": signed(claims()) + "\n",
    "alg in lower case": signed(claims(), header=header(alg="hs256")),
    "alg null": signed(claims(), header=header(alg=None)),
    "alg twice": signed(claims(), header=b'{"alg": "HS256", "alg": "none"}'),
    "alg none, signed": signed(claims(), header=header(alg="none")),
    "alg of encryption": signed(claims(), header=header(alg="dir", enc="A128GCM")),
    "signed with the key in its header": signed(
        claims(), header=header(jwk={"kty": "oct", "k": "AAAA"}), secret=b"\0\0\0"
    ),
    "signed with the file that kid names": signed(claims(), header=header(kid="../../../../dev/null"), secret=b""),
    "kid a number": signed(claims(), header=header(kid=1)),
    "kid null": signed(claims(), header=header(kid=None)),
    "critical header": signed(claims(), header=header(crit=["x"], x=1)),
    "critical header, empty": signed(claims(), header=header(crit=[])),
    "payload not encoded": signed(claims(), header=header(b64=False, crit=["b64"])),
    "payload not encoded, and not critical": signed(claims(), header=header(b64=False)),
    "b64": signed(claims(), header=header(b64=True, crit=["b64"])),
    "a token in a token": signed(signed(claims()).encode(), header=header(cty="JWT")),
    "a token as text in a token": signed(signed(claims()), header=header(cty="JWT")),
    "a token with claims beside it": signed(claims()).replace(".", "." + signed(claims()).split(".")[1] + ".", 1),
    "claims a list": signed(["sub", "exp"]),
    "claims no JSON": signed(b"{"),
    "claims nested deeply": signed(b"[" * 5000),
    "claims not UTF-8": signed(b'{"sub": "\xff"}'),
    "sub missing": signed(without("sub")),
    "sub empty": signed(claims(sub="")),
    "sub null": signed(claims(sub=None)),
    "sub a number": signed(claims(sub=1)),
    "sub an object": signed(claims(sub={"$gt": ""})),
    "sub a lone surrogate": signed(claims(sub="u\ud800")),
    "sub with NUL": signed(claims(sub="u\0")),
    "sub too long": signed(claims(sub="u" * 256)),
    "exp missing": signed(without("exp")),
    "exp null": signed(claims(exp=None)),
    "exp past": signed(claims(exp=NOW - 1)),
    "exp zero": signed(claims(exp=0)),
    "exp negative": signed(claims(exp=-1)),
    "exp 1e300": signed(claims(exp=1e300)),
    "exp in two years": signed(claims(exp=NOW + 2 * 365 * DAY)),
    "exp text": signed(claims(exp="tomorrow")),
    "exp a number as text": signed(claims(exp=str(NOW + HOUR))),
    "exp true": signed(claims(exp=True)),
    "exp NaN": signed(claims(exp=float("nan"))),
    "exp Infinity": signed(claims(exp=float("inf"))),
    "exp a list": signed(claims(exp=[NOW + HOUR])),
    "exp false": signed(claims(exp=False)),
    "exp an object": signed(claims(exp={"$gt": 0})),
    "exp of 5,000 digits": signed(b'{"sub": "u1", "exp": %s}' % (b"9" * 5000)),
    "exp twice, the last one past": signed(b'{"sub": "u1", "exp": %d, "exp": 1}' % (NOW + HOUR)),
    "nbf in the future": signed(claims(nbf=NOW + HOUR)),
    "nbf text": signed(claims(nbf="now")),
    "nbf a number as text": signed(claims(nbf=str(NOW))),
    "nbf true": signed(claims(nbf=True)),
    "nbf NaN": signed(claims(nbf=float("nan"))),
    "nbf null": signed(claims(nbf=None)),
    "iat in the future": signed(claims(iat=NOW + HOUR)),
    "iat 1e300": signed(claims(iat=1e300)),
    "iat a number as text": signed(claims(iat=str(NOW))),
    "iat true": signed(claims(iat=True)),
    "iat null": signed(claims(iat=None)),
    "iat negative, of 400 digits": signed(b'{"sub": "u1", "exp": %d, "iat": -%s}' % (NOW + HOUR, b"9" * 400)),
    "nbf negative": signed(claims(nbf=-1)),
    "jti a number": signed(claims(jti=1)),
    "jti a lone surrogate": signed(claims(jti="\ud800")),
    # RFC 7519, section 4.1.3: the token is for another audience, and no audience is configured.
    "aud": signed(claims(aud="elsewhere")),
    "aud a list": signed(claims(aud=["elsewhere"])),
    "aud an empty list": signed(claims(aud=[])),
    "aud empty": signed(claims(aud="")),
    "aud null": signed(claims(aud=None)),
    "aud an object": signed(claims(aud={})),
    "a megabyte": signed(claims(padding="x" * 1_000_000)),
    "a megabyte of dots": "." * 1_000_000,
}
