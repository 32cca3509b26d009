"""The available formats."""

from collections.abc import Mapping

from chatstream.formats.chat_events import ChatEvents
from chatstream.formats.format import Format
from chatstream.formats.ui_message_stream import UIMessageStream, Version


class Formats:
    """All wire formats, in two variants: with and without the models' reasoning."""

    def __init__(self, *, reasoning: bool, models: bool = False) -> None:
        """`models`: the server has several models, and each answer names its model."""
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
"""The format for a client that names none."""

FORMATS: Mapping[str, Format] = SHOWING.by_name
"""The formats by name."""

FRAMES = ("full", "lean")
"""The values of ``frames``: whether each frame repeats all fields, in formats that support both."""

VERSIONS: Mapping[str, Mapping[str, Format]] = SHOWING.versions
"""By format name and then version: the formats for clients that name their version."""
