"""The demo model's answers to the questions that people try first, which a plug-in can replace.

Together the prepared answers have all kinds of content: code, a table, lists, maths, a quotation, a refusal.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from random import Random
from typing import Any, Final, NamedTuple

from msgspec import Struct

from chatstream.llm.titling import shortened
from chatstream.models import Annotation

_PALINDROME = """A palindrome reads the same from both ends. Spaces, marks and capitals do not count:

```python
def is_palindrome(text: str) -> bool:
    letters = [letter for letter in text.casefold() if letter.isalnum()]
    return letters == letters[::-1]
```

1. Keep the letters and digits only, in lower case.

   ```python
   is_palindrome("Never odd or even")  # True
   ```

2. Compare them with themselves in reverse.

   ```python
   is_palindrome("Hello")  # False
   ```

It looks at each letter twice, so the time it takes is \\(O(n)\\)."""

_COFFEE = """| | Time | Effort | Taste |
|:---|---:|:---:|:---|
| French press | 5 min | low | full, a little cloudy |
| Pour over | 4 min | medium | clear and light |
| Moka pot | 6 min | medium | strong, nearly an espresso |

- **For many cups**: the French press.
- **For a light roast**: pour over.
- **With milk**: the moka pot.

> Fresh beans, ground just before, matter more than the method."""

_PYTHAGORAS = """In a triangle with a right angle, the square over the longest side is as large as the other \
two squares together:

$$a^2 + b^2 = c^2$$

**Example.** With \\(a = 3\\) and \\(b = 4\\):

\\[c = \\sqrt{3^2 + 4^2} = \\sqrt{25} = 5\\]

It also works the other way round: if \\(a^2 + b^2 = c^2\\) holds, the angle between \\(a\\) and \\(b\\) is a \
right one. So builders lay out corners with a rope of 12 knots: 3, 4 and 5."""

_RAIN = """1. **Bake bread.** Flour, water, salt and yeast; most of the time it works without you.
2. **Visit a museum** that you have passed a hundred times.
3. **Sort old photos**, and print the ten best.
4. **Cook something from far away**: the ingredients are half the fun.
5. **Do nothing**, on purpose:
   - a blanket,
   - a book,
   - the sound of the rain."""

_WHO = """Hello! I am the **demo model** of this server: no language model, but a set of prepared answers that \
costs nothing and needs no key. Ask me, for example:

- *Write a function that finds palindromes* (code)
- *Compare three ways to make coffee* (a table)
- *Explain the Pythagorean theorem* (maths)
- *How do I pick a lock?* (a refusal)

To connect a real model, set two variables and start the server again:

```sh
OPENAI_API_KEY=sk-...   # or OPENAI_BASE_URL=http://localhost:11434/v1
OPENAI_MODEL=gpt-4
```"""

_REFUSAL = """I'm sorry, but I can't help with that. If you are locked out of your own home, a locksmith can \
help, and your insurance may pay for it."""

_DANGEROUS = "I'm sorry, but I can't help with that."

_THANKS = "You are welcome! (Even the demo model is polite.)"

_JOKE = """Why do programmers prefer the dark? Because light attracts bugs.

(The demo model knows only this one.)"""

_POEM = """> Word by word the answer grows,
> Nothing lost if the network goes;
> Close the lid and come back late:
> It goes on, and you need not wait.

(The demo model wrote only this one.)"""

_ARABIC = """أهلاً! أنا **النموذج التجريبي** لهذا الخادم، وإجاباتي معدّة مسبقاً.

- النص يُكتب من اليمين إلى اليسار.
- أما الشيفرة مثل `print("مرحبا")` فتبقى من اليسار إلى اليمين."""

_GERMAN_WHO = """Hallo! Ich bin das **Demomodell** dieses Servers: kein Sprachmodell, sondern vorbereitete \
Antworten, die meisten auf Englisch. Für ein echtes Modell setzen Sie zwei Variablen, und starten den Server neu:

