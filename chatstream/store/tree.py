"""The branches of a conversation: which message goes on from which.

An answer goes on from the user message that it answers. A user message goes on from its `parent`; one that does not say
it goes on from the message before it in the log, which is how conversations without branches are stored. So a branch
is a path from a first message down to one message, its leaf, and the log is all of them in the order of their `seq`.
"""

from collections.abc import Iterable
from typing import NamedTuple

from chatstream.store.documents import is_answer, status_of
from chatstream.store.gate import Document

# What has to be read of a message to know its place.
FIELDS: Document = {"seq": 1, "role": 1, "replyTo": 1, "parent": 1, "status": 1}


class Node(NamedTuple):
    """A message in its place. `parent` is None for the first message of a branch."""

    id: str
    seq: int
    parent: str | None
    is_question: bool
    runs: bool = False  # it is an answer that has not ended


class Tree:
    """All messages of a conversation. What goes on from a message has a greater `seq`: there are no circles."""

    def __init__(self, documents: Iterable[Document]) -> None:
        """`documents` have `FIELDS`, in the order of their `seq`. Those that are no messages are left out."""
        self.nodes: dict[str, Node] = {}
        self._below: dict[str | None, list[Node]] = {}
        newest: Node | None = None
        for document in documents:
            node = _node(document, newest)
            if node is None:
                continue
            if node.parent not in self.nodes:  # it is not there, or not before this one
                node = node._replace(parent=None)
            self.nodes[node.id] = newest = node
            self._below.setdefault(node.parent, []).append(node)
        self.newest = newest

    def path(self, leaf: str) -> list[Node]:
        """From the first message down to `leaf`; empty if there is no such message."""
        found: list[Node] = []
        node = self.nodes.get(leaf)
        while node is not None:
            found.append(node)
            node = None if node.parent is None else self.nodes[node.parent]
        return found[::-1]

    def siblings(self, message_id: str) -> list[str]:
        """What stands at the same place as this message, itself included, oldest first."""
        node = self.nodes[message_id]
        return [one.id for one in self._below[node.parent] if one.is_question == node.is_question]

    def newest_below(self, message_id: str) -> str:
        """The newest message that goes on from this one, near or far: a leaf. Itself if nothing does."""
        newest = self.nodes[message_id]
        waiting = [newest]
        while waiting:
            node = waiting.pop()
            newest = max(newest, node, key=lambda one: one.seq)
            waiting += self._below.get(node.id, ())
        return newest.id

    def leaf(self, head: str | None) -> str | None:
        """Where the conversation stands: at its head, or at the newest answer to it if that is a user message.

        Without a head, or if that is not there, at the newest message. None if there is no message.
        """
        node = self.nodes.get(head or "", self.newest)
        if node is None:
            return None
        attempts = [one for one in self._below.get(node.id, ()) if node.is_question and not one.is_question]
        return attempts[-1].id if attempts else node.id

    @property
    def running(self) -> Node | None:
        """The answer that runs, on whichever branch."""
        return next((node for node in reversed(self.nodes.values()) if node.runs), None)


def _node(document: Document, before: Node | None) -> Node | None:
    if is_answer(document):
        runs = not status_of(document).is_final
        return Node(str(document["_id"]), document["seq"], str(document["replyTo"]), is_question=False, runs=runs)
    if document.get("role") != "user":
        return None
    parent = document.get("parent", before.id if before else None)
    return Node(str(document["_id"]), document["seq"], None if parent is None else str(parent), is_question=True)
