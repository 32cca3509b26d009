"""What a client does that asks for lean frames (`?frames=lean`) and wants all fields of a chunk all the same."""

from typing import Any

_CHUNKS = ("llm_chunk", "reasoning_chunk")


class Whole:
    """Gives each chunk what a lean one leaves out: from its `id`, and from the chunk before it of the same message."""

    def __init__(self, *, text_alone: bool = False) -> None:
        """`text_alone`: then where a chunk begins is in its `id`, also for who missed the one before."""
        self._text_alone = text_alone
        self._last: dict[str, dict[str, Any]] = {}  # by message

    def of(self, cursor: str, data: dict[str, Any]) -> dict[str, Any]:
        """The event with all of its fields."""
        if data["type"] not in _CHUNKS:
            return data
        message_id, _, position = cursor.partition(".")
        if "messageId" not in data:
            assert data.keys() == {"type", "content"}
            if self._text_alone:
                data = {"messageId": message_id, **data, "offset": int(position) - len(data["content"])}
            else:
                last = self._last[message_id]
                data = {**last, **data, "offset": last["offset"] + len(last["content"])}
        self._last[message_id] = data
        return data
