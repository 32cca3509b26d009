"""A quick check whether a text may name a bet. Not in `reader`, which is slow to import because of its patterns."""

# A text without any of these contains no odds, so `reader` is not needed.
_MARKS = ("odds", "price", "@", "(", "evens", "at ", "even money", "pt", "|", "of ")
# The outline of a text: each digit is a 0, each separator a full stop, white space and characters beyond ASCII a space.
_OUTLINE = bytes.maketrans(b"123456789-,/\t\n\v\f\r\x1c\x1d\x1e\x1f?", b"000000000..." + b" " * 10)
# What the outlines of all odds contain: 2.50, 11/8, 5 to 2, +150, -150, or a word. Each with its rarest character: that
# is searched first, in a hundredth of the time.
_ODDS = (
    (b".", b"0.0"),
    (b"0", b"0 to 0"),
    (b"+", b"+000"),
    (b".", b".000"),
    (b"v", b"evens"),
    (b"y", b"even money"),
)
# Longest answer that `reader` reads, in code points: some 5,000 tokens, more than nearly all answers have. A longer one
# is not read at all, because its end may withdraw a bet. The slowest answer of this length takes 0.67 s, during which
# other threads must wait for the GIL.
_LONGEST_ANSWER = 20_000


def may_name_a_bet(text: str) -> bool:
    """Return false if `text` is too long to be read, or contains no number that could be odds, like most answers.

    Runs on the event loop at the end of each answer, so it only searches for fixed strings: a regular expression takes
    ten times as long. The longest text takes 0.15 ms.
    """
    if len(text) > _LONGEST_ANSWER:
        return False
    plain = text.casefold()
    outline = plain.replace("\u2212", "-").encode("ascii", "replace").translate(_OUTLINE)
    number = any(rare in outline and odds in outline for rare, odds in _ODDS)
    return number and any(mark in plain for mark in _MARKS)
