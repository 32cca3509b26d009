"""How tokens are verified, as the settings have it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chatstream.auth import revocation
from chatstream.auth.jwks import JWKS
from chatstream.auth.keys import Keys, OneKey
from chatstream.auth.revocation import Guard
from chatstream.auth.tokens import Rules
from chatstream.settings import Settings


@asynccontextmanager
async def keys(settings: Settings, secret: str | None) -> AsyncIterator[Keys]:
    """Where keys come from; `secret` is for settings without a public key. Raises `ConfigurationError`."""
    algorithms = settings.accepted_algorithms
    if settings.jwks_url is not None:
        remote = JWKS(settings.jwks_url, algorithms)
        remote.refresh()  # so that the first token need not wait
        try:
            yield remote
        finally:
            await remote.close()
    elif settings.jwt_public_key_file is not None:
        yield OneKey.public(settings.jwt_public_key_file, algorithms, name="CHATSTREAM_JWT_PUBLIC_KEY_FILE")
    else:
        assert secret is not None  # noqa: S101 - for the type checker
        yield OneKey.secret(secret, algorithms)


def guard(settings: Settings) -> Guard:
    """Who asks whether a token was taken back. Raises `ConfigurationError`."""
    return Guard() if settings.revocation is None else Guard(revocation.load(settings.revocation))


def rules(settings: Settings) -> Rules:
    """What is asked of a token."""
    return Rules(
        algorithms=settings.accepted_algorithms,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        type=settings.jwt_type,
    )
