"""Builds the authentication from the settings."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chatstream.auth import revocation
from chatstream.auth.jwks import JWKS
from chatstream.auth.keys import Keys, OneKey
from chatstream.auth.revocation import Guard
from chatstream.auth.tokens import Rules
from chatstream.errors import ConfigurationError
from chatstream.settings import MIN_SECRET_BYTES, SECRET_FILE, Settings


@asynccontextmanager
async def keys(settings: Settings, secret: str | None) -> AsyncIterator[Keys]:
    """The source of the verification keys; `secret` is used if no public key is set. Raises `ConfigurationError`."""
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
    """The guard that checks for revoked tokens. Raises `ConfigurationError`."""
    return Guard() if settings.revocation is None else Guard(revocation.load(settings.revocation))


def rules(settings: Settings) -> Rules:
    """The rules that tokens must meet."""
    return Rules(
        algorithms=settings.accepted_algorithms,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        type=settings.jwt_type,
        user_claim=settings.jwt_user_claim,
        budget_claim=settings.budget_claim,
    )


def secret(settings: Settings, *, make: bool = False) -> str:
    """The configured secret, else the development server's in its data directory. `make`: create that if missing.

    Raises `ConfigurationError` if there is none.
    """
    if settings.jwt_secret is not None:
        return settings.jwt_secret.get_secret_value()
    path = settings.data_dir / SECRET_FILE
    if make:
        _make_unless_there(path)
    elif not path.exists():
        raise ConfigurationError(
            f"There is no secret in {settings.data_dir} to make a token with: start the server in this directory once, "
            "or set JWT_SECRET."
        )
    return secret_from(path)


def secret_from(path: Path) -> str:
    """Read the secret from a file. Raises `ConfigurationError`."""
    try:
        found = path.read_text().strip()
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} does not hold a secret: it is not text.") from None
    if len(found.encode()) < MIN_SECRET_BYTES:
        raise ConfigurationError(f"{path} does not hold a secret of at least {MIN_SECRET_BYTES} bytes.")
    return found


def _make_unless_there(path: Path) -> None:
    try:
        if path.exists():
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Write a temporary file first, so that a crash leaves no incomplete secret. Only its owner can read it.
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
        try:
            with os.fdopen(descriptor, "w") as whole:
                whole.write(secrets.token_hex(MIN_SECRET_BYTES))
            # Unlike a rename, a link replaces nothing: servers that start together all use the first one's secret.
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(temporary)
        finally:
            Path(temporary).unlink()
    except OSError as exc:
        raise ConfigurationError(f"CHATSTREAM_DATA_DIR: {path} cannot be made: {exc.strerror}.") from exc
