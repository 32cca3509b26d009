"""Logs each request and counts it in the metrics."""

import logging
import re
import time
from collections.abc import Mapping
from http import HTTPStatus

from tornado.web import RequestHandler

from chatstream.handlers.base import BaseHandler
from chatstream.metrics import Metrics

log = logging.getLogger("chatstream.http")

# Paths that monitoring requests every few seconds; successful requests for them are not logged.
_WATCHED_BY_MACHINES = frozenset({"/healthz", "/readyz", "/metrics"})
# Maximum number of characters of a path that are logged: three times the longest route. A path may have 16 KB, with
# which anybody could fill the disk.
_MOST_OF_A_PATH = 300
# A JSON Web Token, or the beginning of one at the end of the text. The possessive quantifiers prevent backtracking.
_TOKEN = re.compile(r"eyJ[\w-]*+(?:(?:\.|%2[Ee])[\w-]*+)++|eyJ[\w-]*+\Z", re.ASCII)


# The path segment of a conversation's id; it may hold any text.
_CONVERSATION = re.compile(r"(?<=/api/v1/chat/conversations/)[^/]++")
# Segments that are not hidden: an id that we made, which reveals nothing, and a token, which is replaced separately.
_SHOWN = re.compile(r"[0-9a-f]{24}|.*eyJ.*")


class RequestLog:
    """Logs one line per request, and counts it in the metrics. Never logs the query or a header."""

    def __init__(self, metrics: Metrics, routes: Mapping[type[RequestHandler], str]) -> None:
        """`routes`: the route pattern of each handler class."""
        self._metrics = metrics
        self._routes = routes

    def __call__(self, handler: RequestHandler) -> None:
        """Log a finished request. This is Tornado's `log_function`."""
        assert isinstance(handler, BaseHandler)  # noqa: S101 - every door is one
        request, status, now = handler.request, handler.get_status(), time.monotonic()
        route = self._routes.get(type(handler), "none")
        self._metrics.request_finished(
            route, request.method or "", status, (handler.answered_at or now) - handler.began_at
        )
        if handler.error_code is not None:
            self._metrics.refused(handler.error_code)
        if handler.stream_end is not None:
            self._metrics.stream_ended(handler.stream_end)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            level = logging.WARNING
        else:
            quiet = route in _WATCHED_BY_MACHINES and status < HTTPStatus.BAD_REQUEST
            level = logging.DEBUG if quiet else logging.INFO
        log.log(
            level,
            "%s %s %d %.3fs",
            request.method,
            _loggable(request.path),
            status,
            now - handler.began_at,
            extra={"facts": handler.facts()},
        )


def _loggable(path: str) -> str:
    """The beginning of a path, without control characters, tokens, or ids that a client chose.

    It is cut before the search for tokens, as the request is not authenticated and a path may have 16 KB.
    """
    path = _CONVERSATION.sub(lambda id_: id_[0] if _SHOWN.fullmatch(id_[0]) else "{id}", path)
    beginning = path[:_MOST_OF_A_PATH]
    text = _TOKEN.sub("[token]", beginning).encode("ascii", "backslashreplace").decode()
    return text if beginning == path and len(text) <= _MOST_OF_A_PATH else f"{text[:_MOST_OF_A_PATH]}..."
