"""Estimates tokens where no model has counted them: from the text's length and this conversation's earlier counts."""

from collections.abc import Iterable

from msgspec import UNSET, UnsetType

from chatstream.llm.model import Estimate, Turn
from chatstream.models import Answer, Usage, UsageSource
from chatstream.pieces import Piece, cut

# Tokens per byte of text. English has about four characters per token. Other languages have fewer, but more bytes per
# character: Cyrillic two, Chinese three. So bytes fit all of them better than characters.
_TOKENS_PER_BYTE = 0.25
# Tokens of a turn besides its text: its role, its beginning and its end.
_TOKENS_PER_TURN = 4
# The fewest bytes to learn from: a shorter answer shows how its model counts rather than its language.
_SAMPLE_BYTES = 200


class Ratio:
    """Tokens per byte of text: a default at first, and the conversation's own ratio once a model has counted enough."""

    def __init__(self) -> None:
        self._bytes = self._tokens = 0

    def learn(self, answer: Answer) -> None:
        """Learn the ratio from an answer whose tokens the model counted."""
        usage = answer.usage
        if usage is not None and usage.source is UsageSource.EXACT and answer.continues is None:
            thought = usage.reasoning_tokens if isinstance(usage.reasoning_tokens, int) else 0
            self._bytes += size(answer.content)
            self._tokens += usage.completion_tokens - thought

    @property
    def tokens_per_byte(self) -> float:
        """The ratio; at most one token per byte, which no tokenizer exceeds. (An endpoint may count more than the
        text.)
        """
        if self._bytes < _SAMPLE_BYTES or self._tokens <= 0:
            return _TOKENS_PER_BYTE
        return min(self._tokens / self._bytes, 1.0)

    def estimate(self, turns: list[Turn]) -> Estimate:
        """Return the estimated usage of a request with these turns."""
        told = sum(size(turn.content) for turn in turns)
        for call in (call for turn in turns for step in turn.steps for call in step.calls):
            told += size(call.arguments) + size(call.result)
        ratio = self.tokens_per_byte
        return Estimate(round(told * ratio) + _TOKENS_PER_TURN * len(turns), ratio)


def size(text: str) -> int:
    """The size in bytes."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def added(before: Usage | None, more: Usage | None) -> Usage | None:
    """Return the sum of two usages. A field that one of them lacks is missing in the sum."""
    if before is None or more is None:
        return before or more

    def both(one: int | UnsetType, other: int | UnsetType) -> int | UnsetType:
        return UNSET if isinstance(one, UnsetType) or isinstance(other, UnsetType) else one + other

    return Usage(
        prompt_tokens=before.prompt_tokens + more.prompt_tokens,
        completion_tokens=before.completion_tokens + more.completion_tokens,
        total_tokens=before.total_tokens + more.total_tokens,
        source=max(before.source, more.source, key=[*UsageSource].index),
        cached_tokens=both(before.cached_tokens, more.cached_tokens),
        reasoning_tokens=both(before.reasoning_tokens, more.reasoning_tokens),
    )


def since(before: Usage | None, now: Usage | None) -> Usage | None:
    """Return the difference: the usage added since `before`."""
    if before is None or now is None:
        return now

    def more(one: int | UnsetType, other: int | UnsetType) -> int | UnsetType:
        return UNSET if isinstance(one, UnsetType) or isinstance(other, UnsetType) else one - other

    return Usage(
        prompt_tokens=now.prompt_tokens - before.prompt_tokens,
        completion_tokens=now.completion_tokens - before.completion_tokens,
        total_tokens=now.total_tokens - before.total_tokens,
        source=now.source,
        cached_tokens=more(now.cached_tokens, before.cached_tokens),
        reasoning_tokens=more(now.reasoning_tokens, before.reasoning_tokens),
    )


def estimated(estimate: Estimate, pieces: Iterable[Piece]) -> Usage:
    """Return the estimated usage of a request whose response so far is `pieces`; reasoning counts, too."""
    said = sum(size(piece) for piece in cut(pieces, estimate.begins_at) if isinstance(piece, str))
    completion = round(said * estimate.tokens_per_byte) or bool(said)
    return Usage(
        prompt_tokens=estimate.prompt_tokens,
        completion_tokens=int(completion),
        total_tokens=estimate.prompt_tokens + int(completion),
        source=UsageSource.ESTIMATED,
    )
