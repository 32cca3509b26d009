"""The log's line of each request, and its place in the metrics."""

import logging
import re
import time
from collections.abc import Mapping
from http import HTTPStatus

from tornado.web import RequestHandler

from chatstream.handlers.base import BaseHandler
from chatstream.metrics import Metrics

log = logging.getLogger("chatstream.http")

# Asked every few seconds by machines that read no log.
_WATCHED_BY_MACHINES = frozenset({"/healthz", "/readyz", "/metrics"})
# Characters of a path that are logged: three times the longest that a route has. Paths may have 16 KB, with which
# strangers could fill the disk.
_MOST_OF_A_PATH = 300
# A JSON object in base64url, and what is signed with it; or the beginning of one that was cut off. Possessive: where it
# does not match, nothing is tried again.
_TOKEN = re.compile(r"eyJ[\w-]*+(?:(?:\.|%2[Ee])[\w-]*+)++|eyJ[\w-]*+\Z", re.ASCII)


# The id in a path; what its place holds that is no id may be anything that somebody wrote.
_CONVERSATION = re.compile(r"(?<=/api/v1/chat/conversations/)[^/]++")
# An id that we made says nothing of anybody; a token is shown as one.
_SHOWN = re.compile(r"[0-9a-f]{24}|.*eyJ.*")


class RequestLog:
    """One line for each request, and its place in the metrics. Of the path never the query, and never a header."""

    def __init__(self, metrics: Metrics, routes: Mapping[type[RequestHandler], str]) -> None:
        """`routes`: the pattern of each door."""
        self._metrics = metrics
        self._routes = routes

    def __call__(self, handler: RequestHandler) -> None:
        """The request is over; Tornado's `log_function`."""
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
    """Its beginning, without what a terminal obeys, and without a token that somebody took for a part of the path.

    Cut before it is searched for tokens, since nobody was asked who they are: a path may have 16 KB. Nor does it have
    an id that a client chose.
    """
    path = _CONVERSATION.sub(lambda id_: id_[0] if _SHOWN.fullmatch(id_[0]) else "{id}", path)
    beginning = path[:_MOST_OF_A_PATH]
    text = _TOKEN.sub("[token]", beginning).encode("ascii", "backslashreplace").decode()
    return text if beginning == path and len(text) <= _MOST_OF_A_PATH else f"{text[:_MOST_OF_A_PATH]}..."
