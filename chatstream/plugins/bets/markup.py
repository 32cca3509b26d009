"""Turns an answer's Markdown into plain lines, without the parts that are not the author's own statement.

Leaves out struck-through text, a model's thinking and longer quotations. A code block is one line. Takes linear time.
"""

import re
from collections.abc import Iterator
from enum import Enum, auto

from msgspec import Struct


class Kind(Enum):
    """The kind of a line."""

    PLAIN = auto()
    HEADING = auto()
    ITEM = auto()  # of a list
    ROW = auto()  # of a table
    QUOTE = auto()
    CODE = auto()  # one whole block
    BLANK = auto()


class Line(Struct, frozen=True):
    """One line, or one whole code block. `indented` lines belong to the item above them."""

    kind: Kind
    text: str
    indented: bool = False
    level: int = 0  # of a heading, 1 is the highest


# Names of the tags around a model's reasoning: each family of models has its own.
_THOUGHT = r"think|thinking|thought|thoughts|reason|reasoning|reflection|analysis|scratchpad|seed:think"
_TAG = re.compile(
    rf"""<(?P<close>/?)(?:(?P<thought>{_THOUGHT})|(?P<silent>del|s|strike|blockquote|q|cite|details|pre|code))
        (?:\s[^<>]{{0,200}})?>
    | (?P<open_bracket>\[THINK\]|\u25c1think\u25b7|<\|channel\|>(?:analysis|commentary))
    | (?P<close_bracket>\[/THINK\]|\u25c1/think\u25b7|<\|end\|>)
    | (?P<comment><!--) | (?P<end_comment>-->)""",
    re.IGNORECASE | re.VERBOSE,
)
_BREAK = re.compile(r"<br\s{0,3}/?>", re.IGNORECASE)
_OTHER_TAG = re.compile(
    r"</?(?:a|abbr|b|big|body|br|center|div|em|font|h[1-6]|hr|html|i|img|ins|kbd|li|mark|ol|p|small|span|strong|sub|sup"
    r"|table|tbody|td|tfoot|th|thead|tr|tt|u|ul|var)(?:\s[^<>]{0,200})?/?>",
    re.IGNORECASE,
)
_GAP = re.compile(r"<[A-Za-z][^<>\n]{0,60}>|(?<!\w)_{3,}(?!\w)")  # a placeholder of a template, such as <team> or ___
_ONE_TILDE = re.compile(r"(?<![\w~])~(?=[^\s~0-9])[^~\n]{1,500}~(?![\w~])")
# Quoted text. If it contains a number, it is a quotation of somebody, not a name.
_QUOTED = re.compile(
    r"[\u201c\u201e]([^\u201c\u201d\u201e\n]{0,1000})(?:[\u201d]|(?=\n)|\Z)|(?<!\w)\"([^\"\n]{1,1000})\"|\u00ab([^\u00ab\u00bb\n]{1,1000})\u00bb"
    r"|(?<!`)`{1,2}([^`\n]{1,1000})`{1,2}(?!`)"
)
_FENCE = re.compile(r"\s{0,12}(?:```|~~~)")
_LINK = re.compile(r"(?<![\w)])\[([^\[\]]{1,200})\]\([^()\s]{0,500}\)(?![\w\[])")
# Markdown's marks to remove, but not between two letters or digits: "2*1" must not become "21".
_MARKS = re.compile(r"(?<![*_`])(?:(?<!\w)[*_`]++|[*_`]++(?!\w))")
_ITEM = re.compile(r"\s*+(?:[-*+\u2022\u25e6\u2023]|[0-9]{1,3}[.)])\s")
_LEADING = re.compile(r"^(?:[>#\u2022\u25e6\u2023\s]|(?:[-+*]|[0-9]{1,3}[.)])(?=\s))++")
_BOLD = re.compile(r"\s*+(?:\*\*[^*]++\*\*|__[^_]++__)\s*+:?\s*+")
_RULE = re.compile(r"\s{0,3}(?:[-*_=]\s?){3,}\s*")
_TASK = re.compile(r"(?<=[-*+.)]\s)\[[ xX]\]\s")  # the check box of a task list
_ELLIPSIS = " \u2026 "
_LONGEST_QUOTED_NAME = 3  # words: "Over 2.5 goals"
_SAYS = re.compile(r"(?:back|bet|take|tip|nap|my|the|best|put|go)\b", re.IGNORECASE)
_BOLD_LEVEL = 7  # a line in bold counts as a heading of the lowest level


def lines(text: str) -> Iterator[Line]:
    """Yield the lines of `text`, in order."""
    fence: list[str] | None = None
    for raw in _spoken(text).splitlines():
        if _FENCE.match(raw):
            if fence is not None:
                yield Line(Kind.CODE, "\n".join(fence))
            fence = [] if fence is None else None
        elif fence is not None:
            fence.append(raw)
        else:
            yield _line(raw)


def _spoken(text: str) -> str:
    """Return `text` without thoughts, quotations in tags and struck-through text."""
    kept: list[str] = []
    depth, begin = 0, 0
    for tag in _TAG.finditer(text):
        opens = tag["open_bracket"] or tag["comment"] or ((tag["thought"] or tag["silent"]) and not tag["close"])
        if depth == 0:
            kept.append(text[begin : tag.start()])
        if opens:
            depth += 1
        elif depth:
            depth -= 1
        elif tag["thought"] or tag["close_bracket"]:
            kept.clear()  # no opening tag, as the prompt template contains it: all before was a thought
        begin = tag.end()
    if depth == 0:
        kept.append(text[begin:])
    # An unclosed `~~` strikes through the rest, even where a browser would not show it so.
    fenced = "".join(kept).replace("\n~~~", "\n```")
    shown = "".join(fenced.split("~~")[::2])
    return _OTHER_TAG.sub("", _BREAK.sub("\n", _ONE_TILDE.sub("", shown)))


def _short_quotation(match: re.Match[str]) -> str:
    words = next((group for group in match.groups() if group is not None), "")
    is_name = len(words.split()) <= _LONGEST_QUOTED_NAME and not _SAYS.match(words)
    return match[0] if is_name or not any(character.isdigit() for character in words) else _ELLIPSIS


def _line(raw: str) -> Line:
    said = _QUOTED.sub(_short_quotation, raw)
    if not _RULE.fullmatch(raw):
        said = _TASK.sub(_ELLIPSIS, _GAP.sub(_ELLIPSIS, said))
    text = _LEADING.sub("", " ".join(_MARKS.sub("", _LINK.sub(r"\1", said)).split()))
    stripped = raw.lstrip()
    indented = raw[:1].isspace()
    if not text or _RULE.fullmatch(raw):
        return Line(Kind.BLANK, "")
    if stripped.startswith(">"):
        return Line(Kind.QUOTE, text)
    if text.startswith("|"):
        return Line(Kind.ROW, text, indented)
    if stripped.startswith("#"):
        return Line(Kind.HEADING, text.rstrip("# "), level=len(stripped) - len(stripped.lstrip("#")))
    if _ITEM.match(raw):
        return Line(Kind.ITEM, text, indented)
    if _BOLD.fullmatch(raw):
        return Line(Kind.HEADING, text, level=_BOLD_LEVEL)
    return Line(Kind.PLAIN, text, indented)
