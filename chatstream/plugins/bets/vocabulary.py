"""The patterns by which `reader` recognizes a recommendation, and text that only looks like one.

The list is closed on purpose: text that matches no pattern recommends nothing. Repeats are bounded or possessive, so
that the time is linear in the text. In the patterns \\u2013 is an en dash, \\u2014 an em dash, \\u2212 a minus sign,
\\u2019 an apostrophe.
"""

import re


def _pattern(source: str) -> re.Pattern[str]:
    return re.compile(source, re.IGNORECASE | re.VERBOSE)


# Numbers that are marked as odds --------------------------------------------------------------------------------------
# After the odds, the phrase must end, or one of these words must follow. That excludes ranges, dates, percentages,
# odds-on ("5/1 on"), counts, times and prices ("8.99 a litre").
_BOOKMAKERS = r"""(?: bet365 | betfair | betfred | coral | ladbrokes | paddy\spower | william\shill | sky\s?bet | unibet
    | boylesports | betvictor | pinnacle | draftkings | fanduel | betmgm | caesars | 888sport | bwin | betway
    | most\sbook\w* | (?:the\s)?bookmakers? | (?:the\s)?bookies? | the\smoment )"""
_NUMBER = r"""(?: (?P<american> [+\u2212-][1-9][0-9]{2,4} ) | [0-9]{1,4}/[1-9][0-9]{0,2} | (?P<evens> evens
    | even\smoney )
    | [0-9]{1,5}[.][0-9]{1,3} | (?P<loose> [0-9]{1,4}(?:-|\sto\s)[1-9][0-9]{0,2} | [0-9]{1,3},[0-9]{2} ) )"""
_NO_MORE = r"""(?! [\w%€$£+\u00bc-\u00be] | [.,:/\u2212\u2013-][0-9] | \s?%
    | \s?[\u2013\u2014-]\s?[0-9]{1,5}[./][0-9]{1,3}+(?!\s?(?:pts?|points?|units?|u)\b)
    | \s(?:to|and)\s[+\u2212-]?[0-9] | \son\s?(?:[.,;)]|$) | \s?(?:or|and)\s(?:better|above|bigger|higher|more|over
    |up) )"""
ODDS = _pattern(
    rf"""(?:
      (?P<named> (?: (?<!fair\s)(?<!true\s)(?<!implied\s)(?<!minimum\s)\bodds\b | (?P<priced> \bpriced?\b(?=\s?(?:at
    |of|:)) )
        | (?P<sign> (?<!\w)@ ) )
        (?: \s?(?: [:=(~\u2013\u2014]
                 | \b(?:of|at|are|is|currently|around|about|roughly|decimal|american|fractional)\b\)? ) ){{0,4}} \s? )
    | (?P<at> \b(?:at|of(?=\s[0-9]))\s (?:(?:around|about|roughly|currently|odds-against)\s)? )
    | (?P<bracket> \( )
    | (?P<points> \b[0-9]{{1,2}}(?:[.][0-9])?\s?(?:pts?|points?|units?|u)\s )
    | (?P<bare> (?<![\w.,/:@$€£%+\u2212-]) ) )
    (?P<text> {_NUMBER} ) {_NO_MORE}
    (?P<tail> \sodds\b )? (?(bare)(?<=odds))
    (?: \s?\( [+\u2212-]?[0-9]{{1,5}}(?:[./][0-9]{{1,3}})? \) )?  # the same odds in another notation
    (?= \s?(?:[^\w\s]|$)
      | \s(?:with|on|for|and|or|is|are|looks?|offers?|represents?|would|because|since|as|given|to|who|which|right\snow
           |today|tonight|tomorrow|here|now|each[\s-]way|odds|after|against|stak\w+|risking|using|before|currently
           |at\s{_BOOKMAKERS}|{_BOOKMAKERS})\b
      | \s[0-9]{{1,3}}\s?(?:pts?|units?|u)\b )"""
)
LINE = _pattern(r"\b(?: over | under | line | total | handicap | spread )s?\b [^0-9]* $")  # then "at 2.5" is not odds
QUARTERS = (".5", ".25", ".75", ".50", ".0")
OTHER_NUMBER = _pattern(  # before "at 7.30" or "at 7/10": then it is no odds
    r"""\b(?: kick(?:s|ing)?[\s-]?off | starts? | begins? | tip-?off | confiden\w+ | rat(?:e|ed|ing) | limit | xg | off
    | (?<!\bwin\sthe\s)(?:race | game | match) | leaves? | departs? | arrives? | tonight | tomorrow | today | (?:mon
    |tues|wednes|thurs|fri
    | satur|sun)day(?:\s(?:evening|night|afternoon))? | evening | morning | afternoon | live | (?:train|bus|flight) )
    (?: \s?[:,] )? \s? $ | \b(?: confiden\w+ | rat(?:e|ed|ing)s? )\b [^.;0-9]{0,20} $"""
)
# Words that show that a text is about betting, and not about a wine, a lens or a train. "Best bet" is not among them:
# people say that about those, too.
BETTING = _pattern(
    r"""(?<![\w-])(?: odds(?!\sand\sends) | wager\w* | staking | stake\sof\s[\u20ac$\u00a30-9] | punt
    | bookmaker\w* | bookie\w* | to\s(?:win|score|qualify|draw|lift|beat|cover|lead|place|finish|end)\b
    | (?:match|home|away|away|outright)\swin | wins?\b | draw(?![\w-]) | level | (?:over|under)\s[0-9] | both\steams
    | btts
    | handicap | money[\s-]?line | ml | each[\s-]way | spread | double\schance | draw\sno\sbet | clean\ssheet
    | in\s(?:straight|two|three|four|five)\ssets | [0-9]\s(?:goals|points|corners|cards|sets|games) | vs?[.]?\s[A-Z]
    | acca | accumulator | treble | parlay | nap )(?![\w-])
    | (?<![\w/]) (?: [+\u2212-][1-9][0-9]{2,3} | [1-9][0-9]{0,2}/[1-9][0-9]? | [+-][0-9]{1,2}[.]5 ) (?![\w/])
    | \bevens\b | \beven\smoney\b"""
)
# Words of things for sale and of times: a number beside them is no odds.
_SOLD = r"""bitcoin | crypto\w* | ether\w* | etfs? | forex | gold(?!\s(?:cup|medal)) | silver | nvidia | tesla
    | futures | bonds? | gas
    | kickstarter | crowdfund\w* | indiegogo | start-?ups? | campaign | petition | bid | lit(?:re|er)s? | bottles?
    | glass(?:es)? | kilos? | kg | pounds?\sof | grams? | recipes? | lens(?:es)? | aperture
    | trains? | bus(?:es)? | flights? | ferry | tickets? | menu | wines? | beers? | lager | ales? | abv |
    (?:olive\s)?oils? | skillet
    | (?:frying\s)?pans? | cast[\s-]iron | knife | knives | hotels? | rooms? | per\snight | per\sperson | delivery
    | shipping
    | headphones | laptops? | cameras? | phones? | cars? | engines? | horsepower | shares? | stocks? | dividends?
    | p/e | mortgages? | interest\srate | version | firmware | release | mm | gb | mph | megapixels? | subscription
    | wifi
    | restaurants? | dish(?:es)? | coffee | cheese | bread | butter | flour | steak | pizza | red\swine
    | house\s(?:red|white)"""
SOLD = _pattern(rf"\b(?:{_SOLD})\b | \bf/[0-9]")

