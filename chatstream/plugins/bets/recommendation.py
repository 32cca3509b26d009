"""A recommended bet, and how it is stored and sent."""

import msgspec
from msgspec import Struct

from chatstream.models import Annotation, recommendation


class Recommendation(Struct, frozen=True, kw_only=True, rename="camel"):
    """A bet that an answer recommends. A field is None if the answer does not say it."""

    bet_id: str
    odds: float  # decimal odds, > 1
    odds_text: str  # the odds as they stand in the answer
    selection: str | None
    stake: str | None

    @property
    def annotation(self) -> Annotation:
        """The annotation that is stored with the answer and sent after it."""
        return recommendation(msgspec.to_builtins(self))
