"""The storage in which a plug-in's tool keeps data about the calling user."""

from collections.abc import Callable
from typing import Any

from chatstream.errors import StorageUnavailable
from chatstream.plugins.storage import Kept, Storage, StorageFull
from chatstream.plugins.tool import OutcomeUnknown, ToolFailed
from chatstream.store.plugin_documents import PluginDocument, PluginDocuments, TooMany

_NOT_NOW = "failed: what is kept cannot be read at the moment"


def stored_in(documents: PluginDocuments) -> Callable[[str, str], Storage]:
    """A function that returns the storage for a user's id and a plug-in's name."""
    return lambda user_id, plugin: _Stored(documents, user_id, plugin)


class _Stored:
    def __init__(self, documents: PluginDocuments, user_id: str, plugin: str) -> None:
        self._documents = documents
        self._user_id = user_id
        self._plugin = plugin

    async def put(self, key: str, data: Any) -> Kept:
        try:
            return _kept(await self._documents.put(self._plugin, self._user_id, key, data))
        except TooMany as exc:
            raise StorageFull("not carried out: there is no room for more of this user's") from exc
        except StorageUnavailable as exc:
            raise OutcomeUnknown from exc

    async def get(self, key: str) -> Kept | None:
        try:
            found = await self._documents.get(self._plugin, self._user_id, key)
        except StorageUnavailable as exc:
            raise ToolFailed(_NOT_NOW) from exc
        return None if found is None else _kept(found)

    async def newest(self, limit: int = 20) -> list[Kept]:
        try:
            return [_kept(one) for one in await self._documents.newest(self._plugin, self._user_id, limit)]
        except StorageUnavailable as exc:
            raise ToolFailed(_NOT_NOW) from exc


def _kept(one: PluginDocument) -> Kept:
    return Kept(key=one.key, data=one.data, created_at=one.created_at)
