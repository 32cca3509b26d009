"""What a model has said, and how much of it may be told. Pure: who says so is asked in `plugins`."""

import json
from collections import deque
from collections.abc import Iterable, Sequence

from chatstream.pieces import BEGINNING, Data, Kind, OpenReasoning, OpenText, OpenToolCall, Piece, after, spaced


class Holding:
    """Holds back the pieces of one answer until a plug-in has released their text.

    Plug-ins are asked about text, and about a call when it is whole: until then nothing of it is told. Reasoning, which
    none has checked, is left out. Every other piece is released when all text before it is.
    """

    def __init__(self, begun: Sequence[Piece] = ()) -> None:
        """With `begun` the answer begins, which is told already."""
        self.text = ""  # all of it
        self.told = 0  # how much of that is out
        self._place = BEGINNING  # behind what came
        self._others: deque[tuple[int, Piece]] = deque()  # not told yet, and how much text comes before each
        self._call: list[tuple[int, Piece]] = []  # the one that the model is making, likewise
        self._whole: list[str] = []  # calls that nobody was asked about
        self.add(begun)
        self.told = len(self.text)
        self._others.clear()
        self._call.clear()
        self._whole.clear()
        # What was told last belongs to a call: text that follows must say that it is text.
        self._in_call = self._place.kind is not Kind.TEXT

    def add(self, pieces: Iterable[Piece]) -> bool:
        """More of the answer; whether there is text in it."""
        texts: list[str] = []
        length = len(self.text)
        for piece in spaced(self._place, pieces):
            kind = self._place.kind
            if self._call and not isinstance(piece, str | Data):
                self._end_call()
            if isinstance(piece, OpenToolCall) or (self._call and isinstance(piece, str) and kind is Kind.TOOL_CALL):
                self._call.append((length, piece))
            elif isinstance(piece, str) and kind is Kind.TEXT:
                texts.append(piece)
                length += len(piece)
            elif isinstance(piece, Data) or not (
                isinstance(piece, OpenText | OpenReasoning) or (isinstance(piece, str) and kind is Kind.REASONING)
            ):
                self._others.append((length, piece))
            self._place = after(self._place, piece)
        self.text += "".join(texts)
        return bool(texts)

    def whole_calls(self, *, ended: bool) -> list[str]:
        """Of each call that is whole and was not given here before its name and arguments, as sent and as read.

        `ended`: what has come is all there is.
        """
        if ended:
            self._end_call()
        whole, self._whole = self._whole, []
        return whole

    def _end_call(self) -> None:
        if not self._call:
            return
        name = next(piece.name for _, piece in self._call if isinstance(piece, OpenToolCall))
        arguments = "".join(piece for _, piece in self._call if isinstance(piece, str))
        self._whole.append("\n".join(dict.fromkeys([name, arguments, _plain(arguments)])))
        self._others += self._call
        self._call = []

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


def _plain(arguments: str) -> str:
    """JSON without what may stand for a character that could be written as it is."""
    try:
        return json.dumps(json.loads(arguments), ensure_ascii=False)
    except (ValueError, RecursionError):
        return arguments