# Money ----------------------------------------------------------------------------------------------------------------
_MONEY = r"""(?: [€$£]\s?[0-9]{1,7}(?:[.,][0-9]{1,3}){0,2} (?:\s?[\u2013-]\s?[€$£]?[0-9]{1,7})? (?!\w)
    | (?<![\w.,]) [0-9]{1,7}\s? (?: € | (?:euros?|dollars?|pounds?|quid)\b ) ) (?:\s(?:each[\s-]way|e/?w|win)\b)?"""
_UNITS = r"""(?: (?<![\w.,]) (?:[0-9.]{1,5}\s?(?:-|\u2013|to)\s?)? [0-9]{1,5}(?:[.,][0-9]{1,2})?
    (?: [\s-]?(?:units?|u|pts?|points?)\b(?!\s(?:spread|lead|margin|clear|ahead|behind))
      | \s?%\s(?:of\s)?(?:[a-z]{2,7}\s){0,2}bankroll\b ) (?:\s(?:each[\s-]way|e/?w)\b)? )"""
_UP_TO = r"(?: (?:no\smore\sthan | at\smost | up\sto | a\smaximum\sof)\s )?"
STAKE = _pattern(
    rf"""\b(?: stak(?:e|ing) | wager(?:ing)? | bet(?:ting)? | put(?:ting)? | risk(?:ing)? | plac(?:e|ing) | have
    | having )\b
      (?: :?\s(?: of | is | at | a | just | only | around | about | size | small )\b ){{0,3}} :?\s
      ({_UP_TO} (?: {_MONEY} | {_UNITS} | [0-9]{{1,2}}(?:[.][0-9])?\s?%(?!\w) | [0-9]{{1,2}}/10(?![0-9]|[.][0-9]) ))
    | ({_UP_TO} {_MONEY}) \s(?:stake|bet|wager|on)\b
    | ({_UP_TO} {_UNITS}) \s(?:stake|bet|wager|on)\b"""
)
# "2 units" or "2 points" without other words is a stake only right before the name or right after the odds. Elsewhere
# it is a score.
STAKE_BEFORE = _pattern(rf"^[^\w]{{0,6}}({_UP_TO} {_UNITS})(?=\s?[,:\u2013\u2014-]?\s)")
STAKE_AFTER = _pattern(
    rf"""^[\s,;:()|\u2013\u2014-]{{0,5}} (?: (?:(?:for|with|to|at)\s(?:an?\s)?)? ({_UP_TO} {_UNITS})
      | (?: [(\u2013\u2014-]\s? | \bfor\s ) ({_UP_TO} {_MONEY}) )
    (?= \s?(?:[^\w\s]|$) | \s(?:stake|bet|wager|play|each|win|level|max|only|here)\b )"""
)
WHOLE_STAKE = _pattern(
    rf"""\s?(?: \W{{0,3}} ({_UP_TO} (?: {_MONEY} | {_UNITS} | [0-9]{{1,2}}(?:[.][0-9])?\s?% | [0-9]{{1,2}}/10 ) )
    (?:\s?\([^()]{{0,60}}\))? )\s?"""
)
NO_STAKE = _pattern(r"\s?[€$£]?\s?0(?:[.]0{1,2})?\s?(?:u|units?|pts?|€|%)?\s?")
# A sentence after a bet that states the stake of that bet.
STAKE_SENTENCE = _pattern(
    rf"""(?: with\sa\sbankroll\sof\s{_MONEY},?\s | (?:so|and|then)\s )?
    (?: (?:I|you)(?:['\u2019]d|\swould|\scould|\sshould)?\s )?
    (?: (?:put|bet|stake|risk|have|wager)\s | (?:suggested\s|recommended\s)?stake\s?(?:size\s?)?(?: : | \bis\b
    | \bof\b ) \s?
      | keep\s(?:it|the\sstake)\s(?:to|at)\s )
    ({_UP_TO} (?: {_MONEY} | {_UNITS} ) ) (?: \son\s(?:it|this|that|this\sone|the\s(?:double|treble
    |acca)) )? \s?[.!]?
    | an?\s(?:small\s|modest\s)?stake\sof\s ({_UP_TO} (?: {_MONEY} | {_UNITS} ) )
      \s(?:seems|is|looks|feels|would\sbe)\s(?:about\s)?(?:sensible|right|reasonable|fine|enough|plenty
    |appropriate)\s?[.!]?"""
)

# Recommendations of the writer, at the beginning of a clause, in the present ------------------------------------------
_BET = r"""(?: (?:outright\s|value\s|best\s|main\s|single\s)?bets? | picks? | tips? | plays? | choice | selections?
    | recommendations?
    | nap | banker | lean | suggestion | lock (?:\sof\sthe\s(?:day|week|night))? | verdict )"""
_MINE = r"""(?: my | our | the | a | an | another | today['\u2019]s | tonight['\u2019]s | tomorrow['\u2019]s | (?:mon
    |tues|wednes|thurs|fri|satur
    |sun)day['\u2019]s | (?:this\s)?week(?:end)?['\u2019]s )"""
_GOOD = r"""(?: best | top | main | first | second | third | next | final | only | value | recommended | suggested
    | safe | safer | safest
    | strongest | favou?rite | single | sensible | preferred | clear | solid | good | great | strong | real | overall
    | decent | excellent | smart | fun | biggest | bonus | bold | number\sone | headline | big )"""
_ADVERBS = r"""(?:(?:also|personally|definitely|probably|strongly|really|happily|certainly|still|therefore|then
    |gladly|simply|just|confidently)\s){0,2}"""
_I = rf"""(?: I | we ) (?: ['\u2019](?:d|ll|m|re) | \s(?:would|will|should|am|are) )? \s {_ADVERBS}"""
_DOES = rf"""(?: bet(?:ting)?\s(?:{_MONEY}|{_UNITS})\son
    | back(?:ing)?(?:\sthe)? | bet(?:ting)?(?:\son)? | tak(?:e|ing) | play(?:ing)? | pick(?:ing)? | like
    | love | fancy | favou?r | choose
    | suggest(?:ing)? | advise | recommend(?:ing)? | go(?:ing)?\s(?:for|with) | opt(?:ing)?\sfor | sid(?:e|ing)\swith
    | lean(?:ing)?\s(?:towards?|to|on) | see\s(?:\w{{1,10}}\s)?value\s(?:in|on) | consider | am\son | on(?=\s[A-Z])
    | (?:put(?:ting)?|stak(?:e|ing)|risk(?:ing)?|plac(?:e|ing)|have|having|wager(?:ing)?)\s
      (?:(?:a|my|another|small|little|modest)\s){{0,3}}
      (?:(?:{_MONEY}|{_UNITS}|bets?|wager|stake|money)\s){{1,2}} on )"""
_DO = rf"""(?: (?:put|stake|risk|place|have|bet|wager)\s (?:(?:a|your|small|little|modest)\s){{0,3}}
      (?:(?:{_MONEY}|{_UNITS}|bet|wager|stake)\s){{1,2}} on
    | back(?!\s(?:to|in|on|at|when|then|again|up|home|from)\b)(?:\sthe)? | (?:take|play|pick|choose|lean)(?:\sthe)?
    | (?:consider|place|try|have)\s(?:an?\s)?(?:small\s)?bet\son | consider\s(?:backing|betting\son|taking)
    | bet(?!\s(?:builder|types?|slip|size|history|id|ref)\b)(?:\son)? | go\s(?:for|with) )"""
# Words before a colon that are not the name of a quoted person.
_NOBODY = r"""(?: ^[^\w]{0,6} | ^[^\w]{0,6} (?:(?:so|my|our|the|overall|final|bottom|best|betting|quick|also|in|and
    |then)\s){0,3}
      (?:advice|verdict|line|tip|recommendation|conclusion|summary|short|suggestion|plan|play|strategy|bet|pick|call
    |take)\s?[:,]\s
    | \byou\s(?:can|could)\shedge\s?[:,]\s | ^[^:,;]{1,40}\sv(?:s[.]?)?\s[^:,;]{1,40}:\s
    | \bwith\sa\sbankroll\sof\s[^\s]{1,12},\s
    | ^(?:so|then|overall|today|tonight|personally|also|next|finally|first|second|third),?\s )"""
