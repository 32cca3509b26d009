"""What is kept of a user, collection by collection.

To delete a conversation, to erase a user and to export one is to go through this list. A new collection is entered
here, or in `OF_NOBODY`; a test compares both with what the database has.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple


class Found(StrEnum):
    """The field by which a collection's documents are known to be a user's. An index begins with it."""

    BY_USER = "userId"
    BY_CONVERSATION = "conversationId"  # the key of one of the user's conversations


class Kept(NamedTuple):
    """One collection."""

    name: str
    found: Found
    exported: str  # where an export has it, or why it has not
    # Its documents have the keys of the user's conversations for their `_id`: each goes with its conversation.
    of_one_conversation: bool = False
    # In place of the user's id stands a name that nobody can lead back to the user, and the document stays.
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
    """What goes with the conversation `key` of this user: collections, and which documents of them."""
    found: list[tuple[str, dict[str, Any]]] = [(one.name, {one.found.value: key}) for one in OF_CONVERSATIONS]
    return found + [(one.name, {"_id": key, one.found.value: user_id}) for one in KEPT if one.of_one_conversation]


OF_USERS = tuple(one for one in KEPT if one.found is Found.BY_USER and one.name != "conversations")
"""What else goes with a user."""
