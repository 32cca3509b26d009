"""Documents that a plug-in keeps about a user; see "What a tool keeps" in README.md beside this file."""

from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct


class Kept(Struct, frozen=True, kw_only=True):
    """A document of a plug-in's: `data` is any JSON."""

    key: str
    data: Any
    created_at: datetime


class StorageFull(ValueError):
    """Raised by `Storage.put`: nothing was stored, since the plug-in keeps as much of this user as it may."""


class Storage(Protocol):
    """What one plug-in keeps about one user. It is exported and erased with the user.

    A document is written once: there is no change and no deletion, so whoever finds one knows all about it.
    """

    async def put(self, key: str, data: Any) -> Kept:
        """Store `data` under this key, unless there is a document under it; returns the one that is there then.

        With the call's `key` a call that is repeated stores nothing new. `key` has 1 to 200 code points; `data` is any
        JSON, at most 16 KiB. Raises `ValueError` for others, `StorageFull`, and `OutcomeUnknown` if the database does
        not say in time whether it was stored.
        """
        ...

    async def get(self, key: str) -> Kept | None:
        """The document under this key. Raises `ToolFailed` if the database does not answer."""
        ...

    async def newest(self, limit: int = 20) -> list[Kept]:
        """The newest documents, the newest first; at most 100. Raises `ToolFailed` if the database does not answer."""
        ...


class NoStorage:
    """Where there is no database: in the tests of a plug-in, say."""

    async def put(self, key: str, data: Any) -> Kept:
        """Raises `RuntimeError`."""
        raise RuntimeError("there is no database here: NoStorage keeps nothing")

    async def get(self, key: str) -> Kept | None:
        """Raises `RuntimeError`."""
        raise RuntimeError("there is no database here: NoStorage keeps nothing")

    async def newest(self, limit: int = 20) -> list[Kept]:
        """Raises `RuntimeError`."""
        raise RuntimeError("there is no database here: NoStorage keeps nothing")
