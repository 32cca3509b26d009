"""Which formats there are."""

from collections.abc import Mapping

from chatstream.formats.chat_events import ChatEvents
from chatstream.formats.format import Format
from chatstream.formats.ui_message_stream import UIMessageStream, Version

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

VERSIONS: Mapping[str, Mapping[str, Format]] = {
    UIMessageStream.name: {one.value: UIMessageStream(one) for one in Version if one.value is not None},
}
"""Of the formats that have versions, by name: those for who says which one it reads."""
