"""Fills a database with conversations, which are generated or read from a file."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from chatstream.store.seeding import History, Name, OwnedDocument

# Maximum number of messages per generated conversation, since each is generated and stored as a whole.
MOST_MESSAGES = 10_000


class Source(NamedTuple):
    """Conversations to store. `names`: their names, if known in advance. Both can be iterated more than once."""

    total: int
    names: "Callable[[], Iterable[Name]]"
    histories: "Callable[[], Iterable[History]]"
    documents: "Callable[[], Iterable[OwnedDocument]]" = lambda: ()  # plug-ins' documents
