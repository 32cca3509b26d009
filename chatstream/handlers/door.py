"""The context that all handlers share: authentication, CORS, limits."""

import asyncio
import contextlib
import logging
import re
from collections.abc import Iterator, Sequence

from chatstream.auth import Authenticator, refused
from chatstream.config.values import Network
from chatstream.errors import Unavailable
from chatstream.formats.registry import SHOWING, Formats
from chatstream.generations.budgets import Budgets
from chatstream.handlers.credentials import Credential, Kind
from chatstream.limits import Limits
from chatstream.models import User
from chatstream.store.tickets import Tickets

log = logging.getLogger("chatstream.http")

# An origin on this machine, at any port: 127.0.0.0/8, and `localhost` with its subdomains (RFC 6761, section 6.3), as
# developers often give each app a subdomain.
_LOOPBACK = re.compile(
    r"https?://(?:(?:[a-z0-9_-]+\.){0,10}localhost\.?|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?", re.ASCII
)
# An origin as browsers send it; "null" is a page from a file or in a sandbox. Each refused origin is logged once, up to
# a maximum, so that invented origins fill neither the memory nor the log.
_ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]{0,30}://[A-Za-z0-9._:\[\]-]{1,260}", re.ASCII)
_MOST_REFUSED_ORIGINS = 100


class Door:
    """The context that all handlers share. While `refusal` is set, every authenticated request is refused."""

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
        """`slow_reader_timeout`: seconds in which the client must read a response, or one flush of a stream.

        `query_tokens`: whether the query may have a token; a ticket is always allowed.

        `local_origins`: whether pages on this machine may call the API, besides those of `cors_origins`.

        `formats`: the wire formats, with or without the models' reasoning; the history follows them.
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
        self._under_way = 0
        self._none_is = asyncio.Event()
        self._none_is.set()

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as under way."""
        self._under_way += 1
        self._none_is.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._none_is.set()

    async def ended(self, seconds: float) -> None:
        """Wait until no request is under way, for so many seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._none_is.wait()

    def check(self) -> None:
        """Raise `Unavailable` while the server starts or stops."""
        if self.refusal is not None:
            raise self.refusal

    def opens_to(self, origin: str, host: str) -> bool:
        """Whether pages of `origin` may call the API. The first refusal of each origin is logged.

        `host`: this server's name in the request. Its own page needs no permission.
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
        """The user of a credential. Raises `Unauthenticated` or `Unavailable`."""
        if credential.kind is Kind.TOKEN:
            return await self.authenticator.authenticate(credential.text)
        self.check()  # check this first: `redeem` uses up the ticket
        user = await self.tickets.redeem(credential.text, conversation_id)
        if user is None:
            raise refused("ticket")
        await self.authenticator.confirm(user)
        return user