```sh
OPENAI_API_KEY=sk-...   # oder OPENAI_BASE_URL=http://localhost:11434/v1
OPENAI_MODEL=gpt-4
```"""

# The reasoning of the demo models that think first.
THOUGHT = "The user asks for something. I look at what is known of it, and keep it short."

_GREETING = (
    r"(?:hi|hiya|hello|hey|yo|howdy|hola|buenos d[ií]as|buenas(?: tardes| noches)?|bonjour|salut|bonsoir|ciao|salve|"
    r"buongiorno|buonasera|qu[eé] tal|c[oó]mo est[aá]s|(?:comment )?[cç]a va|comment allez.vous|come stai|tudo bem|"
    r"good night|god (?:dag|morgen)|ol[aá]|bom dia|boa tarde|hej|hei|hoi|goedemorgen|ahoj|cze[sś][cć]|dzie[nń] dobry|"
    r"merhaba|selam|namaste|salaam|shalom|aloha|xin ch[aà]o|good (?:morning|afternoon|evening|day)|привет|"
    r"здравствуйте|добрый день|вітаю|привіт|γεια(?: \w+)?|שלום|नमस्ते|こんにちは|おはよう|你好|您好|안녕(?:하세요)?)"
    r"(?: (?:there|all|everyone|bot|you|again))?"
)
_GERMAN_GREETING = r"(?:hallo|hallöchen|guten (?:tag|morgen|abend)|moin(?: moin)?|servus|grüß gott|grüezi|tach)"
_ARABIC_GREETING = (
    r"(?:مرحب[اًا]*|[أا]هل[اًا]*(?: وسهل[اًا]*)?|السلام عليكم|سلام|صباح الخير|مساء الخير|كيف (?:ال)?حالك?|من [أا]نت|هاي)"
)
_DO = r"(?:write|make|build|create|code|develop|prepare|produce|synthesi[sz]e|baue?n?|schreib\w*)"
_OTHER_LANGUAGE = (
    r"java|javascript|js|typescript|rust|go|golang|c|ruby|php|swift|kotlin|haskell|perl|sql|bash|scala|r|lua|excel"
)
# The prepared answers, by patterns that are searched for in the question, in this order. A pattern needs more than a
# word of the topic: an answer about something else is worse than "none of them is about that".
_ANSWERS: Final = (
    (rf"^(?!.*\b(?:{_OTHER_LANGUAGE})\b).*\bpalindrom", _PALINDROME),
    (
        r"\b(?:mak(?:e|es|ing)|brew\w*|prepar\w+|machen|mache|zubereit\w+|koche\w*)\b"
        r"(?:(?! in ).)*\b(?:coffee|kaffee)\b(?! (?:shop|table|machine|cake))"
        r"|\b(?:coffee|kaffee)\b.*\b(?:machen|zubereiten|kochen)\b|^\W*(?:coffee|kaffee)\W*$",
        _COFFEE,
    ),
    (
        r"^(?!.*\b(?:who|when|where|born|wer|wann|wo|code|function|program|python)\b).*\bp[yi]th?ag",
        _PYTHAGORAS,
    ),
    (
        r"\b(?:ideas?|things to do|activit\w+|what\b.*\bdo|ideen|was\b.*\b(?:tun|machen?))\b.*"
        r"\b(?:rainy|verregnet\w*)\b"
        r"|\b(?:rainy|verregnet\w*)\b.*\b(?:ideas?|things to do|activit\w+|ideen|what (?:can|should|to)\b.*\bdo)\b"
        r"|^\W*rainy(?: (?:sun)?day)?\W*$",
        _RAIN,
    ),
    (
        r"\b(?:pick|picking|force|crack)\s+(?:a |an |the |my |this |open )*(?:door |front )?locks?\b|\block ?picking\b"
        r"|\bschlo(?:ss|ß)\b.*\bknacken\b",
        _REFUSAL,
    ),
    (
        rf"\b{_DO}\b(?: me| mir)?(?: a| an| some| eine?)?"
        r"(?: (?:pipe|petrol|nail|dirty|car|home-?made|nuclear|chemical|biological|deadly|new))*"
        r" (?:bomb|bombe|weapon|waffe|poison|malware|ransomware|computer virus)s?"
        r"(?=\W*$| (?:at home|from|out of|please|that|using|with)\b)",
        _DANGEROUS,
    ),
    (
        r"\b(?:tell|know|say|give|make|hear|crack|got|have|another|one more|any|a good|erzähl\w*|kennst|noch)\b"
        r"(?:(?! about (?:this|that|the)).){0,30}\b(?:jokes?|witze?)\b"
        r"|^\W*(?:a |an? other |ein(?:en)? )?(?:jokes?|witz)\b.{0,12}$",
        _JOKE,
    ),
    (
        r"\b(?:write|compose|make|tell|give|know|schreib\w*|dichte\w*)\b(?:(?! (?:of|from|called|the) ).){0,20}"
        r"\b(?:poem|gedicht)\b(?! (?:by|called|von)\b)"
        r"|^\W*(?:a |an? other |ein )?(?:poem|gedicht)\b(?:,? (?:please|bitte))?\W*$",
        _POEM,
    ),
    (
        r"^\W*(?:(?:ok(?:ay)?|great|super|perfect|no)\W+)?"
        r"(?:many thanks|thanks|thank you|thx|danke|vielen dank)(?:\W+(?:you|so|very|much|a|lot|for|the|your|that|this|"
        r"it|help|answer|s|was|is|great|helpful|good|nice|perfect|again|everything|all|dir|ihnen|sehr|schön|für|die|das|"
        r"deine|ihre|hilfe|antwort|super|gut))*\W*$",
        _THANKS,
    ),
    (
        rf"^\W*(?:{_GERMAN_GREETING}\W*)?(?:wer bist du|wer sind sie|was kannst du(?: alles)?|was bist du|hilfe|"
        rf"wie geht(?: es|.s)?(?: dir| ihnen)?)\W*$|^\W*{_GERMAN_GREETING}(?: zusammen)?\W*$",
        _GERMAN_WHO,
    ),
    (rf"^\W*{_ARABIC_GREETING}(?:\W+{_ARABIC_GREETING})*\W*$", _ARABIC),
    (
        rf"^\W*(?:{_GREETING}\W*)?(?:who (?:are|is) (?:you|this)|what (?:are|is) (?:you|this)"
        r"(?: (?:demo|page|site|app|chat|server|thing))?|what (?:can|do) you do(?: for me)?|"
        r"(?:what|which) (?:(?:ai|language) )?model (?:are you|is this|do you use)|"
        r"how are you(?: doing)?(?: today)?|how.s it going|how does this work|"
        r"are you (?:an? |the )?(?:real|human|person|robot|bot|ai|llm|language model|demo|"
        r"chat ?gpt|gpt-?\w*|claude|gemini|llama)(?: (?:person|human|model|ai|llm))?|"
        r"(?:can you )?help(?: me)?|test(?:ing)?|ping)\W*$"
        rf"|^\W*{_GREETING}(?:\W+{_GREETING})*\W*$",
        _WHO,
    ),
)


# The titles of conversations that begin with these questions.
_TITLES: Final = {
    _PALINDROME: "Palindromes in Python",
    _COFFEE: "Three ways to make coffee",
    _PYTHAGORAS: "The Pythagorean theorem",
    _RAIN: "A rainy Sunday",
    _WHO: "Meeting the demo model",
    _GERMAN_WHO: "Das Demomodell",
    _REFUSAL: "Locked out",
    _DANGEROUS: "A refusal",
    _JOKE: "A joke",
    _POEM: "A poem",
    _THANKS: "Thanks",
    _ARABIC: "النموذج التجريبي",
}


def matches(pattern: str, question: str) -> bool:
    """Whether the pattern is in the question. It is compiled on use: most servers have no demo model."""
    return re.search(pattern, question, re.IGNORECASE) is not None


def title(question: str) -> str:
    """The demo model's title for a conversation with this first question: a prepared one, else the question."""
    text = prepared(question)
    return _TITLES[text] if text else shortened(" ".join(question.split())).strip(" ,.;:?!")


