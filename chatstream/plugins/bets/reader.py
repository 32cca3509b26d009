"""Finds the bets that an answer recommends. Does no I/O: text in, recommendations out.

To show a bet that nobody recommended is much worse than to miss one. So only known forms count as a recommendation:

- a clause that begins with one, without a condition, and names a bet with odds ("I'd back Arsenal at 2.10");
- a list, a table or lines of keys and values under a heading that recommends them.

Explanations, reports, quotations, offers, refusals and suppositions do not count, nor a bet that a later sentence
withdraws. Every number comes from the text. Reads English only, in time linear in the text.

The module is long because the meaning of a sentence depends on its context: one pass reads all, with one state.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise

from msgspec import Struct, field

from chatstream.plugins.bets import vocabulary as words
from chatstream.plugins.bets.hints import may_name_a_bet
from chatstream.plugins.bets.markup import Kind, Line, lines
from chatstream.plugins.bets.recommendation import Recommendation
from chatstream.plugins.bets.voids import Written, is_dismissive, voids

Extractor = Callable[[str, str], tuple[Recommendation, ...]]
"""``(answer_id, text) -> recommendations``: same input, same output, and it never raises."""

MOST = 20  # maximum number of bets that are returned; a longer list is a price list, not advice
_KEPT = 2 * MOST  # maximum number of bets while reading: later sentences may withdraw some
_HIGHEST_ODDS = 10_000  # decimal; real odds reach a few thousand, a higher number is something else
_DECIMALS = 4  # decimal places of the odds: -110 is 1.909090...
# Longest sentence, name of a bet and cell of a table that are read, in code points; and the maximum distance between a
# number and a word before it that makes it a handicap or a time.
_LONGEST_PASSAGE, _LONGEST_NAME, _LONGEST_CELL, _NEAR = 1_000, 200, 200, 100
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DAY_KEYS = ("date", "day", "time", "kick-off")
_LONGEST_HEADING_WORDS = 8
_FEW_WORDS = 4  # "Got it." is about the next lines; "They won again." may not be
_FOREIGN_WORDS = 3  # this many foreign words mean a foreign text: a foreign name has only one or two
_TELLING = 5_000  # code points from which an answer's language is detected
_LONGEST_ENTRY = 2  # lines of a paragraph below a heading that name a bet
_HIGHEST_DOUBTFUL = 34.0  # decimal odds; a higher number is a price, unless the text calls it odds
_HIGHEST_PLAIN = 8.0  # highest decimal odds marked only by "@": most odds are lower, most prices of goods are higher
_LOWEST_LEVEL = 7
_REASONS = ("", "because", "since", "as they")
_BETS = re.compile(
    r"\b(?:back|wager|put|stake|backing)(?![\w-])|(?<!st\s)\bbet(?:ting)?\s(?:on|the|[\u20ac$\u00a30-9])", re.IGNORECASE
)
_BETS_AT_ALL = re.compile(r"(?<!best\s)\bbet(?:s|ting)?\b", re.IGNORECASE)
_THAT = re.compile(r"\b(?:it|this|that|they)\b|pulled out|lost|misread", re.IGNORECASE)
_OF_ANOTHER = re.compile(r"\W*(?:[Ff]or|[Ii]n|[Aa]s for|[Oo]n|[Ww]ith)\s(?:the\s)?[A-Z]")
_SIGNED = re.compile(r"[+\u2212-][0-9]")
_QUOTES = "\"'\u201c\u201d\u2018\u2019"
_SIGNS = " ,;:!|(-\u2013\u2014~" + _QUOTES
_NAME = re.compile(r"[A-Z][\w-]{2,}")
_ODDS_WORD = re.compile(r"\bodds\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+")
_FOREIGN_LETTER = re.compile(r"[\u0370-\u1dff\u2c80-\ua8ff\uac00-\ufdff]")


class _Bet(Struct, kw_only=True):
    """A bet that was found, with its position, which is needed to withdraw it."""

    odds: float
    odds_text: str
    selection: str
    stake: str | None
    passage: str
    paragraph: int
    advised: bool = False  # by an imperative or a label, which explanations use, too; False: by "I"


class _Paragraph(Struct, kw_only=True):
    """Lines that belong together."""

    kind: Kind
    lines: list[Line] = field(default_factory=list)

    @property
    def last(self) -> str:
        return self.lines[-1].text if self.lines else ""


def extract(answer_id: str, text: str) -> tuple[Recommendation, ...]:
    """Return the bets that `text` recommends: in order, without duplicates, 20 at most.

    `bet_id` is ``bet-<answer_id>-<n>``, n from 1: a replay of the same answer gives the same ids.
    """
    if not may_name_a_bet(text) or _is_foreign(text[:_TELLING]):
        return ()
    written = Written(answer_id)
    said = [*lines(text)]
    if voids(_said(said), written) or _are_dismissed(said) or any(map(_is_clearly_foreign, _said(said))):
        return ()
    return tuple(
        Recommendation(
            bet_id=f"bet-{answer_id}-{number}",
            odds=bet.odds,
            odds_text=bet.odds_text,
            selection=bet.selection or None,
            stake=bet.stake,
        )
        for number, bet in enumerate(_Reading(text, written).read(_paragraphs(said)), 1)
    )


def _are_dismissed(source: Iterable[Line]) -> bool:
    """Whether a short sentence after a bet may dismiss it."""
    named = False
    for line in source:
        for sentence in words.SENTENCE_END.split(line.text) if line.kind is Kind.PLAIN else ():
            if named and is_dismissive(sentence):
                return True
            named = named or bool(words.ODDS.search(sentence))
        named = named or bool(words.ODDS.search(line.text))
    return False


def _said(source: Iterable[Line]) -> Iterator[str]:
    """Yield the sentences of prose, lists and headings; also the part after each semicolon as a sentence of its own."""
    for line in source:
        if line.kind is not Kind.CODE:
            for sentence in words.SENTENCE_END.split(line.text):
                if len(sentence) <= _LONGEST_PASSAGE:
                    yield sentence
                    yield from sentence.split("; ")[1:]


def _paragraphs(source: Iterable[Line]) -> list[_Paragraph]:
    """Group lines into paragraphs: a heading, list, table, code block or run of plain lines each."""
    found: list[_Paragraph] = []
    gap = True
    for line in source:
        if line.kind is Kind.BLANK:
            gap = True
            continue
        last = found[-1] if found else None
        kind = line.kind
        if kind is Kind.HEADING and line.level == _LOWEST_LEVEL and words.ODDS.search(line.text):
            kind = Kind.PLAIN  # a bet in bold
        if last is not None and last.kind is Kind.ITEM and kind is Kind.PLAIN and (line.indented or not gap):
            kind = Kind.ITEM
        alone = kind in (Kind.HEADING, Kind.CODE)
        if last is not None and last.kind is kind and not alone and (not gap or kind is Kind.ITEM):
            last.lines.append(line)
        else:
            found.append(_Paragraph(kind=kind, lines=[line]))
        gap = False
    for before, after in pairwise(found):
        alone = before.kind is Kind.PLAIN and len(before.lines) == 1 and after.kind is not Kind.HEADING
        if alone and _is_title(before.last):
            before.kind = Kind.HEADING
    return found


def _is_title(text: str) -> bool:
    return (
        len(text.split()) <= _LONGEST_HEADING_WORDS
        and text[-1] not in ".!?;,:"
        and not words.ODDS.search(text)
        and not words.FIELD.fullmatch(text)
    )


class _Reading:
    """One pass over an answer's paragraphs."""

    def __init__(self, text: str, written: Written) -> None:
        self._text = text
        self._written = written
        self._bets: list[_Bet] = []
        self._number = 0  # the paragraph's number
        self._announced = False  # the heading or introduction above says that recommended bets follow
        self._card = False  # ... but the list that follows may be of fixtures
        self._several = False  # ... and that one combined bet follows: its legs are not recommended alone
        self._listed = False
        self._legs: list[str] = []
        self._silent_level: int | None = None  # level of the heading below which nothing is recommended
        self._level = 0
        self._silenced: Kind | None = None  # kind of paragraph whose introduction says: no recommendations
        self._quoted = False  # ... since the paragraph quotes somebody else
        self._introduction = ""
        self._before = ""  # the last sentence, or the heading, before the paragraph
        self._named: tuple[str, str] | None = None  # bet in the heading, with its odds below: "**Bet 1: Arsenal**"
        self._follows_bets = False  # the previous paragraph named bets
        self._keyed_at = -1  # the last paragraph whose keys or columns gave a bet

    @cached_property
    def _speaks_of_betting(self) -> bool:
        return bool(words.BETTING.search(self._text) or _BETS_AT_ALL.search(self._text))

    def read(self, paragraphs: Sequence[_Paragraph]) -> list[_Bet]:
        """Return the bets in the order of the text."""
        for self._number, paragraph in enumerate(paragraphs):
            if paragraph.kind is Kind.HEADING:
                self._head(paragraph.lines[0])
                continue
            self._introduce(paragraph)
            if self._listed and paragraph.kind is Kind.PLAIN:
                self._announced = False
            self._disown(paragraph)
            if self._silent_level is not None or self._silenced is not None:
                self._only_take_back(paragraph)
            elif paragraph.kind is Kind.ROW:
                self._table(paragraph)
            elif paragraph.kind is Kind.CODE:
                self._code(paragraph)
            else:
                self._prose(paragraph)
            if paragraph.kind in (Kind.ITEM, Kind.ROW):
                self._listed = True  # the announced list has begun, and ends with this kind of paragraph
            named = self._legs or any(bet.paragraph == self._number for bet in self._bets)
            if paragraph.kind is Kind.PLAIN and not named:
                self._announced = False  # plain text without a bet ends the announcement of a heading
            last = words.SENTENCE_END.split(paragraph.last)[-1]
            self._introduction = last if last.endswith(":") else ""
            self._before = last
            self._follows_bets = bool(named)
            self._named = None
        return self._bets[:MOST]

    def _head(self, line: Line) -> None:
        level = line.level or _LOWEST_LEVEL
        if self._silent_level is not None and level <= self._silent_level:
            self._silent_level = None
        self._level, self._silenced, self._introduction = level, None, ""
        pair = _field(line.text)
        if pair and _is_pick(pair[0]):
            self._named = pair
        else:
            self._named, self._before, self._follows_bets = None, line.text, False
        if self._silent_level is not None:
            return
        if self._written.is_past(line.text) or (
            words.is_silent(line.text) and not (words.LABEL.match(line.text) and not words.UNWANTED.search(line.text))
        ):
            self._announced, self._silent_level = False, level
            return
        self._announce(line.text)
        for sentence in words.SENTENCE_END.split(line.text):
            self._sentence(sentence, announced=False, advised=True)

    def _announce(self, text: str) -> None:
        self._announced = words.announces(text) and not words.is_silent(text)
        self._card = bool(words.CARD.search(text))
        self._several = bool(words.MULTIPLE.search(text))
        self._legs = []
        self._listed = False

    def _introduce(self, paragraph: _Paragraph) -> None:
        """Apply the introduction in the line above ("Here is what others say:") to this paragraph."""
        introduction, self._introduction = self._introduction, ""
        if introduction:
            if self._written.is_past(introduction):  # bets of the past, until the next heading
                self._announced, self._silent_level = False, _LOWEST_LEVEL
                return
            if words.is_silent(introduction):
                self._announced, self._silenced = False, paragraph.kind
                self._quoted = bool(words.QUOTES.search(introduction))
                return
            if words.announces(introduction):
                self._announce(introduction)
            elif paragraph.kind is Kind.PLAIN and not words.LEADS_IN.search(introduction):
                self._announced, self._silenced, self._quoted = False, Kind.PLAIN, True
                return
        if self._silenced is None or paragraph.kind is not Kind.PLAIN:
            return
        # The end of a quoted list is clear. Quoted paragraphs go on until the writer clearly speaks for themselves.
        own = not self._quoted and words.OWN_VOICE.match(paragraph.lines[0].text)
        if own or self._silenced is not Kind.PLAIN:
            self._silenced = None

    def _only_take_back(self, paragraph: _Paragraph) -> None:
        for line in paragraph.lines:
            for sentence in words.SENTENCE_END.split(line.text):
                self._take_back(sentence)

    # Prose and lists --------------------------------------------------------------------------------------------------

    def _prose(self, paragraph: _Paragraph) -> None:
        first = len(self._bets)
        listed = paragraph.kind is Kind.ITEM
        announced = self._announced and (listed or len(paragraph.lines) <= _LONGEST_ENTRY)
        advised = True
        for entry in _entries(paragraph.lines) if listed else [paragraph.lines]:
            if self._legs and self._combine(entry):
                continue
            if pairs := _fields(entry):
                self._keyed(pairs)
            elif announced and len(entry) > 1 and (points := words.POINTS.fullmatch(entry[1].text)):
                self._pointed(entry[0].text, points)
            else:
                for line in entry:
                    advised = self._line(line, announced=announced, advised=advised)
                    if self._silent_level is not None:
                        return
        if self._announced and self._card:
            self._bets[first:] = [bet for bet in self._bets[first:] if bet.stake]
        if self._announced and self._several and len(self._bets) > first:
            self._legs += [bet.selection for bet in self._bets[first:]]
            del self._bets[first:]

    def _line(self, line: Line, *, announced: bool, advised: bool) -> bool:
        """Read one line; returns whether an imperative in the lines below is still the writer's own advice."""
        listed = line.kind is Kind.ITEM
        concerned = bool(words.ODDS.search(line.text)) or any(bet.paragraph == self._number for bet in self._bets)
        for place, sentence in enumerate(_joined(words.SENTENCE_END.split(line.text))):
            if words.FIRST_PERSON.search(sentence):
                sentence = words.ASIDE.sub("", sentence)
            if words.EXAMPLE.search(sentence):
                self._silent_level = self._level
                return False
            self._take_back(sentence)
            if not concerned:
                advised = advised and not words.TEACHES.search(sentence) and not words.QUOTES.search(sentence)
                continue
            here = [bet for bet in self._bets if bet.paragraph == self._number]
            if here and words.CONDITION_FOLLOWS.search(sentence):
                self._bets.remove(here[-1])
                continue
            if words.TEACHES.search(sentence):
                if not listed:
                    self._bets = [bet for bet in self._bets if bet not in here or not bet.advised]
                    advised = False
                continue
            advised = advised and not words.QUOTES.search(sentence)
            before = len(self._bets)
            self._sentence(
                sentence, announced=announced and not place, advised=advised, labels_only=line.kind is Kind.QUOTE
            )
            if len(self._bets) == before:
                self._stake_of_the_last(sentence)
        return advised

    def _pointed(self, name: str, points: re.Match[str]) -> None:
        """Read a tipster's form: a name, and below it stake, odds and bookmaker ("2pts 19-10 Coral")."""
        odds = words.ODDS.match(f"odds {points['text']}")
        value = _decimal(odds) if odds else None
        if value and not words.UNWANTED.search(name) and not words.HAS_VERB.search(name):
            self._add(_trimmed(name), value, points["text"], points[1].strip(), name, advised=True)

    def _sentence(self, sentence: str, *, announced: bool, advised: bool, labels_only: bool = False) -> None:
        """Find the bets of one sentence. It is split at words such as "but" and "because"."""
        if len(sentence) > _LONGEST_PASSAGE or self._one_of_several(sentence) or not words.ODDS.search(sentence):
            return
        if _is_foreign_bet(sentence) or words.DENIES.match(sentence):
            return
        clauses = _clauses(words.OPENER.sub("", sentence))
        for number, (_, clause) in enumerate(clauses):
            turn, behind = clauses[number + 1] if number + 1 < len(clauses) else ("", "")
            takes_back = turn == "except" or words.TAKES_BACK.search(behind)
            if turn not in _REASONS and takes_back and not _leads(behind):
                continue
            self._clause(clause, announced=announced and not number, advised=advised, labels_only=labels_only)

    def _clause(self, clause: str, *, announced: bool, advised: bool, labels_only: bool) -> None:
        marked = [
            (match, odds)
            for match in words.ODDS.finditer(clause)
            if (odds := _decimal(match)) and not words.PLACES.match(clause[match.end() :])
        ]
        if not marked:
            return
        reason = words.REASON.search(clause, marked[-1][0].end())
        said = clause[: reason.start()] if reason else clause
        if reason and words.CONDITION.search(clause, marked[-1][0].end()):
            return
        if (
            self._written.is_past(said)
            or words.UNWANTED.search(said)
            or words.CONCEDES.match(said)
            or words.SOLD.search(clause)
        ):
            return
        behind = words.SAID_BY.match(clause, marked[-1][0].end())
        if behind and not words.BOOKMAKER.search(behind[0]):
            return
        if len(marked) > 1 and words.MULTIPLE.search(said):
            return  # the legs of one bet
        begin, joined = 0, False
        ends = [*(match.start() for match, _ in marked[1:]), len(said)]
        for (match, odds), end in zip(marked, ends, strict=True):
            before, after = said[begin : match.start()], said[match.end() : end]
            first, begin = not begin, match.end()
            name, own = _name(before, after, announced=announced and first, joined=joined, labels_only=labels_only)
            joined = name is not None
            if name is None or not (own or advised) or not self._is_of_a_bet(said, match, odds, name, announced):
                continue
            # "I recommend a walk. The odds are 2.10."
            if words.CARE.search(name) or ("; " in before and name.islower() and not words.BETTING.search(name)):
                continue
            # Without a name, only the first odds of a sentence are clear, and only if called odds.
            if name or (first and _is_called_odds(match)):
                # With several odds in a passage it is not clear to which bet the stake belongs.
                stake = _stake(before, after) if len(marked) == 1 else None
                amount = stake[stake.lastindex or 0] if stake else None
                self._add(name, odds, match["text"], amount, clause, advised=not own)

    def _is_of_a_bet(self, said: str, match: re.Match[str], odds: float, name: str, announced: bool) -> bool:
        """Whether the number is odds and not the price of, say, a wine: the clause must mention betting, too."""
        if _is_called_odds(match) or words.BETTING.search(
            f"{said[: match.start()]} {match['text']} {said[match.end() :]}"
        ):
            return True
        if match["priced"] or odds > _HIGHEST_DOUBTFUL or not name[:1].isupper():
            return False
        if _BETS.search(said[: match.start()]) or (announced and self._speaks_of_betting):
            return True
        # "My pick: Arsenal @ 2.10". If the pick is a lens or a wine, the answer says so somewhere.
        own = words.OWN_PICK.match(said)
        return bool(own and match["sign"] and odds <= _HIGHEST_PLAIN and not words.SOLD.search(self._text))

    def _stake_of_the_last(self, sentence: str) -> None:
        """Read the stake of the previous bet if `sentence` states it."""
        if not self._bets or (bet := self._bets[-1]).stake or bet.paragraph != self._number:
            return
        if sum(other.paragraph == self._number for other in self._bets) == 1 and (
            match := words.STAKE_SENTENCE.fullmatch(sentence)
        ):
            bet.stake = match[match.lastindex or 0]

    def _add(self, name: str, odds: float, text: str, stake: str | None, passage: str, *, advised: bool) -> None:
        if len(self._bets) >= _KEPT or _is_known(name, odds, self._bets) or words.PLACEHOLDER.search(name):
            return
        self._bets.append(
            _Bet(
                odds=odds,
                odds_text=text,
                selection=name,
                stake=stake,
                passage=passage,
                paragraph=self._number,
                advised=advised,
            )
        )

    def _take_back(self, sentence: str) -> None:
        """Drop the bets that `sentence` withdraws: those that it names, or all if it names no bet."""
        if not self._bets or not (match := words.RETRACTS.search(sentence)):
            return
        names = set(_NAME.findall(sentence[1:]))
        names -= {"I", "The", "Update", "Edit", "Correction", *_DAYS}
        named = [bet for bet in self._bets if names & set(_NAME.findall(bet.passage))]
        if (
            names
            and not named
            and not re.match(r"\W*(?:update|edit|correction|no\b|actually|on )", sentence, re.IGNORECASE)
        ):
            # "Scratch that" withdraws the bet right before it; "for the cup game I'd leave it" does not.
            if _THAT.search(match[0]) and not _OF_ANOTHER.match(sentence):
                self._bets.pop()
            if re.search(r"\b(?:all|everything|none|these|those|them|any|both|above)\b", match[0], re.IGNORECASE):
                self._bets.clear()
            return
        self._bets = [bet for bet in self._bets if named and bet not in named]

    # Several bets as one ----------------------------------------------------------------------------------------------

    def _one_of_several(self, sentence: str) -> bool:
        """Whether `sentence` combines bets into one ("My acca: Barcelona (1.30) and PSG (1.40), at odds of 1.82")."""
        match = words.MULTIPLE_OF.match(sentence)
        if match is None or words.SILENT.search(sentence[: match.start("rest")]) or words.UNWANTED.search(sentence):
            return match is not None
        total = words.TOTAL.search(match["rest"])
        legs = [leg["name"].strip() for leg in words.LEG.finditer(match["rest"][: total.start() if total else 0])]
        if total:
            self._add_several(legs, total, sentence)
        return True

    def _combine(self, entry: Sequence[Line]) -> bool:
        """Whether the lines state the odds of the combined bet whose legs are above, and maybe its stake."""
        texts = [line.text for line in entry]
        total = next((match for text in texts if (match := words.TOTAL.search(text))), None)
        if total is None:
            return False
        self._add_several(self._legs, total, " ".join(texts))
        self._legs, self._several = [], False
        for key, value in filter(None, map(_field, texts)):
            if words.STAKE_KEY.fullmatch(key) and (amount := words.WHOLE_STAKE.fullmatch(value)) and self._bets:
                self._bets[-1].stake = amount[1]
        return True

    def _add_several(self, legs: Sequence[str], total: re.Match[str], passage: str) -> None:
        odds = words.ODDS.match(f"odds {total['text']}")
        value = _decimal(odds) if odds else None
        name = f"ACCA of {len(legs)}: {'+'.join(legs)}"
        if len(legs) > 1 and value and len(name) <= _LONGEST_NAME and not words.UNWANTED.search(passage):
            self._add(name, value, total["text"], None, passage, advised=True)

    # Fields, tables and JSON ------------------------------------------------------------------------------------------

    def _keyed(self, pairs: Sequence[tuple[str, str]]) -> None:
        pick: str | None = None
        staked: str | None = None
        odds: str | None = None
        stake: str | None = None
        verdict: str | None = None
        if any(self._written.is_past(value) or words.BEFORE_TODAY.search(value) for _, value in pairs):
            return
        if self._named and not any(_is_pick(key) for key, _ in pairs):
            pairs = [self._named, *pairs]
        has_pick = any(_is_pick(key) for key, _ in pairs)
        for key, value in pairs:
            if words.STAKE_KEY.fullmatch(key):
                stake = value
            elif words.ODDS_KEY.fullmatch(key):
                if odds is not None or not ("odds" in key or self._speaks_of_betting):
                    return  # two odds: unclear which counts; or the price of something else
                odds = value
            elif has_pick and pick is not None and words.VERDICT_KEY.fullmatch(key):
                verdict = value
            elif words.PICK_KEY.fullmatch(key) and pick is None:
                pick = value
            elif key == "outcome" and has_pick:
                return  # the bet is over
            elif words.STAKED_KEY.fullmatch(key) and staked is None:
                staked = value
            elif words.VERDICT_KEY.fullmatch(key):
                verdict = value
            elif not words.NEUTRAL_KEY.fullmatch(key):
                return
        name = pick or staked
        if name is not None and odds is None:  # "Tip: Arsenal to win @ 2.10 | Stake: 1 unit"
            within = [match for match in words.ODDS.finditer(name) if _decimal(match)]
            if len(within) == 1:
                name, odds = name[: within[0].start()], name[within[0].start("text") :]
        if name is None or odds is None or len(name) > _LONGEST_NAME or words.PLACEHOLDER.search(name):
            return
        whole = " ; ".join((name, odds, stake or ""))
        if words.UNWANTED.search(whole) or (verdict is not None and not words.YES.fullmatch(verdict)):
            return
        amount = words.WHOLE_STAKE.fullmatch(stake) if stake is not None else None
        if stake is not None and (amount is None or words.NO_STAKE.fullmatch(stake)):
            return
        if not self._announced and not (
            self._is_unclaimed(own=pick is not None or any(key == "bet" for key, _ in pairs))
            and (amount or verdict or pick)
        ):
            return
        if not self._announced and any(key in _DAY_KEYS and words.DAY_ALONE.search(value) for key, value in pairs):
            return  # a date without a year: the bet may be over
        found = words.ODDS.match(f"odds: {odds}")
        worth = _decimal(found) if found else None
        if found and worth and _trimmed(name) and not words.SOLD.search(name) and not _is_foreign_bet(whole):
            self._add(_trimmed(name), worth, found["text"], amount[1] if amount else None, whole, advised=True)
            self._keyed_at = self._number

    def _is_unclaimed(self, *, own: bool) -> bool:
        """Whether the text right before lines of keys and values does not suggest that they are no advice."""
        if not self._before or self._follows_bets or words.TITLE.fullmatch(self._before):
            return True
        if len(self._before.split()) < _FEW_WORDS:
            return False
        return own and bool(re.search(r"[.!]\W*$", self._before)) and not words.ABOUT_FIELDS.search(self._before)

    def _disown(self, paragraph: _Paragraph) -> None:
        """Drop the bets right above if this paragraph says that they are something other than advice."""
        if self._keyed_at != self._number - 1 or paragraph.kind is not Kind.PLAIN:
            return
        first = words.SENTENCE_END.split(paragraph.lines[0].text)[0]
        about = words.ABOUT_BLOCK.match(first) and not words.STANDS_BY.search(first)
        if about or words.ABOUT_IT.match(first):
            self._bets = [bet for bet in self._bets if bet.paragraph != self._number - 1]

    def _table(self, paragraph: _Paragraph) -> None:
        rows = [[cell.strip() for cell in line.text.strip("|").split("|")] for line in paragraph.lines]
        columns = [cell.casefold() for cell in rows[0]]
        if len(rows) < 3 or len(set(columns)) != len(columns):
            return
        # Read the name of the bet first: a verdict counts only with a name.
        order = sorted(range(len(columns)), key=lambda at: bool(words.VERDICT_KEY.fullmatch(columns[at])))
        for row in rows[2:]:
            if len(row) == len(columns) and all(len(cell) <= _LONGEST_CELL for cell in row):
                self._keyed([(columns[at], row[at]) for at in order])

    def _code(self, paragraph: _Paragraph) -> None:
        if not self._announced:
            return
        try:
            value = json.loads(paragraph.last, parse_float=str, parse_int=str)
        except (ValueError, RecursionError):
            return
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict) and all(isinstance(part, str) for part in one.values()):
                self._keyed([(str(key).casefold().replace("_", " "), part) for key, part in one.items()])


