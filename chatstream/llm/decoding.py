"""Decodes the bytes of an OpenAI-compatible answer into pieces. Does no I/O; chunks may be cut at any byte.

Nearly all chunks have one shape, which msgspec decodes in a third of a microsecond. All others take a tolerant path, as
endpoints differ in every detail. Three rules: of contradicting signs the last one counts; the body's bytes, not its
content type, decide what it is; chunks without content are skipped.
"""

import codecs
import json
import re
from enum import Enum, auto
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from chatstream.errors import ErrorCode
from chatstream.llm import shapes
from chatstream.llm.arranging import Arranger, Tags
from chatstream.llm.calling import Calls, Ordered, TooManyCalls, fragments_of
from chatstream.llm.faults import Fault, from_error, other_api, page
from chatstream.llm.model import Finish
from chatstream.llm.splitting import ErrorEvent, EventSplitter
from chatstream.models import Usage
from chatstream.pieces import Kind, OpenToolCall, Piece

# Largest event, in bytes: bounds the memory if an endpoint never sends a line end. The longest answer of the default
# settings fits in JSON's longest spelling: 200,000 characters of 12 bytes.
MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
# Bytes after which a body without a line end is classified.
_TELLING_BYTES: Final = 16
_END_MARK: Final = "[DONE]"
_BOM: Final = b"\xef\xbb\xbf"
# Bytes that suffice to detect UTF-8, UTF-16 or UTF-32. All of a body has the same encoding, nearly always UTF-8.
_ENCODING_BYTES: Final = 4
# Maximum number of JSON objects in one line. Real endpoints send a few. A line is decoded without yielding to the
# event loop.
_MOST_IN_LINE: Final = 1000
_EVENT_FIELDS: Final = re.compile(r"(?:data:\s*)+")
_EVENTS: Final = re.compile(rb":|(?:data|event|id|retry)[ ]*[:\r\n]")

Said = list[tuple[Kind, str]]
_Nothing = Annotated[str, Meta(max_length=0)] | None


class _PlainDelta(Struct, gc=False):
    content: Annotated[str, Meta(min_length=1)]
    refusal: None = None
    tool_calls: None = None
    reasoning: _Nothing = None
    reasoning_content: _Nothing = None
    reasoning_text: _Nothing = None
    reasoning_details: tuple[()] | None = None
    thinking: _Nothing = None


class _PlainChoice(Struct, gc=False):
    delta: _PlainDelta
    index: Literal[0] = 0
    finish_reason: None = None
    message: None = None


class _PlainChunk(Struct, gc=False):
    """The shape of nearly all chunks: only text. Any other chunk fails to decode into these types."""

    choices: tuple[_PlainChoice]
    usage: None = None
    error: None = None


_plain = msgspec.json.Decoder(_PlainChunk)


class _Body(Enum):
    """The kind of a body."""

    UNKNOWN = auto()  # not yet known
    EVENTS = auto()  # Server-Sent Events
    DOCUMENT = auto()  # one JSON document: from endpoints that cannot stream, or an error
    LINES = auto()  # a JSON document on each line


