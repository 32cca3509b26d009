"""The demo model's answers about bets: tips about invented matches."""

import re
import unicodedata
from typing import Final, NamedTuple

from chatstream.llm.demo_answers import NO_ANSWER, REAL_MODEL, DemoModel, Subject, matches, number, prepared
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

# Answers to the page's example questions in both languages. The patterns are tried in this order.
_ANSWERS: Final = (
    (
        r"\b(?:odds|quoten?|price|bets?|wette)\b.*\b11/8\b(?!/)|(?<!/)\b11/8\b(?!/).*\b(?:odds|quoten?|mean|price|bets?|bedeute\w*)\b",
        _ODDS,
    ),
    (r"\bArsenal\b.*\bChelsea\b.*\b(?:form|games)\b|\bForm\b.*\bArsenal\b.*\bChelsea\b", _FORM),
    (r"\b(?:a draw|draw likely|unentschieden)\b.*\bBayern\b|\bBayern\b.*\b(?:draw|unentschieden)\b", _DRAW),
    (r"^(?:who wins on sunday, and is there a bet|wer gewinnt am sonntag, und)", _SUNDAY),
)


class _Tip(NamedTuple):
    match: str
    sides: tuple[str, str]  # regular expressions for the names of the two sides
    names: str  # a regular expression for the names that nothing but a side has: no city, no country, no other word
    sport: str  # a regular expression for the names of the sport
    form: str
    doubt: str
    advice: str


