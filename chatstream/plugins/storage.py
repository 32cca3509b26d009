"""Documents that a plug-in keeps about a user; see "What a tool keeps" in README.md beside this file."""

from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct


class Kept(Struct, frozen=True, kw_only=True):
    """A document that a plug-in has stored. `data` is any JSON value."""

    key: str
    data: Any
    created_at: datetime


class StorageFull(ValueError):
    """Raised by `Storage.put`: nothing was stored, since the plug-in has reached its limit for this user."""


class Storage(Protocol):
    """The documents of one plug-in about one user. They are exported and erased with the user.

    A document is written once, and never changed or deleted by the plug-in.
    """

    async def put(self, key: str, data: Any) -> Kept:
        """Store `data` under `key`, unless the key is in use; returns the stored document of this key.

        With the tool call's `key`, a repeated call stores nothing new. `key` has 1 to 200 code points; `data` is any
        JSON value of at most 16 KiB. Raises `ValueError` for others, `StorageFull`, and `OutcomeUnknown` if the
        database does not confirm the write in time.
        """
        ...

    async def get(self, key: str) -> Kept | None:
        """The document with this key, or None. Raises `ToolFailed` if the database does not answer."""
        ...

    async def newest(self, limit: int = 20) -> list[Kept]:
        """The newest documents, newest first; at most 100. Raises `ToolFailed` if the database does not answer."""
        ...


class NoStorage:
    """Stands in for `Storage` where there is no database, for example in a plug-in's tests."""

    async def put(self, key: str, data: Any) -> Kept:
        """Raises `RuntimeError`."""
        raise RuntimeError("there is no database here: NoStorage keeps nothing")

    async def get(self, key: str) -> Kept | None:
        """Raises `RuntimeError`."""
        raise RuntimeError("there is no database here: NoStorage keeps nothing")

    async def newest(self, limit: int = 20) -> list[Kept]:
        """Raises `RuntimeError`."""
        raise RuntimeError("there is no database here: NoStorage keeps nothing")