class DemoModel(NamedTuple):
    """A plug-in's own demo model: its description and its answers."""

    description: str
    answer: str


class Chat(NamedTuple):
    """An invented conversation: questions with their answers, which fit in any order."""

    title: str
    exchanges: Sequence[tuple[str, str]]


_QUESTIONS: Final = {
    "Write a function that finds palindromes": _PALINDROME,
    "Compare three ways to make coffee": _COFFEE,
    "Explain the Pythagorean theorem": _PYTHAGORAS,
    "Give me five ideas for a rainy Sunday": _RAIN,
    "Do you know a joke?": _JOKE,
    "A poem, please!": _POEM,
}


def _chats(seed: int) -> Callable[[Random], Chat]:
    return lambda chance: Chat(_TITLES[chance.choice(_TEXTS)], [*_QUESTIONS.items()])


class Called(NamedTuple):
    """A tool call and its result."""

    name: str
    arguments: Mapping[str, Any]
    result: str


class Wanted(NamedTuple):
    """A tool call to make."""

    name: str
    arguments: Mapping[str, Any]


Step = str | Sequence[Wanted] | None
"""What a model does next: it says something, or it calls tools; None: as if there were none."""


def _no_step(question: str, called: Sequence[Called]) -> Step:
    return None


class Subject(Struct, frozen=True, kw_only=True):
    """The topic of all invented content: the demo model's answers, a development server's example conversation, and
    the conversations of ``chatstream seed``."""

    answer: Callable[[str], str]  # always the same for the same question
    texts: Sequence[str]  # the texts of a long answer
    models: Mapping[str, DemoModel] = {}  # further demo models
    step: Callable[[str, Sequence[Called]], Step] = _no_step  # the next step after a question and the calls since
    calls: Sequence[Wanted] = ()  # two calls that always work, for the demos of tool calls
    title: str  # the example conversation's title
    question: str  # the example conversation's only message
    chats: Callable[[int], Callable[[Random], Chat]] = _chats  # for a seed: a function that makes random chats
    found: Callable[[str, str], tuple[Annotation, ...]] = lambda id_, text: ()  # annotations of a seeded answer


