"""What a terminal is given of a text that somebody else wrote: no commands, and lines that break between words."""

import unicodedata
from collections.abc import Callable


def printable(text: str) -> str:
    """`text` without control characters but line feeds and tabs: a terminal would obey them, a model may write them."""
    return "".join(character for character in text if character in "\n\t" or unicodedata.category(character) != "Cc")


class Wrapping:
    """Breaks lines between words while the text comes bit by bit.

    Nothing is held back: a word that turns out too long for its line is erased there and written on the next one.
    """

    def __init__(self, width: Callable[[], int]) -> None:
        """`width` is the terminal's, in cells; it is asked each time, as windows are resized."""
        self._width = width
        self.restart()

    def restart(self) -> None:
        """Something else was written, and a new line begins."""
        self._column = 0  # in cells, as `_word`
        self._word: list[str] = []

    def __call__(self, text: str) -> str:
        """What to write to the terminal for the text's next bit."""
        # Never in the last column: a cursor there stands in two places, depending on the terminal.
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
            if self._column + size > limit:  # the line's end stands for it
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
    """How wide it is: the terminals' usual answer; they do not agree on emojis that are made of several."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
