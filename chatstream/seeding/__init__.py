"""Fills a database with conversations, made up or from a file."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from chatstream.store.seeding import History, Name, OwnedDocument

# A conversation is made and stored in one piece; a longer chat than this is no example of one.
MOST_MESSAGES = 10_000


class Source(NamedTuple):
    """Conversations to store. `names` are those that are known before; both can be walked through more than once."""

    total: int
    names: "Callable[[], Iterable[Name]]"
    histories: "Callable[[], Iterable[History]]"
    documents: "Callable[[], Iterable[OwnedDocument]]" = lambda: ()  # what plug-ins keep
