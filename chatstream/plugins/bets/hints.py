"""A quick check whether a text may name a bet. Not in `reader`, which is slow to import because of its patterns."""

import re

# A text without any of these contains no odds, so `reader` is not needed.
_MARKS = ("odds", "price", "@", "(", "evens", "at ", "even money", "pt", "|", "of ")
# A pattern that all odds contain, for casefolded text.
_NUMBER = re.compile(r"[0-9](?:[./,-]|\sto\s)[0-9]|[+\u2212-][1-9][0-9]{2}|evens|even\smoney")
# Longest answer that `reader` reads, in code points: some 5,000 tokens, more than nearly all answers have. A longer one
# is not read at all, because its end may withdraw a bet. The slowest answer of this length takes 0.67 s, during which
# other threads must wait for the GIL.
_LONGEST_ANSWER = 20_000


def may_name_a_bet(text: str) -> bool:
    """Return false if `text` is too long to be read, or contains no number that could be odds, like most answers.

    The check is 40 times as fast as reading the text: less than 1 ms for the longest text.
    """
    if len(text) > _LONGEST_ANSWER:
        return False
    plain = text.casefold()
    return bool(_NUMBER.search(plain)) and any(mark in plain for mark in _MARKS)
