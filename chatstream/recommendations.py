"""Finds the bets an answer recommends. Pure: text in, recommendations out.

An answer is English prose, often Markdown. It is read as *passages*: sentences, list items, table rows, without marks.
A passage counts if it recommends something **and** marks a number as odds ("odds of 2.10", "@ 5/2", "(+150)"); what is
negated, past, hypothetical or asked counts for nothing. Precision before recall: when unsure, no recommendation. No
number is made up: each is read off the text. Repeats in the patterns are bounded or possessive, and a passage is short:
the time is linear in the text. Past 200 lines because half of it is vocabulary, best read beside its reader.
"""

import re
from collections.abc import Callable, Iterator

from chatstream.models import Recommendation

Extractor = Callable[[str, str], tuple[Recommendation, ...]]
"""``(answer_id, text) -> recommendations``: same input, same output, and it never raises."""

_MOST = 20  # more bets than this are a price list, not advice; each is stored with the answer and sent as an event
_HIGHEST_ODDS = 10_000  # the longest shots on offer pay a few thousand to one; a higher number is something else
_DECIMALS = 4  # -110 is 1.909090...: enough to reckon with, without binary noise
# Code points: a longer sentence is none, a longer name names no bet, a longer heading heads no column, and the word
# that makes a number a line or a time stands no further before it.
_LONGEST_PASSAGE, _LONGEST_NAME, _LONGEST_HEADING, _NEAR = 1_000, 200, 50, 100


def _pattern(source: str) -> re.Pattern[str]:
    return re.compile(source, re.IGNORECASE | re.VERBOSE)


# In the patterns \u2013 is an en dash, \u2014 an em dash, \u2212 a minus sign, \u2019 an apostrophe.
# From text to passages. Marks go, unless glued between two letters or digits: "2*1" must not become "21".
_LINK = _pattern(r"(?<![\w)]) \[ ([^\[\]]{1,200}) \] \( [^()\s]{0,500} \) (?![\w\[])")
_MARKS = _pattern(r"(?<![*_`]) (?: (?<!\w)[*_`]++ | [*_`]++(?!\w) )")
_BULLET = _pattern(r"[\s>]*+ (?: [-*+•] | [0-9]{1,3}[.)] ) \s")
_LEADING = _pattern(r"^(?: [>#•\s] | (?: [-+] | [0-9]{1,3}[.)] ) (?=\s) )++")
_BOLD_LINE = _pattern(r"\s*+ \*\* [^*]++ \*\* \s*+")
_SENTENCE_END = _pattern(
    r"""(?<=[.!?]) (?<!\bvs\.) (?<!\bv\.) (?<!\bSt\.) \s
    | ,?\s (?: but | because | since | although | though | while | whereas | however | as\sthey ) \s"""
)
_CONTINUES = _pattern(  # "Odds: 2.10" and "Stake: €10" belong to the bet named before them
    r"""(?: (?: the | best | current | suggested | recommended | approximate | decimal | american ) \s ){0,3}
    (?: odds\b | price\s?: | (?:stake|wager|amount)\s?(?: : | of\b | is\b | size ) )"""
)
_ANNOUNCES = _pattern(  # a heading over a list of recommendations
    r"""^bets?:?$ | \b(?: recommend\w* | suggest\w* | picks? | tips | selections? | (?: best | top | my | our | value
    | safest | today['\u2019]s ) \s (?:[\w-]{1,15}\s){0,2} (?:bets?|tip|plays?|choices?) )\b"""
)

