"""Holds back a model's output until plug-ins have released it. Pure: `plugins` makes the calls to them."""

import json
from collections import deque
from collections.abc import Iterable, Sequence

from chatstream.pieces import BEGINNING, Data, Kind, OpenReasoning, OpenText, OpenToolCall, Piece, after, spaced


class Holding:
    """Holds back the pieces of one answer until a plug-in has released their text.

    Plug-ins check text, and a tool call once it is complete; nothing of the call is sent before. Reasoning is dropped,
    since no plug-in checks it. Every other piece is released when all text before it is.
    """

    def __init__(self, begun: Sequence[Piece] = ()) -> None:
        """`begun`: the pieces of the answer that are already sent."""
        self.text = ""  # the whole text so far
        self.told = 0  # number of its code points that are released
        self._place = BEGINNING  # the position after the last piece that came in
        self._others: deque[tuple[int, Piece]] = deque()  # held pieces, each with the length of the text before it
        self._call: list[tuple[int, Piece]] = []  # the tool call that the model is writing, in the same form
        self._whole: list[str] = []  # complete calls that no plug-in has checked yet
        self.add(begun)
        self.told = len(self.text)
        self._others.clear()
        self._call.clear()
        self._whole.clear()
        # The last released piece belongs to a tool call, so a mark must show where text begins again.
        self._in_call = self._place.kind is not Kind.TEXT

    def add(self, pieces: Iterable[Piece]) -> bool:
        """Add pieces of the answer; returns whether there is text in them."""
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
        """The names and arguments of new complete calls; the arguments as sent, and with JSON escapes decoded.

        Each call is returned once. `ended`: the answer has ended.
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
        """The pieces to send, now that the first `end` code points of the text are released."""
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
    """The JSON text with its character escapes decoded, so that they hide nothing from a check."""
    try:
        return json.dumps(json.loads(arguments), ensure_ascii=False)
    except (ValueError, RecursionError):
        return arguments
