"""The markers with which models enclose reasoning in their text, if the endpoint does not remove them. Pure."""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Final

# White space and attributes that are accepted inside tags: models that write tags letter by letter vary them, as in
# `<think >`, `< / think>`, `<think effort="low">`.
_SPACE: Final = r"\s{0,4}"
_ATTRIBUTES: Final = r"(?:\s[^<>]{0,64})?"
# Longest marker, in characters: at most this much text is held while it may be one.
_LONGEST_MARKER: Final = 100
_LONGEST_HEADER: Final = 256


class Marker:
    """A marker, with all its spellings."""

    def __init__(self, *spellings: Sequence[str]) -> None:
        """`spellings`: each is a sequence of regular expressions; the text may be cut after any of them."""
        self.spellings = spellings

    # Compiled on use: most answers have no marker, and compiling all of them was 3 % of a start.
    @cached_property
    def _whole(self) -> re.Pattern[str]:
        return re.compile("|".join("".join(spelling) for spelling in self.spellings), re.IGNORECASE)

    @cached_property
    def _begun(self) -> re.Pattern[str]:
        return re.compile("|".join(map(_beginning, self.spellings)), re.IGNORECASE)

    def match(self, text: str) -> re.Match[str] | None:
        """The marker at the start of `text`, or None."""
        return self._whole.match(text)

    def search(self, text: str) -> re.Match[str] | None:
        """The first marker in `text`, or None."""
        return self._whole.search(text)

    def may_be(self, text: str) -> bool:
        """Whether the whole of `text` may be the beginning of a marker."""
        return len(text) < _LONGEST_MARKER and self._begun.match(text) is not None

    def begun(self, text: str) -> int:
        """The number of characters at the end of `text` that may be the beginning of a marker."""
        found = self._begun.search(text, max(len(text) - _LONGEST_MARKER, 0))
        return 0 if found is None else len(text) - found.start()


def _beginning(spelling: Sequence[str]) -> str:
    """A regular expression for any prefix of `spelling` at the end of a text."""
    return r"(?:\Z|".join(spelling) + ")" * (len(spelling) - 1)


def _exactly(text: str) -> Marker:
    return Marker([re.escape(character) for character in text])


def _opening(name: str) -> Marker:
    return Marker(["<", _SPACE, *name, _ATTRIBUTES, "/?", ">"])


def _closing(name: str) -> Marker:
    return Marker(["<", _SPACE, "/", _SPACE, *name, _SPACE, ">"])


_NAMES: Final = ("think", "thinking", "thought", "reasoning", "seed:think", "longcat_think")
# The start and end markers of reasoning. Tags: Qwen, DeepSeek, GLM and many others; tags that prompts ask other models
# for; EXAONE; Seed-OSS; LongCat. Others: Magistral; Kimi-VL; OpenThinker; Command A; Apertus; Gemma.
THOUGHTS: Final = (
    *((_opening(name), _closing(name)) for name in _NAMES),
    (_exactly("[THINK]"), _exactly("[/THINK]")),
    (_exactly("◁think▷"), _exactly("◁/think▷")),
    (_exactly("<|begin_of_thought|>"), _exactly("<|end_of_thought|>")),
    (_exactly("<|START_THINKING|>"), _exactly("<|END_THINKING|>")),
    (_exactly("<|inner_prefix|>"), _exactly("<|inner_suffix|>")),
    (_exactly("<|channel>thought"), _exactly("<channel|>")),
)
ANY_END: Final = Marker(*(spelling for _, end in THOUGHTS for spelling in end.spellings))
# The markers that some of them put around the text after the reasoning: Hunyuan; OpenThinker; Command A.
ANSWERS: Final = (
    (_opening("answer"), _closing("answer")),
    (_exactly("<|begin_of_solution|>"), _exactly("<|end_of_solution|>")),
    (_exactly("<|START_RESPONSE|>"), _exactly("<|END_RESPONSE|>")),
)
FIRST_CHARACTERS: Final = ("<", "[", "◁")

# gpt-oss writes messages, each with a header that names its channel (OpenAI's Harmony format):
# <|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi<|return|>
_HEADER_BEGINS: Final = ("<|start|>", "<|channel|>")
_HEADER_END: Final = "<|message|>"
# The end markers of a message; the next header ends it, too.
_ENDS: Final = ("<|end|>", "<|return|>", "<|call|>")
MESSAGE_END: Final = Marker(*([re.escape(character) for character in text] for text in (*_ENDS, *_HEADER_BEGINS)))


def header(words: str) -> str:
    """The message header at the start of `words`; empty if there is none."""
    if not words.startswith(_HEADER_BEGINS):
        return ""
    found = words.find(_HEADER_END, 0, _LONGEST_HEADER)
    return "" if found < 0 else words[: found + len(_HEADER_END)]


def is_header_begun(text: str) -> bool:
    """Whether `text` is the beginning of a message header."""
    return text.lstrip().startswith(_HEADER_BEGINS) and _HEADER_END not in text


def is_for_users(header: str) -> bool:
    """Whether a message with this header is text for users. One with a recipient is a tool call or a result."""
    return "analysis" not in header and "to=" not in header


def is_end(marker: str) -> bool:
    """Whether `marker` is the end of a message, and not the start of the next one."""
    return marker not in _HEADER_BEGINS


def may_begin(words: str) -> bool:
    """Whether `words` may be the beginning of any marker: the start or end of reasoning or of text."""
    if not words:
        return True
    if not words.startswith(FIRST_CHARACTERS):
        return False
    if words.startswith(_HEADER_BEGINS):
        return len(words) < _LONGEST_HEADER
    if any(begin.startswith(words) for begin in _HEADER_BEGINS):
        return True
    return any(marker.may_be(words) for pair in (*THOUGHTS, *ANSWERS) for marker in pair)