def prepared(question: str) -> str | None:
    """The prepared answer to this question, if there is one."""
    return next((text for pattern, text in _ANSWERS if matches(pattern, question[:500])), None)


def long_answer(subject: Subject, question: str) -> str:
    """An answer of about 1,500 words: the subject's texts, repeated."""
    first = number(question)
    parts: list[str] = []
    words = 0
    while words < _LONG:
        text = subject.texts[(first + len(parts)) % len(subject.texts)]
        parts.append(f"## Part {len(parts) + 1}\n\n{text}")
        words += len(parts[-1].split())
    return "\n\n".join(parts)


def number(question: str) -> int:
    """A number by which an answer is chosen. Not `hash`, which differs between processes."""
    return int.from_bytes(sha256(question.encode("utf-8", "replace")).digest()[:8])


_LONG: Final = 1450  # words, before the last part is added
_TEXTS: Final = (_PALINDROME, _COFFEE, _PYTHAGORAS, _RAIN)


def _answer(question: str) -> str:
    """The prepared answer to this question, else a text that says there is none."""
    return prepared(question) or _none_fits(question)


def _none_fits(question: str) -> str:
    asked = [*_QUESTIONS]
    first = number(question) % len(asked)  # so that not all of these texts are the same
    examples = "\n".join(f"- *{one}*" for one in asked[first:] + asked[:first])
    return f"{NO_ANSWER} Ask, for example:\n\n{examples}\n\n{REAL_MODEL}"


NO_ANSWER: Final = "This is a demo with prepared answers, and none of them is about that."
REAL_MODEL: Final = (
    "For answers to anything, connect a real model: set `OPENAI_API_KEY` (or `OPENAI_BASE_URL`) and `OPENAI_MODEL`, "
    "and start the server again."
)
GENERAL: Final = Subject(
    answer=_answer, texts=_TEXTS, title="A rainy Sunday", question="Give me five ideas for a rainy Sunday"
)
"""Without a plug-in that has a subject of its own."""
