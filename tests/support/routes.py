"""The server's route table, in a form for tests that go through all routes."""

import inspect
import re
from typing import Any

from tornado.routing import PathMatches
from tornado.web import Application, RequestHandler

from chatstream.app import make_app
from chatstream.handlers.base import BaseHandler
from chatstream.settings import Settings


def routes() -> dict[str, type[BaseHandler]]:
    """Each path, with ``{id}`` for the conversation's id, and its handler."""
    collaborators = inspect.signature(make_app).parameters.keys() - {"settings"}
    nobody: dict[str, Any] = dict.fromkeys(collaborators) | {"page_words": {}, "page_cards": {}, "demo_models": {}}
    app: Application = make_app(Settings(), **nobody)
    found: dict[str, type[BaseHandler]] = {}
    for rule in app.wildcard_router.rules:
        assert isinstance(rule.matcher, PathMatches)
        pattern = rule.matcher.regex.pattern.removesuffix("$").replace("\\.", ".")
        path = pattern.replace("tool-calls/([^/]+)", "tool-calls/{toolCallId}")
        path = path.replace("/messages/([^/]+)", "/messages/{messageId}").replace("([^/]+)", "{id}")
        files = re.fullmatch(r"/\((.+)\)", path)  # several files have one handler
        found |= {f"/{name}": rule.target for name in files[1].split("|")} if files else {path: rule.target}
    return found


def methods(door: type[BaseHandler]) -> set[str]:
    """The methods of a handler, in lower case, except OPTIONS, which all handlers answer in the same way."""
    return {
        method.lower()
        for method in RequestHandler.SUPPORTED_METHODS
        if getattr(door, method.lower()) is not getattr(RequestHandler, method.lower())
    } - {"options"}
