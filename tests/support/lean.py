"""Restores all fields of chunks in lean frames (`?frames=lean`), as a client does."""

from typing import Any

_CHUNKS = ("llm_chunk", "reasoning_chunk")


class Whole:
    """Adds the fields that a lean chunk leaves out: from its `id`, and from the chunk before it of the same message."""

    def __init__(self, *, text_alone: bool = False) -> None:
        """`text_alone`: the answers are text only. Then a chunk's `id` has its offset, even if the chunk before was
        missed.
        """
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
