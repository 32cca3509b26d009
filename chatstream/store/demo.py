"""The conversation that a development server always has: with a question that waits for the first who watches."""

from chatstream.errors import NotFound
from chatstream.models import UserMessage
from chatstream.store.conversations import Conversations
from chatstream.store.posting import Posting
from chatstream.store.reading import Reading

DEMO_USER = "demo"
DEMO_CONVERSATION = "123"  # the seed's examples use it


async def seed_demo_conversation(
    conversations: Conversations, posting: Posting, reading: Reading, *, title: str, question: str
) -> None:
    """Make sure that it is there, and that its newest message is a question without an answer."""
    try:
        conversation = await conversations.get(DEMO_USER, DEMO_CONVERSATION)
    except NotFound:
        conversation = await conversations.create(DEMO_USER, id=DEMO_CONVERSATION, title=title)
    if not isinstance(await reading.newest(conversation.key), UserMessage):
        await posting.add(conversation, question)