_START = rf"""(?: ^[^\w]{{0,6}} | [;,(\u2013\u2014]\s | \s-\s | {_NOBODY}
    | (?<!:)\s(?:so|and|then|therefore|hence|(?:which|that)\sis\swhy|that['\u2019]s\swhy)\s )"""
DENIES = _pattern(r"^[^\w]{0,6}(?:not\sthat\b|(?:your\s)?(?:options?|choices?|possibilities|alternatives?)\s?:)")
# Advice to be careful with gambling: odds beside it are not a recommended bet.
CARE = _pattern(r"\b(?:gambl\w+|helplines?|limits?|budgets?|break|sleep|patience|caution)\b")
# Opening words that may come before a recommendation and do not change its meaning.
OPENER = _pattern(
    r"""^[^\w]{0,6} (?: (?: (?:and|but|so|also|still|therefore|thus|instead) | (?:that|this)(?:['\u2019]s|\sis)\swhy
        | which\sis\swhy
        | (?:for|in|on)\s(?:this|that|the)\s(?:[a-z]{1,10}\s)?(?:match|game|one|fixture|race|bout|fight|final|tie|event
        |derby|clash),?
        | (?:(?:al|even\s)?though|while|whilst)\s[^,;:0-9]{3,100}, ) \s (?=(?:I|we)\b)
      | (?: based\son\s[^,;:0-9]{3,60},\s (?=(?:I|we|my)\b) )
      | (?: if\syou\sask\sme | all\sthings\sconsidered | all\sin\sall | (?:to\ssum|summing)\s(?:it\s)?up | on\sbalance
        | tl;dr | in\sconclusion | in\smy\s(?:view|opinion) | to\sbe\s(?:clear|honest) | for\swhat\sit['\u2019]s\sworth
        )[,:]\s )"""
)
FIRST_PERSON = _pattern(
    rf"""{_START} {_I} {_DOES}\b (?: \s(?:a|an|another)?\s?(?:small\s|outright\s)?(?:bets?|betting|backing|wager|punt
    |stake|staking|putting|taking|going\sfor)\b (?:\sof)? (?:\s(?:{_MONEY}|{_UNITS}))? (?:\son)?
      | \s(?:that\s)?you\s(?:back|bet\son|take|go\s(?:for|with))\b )?"""
)
IMPERATIVE = _pattern(rf"{_NOBODY} {_ADVERBS} {_DO}\b")
SHOULD = _pattern(
    rf"""{_START} you\s(?:should|could|might)\s(?:also\s)? (?:want\sto\s)? (?: consider | go\sfor | look\sto\sback )\b
    (?: \s(?:a|an)?\s?(?:small\s)?(?:bet|backing|betting|wager|punt)\b(?:\son)? )?"""
)
SHOULD_BACK = _pattern(
    rf"""(?: {_NOBODY} | {_NOBODY} I\sthink\s ) you\sshould\s(?:also\s|definitely\s|probably\s)?
    (?: back(?!\s(?:up|off|out)\b) | go\swith | bet(?:\s(?:{_MONEY}|{_UNITS}))?\son | put\s(?:{_MONEY}|{_UNITS})\son )\b
    (?:\sthe\b)?"""
)
LABEL = _pattern(
    rf"""^[^\w]{{0,6}} (?: (?:my|our)\s(?:advice|suggestion|recommendation)\s(?:here\s)?(?:is|would\sbe)\sto\s
        (?: back | take | go\s(?:for|with) | bet(?:\s(?:{_MONEY}|{_UNITS}))?\son | put\s(?:{_MONEY}|{_UNITS})\son )\b
      | (?:the|one|a)\s(?:{_GOOD}\s)?{_BET}\s(?:that\s)?(?:I|we)(?:['\u2019]d|\swould)?\s(?:recommend|suggest|back|like
        |go\sfor|take)
        (?:\s(?:here|today|tonight))?(?:\sis\b|:) (?!\sone\b)
      | my\smoney(?:['\u2019]s|\sis)\son\b | (?:best\svalue|recommended|suggested)\s?: )
    | ^[^\w]{{0,6}} (?:here(?:['\u2019]s|\sis)\s(?=(?:my|our)\b))?
    (?:(?:and|so|then|also|overall|for\sme|verdict|personally|therefore)[,:]?\s)?
    (?:{_MINE}\s)?(?:{_GOOD}\s){{0,3}} {_BET} (?:\s\#?[0-9]{{1,2}})? (?:\s(?:here|today|tonight|of\sthe\s(?:day|week
    |night|weekend|round)
      | for\s(?:me|you|today|tonight|tomorrow|this\s[\w-]{{1,12}}
    |(?:today|tonight|tomorrow|(?:mon|tues|wednes|thurs|fri|satur|sun)day)['\u2019]s\s[\w-]{{1,12}}
    |the(?:\s[\w\u2019'.-]{{1,20}}){{1,5}}?(?=\sis\b|\swould\b|\s?:)
    |the\s[\w-]{{1,12}}
    |[A-Z][\w\u2019'.-]{{1,20}}(?:\sv(?:s[.]?)?\s[A-Z][\w\u2019'.-]{{1,20}})?) ))?
    (?: \s?: | \s(?:is|would\sbe)\b (?!\sone\b) | \s?[\u2013\u2014]\s | \s-\s ) (?: \s(?:to|on)\b )? (?:\s(?:backing
    |back|bet\son|take|taking|(?:bet|put|stake|risk)(?=\s(?:{_MONEY}|{_UNITS})\son\b))\b)?
    (?:\s(?:{_MONEY}|{_UNITS})\son\b)? (?:\san?\s(?:small\s|straight\s|win\s)?(?:single|bet|wager|punt)\son\b)?"""
)
OWN_PICK = _pattern(
    rf"^[^\w]{{0,6}}(?: (?:my|our)\s(?:{_GOOD}\s){{0,2}}{_BET}\s?(?: : | \sis\b )"
    rf" | {_BET}\sof\sthe\s(?:day|week|night|round)\s?:"
    rf" | (?:I|we)(?:['\u2019]d|\swould)?\srecommend\b )"
)
VALUE_IN = _pattern(
    rf"""{_START}? \bthere(?:['\u2019]s|\sis)\s (?:(?:some|real|good|great|clear|decent|excellent
    |plenty\sof)\s){{0,2}} value\s(?:in|on|with)\b (?:\s(?:backing|taking))?"""
)
GERUND = _pattern(r"^[^\w]{0,6}(?:a|an|the)?\s?(?:small\s)?(?:bet\son|betting\son|backing)\b")
PRAISE = _pattern(
    rf"""\s(?: is | are | looks?(?:\slike)? | offers? | represents? | seems? | would\sbe )\s (?:(?:clearly|easily
    |definitely|really|also|still|simply|very)\s)?
    (?: (?:{_MINE}\s)? (?:{_GOOD}\s){{0,3}} (?:{_BET}|value)(?=\s?(?:[.,;!)]|$)|\s(?:here|today|tonight|for|at|on
    |because|as|since|of\sthe\s(?:day|week|night))\b)
      | worth\s(?:backing|taking|a\s(?:small\s)?(?:bet|punt|play)) | sensible(?=\s?(?:[.,;!]|$)) | (?:good|great
    |excellent)\svalue )"""
)
JOINED = _pattern(r"(?: , | ,?\s(?:and|plus|&) )\s (?!with\b|not\b|over\b|versus\b|while\b|it\b|they\b|which\b|who\b)")
HAS_VERB = _pattern(
    r"""\b(?: is|are|was|were|has|have|had|trades?|drift\w*|looks?|can|could|may|might|will|would|if|than|that
    |to\sget|priced|available )\b"""
)
BEHIND = _pattern(r"\s(?:on|for)\s ([^,;.(]{1,200}?) (?= \swith\b | [,;.(] | $ )")
NAME_ENDS = _pattern(
    rf"""; | \s(?:with|for|using|and)\s (?:[a-z]{{1,9}}\s){{0,2}}? (?: stake\b | {_MONEY} | {_UNITS} )
    | \s?\((?:confidence|stake|edge)\b
    | ,?\s(?:priced|available|currently|now|which\sis|who\sare|which\sare|trading)\b | [,(\u2013\u2014|-]\s?(?:odds
    |price)\s?$ | \s[\u2013\u2014]\s"""
)
STAKED_ON = _pattern(
    rf"""^[^\w]{{0,6}}(?:(?:placing|putting|staking|risking|betting)\s)?(?:an?\s)?(?:{_MONEY}|{_UNITS})\s
    (?:(?:bet|stake|wager|punt)\s)?on\s"""
)
# The words after "I recommend" that do not name a bet.
NO_NAME = re.compile(
    r"""[^\w]*(?:an?\s|the\s)?(?:against|caution|care|patience|nothing|none|nobody|neither|anyone|anything|not|how|what
    |zero|off|out|away|down|up|whether|why|who|(?!(?:back|bett|tak|play|putt|stak|plac|go|choos
    |opt)ing\b)[a-z]+ing)\b""",
    re.VERBOSE,
)
BEFORE_NAME = _pattern(
    "(?: a|an|the|on|of|for|with|i|think|that|you|your|bets?|betting|back|backing|taking|going|placing|small|to|bet: )?"
)
AFTER_NAME = _pattern(
    """(?: a|an|the|at|is|are|with|of|for|on|and|or|in|which|currently|now|best|available|priced|offered|quoted
    | have|has|odds|its|their|combined|good|decent|attractive )?"""
)

