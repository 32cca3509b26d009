"""Retrieval, moderation and a webhook in one file."""

import os

import httpx2

from chatstream.models import Annotation
from chatstream.plugins.plugin import Answered, Blocked, Turn

FACTS = {"opening": "We open at 9.", "parking": "Parking is behind the house."}
SECRET = "the code is 4711"  # noqa: S105 - what must never leave


class Assistant:
    def __init__(self, webhook: str | None) -> None:
        self.webhook = webhook

    def context(self, turn: Turn) -> str:
        """Return facts about the message's topic, which are added to the model's context."""
        return "\n".join(fact for word, fact in FACTS.items() if word in turn.message.lower())

    def release(self, text: str, told: int, ended: bool) -> int:
        """Hold back text that may be the beginning of the secret; end the answer if it is the secret."""
        if SECRET in text.lower():
            raise Blocked
        if ended:
            return len(text)
        starts = range(max(told, len(text) - len(SECRET)), len(text) + 1)
        return next(start for start in starts if SECRET.startswith(text[start:].lower()))

    def annotate(self, answer: Answered) -> list[Annotation]:
        """Report the answer to the operator's own system, and show its reply beside the answer."""
        if self.webhook is None:
            return []
        said = httpx2.post(self.webhook, json={"id": answer.id, "text": answer.text}, timeout=2)
        return [Annotation(kind="ticket", id=answer.id, message="A ticket was opened", data=said.json())]


def plugin() -> Assistant:
    return Assistant(os.environ.get("WEBHOOK"))
