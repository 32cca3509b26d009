"""Recognizes answers whose bets are no recommendations: a joke, invented bets, a disclaimer, or bets of past years.

Does no I/O. Each repeat in a pattern is bounded, so that the time is linear in the text.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime


def _pattern(source: str) -> re.Pattern[str]:
    return re.compile(source, re.IGNORECASE | re.VERBOSE)


# Words for the bets in an answer.
_THINGS = r"""(?: picks? | tips? | bets? | odds | prices? | list | table | selections? | recommendations? | figures?
    | numbers? | match(?:es)? | games? | fixtures? | examples? | answer | post | text | message | column | article
    | content | conversation | reply | response | part )"""
_BEGIN = r"""^[^\w]{0,6} (?: (?: (?:please\s)?note(?:\sthat)? | disclaimer | warning | reminder | p\.?s\.? | but | and
    | also | of\scourse | obviously | to\sbe\s(?:clear|honest) | remember(?:\sthat)? | needless\sto\ssay | sorry
    | by\sthe\sway | just\sso\syou\sknow | full\sdisclosure | a\snote | apologies | oops )\b [^\w]{0,4} ){0,3}"""
# The bets, or the whole text, as the subject of a sentence.
_ALL_OF_IT = rf"""(?: (?: all | both | each | none | nothing | everything | anything | no\spart )
      (?: \s(?: of\s(?:them|these|those|this|that|the\s[\w-]{{1,20}}) | here | above | below
        | (?:in|of)\s(?:this|my|the)\s[\w-]{{1,20}} | (?:these\s|those\s|the\s|my\s)?{_THINGS} ) ){{0,2}}
    | (?: these | those | this | that | the | my )(?:\s(?:above|following|whole))?\s {_THINGS}
      (?:\s(?:above|here|below))?
    | the\s(?:above|following|foregoing) | these | those | this | that | they | it )"""
_FULLY = r"(?: \s(?:all|just|only|merely|purely|simply|really|of\scourse|entirely|completely) ){0,2}"
_IS = rf"(?: \s(?:is|are|was|were|be|would\sbe) | ['\u2019](?:s|re) ) {_FULLY}"
_NOT = r"(?: \snot | n['\u2019]t )"

_JOKE = _pattern(
    rf"""\b(?: (?<!not\s)kidding | (?:just|only|merely)\s(?:joking|jesting|teasing) | april\sfools? | messing\swith\syou
      | pull(?:ing)?\syour\sleg | sarcas\w{{1,8}} | satir\w{{1,8}} | parody | j/?k )\b | (?:^|\s)/s\W{{0,3}}$
    | ^[^\w]{{0,6}} (?: (?:ha|he){{1,6}}[^\w]{{0,6}}$ | (?:ha|he){{1,6}},?\sno\b | lol | lmao | rofl )
    | ^[^\w]{{0,6}} (?: of\scourse | obviously | naturally )?,?\s?
      (?: I(?:['\u2019]m|\sam)\s(?:joking|jesting|teasing|having\syou\son|not\sserious) | joking | jesting | teasing
        | I\s(?:jest|kid|joke)
        | (?:that['\u2019]s\s|it['\u2019]s\s|it\sis\s|that\swas\s|all\s|utter\s|complete\s)?
          (?:a\sjoke|nonsense|rubbish|bollocks|a\sprank|trolling)
        | psych | gotcha | as\sif | yeah,?\sright | in\syour\sdreams | had\syou\sthere | fooled\syou | not\sseriously
        | you\s(?:really\s)?believed?\s(?:that|it|me)
        | I\s(?:do\snot|don['\u2019]t|didn['\u2019]t|did\snot)\s(?:really\s|actually\s)?mean\s(?:it|that|this|any) )\b
    | {_BEGIN} {_ALL_OF_IT} {_IS} \s (?:an?\s)? (?:joke|jokes|prank|nonsense)\b | \bsaid\s(?:nobody|no-?\s?one)\b
    | \bdon['\u2019]t\stake\s(?:it|that|this|me|any\sof\s\w{{1,8}})\s(?:too\s)?seriously\b"""
)
_INVENTED_WORD = r"""(?: fictional | fictitious | fiction | made[\s-]?up | invented | imaginary | imagined
    | (?:demonstration|tests?)(?=\W|$)(?!\sof\b|\sfor\b) | hypothetical\w{0,2} | theoretical\w{0,2} | academic
    | illustrat\w{1,8} | placeholders? | dumm(?:y|ies)
    | fabricated | simulated | samples? | templates? | mock(?:ed|-ups?)? | examples? | demos? | pretend | fake
    | guess(?:es|work)?
    | unreal | random | exercises? | role[\s-]?play | thought\sexperiments? | fantasy | practice
    | quot(?:e|ed|ation)s? )"""
_INVENTED = _pattern(
    rf"""(?: {_BEGIN} {_ALL_OF_IT} | \b(?:odds|prices|figures|numbers|mine|teams|names)(?:\s(?:above|here))? ) {_IS}
      (?: \s(?: a | an | for | as | generated\sas | meant\sas ) ){{0,3}} \s {_INVENTED_WORD}\b
    | {_BEGIN} {_ALL_OF_IT} {_IS}? {_NOT} \s(?:my\s)?real\b
    | ^[^\w]{{0,6}} (?:all|just|only|purely|everything|entirely)?\s?(?:for\s|an?\s)?
      (?: illustration | illustrative\spurposes | example | demonstration | theoretical | hypothetical | fictional
        | fiction )
      (?: \sonly | \spurposes | ,?\sof\scourse ){{0,2}} \W{{0,3}}$
    | {_BEGIN} (?:for\s|an?\s)? (?: illustration | illustrative\spurposes | example )\s?only\b
    | \b(?: made | making | make )\s (?:it|them|this|that|all) (?:\s(?:all|of\s(?:it|this|that|them)) ){{0,2}} \sup\b
    | \b(?: made | making )\s (?:all\s)?(?:of\s)?(?:these|those|the)\s\w{{1,12}}(?:\s\w{{1,12}})? \sup\b
    | \b(?:I|we)(?:['\u2019]ve|\shave)?\s(?:simply\s|just\s)?(?:invented|imagined|guessed|fabricated)\b
    | \b(?:the|this|that)\s(?:example|sentence|line|wording|phrase|format|template)(?:\sabove)?\s(?:shows|illustrates
      |demonstrates|is)\b
    | \bhow\s(?:a|such\sa|the)\s(?:tip|pick|bet|recommendation|sentence|table|slip)\b(?:\s[\w-]{{1,12}}){{0,4}}\s
      (?:worded|phrased|written|laid|read|reads|look|looks|sound|sounds|formatted|structured)\b
    | \blanguage\sof\stipsters\b | ^[^\w]{{0,6}}here,?\s['"\u2018\u201c]?[\w-]{{1,20}}['"\u2019\u201d]?\smeans\b
    | ^[^\w]{{0,6}}(?:now\s)?translate\b
    | \bwas\sgenerated\sas\b | ^[^\w]{{0,6}}(?:scene|role[\s-]?play)\b"""
)
# Words of general advice, which does not take a bet back.
_CARE = r"(?:guarantee|responsib|afford|own\srisk|change|certain|18\+|help)"
_ADVICE = r"(?: recommend\w{0,8} | advice | tips? | suggestions? )"
_DISCLAIMED = _pattern(
    rf"""^[^\w]{{0,6}}disclaimer\b (?![^.;]{{0,200}}{_CARE}) [^.;]{{0,100}}
      (?: \b(?:not|never|no|none|nothing|cannot|purely|only|just)\b | n['\u2019]t\b )
    | \b(?:I|we)(?:['\u2019]d|\swould)?\s(?:really\s|actually\s)?(?:recommend|endorse|advise|suggest|back|bet|stake)\s
      (?: (?:nothing|none)(?:\shere|\sof|\sat\sall|\W{{0,3}}$) | no\sbets?\b )
    | (?: do\snot | don['\u2019]t )\sendorse\b | \b(?:is|would\sbe)\s(?:simply\s)?not\sto\sbet\b
    | ^[^\w]{{0,6}}(?:(?:but|of\scourse|in\s(?:truth|reality|fact)|actually|personally)[,:]?\s){{0,2}}
      (?:I|we)(?:['\u2019]d|\swould)?\s(?:never\s(?:do|bet|back|place|take|touch|recommend|follow)\b
        |would\snot|wouldn['\u2019]t\W{{0,3}}$|don['\u2019]t\sbet\b)
    | {_BEGIN} (?:nothing|none|no\spart)\b [^.;]{{0,50}} \b {_ADVICE}\b
    | {_BEGIN} no\s(?:bet|tip|pick|recommendation|advice)s?(?!\s(?:is|are)\s(?:ever\s)?(?:certain|guaranteed|sure
    |safe|risk-free|without\srisk))\s(?:is|are|was)\b
    | {_BEGIN} {_ALL_OF_IT} (?: {_IS}? | \s(?:should|must|may|can|does|do)) {_NOT} [^.;,]{{0,40}} \b {_ADVICE}\b
    | \b(?:do\snot|don['\u2019]t|never|wrong\sto|not\sto)\s
      (?:take|treat|read|see|regard|call|count|understand|consider)\b
      [^.;,]{{0,40}} \b {_ADVICE}\b
    | \b(?:I|we)\s(?: ca(?:n['\u2019]t|nnot|n\snot) | do(?:n['\u2019]t|\snot) | won['\u2019]t | will\snot
        | must\snot | may\snot | am\s(?:not\s(?:able|allowed)|unable)\sto )\s (?:actually\s|really\s|ever\s)?
      (?: (?:give|offer|provide|make)\s(?:\w{{1,12}}\s){{0,2}}(?:advice|recommendations?|tips?|picks?)
        | recommend\s(?:any\s|specific\s|actual\s|individual\s){{0,2}}(?:bets?|wagers?|betting|gambling)\W{{0,3}}$ )
    | \b(?:don['\u2019]t|do\snot|never)\s (?: (?:bet|gamble)\W{{0,3}}$
        | (?:bet|act|rely|follow|use|place|copy|back)\s(?:on\s)?
          (?:it|this|that|these|those|them|any\sof|anything|the\sabove|my)\b )
    | \b(?:I|we)\s(?:hereby\s|must\s|have\sto\s)?(?:retract|withdraw|revoke|recant|misspoke)\b
    | \b(?:is|are)\swithdrawn\b
    | ^[^\w]{{0,6}}(?:(?:my|the|final|so)\s){{0,3}}(?:verdict|conclusion|decision|advice|call)\s?(?::|is:?)\s
      (?:a\s)?(?:pass|no\sbet|skip|avoid|leave\sit|don['\u2019]t|nothing)\b
    | ^[^\w]{{0,6}}(?:sorry|apologies|oops)\b[^.;]{{0,40}}\b(?:wrong|mistake|error|mixed|mistaken)\b"""
)
_OTHERS = _pattern(
    rf"""\b(?:from|in|on|of)\syour\s(?:screenshot|photo|image|picture|slip|coupon|history|account|list|file
    |spreadsheet|sheet
      |message|notes?|tracker|log|table|upload|email|ticket|portfolio)s?\b
    | \byou(?:['\u2019]ve|\shave)?\s(?:entered|uploaded|pasted|sent|submitted|typed|filled|recorded|logged|placed)\b
    | \byou(?:['\u2019]ve|\shave)?\sasked\s(?:me\s)?(?:to|for)\s(?:explain|translate|format|check|convert|rewrite
    |copy|list
      |summari[sz]e)\b
    | \bI(?:['\u2019]ve|\shave)?\s(?:sorted|formatted|converted|aligned|filled|tidied|reordered|transcribed|copied
    |exported
      |imported|summed|typed|noted)\b
    | \b(?:another|more|extra|new)\s(?:columns?|rows?)\b
    | \b(?:a|the)\s(?:columns?|rows)\b | \btotal\sstaked\b | \bsake\sof\sargument\b
    | ^[^\w]{{0,6}}(?:(?:open|launch)\s(?:the|your)\s(?:app|site|website|page|bookmaker)|enter\s(?:a|the|your)\sstake)\b
    | \b(?:tap|click)\s(?:on|the)\b | ^[^\w]{{0,6}}subject\s?:\s
    | ^[^\w]{{0,6}}(?:cheers|(?:kind\s|best\s)?regards|yours|sincerely),\s[A-Z]\w{{1,20}}\W*$
    | \b(?:bet|wager|stake|slip|order)\s(?:(?:was|is|has|been|now|successfully)\s){{0,3}}(?:accepted|placed|confirmed
    |logged
      |recorded|saved|submitted)\b
    | {_BEGIN} {_ALL_OF_IT} {_IS} \s (?: someone\selse\b | not\smine\b
        | (?!my\b|our\b|it['\u2019]|that['\u2019]|let['\u2019])[\w-]{{2,20}}['\u2019]s?\s
          (?:own\s)?(?:picks?|tips?|bets?|words?|selections?|advice|views?|opinion)\b
        | (?:his|her|their|your)\s(?:own\s)?(?:picks?|tips?|bets?|words?|selections?|advice|views?|opinion)\b
        | the\s(?:kind|sort|type)\sof\s(?:thing|tip|bet|pick|advice|answer|text|line)\b
        | what\s(?:[\w-]{{1,20}}\s){{1,4}}?(?:said|says|wrote|writes|tipped|looks?\slike|would\s(?:say|write|tip))\b )
    | \b(?:picks?|tips?|bets?|words?|selections?|views?)\W{{0,3}}\snot\s(?:mine|my\sown|ours)\b
    | ^[^\w]{{0,6}}(?:or\s)?so\s(?:says?|said|wrote|writes|the\s\w{{1,12}}\ssay|they\ssay)\b
    | \bis\sa\stypical\s{_ADVICE}\b
    | ^[^\w]{{0,6}}(?: quot(?:e|ed|ing|ation)\b | end\s(?:of\s)?quot | unquote | I(?:['\u2019]m|\sam)\squoting\b
      | (?:adapted|copied|pasted|translated|taken)\sfrom\b | translation\b | from\s(?:a|an|the)\s(?:column|article|tweet
      |post|book|novel|film|newsletter|forum|chat|transcript)\b )"""
)
_OLD = _pattern(
    rf"""{_BEGIN} (?: {_ALL_OF_IT} (?<!\bit)(?<!\bthey) (?: {_IS} | \s(?:date[sd]?|come|came|stem\w{{0,4}}|have|has) )
        | all | \(?(?:taken\s)?from )
      (?: \s(?: been | now | already | since | all | long | well | back | my | the | an? | our ) ){{0,3}} \s (?:
        (?:from|of|in)\s(?:the\s|my\s|our\s)?(?:last|previous|archive\w?|past|old)\b
      | last\s(?:year|season|month|week\w{{0,3}})\b
      | (?: [\w-]{{1,8}}\s ){{0,2}} (?:years?|months?|weeks?|days?|seasons?)\s(?:ago|old)\b
      | (?:very\s|quite\s)?old(?!\s\w) | outdated\b | out[\s-]of[\s-]date\b | expired\b | stale\b | obsolete\b
      | archived?\b | (?:historic|past|previous|former)\w{{0,3}}\b | over\W{{0,3}}$ | finished\b | ended\b | played\b
      | settled\b | decided\b | no\slonger\s(?:valid|available|current|on\soffer|up\sto\sdate|apply|stand)\b )
    | \b(?: markets? | betting | books? | event | match | game | fixture | race | tie )(?:\son\sit|\son\s(?:this|that))?
      (?: \s(?: is | are | was | has | have | had | already | now | been | since ) | ['\u2019]s ){{1,3}} \s
      (?: closed | suspended | cancell?ed | postponed | abandoned | over | finished | ended | off
        | kicked\soff | started | begun | under\sway ) (?=\W{{0,3}}$|,|\sso\b|\sbecause\b|\sdue\b|\snow\b|\salready\b)
    | \b(?:match|game|race|event|tie|fixture)\s(?:has\s)?(?:already\s)?(?:ended|finished|kicked\soff|started)\b
    | \btoo\slate\b (?=\W{{0,3}}$|\s(?:for|to)\s(?:that|this|it|bet|back|get)\b)
    | \b(?: ROI | strike\srate | hit\srate | win\srate | all\s(?:winners|lost|won|landed) )\b
    | \b(?:[0-9]{{1,3}}|one|two|three|four|five|six)\s(?:out\s)?of\s(?:[0-9]{{1,3}}|two|three|four|five|six)\W{{0,3}}$
    | ^[^\w]{{0,6}}(?:total|profit|p/l|p&l|result|balance|return)\b[^.;]{{0,20}}[+\u2212-]\s?[0-9]
    | \b(?:ended|finished|closed)\sthe\s(?:year|season|month|week)\b
    | {_BEGIN} (?:throwback|flashback|\#?tbt|from\sthe\s(?:archives?|vault))\b
    | {_BEGIN} {_ALL_OF_IT} \sno\slonger\s(?:stands?|applies|apply|holds?|counts?)\b"""
)
# Text whose date is the date of the bets: the bets themselves, or a line with only a date.
_ABOUT_THEM = _pattern(
    rf"""{_BEGIN} (?: {_ALL_OF_IT} | all | both | \(?(?:taken\s)?from | [(\[]
    | (?:here|below|above)\s(?:is|are|was|were)\b | the\s(?:table|list|card)\b
    | .{{0,60}}\b(?:profit|year|season|ROI|units)\b
    | (?:date|dated|posted|published|written|updated|season|year|source|results?)\b )"""
)
_YEAR = re.compile(
    r"""(?<![\w.,/:€$£-])(?P<first>(?:19|20)[0-9]{2})(?:[/\u2013-](?P<second>20[0-9]{2}|[0-9]{2})(?![\w/-]))?
    (?![\w%]|[.,:][0-9])""",
    re.VERBOSE,
)
_DAY = re.compile(r"(?<![\w.,/-])(20[0-9]{2})-([01][0-9])-([0-3][0-9])(?!\w)")
_NUMBERS = re.compile(
    r"(?<![\w.,/-])[0-3]?[0-9][./][0-3]?[0-9][./]((?:19|20)?[0-9]{2})(?![\w/.])"
)  # 12.05.2023, 5/12/23
# Longest sentence, in words, that may dismiss the bets before it ("Dream on."), unless it matches `_HARMLESS`.
_FEW_WORDS = 4
_HARMLESS = _pattern(
    r"""\b(?: luck | enjoy | responsibl[ey] | cheers | confiden\w{1,4} | stakes? | units? | odds | value | bets?
      | picks? | tips? | back | risk\w? | edge | fun | safe(?:ly)? | ask | know | questions? | help | more | thoughts?
      | hope | results? | prediction | analysis | form | score | home | away | goals? | teams? | match | game
      | today | tonight
      | tomorrow | rationale | reason\w{0,3} | why | verdict | summary | conclusion | injur\w{1,4} | bankroll
      | alternative\w?
      | others?
      | strong | solid | great | good | clear | simple | easy | close | thanks )\b | : | [0-9]"""
)
_NAME_INSIDE = re.compile(r"\s[A-Z][a-z]")
# A phrase in each answer of the demo model, whose bets are shown although they are invented.
_DEMO = "this is the demo model"
# The name of an author below a quotation.
_SIGNED = re.compile(r"[\u2013\u2014-]{1,2}\s?(?:[A-Z][\w\u2019'.-]{1,20}\s?){1,3}")
# Assumed time of an answer whose id contains no time: the earliest that is possible.
_EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)


class Written:
    """The time at which an answer was written, from its id: it decides which dates in the text are past."""

    def __init__(self, answer_id: str) -> None:
        made = re.fullmatch(r"([0-9a-f]{8})[0-9a-f]{16}", answer_id)
        self._at = max(datetime.fromtimestamp(int(made[1], 16), UTC), _EARLIEST) if made else _EARLIEST

    def is_past(self, text: str) -> bool:
        """Whether `text` names a year, a season or a day that is over."""
        if any(match[0] < f"{self._at:%Y-%m-%d}" for match in _DAY.finditer(text)):
            return True
        if any(int(match[1]) < self._at.year for match in _NUMBERS.finditer(text)):
            return True
        for match in _YEAR.finditer(_DAY.sub("", text)):
            last = match["second"] or match["first"]
            if int(last if len(last) == 4 else match["first"][:2] + last) < self._at.year:
                return True
        return False


def is_dismissive(sentence: str) -> bool:
    """Whether a sentence after the bets may dismiss them: it is short and speaks of nothing harmless."""
    few = len(sentence.split()) <= _FEW_WORDS and any(map(str.isalpha, sentence))
    return few and not _HARMLESS.search(sentence) and not _NAME_INSIDE.search(sentence)


def voids(sentences: Iterable[str], written: Written) -> bool:
    """Whether a sentence says that none of the answer's bets are recommendations."""
    return any(
        _DEMO not in sentence
        and (
            any(pattern.search(sentence) for pattern in (_JOKE, _INVENTED, _DISCLAIMED, _OTHERS, _OLD))
            or (_ABOUT_THEM.match(sentence) and written.is_past(sentence))
            or _SIGNED.fullmatch(sentence)
        )
        for sentence in sentences
    )