# A placeholder of a template instead of a name, or a general word such as "team".
PLACEHOLDER = _pattern(
    r"""[\[\]{}<>%_$\u2026] | [.]{3} | \b(?: xyz | xx+ | abc | tb[adc] | n/a | insert | foo | lorem | your
      | who\w* | which\w* | be\sannounced | someone ) \b
    | \b(?: team | player | horse | club | side | selection | runner | home | away )\s?(?: [a-d] | x | y | z | one
    | two | name
      | [1-9] )\b
    | ^[^\w]* (?: (?:the|a|an|some|any|this|that|my|our)\s )? (?: team | player | horse | club | side | runner
    | bets? | picks?
      | tips? | selections? | predictions? | plays? | outcome | market | leg | name | odds | price | stakes? | units?
      | recommendation | verdict | (?:home|away)\s(?:team|side) | x | y | z | a | b | unknown
    | none )s? (?:\sname)? [^\w]* $"""
)

# Headings and fields --------------------------------------------------------------------------------------------------
ANNOUNCES = _pattern(
    rf"""^[^\w]{{0,6}} (?:(?:here|these)\s?(?:is|are|['\u2019]s)\s)? (?:{_MINE}\s)?
      (?:(?:two|three|four|five|six|[2-9])\s)? (?:{_GOOD}\s|betting\s){{0,3}}
      (?: bets? | picks? | tips | tip | plays? | selections? | recommendations? | nap | naps | card | acca
    | accumulator | treble | double | parlay | four-?fold | shortlist )
      (?: \s(?: for\s[\w\s'\u2019-]{{1,40}} | today | tonight | tomorrow | this\s\w{{1,12}} | of\sthe\s\w{{1,8}}
    | I(?:['\u2019]d|\swould)\s(?:recommend|suggest|back|play|take)(?:\s[\w\s'\u2019-]{{1,40}})? | here
    | are ) )? \s?[:.!]?$
    | ^[^\w]{{0,6}} (?:here(?:['\u2019]s|\sis)\s)? what\s(?:I|we)(?:['\u2019]d|\swould)\s
      (?: bet(?:\son)? | back | play | take | recommend | suggest | go\s(?:for|with) )
      (?: \s(?: today | tonight | tomorrow | here | this\s\w{{1,12}} | on\s\w{{1,12}} ) )? \s?[:.]?$
    | \bI(?:['\u2019]d|\swould)?\s(?:recommend|suggest|advise|back)\s(?:the\sfollowing|these
      | (?:two|three|four|five|a\scouple\sof|a\sfew)\s(?:small\s|value\s|single\s)?(?:{_BET}s?
    |singles)(?=\s?[:.]?$))\b"""
)
OWN_LIST = _pattern(  # a "what" that asks no question
    r"^[^\w]{0,6}(?:here(?:['\u2019]s|\sis)\s)?what\s(?=(?:I|we)(?:['\u2019]d|\swould)\s)"
)
CARD = _pattern(r"\bcard\b")  # may also be a list of fixtures, so the stake must be given, too
MULTIPLE = _pattern(
    r"""\b(?: acca | accumulator | treble | double(?!\schance) | parlay | four-?fold | yankee | trixie | multiple
    | combo )s?\b"""
)
COMBINED = _pattern(
    r"""\b(?: (?:combined|total|overall|cumulative|parlay|acca|treble|double)\s(?:odds|price) | (?:comes?|works?\sout
    |adds?\sup|pays?)\s(?:to|at|out\sat)(?:\s(?:combined\s)?odds)? | for\scombined\sodds )\b"""
)
# "Barcelona (1.30), Bayern (1.25) and PSG (1.40), which comes to odds of 2.28"
MULTIPLE_OF = _pattern(
    rf"""^[^\w]{{0,6}} (?:{_MINE}\s)? (?:{_GOOD}\s){{0,2}}
    (?:[\w'\u2019-]{{1,12}}\s){{0,2}} {MULTIPLE.pattern} [^:]{{0,40}} :\s (?P<rest> .+ )"""
)
LEG = _pattern(
    rf"""(?: ^ | ,\s | ,?\s(?:and|plus|with|\+|&)\s ) (?P<name> [^,;:()@]{{1,60}}? ) \s? (?: \(@?\s? | @\s?
    | \bat\s ) (?: {_NUMBER} ) \)?"""
)
TOTAL = _pattern(
    rf"""{COMBINED.pattern} \s? (?: (?: : | = | of | at | is | are | about | around | roughly | odds )\s? ){{0,3}}
    (?P<text> {_NUMBER} ) {_NO_MORE}"""
)
POINTS = _pattern(rf"({_UNITS} | {_MONEY})\s(?:@\s?|at\s)?(?P<text>{_NUMBER}) (?:\s[A-Za-z][\w\s]{{1,20}})?")
PLACES = _pattern(r"^[^()]{0,20}\bplaces?\b")
OWN_VOICE = _pattern(
    r"""^[^\w]{0,6}(?: my | personally | in\smy | overall | for\sme | as\sfor\sme | so\b | in\ssummary
    | bottom\sline | verdict | conclusion | that\ssaid )\b"""
)
FIELD = _pattern(r"""[^\w]{0,6}([A-Za-z#][\w\s/#'\u2019&-]{0,30}?)(?:\s?\([^()]{0,20}\))?\s?:\s+(\S[^\n]*)""")
PICK_KEY = _pattern(
    rf"""(?: (?:my|our)\s{_BET} | (?:recommended|suggested|best|top)\s(?:bet|pick|play|selection|tip|market)s?
    | picks? | tips? | nap | recommendation | value\sbet | my\spick | advice )(?:\s\#?[0-9]{{1,2}})?"""
)
STAKED_KEY = _pattern(
    r"""(?: bets? | selections? | predictions? | plays? | horse | runner | player | team | outcome | market | leg
    | name )(?:\s\#?[0-9]{1,2})?"""
)
ODDS_KEY = _pattern(
    r"""(?: (?:best|current|decimal|american|fractional|approx(?:imate)?[.]?|available|suggested|recommended
    |latest)\s )? (?: odds | price ) (?:\s(?:decimal|american|fractional))?"""
)
STAKE_KEY = _pattern(
    r"""(?: (?:suggested|recommended|advised|my)\s )? (?: stakes? | units? | wager | (?:stake|bet|unit)\ssize
    | amount )"""
)
VERDICT_KEY = _pattern(
    r"""(?: verdict | call | my\s(?:view|verdict|call|take) | recommended\?? | recommendation | back\?? | bet\??
    | play\?? | decision | worth\sit\?? | advice )"""
)
NEUTRAL_KEY = _pattern(
    r"""(?: match(?:es)? | match-?up | events? | games? | fixtures? | race | kick[\s-]?off | time | date | league
    | competition | market | sport | type
    | bet\stype | teams? | \#|no[.]? | confidence | reason(?:ing|s)? | rationale | why | notes? | analysis | edge
    | value | ev | bookmaker | book | bookie
    | where | risk | rank | (?:win\s)?probability | model\sprobability | day | course | form )"""
)
DAY_ALONE = _pattern(  # a date without a year: "12 March", "March 12", "12/03"
    r"""^(?!.*\b20[0-9]{2}\b) .{0,20} (?: \b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*
    | \b[0-9]{1,2}[./-][0-9]{1,2}\b )"""
)
YES = _pattern(
    r"""[^\w✅✔☑👍]{0,3}(?: ✅ | ✔ | ☑ | 👍 | \byes\b | \bback\b | \bbet\b | \bplay\b | \btake\b
    | \brecommended\b )\W{0,3}(?:back|bet|yes|play|take|recommended)?\W{0,3}"""
)

