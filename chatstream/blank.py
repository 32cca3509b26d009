"""Text that shows nothing."""

import unicodedata

# Spaces, line and paragraph separators, controls, and format characters: zero-width spaces and joiners, byte order
# marks, directions. And those that Unicode counts among letters, marks and symbols although they draw nothing.
# Marks show on a letter, and there is none where all of a text is blank.
_CATEGORIES = ("Zs", "Zl", "Zp", "Cc", "Cf", "Mn", "Me", "Mc")
_FILLERS = frozenset("\u115f\u1160\u2800\u3164\uffa0\ufffc\U0001d159")


def is_blank(text: str) -> bool:
    """Whether a reader sees nothing at all: models refuse such messages, and nobody means them."""
    return all(map(_is_blank, text))


def _is_blank(character: str) -> bool:
    if "\U000e0000" <= character <= "\U000e0fff":  # tags
        return True
    number = ord(character)
    if number & 0xFFFE == 0xFFFE or 0xFDD0 <= number <= 0xFDEF or 0xFFF0 <= number <= 0xFFF8 or number == 0x2065:
        return True  # noncharacters, and places that will never be shown (Default_Ignorable_Code_Point)
    return character in _FILLERS or unicodedata.category(character) in _CATEGORIES
