"""A sports betting assistant: its prompt, and the bets that its answers recommend."""

import asyncio
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from chatstream.models import RECOMMENDATION, Annotation
from chatstream.pieces import ToolCallPart
from chatstream.plugins.bets.demo import DEMO
from chatstream.plugins.bets.hints import may_name_a_bet
from chatstream.plugins.bets.tools import best_price, place_bet, placed_bets, recommend_bet
from chatstream.plugins.cards import Card
from chatstream.plugins.plugin import Answered

# Code points that are looked through on the event loop, in less than a millisecond: a thread costs half of one, and
# most answers are shorter.
_AT_ONCE = 20_000

# What the chat page says on an empty page and around the message box, by language.
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
    """The plug-in that is there unless `CHATSTREAM_PLUGINS` says otherwise."""

    system_prompt = "You are a helpful sports betting assistant."
    page_words = _PAGE_WORDS
    demo = DEMO
    tools = (best_price, recommend_bet, place_bet, placed_bets)
    cards = MappingProxyType(
        {RECOMMENDATION: Card(script=files(__name__) / "page" / "slip.js", style=files(__name__) / "page" / "slip.css")}
    )

    async def annotate(self, answer: Answered) -> tuple[Annotation, ...]:
        """The bets that it recommends: those that it gave to `recommend_bet`; if it gave none, those its text names.

        An answer takes a while to read, and is read in a thread; most answers need none.
        """
        called = any(isinstance(part, ToolCallPart) for part in answer.parts)
        if not called and len(answer.text) <= _AT_ONCE and not may_name_a_bet(answer.text):
            return ()
        return await asyncio.to_thread(_found, answer)


def _found(answer: Answered) -> tuple[Annotation, ...]:
    # Its patterns take a seventh of a second to make ready: not while the server starts.
    from chatstream.plugins.bets.calls import called
    from chatstream.plugins.bets.reader import extract

    bets = called(answer.id, answer.text, answer.parts) or extract(answer.id, answer.text)
    return tuple(bet.annotation for bet in bets)


def plugin() -> Bets:
    """What `CHATSTREAM_PLUGINS` names."""
    return Bets()
