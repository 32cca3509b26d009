"""The list of the collections that hold users' data.

Deletion of a conversation, erasure and export go through this list. A new collection must be added here or to
`OF_NOBODY`; a test compares both with the database.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple


class Found(StrEnum):
    """The field that links a collection's documents to a user. An index starts with it."""

    BY_USER = "userId"
    BY_CONVERSATION = "conversationId"  # the key of one of the user's conversations


class Kept(NamedTuple):
    """A collection with users' data."""

    name: str
    found: Found
    exported: str  # where the export contains it, or why it does not
    # Each document's `_id` is the key of a conversation, and the document is deleted with that conversation.
    of_one_conversation: bool = False
    # Erasure keeps the document, and replaces the user's id by a pseudonym that does not lead back to the user.
    pseudonymised: bool = False


KEPT = (
    Kept("conversations", Found.BY_USER, "a line for each"),
    Kept("messages", Found.BY_CONVERSATION, "a line for each, behind its conversation's"),
    Kept("search", Found.BY_USER, "not: the words of what is exported, for searching", of_one_conversation=True),
    Kept(
        "ledger",
        Found.BY_USER,
        "not: sums, which `GET …/usage` has",
        pseudonymised=True,
    ),
    Kept("pluginDocuments", Found.BY_USER, "a line for each, behind the conversations"),
    Kept("tickets", Found.BY_USER, "not: a ticket is good for a minute, and says nothing"),
)

OF_NOBODY: Mapping[str, str] = {
    "erasures": "has the user's id only as long as the erasure runs",
    "leases": "names processes alone",
    "ledgerKeys": "is made by chance, and goes after its month",
}

OF_CONVERSATIONS = tuple(one for one in KEPT if one.found is Found.BY_CONVERSATION)
"""What goes with a conversation."""


def belongings(key: Any, user_id: str) -> list[tuple[str, dict[str, Any]]]:
    """The documents to delete with the conversation `key` of this user, as pairs of collection and filter."""
    found: list[tuple[str, dict[str, Any]]] = [(one.name, {one.found.value: key}) for one in OF_CONVERSATIONS]
    return found + [(one.name, {"_id": key, one.found.value: user_id}) for one in KEPT if one.of_one_conversation]


OF_USERS = tuple(one for one in KEPT if one.found is Found.BY_USER and one.name != "conversations")
"""What else goes with a user."""
