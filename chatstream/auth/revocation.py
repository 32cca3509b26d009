"""Tokens that are taken back before they expire: the question, and who asks it when.

A program of your own answers it. `CHATSTREAM_REVOCATION` names a function without arguments, ``package.module:name``,
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

# A request that waits for the answer is still answered within 5 s.
_TIMEOUT_SECONDS = 2
# Tokens in one call of the check: some 100 KB, if it sends them to another server.
_BATCH = 500
_RETRY_AFTER_SECONDS = 5


class Revocations(Protocol):
    """Knows whose tokens were taken back."""

    async def revoked(self, users: Sequence[User]) -> Collection[User]:
        """Those of `users`, at most 500, who may not go on. Asked on the event loop: it must not block.

        A user has the token's `sub`, `exp`, `jti` and `iat`, so that one token can be taken back, or all that were made
        before a moment. If it raises, or takes more than 2 s, nobody new comes in, and who is in stays until the next
        time.
        """
        ...


class Guard:
    """Asks about everybody who comes, and again and again about everybody who stays."""

    def __init__(self, revocations: Revocations | None = None) -> None:
        """Without `revocations`, no token is ever taken back."""
        self._revocations = revocations
        self._staying: dict[User, list[Callable[[], None]]] = {}
        self._answers = True  # the last time, somebody did

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
        """Within this context, `end` is called if the user's token is taken back."""
        ends = self._staying.setdefault(user, [])
        ends.append(end)
        try:
            yield
        finally:
            ends.remove(end)
            if not ends and self._staying.get(user) is ends:
                del self._staying[user]

    async def look(self) -> None:
        """Ask about everybody who stays; to be called every few seconds."""
        if self._revocations is None:
            return
        users = [*self._staying]
        for start in range(0, len(users), _BATCH):
            revoked = await self._ask(self._revocations, users[start : start + _BATCH])
            for user in revoked or ():
                for end in [*self._staying.get(user, ())]:
                    end()

    async def _ask(self, revocations: Revocations, users: Sequence[User]) -> set[User] | None:
        """Those who were taken back, or None if nobody says; of a row of failures the first is logged."""
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
    """What ``package.module:name`` makes. Raises `ConfigurationError`."""
    made = made_by("CHATSTREAM_REVOCATION", name)
    if not inspect.iscoroutinefunction(getattr(made, "revoked", None)):
        raise ConfigurationError(f"CHATSTREAM_REVOCATION: what {name} returns has no `async def revoked(users)`.")
    return cast(Revocations, made)