class AnswerDecoder:
    """Decodes one answer.

    `tokens` counts the chunks with text, reasoning or parts of tool calls. `finished` is the last finish reason so far;
    it does not end the answer, as some endpoints send one with every chunk. The answer ends with ``[DONE]`` (`done`), a
    failure (`fault`), or the end of the body (call `end`).
    """

    def __init__(self, content_type: str = "text/event-stream", tags: Tags = Tags.RECOGNISED) -> None:
        self.tokens = 0
        self.finished: str | None = None
        self.fault: Fault | None = None
        self.done = False
        self.usage: Usage | None = None  # the latest token counts
        self.contradicted = False  # content came after a finish reason: it did not end the answer
        self.end_of_unopened_thinking = False  # a </think> without <think>: the text before may be thinking
        self._declared_events = content_type.partition(";")[0].strip().lower() == "text/event-stream"
        self._first = b""  # bytes whose encoding is not known yet
        self._encoding_known = False
        self._other_encoding: codecs.IncrementalDecoder | None = None
        self._body = _Body.UNKNOWN
        self._held = bytearray()  # received bytes: until the kind of body is known, or of a whole JSON document
        self._blanks = 0  # bytes of white space before the content
        self._first_line_seen = False
        self._events = EventSplitter()
        self._ending = False  # the body has ended
        self._cut = False  # the last chunk is incomplete
        self._alone = False  # the last finish reason came with nothing else
        self._passed_over = False  # a chunk without content was skipped
        self._strange = False  # an object was skipped that is no chunk of an answer
        self._chunk_seen = False
        self._arranger = Arranger(tags)
        self._calls = Calls()
        self._calls_came = False  # calls came as deltas; a final message only repeats them
        self._came_of: set[Kind] = set()
        self._messages = {Kind.TEXT: "", Kind.REASONING: ""}  # text that came as `message`; later ones may repeat it
        self._index: int | None = None  # the index of our choice
        self._last_index = 0
        self._several = False  # the endpoint sends several choices
        self._plain = True  # all choices so far had the index 0
        self._refused = False

    @property
    def over(self) -> bool:
        """Whether the answer has ended, well or badly."""
        return self.done or self.fault is not None

    @property
    def settled(self) -> bool:
        """Whether the answer looks complete, except perhaps its token counts: then later faults are ignored."""
        return self.finished is not None and self._alone and not self.contradicted

    @property
    def finish(self) -> Finish:
        """How the answer ended; call it once it has.

        Models end a refusal with ``stop``. Its text looks like any other, so the reason is changed to ``refusal``.
        """
        reason = self.finished or "stop"  # an end mark without a reason means a normal end
        return Finish(reason="refusal" if self._refused and reason == "stop" else reason, usage=self.usage)

    def feed(self, data: bytes) -> list[Piece]:
        """Decode `data` into pieces, in order. No string is empty, and each is valid Unicode."""
        if not self._encoding_known:
            data = self._first + data
            if len(data) < _ENCODING_BYTES:
                self._first = data
                return []
            self._find_encoding(data)
        if self._other_encoding is not None:
            data = self._other_encoding.decode(data).encode("utf-8", "replace")
        pieces = self._feed(data)
        if self.done or self.fault is not None:
            pieces += self._rest()
        return pieces

    def _rest(self) -> list[Piece]:
        """The pieces that are still buffered when the response ends."""
        return [*self._arranged(self._calls.end()), *self._arranger.end()]

    def _feed(self, data: bytes) -> list[Piece]:
        if self._body is _Body.UNKNOWN:
            if not self._held and data.startswith(b"data:"):  # nearly always; `_look` copies the data
                self._body = _Body.EVENTS
            else:
                self._held += data
                data = self._look()
        if self._body is _Body.EVENTS:
            pieces = self._read_all(self._events.feed(data))
            if self._events.held > MAX_EVENT_BYTES:
                self._fail("an event over 4 MiB")
            return pieces
        return [] if self._body is _Body.UNKNOWN else self._feed_json(data)

    def end(self, *, broken: bool = False) -> list[Piece]:
        """End the decoding, and return the pieces still held. Afterwards the answer is complete, or `fault` is set.

        `broken`: the connection ended before the body.
        """
        self._ending = True
        if not self._encoding_known:
            self._held += self._first
        if self._body is _Body.UNKNOWN or self._body is _Body.EVENTS:
            pieces = self._feed(b"\n\n")  # some servers omit the last blank line
        else:
            pieces = self._read_all([bytes(self._held)] if self._held.strip() else [])
        pieces += self._rest()
        believed = self.finished is not None and not self._cut and not (broken and self.contradicted)
        if self.over or self.settled or believed:
            return pieces
        self.finished = None
        if self._body is _Body.DOCUMENT and not self._cut:
            if self.tokens:  # a body that ended properly needs no finish reason
                self.done = True
            elif self._strange and not self._chunk_seen:
                self._fault_of_strangers()
            else:
                self._give_up("a JSON document that is neither an answer nor an error")
        elif self._strange and not self._chunk_seen:
            self._fault_of_strangers()
        elif self._passed_over and not self.tokens:
            self._give_up("chunks that are not JSON")
        else:
            what = "the stream ended without a finish reason"
            self.fault = Fault(ErrorCode.UPSTREAM_TRUNCATED, what, transient=True)
        return pieces

    # Classifying the body ---------------------------------------------------------------------------------------------

    def _find_encoding(self, data: bytes) -> None:
        self._encoding_known, self._first = True, b""
        encoding = json.detect_encoding(data)
        if not encoding.startswith("utf-8"):
            self._other_encoding = codecs.getincrementaldecoder(encoding)("replace")

    def _look(self) -> bytes:
        """Classify the body. Returns its bytes so far, or none if more are needed."""
        size = len(self._held)
        start = self._held.lstrip()
        if not self._blanks or start != self._held:
            start = start.removeprefix(_BOM).lstrip()
        self._blanks += size - len(start)
        self._held = start
        if self._blanks > MAX_EVENT_BYTES:
            self._give_up("nothing but blanks")
        if not start or (_BOM.startswith(start) and not self._ending):
            return b""
        if start.startswith((b"{", b"[")):
            self._body = _Body.DOCUMENT
        elif start.startswith(b"<") and not self._declared_events:
            self.fault = page()
        elif self._declared_events or _EVENTS.match(start):
            self._body = _Body.EVENTS
        elif self._ending or b"\n" in start or len(start) >= _TELLING_BYTES:
            self._give_up("neither an event stream nor JSON")
        if self._body is _Body.UNKNOWN:
            return b""
        self._held = bytearray()
        return bytes(start)

    def _feed_json(self, data: bytes) -> list[Piece]:
        self._held += data
        if not self._first_line_seen and b"\n" in data:
            self._first_line_seen = True
            if _is_object(self._held.partition(b"\n")[0]):
                self._body = _Body.LINES
        pieces: list[Piece] = []
        if self._body is _Body.LINES:
            *lines, self._held = self._held.split(b"\n")
            pieces = self._read_all([bytes(line) for line in lines])
        if len(self._held) > MAX_EVENT_BYTES:
            self._fail("a JSON document over 4 MiB")
        return pieces

    # Reading the chunks -----------------------------------------------------------------------------------------------

    def _read_all(self, chunks: list[bytes]) -> list[Piece]:
        pieces: list[Piece] = []
        decode = _plain.decode  # a local name: this loop is the hottest
        simple = self._simple
        for chunk in chunks:
            if not simple and self.over:
                break
            if len(chunk) > MAX_EVENT_BYTES:
                self._fail("an event over 4 MiB")
            elif not self._plain or type(chunk) is not bytes:  # an `ErrorEvent`
                self._read_tolerantly(chunk, pieces)
            else:
                try:
                    text = decode(chunk).choices[0].delta.content
                except (ValueError, RecursionError):  # msgspec's errors, invalid UTF-8, deep nesting
                    self._read_tolerantly(chunk, pieces)
                else:
                    if simple:
                        self.tokens += 1
                        if "</think>" in text and text.strip() == "</think>":
                            self.end_of_unopened_thinking = True  # alone in its chunk: a marker, no quotation
                        pieces.append(text)
                        continue
                    self._came()
                    self._came_of.add(Kind.TEXT)
                    self._say(Kind.TEXT, text, pieces)
            simple = self._simple
        return pieces

    @property
    def _simple(self) -> bool:
        """Whether a chunk with only text is simply one piece, without any change of state."""
        ended = self.done or self.finished is not None or self.fault is not None
        return self._arranger.plain and not self._calls.begun and not ended

    def _came(self) -> None:
        """Count a chunk with content."""
        self.tokens += 1
        if self.finished is not None:
            self.contradicted = True

    def _read_tolerantly(self, event: bytes, pieces: list[Piece]) -> None:
        text = event.decode("utf-8", "replace").strip()
        if isinstance(event, ErrorEvent):
            self._failed(_json(text) or text)
            return
        if text == _END_MARK and not self.over:  # each answer has it, and it costs more to find out that it is no JSON
            self._end_of_answer()
            return
        document = _json(text)
        if isinstance(document, dict):
            self._read_chunk(document, pieces)
            return
        # Some endpoints put several chunks into one event, one per line.
        for line in [text] if document is not None else text.split("\n"):
            self._read_line(line.strip(), pieces)

    def _read_line(self, line: str, pieces: list[Piece]) -> None:
        if found := _EVENT_FIELDS.match(line):  # a gateway has wrapped the event in another one
            line = line[found.end() :]
        if self.over or not line:
            return
        if _is_end(line):
            self._end_of_answer()
            return
        document = _json(line)
        if isinstance(document, str) and document.startswith("{"):  # or in a JSON string
            document = _json(document)
        if document is None and line.startswith(("{", "[")):
            self._read_row(line, pieces)
            return
        chunks = document if isinstance(document, list) else [document]
        if all(isinstance(chunk, dict) for chunk in chunks):
            for chunk in chunks:
                self._read_chunk(chunk, pieces)
        elif isinstance(document, list):
            self._fail("a chunk that is not an object")
        else:  # `ping`, `null`: no content
            self._passed_over = True

    def _read_row(self, line: str, pieces: list[Piece]) -> None:
        """Read several JSON objects on one line, without separators."""
        decoder, place = json.JSONDecoder(), 0
        for _ in range(_MOST_IN_LINE):
            try:
                chunk, place = decoder.raw_decode(line, place)
            except (ValueError, RecursionError):
                break
            if not isinstance(chunk, dict):
                break
            self._read_chunk(chunk, pieces)
            while line.startswith((" ", ","), place):
                place += 1
            if self.over or place == len(line):
                return
            if _is_end(line[place : place + len(_END_MARK)]):
                self._end_of_answer()
                return
        self._fail("a chunk that is not JSON")

    def _end_of_answer(self) -> None:
        """Handle the end mark."""
        if self._strange and not self._chunk_seen:
            self._fault_of_strangers()
        else:
            self.done = True

    def _fault_of_strangers(self) -> None:
        self.fault = self.fault or other_api("an API that is not known")

    def _read_chunk(self, chunk: dict[str, Any], pieces: list[Piece]) -> None:
        failure = shapes.failure_of(chunk)
        if failure is not None:
            self._failed(failure)
        elif not self._chunk_seen and (name := shapes.other_api(chunk)):
            self.fault = self.fault or other_api(name)
        self._chunk_seen = self._chunk_seen or "choices" in chunk
        self._strange = self._strange or not shapes.is_chunk(chunk)
        choice = self._ours(shapes.choices_of(chunk))
        if choice and not self.over:
            self._read_choice(choice, pieces)
        self.usage = shapes.usage_of(chunk, final=self.finished is not None) or self.usage

    def _ours(self, choices: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Our choice of a chunk. We ask for one, so it may have any index.

        Some endpoints count chunks in `index`. Several choices are recognised by two in one chunk, or by an index that
        goes down.
        """
        numbers = [index if isinstance(index := choice.get("index"), int) else 0 for choice in choices]
        if not numbers:
            return None
        if self._index is None:
            self._index = min(numbers)
        if len(numbers) > 1 or numbers[0] < self._last_index:
            self._several = True
        self._last_index = numbers[-1]
        self._plain = self._plain and not any(numbers)
        if not self._several:
            return choices[0]
        return next((choice for choice, number in zip(choices, numbers, strict=True) if number == self._index), None)

    def _read_choice(self, choice: dict[str, Any], pieces: list[Piece]) -> None:
        delta, message = choice.get("delta"), choice.get("message")
        if isinstance(delta, str | list):  # not wrapped in an object
            delta = {"content": delta}
        if isinstance(message, str):
            message = {"content": message}
        said: Said = []
        alive = False
        if isinstance(delta, dict):
            said, alive = self._said(delta), shapes.is_alive(delta)
        if not said and isinstance(message, dict):
            said = self._repeated(self._said(message))
            alive = alive or (not self.tokens and shapes.is_alive(message))
        if not said and isinstance(choice.get("text"), str) and choice["text"]:  # the older completions API
            said = [(Kind.TEXT, choice["text"])]
        if said or alive:
            self._came()
        for kind, text in said:
            self._came_of.add(kind)
            self._say(kind, text, pieces)
        self._read_calls(delta, message, pieces)
        reason = shapes.reason_of(choice)
        if reason in shapes.BROKEN_OFF:
            if not self.settled:
                self.fault = Fault(ErrorCode.UPSTREAM_UNAVAILABLE, "finish reason error", transient=True)
        elif reason is not None:
            self.finished = reason
            self._alone = not said and not alive

    def _say(self, kind: Kind, text: str, pieces: list[Piece]) -> None:
        try:
            pieces += self._arranged(self._calls.say(kind, text) if self._calls.begun else [(kind, text)])
        except TooManyCalls:
            self._give_up("more behind its tool calls than an answer can have")

    def _read_calls(self, delta: object, message: object, pieces: list[Piece]) -> None:
        fragments = fragments_of(delta) if isinstance(delta, dict) else []
        self._calls_came = self._calls_came or bool(fragments)
        if not self._calls_came and isinstance(message, dict):
            fragments = fragments_of(message)
        try:
            for fragment in fragments:
                pieces += self._arranged(self._calls.add(fragment))
        except TooManyCalls:
            self._give_up("more tool calls than an answer can have")

    def _arranged(self, ordered: list[Ordered]) -> list[Piece]:
        pieces: list[Piece] = []
        for each in ordered:
            if isinstance(each, OpenToolCall):
                pieces += self._arranger.call(each)
                continue
            kind, text = each
            match kind:
                case Kind.TEXT:
                    pieces += self._arranger.text(text)
                case Kind.REASONING:
                    pieces += self._arranger.reasoning(text)
                case Kind.TOOL_CALL:
                    pieces += self._arranger.arguments(text)
        return pieces

    def _said(self, delta: dict[str, Any]) -> Said:
        said = shapes.said_in(delta)
        refusal = shapes.refusal_in(delta)
        if refusal:
            self._refused = True
            said.append((Kind.TEXT, refusal))
        return said

    def _repeated(self, said: Said) -> Said:
        """The new content of a `message`: all of it, the rest, or nothing if deltas came before."""
        if not self._came_of:
            for kind, text in said:
                self._messages[kind] += text
            return said
        new: Said = []
        for kind in (Kind.REASONING, Kind.TEXT):
            before = self._messages[kind]
            # Reasoning goes before text, so the reasoning that a final message repeats is too late.
            told = self._came_of if kind is Kind.REASONING else self._came_of & {kind}
            if told and not any(self._messages.values()):
                continue
            more = "".join([text for one, text in said if one is kind]).removeprefix(before)
            if more:
                self._messages[kind] = before + more
                new.append((kind, more))
        return new

    # Faults -----------------------------------------------------------------------------------------------------------

    def _failed(self, error: object) -> None:
        """Set the fault that an endpoint's error object describes."""
        if self.settled:
            self.done = True
        elif self.fault is None:
            self.fault = from_error(error)

    def _fail(self, what: str) -> None:
        """Set the fault for content that cannot be decoded."""
        if self.settled:
            self.done = True
        elif self._ending:
            self._cut = True  # reported as truncation, not as invalid JSON
        else:
            self._give_up(what)

    def _give_up(self, what: str) -> None:
        if self.fault is None:
            self.fault = Fault(ErrorCode.UPSTREAM_PROTOCOL, what)


def _json(text: str) -> Any:
    """Parse JSON; None if it is invalid (or null)."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_end(line: str) -> bool:
    return line.strip('"').upper() == _END_MARK


def _is_object(line: bytes | bytearray) -> bool:
    return isinstance(_json(line.decode("utf-8", "replace")), dict)
