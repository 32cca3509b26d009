"""The whole route table: each path with its handler, the `Door`, and exactly the other parts that the handler needs.

What each route does is described in `chatstream.handlers.reference`.
"""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tornado.web import Application, RequestHandler

from chatstream.generations.commands import Commands
from chatstream.generations.deciding import Deciding
from chatstream.generations.erasing import Erasing
from chatstream.generations.hub import Hub
from chatstream.handlers import assets
from chatstream.handlers.base import NotFoundHandler
from chatstream.handlers.conversations import ConversationHandler, ConversationsHandler
from chatstream.handlers.docs import DocsHandler, DocumentHandler, Reference
from chatstream.handlers.door import Door
from chatstream.handlers.export import ExportHandler
from chatstream.handlers.history import UIMessagesHandler
from chatstream.handlers.me import ErasureHandler, MeHandler
from chatstream.handlers.messages import (
    CallHandler,
    MessageHandler,
    MessagesHandler,
    RatingHandler,
    RegenerateHandler,
    StopHandler,
)
from chatstream.handlers.models import ModelsHandler
from chatstream.handlers.operations import HealthHandler, MetricsHandler, OneAtATime, ReadyHandler
from chatstream.handlers.page import Facts, PageHandler, page
from chatstream.handlers.request_log import RequestLog
from chatstream.handlers.static import Content
from chatstream.handlers.stream import StreamHandler
from chatstream.handlers.tickets import TicketsHandler
from chatstream.handlers.usage import UsageHandler
from chatstream.llm.catalogue import UserChoices
from chatstream.metrics import Metrics
from chatstream.settings import Settings
from chatstream.store.attempts import Attempts
from chatstream.store.conversations import Conversations
from chatstream.store.plugin_documents import PluginDocuments
from chatstream.store.reading import Reading
from chatstream.store.searching import Search
from chatstream.tools.tool import Tools

Route = tuple[str, type[RequestHandler], dict[str, Any]]


def make_app(
    settings: Settings,
    *,
    door: Door,
    metrics: Metrics,
    hub: Hub,
    commands: Commands,
    deciding: Deciding,
    tools: Tools,
    conversations: Conversations,
    attempts: Attempts,
    reading: Reading,
    documents: PluginDocuments,
    choices: UserChoices,
    erasing: Erasing,
    search: Search,
    ping: Callable[[], Awaitable[None]],
    page_words: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    page_cards: Mapping[str, Mapping[str, bytes]] = MappingProxyType({}),
    demo_models: Mapping[str, str] = MappingProxyType({}),
) -> Application:
    """Return the application; `ping` raises `StorageUnavailable` unless the database responds.

    `page_words` are the plug-ins' texts by language; `page_cards` are their files for each kind of data that they draw;
    `demo_models` describes each demo model. Raises `ConfigurationError` for a wrong page file.
    """
    base = {"door": door}
    streaming = base | {"hub": hub, "conversations": conversations}
    answering = streaming | {"commands": commands}
    exporting = {"conversations": conversations, "reading": reading, "documents": documents}
    listing = {"attempts": attempts, "reading": reading}
    posting = {"commands": commands, "content_characters": settings.content_characters}
    documented = base | {"reference": Reference(settings.content_characters)}
    conversation = r"/api/v1/chat/conversations/([^/]+)"
    choosing = base | {"conversations": conversations, "choices": choices}
    metrics_here = [_metrics_route(door, metrics)] if settings.metrics_port is None else []
    return _application(
        door,
        metrics,
        [
            (r"/api/v1/chat/models", ModelsHandler, base | {"choices": choices}),
            (r"/api/v1/chat/usage", UsageHandler, base),
            (
                r"/api/v1/chat/conversations",
                ConversationsHandler,
                choosing | posting | {"reading": reading, "search": search, "titles": settings.titles},
            ),
            (conversation, ConversationHandler, choosing | listing | {"hub": hub, "tools": tools}),
            (conversation + r"/stream", StreamHandler, streaming),
            (conversation + r"/stream-tickets", TicketsHandler, base | {"conversations": conversations}),
            (conversation + r"/messages", MessagesHandler, answering | listing | posting),
            (conversation + r"/messages/([^/]+)", MessageHandler, answering),
            (conversation + r"/ui-messages", UIMessagesHandler, answering | listing),
            (conversation + r"/stop", StopHandler, answering),
            (conversation + r"/regenerate", RegenerateHandler, answering),
            (conversation + r"/tool-calls/([^/]+)", CallHandler, answering | {"deciding": deciding}),
            (conversation + r"/rating", RatingHandler, answering | {"attempts": attempts, "metrics": metrics}),
            (r"/api/v1/chat/me", MeHandler, base | {"erasing": erasing}),
            (r"/api/v1/chat/me/erasure", ErasureHandler, base | {"erasing": erasing}),
            (r"/api/v1/chat/me/export", ExportHandler, base | exporting),
            (r"/healthz", HealthHandler, base),
            (r"/readyz", ReadyHandler, base | {"ping": OneAtATime(ping)}),
            *metrics_here,
            (r"/openapi\.json", DocumentHandler, documented),
            (r"/docs", DocsHandler, documented),
            (assets.path(assets.CLIENT), assets.AssetHandler, base | {"files": assets.contents(assets.CLIENT)}),
            *(_chat_page(settings, base, page_words, page_cards, demo_models) if settings.shows_page else ()),
        ],
    )


def _chat_page(
    settings: Settings,
    base: dict[str, Any],
    words: Mapping[str, Mapping[str, Any]],
    cards: Mapping[str, Mapping[str, bytes]],
    demo_models: Mapping[str, str],
) -> Iterator[Route]:
    from chatstream.config import page_file  # import on use: most servers in production have no page

    facts = Facts.of(settings, page_file.read(settings.page_file), words, cards, demo_models)
    yield r"/", PageHandler, base | {"html": Content.of(page(facts))}
    yield assets.path(assets.PAGE), assets.AssetHandler, base | {"files": assets.contents(assets.PAGE)}
    brought = [named for files in cards.values() for named in files.items()]
    if files := {f"page/cards/{name}": Content.of(contents) for name, contents in brought}:
        yield assets.path(files), assets.AssetHandler, base | {"files": files}


def make_metrics_app(door: Door, metrics: Metrics) -> Application:
    """Return the application for `CHATSTREAM_METRICS_PORT`."""
    return _application(door, metrics, [_metrics_route(door, metrics)])


def _metrics_route(door: Door, metrics: Metrics) -> Route:
    return (r"/metrics", MetricsHandler, {"door": door, "metrics": metrics})


def _application(door: Door, metrics: Metrics, routes: Sequence[Route]) -> Application:
    patterns = {handler: _readable(path) for path, handler, _ in routes}
    return Application(
        list(routes),
        default_handler_class=NotFoundHandler,
        default_handler_args={"door": door},
        log_function=RequestLog(metrics, patterns),
    )


def _readable(pattern: str) -> str:
    """Return a route's regular expression in a readable form."""
    for below, name in (("tool-calls", "toolCallId"), ("messages", "messageId")):
        pattern = pattern.replace(f"/{below}/([^/]+)", f"/{below}/{{{name}}}")
    pattern = pattern.replace("([^/]+)", "{id}")
    return re.sub(r"\(.+\)", "{name}", pattern).replace("\\", "")
