"""The tree of a conversation's messages, and its branches.

The parent of an answer is the user message that it answers. The parent of a user message is in its field `parent`;
without that field, it is the message before it in the log, as in conversations without branches. A branch is the path
from a first message to its last message, the leaf. The log has the messages of all branches in the order of `seq`.
"""

from collections.abc import Iterable
from typing import NamedTuple

from chatstream.store.documents import is_answer, place_of, status_of
from chatstream.store.gate import Document

# The fields of a message that give its place in the tree.
FIELDS: Document = {"seq": 1, "role": 1, "replyTo": 1, "parent": 1, "status": 1}


class Node(NamedTuple):
    """A message of the tree. `parent` is None for the first message of a branch."""

    id: str
    seq: int
    parent: str | None
    is_question: bool
    runs: bool = False  # an answer that has not ended


class Tree:
    """All messages of a conversation. A child has a greater `seq` than its parent, so that there are no cycles."""

    def __init__(self, documents: Iterable[Document]) -> None:
        """`documents` have the `FIELDS` and are sorted by `seq`. Documents that are not messages are left out."""
        self.nodes: dict[str, Node] = {}
        self._below: dict[str | None, list[Node]] = {}
        newest: Node | None = None
        for document in documents:
            node = _node(document, newest)
            if node is None:
                continue
            if node.parent not in self.nodes:  # missing, or not before this message
                node = node._replace(parent=None)
            self.nodes[node.id] = newest = node
            self._below.setdefault(node.parent, []).append(node)
        self.newest = newest

    def path(self, leaf: str) -> list[Node]:
        """The path from the first message to `leaf`; empty if there is no such message."""
        found: list[Node] = []
        node = self.nodes.get(leaf)
        while node is not None:
            found.append(node)
            node = None if node.parent is None else self.nodes[node.parent]
        return found[::-1]

    def siblings(self, message_id: str) -> list[str]:
        """The messages with the same parent as this message, itself included, oldest first."""
        node = self.nodes[message_id]
        return [one.id for one in self._below[node.parent] if one.is_question == node.is_question]

    def newest_below(self, message_id: str) -> str:
        """The newest descendant of this message, which is a leaf; the message itself if it has none."""
        newest = self.nodes[message_id]
        waiting = [newest]
        while waiting:
            node = waiting.pop()
            newest = max(newest, node, key=lambda one: one.seq)
            waiting += self._below.get(node.id, ())
        return newest.id

    def leaf(self, head: str | None) -> str | None:
        """The leaf of the branch that is shown: the head, or the newest answer to it if the head is a user message.

        Without a valid head, the newest message. None if there is no message.
        """
        node = self.nodes.get(head or "", self.newest)
        if node is None:
            return None
        attempts = [one for one in self._below.get(node.id, ()) if node.is_question and not one.is_question]
        return attempts[-1].id if attempts else node.id

    @property
    def running(self) -> Node | None:
        """The running answer, on any branch; None if no answer runs."""
        return next((node for node in reversed(self.nodes.values()) if node.runs), None)


def _node(document: Document, before: Node | None) -> Node | None:
    if is_answer(document):
        runs = not status_of(document).is_final
        return Node(str(document["_id"]), place_of(document), str(document["replyTo"]), is_question=False, runs=runs)
    if document.get("role") != "user":
        return None
    parent = document.get("parent", before.id if before else None)
    return Node(str(document["_id"]), place_of(document), None if parent is None else str(parent), is_question=True)
