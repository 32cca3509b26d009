"""Text that shows nothing."""

import unicodedata

# Spaces, line and paragraph separators, controls, and format characters: zero-width spaces and joiners, byte order
# marks, directions. And those that Unicode counts among letters, marks and symbols although they draw nothing.
_CATEGORIES = ("Zs", "Zl", "Zp", "Cc", "Cf")
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")


def is_blank(text: str) -> bool:
    """Whether a reader sees nothing at all: models refuse such messages, and nobody means them."""
    return all(map(_is_blank, text))


def _is_blank(character: str) -> bool:
    if "\ufe00" <= character <= "\ufe0f" or "\U000e0000" <= character <= "\U000e0fff":  # variation selectors, tags
        return True
    return character in _FILLERS or unicodedata.category(character) in _CATEGORIES
