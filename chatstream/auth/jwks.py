"""Fetches and caches the issuer's public keys: a JWK Set (RFC 7517)."""

import asyncio
import hashlib
import json
import logging
import math
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jwt
from jwt.algorithms import AllowedPublicKeys, get_default_algorithms

from chatstream import proxies, unreached
from chatstream.auth.refusals import refused
from chatstream.errors import ErrorCode, Unavailable

log = logging.getLogger("chatstream.auth")

# Age after which the keys are fetched again; they stay in use until that succeeds. A key that its issuer withdraws is
# accepted for this long.
_FRESH_SECONDS = 300
# Age after which keys are no longer used: if the issuer is unreachable for longer, nobody can sign in.
_USABLE_SECONDS = 3600
# Shortest time between two fetches: anybody can send tokens that name keys which do not exist.
_PAUSE_SECONDS = 10
# Time limit of a fetch. A healthy issuer answers in milliseconds, and a request that waits must be answered within 5 s.
_FETCH_SECONDS = 3
# Size limit of a JWK Set, in bytes. Usual ones have a few keys of 400 bytes, or of a few KB with certificates.
_MAX_BYTES = 256 * 1024
# Maximum number of tokens with an unknown key that are remembered (150 bytes each, 600 KB). After that, the oldest
# one's key is looked up once more.
_MOST_ASKED = 4096

Name = tuple[str | None, str]
"""A key's id, if it has one, and an algorithm that it may be used with."""


class _KeySet(NamedTuple):
    """The usable keys of a JWK Set."""

    keys: Mapping[Name, AllowedPublicKeys] = MappingProxyType({})
    kids: frozenset[str] = frozenset()
    several: frozenset[str] = frozenset()  # algorithms with more than one key


