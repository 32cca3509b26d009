"""Texts that show nothing."""

import pytest

from chatstream.blank import is_blank


@pytest.mark.parametrize(
    "text",
    ["", "  \n\t\r", "\u200b", "\ufeff", "\x00\x01", "\u2060\u200d", "\u00a0\u3000", "\u2028\u2029\x85", "\u3164",
     "\u2800", "\ufe0f", "\ufffe", "\uffff\U0001fffe", "\ufdd0", "\u0301", "\u20dd", "\u0903", "\u0301 \u0308",
     "\ufffc", "\u2065", "\U000e0020", "\u00ad", "\u202e \u202c"],
)  # fmt: skip
def test_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize(
    "text",
    [
        ".",
        "a\u200b",
        "\u200b0",
        "👍",
        "👩\u200d🚀",
        "e\u0301",
        "\u0915\u093e",
        "\ue000",
        "\U0001faea",
        "\u0378",
        "\ufffd",
        "א",
    ],
)
def test_not_blank(text: str) -> None:
    assert not is_blank(text)
