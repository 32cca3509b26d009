"""Verifies JSON Web Tokens (RFC 7519, with the restrictions of RFC 8725) and reads the `User` from them."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Any

import jwt
import msgspec
from jwt.algorithms import AllowedPrivateKeys
from jwt.exceptions import InvalidSubjectError
from msgspec import UNSET, Meta, Struct, UnsetType

from chatstream.auth.keys import Keys
from chatstream.auth.memory import Memory
from chatstream.auth.refusals import lacks, refused
from chatstream.auth.revocation import Guard
from chatstream.errors import RequestError, Unauthenticated
from chatstream.models import BudgetChange, User

# Largest token. Usual ones have a few hundred bytes; one of a megabyte would block the event loop for 65 ms.
_MAX_TOKEN_BYTES = 8 * 1024
# Longest lifetime of a token. Clients can renew theirs sooner, and a token without an end could not be taken back.
_MAX_LIFETIME_SECONDS = 366 * 86_400
# Longest user id, as in OpenID Connect; the number is also in a text of `refusals`.
_MAX_SUBJECT_CHARACTERS = 255
# Tolerance for an issuer's clock that is ahead of ours: tokens are often used in the second they are made.
_CLOCK_SKEW_SECONDS = 30
# A token's form (RFC 7515, section 3.1), without the padding that PyJWT would accept.
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

# A limit as in the settings; 0 is allowed, too: nothing may be spent.
_Count = Annotated[int, Meta(ge=0, le=10**12)]
_Amount = Annotated[int, Meta(ge=0, lt=10**9)] | Annotated[float, Meta(ge=0, lt=10**9)]

SigningKey = AllowedPrivateKeys | str | bytes

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (jwt.ExpiredSignatureError, "expired"),
    (jwt.ImmatureSignatureError, "not_yet_valid"),
    (jwt.InvalidAudienceError, "audience"),
    (jwt.InvalidIssuerError, "issuer"),
    (InvalidSubjectError, "subject"),
    (jwt.InvalidSignatureError, "signature"),
    (jwt.InvalidAlgorithmError, "algorithm"),
)


class Rules(Struct, frozen=True, kw_only=True):
    """The claims that a token must have besides `exp`; None requires nothing. `user_claim`: the claim with the user's
    id.

    The algorithms are either all for secrets or all for public keys: if mixed, a public key could be used as a secret.
    """

    algorithms: tuple[str, ...] = ("HS256",)
    issuer: str | None = None
    audience: str | None = None
    type: str | None = None
    user_claim: str = "sub"
    budget_claim: str | None = None  # the claim with the user's budget


class _BudgetClaim(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The budget claim. Other fields are refused: a limit with a misspelt name would be no limit."""

    tokens_per_day: _Count | UnsetType | None = UNSET
    tokens_per_month: _Count | UnsetType | None = UNSET
    cost_per_month: _Amount | UnsetType | None = UNSET


_NO_MORE = Rules()


