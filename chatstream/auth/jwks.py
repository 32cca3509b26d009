"""The issuer's public keys, from its JWK Set (RFC 7517): fetched when needed, one fetch at a time, and remembered."""

import asyncio
import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jwt
from jwt.algorithms import AllowedPublicKeys, get_default_algorithms
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from chatstream.auth.refusals import refused
from chatstream.errors import ErrorCode, Unavailable

log = logging.getLogger("chatstream.auth")

# Keys older than this are fetched anew, while they still serve: what an issuer takes back, counts here so much longer.
_FRESH_SECONDS = 300
# Keys older than this are not trusted any more: so long may an issuer be away until nobody is let in.
_USABLE_SECONDS = 3600
# Between two fetches, whatever arrives: anybody can make up tokens with the name of a key that does not exist.
_PAUSE_SECONDS = 10
# A healthy issuer answers in milliseconds; and a request that waits for it is still answered within 5 s.
_FETCH_SECONDS = 3
# A set has a few keys of 400 bytes each, or of a few KB with their certificates.
_MAX_BYTES = 256 * 1024

Name = tuple[str | None, str]
"""A key's id, if it has one, and an algorithm that it may be used with."""


class JWKS:
    """The keys behind one URL: the configuration names it, and never a token.

    Not PyJWKClient: it blocks, and it neither bounds how much it reads nor how long that takes altogether.
    """

    def __init__(self, url: str, algorithms: tuple[str, ...], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts seconds, and never backwards."""
        self._url = url
        self._algorithms = algorithms
        self._clock = clock
        self._client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=_MAX_BYTES)
        self._keys: Mapping[Name, AllowedPublicKeys] = {}
        self._fetched_at = -math.inf
        self._tried_at = -math.inf
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, token: str) -> AllowedPublicKeys:
        """See `Keys`. A key that is not known may be a new one: then the set is fetched again, but not too often."""
        name = self._name(token)
        if self._age() > _FRESH_SECONDS:
            self.refresh()  # nobody waits for it as long as there is a key
        key = self._known(name)
        if key is None:
            if fetching := self.refresh():
                await asyncio.wait((fetching,))
            key = self._known(name)
        if key is not None:
            return key
        if self._fetched_at == self._tried_at:
            raise refused("unknown_key")
        raise Unavailable(
            "Tokens cannot be verified at the moment.", code=ErrorCode.AUTH_UNAVAILABLE, retry_after=_PAUSE_SECONDS
        )

    def refresh(self) -> asyncio.Task[None] | None:
        """Fetch the keys; the fetch that runs, or None if the last one is too recent."""
        if self._fetching is None and self._clock() - self._tried_at >= _PAUSE_SECONDS:
            self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def close(self) -> None:
        """Give up what runs, and close the connections."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait((self._fetching,))
        self._client.close()

    def _name(self, token: str) -> Name:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise refused("malformed") from None
        algorithm = header.get("alg")
        if algorithm not in self._algorithms:
            raise refused("algorithm")
        return header.get("kid"), algorithm

    def _age(self) -> float:
        return self._clock() - self._fetched_at

    def _known(self, name: Name) -> AllowedPublicKeys | None:
        return self._keys.get(name) if self._age() <= _USABLE_SECONDS else None

    async def _fetch(self) -> None:
        self._tried_at = self._clock()
        request = HTTPRequest(
            self._url,
            connect_timeout=_FETCH_SECONDS,
            request_timeout=_FETCH_SECONDS,
            follow_redirects=False,  # the keys are where the configuration says, or nowhere
            decompress_response=False,  # a bomb
        )
        try:
            response = await self._client.fetch(request)
            self._keys = await asyncio.to_thread(_keys, response.body, self._algorithms)
            self._fetched_at = self._tried_at
        except Exception as exc:  # noqa: BLE001 - whatever comes back is not in our hands
            reason = f"HTTP {exc.code}" if isinstance(exc, HTTPClientError) else type(exc).__name__
            log.warning("the keys at CHATSTREAM_JWKS_URL cannot be had: %s", reason)
        finally:
            self._fetching = None


def _keys(body: bytes, algorithms: tuple[str, ...]) -> dict[Name, AllowedPublicKeys]:
    """Each key under its id, for each algorithm that it fits; without an id, if there is no choice.

    Raises `ValueError` or the like for what is no JWK Set, or has no key that fits.
    """
    found: dict[Name, AllowedPublicKeys] = {}
    choice: dict[str, list[AllowedPublicKeys]] = defaultdict(list)
    for jwk in json.loads(body)["keys"]:
        for algorithm, key in _fitting(jwk, algorithms):
            if "kid" in jwk:
                found.setdefault((jwk["kid"], algorithm), key)
            choice[algorithm].append(key)
    found |= {(None, algorithm): keys[0] for algorithm, keys in choice.items() if len(keys) == 1}
    if not found:
        raise ValueError("no key fits")
    return found


def _may_verify(jwk: Any, algorithm: str) -> bool:
    """What the key says about itself (RFC 7517, section 4); one with `d` is a private key, which was given away."""
    if not isinstance(jwk.get("kid", ""), str):
        return False
    for_signatures = jwk.get("use", "sig") == "sig" and "verify" in jwk.get("key_ops", ["verify"])
    return for_signatures and jwk.get("alg", algorithm) == algorithm and "d" not in jwk


def _fitting(jwk: Any, algorithms: tuple[str, ...]) -> Iterator[tuple[str, AllowedPublicKeys]]:
    for algorithm in algorithms:
        method = get_default_algorithms()[algorithm]
        try:
            if not _may_verify(jwk, algorithm):
                continue
            key = method.prepare_key(method.from_jwk(jwk))  # the latter checks the type, the former the curve
            if method.check_key_length(key) is None:
                yield algorithm, key
        except Exception:  # noqa: BLE001, S112 - a key that we cannot read, or of a kind we do not know, is none
            continue
