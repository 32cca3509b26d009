"""Sports betting chats that never took place."""

from random import Random
from typing import Final

from chatstream.llm.demo_answers import Chat

# Questions and their answers. {home}, {away}: clubs; {star}: a player; {odds}: in one of three notations; {stake}:
# an amount of money.
_EXCHANGES: Final = (
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
_ODDS: Final = ("1.65", "1.91", "2.10", "2.75", "3.40", "5/2", "11/8", "+150", "-120")
_STAKES: Final = ("€5", "€10", "£20", "$25", "€50")
# Number of names made in advance: enough for varied conversations. Making a name is slow, choosing one is fast.
_POOL: Final = 200


class Chats:
    """Makes random chats. Raises `ImportError` without the package faker, which invents the names."""

    def __init__(self, seed: int) -> None:
        from faker import Faker

        faker = Faker("en_GB")
        faker.seed_instance(seed)
        self._clubs = [
            f"{faker.city()} {faker.random_element(('United', 'City', 'Rovers', 'FC'))}" for _ in range(_POOL)
        ]
        self._stars = [f"{faker.first_name()} {faker.last_name()}" for _ in range(_POOL)]

    def __call__(self, chance: Random) -> Chat:
        """Return a chat about a match of two random clubs."""
        home, away = chance.sample(self._clubs, 2)
        words = {
            "home": home,
            "away": away,
            "star": chance.choice(self._stars),
            "odds": chance.choice(_ODDS),
            "stake": chance.choice(_STAKES),
        }
        exchanges = [(question.format_map(words), answer.format_map(words)) for question, answer in _EXCHANGES]
        return Chat(f"{home} v {away}", exchanges)
