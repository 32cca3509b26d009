"""Arranges a model's output into the pieces of an answer, with reasoning apart from text. Pure.

Some endpoints send the reasoning in a field of its own; others leave it in the text, between tags. Tags count only
before the first word of the text, also several in a row. Anywhere else they are ordinary text.
"""

from enum import Enum, StrEnum, auto
from typing import Final

from chatstream.llm import markers
from chatstream.llm.markers import Marker
from chatstream.llm.shapes import valid
from chatstream.pieces import Kind, OpenReasoning, OpenText, OpenToolCall, Piece

# Maximum number of white-space characters that are held back before the first word, because a tag may follow.
_MOST_BLANKS: Final = 256
# Maximum number of tags before the first word. Real models send a few; for each, the rest of its chunk
# is scanned.
_MOST_TAGS: Final = 32


class Tags(StrEnum):
    """The meaning of tags in a model's text."""

    RECOGNISED = auto()  # at the start of the text, they enclose reasoning
    OPENED = auto()  # the prompt has the opening tag: the text starts with reasoning and has only the closing tag
    KEPT = auto()  # they are ordinary text


class _State(Enum):
    START = auto()  # before the first word
    INSIDE = auto()  # inside reasoning
    BEHIND = auto()  # after reasoning: white space belongs to the tag, and more reasoning may follow
    SAYING = auto()  # inside text that has markers of its own
    SAID = auto()  # after such text: more text or reasoning may follow
    TEXT = auto()  # tags are ordinary text from here on


