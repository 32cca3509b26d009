"""Lines that break between words, as a terminal shows them."""

import re

from hypothesis import given
from hypothesis import strategies as st

from chatstream.terminal.screen import Wrapping, printable

_TOKENS = re.compile(r"\033\[(\d+)D|\033\[K|\n|.", re.DOTALL)


def shown(written: str) -> list[str]:
    """The lines on a terminal after this output, for letters that are one cell wide."""
    lines, column = [""], 0
    for token in _TOKENS.finditer(written):
        if token[1]:
            column -= int(token[1])
            assert column >= 0
        elif token[0] == "\033[K":
            lines[-1] = lines[-1][:column]
        elif token[0] == "\n":
            lines.append("")
            column = 0
        else:
            lines[-1] = lines[-1][:column] + token[0]
            column += 1
    return lines


@given(words=st.lists(st.text("abc", min_size=1, max_size=14)), pieces=st.integers(1, 9), width=st.integers(2, 30))
def test_no_line_is_too_long_and_no_word_is_broken_or_lost(words: list[str], pieces: int, width: int) -> None:
    wrapping, text = Wrapping(lambda: width), " ".join(words)
    lines = shown("".join(wrapping(text[at : at + pieces]) for at in range(0, len(text), pieces)))
    assert all(len(line) < width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    for word in words:
        assert len(word) >= width or any(word in line for line in lines)


def test_wide_letters_count_twice_and_marks_not_at_all() -> None:
    assert Wrapping(lambda: 10)("日本語 日本語") == "日本語 日\033[2D\033[K\n日本語"
    assert Wrapping(lambda: 9)("e\u0301" * 8) == "e\u0301" * 8


def test_what_begins_a_line_stays_there() -> None:
    wrapping = Wrapping(lambda: 20)
    assert wrapping("- one\n  - two\n\n\tthree") == "- one\n  - two\n\n\tthree"


def test_after_something_else_a_line_begins() -> None:
    wrapping = Wrapping(lambda: 10)
    wrapping("12345678")
    wrapping.restart()
    assert wrapping("12345678") == "12345678"


def test_a_terminal_is_given_no_commands() -> None:
    assert printable("a\x1b]52;c;aGk=\x07b\x9b2Jc\r\n\td\x00") == "a]52;c;aGk=b2Jc\n\td"
    assert Wrapping(lambda: 80)("\x1b[2Jred") == "[2Jred"