# Odds in the three usual notations, and names with accents and an apostrophe, to show that nothing is lost on the way.
_TIPS = (
    _Tip(
        "Arsenal v Chelsea",
        ("arsenal|gunners", "chelsea"),
        "arsenal|gunners|chelsea",
        "premier league|football|soccer|fussball",
        "Arsenal have won six of their last seven at home, and **Martin Ødegaard** is back in midfield",
        "Chelsea travel well, so this is no formality",
        "I'd recommend a bet on **Arsenal to win** at odds of 2.10, with a stake of €10.",
    ),
    _Tip(
        "Bayern München v Borussia Dortmund",
        ("bayern|munich|munchen|fcb", "dortmund|bvb"),
        "bayern|fcb|bvb",
        "bundesliga|football|soccer|fussball",
        "Both sides have scored in each of their last five meetings, and **Thomas Müller** starts again",
        "an early red card would spoil the plan",
        "I'd recommend a bet on **both teams to score** at odds of 1.65, with a stake of €20.",
    ),
    _Tip(
        "Atlético Madrid v Sevilla",
        ("atletico", "sevilla|seville"),
        "atletico",
        "la ?liga|football|soccer|fussball",
        "Atlético concede little, and **José Giménez** leads the best defence of the league",
        "Sevilla's new coach has surprised better sides",
        "I'd recommend a bet on **under 2.5 goals** at odds of 4/5, with a stake of €15.",
    ),
    _Tip(
        "Boston Celtics v Denver Nuggets",
        ("boston|celtics", "denver|nuggets"),
        "celtics",
        "basketball|nba",
        "The Celtics have rested for three days, while **Nikola Jokić** played forty minutes last night",
        "Denver's bench is deeper than it looks",
        "I'd recommend a bet on **the Boston Celtics to win** at odds of +120, with a stake of $25.",
    ),
    _Tip(
        "Świątek v Sabalenka",
        ("swiatek|iga", "sabalenka"),
        "swiatek|sabalenka",
        "tennis|wta",
        "**Iga Świątek** has dropped one set in two weeks and likes the slow court",
        "the wind may blunt her first serve",
        "I'd recommend a bet on **Świątek to win in two sets** at odds of 2.40, with a stake of €12.",
    ),
    _Tip(
        "Ireland v New Zealand",
        ("ireland|irland", "new zealand|neuseeland|all blacks"),
        "all blacks",
        "rugby",
        "Ireland's line-out has been faultless, and **Dan O'Séaghdha** kicks from anywhere",
        "the visitors' bench usually wins the last quarter",
        "I'd recommend a bet on **Ireland to win** at odds of 11/8, with a stake of €10.",
    ),
    _Tip(
        "Kansas City Chiefs v Buffalo Bills",
        ("kansas city|kansas|chiefs", "buffalo|bills"),
        "chiefs",
        "nfl|american football",
        "The Chiefs' defence gives up the fewest yards at home, and snow is expected",
        "the Bills have covered in four straight games",
        "I'd recommend a bet on **the Kansas City Chiefs to win** at odds of -140, with a stake of $20.",
    ),
    _Tip(
        "Paris Saint-Germain v Olympique de Marseille",
        ("psg|paris|saint-germain", "marseille|om"),
        "psg|saint-germain",
        "ligue ?1|football|soccer|fussball",
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


_NONE_FITS = (
    f"{NO_ANSWER} These are the matches that it knows (they are made up):\n\n"
    + "\n".join(f"- **{tip.match}**" for tip in _TIPS)
    + f"\n\nAsk about one of them, or just for a tip. {REAL_MODEL}"
)
# The words of a question for any tip, in English and German. Another word may be the name of a team.
_ANY_TIP: Final = frozenset(
    re.findall(
        r"\w+",
        """
        about advice again am an and another any anything are as at be best bet bets betting big can chance
        chances could day do does else euro euros evening favourite favourites find for friday from game games
        get give good got great has have help how idea ideas if in interesting is it just know let like likely
        looking lot make match matches may me money monday more most my need next nice night now odds of ok
        okay on one only or our outcome pick picks place play playing plays please pound pounds predict
        prediction predictions question recommend recommendation result risk safe safest saturday say see should show
        single some something sport sports stake stakes start suggest suggestion sunday sure take taking team
        tell the there thing think this thursday tip tips to today tomorrow tonight top try tuesday us value
        want was we wednesday week weekend what when where which who why will win winner winners winning wins
        with won worth would yes you your
        auf beste besten bitte das dem den der die du ein eine einen einer empfehlen empfiehlst es fur gewinne
        gewinnen gewinnt gib gibt gute guten haben hast heute ich im ist ja kannst man mir mit mittwoch montag
        morgen nachste nachsten noch oder quote quoten samstag setzen sie sind soll sonntag spiel spiele
        spielt tipp tipps und wann was welche welcher welches wem wer wette wetten wettest wie wird wochenende
        wurdest zu
        """,
    )
)
# `re` compiles the patterns below at their first use: only the demo model uses them.
# A question for any tip must contain one of these, or begin with one of the second: not all questions of common words
# are about sport.
_OF_SPORT: Final = (
    r"\b(?:bets?|betting|odds|tips?|match(?:es)?|games?|w[io]n|wins|winners?|winning|plays|playing|teams?|score|stakes?|"
    r"picks?|wette|wetten|wettest|quoten|(?:die|eine|gute|beste) quote|spiele?|spielt|gewinn(?:e|en|t)|tipps?)\b"
    r"|^\W*(?:another|next|yes|ok|okay|ja|noch)\b"
)
# A question that names a side is about a match if it has one of these: most sides have the name of a city or a country.
_OF_BETS: Final = (
    r"\b(?:bets?|betting|odds|wagers?|stakes?|match(?:es)?|games?|plays?|playing|fixtures?|money on|"
    r"w[io]n|wins|winners?|winning|beats?|beaten|loses?|(?<!^)draws?|goals?|scores?|scoring|favou?rites?|form|chances?|predict\w*|kick-?off|half-?time|"
    r"line-?ups?|tips? on|tipps? auf|handicaps?|"
    r"back|wette|wetten|wettest|quoten?|spiele?|spielt|spielen|gewinn(?:e|en|t)|siegt?|"
    r"schlagt|schlagen|verlier(?:t|en)|unentschieden|tore?)\b"
)
# Further words of such questions.
_BESIDE: Final = _ANY_TIP | frozenset(
    re.findall(
        r"\w+",
        "and away both but come cup first going gonna half home last league not over put season their they time title "
        "under whether aber auswarts beide heim nicht oder saison titel",
    )
)
# Words of a question about cities or journeys.
_ELSEWHERE: Final = (
    r"city|cities|flights?|holidays?|hotels?|live|living|trains?|travel\w*|trip|urlaub|vacation|weather|wetter|stadt"
)
# A question how to do something, or what a sport is, is no question for a tip.
_HOW_TO: Final = (
    r"^\W*(?:how (?:do|does|did|can|to)|when|where|wann|wo|wie (?:spielt|geht|kann|macht))\b"
    r"|^\W*(?:what(?: i|.)s|was ist) \w+\W*$"
)
# Words that the names of two sides may have between and beside them, in a question that is nothing but these.
_WHEN: Final = (
    r"\b(?:v|vs|versus|against|or|and|gegen|oder|und|to(?:day|night|morrow)|on|this|next|who|wer|the|weekend|heute|morgen|am|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|(?:mon|diens|donners|frei|sams|sonn)tag|mittwoch|please|bitte)\b"
)
# Words between the names of the two sides of a match.
_VERSUS: Final = r"(?i)\b(?:v|vs|versus|against|or|beats?|gegen|oder|schl[aä]gt?)\b|\s[-–]\s"  # noqa: RUF001 - a dash that people write between teams
_EXPLAIN: Final = (
    r"(?i)\b(?:explain|erkl\w+)\b[^.?!]{0,30}\b(?:odds|(?:wett)?quoten|eine quote)\b"
    r"|\bodds\b(?: of [\d/.,+-]+)? (?:mean|work)\b|\b(?:odds|quoten?)\b.{0,20}\bbedeute\w*"
    r"|\bbedeute\w* .{0,10}\bquoten?\b"
    r"|^\W*(?:what are |what is |was sind |was ist )?(?:the |die |eine )?(?:betting )?(?:odds|quoten|(?<=e )quote)\W*$"
)


def _answer(question: str) -> str:
    """Return the prepared answer to `question`; else a tip of 60 to 120 words with one recommendation; else say that
    there is no tip for it."""
    asked = question[:500]
    own = next((text for pattern, text in _ANSWERS if matches(pattern, asked)), None)
    if (written := own or prepared(question)) is not None:
        return written
    if (named := _named(asked)) is not None:
        return _write(named)
    if re.search(_EXPLAIN, asked):
        return _ODDS
    tip = _any(asked)
    return _NONE_FITS if tip is None else _write(tip)


def _named(question: str) -> _Tip | None:
    """The tip about a match whose side the question names; None if there is none, or it is about something else."""
    text = _plain(question)
    count, best = max(((sum(_names(side, text) for side in tip.sides), -at) for at, tip in enumerate(_TIPS)))
    tip = _TIPS[-best]
    names = "|".join((*tip.sides, tip.sport))
    rest = re.sub(rf"\b(?:{names})\b", " ", text)
    placed = re.search(rf"\b(?:in|to|near|around|from|visit|nach|aus)\s+(?:{names})\b", text)
    if not count or placed or re.search(rf"\b(?:{_ELSEWHERE})\b", rest):
        return None
    of_bets = re.search(_OF_BETS, rest) is not None
    if count == 2:
        return tip if of_bets or not _unknown(re.sub(_WHEN, " ", rest), frozenset()) else None
    is_a_side = _names(tip.names, text)
    if not _unknown(re.sub(_OF_BETS, " ", rest), _BESIDE):
        return tip if of_bets or is_a_side or not _unknown(re.sub(_WHEN, " ", rest), frozenset()) else None
    # An unknown word: it may be the opponent, or what a city or a country is asked about.
    return tip if of_bets and is_a_side and not re.search(_VERSUS, question) else None


def _any(question: str) -> _Tip | None:
    """A tip for the sport that is named, or any tip if none is; None if the question may be about something else."""
    text = _plain(question)
    if any(_names(side, text) for tip in _TIPS for side in tip.sides):
        return None
    of_sport = [tip for tip in _TIPS if _names(tip.sport, text)]
    known = {word for tip in of_sport for found in re.findall(rf"\b(?:{tip.sport})\b", text) for word in found.split()}
    if _unknown(text) - known or re.search(_HOW_TO, text) or not (of_sport or re.search(_OF_SPORT, text)):
        return None
    return (of_sport or _TIPS)[number(question) % len(of_sport or _TIPS)]


def _unknown(text: str, common: frozenset[str] = _ANY_TIP) -> set[str]:
    return set(re.findall(r"[^\W\d_]{2,}", text)) - common


def _names(names: str, text: str) -> bool:
    return re.search(rf"\b(?:{names})\b", text) is not None


def _plain(text: str) -> str:
    """`text` in lower case and without accents, as people type names."""
    apart = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    return "".join(one for one in apart if not unicodedata.combining(one)).casefold()


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
"""The value of the plug-in's `demo`."""
