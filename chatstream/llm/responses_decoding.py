"""Decodes the bytes of a Responses API answer into pieces. Pure; all rules of `decoding` hold here, too.

Text arrives in ``response.output_text.delta`` events. Each output item is a message, reasoning, or a call. Endpoints
repeat an item's full content after its deltas: the repetition is ignored, or used if there were no deltas.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from chatstream.errors import ErrorCode
from chatstream.llm import shapes
from chatstream.llm.arranging import Tags
from chatstream.llm.calling import Fragment, TooManyCalls
from chatstream.llm.decoding import MAX_EVENT_BYTES, AnswerDecoder
from chatstream.llm.dialects import RESPONSES_EXTRA
from chatstream.llm.faults import Fault, other_api
from chatstream.pieces import Kind, Piece

Json = dict[str, Any]

# The final events' names, and the final statuses of a JSON document.
_ENDS: Final = ("completed", "done", "incomplete", "failed", "cancelled")
# The fields of a reasoning item that are sent back: endpoints refuse others.
_THOUGHT: Final = ("id", "type", "summary", "content", "encrypted_content")
# A reference to a call: a kind of id, and the id.
_Ref = tuple[str, object]


class _PlainEvent(Struct, gc=False):
    """The shape of nearly all events: only text."""

    type: Literal["response.output_text.delta"]
    delta: Annotated[str, Meta(min_length=1)]
    item_id: str | None = None
    output_index: int | None = None
    error: None = None


_plain = msgspec.json.Decoder(_PlainEvent)


class ResponsesDecoder(AnswerDecoder):
    """Decodes one answer; see `AnswerDecoder`."""

    def __init__(self, content_type: str = "text/event-stream", tags: Tags = Tags.RECOGNISED, origin: str = "") -> None:
        """`origin`: the id of this endpoint and model; encrypted reasoning is sent back only there."""
        super().__init__(content_type, tags)
        self._origin = origin
        self._fresh: set[Kind] = set()  # kinds of content that came in unfinished items
        self._text_of: object = None  # the message being received
        self._thought_of: tuple[object, ...] = ()  # the reasoning paragraph being received
        self._thoughts: list[Json] = []  # reasoning items, to be stored with the next call
        self._numbers: dict[_Ref, int] = {}  # call numbers by reference
        self._places: dict[int, object] = {}  # each call's `output_index`
        self._named: set[int] = set()
        self._argued: dict[int, list[str]] = {}  # the arguments so far, by call number
        self._calls_seen = 0
        self._open = 0  # unfinished items
        self._last_item: object = None

    def end(self, *, broken: bool = False) -> list[Piece]:
        """See `AnswerDecoder.end`. Some endpoints (Ollama) send no final event: complete items are a complete
        answer."""
        pieces = super().end(broken=broken)
        truncated = self.fault is not None and self.fault.code is ErrorCode.UPSTREAM_TRUNCATED
        whole = not self._open and self._last_item in ("message", "function_call")
        if truncated and whole and not broken and not self._cut:
            self.fault, self.finished = None, self._reason
        return pieces

    @property
    def _is_plain(self) -> bool:
        """Whether a text is a piece as it is."""
        return self._arranger.plain and not self._calls.begun

    @property
    def _reason(self) -> str:
        return "tool_calls" if self._calls.begun else "stop"

    def _read_all(self, chunks: list[bytes]) -> list[Piece]:
        pieces: list[Piece] = []
        for chunk in chunks:
            if self.over:
                break
            if len(chunk) > MAX_EVENT_BYTES:
                self._fail("an event over 4 MiB")
                continue
            if type(chunk) is bytes:  # not an `ErrorEvent`
                try:
                    event = _plain.decode(chunk)
                except (ValueError, RecursionError):  # msgspec's errors, invalid UTF-8, deep nesting
                    pass
                else:
                    place, text = (event.output_index, event.item_id), event.delta
                    if place == self._text_of and "</think>" not in text and self._is_plain:
                        self._came()
                        pieces.append(text)
                    else:
                        self._text(place, text, pieces)
                    continue
            self._read_tolerantly(chunk, pieces)
        return pieces

    def _read_chunk(self, chunk: Json, pieces: list[Piece]) -> None:
        kind = str(chunk.get("type") or "")
        if chunk.get("object") == "response" and not kind.startswith("response."):  # the complete response at once
            self._chunk_seen = True
            self._ended(str(chunk.get("status") or "completed"), chunk, pieces)
            return
        if kind.startswith("response."):
            self._chunk_seen = True
            self._read_event(kind.removeprefix("response."), chunk, pieces)
            return
        if (failure := shapes.failure_of(chunk)) is not None:
            self._failed(failure)
        elif "choices" in chunk:
            self.fault = self.fault or other_api("Chat Completions")
        elif not self._chunk_seen and (name := shapes.other_api(chunk)):
            self.fault = self.fault or other_api(name)
        self._strange = self._strange or not shapes.is_sign_of_life(chunk)

    def _read_event(self, kind: str, event: Json, pieces: list[Piece]) -> None:
        delta = event.get("delta")
        text = delta if isinstance(delta, str) else "".join(said for _, said in shapes.said_in({"content": delta}))
        place = event.get("output_index"), event.get("item_id")
        item = event.get("item")
        if kind in ("output_text.delta", "refusal.delta"):
            self._refused = self._refused or (kind == "refusal.delta" and bool(text))
            self._text(place, text, pieces)
        elif kind == "function_call_arguments.delta":
            self._arguments(event, text, pieces)
        elif kind == "function_call_arguments.done":
            self._arguments(event, event.get("arguments"), pieces, again=True)
        elif kind.startswith("reasoning") and kind.endswith(".delta"):
            paragraph = (kind, *place, event.get("summary_index"), event.get("content_index"))
            self._thought(paragraph, text, pieces)
        elif kind == "output_item.added" and isinstance(item, dict):
            self._open += 1
            if item.get("type") == "function_call":
                self._call(item, event.get("output_index"), pieces)
        elif kind == "output_item.done" and isinstance(item, dict):
            self._open = max(self._open - 1, 0)
            self._item(item, event.get("output_index"), pieces)
        elif kind in _ENDS:
            response = event.get("response")
            self._ended(kind, response if isinstance(response, dict) else {}, pieces)

    # Items ------------------------------------------------------------------------------------------------------------

    def _text(self, place: tuple[object, object], text: str, pieces: list[Piece]) -> None:
        if not text:
            return
        self._came()
        self._chunk_seen = True
        if place != self._text_of:
            if Kind.TEXT in self._came_of and not self._calls.begun:  # a blank line between two messages
                self._say(Kind.TEXT, "\n\n", pieces)
            self._text_of = place
        self._fresh.add(Kind.TEXT)
        self._came_of.add(Kind.TEXT)
        if self._is_plain and text.strip() == "</think>":
            self.end_of_unopened_thinking = True  # see `AnswerDecoder`
        self._say(Kind.TEXT, text, pieces)

    def _thought(self, paragraph: tuple[object, ...], text: str, pieces: list[Piece]) -> None:
        """Add reasoning. Some endpoints send an item's reasoning and its summary: only the first of the two is used."""
        if not text:
            return
        self._came()
        before = self._thought_of
        if before and paragraph != before:
            if paragraph[1:3] == before[1:3] and paragraph[0] != before[0] and Kind.REASONING in self._fresh:
                return
            self._say(Kind.REASONING, "\n\n", pieces)
        self._thought_of = paragraph
        self._fresh.add(Kind.REASONING)
        self._came_of.add(Kind.REASONING)
        self._say(Kind.REASONING, text, pieces)

    def _item(self, item: Json, index: object, pieces: list[Piece]) -> None:
        """Read a complete item, except for the content that its deltas have brought."""
        kind = self._last_item = item.get("type")
        place = index, item.get("id")
        if kind == "message":
            if Kind.TEXT not in self._fresh:
                content = item.get("content")
                for part in content if isinstance(content, list) else [content]:
                    if refusal := shapes.refusal_in(part) if isinstance(part, dict) else "":
                        self._refused = True
                    said = "".join(text for _, text in shapes.said_in({"content": part}))
                    self._text(place, refusal or said, pieces)
            self._fresh.discard(Kind.TEXT)
            self._text_of = None
        elif kind == "reasoning":
            self._came()
            if Kind.REASONING not in self._fresh:
                for number, part in enumerate(item.get("summary") or item.get("content") or ()):
                    if isinstance(part, dict) and isinstance(part.get("text"), str):
                        self._thought((kind, *place, number), part["text"], pieces)
            self._fresh.discard(Kind.REASONING)
            if self._thought_of:
                self._thought_of = (None,)
            if isinstance(item.get("encrypted_content"), str) and item["encrypted_content"]:
                self._thoughts.append({key: item[key] for key in _THOUGHT if item.get(key) is not None})
        elif kind == "function_call":
            self._call(item, index, pieces, whole=True)

    def _ended(self, how: str, response: Json, pieces: list[Piece]) -> None:
        self.usage = shapes.usage_of(response, final=True) or self.usage
        if how == "failed" or response.get("error"):
            self._failed(response.get("error") or {"message": "failed"})
            return
        if how == "cancelled":
            self.fault = Fault(ErrorCode.UPSTREAM_UNAVAILABLE, "the endpoint has cancelled it", transient=True)
            return
        if how not in _ENDS:
            self._give_up("a response that is not done")
            return
        output = response.get("output")
        told = {*self._came_of, *([Kind.TOOL_CALL] if self._calls.begun else [])}
        of_kind = {"message": Kind.TEXT, "reasoning": Kind.REASONING, "function_call": Kind.TOOL_CALL}
        for index, item in enumerate(output if isinstance(output, list) else ()):
            # Reasoning goes before the rest; reasoning that comes only here may be too late.
            kind = of_kind.get(str(item.get("type"))) if isinstance(item, dict) else None
            if kind is not None and kind not in told and not (kind is Kind.REASONING and told):
                self._item(item, index, pieces)
        if self.fault is not None:
            return
        details = response.get("incomplete_details")
        because = shapes.reason_of({"finish_reason": details.get("reason")}) if isinstance(details, dict) else None
        cut = how == "incomplete" or response.get("status") == "incomplete"
        self.finished = (because or "length") if cut else self._reason
        self._alone = self.done = True

    # Calls ------------------------------------------------------------------------------------------------------------

    def _call(self, item: Json, index: object, pieces: list[Piece], *, whole: bool = False) -> None:
        ids: list[_Ref] = [(key, item[key]) for key in ("id", "call_id") if isinstance(item.get(key), str | int)]
        number = self._known(item, ids, index, whole=whole)
        if number is None:
            self._calls_seen = number = self._calls_seen + 1
        if isinstance(index, int):
            ids.append(("index", index))
        self._numbers.update(dict.fromkeys(ids, number))
        name = item.get("name")
        self._places[number] = index
        extra = None
        if isinstance(name, str) and name.strip() and number not in self._named:
            self._named.add(number)
            if self._thoughts:
                extra = {RESPONSES_EXTRA: {"origin": self._origin, "items": self._thoughts}}
                self._thoughts = []
            self._add(Fragment(index=number, name=name.strip(), extra=extra), pieces)
        self._argument(number, item.get("arguments"), pieces, again=whole)

    def _known(self, item: Json, ids: list[_Ref], index: object, *, whole: bool) -> int | None:
        """The number of the item's call, if it is known. Some endpoints give all calls the same `call_id`: then a call
        at another `output_index` is another call, unless its content is the same.
        """
        at_index = self._numbers.get(("index", index))
        if not ids:
            return at_index
        by_id = self._numbers.get(("id", item.get("id")))
        by_call = self._numbers.get(("call_id", item.get("call_id")))
        if by_id is not None or by_call is None or not isinstance(index, int) or self._places[by_call] == index:
            return by_call if by_id is None else by_id
        said = self._argued.get(by_call)
        same = said is None or item.get("arguments") == "".join(said)
        return by_call if whole and same else at_index

    def _arguments(self, event: Json, text: object, pieces: list[Piece], *, again: bool = False) -> None:
        number = self._numbers.get(("id", event.get("item_id")))
        if number is None:
            number = self._numbers.get(("index", event.get("output_index")), self._calls_seen)
        self._argument(number, text, pieces, again=again)

    def _argument(self, number: int, text: object, pieces: list[Piece], *, again: bool) -> None:
        """Add arguments of a call. `again`: the complete arguments, which may repeat deltas."""
        if isinstance(text, dict):  # an object instead of JSON text
            text = msgspec.json.encode(text).decode()
        if isinstance(text, str) and text and not (again and number in self._argued):
            self._argued.setdefault(number, []).append(text)
            self._add(Fragment(index=number, arguments=text), pieces)

    def _add(self, fragment: Fragment, pieces: list[Piece]) -> None:
        self._came()
        try:
            pieces += self._arranged(self._calls.add(fragment))
        except TooManyCalls:
            self._give_up("more tool calls than an answer can have")
