"""Titles from a model's reply."""

import pytest

from chatstream.llm import titling
from chatstream.llm.titling import LONGEST, question_of, request, shortened, title


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Palindromes in Python", "Palindromes in Python"),
        ('"Palindromes in Python."', "Palindromes in Python"),
        ("**Title:** Palindromes in Python\n", "Palindromes in Python"),
        ("# Palindromes", "Palindromes"),
        ("\n\n  - Palindromes \n\nI hope that helps!", "Palindromes"),
        ("Titel: „Reise nach Süden“", "Reise nach Süden"),
        ("「東京の天気」", "東京の天気"),
        ("الطقس في القاهرة", "الطقس في القاهرة"),
        ("Good luck 🍀", "Good luck 🍀"),
        ("Family 👨\u200d👩\u200d👧 trip", "Family 👨\u200d👩\u200d👧 trip"),  # an emoji with joiners
        ("[A link](https://example.com) here", "A link here"),
        ("<b>Bold</b> words", "Bold words"),
        ("evil\u202eeman\u202c\x00\x1b[31m", "evileman[31m"),
        ("What is `__init__`?", "What is init?"),
        ("C++ and C#", "C++ and C"),
        ("", None),
        ("  \n\t", None),
        ('"…"', None),
        ("\u200b\u200b", None),
        ("x" * 1000, None),
        ("Sure! " + "Here is the answer to your question, at length. " * 5, None),
    ],
)
def test_what_is_left_of_it(said: str, expected: str | None) -> None:
    assert title(said) == expected


@pytest.mark.parametrize("finish", ["refusal", "content_filter"])
def test_a_refusal_is_no_title(finish: str) -> None:
    assert title("I can't help with that", finish) is None


def test_a_long_one_is_cut_between_words() -> None:
    cut = shortened("A rather long title that says more than the line of any list would ever show")
    assert cut == "A rather long title that says more than the line of any…"
    assert len(cut) <= LONGEST
    assert len(shortened("x" * 70)) == LONGEST
    assert shortened("short") == "short"


def test_the_demo_model_finds_the_question_in_it() -> None:
    turns = request("What is\n\na palindrome?", "A word.")
    assert [turn.role for turn in turns] == ["user"]
    assert question_of(turns[0].content) == "What is\n\na palindrome?"
    assert question_of("What is a palindrome?") is None
    long = request("q" * 10_000, "a" * 10_000)[0].content
    assert len(long) < len(titling.INSTRUCTION) + 4_000
