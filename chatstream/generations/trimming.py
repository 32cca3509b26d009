"""Trims a conversation for the model: removes whole exchanges from the start, at a point that rarely moves.

Providers cache the beginning of a prompt for a while, and charge a tenth of the price when the next prompt begins the
same way. If each turn removed the oldest exchange, no prompt would begin like the one before. So nothing is removed
until the conversation passes the high mark (the model's limit). Then it is cut to the low mark, and the point is stored
with the conversation. Until it passes the high mark again, each prompt begins like the one before.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from chatstream.errors import StorageUnavailable
from chatstream.llm.model import Turn
from chatstream.pieces import ContextTrimmed, Piece

# The low mark, as a fraction of the high mark. With a half, a window of n exchanges is cut again after n/2 more: with
# twenty, over four fifths of all text sent is cached. A higher mark would cut too often; a lower one would remove more
# than needed.
LOW_MARK = 0.5

Remember = Callable[[int], Awaitable[int]]
"""Stores the `seq` from which the model is given the conversation; returns how many messages lie before it."""


class Exchange(NamedTuple):
    """A user message with the sequence number `seq`, and the turns that answer it, in order."""

    seq: int
    turns: list[Turn]

    @property
    def size(self) -> int:
        """The length of its text, in characters."""
        return sum(turn.size for turn in self.turns)

    @property
    def size_with_reasoning(self) -> int:
        """The length of its text and reasoning, in characters."""
        return self.size + sum(len(turn.reasoning) for turn in self.turns)


class Window:
    """The part of one conversation that the model gets for one answer. Lengths are in characters."""

    def __init__(self, exchanges: Sequence[Exchange], *, over: bool = False, begin: int | None = None) -> None:
        """`exchanges` are in order and end with the question. `over`: there are older ones, which the model cannot
        hold.

        `begin` is the `seq` from which the model was given the conversation before.
        """
        self.exchanges = list(exchanges)
        self._over = over
        self._begin = begin
        self._told_from: int | None = None
        self.turns: list[Turn] = []
        self._seqs: list[int | None] = []

    @property
    def history(self) -> list[Turn]:
        """All turns."""
        return [turn for exchange in self.exchanges for turn in exchange.turns]

    @property
    def moved_to(self) -> int | None:
        """The `seq` from which the model is given the conversation now, if that has changed."""
        return None if self._told_from == self._begin else self._told_from

    def fit(self, high: int, *, reasoning: bool = False) -> None:
        """Cut the window to the low mark if it has more than `high` characters; the question always stays.

        `reasoning`: the model is given its reasoning, too.
        """
        sizes = [one.size_with_reasoning if reasoning else one.size for one in self.exchanges]
        if not self._over and sum(sizes) <= high:
            return
        first, left = len(sizes) - 1, high * LOW_MARK - sizes[-1]
        while first > 0 and sizes[first - 1] <= left:
            first -= 1
            left -= sizes[first]
        if first or self._over:
            self._told_from = self.exchanges[first].seq
        self.exchanges = self.exchanges[first:]
        self._over = False

    def arrange(self, more: Sequence[Turn] = ()) -> None:
        """Build `turns`: neighbouring turns of one role are merged. `more` is placed right before the question."""
        placed: list[tuple[Turn, int | None]] = [
            (turn, exchange.seq) for exchange in self.exchanges for turn in exchange.turns
        ]
        placed[-1:-1] = [(turn, None) for turn in more]
        self.turns, self._seqs = [], []
        for turn, seq in placed:
            same = bool(self.turns) and self.turns[-1].role == turn.role
            if same and not (self.turns[-1].steps or turn.steps):
                before = self.turns.pop()
                turn = Turn(turn.role, f"{before.content}\n\n{turn.content}")
                seq = self._seqs.pop() or seq
            self.turns.append(turn)
            self._seqs.append(seq)

    def told_from(self, index: int) -> None:
        """Record that the model can hold only the turns from this index on."""
        if index:
            self._told_from = next((seq for seq in self._seqs[index:] if seq is not None), self._told_from)


async def announced(window: Window, remember: Remember) -> list[Piece]:
    """If more messages are left out than before, return the piece that says so. It comes first in the answer."""
    if window.moved_to is not None:
        with suppress(StorageUnavailable):  # then the point is moved, and reported, with the next answer
            return [ContextTrimmed(dropped=await remember(window.moved_to))]
    return []