def _is_pick(key: str) -> bool:
    return bool(words.PICK_KEY.fullmatch(key) or words.STAKED_KEY.fullmatch(key))


def _is_called_odds(match: re.Match[str]) -> bool:
    return bool(match["named"] and not match["priced"] and not match["sign"])


def _entries(source: Sequence[Line]) -> Iterator[list[Line]]:
    """Yield the items of a list, each with the lines below it. A paragraph counts as one item."""
    entry: list[Line] = []
    for line in source:
        if entry and line.kind is Kind.ITEM and not line.indented and not _continues(entry, line):
            yield entry
            entry = []
        entry.append(line)
    if entry:
        yield entry


def _continues(entry: Sequence[Line], line: Line) -> bool:
    """Whether `line` belongs to `entry`: items of a key and a value ("- Odds: 2.10") do until a key is repeated."""
    pair = _field(line.text)
    keys = [known[0] for each in entry if (known := _field(each.text))]
    return pair is not None and len(keys) == len(entry) and pair[0] not in keys


def _fields(entry: Sequence[Line]) -> list[tuple[str, str]]:
    """Return the keys and values of an entry that has nothing else, except a name above them; otherwise nothing."""
    texts = [part.strip() for line in entry for part in re.split(r"\s[|\u2022\u00b7]\s", line.text)]
    pairs = [pair for text in texts if (pair := _field(text))]
    if len(pairs) == len(texts) and len(pairs) > 1:
        return pairs
    if len(pairs) == len(texts) - 1 and len(texts) > 1 and _field(texts[0]) is None and not words.ODDS.search(texts[0]):
        return [("name", texts[0].rstrip(":")), *pairs]
    return []


