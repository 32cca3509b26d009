"""Which formats there are."""

from collections.abc import Mapping

from chatstream.formats.chat_events import ChatEvents
from chatstream.formats.format import Format
from chatstream.formats.ui_message_stream import UIMessageStream, Version


class Formats:
    """All formats, with or without what the models think."""

    def __init__(self, *, reasoning: bool, models: bool = False) -> None:
        """`models`: there are several, and an answer says which one gave it."""
        self.reasoning = reasoning
        self.default: Format = ChatEvents(reasoning=reasoning, models=models)
        self.by_name: Mapping[str, Format] = {
            one.name: one for one in (self.default, UIMessageStream(reasoning=reasoning))
        }
        self.versions: Mapping[str, Mapping[str, Format]] = {
            UIMessageStream.name: {
                one.value: UIMessageStream(one, reasoning=reasoning) for one in Version if one.value is not None
            },
        }
        self.lean: Mapping[str, Format] = {ChatEvents.name: ChatEvents(reasoning=reasoning, lean=True, models=models)}


SHOWING = Formats(reasoning=True)
HIDING = Formats(reasoning=False)

DEFAULT: Format = SHOWING.default
"""What a client gets that asks for none."""

FORMATS: Mapping[str, Format] = SHOWING.by_name
"""By name."""

FRAMES = ("full", "lean")
"""How much a frame repeats, in the formats that leave the choice."""

VERSIONS: Mapping[str, Mapping[str, Format]] = SHOWING.versions
"""Of the formats that have versions, by name: those for who says which one it reads."""
