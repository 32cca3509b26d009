"""Sports betting chats that never took place."""

import argparse
import random
from datetime import UTC, datetime, timedelta

from chatstream.errors import ConfigurationError
from chatstream.plugins.bets.reader import extract
from chatstream.seeding import Source
from chatstream.store.seeding import History, Line, Name, history

# Questions and their answers. {home}, {away}: clubs; {star}: a player; {odds}: in one of three notations; {stake}:
# an amount of money.
EXCHANGES = (
    (
        "Who wins {home} v {away}, and by how much?",
        "**{home}** have won six of their last seven at home, and {away} miss two defenders.\n\n"
        "I'd recommend a bet on **{home} to win** at odds of {odds}, with a stake of {stake}.",
    ),
    (
        "I have {stake} left this week. What is the best single bet on {home} v {away}?",
        "Both sides have scored in each of their last five meetings, and {star} alone has four goals.\n\n"
        "- **Best bet:** both teams to score at odds of {odds}\n- Stake: {stake}\n\n"
        "Only bet what you can afford to lose.",
    ),
    (
        "What are good odds for {star} to score first?",
        "{star} takes the penalties and most free kicks. I recommend **{star} to score** at odds of {odds}; "
        "stake {stake}. The first goal is a lottery: leave that market alone.",
    ),
    (
        "{home} have lost three in a row. Would you still back them?",
        "It is close: {away} travel well, and an early goal would change everything. I'd wait for the line-ups.",
    ),
    (
        "Does {star} start on Sunday? And does the price change if not?",
        "{star} trained with the team on Thursday, so a place on the bench is likely. The market has not moved yet, "
        "which says that nobody expects a surprise.\n\n| team | last five |\n|---|---|\n| {home} | W W D W L |\n"
        "| {away} | L D W D D |\n\nI see no value here at the moment.",
    ),
    (
        "What does a handicap of -1 on {home} mean?",
        "That {home} must win by two goals or more. If they win by one, the bet is lost (or, with an *Asian* handicap, "
        "you get your stake back).",
    ),
    (
        "My accumulator needs {away} not to lose. Should I cash out? 🤔",
        "What is offered is less than the bet is worth: that is how cashing out earns its keep. If losing the money "
        "would hurt, take it; if not, let it run.",
    ),
    (
        "and what about the return leg?",
        "Too early to say: half a season lies between. {home} will be the favourites, and a favourite at a short price "
        "is rarely a good bet.",
    ),
)
ODDS = ("1.65", "1.91", "2.10", "2.75", "3.40", "5/2", "11/8", "+150", "-120")
STAKES = ("€5", "€10", "£20", "$25", "€50")
# So many that conversations differ; making names is slow, choosing among them is not.
POOL = 200
# Between two messages, in seconds: a reader's pause; and how far back the last message is, at most.
PAUSES = (20, 180)
OLDEST = timedelta(days=30)


class Chats:
    """Makes conversations: the n-th is the same whichever are made before it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._now = datetime.now(UTC)
        try:
            from faker import Faker
        except ImportError:
            raise ConfigurationError(
                "Chats are made up with the package faker: pip install faker. Those of a --file need none."
            ) from None
        faker = Faker("en_GB")
        faker.seed_instance(options.seed)
        self._clubs = [
            f"{faker.city()} {faker.random_element(('United', 'City', 'Rovers', 'FC'))}" for _ in range(POOL)
        ]
        self._stars = [f"{faker.first_name()} {faker.last_name()}" for _ in range(POOL)]

    def source(self) -> Source:
        """All that the options ask for."""
        numbers = range(self._options.total)
        return Source(len(numbers), lambda: map(self._name, numbers), lambda: map(self._make, numbers))

    def _name(self, number: int) -> Name:
        user_id = self._options.user
        if user_id is None:
            user_id = f"user-{number % self._options.users}"
        return user_id, f"{self._options.id_prefix}{number:06d}"

    def _make(self, number: int) -> History:
        chance = random.Random(f"{self._options.seed}/{number}")  # noqa: S311 - chats, not secrets
        home, away = chance.sample(self._clubs, 2)
        words = {
            "home": home,
            "away": away,
            "star": chance.choice(self._stars),
            "odds": chance.choice(ODDS),
            "stake": chance.choice(STAKES),
        }
        exchanges = chance.sample(EXCHANGES, len(EXCHANGES))  # none twice, until all have had their turn
        count = self._options.messages
        contents = [exchanges[place // 2 % len(exchanges)][place % 2].format_map(words) for place in range(count)]
        at = self._now - OLDEST * chance.random()
        times = [at] + [at := at - timedelta(seconds=chance.randint(*PAUSES)) for _ in range(count)]
        times.reverse()  # the last is of the newest message, the first of the conversation
        lines = [
            Line("assistant" if place % 2 else "user", content, time_)
            for place, (content, time_) in enumerate(zip(contents, times[1:], strict=True))
        ]
        user_id, id_ = self._name(number)
        return history(user_id, lines, id=id_, title=f"{home} v {away}", created_at=times[0], extract=extract)