def _field(text: str) -> tuple[str, str] | None:
    match = words.FIELD.fullmatch(text)
    if match is None:
        return None
    key = match[1].strip().casefold()
    kinds = (words.PICK_KEY, words.STAKED_KEY, words.ODDS_KEY, words.STAKE_KEY, words.VERDICT_KEY, words.NEUTRAL_KEY)
    if any(kind.fullmatch(key) for kind in kinds) or re.fullmatch(
        r"(?:status|results?|returns?|p/l|p&l|profit|outcome|source|tipster|settled|payout|potential \w+)", key
    ):
        return key, match[2]
    return None


def _joined(sentences: Sequence[str]) -> list[str]:
    """Append a sentence such as "The odds are 2.10" to the sentence before it."""
    joined: list[str] = []
    for sentence in sentences:
        if (
            joined
            and words.CONTINUES.match(sentence)
            and len(joined[-1]) < _LONGEST_PASSAGE
            and not words.UNWANTED.search(sentence)
        ):
            joined[-1] = f"{joined[-1].rstrip('.')}; {sentence}"
        else:
            joined.append(sentence)
    return joined


def _clauses(sentence: str) -> list[tuple[str, str]]:
    """Return the clauses of a sentence, each with the word that introduces it ("but", "because")."""
    clauses: list[tuple[str, str]] = []
    begin, turn = 0, ""
    for match in words.TURNS.finditer(sentence):
        clauses.append((turn, sentence[begin : match.start()]))
        begin, turn = match.end(), match[0].strip(" ,").casefold()
    clauses.append((turn, sentence[begin:]))
    return clauses


