"""An attempt that goes on from the text of one that was cut.

The model is shown what it has said as its own turn, and then asked for the rest. Many models repeat some of it all the
same: the word in which they were cut, the last sentence, or all from the beginning. What is repeated is left out.
"""

from collections.abc import AsyncGenerator, AsyncIterator

from chatstream.blank import is_blank
from chatstream.errors import ErrorCode
from chatstream.llm.model import GO_ON, Delta, Turn
from chatstream.models import Answer, Status
from chatstream.pieces import BEGINNING, Kind, OpenReasoning, OpenText, Piece, after

# How far back a repetition may begin that is not a repetition of all: some paragraphs. Looking for it takes time that
# grows with this, and until it is found or ruled out its text is held back.
_OVERLAP = 1000
# One character in common says nothing: "1" goes on as "10", and as "11".
_LEAST_OVERLAP = 2
# What models call it when an answer has reached the length that it may have.
_CUT_OFF = ("length", "max_tokens")


def kept(answer: Answer) -> list[Piece]:
    """What an attempt begins with that goes on from this one: its text, and what was thought before that."""
    pieces: list[Piece] = []
    place, end = BEGINNING, 0
    for piece in answer.pieces:
        if isinstance(piece, OpenText | OpenReasoning) or (isinstance(piece, str) and place.kind is not Kind.TOOL_CALL):
            pieces.append(piece)
        if isinstance(piece, str) and piece and place.kind is Kind.TEXT:
            end = len(pieces)
        place = after(place, piece)
    return pieces[:end]


def is_cut(answer: Answer) -> bool:
    """Whether there is text that can be gone on from, and more to come. What became too long would do so again."""
    too_long = answer.failure is not None and answer.failure.code is ErrorCode.ANSWER_TOO_LONG
    whole = answer.status is Status.COMPLETE and answer.finish_reason not in _CUT_OFF
    ended = whole or not answer.status.is_final
    return not (ended or too_long or is_blank(answer.content))


def asked_to_go_on(text: str, most: int) -> list[Turn]:
    """The turns behind the question's, with the end of `text`: at most so many characters."""
    return [Turn("assistant", text[-most:]), Turn("user", GO_ON)]


async def continued(deltas: AsyncIterator[Delta], text: str) -> AsyncGenerator[Delta, None]:
    """The rest of `text` as the model tells it. What it thinks in between is left out: that would part the text."""
    seam, place = Seam(text), BEGINNING
    try:
        async for delta in deltas:
            said = ""
            for piece in delta.pieces:
                if isinstance(piece, str) and place.kind is Kind.TEXT:
                    said += piece
                place = after(place, piece)
            more = seam.feed(said) + (seam.rest() if delta.finish is not None else "")
            yield delta._replace(pieces=[more] if more else [])
    except Exception:
        if held := seam.rest():
            yield Delta([held])
        raise


class Seam:
    """Where a text and its continuation meet."""

    def __init__(self, text: str) -> None:
        """`text` is there already."""
        end = text[-_OVERLAP:]
        # Each repetition begins with a word, or with what is none.
        starts = [i for i in range(len(end)) if not (i and end[i - 1].isalnum() and end[i].isalnum())]
        repeated = [end[i:] for i in starts if len(end) - i >= _LEAST_OVERLAP and not end[i:].isspace()]
        self._repeated = [text, *(one for one in repeated if one != text)] if len(text) >= _LEAST_OVERLAP else []
        self._held = ""
        self._open = bool(self._repeated)  # what comes may still repeat the text from before

    def feed(self, more: str) -> str:
        """What of the continuation is new, as far as that is known."""
        if not self._open:
            return more
        self._held += more
        if any(len(one) > len(self._held) and one.startswith(self._held) for one in self._repeated):
            return ""
        return self.rest()

    def rest(self) -> str:
        """The same at the end of the continuation."""
        self._open = False
        held, self._held = self._held, ""
        whole = next((one for one in self._repeated if held.startswith(one)), "")  # the longest comes first
        self._repeated = []
        return held[len(whole) :]
