"""Authentication: turns a JSON Web Token into a `User`. Independent of HTTP requests."""

from chatstream.auth.configuration import guard, keys, rules, secret, secret_from
from chatstream.auth.jwks import JWKS
from chatstream.auth.keys import Keys, OneKey
from chatstream.auth.refusals import refused
from chatstream.auth.revocation import Guard, Revocations
from chatstream.auth.tokens import Authenticator, Rules, mint

__all__ = [
    "JWKS",
    "Authenticator",
    "Guard",
    "Keys",
    "OneKey",
    "Revocations",
    "Rules",
    "guard",
    "keys",
    "mint",
    "refused",
    "rules",
    "secret",
    "secret_from",
]
