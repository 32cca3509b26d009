"""The search terms of texts in different scripts."""

import pytest

from chatstream.store.terms import MAX_TERM, begins_terms, terms


def found(sought: str, text: str) -> bool:
    """Whether a search for `sought` finds `text`."""
    there = set(terms(text))
    wanted = list(terms(sought, sought=True))
    return bool(wanted) and all(
        any(one.startswith(term) if begins_terms(term) else one == term for one in there) for term in wanted
    )


@pytest.mark.parametrize(
    ("sought", "text"),
    [
        ("palindrome", "Write a function that finds PALINDROMES"),
        ("finds function", "Write a function that finds palindromes"),
        ("strasse", "Die Straße nach Süden"),
        ("SÜDEN", "Die Straße nach Süden"),
        ("suden", "Die Straße nach Süden"),
        ("fußball", "Fußballspiel"),
        ("u\u0308ber", "über"),  # decomposed, as macOS writes file names
        ("كتاب", "قرأتُ كِتَابًا جميلاً"),  # with vowel points
        ("احمد", "أحمد"),  # alef with hamza
        ("جميل", "جمـــيل"),  # stretched
        ("天气", "今天北京的天气怎么样\uff1f"),
        ("气", "今天天气"),  # the last character of a run
        ("天", "今天天气"),
        ("東京タワー", "明日東京タワーに行く"),
        ("ﾀﾜｰ", "東京タワー"),  # half-width
        ("날씨", "오늘 날씨가 좋다"),
        ("อากาศ", "วันนี้อากาศดี"),
        ("हिन्दी", "मुझे हिन्दी आती है"),
        ("🍀", "Good luck 🍀!"),
        ("👍", "👍🏽"),  # a skin tone makes no difference
        ("❤", "❤️"),
        ("don't", "I don\u2019t know"),
        ("3.14", "π is 3.14159"),
        ("x", "Solve x = 2"),
        ("\uff37\uff49\uff44\uff45", "wide"),
    ],
)
def test_it_is_found(sought: str, text: str) -> None:
    assert found(sought, text)


@pytest.mark.parametrize(
    ("sought", "text"),
    [
        ("spiel", "Fußballspiel"),  # not in the middle of a word
        ("天空", "今天天气"),
        ("x", "xylophone"),  # a single letter matches only a whole word
        ("one two", "one"),
        (" .,!? ", "anything!"),
        ("", "anything"),
    ],
)
def test_it_is_not_found(sought: str, text: str) -> None:
    assert not found(sought, text)


def test_what_is_very_long_is_searched_by_its_beginning() -> None:
    assert [*terms("a" * 10_000)] == ["a" * MAX_TERM]
    assert found("a" * 200, "a" * 10_000)
