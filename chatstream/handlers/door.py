"""What every handler needs of the server: who is calling, and may they come in."""

import logging
import re
from collections.abc import Sequence

from chatstream.auth import Authenticator, refused
from chatstream.errors import Unavailable
from chatstream.formats.registry import SHOWING, Formats
from chatstream.generations.budgets import Budgets
from chatstream.handlers.addresses import Network
from chatstream.handlers.credentials import Credential, Kind
from chatstream.limits import Limits
from chatstream.models import User
from chatstream.store.tickets import Tickets

log = logging.getLogger("chatstream.http")

# An origin on the developer's own machine, at any port: all of 127.0.0.0/8 and of `localhost` is (RFC 6761, section
# 6.3): one app of several often has a name of its own there.
_LOOPBACK = re.compile(
    r"https?://(?:(?:[a-z0-9_-]+\.){0,10}localhost\.?|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?", re.ASCII
)
# What browsers send; "null" is a page from a file, or in a sandbox. Each refused one is told once, and not more of them
# than this: whoever makes them up fills neither the memory nor the log.
_ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]{0,30}://[A-Za-z0-9._:\[\]-]{1,260}", re.ASCII)
_MOST_REFUSED_ORIGINS = 100


class Door:
    """What every handler needs of the server. While `refusal` is set, nobody comes in."""

    def __init__(
        self,
        authenticator: Authenticator,
        cors_origins: tuple[str, ...],
        limits: Limits,
        trusted_proxies: Sequence[Network] = (),
        *,
        tickets: Tickets,
        slow_reader_timeout: float,
        query_tokens: bool = True,
        local_origins: bool = False,
        formats: Formats = SHOWING,
        budgets: Budgets | None = None,
    ) -> None:
        """`slow_reader_timeout`: seconds for a response, or one flush of a stream, to leave.

        `query_tokens`: whether a token may stand in the address; a ticket always may.

        `local_origins`: whether pages of this machine may call besides those of `cors_origins`.

        `formats`: with or without what the models think; history is the same.
        """
        self.authenticator = authenticator
        self.tickets = tickets
        self.slow_reader_timeout = slow_reader_timeout
        self.query_tokens = query_tokens
        self.limits = limits
        self.budgets = budgets or Budgets()
        self.formats = formats
        self.trusted_proxies = trusted_proxies
        self._cors_origins = frozenset(cors_origins)
        self._local_origins = local_origins
        self._refused_origins: set[str] = set()
        self.refusal: Unavailable | None = None

    def check(self) -> None:
        """Raises `Unavailable` while the server starts or goes down."""
        if self.refusal is not None:
            raise self.refusal

    def opens_to(self, origin: str, host: str) -> bool:
        """Whether pages of `origin` may call; the first time that they may not is told in the log.

        `host` is this server, as the request names it: its own page needs no permission.
        """
        if origin in self._cors_origins or (self._local_origins and _LOOPBACK.fullmatch(origin)):
            return True
        is_new = origin not in self._refused_origins and len(self._refused_origins) < _MOST_REFUSED_ORIGINS
        if is_new and _ORIGIN.fullmatch(origin) and origin.partition("://")[2] != host:
            self._refused_origins.add(origin)
            log.warning(
                "pages of %s may not read our responses; if they should, name it in CHATSTREAM_CORS_ORIGINS", origin
            )
        return False

    async def identify(self, credential: Credential, conversation_id: str) -> User:
        """Whose it is. Raises `Unauthenticated` or `Unavailable`."""
        if credential.kind is Kind.TOKEN:
            return await self.authenticator.authenticate(credential.text)
        self.check()  # while there is nothing behind the door, no ticket is used up
        user = await self.tickets.redeem(credential.text, conversation_id)
        if user is None:
            raise refused("ticket")
        await self.authenticator.confirm(user)
        return user
