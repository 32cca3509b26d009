"""Which formats there are."""

from collections.abc import Mapping

from chatstream.formats.chat_events import ChatEvents
from chatstream.formats.format import Format
from chatstream.formats.ui_message_stream import UIMessageStream

DEFAULT: Format = ChatEvents()
"""What a client gets that asks for none."""

FORMATS: Mapping[str, Format] = {
    one.name: one
    for one in (
        DEFAULT,
        UIMessageStream(),
    )
}
"""By name."""
