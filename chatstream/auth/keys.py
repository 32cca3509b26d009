"""Fixed keys: a secret, or a public key from a file."""

from pathlib import Path
from typing import Protocol

import jwt
from jwt.algorithms import AllowedPublicKeys, get_default_algorithms

from chatstream.errors import ConfigurationError

Key = AllowedPublicKeys | bytes


class Keys(Protocol):
    """A source of the keys with which tokens are verified."""

    async def find(self, token: str) -> Key:
        """The key for `token`. Its header is not verified yet, so it may only choose among known keys.

        Raises `Unauthenticated` if there is no such key, `Unavailable` if that cannot be determined now.
        """
        ...


class OneKey:
    """The same key for every token."""

    def __init__(self, key: Key) -> None:
        self._key = key

    async def find(self, token: str) -> Key:
        """The key, for every token."""
        return self._key

    @classmethod
    def secret(cls, secret: str, algorithms: tuple[str, ...], *, name: str = "JWT_SECRET") -> "OneKey":
        """A secret for HS256, HS384 and HS512. Raises `ConfigurationError` if it looks like another kind of key.

        With a public key as the secret, everybody who knows that key could sign tokens.
        """
        for algorithm in algorithms:
            _fit(secret.encode(), algorithm, name)
        return cls(secret.encode())

    @classmethod
    def public(cls, path: Path, algorithms: tuple[str, ...], *, name: str) -> "OneKey":
        """A public key from a PEM file. Raises `ConfigurationError` unless it fits every algorithm."""
        try:
            pem = path.read_bytes()
        except OSError as exc:
            raise ConfigurationError(f"{name}: {path} cannot be read: {exc.strerror}.") from exc
        if b"PRIVATE KEY" in pem:
            raise ConfigurationError(f"{name}: {path} holds a private key; it does not belong on this server.")
        return cls([_fit(pem, algorithm, name) for algorithm in algorithms][-1])


def _fit(key: bytes, algorithm: str, name: str) -> Key:
    """The key in the form that the algorithm takes. Raises `ConfigurationError`, without quoting the key."""
    method = get_default_algorithms()[algorithm]
    try:
        fitted: Key = method.prepare_key(key)
    except (jwt.PyJWTError, ValueError, TypeError):
        raise ConfigurationError(f"{name} does not hold a key for {algorithm}.") from None
    if method.check_key_length(fitted) is not None:  # RFC 7518, sections 3.2 to 3.5
        raise ConfigurationError(f"{name} holds a key that is too short for {algorithm}.")
    return fitted
