"""What a model has said, and how much of it may be told. Pure: who says so is asked in `plugins`."""

from collections import deque
from collections.abc import Iterable, Sequence

from chatstream.pieces import BEGINNING, Data, Kind, OpenReasoning, OpenText, OpenToolCall, Piece, after, spaced


class Holding:
    """Holds back the pieces of one answer until a plug-in has released their text.

    Plug-ins are asked about text alone. So reasoning, which none has checked, is left out. Every other piece is
    released when all text before it is.
    """

    def __init__(self, begun: Sequence[Piece] = ()) -> None:
        """With `begun` the answer begins, which is told already."""
        self.text = ""  # all of it
        self.told = 0  # how much of that is out
        self._place = BEGINNING  # behind what came
        self._others: deque[tuple[int, Piece]] = deque()  # not told yet, and how much text comes before each
        self.add(begun)
        self.told = len(self.text)
        self._others.clear()
        # What was told last belongs to a call: text that follows must say that it is text.
        self._in_call = self._place.kind is not Kind.TEXT

    def add(self, pieces: Iterable[Piece]) -> bool:
        """More of the answer; whether there is text in it."""
        texts: list[str] = []
        length = len(self.text)
        for piece in spaced(self._place, pieces):
            kind = self._place.kind
            if isinstance(piece, str) and kind is Kind.TEXT:
                texts.append(piece)
                length += len(piece)
            elif isinstance(piece, Data) or not (
                isinstance(piece, OpenText | OpenReasoning) or (isinstance(piece, str) and kind is Kind.REASONING)
            ):
                self._others.append((length, piece))
            self._place = after(self._place, piece)
        self.text += "".join(texts)
        return bool(texts)

    def release(self, end: int, *, ended: bool) -> list[Piece]:
        """What is told now that the first `end` code points of the text may be."""
        pieces: list[Piece] = []
        while self._others and (self._others[0][0] <= end or ended):
            before, piece = self._others.popleft()
            self._tell(min(before, end), pieces)
            pieces.append(piece)
            self._in_call = self._in_call or isinstance(piece, OpenToolCall)
        self._tell(end, pieces)
        return pieces

    def _tell(self, end: int, pieces: list[Piece]) -> None:
        if end <= self.told:
            return
        if self._in_call:
            pieces.append(OpenText())
            self._in_call = False
        pieces.append(self.text[self.told : end])
        self.told = end