class Arranger:
    """Arranges the output of one answer.

    While `plain`, each text that is valid Unicode is a piece as it is, and need not pass through here.
    """

    def __init__(self, tags: Tags = Tags.RECOGNISED) -> None:
        self._state = _State.TEXT if tags is Tags.KEPT else _State.START
        self._opened = tags is Tags.OPENED
        self._end = markers.ANY_END  # the end marker of the open part
        self._kind = Kind.TEXT  # the kind of the open part
        self._start: list[str] = []  # texts held: they may be the beginning of a tag
        self._tags = 0  # tags so far
        self._inside = ""  # text held inside tags: it may be the beginning of the closing tag
        self._blank: list[str] = []  # white space held after reasoning: more reasoning may follow
        self._halves = dict.fromkeys(Kind, "")  # a high surrogate whose low surrogate is in the next delta
        self.plain = False
        self._settle()

    def text(self, text: str) -> list[Piece]:
        """Add text; returns its pieces, after those that were held."""
        pieces: list[Piece] = []
        if text:
            self._complete(Kind.REASONING, pieces)
            if whole := self._whole(Kind.TEXT, text):
                self._read(whole, pieces)
        self._settle()
        return pieces

    def reasoning(self, text: str) -> list[Piece]:
        """Add reasoning from a field of its own; returns its pieces, after those that were held."""
        pieces: list[Piece] = []
        if text:
            self._opened = False  # an endpoint with a reasoning field also removes the closing tag
            self._complete(Kind.TEXT, pieces)
            self._think(self._whole(Kind.REASONING, text), pieces)
        self._settle()
        return pieces

    def call(self, opened: OpenToolCall) -> list[Piece]:
        """Begin a call; returns its pieces, after those that were held. No open part continues after it."""
        if not "".join(self._start).strip():
            self._start.clear()
        pieces = self.end()
        pieces.append(opened)
        self._state, self._kind = _State.TEXT, Kind.TOOL_CALL
        self._settle()
        return pieces

    def arguments(self, text: str) -> list[Piece]:
        """Add arguments of the open call; returns their pieces."""
        whole = self._whole(Kind.TOOL_CALL, text)
        return [whole] if whole else []

    def end(self) -> list[Piece]:
        """Return the pieces that are still held, at the end of the answer."""
        pieces: list[Piece] = []
        self._complete(Kind.REASONING, pieces)
        self._complete(Kind.TEXT, pieces)
        self._halves[Kind.TOOL_CALL] = ""  # dropped: the arguments are incomplete anyway
        held, self._inside = self._inside, ""
        if held and self._state is _State.SAYING:
            self._tell(held, pieces)
        elif held:
            self._think(held, pieces)
        if self._state is _State.SAID or (self._tags and markers.is_header_begun("".join(self._start))):
            self._start.clear()  # white space, or an incomplete message header
        self._read(self._no_tag(pieces), pieces)
        self._settle()
        return pieces

    def _settle(self) -> None:
        held = self._start or self._inside or self._blank or self._halves[Kind.TEXT] or self._halves[Kind.REASONING]
        self.plain = self._state is _State.TEXT and self._kind is Kind.TEXT and not held

    # Split surrogate pairs --------------------------------------------------------------------------------------------

    def _whole(self, kind: Kind, text: str) -> str:
        """`text` with surrogates paired or replaced by U+FFFD. A high surrogate at its end is held for the next
        text."""
        text = self._halves[kind] + text
        self._halves[kind] = ""
        if "\ud800" <= text[-1] <= "\udbff":
            self._halves[kind] = text[-1]
            text = text[:-1]
        return valid(text)

    def _complete(self, kind: Kind, pieces: list[Piece]) -> None:
        """Replace a held high surrogate, as no low surrogate will follow."""
        half, self._halves[kind] = self._halves[kind], ""
        if half and kind is Kind.TEXT:
            self._read(valid(half), pieces)
        elif half:
            self._think(valid(half), pieces)

    # Tags -------------------------------------------------------------------------------------------------------------

    def _read(self, text: str, pieces: list[Piece]) -> None:
        """Read more text, with its tags."""
        while text and self._state is not _State.TEXT:
            if self._state in (_State.INSIDE, _State.SAYING):
                text = self._read_inside(self._inside + text, pieces)
            else:
                if self._state is _State.BEHIND and not self._start:
                    text = text.lstrip()
                self._start += [text] if text else []
                text = self._read_start(pieces)
        if text:
            self._tell(text, pieces)

    def _read_start(self, pieces: list[Piece]) -> str:
        """Check whether the text begins with a tag; returns the text after it."""
        text = "".join(self._start)
        words = text.lstrip()
        if self._tags < _MOST_TAGS and (length := self._read_tag(words, pieces)):
            self._start.clear()
            self._tags += 1
            return words[length:]
        if len(text) - len(words) <= _MOST_BLANKS and markers.may_begin(words):
            return ""
        return self._no_tag(pieces)

    def _read_tag(self, words: str, pieces: list[Piece]) -> int:
        """Enter the state for the tag at the start of `words`; returns the tag's length, 0 without a tag."""
        if not words.startswith(markers.FIRST_CHARACTERS):
            return 0
        for begin, end in markers.THOUGHTS:
            if found := begin.match(words):
                self._state, self._end = _State.INSIDE, end
                if found[0].endswith("/>"):  # empty reasoning
                    self._state = _State.BEHIND
                return found.end()
            # Only a closing tag: the prompt has opened and closed the reasoning, or it came in its own field.
            if found := end.match(words):
                self._state = _State.BEHIND
                return found.end()
        for begin, end in markers.ANSWERS if self._tags else ():
            if found := begin.match(words):
                self._say(end, pieces)
                return found.end()
        header = markers.header(words)
        if header and markers.is_for_users(header):
            self._say(markers.MESSAGE_END, pieces)
        elif header:
            self._state, self._end = _State.INSIDE, markers.MESSAGE_END
        return len(header)

    def _say(self, end: Marker, pieces: list[Piece]) -> None:
        """Begin text that continues until `end`."""
        if self._state is _State.SAID and self._kind is Kind.TEXT:
            self._tell("\n\n", pieces)  # a blank line between two messages
        self._state, self._end = _State.SAYING, end

    def _no_tag(self, pieces: list[Piece]) -> str:
        """Release the held texts, which are no tag. Each is a piece of its own, as if never held."""
        texts, self._start = self._start, []
        if texts and self._opened and self._state is _State.START:
            self._state = _State.INSIDE
            return "".join(texts)
        if texts:
            self._state = _State.TEXT
        for text in texts:
            self._tell(text, pieces)
        return ""

    def _read_inside(self, text: str, pieces: list[Piece]) -> str:
        """Read until the end marker of the reasoning or text; returns the text after it."""
        self._inside = ""
        saying = self._state is _State.SAYING
        put = self._tell if saying else self._think
        if found := self._end.search(text):
            if found.start():
                put(text[: found.start()], pieces)
            self._state = _State.SAID if saying else _State.BEHIND
            # The next message may begin without an end marker of this one.
            return text[found.end() if markers.is_end(found[0]) else found.start() :]
        begun = self._end.begun(text)
        self._inside = text[len(text) - begun :]
        if begun < len(text):
            put(text[: len(text) - begun], pieces)
        return ""

    # Parts ------------------------------------------------------------------------------------------------------------

    def _think(self, text: str, pieces: list[Piece]) -> None:
        if self._kind is not Kind.REASONING:
            text = text.lstrip()
            if not text:  # skip empty reasoning: some models send it when reasoning is off
                return
            pieces.append(OpenReasoning())
            self._kind = Kind.REASONING
        self._blank.clear()
        if text:
            pieces.append(text)

    def _tell(self, text: str, pieces: list[Piece]) -> None:
        if self._kind is not Kind.TEXT:
            if not text.strip() and len(self._blank) < _MOST_BLANKS:
                self._blank.append(text)
                return
            pieces.append(OpenText())
            self._kind = Kind.TEXT
            pieces += self._blank
            self._blank.clear()
        pieces.append(text)
