"""From which message on the model is told a conversation."""

from bson import ObjectId

from chatstream.models import Conversation
from chatstream.store.documents import PLACES
from chatstream.store.mongo import Mongo


class Contexts:
    """All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def begin_at(self, conversation: Conversation, seq: int) -> int:
        """From the message of this place on, until it is moved again; returns how many messages lie before it."""
        key = ObjectId(conversation.key)
        which = {"_id": key, "userId": conversation.user_id}
        await self._mongo.conversations.update_one(which, {"$set": {"contextFrom": seq}})
        before = {"conversationId": key, "seq": PLACES | {"$lt": seq}}
        return int(await self._mongo.messages.count_documents(before, hint="log"))
