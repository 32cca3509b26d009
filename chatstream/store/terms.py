"""What texts are searched by: their terms, which are words, pairs of characters, and emoji.

Case, accents and vowel points make no difference (``Straße`` is found as ``strasse``, ``Zürich`` as ``zurich``), nor do
full-width forms. Where a script has no spaces between its words (Chinese, Japanese, Thai …) nobody knows where one
ends: each two neighbouring characters are a term. Punctuation belongs to no term, so ``C++`` is found as ``c``.
"""

import re
import unicodedata
from collections.abc import Iterator

# A longer one is cut: no word has so many letters, and what is encoded in letters is searched by its beginning.
MAX_TERM = 40

_UNSEGMENTED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+)"
)
_KASHIDA = "\u0640"  # only makes an Arabic word wider


def terms(text: str, *, sought: bool = False) -> Iterator[str]:
    """The terms of `text`, some of them twice. `sought`: it is what somebody looks for, and not what is looked through.

    The end of a text in which each pair is a term is one, too: so one character is found as the beginning of a term.
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
    """Whether what begins with this term is meant, too: with one letter of an alphabet, half of all words would be."""
    return len(term) > 1 or _UNSEGMENTED.fullmatch(term) is not None


def _plain(character: str) -> str:
    """The character as it is searched, nothing if it makes no difference, or a space if it ends a word."""
    category = unicodedata.category(character)
    is_variant = "\ufe00" <= character <= "\ufe0f" or "\U0001f3fb" <= character <= "\U0001f3ff"  # of an emoji
    if unicodedata.combining(character) or category == "Cf" or is_variant or character == _KASHIDA:
        return ""
    if character.isalnum() or category.startswith("M"):
        return character
    return f" {character} " if category == "So" else " "
