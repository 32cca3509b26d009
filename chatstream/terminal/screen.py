"""Prepares untrusted text for a terminal: removes control characters and breaks lines between words."""

import unicodedata
from collections.abc import Callable


def printable(text: str) -> str:
    """`text` without control characters except line feeds and tabs: terminals obey them, models may write them."""
    return "".join(character for character in text if character in "\n\t" or unicodedata.category(character) != "Cc")


class Wrapping:
    """Breaks lines between words while text arrives in chunks.

    Text is shown at once: if a word becomes too long for its line, it is erased and written on the next line.
    """

    def __init__(self, width: Callable[[], int]) -> None:
        """`width()` returns the terminal's width in cells; called each time, since windows are resized."""
        self._width = width
        self.restart()

    def restart(self) -> None:
        """Start at column 0: other output was written, and a new line begins."""
        self._column = 0  # in cells, as `_word`
        self._word: list[str] = []

    def __call__(self, text: str) -> str:
        """The output for the next chunk of text."""
        # Leave the last column empty: terminals differ in where the cursor goes after it.
        limit = max(self._width() - 1, 1)
        return "".join(self._one(character, limit) for character in printable(text))

    def _one(self, character: str, limit: int) -> str:
        if character == "\n":
            self.restart()
            return "\n"
        size = 8 - self._column % 8 if character == "\t" else _cells(character)
        broken = ""
        if character.isspace():
            self._word = []
            if self._column + size > limit:  # a space at the line's end is dropped
                self._column = limit
                return ""
        else:
            if self._column + size > limit:
                broken = self._break()
            self._word.append(character)
        self._column += size
        return broken + character

    def _break(self) -> str:
        cells = sum(map(_cells, self._word))
        if cells == self._column:  # longer than a line
            self.restart()
            return "\n"
        self._column = cells
        back = f"\033[{cells}D\033[K" if cells else ""
        return f"{back}\n{''.join(self._word)}"


def _cells(character: str) -> int:
    """The character's usual width in cells. Terminals differ for emoji made of several characters."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
