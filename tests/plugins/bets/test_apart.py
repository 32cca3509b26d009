"""The core has no word of bets: what it knows of them stands in the plug-in."""

import re
from collections.abc import Iterator

from tests.support.processes import REPOSITORY

CORE = REPOSITORY / "chatstream"
# Whole words, and parts of names such as `betId` and `oddsText`.
WORDS = re.compile(
    r"(?<![A-Za-z])(?:[Bb]et(?:s|ting|tors?)?|[Oo]dds|[Ss]takes?|[Ww]agers?|[Pp]unters?|[Bb]ookmakers?|[Tt]ipsters?|"
    r"[Ss]lips?|[Ss]ports?)(?![a-z])|\.bets\b",
)
# What is left, and why. Whoever adds a line here says why, too.
ALLOWED = {
    # The protocol's name of each recommendation, and of its id: what is stored of one has no words of its own.
    ("models.py", '_RECOMMENDED, _RECOMMENDATION_ID = "New bet recommendation available", "betId"'),
    # The same, for a hook whose messages must read alike live and from the history, which has only the data.
    ("web/use-chat-sse.js", 'const RECOMMENDATION = "New bet recommendation available";'),
    # Which plug-in is there unless somebody says otherwise.
    ("settings.py", 'DEFAULT_PLUGINS = ("chatstream.plugins.bets:plugin",)'),
    ("config/chatstream.env.example", "#CHATSTREAM_PLUGINS=chatstream.plugins.bets:plugin"),
}
# Plug-ins, and what tells their makers of them; and what others wrote.
APART = ("plugins/bets/", "plugins/examples/", "plugins/README.md", "web/vendor/")


def lines() -> Iterator[tuple[str, str]]:
    """The file and the text of each line of the core."""
    for path in sorted(CORE.rglob("*")):
        name = path.relative_to(CORE).as_posix()
        if path.is_file() and path.suffix not in (".pyc", ".png") and not name.startswith(APART):
            yield from ((name, line.strip()) for line in path.read_text().splitlines())


def test_the_core_has_no_word_of_bets() -> None:
    found = {(name, line) for name, line in lines() if WORDS.search(line)}
    assert found == ALLOWED
