"""The whole route table on one screen: path, door, and exactly what the door needs.

What each route does is described in `chatstream.handlers.reference`.
"""

from collections.abc import Awaitable, Callable

from tornado.web import Application

from chatstream.generations.hub import Hub
from chatstream.handlers import assets
from chatstream.handlers.base import Door, NotFoundHandler, log_request
from chatstream.handlers.conversations import ConversationHandler, ConversationsHandler
from chatstream.handlers.docs import DocsHandler, DocumentHandler, Reference
from chatstream.handlers.messages import MessagesHandler, RegenerateHandler, StopHandler
from chatstream.handlers.operations import HealthHandler, ReadyHandler
from chatstream.handlers.page import PageHandler
from chatstream.handlers.stream import StreamHandler
from chatstream.settings import Settings
from chatstream.store.conversations import Conversations
from chatstream.store.messages import Messages


def make_app(
    settings: Settings,
    *,
    door: Door,
    hub: Hub,
    conversations: Conversations,
    messages: Messages,
    ping: Callable[[], Awaitable[None]],
) -> Application:
    """The application; `ping` raises `StorageUnavailable` unless the database answers."""
    base = {"door": door}
    streaming = base | {"hub": hub, "slow_reader_timeout": settings.slow_reader_timeout, "conversations": conversations}
    posting = {"content_characters": settings.content_characters}
    all_conversations = base | posting | {"hub": hub, "conversations": conversations}
    documented = base | {"reference": Reference(settings.content_characters)}
    conversation = r"/api/v1/chat/conversations/([^/]+)"
    page = [(r"/", PageHandler, base), (assets.path(assets.PAGE), assets.AssetHandler, base)]
    return Application(
        [
            (r"/api/v1/chat/conversations", ConversationsHandler, all_conversations),
            (conversation, ConversationHandler, base | {"hub": hub, "conversations": conversations}),
            (conversation + r"/stream", StreamHandler, streaming),
            (conversation + r"/messages", MessagesHandler, streaming | posting | {"messages": messages}),
            (conversation + r"/stop", StopHandler, streaming | {"messages": messages}),
            (conversation + r"/regenerate", RegenerateHandler, streaming | {"messages": messages}),
            (r"/healthz", HealthHandler, base),
            (r"/readyz", ReadyHandler, base | {"ping": ping}),
            (r"/openapi\.json", DocumentHandler, documented),
            (r"/docs", DocsHandler, documented),
            (assets.path(assets.CLIENT), assets.AssetHandler, base),
            *(page if settings.shows_page else ()),
        ],
        default_handler_class=NotFoundHandler,
        default_handler_args=base,
        log_function=log_request,
    )
