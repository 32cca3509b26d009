"""A sports betting assistant: its prompt, and the bets that its answers recommend."""

from chatstream.models import Recommendation
from chatstream.plugins.plugin import Answered


class Bets:
    """The plug-in that is there unless `CHATSTREAM_PLUGINS` says otherwise."""

    system_prompt = "You are a helpful sports betting assistant."

    def annotate(self, answer: Answered) -> tuple[Recommendation, ...]:
        """The bets that it recommends. A long answer takes a while to read: this is no coroutine, and has a thread."""
        # Its patterns take a seventh of a second to make ready: not while the server starts.
        from chatstream.plugins.bets.reader import extract

        return extract(answer.id, answer.text)


def plugin() -> Bets:
    """What `CHATSTREAM_PLUGINS` names."""
    return Bets()
