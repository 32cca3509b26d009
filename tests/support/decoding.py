"""Bodies of model endpoints, as the network cuts them."""

from chatstream.llm.decoding import AnswerDecoder
from chatstream.pieces import Piece


def fed(decoder: AnswerDecoder, body: bytes, size: int) -> list[Piece]:
    """The pieces of a whole body that comes `size` bytes at a time."""
    pieces: list[Piece] = []
    for start in range(0, len(body), size):
        if not decoder.over:
            pieces += decoder.feed(body[start : start + size])
    if not decoder.over:
        pieces += decoder.end()
    return pieces
