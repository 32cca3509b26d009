"""What the demo model says: tips of a sports betting assistant about matches that are never played."""

from hashlib import sha256
from typing import NamedTuple

from chatstream.llm.demo_prepared import is_of_sport, prepared


class _Tip(NamedTuple):
    match: str
    form: str
    doubt: str
    advice: str


# Odds in the three customary notations; names with accents and an apostrophe, for they must survive the whole way.
_TIPS = (
    _Tip(
        "Arsenal v Chelsea",
        "Arsenal have won six of their last seven at home, and **Martin Ødegaard** is back in midfield",
        "Chelsea travel well, so this is no formality",
        "I'd recommend a bet on **Arsenal to win** at odds of 2.10, with a stake of €10.",
    ),
    _Tip(
        "Bayern München v Borussia Dortmund",
        "Both sides have scored in each of their last five meetings, and **Thomas Müller** starts again",
        "an early red card would spoil the plan",
        "I'd recommend a bet on **both teams to score** at odds of 1.65, with a stake of €20.",
    ),
    _Tip(
        "Atlético Madrid v Sevilla",
        "Atlético concede little, and **José Giménez** leads the best defence of the league",
        "Sevilla's new coach has surprised better sides",
        "I'd recommend a bet on **under 2.5 goals** at odds of 4/5, with a stake of €15.",
    ),
    _Tip(
        "Boston Celtics v Denver Nuggets",
        "The Celtics have rested for three days, while **Nikola Jokić** played forty minutes last night",
        "Denver's bench is deeper than it looks",
        "I'd recommend a bet on **the Boston Celtics to win** at odds of +120, with a stake of $25.",
    ),
    _Tip(
        "Świątek v Sabalenka",
        "**Iga Świątek** has dropped one set in two weeks and likes the slow court",
        "the wind may blunt her first serve",
        "I'd recommend a bet on **Świątek to win in two sets** at odds of 2.40, with a stake of €12.",
    ),
    _Tip(
        "Ireland v New Zealand",
        "Ireland's line-out has been faultless, and **Dan O'Séaghdha** kicks from anywhere",
        "the visitors' bench usually wins the last quarter",
        "I'd recommend a bet on **Ireland to win** at odds of 11/8, with a stake of €10.",
    ),
    _Tip(
        "Kansas City Chiefs v Buffalo Bills",
        "The Chiefs' defence gives up the fewest yards at home, and snow is expected",
        "the Bills have covered in four straight games",
        "I'd recommend a bet on **the Kansas City Chiefs to win** at odds of -140, with a stake of $20.",
    ),
    _Tip(
        "Paris Saint-Germain v Olympique de Marseille",
        "Paris have taken the lead within half an hour in eight home matches, and **Kylian N'Gollé** is in form",
        "derbies have their own rules",
        "I'd recommend a bet on **Paris Saint-Germain to lead at half-time** at odds of 1.90, with a stake of €8.",
    ),
)

NO_BET = (
    "That is a fair question 🙂 but I would not put money on it today. The line-ups are not known yet, two of the "
    "**key players** are doubtful, and **Zoë Müller** may return for either side:\n\n"
    "- wait for the team news an hour before the start;\n"
    "- compare what several bookmakers offer;\n"
    "- never stake what you cannot afford to lose.\n\n"
    "Ask me again when the line-ups are out, and I will gladly look at the numbers with you. Until then the best "
    "advice is to keep your money in your pocket and enjoy the match."
)

# What the models say that think first.
THOUGHT = "The user asks for a tip. I compare the form and the price, and keep it short."


def answer(question: str) -> str:
    """The answer to `question`: always the same one.

    One that was written for it, else a tip of 60 to 120 words with one recommendation.
    """
    if (written := prepared(question)) is not None:
        return written
    tip = _TIPS[_number(question) % len(_TIPS)]
    return _write(tip) if is_of_sport(question) else _excuse(_write(tip), tip.match)


def long_answer(question: str) -> str:
    """About 1,500 words: all tips, again and again, beginning where `answer` would."""
    first = _number(question)
    parts = [
        f"## Part {number + 1}\n\n{_write(_TIPS[(first + number) % len(_TIPS)])}"
        # Thirteen times some 115 words.
        for number in range(13)
    ]
    return "\n\n".join(parts)


def _number(question: str) -> int:
    # Not `hash`: that differs from process to process.
    return int.from_bytes(sha256(question.encode("utf-8", "replace")).digest()[:8])


def _excuse(text: str, match: str) -> str:
    """The same tip for a question that is no question about a match: nobody shall think that it was misunderstood."""
    opening = f"Let's look at **{match}** 🏆 before you decide anything. "
    excuse = f"This is a demo with prepared answers, and none fits your question; here is one about **{match}** 🏆. "
    return text.replace(opening, excuse).removesuffix(" Shall I look at another match for you?")


def _write(tip: _Tip) -> str:
    return (
        f"Let's look at **{tip.match}** 🏆 before you decide anything. "
        f"{tip.form}; the market has been slow to notice it. Here is how I see it:\n\n"
        "- the recent form points one way, and the price has hardly moved;\n"
        f"- {tip.doubt};\n"
        "- nobody important is suspended.\n\n"
        f"{tip.advice}\n\n"
        "Keep the stake small, compare what other bookmakers offer, and only bet what you can afford to lose. "
        "Shall I look at another match for you?"
    )
