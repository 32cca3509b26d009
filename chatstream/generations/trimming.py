"""How much of a conversation the model is told, in whole exchanges, from a point that moves rarely.

Providers keep what they have read of a prompt for a while, and charge a tenth of the price where the next one begins in
the same way. If the oldest exchange were left out with each turn, no prompt would begin like the one before. So nothing
is left out until the conversation has passed the high mark (what the model holds); then it is cut down to the low mark,
and the point is stored with the conversation. Until the high mark is passed again, each prompt begins like the last.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import NamedTuple

from chatstream.errors import StorageUnavailable
from chatstream.llm.model import Delta, Turn
from chatstream.pieces import ContextTrimmed

# The low mark, as a part of the high one. With a half, a window of n exchanges is read anew after n/2 more: of twenty,
# more than four fifths of all that is sent has been sent before. With more it would be read anew too often, with less
# more would be left out than need be.
LOW_MARK = 0.5

Remember = Callable[[int], Awaitable[int]]
"""Stores that the model is told the conversation from this `seq` on; returns how many messages lie before it."""


class Exchange(NamedTuple):
    """A user message, of place `seq`, and what answers it: its turns, in order."""

    seq: int
    turns: list[Turn]

    @property
    def size(self) -> int:
        """Of what is said, in characters."""
        return sum(turn.size for turn in self.turns)

    @property
    def size_with_reasoning(self) -> int:
        """Of what is said and thought, in characters."""
        return self.size + sum(len(turn.reasoning) for turn in self.turns)


class Window:
    """What of one conversation the model is told for one answer. Lengths are in characters."""

    def __init__(self, exchanges: Sequence[Exchange], *, over: bool = False, begin: int | None = None) -> None:
        """`exchanges` are in order, and end with the question. `over`: there are more, which the model cannot hold.

        `begin` is the `seq` from which the conversation was told so far.
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
        """The `seq` from which it is told now, if that is another one than before."""
        return None if self._told_from == self._begin else self._told_from

    def fit(self, high: int, *, reasoning: bool = False) -> None:
        """Cut it down to the low mark, if it has more than `high` characters; the question always stays.

        `reasoning`: the model is told what it thought, too.
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
        """Make `turns`: neighbours of one role are one. `more` is told right before the question."""
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
        """The model holds no more than what comes from this turn on."""
        if index:
            self._told_from = next((seq for seq in self._seqs[index:] if seq is not None), self._told_from)


async def announced(
    window: Window, deltas: AsyncGenerator[Delta, None], remember: Remember
) -> AsyncGenerator[Delta, None]:
    """`deltas`, and before the first piece that messages are left out from now on, if that is new."""
    told = False
    async with aclosing(deltas):
        async for delta in deltas:
            if delta.pieces and not told:
                told = True
                if window.moved_to is not None:
                    with suppress(StorageUnavailable):  # then it is moved, and told, with the next answer
                        dropped = await remember(window.moved_to)
                        delta = delta._replace(pieces=[ContextTrimmed(dropped=dropped), *delta.pieces])
            yield delta
