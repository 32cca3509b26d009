"""Detects text that shows nothing."""

import unicodedata

# Unicode categories that draw nothing: spaces, line and paragraph separators, controls, and format characters
# (zero-width spaces and joiners, byte order marks, directions). Also marks: they show only on a letter, and a blank
# text has none. Below: letters, marks and symbols by Unicode that still draw nothing.
_CATEGORIES = ("Zs", "Zl", "Zp", "Cc", "Cf", "Mn", "Me", "Mc")
_FILLERS = frozenset("\u115f\u1160\u2800\u3164\uffa0\ufffc\U0001d159")


def is_blank(text: str) -> bool:
    """Whether a text shows nothing at all: models refuse such messages."""
    return all(map(_is_blank, text))


def _is_blank(character: str) -> bool:
    if "\U000e0000" <= character <= "\U000e0fff":  # tag characters
        return True
    number = ord(character)
    if number & 0xFFFE == 0xFFFE or 0xFDD0 <= number <= 0xFDEF or 0xFFF0 <= number <= 0xFFF8 or number == 0x2065:
        return True  # noncharacters, and code points that are never shown (Default_Ignorable_Code_Point)
    return character in _FILLERS or unicodedata.category(character) in _CATEGORIES