# Text that recommends nothing, whatever else matches ------------------------------------------------------------------
# Words in a line that ends with a colon, which show that the following prose is the writer's own opinion.
LEADS_IN = _pattern(
    r"""\b(?: my | I | I['\u2019]d | verdict | conclusion | summary | short | bottom\sline | recommend\w*
    | suggest\w* | advice
    | tonight | today | tomorrow | picks? | tips? | bets? | analysis | prediction | thoughts | view | so )\b"""
)
SILENT = _pattern(  # in a heading or introduction: about other people's bets, or bets to avoid
    r"""\b(?: usually | typical\w* | generally | lines | layout | structure | guide | basics | terms | terminology
    | faq | common | results? | yesterday\w* | last | past | histor\w+ | record | recap | review | settled | won
    | lost | winners? | losers? | examples? | e\.g
    | for\sinstance | illustrat\w+ | explain\w* | how | what | why | glossary | defin\w+ | means | markets | prices
    | comparison | compar\w+ | available | your | tipsters?
    | experts? | pundits? | others? | consensus | public | people | popular | most | trending | crowd | users?
    | avoid\w* | pass | passed | passes | skip\w* | fades?
    | no\sbets? | non-?bets? | considered | reject\w* | dropped | dismiss\w* | discard\w* | alternatives? | if
    | hypothetic\w* | scenario\w* | back-?test\w* | simulat\w+ | practice | paper
    | watch-?list | wait\w* | traps? | leave | not | never | don['\u2019]t | didn['\u2019]t | wouldn['\u2019]t
    | isn['\u2019]t | no | none | neither | said | says? | wr(?:ites?|ote) | according | from | by | via | quot\w+
    | tweet\w* | posted
    | online | translat\w+ | rephras\w+ | reword\w* | rewrit\w+ | paraphras\w+ | proofread\w* | drafts? | captions?
    | article | newsletter | forum | friends? | claim\w* | thinks? | bookmakers? | bookies? | bet365 | betfair
    | sportsbooks? | offers? | promo\w* | suppose | imagine | pretend | were | was | had | did
    | open | pending | placed | cash\w* | previous\w* | earlier | ago | track | tempting | tempted | overpriced
    | worst | bad | risky | mistakes? | lay | oppose | against | format | template | schema | sample
    | output | response | api | json | quiz | question | exercise | shop\w* | buy | recipe | ingredients | unsure
    | read | reads | sounds? | looks?\slike | like\sthis | worded | wording | phras\w+ | sentence | texts? | message
    | answer | as\sfollows
    | entered | entry | entries | tracker | tracked | tracking | log | logged | ledger | fields? | form\sof | the\sform
    | confirm\w* | accepted
    | screenshots? | images? | photos? | slips? | tickets? | coupons? | receipts? | orders? | portfolio | spreadsheet
    | extract\w* | pars\w+ | saved | stored | recorded | inputs? | data(?=\W*$) | to[\s-]?do | notes?\sto
    | reminders? | english | columns?
    | archiv\w* | throwback | flashback | rewind | retro\w* | look(?:ing)?\sback | back\sin | vault | old
    | undecided | shortlisted | close\scalls | near\smisses | rumou?rs? | hearsay )\b
    | [\u274c\u26d4\U0001f6ab\U0001f44e]"""
)


def announces(text: str) -> bool:
    """Whether the heading or introduction `text` says that recommended bets follow."""
    return bool(ANNOUNCES.search(OPENER.sub("", text)))


def is_silent(text: str) -> bool:
    """Whether nothing below the heading or introduction `text` is recommended."""
    return bool(SILENT.search(OWN_LIST.sub("", text)))


