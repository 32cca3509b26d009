"""A cache of recently verified tokens.

Verification takes 24 µs (HS256) or 75 µs (EdDSA) of a cheap request's 765 µs; a cache hit takes 2 µs.
"""

import hashlib
import time
from collections import OrderedDict

from chatstream.models import User

# Maximum number of cached tokens: 2 MB at 400 bytes each. Fewer users are active at the same time.
_MOST_TOKENS = 4096
# Seconds until a cached token is verified again: its issuer may have withdrawn the key.
_SECONDS = 60


class Memory:
    """Stores hashes of tokens, so that the process's memory does not reveal them."""

    def __init__(self) -> None:
        self._found: OrderedDict[bytes, tuple[User, float]] = OrderedDict()  # in order of last use

    def __len__(self) -> int:
        """The number of cached tokens."""
        return len(self._found)

    def recall(self, token: str) -> User | None:
        """The token's user, if it was verified recently and has not expired."""
        key = _key(token)
        found = self._found.get(key)
        if found is None:
            return None
        user, until = found
        if time.monotonic() >= until or time.time() >= user.token_expires_at:
            del self._found[key]
            return None
        self._found.move_to_end(key)
        return user

    def remember(self, token: str, user: User) -> None:
        """Cache a verified token."""
        self._found[_key(token)] = user, time.monotonic() + _SECONDS
        if len(self._found) > _MOST_TOKENS:
            self._found.popitem(last=False)


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