def _leads(clause: str) -> bool:
    return any(pattern.search(clause) for pattern in (words.FIRST_PERSON, words.IMPERATIVE, words.LABEL))


def decimal(odds: str) -> float | None:
    """Convert odds in any notation to decimal odds; None if `odds` is something else."""
    whole = re.fullmatch("[0-9]{1,5}", odds)  # `ODDS` skips whole numbers, as in a text they may be anything
    match = words.ODDS.fullmatch(f"odds: {odds}{'.0' if whole else ''}")
    return _decimal(match) if match else None


def _decimal(match: re.Match[str]) -> float | None:
    """Convert a match of `ODDS` to decimal odds; None if the text does not clearly mark it as odds."""
    text, near = match["text"], match.string[max(0, match.start() - _NEAR) : match.start()]
    if not match["named"] and not match["points"]:
        sign = match["at"] or match["tail"] or (match["bracket"] and (match["american"] or match["evens"]))
        line = match["at"] and text.endswith(words.QUARTERS) and words.LINE.search(near) and not _SIGNED.search(near)
        if match["loose"] or not sign or line:
            return None
    if words.OTHER_NUMBER.search(near):
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


def _name(before: str, after: str, *, announced: bool, joined: bool, labels_only: bool) -> tuple[str | None, bool]:
    """The name of the bet whose odds stand between `before` and `after`, and whether the writer says "I".

    Empty if a bet is recommended but not named, None if nothing is recommended. `joined`: the previous odds belong to a
    recommended bet.
    """
    if joined and (joint := words.JOINED.match(before)):
        rest = before[joint.end() :]
        return (None if words.HAS_VERB.search(rest) else _trimmed(rest) or None), False
    patterns = (
        (words.LABEL,)
        if labels_only
        else (
            words.LABEL,
            words.FIRST_PERSON,
            words.SHOULD,
            words.SHOULD_BACK,
            words.IMPERATIVE,
            words.VALUE_IN,
        )
    )
    for pattern in patterns:
        leads = list(pattern.finditer(before))
        if leads:
            stretch = before[leads[-1].end() :]
            if words.NO_NAME.match(stretch):
                return None, False
            if words.HAS_VERB.search(re.split(r";", stretch)[0]) and not re.search(
                r"\b(?:odds|available|priced|now|currently)\b", stretch, re.IGNORECASE
            ):
                return None, False
            behind = words.BEHIND.match(after)
            name = _trimmed(stretch) or (_trimmed(behind[1]) if behind else "")
            return name, pattern in (words.FIRST_PERSON, words.SHOULD)
    if labels_only:
        return None, False
    if praise := words.PRAISE.search(before) or words.PRAISE.match(after):
        stretch = before[: praise.start()] if praise.string == before else before
        stretch = words.GERUND.sub(
            "",
            re.sub(
                r"^[^\w]*(?:I|we)\sthink\s|^[^\w]*(?:in my view|for me|overall),?\s", "", stretch, flags=re.IGNORECASE
            ),
        )
        return (None if "," in stretch or words.HAS_VERB.search(stretch) else _trimmed(stretch) or None), False
    if announced and not words.HAS_VERB.search(before):
        return _trimmed(before) or None, False
    return None, False


