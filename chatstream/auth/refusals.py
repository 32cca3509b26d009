"""The reasons for refusing a token: a word for the metrics, and a sentence for the caller, without hints on the key.

The sentences are also sent in a header (RFC 6750, section 3), so they have no double quotes or backslashes.
"""

from collections.abc import Mapping

from chatstream.errors import Unauthenticated

_DETAILS: Mapping[str, str] = {
    "too_long": "The token is too long.",
    "malformed": "The token is not valid.",
    "signature": "The token is not valid.",
    "algorithm": "The token is not signed with an algorithm that is accepted here.",
    "unknown_key": "The token is signed with a key that is not known.",
    "no_kid": "The token does not name its key: its header needs a `kid`, as its issuer has several keys.",
    "type": "The token is not of the type that is accepted here.",
    "expired": "The token has expired.",
    "lifetime": "The token's lifetime is longer than a year.",
    "not_yet_valid": "The token is not valid yet.",
    "issuer": "The token is not from the issuer that is accepted here.",
    "audience": "The token is meant for another audience.",
    "subject": "The token's `{claim}` does not name a user: it must be a string of 1 to 255 characters.",
    "claims": "The token's `{claim}` is not valid.",
    "revoked": "The token has been revoked.",
    "ticket": "The ticket is not valid, or was used before.",
}


def refused(reason: str, *, claim: str = "") -> Unauthenticated:
    """The error for one of the reasons above. `claim`: the name of the claim concerned, if any."""
    return Unauthenticated(_DETAILS[reason].format(claim=claim), token_given=True, reason=reason)


def lacks(claim: str) -> Unauthenticated:
    """The error for a token without a required claim."""
    return Unauthenticated(f"The token has no `{claim}` claim.", token_given=True, reason="claims")
