"""Splits texts into search terms: words, pairs of characters, and emoji.

Case, accents, vowel points and full-width forms make no difference: ``Straße`` is found as ``strasse``, ``Zürich`` as
``zurich``. In scripts without spaces between words (Chinese, Japanese, Thai …), every two neighbouring characters are a
term. Punctuation is left out, so ``C++`` is found as ``c``.
"""

import re
import unicodedata
from collections.abc import Iterator

# Maximum number of characters of a term; longer ones are cut. No word is that long, and encoded data is found by its
# beginning.
MAX_TERM = 40

_UNSEGMENTED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+)"
)
_KASHIDA = "\u0640"  # a line that only makes an Arabic word wider


def terms(text: str, *, sought: bool = False) -> Iterator[str]:
    """The terms of `text`; some may come twice. `sought`: the text is a search query, not a text to be indexed.

    In scripts without spaces, the last character of an indexed text is a term as well, so that every single character
    is the beginning of a term.
    """
    folded = unicodedata.normalize("NFKD", text.casefold())
    plain = folded.translate({ord(character): _plain(character) for character in set(folded)})
    for word in plain.split():
        for place, run in enumerate(_UNSEGMENTED.split(word)):
            if place % 2 == 0:
                if run:
                    yield run[:MAX_TERM]
                continue
            for begin in range(len(run) - 1):
                yield run[begin : begin + 2]
            if len(run) == 1 or not sought:
                yield run[-1]


def begins_terms(term: str) -> bool:
    """Whether to match longer terms that begin with this one. False for one letter: half of all words would match."""
    return len(term) > 1 or _UNSEGMENTED.fullmatch(term) is not None


def _plain(character: str) -> str:
    """The character's normal form for the search; empty for an ignored character, a space for one that ends a word."""
    category = unicodedata.category(character)
    is_variant = "\ufe00" <= character <= "\ufe0f" or "\U0001f3fb" <= character <= "\U0001f3ff"  # of an emoji
    if unicodedata.combining(character) or category == "Cf" or is_variant or character == _KASHIDA:
        return ""
    if character.isalnum() or category.startswith("M"):
        return character
    return f" {character} " if category == "So" else " "
