"""Messages of a conversation that were read before its room was known.

One operation reads a viewer's conversation and its newest messages. Only the result tells which room the messages
belong to, and a room that does not exist yet receives no changes. So changes to conversations without a room are noted
here; then the messages that were read ahead are out of date, and are read again.
"""

from collections.abc import Sequence
from typing import NamedTuple

from chatstream.models import Message

# Number of slots, shared by all conversations by hash. A change to one conversation makes the others of its slot read
# again, which costs one operation. 4,096 slots take 32 KB and make that rare.
_PLACES = 4096


class ReadAhead(NamedTuple):
    """The newest messages of a conversation, oldest first. `moment`: the value of `Unheard.moment` before they were
    read.
    """

    moment: int
    newest: Sequence[Message]


class Unheard:
    """Notes changes to conversations that have no room. It uses a fixed amount of memory."""

    def __init__(self) -> None:
        self._moment = 0
        self._last = [0] * _PLACES  # by slot: the moment of the last change
        self._last_of_all = 0

    @property
    def moment(self) -> int:
        """The current moment."""
        return self._moment

    def happened(self, key: str) -> None:
        """Note a change to this conversation, which has no room; or that its room was closed."""
        self._moment += 1
        self._last[hash(key) % _PLACES] = self._moment

    def happened_to_any(self) -> None:
        """Note that any conversation may have changed."""
        self._moment += 1
        self._last_of_all = self._moment

    def since(self, moment: int, key: str) -> bool:
        """Whether this conversation may have changed after `moment`."""
        return moment < max(self._last[hash(key) % _PLACES], self._last_of_all)
