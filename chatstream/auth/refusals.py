"""Why a token is refused: a word for the metrics, and a sentence for the caller, who learns nothing about the key."""

from collections.abc import Mapping

from chatstream.errors import Unauthenticated

_DETAILS: Mapping[str, str] = {
    "too_long": "The token is too long.",
    "malformed": "The token is not valid.",
    "signature": "The token is not valid.",
    "algorithm": "The token is not signed with an algorithm that is accepted here.",
    "unknown_key": "The token is signed with a key that is not known.",
    "type": "The token is not of the type that is accepted here.",
    "expired": "The token has expired.",
    "lifetime": "The token's `exp` is too far away.",
    "not_yet_valid": "The token is not valid yet.",
    "issuer": "The token is not from the issuer that is accepted here.",
    "audience": "The token is meant for another audience.",
    "subject": "The token's `sub` does not name a user.",
    "claims": "The token lacks a claim, or has one that is not valid.",
    "revoked": "The token has been revoked.",
    "ticket": "The ticket is not valid, or was used before.",
}


def refused(reason: str) -> Unauthenticated:
    """The error for one of the reasons above."""
    return Unauthenticated(_DETAILS[reason], token_given=True, reason=reason)
