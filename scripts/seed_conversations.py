"""Fills the database with sports betting chats, made up or from a file. Run it as ``scripts/seed_conversations``.

Past 200 lines because half of it is what the chats say, what the options mean, and what a file may hold.
"""
# ruff: noqa: T201 - a command line prints

import argparse
import asyncio
import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TextIO

from faker import Faker
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, ValidationInfo
from pydantic.alias_generators import to_camel
from pydantic_core import from_json
from tqdm import tqdm

from chatstream.errors import AlreadyExists, ChatstreamError, ConfigurationError, StorageUnavailable
from chatstream.handlers.views import Id, ModelName, Prompt, Title
from chatstream.plugins.bets.reader import extract
from chatstream.settings import Settings
from chatstream.store.mongo import Mongo
from chatstream.store.seeding import BATCH_DOCUMENTS, History, Line, Name, Seeding, embedded_database, history, is_local

EXAMPLES = """
examples:
  scripts/seed_conversations                            50 conversations of 10 users
  scripts/seed_conversations --user demo --unanswered   for the demo user; opening one starts an answer
  scripts/seed_conversations --users 1000 --conversations 1000 --messages 2 --drop
                                                        a million conversations instead of what is there
  scripts/seed_conversations --file chats.json          {"conversations": [{"userId": "ada", "id": "c1", "messages": [
                                                          {"role": "user", "content": "Who wins?"},
                                                          {"role": "assistant", "content": "Leeds."}]}]}
                                                        may have title, systemPrompt, model too, and needs no id
  scripts/seed_conversations --hook                     as a benchmark's seeding hook

The database is the one the server would use: MONGODB_URI and MONGODB_DATABASE from the environment or .env, and where
there is no MONGODB_URI, the embedded one in CHATSTREAM_DATA_DIR, whether or not a server has it open.

exit status: 0 done, 1 not possible, 2 wrong options, 130 interrupted. Conversations are stored whole or not at all.
"""

# A benchmark's hook: of each user so few conversations that all of them can be watched at once, which
# CHATSTREAM_STREAMS_PER_USER (10) allows; and what the other servers' seeds store for each conversation.
HOOK_CONVERSATIONS, HOOK_MESSAGES = 5, 1
# A conversation is made and stored in one piece; a longer chat than this is no example of one.
MOST_MESSAGES = 10_000
# A slip of the keyboard, not a database for examples.
MOST = 100_000_000