# From passages to numbers marked as odds. What only begins like odds is kept off: a range, a date, a percentage,
# odds-on ("5/1 on"), a count, a time. A bare "at" says least: what follows must be the end of the phrase.
_ODDS = _pattern(
    r"""(?:
      (?P<named> (?: (?<!fair\s)(?<!true\s)(?<!implied\s)\bodds\b | \bpriced?\b(?=\s?(?:at|of|:)) | (?<!\w)@ )
        (?: \s?(?: [:=(~\u2013\u2014]
                 | \b(?:of|at|are|is|currently|around|about|roughly|decimal|american|fractional)\b\)? ) ){0,4} \s? )
    | (?P<at> \bat\s (?:(?:around|about|roughly)\s)? )
    | (?P<bracket> \( )
    | (?P<bare> (?<![\w.,/:@$€£%+\u2212-]) ) )
    (?P<text> (?P<american> [+\u2212-][1-9][0-9]{2,4} ) | [0-9]{1,4}/[1-9][0-9]{0,2} | (?P<evens> evens | even\smoney )
      | [0-9]{1,5}[.][0-9]{1,3} | (?P<loose> [0-9]{1,4}(?:-|\sto\s)[1-9][0-9]{0,2} | [0-9]{1,3},[0-9]{2} ) )
    (?! [\w%€$£] | [.,:/\u2212\u2013-][0-9] | \s?% | \s?[\u2013\u2014-]\s?[0-9]{1,5}[./][0-9]
      | \s(?:to|and)\s[+\u2212-]?[0-9] | \son\s?(?:[.,;)]|$) | \s(?:of|goals?|points?|units?|season|a\.?m|p\.?m)\b )
    (?P<tail> \sodds\b )? (?(bare)(?<=odds))
    (?(at)(?= \s?(?:[^\w\s]|$) | \s(?:with|on|for|and|or|at|is|are|looks?|offers?|represents?|would)\b ))
    (?: \s?\( [+\u2212-]?[0-9]{1,5}(?:[./][0-9]{1,3})? \) )?  # the same odds in another notation"""
)
# Without any of these no number is marked as odds, and nothing else need be read. Plain words, and patterns that begin
# with some: looked for so, 8,500 characters take 19 us; in one pattern it was 300; all the rest takes 1,700.
_HINTS = ("odds", "price", "@", "(", "evens")
_HINT_PATTERNS = (re.compile(r"at(?<!\wat)\s"), re.compile(r"even\smoney"))
_LINE = _pattern(r"\b(?: over | under | line | total | handicap | spread )s?\b")  # then "at 2.5" is no odds
_OTHER = _pattern(  # then "at 7.30" or "at 7/10" is none
    r"\b(?: kick(?:s|ing)?[\s-]?off | starts? | begins? | tip-?off | confiden\w+ | rat(?:e|ed|ing) | limit | xg )\b"
)

# From passages to what recommends, to names and to stakes.
_MONEY = r"""(?: [€$£]\s?[0-9]{1,7}(?:[.,][0-9]{1,3}){0,2} (?:\s?[\u2013-]\s?[€$£]?[0-9]{1,7})? (?!\w)
    | (?<![\w.,]) [0-9]{1,7}\s? (?: € | (?:euros?|dollars?|pounds?)\b ) )"""
_UNITS = r"""(?: (?<![\w.,]) (?:[0-9.]{1,5}\s?(?:-|\u2013|to)\s?)? [0-9]{1,5}(?:[.,][0-9]{1,2})?
    (?: [\s-]?(?:units?|u)\b | \s?%\s(?:of\s)?(?:[a-z]{2,7}\s){0,2}bankroll\b ) )"""
