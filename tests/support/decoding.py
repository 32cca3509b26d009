"""Feeds bodies of model endpoints to a decoder, cut into pieces as by a network."""

from chatstream.llm.decoding import AnswerDecoder
from chatstream.pieces import Piece


def fed(decoder: AnswerDecoder, body: bytes, size: int) -> list[Piece]:
    """Decode a whole body, `size` bytes at a time; returns its pieces."""
    pieces: list[Piece] = []
    for start in range(0, len(body), size):
        if not decoder.over:
            pieces += decoder.feed(body[start : start + size])
    if not decoder.over:
        pieces += decoder.end()
    return pieces
