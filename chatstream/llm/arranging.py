"""From what a model says to the pieces of an answer: what it thinks is told apart from what it tells. Pure.

Some endpoints send the thinking in a field of its own; others leave it in the text, between tags, as the model wrote
it. Tags count before the first word of the text alone, also one after the other: anywhere else they are what the
answer is about.
"""

import re
from enum import Enum, StrEnum, auto
from typing import Final

from chatstream.llm.shapes import valid
from chatstream.pieces import Kind, OpenReasoning, OpenText, Piece

# What models open their thinking with, and the end that belongs to it: Qwen, DeepSeek, GLM and many others; what
# prompts ask other models for; Seed-OSS; Magistral; Kimi-VL. In lower case: they are compared so.
_TAGS: Final = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    "[think]": "[/think]",
    "◁think▷": "◁/think▷",
}
_ALL_TAGS: Final = (*_TAGS, *_TAGS.values())
_LONGEST_TAG: Final = max(map(len, _ALL_TAGS))
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
    TEXT = auto()  # tags do not count any more


class Arranger:
    """Puts what one answer says in order.

    While it is `plain`, a text that is valid Unicode is a piece as it is, and need not come through here.
    """

    def __init__(self, tags: Tags = Tags.RECOGNISED) -> None:
        self._state = _State.TEXT if tags is Tags.KEPT else _State.START
        self._opened = tags is Tags.OPENED
        self._end = "</think>"  # of the thinking that is open
        self._kind = Kind.TEXT  # of the part that is open
        self._start: list[str] = []  # texts that may be the beginning of a tag
        self._tags = 0  # how many there were
        self._inside = ""  # the end of some thinking that may be the beginning of its end
        self._blank: list[str] = []  # white space after thinking: more thinking may follow
        self._halves = {Kind.TEXT: "", Kind.REASONING: ""}  # the first half of a character, cut between two deltas
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
            self._complete(Kind.TEXT, pieces)
            self._think(self._whole(Kind.REASONING, text), pieces)
        self._settle()
        return pieces

    def end(self) -> list[Piece]:
        """The pieces of what is still held, at the end of the answer."""
        pieces: list[Piece] = []
        self._complete(Kind.REASONING, pieces)
        self._complete(Kind.TEXT, pieces)
        held, self._inside = self._inside, ""
        self._think(held, pieces)
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
            if self._state is _State.INSIDE:
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
        first = words[:_LONGEST_TAG].lower()
        for tag, end in _TAGS.items() if self._tags < _MOST_TAGS else ():
            # An end alone: the prompt has opened and closed the thinking, or it was in a field of its own.
            for one, state in ((tag, _State.INSIDE), (end, _State.BEHIND)):
                if first.startswith(one):
                    self._start.clear()
                    self._tags += 1
                    self._state, self._end = state, end
                    return words[len(one) :]
        if len(text) <= _MOST_BLANKS and any(tag.startswith(first) for tag in _ALL_TAGS):
            return ""
        return self._no_tag(pieces)

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
        """Returns what follows on the end of the thinking."""
        self._inside = ""
        if found := re.search(re.escape(self._end), text, re.IGNORECASE):
            self._think(text[: found.start()], pieces)
            self._state = _State.BEHIND
            return text[found.end() :]
        last = text[1 - len(self._end) :].lower()
        begun = next((size for size in range(len(last), 0, -1) if self._end.startswith(last[-size:])), 0)
        self._inside = text[len(text) - begun :]
        self._think(text[: len(text) - begun], pieces)
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