UNWANTED = _pattern(  # in a sentence: negation, past, hypothesis, condition, question, report about others
    r"""n['\u2019]t\b | \b(?: not | never | cannot | nobody | no-?one | few | hardly | barely | neither | nor
    | avoid\w* | skip\w* | steer\sclear | stay(?:ing)?\s(?:away|out) | fade | lay(?:ing)? | oppose
    | pass(?:ing)? | bet(?:ting)?\sagainst | no\s(?:bet|value|play|interest|selection|edge)(?<!draw\sno\sbet)
    | instead\sof | rather | unless | risky | reckless | foolish | mad | mug | trap
    | overpriced | too\s(?:short|low|skinny|big|risky|good) | (?:bad|poor|terrible|little|less|worse|worst|wrong
    |false|thin|negative)\s(?:bets?|value|picks?|choices?|idea) | was | were | won | lost | landed | cashed | voided
    | void
    | settled | beaten | backed | tipped | recommended(?!\s(?:bet|stake|pick|play|selection)) | suggested(?!\s(?:bet
    |stake|pick|play|selection)) | picked | took | placed | had | did | gone | went | came
    | have\s(?:been|said|liked|seen|backed|taken|gone) | would(?:['\u2019]ve|\shave)\s\w{2,12}(?:ed|en|ne)\b
    | yesterday\w* | previous\w* | opened | drifted | shortened | ago | earlier | last\s(?:week|month|season|year
    |night|time|mon|tue|wed|thu|fri|sat|sun)\w*
    | in\s(?:19|20)[0-9]{2} | if | provided | assum\w+ | as\slong\sas | should\s(?:he|she|they|it|the)\b | in\scase
    | when | once | until | till | wait\w* | whenever | whether | subject\sto | pending | only\s(?:at|if|when|for
    |take|back|bet|on)
    | compar\w+ | look\s(?:at|for|out) | versus\sodds | returns? | means | implies | implied | implying | examples?
    | e\.g | for\sinstance | suppos\w+ | imagine | pretend | hypothetical\w* | say | let['\u2019]s\s(?:say|imagine
    |take|assume|suppose|pretend)
    | think\sof | what-?ifs? | would\s(?:return|pay|win|give|yield|cost|be\sworth|earn|collect|lose|get)
    | you(?:['\u2019](?:d|ll)|\swould|\swill|\scan)?\s(?:get|collect|win|receive|make|earn|lose|stand|profit|end\sup
    |risk)
    | pays | paying\sout | payout | gives\syou | profit\s(?:is|would) | in\stotal | comes?\sback | break-?even
    | says? | said | saying | writes? | wrote | tips | recommends | suggests | advises | reckons? | claims?(?:ed)?
    | argues? | predicts | according | thinks | likes | believes? | insists? | quot(?:e|es|ed|ing) | tweet\w* | told
    | tells | heard | hear | rumou?r\w*
    | tipsters? | pundits? | experts? | punters? | bettors? | gamblers? | people | fans | everyone | everybody
    | anyone | anybody | somebody | someone | some\s(?:will|may|might|would|like|prefer) | many | most\s(?:popular
    |people|backed) | others | public | crowd | they\s(?:like|back|bet|recommend|suggest|tip|take)
    | (?:he|she)(?:['\u2019](?:d|s|ll)|\s(?:would|will|is|likes?|backs?))
    | yours | your\s(?:[\w€$£.,-]{1,15}\s){0,3}(?:bets?|picks?|acca|slip|coupon|selections?|wager|treble|double|parlay
    |ticket|tip|choice|idea|friend|suggestion)
    | you(?:['\u2019]ve|\shave)?\s(?:already\s)?(?:have|had|backed|placed|took|got|hold|asked|mentioned|wanted|said
    |want(?!\sto)|plan|suggested|proposed|like|made|bet\b|bought|chose|picked) | you(?:['\u2019]re|\sare)\s(?:on
    |asking|thinking|considering|looking|already|tempted)
    | free\sbets? | bonus | promo\w* | boost\w* | enhanced | sign[\s-]?up | new\scustomers | t&cs? | terms
    | maximum\sbet | limit\sof | cap\sof
    | used\sto | usually | normally | ordinarily | typically | often | sometimes | tempt\w* | (?:love|like|want
    |prefer|hate|hop\w+|ready|about|going|need)\sto | nearly | almost | reluctan\w+ | on\spaper | in\stheory
    | theoretical\w* | pretending
    | hedged | cash(?:ed)?\sout | open\sbet | still\sopen | dutch(?:ed|ing) | arb\w* | hardly | sold | refund\w*
    | update | correction | quiz | question | discount\w* | minimum | at\sleast | or\s(?:better|higher|bigger|above
    |more)
    | below | otherwise | depend\w* | bigger\sthan | higher\sthan | (?:un)?less | more\sthan(?<!no\smore\sthan)
    | hindsight | guarantee\w*
    | (?:play|monopoly|virtual|fake|toy|pretend|paper)\s(?:money|coins?|chips|credits?|currency) | fantasy | game\sof
    | for\s(?:fun|points)\sonly
    | (?<=[,0-9]\s)given(?!\s(?:how|that\s(?:they|he|she|it)\b|their|his|her|its|[A-Z][\w-]+['\u2019]))
    | so\slong\sas | on\s(?:the\s)?condition | in\sthe\sevent | save\sfor | worth\snothing | match(?:es|sticks)(?=\W*$)
    | typical | sentence | phrase | \w+\saside | (?:he|she)\s\w+ed | whisper\w* | that(?:['\u2019]s|\sis)\swhat
    | the\senglish(?:\s(?:for|of|version|translation|equivalent))? | in\senglish | translat\w+ | barring | permitting
    | practi[cs]e | demo | dummy | fictional | made-?up | fictitious | imaginary | simulated | parody | joke
    | kidding | sarcas\w+
    )\b | \b(?: unplaced | non-?runner | fell | pulled\sup | (?:1st|2nd|3rd|[4-9]th)(?=\)) )\b
    | \((?:w|l|void|push|old|done|past|expired|closed|over|archived|finished|played|placed)\)
    | [\u274c\u26d4\U0001f6ab\U0001f44e\u2026] | \?\s*$ | \bbet\s?[1-9]\b(?=.{0,40}\bget\b)
    | \bget\s[€$£][0-9]
    | = \s?[€$£]?[0-9]"""
)
BEFORE_TODAY = _pattern(r"^[^\w]{0,3}(?:yesterday|last\s\w{2,10}|\w{1,8}\s\w{1,8}\sago)\b")  # in a table's cell
# A title before lines of keys and values (a match, a league, a day): it does not say whether they are recommended.
TITLE = re.compile(
    r"""\W* (?: (?:[1-9][0-9]?[.):]\s)? [A-Z\u00c0-\u00dd][\w.'\u2019& -]{1,40} \s (?:v|vs|V|VS|Vs|@|at|against
    |[\u2013\u2014-])[.]? \s
        [A-Z\u00c0-\u00dd][\w.'\u2019& -]{1,40} (?:\s?[(\u2013\u2014,:|-].{0,60})?
    | (?i: (?: (?:the|premier|league|champions|europa|la|liga|serie|a|bundesliga|ligue|1|nba|nfl|nhl|mlb|football
    |soccer|tennis
        |basketball|cricket|rugby|golf|darts|boxing|ufc|racing|horse|championship|cup|fa|world|euro|final|semi-final
        |match|game|race|today|tonight|tomorrow|this|weekend|monday|tuesday|wednesday|thursday|friday|saturday|sunday
        |[1-9]|verdict|conclusion|summary|bottom|line|pick|tip|bet|single|betting|value|final|prediction|analysis|and
    |of|day) \W{0,3}){1,6} ) ) \W*""",
    re.VERBOSE,
)
# Words in a sentence before such lines: it may say that they are somebody else's bets, or an explanation.
ABOUT_FIELDS = _pattern(
    r"""\b(?: you\w* | your\w* | bets? | tips? | picks? | slips? | tables? | columns? | rows | list\w* | entr\w+
    | fields?
    | forms?(?=\s(?:of|has|is|with)\b) | below | following | above | here | this(?=\s(?:is|was)\b) | these | those
    | got | thank\w* | understood | noted | congrat\w* | choice | add\w* | sav\w+
    | log\w*
    | record(?:ed|ing|s) | track\w* | stor\w+ | plac\w+ | accept\w* | confirm\w* | done | sure | okay | ok | request\w*
    | read | reads | shows? | image | photo | file | (?<!clean\s)sheet | text | data | format | example | sample
    | explain\w*
    | stake\w*
    | odds | selections? )\b | :\W*$"""
)
# A sentence after such lines that says what they are: then they are not advice, unless `STANDS_BY` matches.
ABOUT_BLOCK = _pattern(
    r"""^[^\w]{0,6} (?: these | those | this | that
    | (?:the|all)\s(?:above|table|list|block|slip|bets?|picks?|tips?|rows?|lines?|entr\w+|fields?|columns?|data|form) )
    (?:\s(?:above|here|table|list|block|slip|bets?|picks?|tips?))?
    (?: ['\u2019](?:s|re)\b | \s(?: is | are | was | were | shows? | lists? | contains? | comes? | came | reads?
      | gives? | has | have | would | looks? | represents? | follows? | correspond\w* | match\w* | belong\w* )\b )"""
)
ABOUT_IT = _pattern(  # a sentence after such lines that asks about them, or says where they are stored
    r"""(?=[^?]*\?\s*$) .{0,200} \b(?: add | confirm | place | save | submit | right | correct | mean | meant
    | change | edit
      | this | these )\b
    | ^[^\w]{0,6} (?:\w+(?:['\u2019]\w*)?\s){0,3} (?: saved | added | stored | logged | done | recorded | noted
    | updated )\b
    | .{0,200} \b(?: columns? | layout | format\w* | (?:my|your)\s(?:order|records?|screenshot|image|photo|list|file
    |bet|slip)
      | image | screenshot | checked )\b
    | ^[^\w]{0,6} (?: source | status | ref(?:erence)? | (?:bet\s)?id | ticket | receipt | placed | settled )\s?[:\#]"""
)
STANDS_BY = _pattern(
    r"""\b(?: my | our | I | I['\u2019]d | value | strong\w* | best | solid | good | great | small | low | high | risk
    | edge | confiden\w+ | recommend\w* | worth | safe\w* | game | match | side | team )\b"""
)
# Words before a reason after the odds. The reason may be in the past tense or contain "not".
REASON = _pattern(
    r""",?\s(?: because | since | as(?!\s(?:long|soon|of|for|it|well|the\ssaying|they\ssay)\b)
    | given(?=\s(?:how|that\s(?:they|he|she|it)\b|their|his|her|its|[A-Z][\w-]+['\u2019])) | who | whose | which | after
    | thanks\sto | considering | having )\s"""
)
CONDITION = _pattern(
    r"""\b(?: if | unless | provided | only | once | until | assuming | (?:as|so)\s(?:long|soon)\sas | subject\sto
    | or\sbetter | minimum )\b"""
)
# The beginning of a sentence that concedes a point, in order to reject it later.
CONCEDES = _pattern(
    r"""^[^\w]{0,6}(?: although | though | while | whilst | much\sas | as\smuch\sas | even\sthough | whereas
    | however\s(?:good|tempting) | if | were | had | should | suppose | say | when | pass | lay | avoid | fade
    | skip | no | leave | oppose | trap | otherwise | then\s(?:I|we)\b | in\s(?:that|which)\s(?:case|event) )\b"""
)
TURNS = _pattern(
    r""",?\s(?: but | because | since | although | though | while | whereas | however | yet | except | as\sthey ) \s"""
)
# Words after one of `TURNS` that withdraw the bet.
TAKES_BACK = _pattern(
    r"""\b(?: only | if | unless | wait\w* | leave | leaving | pass(?:ing)? | skip\w* | avoid\w* | stay\w* | not
    | no\sbet | wouldn['\u2019]t | shouldn['\u2019]t | don['\u2019]t | didn['\u2019]t | can['\u2019]t | cannot
    | won['\u2019]t\s(?:be|bet|back|take|do)
    | better\soff | minimum | too | until | gone | suspended | no\slonger | instead | void | cancel\w* | resist\w*
    | nah | settle\sfor )\b | n['\u2019]t\b"""
)
# A sentence that withdraws the bets before it.
RETRACTS = _pattern(
    r"""\b(?: (?:leave|skip|avoid|fade|swerve|oppose|pass\son|stay\saway\sfrom|staying\saway\sfrom|steer\sclear\sof
    |dodge|ignore|forget|scrap|cancel|scratch|strike|drop|disregard|delete|scrub|withdraw|reject)\s(?:it|this|that
    |them|these|those|both|all|everything|well\salone|alone|the\s(?:above|lot|bet|bets|pick|picks|tip|tips))
    | leave\s(?:well\s)?alone | stay(?:ing)?\s(?:out|away) | sit(?:ting)?\s(?:this|it|that|these)?\s?(?:one\s)?out
    | no\sbets?(?<!draw\sno\sbet)\b(?!\s(?:is|are)\s(?:ever\s)?(?:certain|guaranteed|sure|safe|risk-free|without\srisk))
    | none\sof\s(?:this|that|it)\sis\s(?:betting\s|financial\s)?(?:advice
    |a\s(?:tip|recommendation))\b | none\sof\s(?:them|these|those|the) | neither\sof | disagree | (?:don['\u2019]t
    |do\snot|can['\u2019]t|cannot)\sagree
    | not\s(?:(?:a|an|any|my|our|actual|real|really|actually|currently)\s){0,3}(?:recommend\w*|advice
    |tips?|picks?|bets?|betting|backing|suggesting|tempted|interested|convinced|sold|touching|taking)
    | (?:is|are|was|were|be)(?:n['\u2019]t|\snot)\s(?:really\s|actually\s)?(?:worth|value|recommended|for\sus|for\sme
    |advisable|a\s(?:bet|good|value)) | not\sworth | no\slonger | not\sany\s?more | chang(?:e|ed|ing)\s(?:my
    |our)\smind | (?:take|taking)\s(?:it|that|this|them)\sback
    | on\s(?:reflection|second\sthoughts?|balance\sno) | (?:wouldn|won|don|didn|shouldn|couldn
    |can)['\u2019]t\s(?:actually\s|really\s|personally\s)?(?:back|bet\son|take|touch|do|recommend|place|follow|put
    |play|tip|advise|make)\s(?:it|this|that|them|these|those|any|either|both|anything|a\sbet|money|him|her)
    | (?:would|will|do|should|could|can)\s?not\s(?:actually\s|really\s|personally\s)?(?:back|bet\son|take|touch|do
    |recommend|place|follow|put|play|tip|advise|make)\s(?:it|this|that|them|these|those|any|either|both|anything
    |a\sbet|money|him|her)
    | I(?:['\u2019]m|\sam)\snot\s | I(?:['\u2019]d|\swould|['\u2019]ll|\swill|['\u2019]m|\sam)\s(?:rather\s|sooner\s
    |happily\s|just\s|probably\s|be\s)?(?:not\b|pass|passing|wait|waiting|leave|leaving|skip|skipping|avoid|avoiding
    |hold\soff|holding\soff|keep\smy\smoney|save\smy\smoney|against\sit)
    | just\s(?:kidding|joking) | only\s(?:joking|kidding|an?\sexample|examples|illustrat\w+|hypothetical)
    | ignore\s(?:my|what|that|this|the) | forget\swhat | scratch\sthat | void(?:ed)?\b | (?:was|is|were
    |that['\u2019]s|it['\u2019]s)\s(?:just\s|only\s|merely\s|purely\s)?(?:an?\s)?(?:example|hypothetical|illustration
    |fictional|made-?up|joke|quote|wrong|a\smistake)
    | (?:my|our)\s(?:mistake|bad|error) | rul(?:es?|ed|ing)\s(?:it|that|this|them)\sout | (?:hedge|tip|bet
    |pick)\sis\soff | all\sbets\sare\soff | illustrat(?:ion|ive)\sonly | keep\s(?:your|my|the)\smoney | postponed
    | called\soff | abandoned | hold\soff | let\s(?:it|this|that|them)\sgo
    | (?:those|these|that|this|it|they|which|all|both)\s(?:picks?\s|tips?\s|bets?\s|one\s)?(?:lost|won|landed|failed
    |went\sdown|settled|came\sin|cashed|was\s(?:his|her|their|last|yesterday)|were\s(?:his|her|their|last
    |yesterday)) | (?:said|says|wrote|writes|tipped|claims|according\sto)\b(?!\sthat\sI) )
    | ^[^\w]{0,6}(?:(?:but|though|however|although|yet|or(?:\srather)?)[,:]?\s)?
      (?:I|we)\s(?:won|wouldn|don|didn|shouldn|can|couldn)['\u2019]t\W*$
    | \b(?:that|this|it)(?:['\u2019]s|\sis|\swas|\swere)\s(?:just\s)?(?:what|how|before|until|when|from)\b
    | \b(?:that|this|it)\swas\s(?:my|our|his|her|their|the|last)\b
    | ^[^\w]{0,6}(?:on\sthe\sother\shand|then\sagain|or(?:\srather)?|well|hmm+|wait),?\s
      (?:no|not|(?:maybe|perhaps)\snot)\b
    | ^[^\w]{0,6}not(?:\sreally)?\W*$
    | ^[^\w]{0,6}(?: update | edit | correction | erratum | p\.?s\b | actually,? | no[,.!] | nope | nah | leave\sit
    | pass[.!:] | avoid[.!] | skip[.!] | on\ssecond | then\sagain )
    | ^[^\w]{0,6}(?:oh|ah|oops|sorry|hmm+|wait|hang\son|hold\son)\b
    | \b(?:match|game|race|fixture|tie|fight)\s(?:was|is|has)\s(?:yesterday|last|over|already|been|done|gone)\b
    | \b(?:already|been)\splayed\b
    | \bor\s(?:it|they|that)\swas\b | \bpulled\sout\b | \b(?:have|has|['\u2019]ve
    |['\u2019]s)\slost\b(?!\s(?:[\w-]{1,12}\s){0,3}
      (?:in\sa\srow|straight|running|games|matches|away|at\shome|on\sthe\sroad)\b) | \bmisread\b"""
)
# A remark in brackets on what the recommended odds mean or pay.
ASIDE = _pattern(
    r"""\s\((?: implied\sprobability | (?:that|which)\swould\s(?:return|pay|win) | potential | returns? | returning
    | to\sreturn )\b[^()]{0,60}\)"""
)
CONDITION_FOLLOWS = _pattern(r"""^[^\w]{0,6}(?:but\s|and\s|so\s|though\s|however,?\s|that\ssaid,?\s)?(?:
    only(?!\s(?:bet|stake|gamble|risk)\s(?:what|money|with\smoney|an?\samount)\b)
    | unless | provided | assuming | if(?!\s(?:it|this|that)\s(?:wins|lands|loses|comes\sin)\b) | wait\b | subject\sto
    | (?:this|that)(?:['\u2019]s|\sis)?\s(?:assumes
    |depends|only|if|provided) | not\s(?:at|if|before|until|yet|today) )\b | \b(?:only\s(?:if|when|at|once)
    |as\slong\sas|conditional\son)\b""")
