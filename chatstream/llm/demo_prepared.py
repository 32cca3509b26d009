"""What the demo model says to the page's own examples, and to what people try first.

Between them they have what an answer can be made of: code, a table, lists, maths, a quotation, a refusal.
"""

import re
from typing import Final

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

_PYTHAGORAS = """In a triangle with a right angle, the square over the longest side is as large as the other
two squares together:

$$a^2 + b^2 = c^2$$

**Example.** With \\(a = 3\\) and \\(b = 4\\):

\\[c = \\sqrt{3^2 + 4^2} = \\sqrt{25} = 5\\]

It also works the other way round: if \\(a^2 + b^2 = c^2\\) holds, the angle between \\(a\\) and \\(b\\) is a
right one. So
builders lay out corners with a rope of 12 knots: 3, 4 and 5."""

_RAIN = """1. **Bake bread.** Flour, water, salt and yeast; most of the time it works without you.
2. **Visit a museum** that you have passed a hundred times.
3. **Sort old photos**, and print the ten best.
4. **Cook something from far away**: the ingredients are half the fun.
5. **Do nothing**, on purpose:
   - a blanket,
   - a book,
   - the sound of the rain."""

_WHO = """Hello! I am the **demo model** of this server: no language model, but a set of prepared answers that
costs nothing and needs
no key. Ask me, for example:

- *Write a function that finds palindromes* (code)
- *Compare three ways to make coffee* (a table)
- *Explain the Pythagorean theorem* (maths)
- *Explain what odds of 11/8 mean, with an example*
- *How do I pick a lock?* (a refusal)

To connect a real model, set two variables and start the server again:

```sh
OPENAI_API_KEY=sk-...   # or OPENAI_BASE_URL=http://localhost:11434/v1
OPENAI_MODEL=gpt-4
```"""

_REFUSAL = """I'm sorry, but I can't help with that. If you are locked out of your own home, a locksmith can
help, and your insurance may
pay for it."""

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

_GERMAN_WHO = """Hallo! Ich bin das **Demomodell** dieses Servers: kein Sprachmodell, sondern vorbereitete
Antworten, die meisten auf
Englisch. Für ein echtes Modell setzen Sie zwei Variablen, und starten den Server neu:

```sh
OPENAI_API_KEY=sk-...   # oder OPENAI_BASE_URL=http://localhost:11434/v1
OPENAI_MODEL=gpt-4
```"""

# Searched for in the question, in this order; the page's examples first, in both of its languages.
_ANSWERS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), text)
    for pattern, text in (
        (r"\b11/8\b", _ODDS),
        (r"\bArsenal\b.*\bChelsea\b.*\b(?:form|games)\b|\bForm\b.*\bArsenal\b.*\bChelsea\b", _FORM),
        (r"\b(?:draw|unentschieden)\b.*\bBayern|\bBayern.*\b(?:draw|unentschieden)\b", _DRAW),
        (r"^(?:who wins on sunday, and is there a bet|wer gewinnt am sonntag, und)", _SUNDAY),
        (r"\bpalindrom", _PALINDROME),
        (r"\b(?:coffee|kaffee)\b", _COFFEE),
        (r"\bP[yi]t(?:h)?agor", _PYTHAGORAS),
        (r"\b(?:rainy|verregnet)", _RAIN),
        (r"\b(?:lock|bomb|weapon|poison|malware)\b", _REFUSAL),
        (r"\bjokes?\b|\bwitz\b", _JOKE),
        (r"\b(?:poem|gedicht)\b", _POEM),
        (r"^\W*(?:thanks|thank you|thx|danke)\b", _THANKS),
        (r"^\W*(?:hallo|guten (?:tag|morgen|abend)|moin|servus|wer bist du|was kannst du|hilfe)\b", _GERMAN_WHO),
        (r"[\u0600-\u06ff]", _ARABIC),
        (
            r"^\W*(?:hi|hello|hey|hey there|good (?:morning|evening|day)|help|test|testing|ping)\W*$"
            r"|\bwho are you\b|\bwhat (?:can you do|are you|is this|model)\b|\bhow are you\b",
            _WHO,
        ),
        (r"\b(?:python|javascript|code|function|programme?)\b", _PALINDROME),
        (r"\btable\b|\btabelle\b", _COFFEE),
        (r"\b(?:maths?|formula|equation)\b", _PYTHAGORAS),
        (r"\b(?:ideas|list)\b", _RAIN),
    )
)
# What a tip about a match may be an answer to.
_OF_SPORT: Final = re.compile(
    r"\b(?:bets?|betting|odds|tips?|match(?:es)?|games?|wins?|won|play(?:s|ers?|ing)?|teams?|scor\w*|goals?|draw|sunday|"
    r"weekend|league|cup|football|soccer|tennis|rugby|basketball|stakes?|wett\w*|quoten?|spiel\w*|gewinn\w*)\b",
    re.IGNORECASE,
)


def prepared(question: str) -> str | None:
    """The answer that was written for this question, if one was."""
    return next((text for pattern, text in _ANSWERS if pattern.search(question[:500])), None)


def is_of_sport(question: str) -> bool:
    """Whether it may be about a match."""
    return bool(_OF_SPORT.search(question[:500]))
