"""Whatever options a MongoDB URI has, the commands sent to the database have the settings that chatstream needs."""

from typing import Any

import pytest
from pymongo.monitoring import CommandStartedEvent

from chatstream.metrics import Metrics
from chatstream.store import uri as uris
from chatstream.store.conversations import Conversations
from chatstream.store.measuring import Commands
from chatstream.store.mongo import Mongo
from tests.support.storage import Storage, begun, ended

# Options that would change the results of reads or the meaning of a successful write, or make healthy operations fail.
OPTIONS = [
    *("readPreference=secondaryPreferred", "readPreference=secondary", "readpreference=nearest"),
    *("readPreference=nearest&readPreferenceTags=dc:nowhere", "readPreference=secondary&maxStalenessSeconds=90"),
    *("readConcernLevel=local", "readConcernLevel=available", "readConcernLevel=linearizable"),
    *("w=0", "w=1", "w=3", "W=2", "journal=false", "w=1&journal=false", "wTimeoutMS=1"),
    *("timeoutMS=1", "timeoutMS=0", "socketTimeoutMS=1", "waitQueueTimeoutMS=1", "serverSelectionTimeoutMS=1"),
    *("connectTimeoutMS=1", "retryWrites=false", "retryReads=false", "heartbeatFrequencyMS=3600000"),
    *("tz_aware=false", "datetime_conversion=datetime_ms", "unicode_decode_error_handler=ignore", "appname=other"),
    "w=1;readPreference=secondary",
]
# Options that are passed on unchanged.
HARMLESS = [
    "fsync=true",
    "compressors=zlib",
    "maxPoolSize=50",
    "minPoolSize=2",
    "maxIdleTimeMS=1000",
    "localThresholdMS=1",
]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[CommandStartedEvent]:
    """A listener that collects the sent commands."""
    sent: list[CommandStartedEvent] = []
    monkeypatch.setattr(Commands, "started", lambda _self, event: sent.append(event))
    return sent


async def use(uri: str) -> None:
    """Store a message and its answer, and read the history: every kind of operation."""
    mongo = Mongo(uri, "uris", Metrics())
    await mongo.prepare()
    conversation = await Conversations(mongo).create("user")
    store = Storage(mongo)
    answer = await begun(store, conversation)
    await store.attempts.finish(conversation, ended(answer, "Stored."))
    await store.attempts.mark_seen(conversation.key)
    read = await store.reading.page(conversation.key, limit=10, before=None)
    assert [message.content for message in read] == ["Tell me.", "Stored."]
    assert read[0].created_at.utcoffset() is not None
    assert (await store.reading.newest_seqs([conversation.key]))[conversation.key] == 2
    async with mongo.watch([], 1000) as changes:
        await Conversations(mongo).create("user")
        await changes.try_next()
    mongo.close()


def meaning(event: CommandStartedEvent) -> tuple[Any, ...]:
    """The options of a command that decide how it is carried out."""
    command = event.command
    concerns = (command.get(name) for name in ("readConcern", "writeConcern", "$readPreference"))
    modes = (dict(concern) if concern else {} for concern in concerns)
    # The cluster time of causal reads differs each time, so it is not compared.
    told = tuple(tuple((k, v) for k, v in sorted(mode.items()) if k != "afterClusterTime") for mode in modes)
    return event.command_name, told, "txnNumber" in command, "maxTimeMS" in command


def of_both(sent: list[CommandStartedEvent]) -> set[tuple[Any, ...]]:
    """The distinct commands: how often a change stream polls is random."""
    found = {meaning(event) for event in sent if event.command_name not in ("getMore", "killCursors", "endSessions")}
    sent.clear()
    return found


@pytest.mark.parametrize("options", [*OPTIONS, *HARMLESS])
@pytest.mark.gen_test(timeout=60)
async def test_it_changes_nothing_of_what_is_sent(
    mongodb_uri: str, options: str, sent: list[CommandStartedEvent]
) -> None:
    await use(mongodb_uri)
    plain = of_both(sent)
    assert len(plain) > 5
    await use(f"{mongodb_uri}&{options}")
    assert of_both(sent) == plain


@pytest.mark.parametrize("options", OPTIONS)
def test_it_is_said_that_it_does_not_count(options: str) -> None:
    uri = f"mongodb://user:hunter2@h/db?replicaSet=rs0&{options}"
    told = uris.doubts(uri)
    assert len(told) == len(options.replace(";", "&").split("&"))
    for line, option in zip(told, options.replace(";", "&").split("&"), strict=True):
        assert line.startswith(f"{option.partition('=')[0]} in it does not count: ")
    assert uris.undecided(uri) == "mongodb://user:hunter2@h/db?replicaSet=rs0"


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("mongodb://h", "mongodb://h"),
        ("mongodb://h/?w=1", "mongodb://h/?"),
        ("mongodb+srv://u:p%3F@h/db?retryWrites=true&w=majority&tls=true", "mongodb+srv://u:p%3F@h/db?tls=true"),
        ("mongodb://%2Ftmp%2Fm.sock/db?authSource=admin&w=1", "mongodb://%2Ftmp%2Fm.sock/db?authSource=admin"),
    ],
)
def test_the_rest_of_a_uri_stays_as_it_is(uri: str, kept: str) -> None:
    assert uris.undecided(uri) == kept


@pytest.mark.parametrize("options", ["retryWrites=true&w=majority", "readPreference=primary", *HARMLESS])
def test_nothing_is_said_of_what_is_as_it_must_be(options: str) -> None:
    assert uris.doubts(f"mongodb://h/?{options}") == []
    assert uris.problems(f"mongodb://h/?{options}") == []


def test_a_direct_connection_is_said_to_follow_no_new_primary() -> None:
    (told,) = uris.doubts("mongodb://h/?directConnection=true")
    assert "directConnection" in told


@pytest.mark.parametrize("pool", ["1", "2", "9"])
def test_too_small_a_pool_is_refused_by_its_name(pool: str) -> None:
    (told,) = uris.problems(f"mongodb://h/?maxPoolSize={pool}")
    assert told.startswith("maxPoolSize ")
