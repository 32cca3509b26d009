"""What the demo model says of bets: tips about matches that are never played."""

import re
from typing import Final, NamedTuple

from chatstream.llm.demo_answers import DemoModel, Subject, number, prepared
from chatstream.models import Annotation
from chatstream.plugins.bets.asking import CALLS, step
from chatstream.plugins.bets.chats import Chats

_ODDS = """Odds of **11/8** say what you win for what you stake: for every 8 you stake, you win 11.

A stake of €8 at 11/8:

| | Amount |
|---|---:|
| Stake | €8.00 |
| Winnings | €11.00 |
| Paid back in all | **€19.00** |

As decimal odds, which include the stake:

$$\\frac{11}{8} + 1 = 2.375$$

And the chance at which such a price is fair is \\(1 / 2.375 \\approx 42\\,\\%\\). In code:

```python
def decimal(fraction: str) -> float:
    won, staked = map(int, fraction.split("/"))
    return 1 + won / staked
```

This is an explanation and no tip: whether 11/8 is a good price depends on the match."""

_FORM = """Here are the last five league games of both, newest first:

| | Arsenal | Chelsea |
|---|:---:|:---:|
| 1 | W 2-0 | D 1-1 |
| 2 | W 3-1 | W 2-1 |
| 3 | D 0-0 | L 0-2 |
| 4 | W 1-0 | W 3-0 |
| 5 | W 4-1 | L 1-2 |
| **Points** | **13** | **7** |
| **Goals** | **10-2** | **7-6** |

1. **Arsenal** have let in two goals in five games: their defence is the difference.
2. **Chelsea** score as they please at home, and have lost both games away.
3. Both have their first eleven fit.

(The results are made up: this is the demo model.)"""

_DRAW = """For **Bayern München v Borussia Dortmund** a draw is the least likely of the three results:

| Result | Chance |
|---|---:|
| Bayern win | 58 % |
| Draw | 21 % |
| Dortmund win | 21 % |

- Bayern have drawn once in their last ten home games.
- Dortmund attack from the start, so that few of their games end level.

I would leave the draw alone. (The numbers are made up: this is the demo model.)"""

_SUNDAY = """On Sunday **Arsenal** play **Chelsea** 🏆, and I see Arsenal in front:

- they have won six of their last seven at home;
- **Martin Ødegaard** is back in midfield;
- Chelsea travel well, so this is no formality.

I'd recommend a bet on **Arsenal to win** at odds of 2.10, with a stake of €10.

Keep the stake small, compare what other bookmakers offer, and only bet what you can afford to lose.
(The match is made up: this is the demo model.)"""

# Searched for in the question, in this order: the page's examples, in both of its languages.
_ANSWERS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), text)
    for pattern, text in (
        (r"\b11/8\b", _ODDS),
        (r"\bArsenal\b.*\bChelsea\b.*\b(?:form|games)\b|\bForm\b.*\bArsenal\b.*\bChelsea\b", _FORM),
        (r"\b(?:draw|unentschieden)\b.*\bBayern|\bBayern.*\b(?:draw|unentschieden)\b", _DRAW),
        (r"^(?:who wins on sunday, and is there a bet|wer gewinnt am sonntag, und)", _SUNDAY),
    )
)
# What a tip about a match may be an answer to.
_OF_SPORT: Final = re.compile(
    r"\b(?:bets?|betting|odds|tips?|match(?:es)?|games?|wins?|won|play(?:s|ers?|ing)?|teams?|scor\w*|goals?|draw|sunday|"
    r"weekend|league|cup|football|soccer|tennis|rugby|basketball|stakes?|wett\w*|quoten?|spiel\w*|gewinn\w*)\b",
    re.IGNORECASE,
)


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

_NO_BET = (
    "That is a fair question 🙂 but I would not put money on it today. The line-ups are not known yet, two of the "
    "**key players** are doubtful, and **Zoë Müller** may return for either side:\n\n"
    "- wait for the team news an hour before the start;\n"
    "- compare what several bookmakers offer;\n"
    "- never stake what you cannot afford to lose.\n\n"
    "Ask me again when the line-ups are out, and I will gladly look at the numbers with you. Until then the best "
    "advice is to keep your money in your pocket and enjoy the match."
)


def _answer(question: str) -> str:
    """One that was written for it, else a tip of 60 to 120 words with one recommendation."""
    own = next((text for pattern, text in _ANSWERS if pattern.search(question[:500])), None)
    if (written := own or prepared(question)) is not None:
        return written
    tip = _TIPS[number(question) % len(_TIPS)]
    return _write(tip) if _OF_SPORT.search(question[:500]) else _excuse(_write(tip), tip.match)


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


def _found(answer_id: str, text: str) -> tuple[Annotation, ...]:
    from chatstream.plugins.bets.reader import extract  # see `Bets.annotate`

    return tuple(bet.annotation for bet in extract(answer_id, text))


DEMO: Final = Subject(
    answer=_answer,
    texts=[_write(tip) for tip in _TIPS],
    models={"demo-none-bet": DemoModel("an answer that recommends no bet", _NO_BET)},
    step=step,
    calls=CALLS,
    title="Sunday's match",
    question="Who wins on Sunday, and is there a bet worth taking?",
    chats=Chats,
    found=_found,
)
"""For the plug-in's `demo`."""
