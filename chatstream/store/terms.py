"""Splits texts into search terms: words, pairs of characters, and emoji.

Case, accents, vowel points and full-width forms make no difference: ``Straße`` is found as ``strasse``, ``Zürich`` as
``zurich``. In scripts without spaces between words (Chinese, Japanese, Thai …), every two neighbouring characters are a
term. Punctuation is left out, so ``C++`` is found as ``c``.
"""

import re
import unicodedata
from collections.abc import Iterator
from operator import add

# Maximum number of characters of a term; longer ones are cut. No word is that long, and encoded data is found by its
# beginning.
MAX_TERM = 40

# Characters that are normalized in one call, during which no other thread runs. One character may become 18. To cut
# before a combining character changes nothing, since those are left out.
_SLICE = 2000

_UNSEGMENTED = (  # compiled by `re` at its first use
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+)"
)
_KASHIDA = "\u0640"  # a line that only makes an Arabic word wider


def terms(text: str, *, sought: bool = False) -> Iterator[str]:
    """The terms of `text`; some may come twice. `sought`: the text is a search query, not a text to be indexed.

    In scripts without spaces, the last character of an indexed text is a term as well, so that every single character
    is the beginning of a term.
    """
    table = _Table()
    plain = "".join(_normal(text[at : at + _SLICE]).translate(table) for at in range(0, len(text), _SLICE))
    for word in dict.fromkeys(plain.split()):
        for place, run in enumerate(re.split(_UNSEGMENTED, word)):
            if place % 2 == 0:
                if run:
                    yield run[:MAX_TERM]
                continue
            yield from dict.fromkeys(map(add, run, run[1:]))
            if len(run) == 1 or not sought:
                yield run[-1]


class _Table(dict[int, str]):
    """`_plain` of each character that occurs, for `str.translate`."""

    def __missing__(self, code: int) -> str:
        self[code] = plain = _plain(chr(code))
        return plain


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKD", text.casefold())


def begins_terms(term: str) -> bool:
    """Whether to match longer terms that begin with this one. False for one letter: half of all words would match."""
    return len(term) > 1 or re.fullmatch(_UNSEGMENTED, term) is not None


def _plain(character: str) -> str:
    """The character's normal form for the search; empty for an ignored character, a space for one that ends a word."""
    category = unicodedata.category(character)
    is_variant = "\ufe00" <= character <= "\ufe0f" or "\U0001f3fb" <= character <= "\U0001f3ff"  # of an emoji
    if unicodedata.combining(character) or category == "Cf" or is_variant or character == _KASHIDA:
        return ""
    if character.isalnum() or category.startswith("M"):
        return character
    return f" {character} " if category == "So" else " "
