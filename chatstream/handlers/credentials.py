"""Removes the credentials from a request, before any other code, the log included, can see them."""

from enum import StrEnum
from typing import NamedTuple
from urllib.parse import urlencode

from tornado.httputil import HTTPServerRequest


class Kind(StrEnum):
    """The two kinds of credentials: a user's token, or a ticket for one stream."""

    TOKEN = "token"  # noqa: S105 - a kind, not a token
    TICKET = "ticket"


_PARAMETERS = {"access_token": Kind.TOKEN, "token": Kind.TOKEN, "ticket": Kind.TICKET}


class Credential(NamedTuple):
    """A token or a ticket."""

    kind: Kind
    text: str


class Credentials(NamedTuple):
    """A request's credentials, by their place. Empty ones are ignored."""

    header: frozenset[Credential]
    query: frozenset[Credential]


def take(request: HTTPServerRequest) -> Credentials:
    """Remove the credentials from the request, and return them."""
    header = request.headers.pop("Authorization", "")
    scheme, _, token = header.partition(" ")
    shown = {Credential(Kind.TOKEN, token.strip())} if scheme.lower() == "bearer" and token.strip() else ()
    return Credentials(frozenset(shown), frozenset(_from_query(request)))


def _from_query(request: HTTPServerRequest) -> list[Credential]:
    arguments = request.query_arguments
    if arguments.keys().isdisjoint(_PARAMETERS):
        return []
    found = [
        Credential(kind, value.decode("utf-8", "replace"))
        for name, kind in _PARAMETERS.items()
        for value in arguments.pop(name, [])
        if value
    ]
    for name in _PARAMETERS:
        request.arguments.pop(name, None)
    request.query = urlencode(arguments, doseq=True)
    request.uri = request.path + (f"?{request.query}" if request.query else "")
    return found
