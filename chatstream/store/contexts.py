"""Sets the message at which the model's context of a conversation begins."""

from bson import ObjectId

from chatstream.models import Conversation
from chatstream.store.documents import PLACES
from chatstream.store.mongo import Mongo
from chatstream.store.tree import FIELDS, Tree


class Contexts:
    """All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def begin_at(self, conversation: Conversation, seq: int) -> int:
        """Let the model's context begin at the message with this `seq`, until the next call.

        Returns the number of messages before it on its branch. Reads all earlier messages, without their texts: slow,
        but rare.
        """
        key = ObjectId(conversation.key)
        which = {"_id": key, "userId": conversation.user_id}
        await self._mongo.conversations.update_one(which, {"$set": {"contextFrom": seq}})
        up_to_it = {"conversationId": key, "seq": PLACES | {"$lte": seq}}
        tree = Tree(await self._mongo.messages.find(up_to_it, FIELDS).sort("seq", 1).to_list(None))
        begins = tree.newest
        if begins is None or begins.seq != seq:  # the document is of a newer version, which this one cannot read
            return len(tree.nodes)
        return len(tree.path(begins.id)) - 1
