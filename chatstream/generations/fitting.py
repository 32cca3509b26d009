"""Limits the size of an answer: too much text ends it; too much reasoning is left out."""

from collections.abc import Sequence

from chatstream.pieces import Kind, OpenReasoning, OpenText, OpenToolCall, Piece, Place, behind, joined, spaced

# Characters that each reasoning part counts in addition to its text: where reasoning and text alternate with every
# word, the marks between them take most of the document.
_PART_CHARACTERS = 100


class Fitting:
    """The size limits of one answer. Lengths are in code points."""

    def __init__(self, text: int, reasoning: int) -> None:
        """`text` is the most code points of the answer's text, `reasoning` the most of its reasoning."""
        self._text = text
        self._reasoning = reasoning  # reasoning characters left
        self._left_out = False  # the open reasoning part has no room
        self._gap = False  # the next text was separated from the text before it by reasoning that was left out

    def fits(self, end: Place, pieces: Sequence[Piece]) -> bool:
        """Whether `pieces` only continue the text that is open at `end`, and all of them fit."""
        if end.kind is not Kind.TEXT or self._left_out or self._gap or (strings := joined(pieces)) is None:
            return False
        begins = end.text and not end.offset  # text that follows other text gets a blank line before it
        return not begins and len(strings) <= self._text - end.text

    def of(self, end: Place, pieces: Sequence[Piece]) -> tuple[Sequence[Piece], bool]:
        """Return the pieces that fit after `end`, and whether all of the text did."""
        if self.fits(end, pieces):
            return pieces, True
        kept: list[Piece] = []
        for piece in pieces:
            whole = True
            if not isinstance(piece, str):
                fits: Sequence[Piece] = [piece] if self._has_room(piece, end) else ()
            elif self._left_out:
                fits = ()
            elif end.kind is Kind.TEXT:
                place = Place(text=end.text) if self._gap else end
                text = "".join([one for one in spaced(place, [piece]) if isinstance(one, str)])
                self._gap = False
                fits = [text[: max(self._text - end.text, 0)]]
                whole = fits == [text]
            elif end.kind is Kind.REASONING:
                fits = [piece[: max(self._reasoning, 0)]]
                self._reasoning -= len(piece)
            else:
                fits = [piece]
            fits = [one for one in fits if one != ""]
            kept += fits
            end = behind(end, fits)
            if not whole:
                return kept, False
        return kept, True

    def _has_room(self, mark: Piece, end: Place) -> bool:
        if isinstance(mark, OpenReasoning):
            self._left_out = self._reasoning <= 0
            self._reasoning -= _PART_CHARACTERS
            return not self._left_out
        if isinstance(mark, OpenToolCall):
            self._left_out = False
        if isinstance(mark, OpenText) and self._left_out:
            self._left_out = False
            if end.kind is Kind.TEXT:  # the same text part continues
                self._gap = True
                return False
        return True
