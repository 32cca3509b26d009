"""A sports betting assistant: its prompt, and the bets that its answers recommend."""

import asyncio
from importlib.resources import files
from types import MappingProxyType
from typing import ClassVar, Final

from chatstream.models import RECOMMENDATION, Annotation
from chatstream.pieces import ToolCallPart
from chatstream.plugins.bets.demo import DEMO
from chatstream.plugins.bets.hints import may_name_a_bet
from chatstream.plugins.bets.tools import best_price, place_bet, placed_bets, recommend_bet
from chatstream.plugins.cards import Card
from chatstream.plugins.plugin import Answered

# The chat page's texts for an empty conversation and around the message box, by language.
_PAGE_WORDS: Final = {
    "en": {
        "greeting": "What shall we look at?",
        "introduction": "Ask about a match. Recommended bets appear as betting slips.",
        "examples": (
            "Who wins on Sunday, and is there a bet worth taking?",
            "Compare Arsenal's and Chelsea's form over the last five games",
            "Explain what odds of 11/8 mean, with an example",
            "Is a draw likely in the Bayern match?",
        ),
        "placeholder": "Ask about a match",
        "note": "Only bet what you can afford to lose.",
    },
    "de": {
        "greeting": "Was schauen wir uns an?",
        "introduction": "Fragen Sie nach einem Spiel. Empfohlene Wetten erscheinen als Wettscheine.",
        "examples": (
            "Wer gewinnt am Sonntag, und lohnt sich eine Wette?",
            "Vergleiche die Form von Arsenal und Chelsea in den letzten fünf Spielen",
            "Erkläre mit einem Beispiel, was eine Quote von 11/8 bedeutet",
            "Ist beim Spiel der Bayern ein Unentschieden wahrscheinlich?",
        ),
        "placeholder": "Fragen Sie nach einem Spiel",
        "note": "Setzen Sie nur, was Sie verlieren können.",
    },
}


class Bets:
    """The default plug-in, used if `CHATSTREAM_PLUGINS` is not set."""

    system_prompt = "You are a helpful sports betting assistant."
    page_words = _PAGE_WORDS
    demo = DEMO
    tools = (best_price, recommend_bet, place_bet, placed_bets)
    # Seconds; usually it takes milliseconds. A busy machine was seen to need more than the usual 3 for the first bet,
    # whose thread compiles the reader's patterns: the answer then had no slip.
    deadlines: ClassVar = {"annotate": 15}
    cards = MappingProxyType(
        {RECOMMENDATION: Card(script=files(__name__) / "page" / "slip.js", style=files(__name__) / "page" / "slip.css")}
    )

    async def annotate(self, answer: Answered) -> tuple[Annotation, ...]:
        """Return the bets that the answer recommends: those passed to `recommend_bet`; without such calls, those in its
        text.

        Reading an answer is slow and done in a thread. A quick check shows that most answers need no reading.
        """
        called = any(isinstance(part, ToolCallPart) for part in answer.parts)
        if not called and not may_name_a_bet(answer.text):
            return ()
        return await asyncio.to_thread(_found, answer)


def _found(answer: Answered) -> tuple[Annotation, ...]:
    # Imported here: compiling the reader's patterns takes 0.14 s, which would delay the start of the server.
    from chatstream.plugins.bets.calls import called
    from chatstream.plugins.bets.reader import extract

    bets = called(answer.id, answer.text, answer.parts) or extract(answer.id, answer.text)
    return tuple(bet.annotation for bet in bets)


def plugin() -> Bets:
    """The entry point that `CHATSTREAM_PLUGINS` names."""
    return Bets()