class Authenticator:
    """Verifies tokens."""

    def __init__(
        self,
        keys: Keys,
        rules: Rules,
        *,
        guard: Guard | None = None,
        count: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        """`count`: called for every token, with ``accepted`` or the reason for its refusal."""
        self.guard = guard or Guard()
        self._memory = Memory()
        self._keys = keys
        self._rules = rules
        self._count = count

    async def authenticate(self, token: str) -> User:
        """Verify a token and return its user.

        Raises `Unauthenticated`, with a reason that reveals nothing about the key, or `Unavailable` if the token cannot
        be verified now.
        """
        try:
            _check_form(token)
            user = self._memory.recall(token)
            if user is None:
                user = await self._verify(token)
                self._memory.remember(token, user)
            await self.guard.check(user)
        except RequestError as exc:
            self._count(exc.reason if isinstance(exc, Unauthenticated) else "unavailable")
            raise
        self._count("accepted")
        return user

    async def confirm(self, user: User) -> None:
        """Check that a token verified before is still valid. Raises like `authenticate`."""
        if user.token_expires_at <= time.time():
            raise refused("expired")
        await self.guard.check(user)

    async def _verify(self, token: str) -> User:
        key = await self._keys.find(token)
        try:
            decoded = jwt.decode_complete(
                token,
                key,
                algorithms=self._rules.algorithms,
                audience=self._rules.audience,
                issuer=self._rules.issuer,
                leeway=_CLOCK_SKEW_SECONDS,
                options={
                    "require": ["exp", self._rules.user_claim],
                    "verify_sub": self._rules.user_claim == "sub",  # `sub` matters only if it is the user's id
                    "enforce_minimum_key_length": True,
                },
            )
        except jwt.MissingRequiredClaimError as exc:
            raise lacks(exc.claim) from None
        except (jwt.PyJWTError, ValueError, OverflowError) as exc:  # `ValueError`, `OverflowError`: claims out of range
            raise refused(_reason(exc), claim=self._rules.user_claim) from None
        self._check_header(decoded["header"])
        return self._user(decoded["payload"])

    def _check_header(self, header: dict[str, Any]) -> None:
        """Check the header fields that PyJWT ignores. Keys and URLs in the header are never used."""
        if "crit" in header or "b64" in header:  # no extension is supported (RFC 7515, section 4.1.11; RFC 7797)
            raise refused("malformed")
        if self._rules.type is not None and _media_type(header.get("typ")) != _media_type(self._rules.type):
            raise refused("type")

    def _user(self, claims: dict[str, Any]) -> User:
        if self._rules.audience is None and "aud" in claims:  # RFC 7519, section 4.1.3: it is meant for others
            raise refused("audience")
        user_id = claims[self._rules.user_claim]
        if not _is_subject(user_id):
            raise refused("subject", claim=self._rules.user_claim)
        for name in ("exp", "nbf", "iat"):
            if name in claims and not _is_date(claims[name]):  # PyJWT accepts text and `true` as numbers
                raise refused("claims", claim=name)
        if not _can_be_stored(token_id := claims.get("jti", "")):
            raise refused("claims", claim="jti")
        now = time.time()
        if claims["exp"] <= now:  # no tolerance: a stream ends when its token expires, and must not be reopened
            raise refused("expired")
        if claims["exp"] > now + _MAX_LIFETIME_SECONDS:
            raise refused("lifetime")
        issued_at = float(claims["iat"]) if "iat" in claims else None
        return User(user_id, float(claims["exp"]), token_id or None, issued_at, self._budget(claims))

    def _budget(self, claims: dict[str, Any]) -> BudgetChange | None:
        name = self._rules.budget_claim
        if name is None or claims.get(name) is None:
            return None
        try:
            said = msgspec.convert(claims[name], _BudgetClaim, strict=True)
        except msgspec.ValidationError:
            raise refused("claims", claim=name) from None
        cost = said.cost_per_month
        if isinstance(cost, int | float):  # exact decimals: 0.1 is exactly a tenth
            cost = int((Decimal(str(cost)) * 1_000_000).to_integral_value(ROUND_HALF_UP))
        return BudgetChange(
            tokens_per_day=said.tokens_per_day, tokens_per_month=said.tokens_per_month, cost_per_month=cost
        )


def _check_form(token: str) -> None:
    """Check a token's size and form, before any costly work."""
    if len(token) > _MAX_TOKEN_BYTES:
        raise refused("too_long")
    if not _COMPACT.fullmatch(token):
        raise refused("malformed")


def _reason(exc: Exception) -> str:
    return next((reason for kind, reason in _REASONS if isinstance(exc, kind)), "malformed")


def _media_type(text: object) -> str | None:
    """A normalised `typ` (RFC 7515, section 4.1.9): in lower case, without ``application/``."""
    return text.lower().removeprefix("application/") if isinstance(text, str) else None


def _is_date(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _is_subject(subject: object) -> bool:
    return isinstance(subject, str) and 0 < len(subject) <= _MAX_SUBJECT_CHARACTERS and _can_be_stored(subject)


def _can_be_stored(text: str) -> bool:
    """Whether the text has no lone surrogate, which cannot be stored, and no NUL."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def mint(key: SigningKey, user_id: str, expires_in: float, rules: Rules = _NO_MORE, *, kid: str | None = None) -> str:
    """Make a token for `user_id` that meets the rules and is valid for `expires_in` seconds.

    For development, tests and scripts. `key`: the secret or a private key (also as PEM); `kid`: the key's id.
    """
    now = datetime.now(UTC)
    said = {"iss": rules.issuer, "aud": rules.audience}
    content = {rules.user_claim: user_id, "exp": now + timedelta(seconds=expires_in), "iat": now}
    content |= {name: value for name, value in said.items() if value is not None}
    header = {name: text for name, text in (("typ", rules.type), ("kid", kid)) if text is not None}
    return jwt.encode(content, key, algorithm=rules.algorithms[0], headers=header)
