"""Revocation of tokens before they expire: the interface of the check, and the code that calls it.

The operator provides the check. `CHATSTREAM_REVOCATION` names a function without arguments, ``package.module:name``,
which is called once at start and returns an object with the method of `Revocations`.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, cast

from chatstream.auth.refusals import refused
from chatstream.config.imported import made_by
from chatstream.errors import ConfigurationError, ErrorCode, Unavailable
from chatstream.logs import describe
from chatstream.models import User

log = logging.getLogger("chatstream.auth")

# Time limit of a check: a request that waits for it must be answered within 5 s.
_TIMEOUT_SECONDS = 2
# Maximum number of tokens in one call of the check: some 100 KB if it sends them to another server.
_BATCH = 500
_RETRY_AFTER_SECONDS = 5


class Revocations(Protocol):
    """Checks whether tokens were revoked."""

    async def revoked(self, users: Sequence[User]) -> Collection[User]:
        """Return those of `users` (at most 500) whose tokens are revoked. Runs on the event loop, so it must not block.

        A user has the token's `sub`, `exp`, `jti` and `iat`, so a check can revoke one token, or all that were issued
        before some time. If it raises or takes more than 2 s, new requests are refused and open streams stay until the
        next check.
        """
        ...


class Guard:
    """Checks the token of each new request, and those of open streams again and again."""

    def __init__(self, revocations: Revocations | None = None) -> None:
        """Without `revocations`, no token is ever revoked."""
        self._revocations = revocations
        self._staying: dict[User, list[Callable[[], None]]] = {}
        self._answers = True  # whether the last check worked

    async def check(self, user: User) -> None:
        """Raises `Unauthenticated` if the user's token was revoked, `Unavailable` if that cannot be checked."""
        if self._revocations is None:
            return
        revoked = await self._ask(self._revocations, [user])
        if revoked is None:
            raise Unavailable(
                "Access cannot be checked at the moment.",
                code=ErrorCode.AUTH_UNAVAILABLE,
                retry_after=_RETRY_AFTER_SECONDS,
            )
        if user in revoked:
            raise refused("revoked")

    @contextmanager
    def watch(self, user: User, end: Callable[[], None]) -> Iterator[None]:
        """Within this context, call `end` if the user's token is revoked."""
        ends = self._staying.setdefault(user, [])
        ends.append(end)
        try:
            yield
        finally:
            ends.remove(end)
            if not ends and self._staying.get(user) is ends:
                del self._staying[user]

    async def look(self) -> None:
        """Check the tokens of all open streams; call it every few seconds."""
        if self._revocations is None:
            return
        users = [*self._staying]
        for start in range(0, len(users), _BATCH):
            revoked = await self._ask(self._revocations, users[start : start + _BATCH])
            for user in revoked or ():
                for end in [*self._staying.get(user, ())]:
                    end()

    async def _ask(self, revocations: Revocations, users: Sequence[User]) -> set[User] | None:
        """The users whose tokens are revoked; None if the check failed. Only the first of several failures is
        logged."""
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                revoked = {*await revocations.revoked(users)}
        except Exception as exc:  # noqa: BLE001 - a program of somebody else's
            if self._answers:
                log.warning("who is revoked cannot be known: %s", describe(exc))
            self._answers = False
            return None
        self._answers = True
        return revoked


def load(name: str) -> Revocations:
    """Import and call ``package.module:name``. Raises `ConfigurationError`."""
    made = made_by("CHATSTREAM_REVOCATION", name)
    if not inspect.iscoroutinefunction(getattr(made, "revoked", None)):
        raise ConfigurationError(f"CHATSTREAM_REVOCATION: what {name} returns has no `async def revoked(users)`.")
    return cast(Revocations, made)
