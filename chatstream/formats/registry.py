"""Which formats there are."""

from collections.abc import Mapping

from chatstream.formats.chat_events import ChatEvents
from chatstream.formats.format import Format

DEFAULT: Format = ChatEvents()

FORMATS: Mapping[str, Format] = {one.name: one for one in (DEFAULT,)}
"""By name."""