class JWKS:
    """The keys at the configured URL. A URL in a token is never used.

    PyJWKClient is not used: it blocks, and bounds neither the size of a response nor its total time.
    """

    def __init__(self, url: str, algorithms: tuple[str, ...], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: a monotonic clock, in seconds.

        Raises `ConfigurationError` if the environment names an unusable proxy for the URL.
        """
        self._url = url
        self._algorithms = algorithms
        self._clock = clock
        self._client = proxies.client(
            url, "CHATSTREAM_JWKS_URL", timeout=_FETCH_SECONDS, headers={"Accept-Encoding": "identity"}
        )
        self._set = _KeySet()
        self._fetched_at = -math.inf
        self._tried_at = -math.inf
        self.fault = ""  # the error of the last failed fetch, in words
        self._fetches = 0  # fetches started; numbered from 1
        self._fetched = 0  # the number of the last successful fetch
        self._asked: OrderedDict[bytes, int] = OrderedDict()  # by token: the fetches started when it first came
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, token: str) -> AllowedPublicKeys:
        """See `Keys.find`. An unknown key may be new, so the set is fetched again, but not too often.

        A token is refused for good only after a fetch that began after its arrival did not bring its key. Until then
        the client is asked to retry: requests with invented key names must not get the user of a new key refused.
        """
        name, begun = self._name(token), self._fetches
        if self._age() > _FRESH_SECONDS:
            self.refresh()  # in the background, as there is a key
        key = self._known(name)
        if key is not None:
            return key
        begun = self._remember(token, begun)
        if fetching := self.refresh():
            await asyncio.wait((fetching,))
        key = self._known(name)
        if key is not None:
            return key
        if self._unnamed(name):
            raise refused("no_kid")
        if begun < self._fetched == self._fetches or self._for_another_algorithm(name):
            raise refused("unknown_key")
        raise Unavailable(
            "Tokens cannot be verified at the moment.",
            code=ErrorCode.AUTH_UNAVAILABLE,
            retry_after=self._tried_at + _PAUSE_SECONDS - self._clock(),
        )

    def refresh(self) -> asyncio.Task[None] | None:
        """Start fetching the keys. Returns the running fetch, or None if the last one is too recent."""
        if self._fetching is None and self._clock() - self._tried_at >= _PAUSE_SECONDS:
            self._tried_at = self._clock()
            self._fetches += 1
            self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def close(self) -> None:
        """Cancel a running fetch, and close the connections."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait((self._fetching,))
        await self._client.aclose()

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
        return self._set.keys.get(name) if self._usable() else None

    def _usable(self) -> bool:
        return self._age() <= _USABLE_SECONDS

    def _unnamed(self, name: Name) -> bool:
        """Whether a token without a key's name could be signed with several keys."""
        return self._usable() and name[0] is None and name[1] in self._set.several

    def _for_another_algorithm(self, name: Name) -> bool:
        """Whether the named key is known, for another algorithm: then a fetch is useless."""
        return self._usable() and name[0] in self._set.kids

    def _remember(self, token: str, begun: int) -> int:
        """The number of fetches that had been started when this token came for the first time.

        Counted per token, not per key name: somebody could guess a name and ask for it before its key is published.
        """
        begun = self._asked.setdefault(hashlib.sha256(token.encode()).digest(), begun)
        if len(self._asked) > _MOST_ASKED:
            self._asked.popitem(last=False)
        return begun

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                body = await self._read()
                self._set = await asyncio.to_thread(_keys, body, self._algorithms)
            self._fetched_at = self._tried_at
            self._fetched = self._fetches
        except Exception as exc:  # noqa: BLE001 - whatever comes back is not in our hands
            self.fault = str(exc) if isinstance(exc, _NoKeys) else unreached.why(exc) or _no_answer(exc)
            log.warning("the keys at CHATSTREAM_JWKS_URL cannot be had: %s", self.fault)
        finally:
            self._fetching = None

    async def _read(self) -> bytes:
        """Fetch the body of the JWK Set. Raises `_NoKeys`, or httpx2's errors."""
        # Redirects are not followed: only the configured URL is trusted. The body is not decompressed: a few KB could
        # become a gigabyte.
        async with self._client.stream("GET", self._url) as response:
            if response.is_redirect:
                raise _NoKeys(f"HTTP {response.status_code}: it redirects, which is not followed; name its target")
            if response.status_code != 200:
                raise _NoKeys(f"HTTP {response.status_code}{_MENDS.get(response.status_code, '')}")
            body = bytearray()
            async for data in response.aiter_raw():
                body += data
                if len(body) > _MAX_BYTES:
                    raise _NoKeys(f"more than {_MAX_BYTES} bytes")
            return bytes(body)


# Advice for statuses and errors with a well-known mend.
_MENDS = {
    401: ": whoever asks must log in; keys are public",
    403: ": it is not for us; keys are public",
    404: ": is the path right? Many issuers have /.well-known/jwks.json",
}


def _no_answer(exc: Exception) -> str:
    late = isinstance(exc, TimeoutError) or "Timeout" in type(exc).__name__
    return f"no answer within {_FETCH_SECONDS} s" if late else f"{type(exc).__name__}"


class _NoKeys(Exception):
    """The response is no usable JWK Set. The message says why, without quoting the response."""


def _keys(body: bytes, algorithms: tuple[str, ...]) -> _KeySet:
    """The keys by id and algorithm; also without an id, if an algorithm has only one key.

    If several keys have the same id and algorithm, the first one counts. Raises `_NoKeys`.
    """
    found: dict[Name, AllowedPublicKeys] = {}
    choice: dict[str, list[AllowedPublicKeys]] = defaultdict(list)
    try:
        jwks = json.loads(body)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        page = body.lstrip()[:1] == b"<"
        raise _NoKeys("it is a web page, and no JWK Set" if page else "it is no JWK Set") from None
    for jwk in jwks if isinstance(jwks, list) else ():
        for algorithm, key in _fitting(jwk, algorithms):
            if "kid" in jwk:
                found.setdefault((jwk["kid"], algorithm), key)
            choice[algorithm].append(key)
    found |= {(None, algorithm): keys[0] for algorithm, keys in choice.items() if len(keys) == 1}
    if not choice:
        raise _NoKeys(f"no key in it is for {', '.join(algorithms)}")
    return _KeySet(
        found,
        kids=frozenset(kid for kid, _ in found if kid is not None),
        several=frozenset(algorithm for algorithm, keys in choice.items() if len(keys) > 1),
    )


def _may_verify(jwk: Any, algorithm: str) -> bool:
    """Whether the key's own fields allow it to verify (RFC 7517, section 4). A key with `d` is a leaked private key."""
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
            key = method.prepare_key(method.from_jwk(jwk))  # `from_jwk` checks the type, `prepare_key` the curve
            if method.check_key_length(key) is None:
                yield algorithm, key
        except Exception:  # noqa: BLE001, S112 - a key that we cannot read, or of a kind we do not know, is none
            continue