_UP_TO = r"(?: (?:no\smore\sthan | at\smost | up\sto | a\smaximum\sof)\s )?"
_STAKE = _pattern(
    rf"""\b(?: stak(?:e|ing) | wager(?:ing)? | bet(?:ting)? | put(?:ting)? | risk(?:ing)? | plac(?:e|ing) )\b
      (?: :?\s(?: of | is | at | a | just | only | around | about | size )\b ){{0,3}} :?\s
      ({_UP_TO} (?: {_MONEY} | {_UNITS} | [0-9]{{1,2}}(?:[.][0-9])?\s?%(?!\w) ))
    | ({_UP_TO} {_MONEY}) \s(?:stake|bet|wager|on)\b
    | (?<!profit\sof\s)(?<!return\sof\s) ({_UP_TO} {_UNITS})"""
)
_BET = r"(?: bets? | picks? | tips? | plays? | choice | selections? | recommendations? | nap | value )"
_LEADS = (  # to the name of a bet, the surest first: "Best bet: ...", "put €10 on ...", "I'd back ..."
    _pattern(
        rf"""\b{_BET}\b(?!\stype) (?:\s[\w#]{{1,15}}){{0,4}}?
        \s? (?: : | \bis\b | \bwould\sbe\b | [\u2013\u2014]\s | -\s )"""
    ),
    _pattern(
        rf"""(?: \b(?:bets?|betting|wager|wagering|punt|stake|staking|money)\s (?:of\s)? | (?={_MONEY}|{_UNITS}) )
        (?:(?:{_MONEY}|{_UNITS})\s)? on\s"""
    ),
    _pattern(
        r"""(?: (?:^|[:;])\W{0,3}
            | \b(?:I|we|you) (?: ['\u2019](?:d|ll|m|re) | \s(?:would|will|should|could|can|might) )?\s
              (?: (?:also|personally|definitely|probably|strongly|really|happily)\s )? )
            (?: back|bet|take|taking|play|pick|like|love|choose|suggest|advise|consider|lean\stowards? )\b
        | \b(?: recommend(?:ing)? | backing | go(?:ing)?\s(?:for|with) | opt\sfor | side\swith | value\s(?:in|on) )\b"""
    ),
)
_PRAISE = _pattern(  # behind the name of a bet, or behind its odds
    rf"""\s(?: is | are | looks?(?:\slike)? | offers? | represents? | seems? | would\sbe )\s
    (?:[\w-]{{1,15}}\s){{0,3}}? (?:{_BET}|worth)\b"""
)
_JOINED = _pattern(r"(?: , | ,?\s(?:and|plus|&) )\s")
_BEHIND = _pattern(r"\s(?:on|for)\s ([^,;.(]{1,200}?) (?= \swith\b | [,;.(] | $ )")
_NAME_ENDS = _pattern(rf"; | \s(?:with|for|using|and)\s (?:[a-z]{{1,9}}\s){{0,2}}? (?: stake\b | {_MONEY} | {_UNITS} )")
_BEFORE_NAME = _pattern(
    "(?: a|an|the|on|of|for|with|i|think|that|you|your|bets?|betting|back|backing|taking|going|placing|small )?"
)
_AFTER_NAME = _pattern(
    """(?: a|an|the|at|is|are|with|of|for|on|and|or|in|which|currently|now|best|available|priced|offered|quoted
    | have|has|odds|its|their|combined|good|decent|attractive )?"""
)
_QUOTES = "\"'“”\u2018\u2019"
_SIGNS = " ,;:!|(-\u2013\u2014" + _QUOTES
_UNWANTED = _pattern(  # negated, past, hypothetical, or told of others
    r"""n['\u2019]t\b | \b(?: not | never | cannot | avoid\w* | skip\w* | steer\sclear | stay\saway | fade | lay
    | pass\son | bet(?:ting)?\sagainst | (?<!draw\s)no\s(?:bet|value) | instead\sof | rather\sthan | unless | risky
    | overpriced | too\sshort | (?:bad|poor|terrible|little|less|worse)\s(?:bet|value|pick|choice) | was | were
    | had\sbeen | would\shave | yesterday | previously | opened | drifted | last\s(?:week|month|season|year|night)
    | if\s(?:you|someone|a\sbettor)\s(?:bet|back|put|place|wager|stake|had|were) | would\s(?:return|pay|win|give|yield)
    | (?:if|when)\sthe\s(?:odds|price|line) | once | until | wait\w* | compar\w+ | look\s(?:at|for)
    | returns | means | implies | example | e\.g | suppose | imagine | hypothetical\w*
    | (?:punters|bettors|people|fans|public)\s(?:bet|back|like|are) )\b"""
)


def extract(answer_id: str, text: str) -> tuple[Recommendation, ...]:
    """The bets `text` recommends, in its order, 20 at most; one that is repeated counts once.

    `bet_id` is ``bet-<answer_id>-<n>``, n from 1: a replay of the same answer gives the same ids.
    """
    plain = text.casefold()
    if not (any(hint in plain for hint in _HINTS) or any(pattern.search(plain) for pattern in _HINT_PATTERNS)):
        return ()
    found: list[Recommendation] = []
    for passage, announced in _passages(text):
        if len(passage) > _LONGEST_PASSAGE or passage.endswith("?"):
            continue
        marked = [(match, odds) for match in _ODDS.finditer(passage) if (odds := _decimal(match))]
        if not marked or _UNWANTED.search(passage):
            continue
        begin, joined = 0, False
        for (match, odds), end in zip(marked, [*(match.start() for match, _ in marked[1:]), len(passage)], strict=True):
            before, after = passage[begin : match.start()], passage[match.end() : end]
            name = _name(before, after, announced=announced and not begin, joined=joined)
            joined = name is not None
            # Without a name, only the first odds of a sentence are clear, and only if called odds.
            if name is not None and (name or (match["named"] and not begin)) and not _is_known(name, odds, found):
                # With several odds in a passage it is not sure whose the stake is.
                stake = (_STAKE.search(before) or _STAKE.search(after)) if len(marked) == 1 else None
                found.append(
                    Recommendation(
                        bet_id=f"bet-{answer_id}-{len(found) + 1}",
                        odds=odds,
                        odds_text=match["text"],
                        selection=name or None,
                        stake=stake[stake.lastindex or 0] if stake else None,
                    )
                )
                if len(found) == _MOST:
                    return tuple(found)
            begin = match.end()
    return tuple(found)


