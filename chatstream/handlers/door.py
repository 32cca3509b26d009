"""What every handler needs of the server: who is calling, and may they come in."""

from collections.abc import Sequence

from chatstream.auth import Authenticator, refused
from chatstream.errors import Unavailable
from chatstream.handlers.addresses import Network
from chatstream.handlers.credentials import Credential, Kind
from chatstream.limits import Limits
from chatstream.models import User
from chatstream.store.tickets import Tickets


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
    ) -> None:
        """`slow_reader_timeout`: seconds for a response, or one flush of a stream, to leave.

        `query_tokens`: whether a token may stand in the address; a ticket always may.
        """
        self.authenticator = authenticator
        self.tickets = tickets
        self.slow_reader_timeout = slow_reader_timeout
        self.query_tokens = query_tokens
        self.limits = limits
        self.trusted_proxies = trusted_proxies
        self.cors_origins = frozenset(cors_origins)
        self.refusal: Unavailable | None = None

    def check(self) -> None:
        """Raises `Unavailable` while the server starts or goes down."""
        if self.refusal is not None:
            raise self.refusal

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
