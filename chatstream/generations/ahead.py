"""What was read of a conversation before this process knew which one it is.

A viewer's conversation and its newest messages are read with one operation. Only then is it known which room they are
of, and until that room is there, nobody hears for it what happens meanwhile. So whatever happens to a conversation
without a room is noted here: what was read before is out of date then, and is read again.
"""

from collections.abc import Sequence
from typing import NamedTuple

from chatstream.models import Message

# So many places, which all conversations share: what happens to one of a place makes what was read of the others be
# read again, which costs them one operation. 4,096 places take 32 KB and make that rare.
_PLACES = 4096


class ReadAhead(NamedTuple):
    """The newest messages of a conversation, oldest first; `moment` is from before they were read."""

    moment: int
    newest: Sequence[Message]


class Unheard:
    """What happens to conversations while they have no room. It takes the same memory, whatever happens."""

    def __init__(self) -> None:
        self._moment = 0
        self._last = [0] * _PLACES  # the moment when something happened to a conversation of this place
        self._last_of_all = 0

    @property
    def moment(self) -> int:
        """Now."""
        return self._moment

    def happened(self, key: str) -> None:
        """Something happened to this conversation, and there was no room to hear it; or its room is closed."""
        self._moment += 1
        self._last[hash(key) % _PLACES] = self._moment

    def happened_to_any(self) -> None:
        """Something may have happened to any conversation."""
        self._moment += 1
        self._last_of_all = self._moment

    def since(self, moment: int, key: str) -> bool:
        """Whether something may have happened to this conversation after `moment`."""
        return moment < max(self._last[hash(key) % _PLACES], self._last_of_all)
