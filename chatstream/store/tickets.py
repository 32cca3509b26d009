"""Tickets for one connection each: what an EventSource, which cannot set headers, sends in place of a token.

A ticket may end in a log, and is worth nothing there: it is good for a minute, once, for one user's one conversation.
Only its hash is stored. Its time is the database's, so that no two processes' clocks are compared.
"""

import hashlib
import re
import secrets
from typing import Any

import msgspec
from bson import Binary
from pymongo import ReturnDocument

from chatstream.models import BudgetChange, Ticket, User
from chatstream.store.mongo import Mongo

# A page asks for it and opens its stream: a second, and on a train a minute.
_LIFETIME_SECONDS = 60
# 256 bits, which nobody guesses: the hash needs no salt.
_BYTES = 32
_TEXT = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class Tickets:
    """All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def issue(self, user: User, conversation_id: str) -> Ticket:
        """A ticket for a conversation of the user's, which the caller has seen to."""
        text = secrets.token_urlsafe(_BYTES)
        said = {
            "userId": user.id,
            "conversationId": conversation_id,
            "tokenExpiresAt": user.token_expires_at,
            "tokenId": user.token_id,
            "tokenIssuedAt": user.token_issued_at,
        } | ({} if user.budget is None else {"budget": msgspec.to_builtins(user.budget)})
        # $literal, or MongoDB would read a user's id that begins with a dollar as an expression. $$NOW, the database's
        # own time, exists only in an update with a pipeline.
        fields: dict[str, Any] = {name: {"$literal": value} for name, value in said.items()}
        fields["expiresAt"] = {"$add": ["$$NOW", _LIFETIME_SECONDS * 1000]}
        stored = await self._mongo.tickets.find_one_and_update(
            {"_id": _key(text)}, [{"$set": fields}], upsert=True, return_document=ReturnDocument.AFTER
        )
        return Ticket(text, stored["expiresAt"])

    async def redeem(self, text: str, conversation_id: str) -> User | None:
        """Whose ticket it was, with the token it was asked for with; None if it is none, any more, or for this.

        Of several who try at once, one succeeds.
        """
        if not _TEXT.fullmatch(text):
            return None
        still_good = {"$gt": ["$expiresAt", "$$NOW"]}
        found = await self._mongo.tickets.find_one_and_delete(
            {"_id": _key(text), "conversationId": conversation_id, "$expr": still_good}
        )
        if found is None:
            return None
        return User(
            found["userId"],
            found["tokenExpiresAt"],
            token_id=found.get("tokenId"),
            token_issued_at=found.get("tokenIssuedAt"),
            budget=msgspec.convert(found.get("budget"), BudgetChange | None),
        )


def _key(text: str) -> Binary:
    return Binary(hashlib.sha256(text.encode()).digest())
