"""Who is calling: a JSON Web Token becomes a `User`. Knows no HTTP (RFC 7519; RFC 8725 for what is refused)."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from chatstream.errors import Unauthenticated
from chatstream.models import User

ALGORITHM = "HS256"

# A token of honest size is a few hundred bytes; a megabyte of it would block the loop for 65 ms.
_MAX_TOKEN_BYTES = 8 * 1024
# Longer than any client needs before it asks for a new one; a token "for ever" cannot be taken back.
_MAX_LIFETIME_SECONDS = 366 * 86_400
# OpenID Connect allows a subject 255 ASCII characters.
_MAX_SUBJECT_CHARACTERS = 255


class Authenticator:
    """Verifies tokens signed with one secret."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def authenticate(self, token: str) -> User:
        """The user a token stands for. Raises `Unauthenticated`, with a reason that tells nothing about the secret."""
        if len(token) > _MAX_TOKEN_BYTES:
            raise Unauthenticated("The token is too long.", token_given=True)
        try:
            claims: dict[str, Any] = jwt.decode(
                token, self._secret, algorithms=[ALGORITHM], options={"require": ["exp", "sub"]}
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("The token has expired.", token_given=True) from None
        except (jwt.PyJWTError, ValueError, OverflowError):  # the latter two: claims no number or text can be made of
            raise Unauthenticated("The token is not valid.", token_given=True) from None
        subject, expires_at = claims["sub"], claims["exp"]
        if not _is_subject(subject):
            raise Unauthenticated("The token's `sub` does not name a user.", token_given=True)
        if not isinstance(expires_at, int | float) or expires_at > time.time() + _MAX_LIFETIME_SECONDS:
            raise Unauthenticated("The token's `exp` is too far away.", token_given=True)
        return User(subject, float(expires_at))


def _is_subject(subject: object) -> bool:
    if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT_CHARACTERS:
        return False
    # A lone surrogate can be stored nowhere, and NUL does not belong into a name.
    return "\0" not in subject and not any("\ud800" <= character <= "\udfff" for character in subject)


def mint(secret: str, user_id: str, expires_in: float) -> str:
    """A token for `user_id` that is good for `expires_in` seconds: for development, tests and scripts."""
    expires_at = datetime.now(UTC) + timedelta(seconds=expires_in)
    return jwt.encode({"sub": user_id, "exp": expires_at, "iat": datetime.now(UTC)}, secret, algorithm=ALGORITHM)
