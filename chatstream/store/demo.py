"""Stores the demo conversation of a development server. Its question is answered when somebody first watches it."""

from chatstream.errors import NotFound
from chatstream.models import UserMessage
from chatstream.store.conversations import Conversations
from chatstream.store.posting import Posting
from chatstream.store.reading import Reading

DEMO_USER = "demo"
DEMO_CONVERSATION = "123"  # the examples of `chatstream seed` use this id


async def seed_demo_conversation(
    conversations: Conversations, posting: Posting, reading: Reading, *, title: str, question: str
) -> None:
    """Store the demo conversation, unless it exists, and make its newest message a question without an answer."""
    try:
        conversation = await conversations.get(DEMO_USER, DEMO_CONVERSATION)
    except NotFound:
        conversation = await conversations.create(DEMO_USER, id=DEMO_CONVERSATION, title=title)
    if not isinstance(await reading.newest(conversation.key), UserMessage):
        await posting.add(conversation, question)
