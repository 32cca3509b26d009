"""Generates example conversations."""

import argparse
import random
from datetime import UTC, datetime, timedelta

from chatstream.errors import ConfigurationError
from chatstream.llm.demo_answers import Subject
from chatstream.seeding import Source
from chatstream.store.seeding import History, Line, Name, history

# Shortest and longest time between two messages, in seconds; then the maximum age of the last message.
PAUSES = (20, 180)
OLDEST = timedelta(days=30)


class Chats:
    """Generates conversations. Conversation n depends only on the seed and n, not on the others."""

    def __init__(self, options: argparse.Namespace, subject: Subject) -> None:
        self._options = options
        self._now = datetime.now(UTC)
        self._found = subject.found
        try:
            self._chat = subject.chats(options.seed)
        except ImportError:
            raise ConfigurationError(
                "Chats are made up with the package faker: pip install faker. Those of a --file need none."
            ) from None

    def source(self) -> Source:
        """All conversations for the given options."""
        numbers = range(self._options.total)
        return Source(len(numbers), lambda: map(self._name, numbers), lambda: map(self._make, numbers))

    def _name(self, number: int) -> Name:
        user_id = self._options.user
        if user_id is None:
            user_id = f"user-{number % self._options.users}"
        return user_id, f"{self._options.id_prefix}{number:06d}"

    def _make(self, number: int) -> History:
        chance = random.Random(f"{self._options.seed}/{number}")  # noqa: S311 - chats, not secrets
        chat = self._chat(chance)
        exchanges = chance.sample(chat.exchanges, len(chat.exchanges))  # use each exchange once before repeating any
        contents = [exchanges[place // 2 % len(exchanges)][place % 2] for place in range(self._options.messages)]
        at = self._now - OLDEST * chance.random()
        times = [at] + [at := at - timedelta(seconds=chance.randint(*PAUSES)) for _ in contents]
        times.reverse()  # first the time of the conversation, last that of the newest message
        lines = [
            Line("assistant" if place % 2 else "user", content, time_)
            for place, (content, time_) in enumerate(zip(contents, times[1:], strict=True))
        ]
        user_id, id_ = self._name(number)
        return history(user_id, lines, id=id_, title=chat.title, created_at=times[0], found=self._found)
