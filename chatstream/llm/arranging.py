"""From what a model says to the pieces of an answer: what it thinks is told apart from what it tells. Pure.

Some endpoints send the thinking in a field of its own; others leave it in the text, between tags, as the model wrote
it. Tags count before the first word of the text alone, also one after the other: anywhere else they are what the
answer is about.
"""

from enum import Enum, StrEnum, auto
from typing import Final

from chatstream.llm import markers
from chatstream.llm.markers import Marker
from chatstream.llm.shapes import valid
from chatstream.pieces import Kind, OpenReasoning, OpenText, OpenToolCall, Piece

# So much white space before the first word is held until it is known whether a tag follows: more is no tag's.
_MOST_BLANKS: Final = 256
# So many tags may follow on each other before the first word. Who thinks several times does so a few times; and each
# costs a look at the rest of its chunk, which an endpoint must not be able to ask for without end.
_MOST_TAGS: Final = 32


class Tags(StrEnum):
    """What tags in a model's text mean."""

    RECOGNISED = auto()  # at the very start, they are the bounds of its thinking
    OPENED = auto()  # the prompt has opened its thinking: the text begins with it, and has its end alone
    KEPT = auto()  # they are text


class _State(Enum):
    START = auto()  # no word of the text has come
    INSIDE = auto()  # between the tags
    BEHIND = auto()  # the thinking has ended: the white space that follows belongs to the tag, or more thinking begins
    SAYING = auto()  # text between markers of its own
    SAID = auto()  # such text has ended: more may follow, or thinking
    TEXT = auto()  # tags do not count any more


class Arranger:
    """Puts what one answer says in order.

    While it is `plain`, a text that is valid Unicode is a piece as it is, and need not come through here.
    """

    def __init__(self, tags: Tags = Tags.RECOGNISED) -> None:
        self._state = _State.TEXT if tags is Tags.KEPT else _State.START
        self._opened = tags is Tags.OPENED
        self._end = markers.ANY_END  # of what is open
        self._kind = Kind.TEXT  # of the part that is open
        self._start: list[str] = []  # texts that may be the beginning of a tag
        self._tags = 0  # how many there were
        self._inside = ""  # the end of what is between tags, which may be the beginning of its end
        self._blank: list[str] = []  # white space after thinking: more thinking may follow
        self._halves = dict.fromkeys(Kind, "")  # the first half of a character, cut between two deltas
        self.plain = False
        self._settle()

    def text(self, text: str) -> list[Piece]:
        """The pieces of what the model tells, and of what was held before it."""
        pieces: list[Piece] = []
        if text:
            self._complete(Kind.REASONING, pieces)
            if whole := self._whole(Kind.TEXT, text):
                self._read(whole, pieces)
        self._settle()
        return pieces

    def reasoning(self, text: str) -> list[Piece]:
        """The pieces of what the model thinks, if its endpoint says that it does."""
        pieces: list[Piece] = []
        if text:
            self._opened = False  # who tells the thinking apart tells its end, too
            self._complete(Kind.TEXT, pieces)
            self._think(self._whole(Kind.REASONING, text), pieces)
        self._settle()
        return pieces

    def call(self, opened: OpenToolCall) -> list[Piece]:
        """The pieces of a call that begins, and of what was held before it: nothing goes on behind it."""
        if not "".join(self._start).strip():
            self._start.clear()
        pieces = self.end()
        pieces.append(opened)
        self._state, self._kind = _State.TEXT, Kind.TOOL_CALL
        self._settle()
        return pieces

    def arguments(self, text: str) -> list[Piece]:
        """The pieces of its arguments."""
        whole = self._whole(Kind.TOOL_CALL, text)
        return [whole] if whole else []

    def end(self) -> list[Piece]:
        """The pieces of what is still held, at the end of the answer."""
        pieces: list[Piece] = []
        self._complete(Kind.REASONING, pieces)
        self._complete(Kind.TEXT, pieces)
        self._halves[Kind.TOOL_CALL] = ""  # half a character of arguments, which are not whole then
        held, self._inside = self._inside, ""
        if held and self._state is _State.SAYING:
            self._tell(held, pieces)
        elif held:
            self._think(held, pieces)
        if self._state is _State.SAID or (self._tags and markers.is_header_begun("".join(self._start))):
            self._start.clear()  # white space, or half the header of a message that does not come
        self._read(self._no_tag(pieces), pieces)
        self._settle()
        return pieces

    def _settle(self) -> None:
        held = self._start or self._inside or self._blank or self._halves[Kind.TEXT] or self._halves[Kind.REASONING]
        self.plain = self._state is _State.TEXT and self._kind is Kind.TEXT and not held

    # Characters in halves ---------------------------------------------------------------------------------------------

    def _whole(self, kind: Kind, text: str) -> str:
        """`text` with its surrogates paired or replaced; the first half of a pair at its end waits for the next."""
        text = self._halves[kind] + text
        self._halves[kind] = ""
        if "\ud800" <= text[-1] <= "\udbff":
            self._halves[kind] = text[-1]
            text = text[:-1]
        return valid(text)

    def _complete(self, kind: Kind, pieces: list[Piece]) -> None:
        """The second half of a character will not come."""
        half, self._halves[kind] = self._halves[kind], ""
        if half and kind is Kind.TEXT:
            self._read(valid(half), pieces)
        elif half:
            self._think(valid(half), pieces)

    # Tags -------------------------------------------------------------------------------------------------------------

    def _read(self, text: str, pieces: list[Piece]) -> None:
        """More of the text, with whatever tags it has."""
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
        """See whether the text begins with a tag; returns what follows on it."""
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
        """Enter the state of the tag that `words` begin with; returns its length, 0 if there is none."""
        if not words.startswith(markers.FIRST_CHARACTERS):
            return 0
        for begin, end in markers.THOUGHTS:
            if found := begin.match(words):
                self._state, self._end = _State.INSIDE, end
                if found[0].endswith("/>"):  # no thinking
                    self._state = _State.BEHIND
                return found.end()
            # An end alone: the prompt has opened and closed the thinking, or it was in a field of its own.
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
        """Text begins that goes on until `end`."""
        if self._state is _State.SAID and self._kind is Kind.TEXT:
            self._tell("\n\n", pieces)  # two messages, and not one
        self._state, self._end = _State.SAYING, end

    def _no_tag(self, pieces: list[Piece]) -> str:
        """What was held is no tag. Each text is a piece of its own then, as if it had not been held."""
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
        """Returns what follows on the end of the thinking, or of the text that has an end."""
        self._inside = ""
        saying = self._state is _State.SAYING
        put = self._tell if saying else self._think
        if found := self._end.search(text):
            if found.start():
                put(text[: found.start()], pieces)
            self._state = _State.SAID if saying else _State.BEHIND
            # A message may begin without an end of the one before.
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
            if not text:  # thinking without a word is none: where it is switched off, some models send that
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