TEACHES = _pattern(
    r"""\b(?: payout | total\sreturn | you(?:['\u2019](?:d|ll)|\swould|\swill)?\s(?:get|collect|receive|win|make|earn
    |profit|walk\saway|are\spaid)\b | your\s(?:profit|return|winnings)\s | implied\sprobability | implies | formula
    | calculat\w+ | multipl\w+ | divid\w+
    | (?:decimal|fractional|american|moneyline)\sodds\s(?:show|are|mean|tell|express|work)
    | bookmaker['\u2019]?s?\smargin | overround | break-?even | means\sthat | works?\slike | here['\u2019]s\show
    | the\smaths? | the\sreturn | would\s(?:return|pay|give)
    | gives\syou | pays\s(?:you|out) | that\spays | returns\s[€$£0-9] | in\stheory | is\scalled | is\sknown\sas
    | refers\sto | term )\b"""
)
EXAMPLE = _pattern(
    r"""\b(?: for\s(?:example|instance) | examples? | e\.g | suppos(?:e|ing) | imagin(?:e|ing|ary) | hypothetical\w*
    | let['\u2019]s\s(?:say|imagine|assume|suppose|pretend) | pretend | to\sillustrate | illustration | worked
    | fictional | made-?up | walk\sthrough | scenario | simulat\w+ | quiz )\b | ^[^\w]{0,6}(?:say|assume|assuming)\b"""
)
QUOTES = _pattern(
    r"""\b(?: says? | said | writes? | wrote | tips(?!\s?:) | tipped | recommends | suggests | advises | reckons
    | claims | argues | predicts | according\sto | likes | thinks | believes | tweet\w* | tipsters? | pundits?
    | experts? | columnist | newsletter | forum | (?:a|your|my)\sfriend | analysts? | (?:his|her|their)\s(?:pick|tip
    |bet|best\sbet|nap|advice|selection|verdict|column|view|words)
    | the\s(?:article|post|tweet|column|video|podcast|thread|email|message|site|page|paper)\b | quot(?:e|es|ed|ing)
    | others | you(?:['\u2019]ve)?\s(?:asked|wrote|said|mentioned|pasted|sent|quoted|forwarded|shared|posted) )\b"""
)
# The source of a quotation after the odds: "(Paul Merson)", "- Merson". A bookmaker's name is not a source.
SAID_BY = re.compile(
    r"\s?(?:\(|[\u2013\u2014-]\s)(?:via |by |from )?(?:[A-Z][a-z\u2019']{2,20})(?: [A-Z][a-z\u2019']{1,20}){0,2}\)?\W*$"
)
BOOKMAKER = _pattern(_BOOKMAKERS)
SENTENCE_END = _pattern(
    r"""(?<=[.!?]) (?<!\bvs\.) (?<!\bv\.) (?<!\bSt\.) (?<!\be\.g\.) (?<!\bNo\.) (?:[\"\u201d\u2019)]{0,2}) \s"""
)
CONTINUES = _pattern(  # "The odds are 2.10" and "Stake: €10" belong to the bet before them
    r"""(?: (?: the | best | current | suggested | recommended | approximate | decimal | american | available
    | combined | total ) \s ){0,3}
    (?: odds\b | price\s?: | (?:stake|wager|amount)\s?(?: : | of\b | is\b | size ) )"""
)
# Common words of other languages. A text in which these are more frequent than the words of `ENGLISH` is not read.
FOREIGN = _pattern(
    r"""\b(?: der|die|das|und|ist|nicht|ein|eine|auf|f\u00fcr|ich|w\u00fcrde|mit|von|den|dem|kein\w*|quote|einsatz
    |wette\w*|el|la|los|las|que|una|por|para|con|mi|cuota|apuesta\w*|yo|pero|del|al|es|le|les|des|une|est|pas|pour|avec
    |je|sur|cote|mise\w*|du|et|mais|het|een|niet|op|geen|van|voor|liever|il|che|non|per|di|della|quota|scommess\w*|io
    |um|uma|n\u00e3o|aposta\w*|eu|com|odd|och|inte|som|\u00e4r|att|nie|na|kurs|zak\u0142ad\w*|bym|jest|bu|ve|bir
    |oran\w*|yok|ikke|og|p\u00e5|jeg|p\u00e3o|se|ne|oddsen|insats|tipp|tipset|spiel|heute|hoy|hoje|oggi|vandaag
    |aujourd|ej|ei|en|ja|vedonly\u00f6nti )\b"""
)
# Betting words of other languages that never occur in English. One of them makes a sentence foreign.
BETS_ELSEWHERE = _pattern(
    r"""\b(?: goles | gols | golos | doelpunten | gewinnt | gewinnen | gana | ganar\w* | gagne\w* | empate | pareggio
    | unentschieden | gelijkspel | cuota | einsatz | wette\w* | apuesta\w* | apostar\w* | aposta\w* | scommess\w*
    | inzet | stawka | insats | vyhraje | wygra | vinner | victoria\sdel? | vit\u00f3ria\sd[oa]
    | besiegt )\b"""
)
ENGLISH = _pattern(
    r"""\b(?: the|a|an|and|is|are|to|of|on|in|with|at|for|i|my|it|this|that|bets?|odds|stake|win|wins|over|under|best
    |pick|picks|back|take|recommend|recommended|value|selection|units?|both|teams|score|goals|draw|top|our|price
    |match|prediction|home|away|moneyline|ml|lock|day|pts?|pt )\b"""
)
