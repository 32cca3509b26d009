"""How many tokens a text has, where no model has counted: by its length, and by what this conversation had so far."""

from collections.abc import Iterable

from msgspec import UNSET, UnsetType

from chatstream.llm.model import Estimate, Turn
from chatstream.models import Answer, Usage, UsageSource
from chatstream.pieces import Piece, cut

# English has about four characters to a token. Others have fewer, but take more bytes: Cyrillic two for a character,
# Chinese three. So bytes fit all of them better than characters do.
_TOKENS_PER_BYTE = 0.25
# What a turn has around its text: its role, its beginning and its end.
_TOKENS_PER_TURN = 4
# Below this an answer says more about how its model counts than about its language.
_SAMPLE_BYTES = 200


class Ratio:
    """Tokens for a byte of a conversation's text: its own, as soon as enough of it was counted by a model."""

    def __init__(self) -> None:
        self._bytes = self._tokens = 0

    def learn(self, answer: Answer) -> None:
        """From an answer whose tokens the model counted."""
        usage = answer.usage
        if usage is not None and usage.source is UsageSource.EXACT and answer.continues is None:
            thought = usage.reasoning_tokens if isinstance(usage.reasoning_tokens, int) else 0
            self._bytes += size(answer.content)
            self._tokens += usage.completion_tokens - thought

    @property
    def tokens_per_byte(self) -> float:
        """At most one, which no tokenizer exceeds: an endpoint may count what is not in the text."""
        if self._bytes < _SAMPLE_BYTES or self._tokens <= 0:
            return _TOKENS_PER_BYTE
        return min(self._tokens / self._bytes, 1.0)

    def estimate(self, turns: list[Turn]) -> Estimate:
        """What a request with these turns is likely to be charged for."""
        told = sum(size(turn.content) for turn in turns)
        for call in (call for turn in turns for step in turn.steps for call in step.calls):
            told += size(call.arguments) + size(call.result)
        ratio = self.tokens_per_byte
        return Estimate(round(told * ratio) + _TOKENS_PER_TURN * len(turns), ratio)


def size(text: str) -> int:
    """In bytes."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def added(before: Usage | None, more: Usage | None) -> Usage | None:
    """Of several requests together; what is not known of one of them is not known of all."""
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
    """What came to the sum after it was `before`."""
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
    """The usage of a request that was answered with `pieces`, whole or not; what the model thinks counts, too."""
    said = sum(size(piece) for piece in cut(pieces, estimate.begins_at) if isinstance(piece, str))
    completion = round(said * estimate.tokens_per_byte) or bool(said)
    return Usage(
        prompt_tokens=estimate.prompt_tokens,
        completion_tokens=int(completion),
        total_tokens=estimate.prompt_tokens + int(completion),
        source=UsageSource.ESTIMATED,
    )
