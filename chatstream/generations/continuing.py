"""Attempts that continue the text of a cut attempt.

The model is shown its text so far as its own turn, and asked for the rest. Many models still repeat some of it: the cut
word, the last sentence, or the whole text. The repetition is removed.
"""

from collections.abc import AsyncGenerator, AsyncIterator

from msgspec.structs import replace

from chatstream.blank import is_blank
from chatstream.errors import ErrorCode
from chatstream.llm.model import GO_ON, Delta, Turn
from chatstream.models import Answer, Status
from chatstream.pieces import BEGINNING, Kind, OpenReasoning, OpenText, Piece, after

# The most characters from the end in which a partial repetition may begin: some paragraphs. A larger value takes longer
# to search, and text is held back until a repetition is found or ruled out.
_OVERLAP = 1000
# The fewest characters that count as a repetition. One character is not enough: "1" may continue as "10" or "11".
_LEAST_OVERLAP = 2
# The models' finish reasons for an answer that reached its length limit.
_CUT_OFF = ("length", "max_tokens")


def kept(answer: Answer) -> list[Piece]:
    """Return the pieces that an attempt continuing this one begins with: its text, and the reasoning before it."""
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
    """Whether the answer is incomplete and has text. An answer that became too long does not count: it would become too
    long again.
    """
    too_long = answer.failure is not None and answer.failure.code is ErrorCode.ANSWER_TOO_LONG
    whole = answer.status is Status.COMPLETE and answer.finish_reason not in _CUT_OFF
    ended = whole or not answer.status.is_final
    return not (ended or too_long or is_blank(answer.content))


def asked_to_go_on(text: str, most: int) -> list[Turn]:
    """Return the turns after the question, which ask to continue `text`; at most `most` characters of its end are
    included."""
    return [Turn("assistant", text[-most:]), Turn("user", GO_ON)]


async def continued(deltas: AsyncIterator[Delta], text: str) -> AsyncGenerator[Delta, None]:
    """Yield the rest of `text` from the model. Reasoning in between is left out: it would split the text."""
    seam, place = Seam(text), BEGINNING
    try:
        async for delta in deltas:
            said = ""
            for piece in delta.pieces:
                if isinstance(piece, str) and place.kind is Kind.TEXT:
                    said += piece
                place = after(place, piece)
            more = seam.feed(said) + (seam.rest() if delta.finish is not None else "")
            yield replace(delta, pieces=[more] if more else [])
    except Exception:
        if held := seam.rest():
            yield Delta([held])
        raise


class Seam:
    """The place where a text and its continuation meet."""

    def __init__(self, text: str) -> None:
        """`text` is the text before the continuation."""
        end = text[-_OVERLAP:]
        # A repetition can begin only at the start of a word or at a non-word character.
        starts = [i for i in range(len(end)) if not (i and end[i - 1].isalnum() and end[i].isalnum())]
        repeated = [end[i:] for i in starts if len(end) - i >= _LEAST_OVERLAP and not end[i:].isspace()]
        self._repeated = [text, *(one for one in repeated if one != text)] if len(text) >= _LEAST_OVERLAP else []
        self._held = ""
        self._open = bool(self._repeated)  # more text may still be part of a repetition

    def feed(self, more: str) -> str:
        """Take the next text of the continuation. Return the part of it that is certainly not a repetition."""
        if not self._open:
            return more
        self._held += more
        if any(len(one) > len(self._held) and one.startswith(self._held) for one in self._repeated):
            return ""
        return self.rest()

    def rest(self) -> str:
        """Return the remaining new part at the end of the continuation."""
        self._open = False
        held, self._held = self._held, ""
        whole = next((one for one in self._repeated if held.startswith(one)), "")  # the longest comes first
        self._repeated = []
        return held[len(whole) :]
