"""Tickets: one-time credentials in the URL, for an EventSource, which cannot send an ``Authorization`` header.

A ticket that gets into a log is harmless: it is valid for a minute, once, and for one conversation of one user. Only
its hash is stored. Expiry uses the database's clock, so that the processes' clocks need not agree.
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

# Seconds that a ticket is valid. A page uses its ticket within a second, with a bad connection within a minute.
_LIFETIME_SECONDS = 60
# Length of a ticket, in random bytes. 256 random bits cannot be guessed, so the hash needs no salt.
_BYTES = 32
_TEXT = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class Tickets:
    """Issues and redeems tickets. All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def issue(self, user: User, conversation_id: str) -> Ticket:
        """Issue a ticket for a conversation. The caller has checked that it is the user's."""
        text = secrets.token_urlsafe(_BYTES)
        said = {
            "userId": user.id,
            "conversationId": conversation_id,
            "tokenExpiresAt": user.token_expires_at,
            "tokenId": user.token_id,
            "tokenIssuedAt": user.token_issued_at,
        } | ({} if user.budget is None else {"budget": msgspec.to_builtins(user.budget)})
        # $literal: otherwise MongoDB would read a user id that begins with a dollar as an expression. A pipeline,
        # because $$NOW, the database's time, exists only there.
        fields: dict[str, Any] = {name: {"$literal": value} for name, value in said.items()}
        fields["expiresAt"] = {"$add": ["$$NOW", _LIFETIME_SECONDS * 1000]}
        stored = await self._mongo.tickets.find_one_and_update(
            {"_id": _key(text)}, [{"$set": fields}], upsert=True, return_document=ReturnDocument.AFTER
        )
        return Ticket(text, stored["expiresAt"])

    async def redeem(self, text: str, conversation_id: str) -> User | None:
        """Use up a ticket. Returns its user, with the data of the token that it was issued for.

        None if the ticket is unknown, expired, used, or for another conversation. Of several concurrent tries, only one
        succeeds.
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