def _number(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be a number from {least} to {most}")
        return int(text)

    return number


def _matching(pattern: str, what: str) -> Callable[[str], str]:
    def matching(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f"must be {what}")
        return text

    return matching


def _path(text: str) -> Path:
    # The scripts work in the root of the repository; paths are meant from where they were called.
    return Path(os.environ.get("CALLED_FROM", ""), text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/seed_conversations",
        description="Fill a chatstream database with sports betting chats: made up, or from a JSON file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made = parser.add_argument_group("made-up conversations")
    users = made.add_mutually_exclusive_group()
    users.add_argument("--users", type=_number(1, MOST), metavar="N", help="user-0, user-1 … (default: 10)")
    users.add_argument(
        "--user", type=_matching(r"[^\0]{1,255}", "1 to 255 characters"), metavar="ID", help="of this one user only"
    )
    made.add_argument("--conversations", type=_number(1, MOST), metavar="N", help="of each user (default: 5)")
    made.add_argument(
        "--messages",
        type=_number(0, MOST_MESSAGES),
        metavar="N",
        help="of each conversation, questions and answers in turn (default: 6, with --unanswered 5)",
    )
    made.add_argument(
        "--unanswered",
        action="store_true",
        help="end on a question: the first who watches starts its answer; --messages is odd then, else even",
    )
    made.add_argument(
        "--id-prefix",
        type=_matching(r"[A-Za-z0-9_-]{0,50}", "at most 50 of A-Z a-z 0-9 _ -"),
        metavar="TEXT",
        help="what the conversations' ids begin with (default: c, for c000000 …)",
    )
    made.add_argument(
        "--seed",
        type=_number(0, 2**63),
        metavar="N",
        help="the same seed makes the same ids and texts; times count back from now (default: 0)",
    )
    made.add_argument(
        "--hook",
        action="store_true",
        help="take --uri, --database, --ids-file and --owners-file from MONGO_URL, MONGO_DB, IDS_FILE and OWNERS_FILE, "
        f"and store COUNT conversations in all, {HOOK_CONVERSATIONS} of each user, with --drop --unanswered "
        f"--messages {HOOK_MESSAGES}",
    )
    source = parser.add_argument_group("or conversations from a file")
    source.add_argument(
        "--file", type=_path, metavar="JSON", help="see the example below; checked before anything is stored"
    )
    target = parser.add_argument_group("where to")
    target.add_argument("--uri", help="of a MongoDB replica set (default: MONGODB_URI or DATABASE_URL, else embedded)")
    target.add_argument("--database", metavar="NAME", help="(default: MONGODB_DATABASE, else chatstream)")
    there = target.add_mutually_exclusive_group()
    there.add_argument(
        "--drop",
        action="store_true",
        help="first delete ALL conversations and messages of the database; if it is on another machine, only with "
        "--database. For a database that no server is using",
    )
    there.add_argument("--skip-existing", action="store_true", help="leave conversations alone that are there already")
    out = parser.add_argument_group("what to tell")
    out.add_argument("--ids-file", type=_path, metavar="FILE", help="write the conversations' ids to it, one a line")
    out.add_argument(
        "--owners-file", type=_path, metavar="FILE", help="write their users' ids to it, in the same order"
    )
    out.add_argument("--json", action="store_true", help="print the summary as JSON")
    return parser


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, with their defaults; `total` is how many conversations are to be made."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.file:
        made = ("users", "user", "conversations", "messages", "unanswered", "id_prefix", "seed", "hook")
        # Not by comparing: 0 is a seed, and equal to False.
        if given := [name for name in made if not any(getattr(options, name) is absent for absent in (None, False))]:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            parser.error(f"with --file, the conversations are in the file: leave out {names}")
        return options
    count = _hook(parser, options) if options.hook else None
    options.users = (
        1 if options.user is not None else options.users or (-(-count // HOOK_CONVERSATIONS) if count else 10)
    )
    options.total = count if options.conversations is None and count else options.users * (options.conversations or 5)
    if options.messages is None:
        options.messages = HOOK_MESSAGES if options.hook else 5 if options.unanswered else 6
    if options.messages % 2 != options.unanswered:
        parser.error(
            "--messages must be odd with --unanswered: the last one waits for its answer"
            if options.unanswered
            else "--messages must be even: each question has its answer (or add --unanswered)"
        )
    if options.total > MOST:
        parser.error(f"these are {options.total:,} conversations: {MOST:,} is the most")
    options.id_prefix = "c" if options.id_prefix is None else options.id_prefix
    options.seed = options.seed or 0
    return options


def _hook(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Take from the environment what is not given; returns COUNT."""
    if missing := [name for name in ("MONGO_URL", "MONGO_DB", "COUNT") if not os.environ.get(name)]:
        parser.error(f"--hook needs {', '.join(missing)} in the environment")
    options.uri = options.uri or os.environ["MONGO_URL"]
    options.database = options.database or os.environ["MONGO_DB"]
    for name in ("IDS_FILE", "OWNERS_FILE"):
        if os.environ.get(name) and getattr(options, name.lower()) is None:
            setattr(options, name.lower(), _path(os.environ[name]))
    options.unanswered = True
    options.drop = not options.skip_existing
    try:
        return _number(1, MOST)(os.environ["COUNT"])
    except argparse.ArgumentTypeError as exc:
        parser.error(f"COUNT {exc}")


# Where the conversations come from -----------------------------------------------------------------------------------


class Source(NamedTuple):
    """Conversations to store. `names` are those that are known before; both can be walked through more than once."""

    total: int
    names: Callable[[], Iterable[Name]]
    histories: Callable[[], Iterable[History]]


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


# What a file may hold: the same as the REST API takes.
def _not_too_long(message: "FileMessage", info: "ValidationInfo[Settings]") -> "FileMessage":
    settings = info.context
    most = settings.content_characters if message.role == "user" else settings.answer_characters
    if len(message.content) > most:
        raise ValueError(f"content must have at most {most} characters")
    return message


def _in_turn(messages: "list[FileMessage]") -> "list[FileMessage]":
    before = ""
    for place, message in enumerate(messages):
        if message.role == "assistant" and before != "user":
            raise ValueError(f"message {place} is an answer, but no user's message stands right before it")
        before = message.role
    return messages


class FileMessage(BaseModel):
    """One message."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["user", "assistant"]
    content: Annotated[str, Field(min_length=1)]


class FileConversation(BaseModel):
    """One conversation; without an `id` one is made."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)

    user_id: Annotated[str, StringConstraints(pattern=r"^[^\x00]{1,255}$")]
    id: Id | None = None
    title: Title | None = None
    system_prompt: Prompt | None = None
    model: ModelName | None = None
    messages: Annotated[
        list[Annotated[FileMessage, AfterValidator(_not_too_long)]],
        Field(max_length=MOST_MESSAGES),
        AfterValidator(_in_turn),
    ]

    def history(self, now: datetime) -> History:
        """As if it had just taken place, a second between two messages: the file has no times."""
        begun = now - timedelta(seconds=len(self.messages))
        lines = [
            Line(message.role, message.content, begun + timedelta(seconds=place))
            for place, message in enumerate(self.messages, start=1)
        ]
        return history(
            self.user_id,
            lines,
            id=self.id,
            title=self.title,
            system_prompt=self.system_prompt,
            model=self.model,
            created_at=begun,
            extract=extract,
        )


def read_file(path: Path, settings: Settings) -> Source:
    """The conversations of a file. Raises `ConfigurationError` that names all its faults, without what it says."""
    try:
        document = from_json(path.read_bytes())
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise ConfigurationError(f"{path} is not JSON: {exc}") from exc
    entries = document.get("conversations") if isinstance(document, dict) and len(document) == 1 else None
    if not isinstance(entries, list):
        raise ConfigurationError(f'{path} must be {{"conversations": [...]}} and nothing else')
    problems: list[str] = []
    conversations: list[FileConversation] = []
    places: dict[Name, int] = {}
    for place, entry in enumerate(entries):
        try:
            conversation = FileConversation.model_validate(entry, context=settings)
        except ValidationError as exc:
            problems += (
                f"{_place(place, error['loc'])}: {error['msg'].removeprefix('Value error, ')}"
                for error in exc.errors(include_url=False, include_input=False)
            )
            continue
        conversations.append(conversation)
        if conversation.id is not None:
            first = places.setdefault((conversation.user_id, conversation.id), place)
            if first != place:
                problems.append(f"conversations[{place}].id: this user has it in conversations[{first}] already")
    if problems:
        raise ConfigurationError(f"{path} is not acceptable, nothing was stored:\n  " + "\n  ".join(problems))
    now = datetime.now(UTC)
    return Source(len(conversations), lambda: places, lambda: (each.history(now) for each in conversations))


def _place(place: int, location: tuple[int | str, ...]) -> str:
    return f"conversations[{place}]" + "".join(f"[{x}]" if isinstance(x, int) else f".{x}" for x in location)


# Storing -------------------------------------------------------------------------------------------------------------


class Summary:
    """What became of it."""

    def __init__(self) -> None:
        self.conversations = self.messages = self.skipped = 0
        self.interrupted = False
        self.seconds = 0.0

    def __str__(self) -> str:
        rate = (self.conversations + self.messages) / max(self.seconds, 0.001)
        skipped = f", {self.skipped:,} were there already" if self.skipped else ""
        return (
            f"Stored {self.conversations:,} conversations with {self.messages:,} messages{skipped} "
            f"({self.seconds:.1f} s, {rate:,.0f} documents/s)."
        )

    def json(self, database: str) -> str:
        """One object on one line."""
        documents = self.conversations + self.messages
        return json.dumps(
            {
                "database": database,
                "conversations": self.conversations,
                "messages": self.messages,
                "skipped": self.skipped,
                "seconds": round(self.seconds, 3),
                "documentsPerSecond": round(documents / max(self.seconds, 0.001)),
                "interrupted": self.interrupted,
            }
        )


async def store(source: Source, seeding: Seeding, options: argparse.Namespace, summary: Summary) -> None:
    """Store batch after batch, until all is stored or Ctrl-C comes.

    Raises `AlreadyExists`, before anything is stored, and `StorageUnavailable`.
    """
    if not (options.drop or options.skip_existing):
        await _refuse_existing(source, seeding)
    with ExitStack() as stack:
        files = [stack.enter_context(_writable(path)) for path in (options.owners_file, options.ids_file)]
        if options.drop:
            await seeding.drop()
        bar = stack.enter_context(
            tqdm(total=source.total, unit=" conversations", file=sys.stderr, disable=None)  # None: only on a terminal
        )
        stopped = stack.enter_context(_ctrl_c())
        begun = time.monotonic()
        stack.callback(lambda: setattr(summary, "seconds", time.monotonic() - begun))
        for batch in _batches(source.histories()):
            there = await seeding.taken(each.name for each in batch) if options.skip_existing else set()
            if new := [each for each in batch if each.name not in there]:
                await seeding.store(new)
            summary.conversations += len(new)
            summary.messages += sum(len(each.messages) for each in new)
            summary.skipped += len(there)
            for column, file in enumerate(files):
                file.writelines(f"{each.name[column]}\n" for each in batch)
            bar.update(len(batch))
            if stopped.is_set():
                summary.interrupted = True
                return


async def _refuse_existing(source: Source, seeding: Seeding) -> None:
    names, count, first = iter(source.names()), 0, None
    while some := list(islice(names, BATCH_DOCUMENTS)):
        there = await seeding.taken(some)
        count += len(there)
        first = first or next((name for name in some if name in there), None)
    if first:
        raise AlreadyExists(
            f"{count:,} of these conversations are there already, the first is {first[1]} of {first[0]}. Nothing was "
            "stored. --skip-existing stores only the others, --drop deletes everything first."
        )


def _batches(histories: Iterable[History]) -> Iterator[list[History]]:
    """Full batches, and what is left; only a conversation that is larger than a batch makes a larger one."""
    batch: list[History] = []
    size = 0
    for each in histories:
        if batch and size + each.size > BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += each.size
    if batch:
        yield batch


@contextmanager
def _writable(path: Path | None) -> Iterator[TextIO]:
    """The file, made anew; where there is none to be, one that forgets."""
    try:
        file = (path or Path(os.devnull)).open("w", encoding="utf-8")
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be written: {exc.strerror}") from exc
    with file:
        yield file


@contextmanager
def _ctrl_c() -> Iterator[asyncio.Event]:
    """Set by the first Ctrl-C, so that the batch under way is finished; the second one ends at once."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        stopped.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        loop.remove_signal_handler(signal.SIGINT)


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[str]:
    if settings.mongodb_uri is not None:
        yield settings.mongodb_uri.get_secret_value()
        return
    async with embedded_database(settings.data_dir) as (uri, running):
        whose = "a running server's" if running else "started for now"
        print(f"MONGODB_URI is not set: the embedded database in {settings.data_dir}, {whose}.", file=sys.stderr)
        yield uri


async def seed(options: argparse.Namespace, settings: Settings, summary: Summary) -> None:
    """Do what the options say. Raises `ChatstreamError`, its text written for whoever runs this."""
    source = read_file(options.file, settings) if options.file else Chats(options).source()
    async with _database(settings) as uri:
        if options.drop and not (options.database or is_local(uri)):
            raise ConfigurationError(
                "--drop deletes all conversations, and this database is not on this machine: name it with --database"
            )
        mongo = Mongo(uri, settings.mongodb_database)
        try:
            await mongo.prepare()
            await store(source, Seeding(mongo), options, summary)
        finally:
            mongo.close()


def main() -> int:
    """Returns the exit status."""
    options, summary = _options(), Summary()
    # An option is a setting given on the command line: checked like one.
    for name, value in (("MONGODB_URI", options.uri), ("MONGODB_DATABASE", options.database)):
        if value is not None:
            os.environ[name] = value
    try:
        env_file = Path(".env")
        settings = Settings.load(os.environ, env_file if env_file.exists() else None)
        asyncio.run(seed(options, settings, summary))
    except KeyboardInterrupt:
        summary.interrupted = True
    except ChatstreamError as exc:
        print(exc, file=sys.stderr)
        if isinstance(exc, StorageUnavailable) and summary.conversations:
            print(f"{summary} --skip-existing goes on from there.", file=sys.stderr)
        return 1
    if summary.interrupted:
        print(f"Interrupted. {summary} --skip-existing goes on from there.", file=sys.stderr)
        return 130
    print(summary.json(settings.mongodb_database) if options.json else summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