def _passages(text: str) -> Iterator[tuple[str, bool]]:
    """Sentences, list items and table rows in plain text, each with whether a heading announces it as recommended."""
    passage, passage_announced, announced, headed = "", False, False, False
    columns: list[str] = []
    for line in text.splitlines():
        plain = _LEADING.sub("", " ".join(_MARKS.sub("", _LINK.sub(r"\1", line)).split()))
        if plain.startswith("|"):
            yield passage, passage_announced
            cells = [cell.strip() for cell in plain.strip("|").split("|")]
            # The name first, whatever the order of the columns.
            row = sorted(zip(columns, cells, strict=False), key=lambda cell: bool(_CONTINUES.match(f"{cell[0]}:")))
            passage, passage_announced = "; ".join(f"{column}: {cell}" for column, cell in row), False
            columns = columns or [cell[:_LONGEST_HEADING] for cell in cells]
            continue
        columns = []
        if not plain:
            continue
        listed = bool(_BULLET.match(line))
        heading = not listed and (
            plain.endswith(":") or line.lstrip().startswith("#") or bool(_BOLD_LINE.fullmatch(line))
        )
        for number, sentence in enumerate(_SENTENCE_END.split(plain)):
            if _CONTINUES.match(sentence) and not _UNWANTED.search(sentence) and len(passage) <= _LONGEST_PASSAGE:
                passage = f"{passage}; {sentence}"
            else:
                yield passage, passage_announced
                passage = sentence
                passage_announced = announced and not number and (listed or (headed and not heading))
        # A heading announces the list below it, or the one line.
        headed = heading
        if heading:
            announced = bool(_ANNOUNCES.search(plain)) and not _UNWANTED.search(plain)
        elif not (listed or line[0].isspace() or _CONTINUES.match(plain)):
            announced = False
    yield passage, passage_announced


def _decimal(match: re.Match[str]) -> float | None:
    """What a match of `_ODDS` is worth as decimal odds; None if the text does not clearly mark it as odds."""
    text, near = match["text"], (max(0, match.start() - _NEAR), match.start())
    if not match["named"]:
        sign = match["at"] or match["tail"] or (match["bracket"] and (match["american"] or match["evens"]))
        line = match["at"] and text.endswith(".5") and _LINE.search(match.string, *near)
        if match["loose"] or not sign or line or (match["at"] and _OTHER.search(match.string, *near)):
            return None
    if match["evens"]:
        return 2.0
    if match["american"]:
        hundreds = int(text[1:]) / 100
        odds = 1 + (hundreds if text[0] == "+" else 1 / hundreds)
    else:
        first, *second = (float(number) for number in re.split("[^0-9.]+", text.replace(",", ".")))
        odds = 1 + first / second[0] if second else first
    return round(odds, _DECIMALS) if 1 < odds <= _HIGHEST_ODDS else None


def _name(before: str, after: str, *, announced: bool, joined: bool) -> str | None:
    """The name of the bet whose odds stand between `before` and `after`; `joined`: so may the odds before have been.

    Empty if a bet is recommended but not named, None if nothing is recommended.
    """
    if joined and (joint := _JOINED.match(before)):
        return _trimmed(before[joint.end() :]) or None
    leads = [lead for pattern in _LEADS if (lead := pattern.search(before))]
    for lead in leads:
        if name := _trimmed(before[lead.end() :]):
            return name
    if leads:
        behind = _BEHIND.match(after)
        return _trimmed(behind[1]) if behind else ""
    if praise := _PRAISE.search(before) or _PRAISE.match(after):
        before = before[: praise.start()] if praise.string == before else before
        return None if "," in before else _trimmed(before) or None
    return (_trimmed(before) or None) if announced else None


def _trimmed(stretch: str) -> str:
    """`stretch` without the words and signs around the name in it; empty if nothing is left, or too much for a name."""
    words = _NAME_ENDS.split(stretch, maxsplit=1)[0].split()
    while words and _AFTER_NAME.fullmatch(words[-1].strip(_SIGNS)):
        words.pop()
    while words and _BEFORE_NAME.fullmatch(words[0].strip(_SIGNS)):
        words.pop(0)
    name = " ".join(words).lstrip(_QUOTES).rstrip(_SIGNS + ".")
    return name if len(name) <= _LONGEST_NAME else ""


def _is_known(name: str, odds: float, found: list[Recommendation]) -> bool:
    """Whether a bet at these odds has this name, or a shorter or longer form of it ("Arsenal", "Arsenal to win")."""
    names = [(bet.selection or "").casefold() for bet in found if bet.odds == odds]
    return any(name.casefold() in known or known in name.casefold() for known in names)