def _stake(before: str, after: str) -> re.Match[str] | None:
    """Find the stake of the bet whose odds stand between `before` and `after`."""
    return (
        words.STAKE.search(before)
        or words.STAKE_BEFORE.search(before)
        or words.STAKE.search(after)
        or words.STAKE_AFTER.search(after)
    )


def _trimmed(stretch: str) -> str:
    """Return the name in `stretch` without the words and signs around it; empty if there is none or it is too long."""
    parts = words.STAKED_ON.sub("", words.NAME_ENDS.split(stretch, maxsplit=1)[0]).split()
    while parts and words.AFTER_NAME.fullmatch(parts[-1].strip(_SIGNS)):
        parts.pop()
    while parts and words.BEFORE_NAME.fullmatch(parts[0].strip(_SIGNS)):
        parts.pop(0)
    name = " ".join(parts).lstrip(_QUOTES).rstrip(_SIGNS + ".")
    fit = len(name) <= _LONGEST_NAME and ":" not in name and _WORD.search(name) and not _ODDS_WORD.search(name)
    return name if fit else ""


def _is_known(name: str, odds: float, found: Sequence[_Bet]) -> bool:
    """Whether a bet at these odds has this name, or a shorter or longer form of it ("Arsenal", "Arsenal to win")."""
    names = [bet.selection.casefold() for bet in found if bet.odds == odds]
    return any(name.casefold() in known or known in name.casefold() for known in names)


def _is_foreign_bet(text: str) -> bool:
    """Whether a sentence is in another language, or names its bet in one."""
    return bool(words.BETS_ELSEWHERE.search(text)) or _is_foreign(text)


def _is_clearly_foreign(sentence: str) -> bool:
    """Whether this sentence of an English answer is in another language, for example a translation of its neighbour."""
    if words.BETS_ELSEWHERE.search(sentence) and _is_foreign(sentence):
        return True
    return len(words.FOREIGN.findall(sentence)) >= _FOREIGN_WORDS and not words.ENGLISH.search(sentence)


def _is_foreign(text: str) -> bool:
    """Whether `text` is more foreign than English."""
    letters = sum(map(len, _WORD.findall(text)))
    if 5 * len(_FOREIGN_LETTER.findall(text)) > letters:
        return True
    return len(words.FOREIGN.findall(text)) > len(words.ENGLISH.findall(text))
