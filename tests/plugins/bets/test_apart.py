"""The core's code has no words about bets: these are only in the plug-in."""

import re
from collections.abc import Iterator

from tests.support.processes import REPOSITORY

CORE = REPOSITORY / "chatstream"
# Whole words, and parts of names such as `betId` and `oddsText`.
WORDS = re.compile(
    r"(?<![A-Za-z])(?:[Bb]et(?:s|ting|tors?)?|[Oo]dds|[Ss]takes?|[Ww]agers?|[Pp]unters?|[Bb]ookmakers?|[Tt]ipsters?|"
    r"[Ss]lips?|[Ss]ports?)(?![a-z])|\.bets\b",
)
# The allowed exceptions, each with its reason. If you add a line, write its reason, too.
ALLOWED = {
    # The protocol's text of each recommendation, and the name of its id, which are not stored.
    ("models.py", '_RECOMMENDED, _RECOMMENDATION_ID = "New bet recommendation available", "betId"'),
    # The same, for a hook whose messages must read alike live and from the history, which has only the data.
    ("web/use-chat-sse.js", 'const RECOMMENDATION = "New bet recommendation available";'),
    # The default plug-in.
    ("settings.py", 'DEFAULT_PLUGINS = ("chatstream.plugins.bets:plugin",)'),
    ("config/chatstream.env.example", "#CHATSTREAM_PLUGINS=chatstream.plugins.bets:plugin"),
}
# Directories that are not searched: plug-ins, their documentation, and third-party code.
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
