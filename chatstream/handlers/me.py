"""``/api/v1/chat/me``: the caller's data."""

import re
from http import HTTPStatus

from chatstream.errors import InvalidRequest
from chatstream.generations.erasing import Erasing
from chatstream.handlers.base import BaseHandler
from chatstream.handlers.door import Door
from chatstream.handlers.views import OBJECT_KEY_PATTERN, erasure_view


class _ErasingDoor(BaseHandler):
    def initialize(  # type: ignore[override]  # each door gets exactly its own collaborators
        self, door: Door, erasing: Erasing
    ) -> None:
        super().initialize(door)
        self.erasing = erasing


class MeHandler(_ErasingDoor):
    """All data of the caller."""

    async def delete(self) -> None:
        """Start to erase all data of the caller."""
        self.tell(self.door.limits.erasures.take(self.user.id))
        erasure = await self.erasing.erase(self.user.id)
        status = HTTPStatus.OK if erasure.completed_at is not None else HTTPStatus.ACCEPTED
        self.send_json(erasure_view(erasure), status)


class ErasureHandler(_ErasingDoor):
    """The handler for an erasure. Everybody with its id may read it: a complete erasure no longer names its user."""

    async def get(self) -> None:
        """Send the state of the erasure."""
        id_ = self.parameter("id") or ""
        if not re.fullmatch(OBJECT_KEY_PATTERN, id_):
            raise InvalidRequest("`id` must be the id of an erasure.")
        self.tell(self.door.limits.reads.take(self.user.id))
        self.send_json(erasure_view(await self.erasing.get(id_)))

    head = get
