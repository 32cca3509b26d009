"""Every query of the store finds its documents by an index, and reads no more of them than it returns.

MongoDB's profiler records the operations of the store's methods: each entry has the plan, and the numbers of examined
keys and documents.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from msgspec.structs import replace
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.monitoring import CommandStartedEvent
from tornado.ioloop import IOLoop

from chatstream.errors import AnswerInProgress, ErrorCode
from chatstream.metrics import Metrics
from chatstream.models import NO_BUDGET, Answer, Conversation, Failure, Rating, Status, Usage, UserMessage
from chatstream.store.attempts import Checkpoint, Orphan
from chatstream.store.conversations import Conversations
from chatstream.store.ledger import Spending
from chatstream.store.measuring import Commands
from chatstream.store.mongo import Mongo
from chatstream.store.plugin_documents import PluginDocuments
from chatstream.store.posting import Posted
from tests.support.storage import Storage

pytestmark = pytest.mark.xdist_group("indexes")  # these tests share a history

DATABASE = "indexes"
# The number of other users' conversations, and of messages in other conversations: more than any operation here may
# examine.
OTHERS = 40
TURNS = 20  # in the queried conversation: 40 messages
PAGE = 5

SPENDING = Spending("owner", NO_BUDGET, lambda before: Usage(prompt_tokens=1, completion_tokens=1, total_tokens=2))
Profiled = Callable[[Awaitable[Any]], list[dict[str, Any]]]


class Store:
    """A database with a history. `conversation` is one of its owner's conversations; its newest answer runs."""

    def __init__(self, uri: str, metrics: Metrics | None = None) -> None:
        self.uri = uri
        self.mongo = Mongo(uri, DATABASE, metrics)
        self.conversations = Conversations(self.mongo)
        self.of = Storage(self.mongo)
        self.documents = PluginDocuments(self.mongo)
        self.conversation: Conversation
        self.question: UserMessage
        self.answer: Answer
        self.ended: Answer
        self.idle: Conversation
        self.waits: Conversation

    async def fill(self) -> None:
        """Fill the database, through the store's methods."""
        await self.mongo.prepare()
        for number in range(OTHERS):
            other = await self.conversations.create("owner" if number % 2 else f"user-{number}", title="Other")
            posted = await self.of.posting.post(other, "Tell me.")
            await self.of.attempts.finish(other, self.end(posted))
        self.conversation = await self.conversations.create("owner", id="asked")
        for number in range(TURNS):
            posted = await self.of.posting.post(self.conversation, "Tell me.", client_message_id=f"message-{number}")
            self.ended = self.end(posted)
            await self.of.attempts.finish(self.conversation, self.ended)
        posted = await self.of.posting.post(self.conversation, "And now?")
        assert posted.answer is not None
        self.question, self.answer = posted.message, posted.answer
        self.idle = await self.conversations.create("owner")
        for owner in ("other", "owner"):
            self.waits = await self.conversations.create(owner)
            posted = await self.of.posting.post(self.waits, "Tell me.")
            assert posted.answer is not None
            until = datetime.now(UTC) + timedelta(days=1 if owner == "owner" else -1)
            await self.of.attempts.park(self.waits, replace(posted.answer, waits_until=until))
        reserved = await self.conversations.create("owner")
        posted = await self.of.posting.post(reserved, "Tell me.", spending=SPENDING)
        await self.of.attempts.finish(reserved, self.end(posted))

    def take_over(self, other: "Store") -> None:
        """Use the history with which the other store has filled the database."""
        names = ("conversation", "question", "answer", "ended", "idle", "waits")
        vars(self).update({name: vars(other)[name] for name in names})

    def end(self, posted: Posted) -> Answer:
        """End an answer as complete and unseen."""
        assert posted.answer is not None
        return replace(posted.answer, status=Status.COMPLETE, content="Well.", unseen=True)

    @property
    def key(self) -> str:
        """The conversation's key."""
        return self.conversation.key


History = tuple[Store, dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def history(mongodb_uri: str) -> History:
    """The history, made once: its store, and the documents of each collection."""

    async def made() -> Store:
        store = Store(mongodb_uri)
        await store.fill()
        store.mongo.close()
        return store

    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        client.drop_database(DATABASE)
        store = asyncio.run(made())
        return store, {name: [*client[DATABASE][name].find()] for name in client[DATABASE].list_collection_names()}


@pytest.fixture
def database(mongodb_uri: str, history: History) -> Iterator[Database[dict[str, Any]]]:
    """A database with the original history, whatever the test before has changed."""
    _, documents = history
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        database = client[DATABASE]
        for name in {*database.list_collection_names(), *documents} - {"system.profile"}:
            database[name].delete_many({})
            if documents.get(name):
                database[name].insert_many(documents[name])
        yield database


@pytest.fixture
def store(io_loop: IOLoop, mongodb_uri: str, history: History, database: Database[dict[str, Any]]) -> Iterator[Store]:
    store = Store(mongodb_uri)
    store.take_over(history[0])
    io_loop.run_sync(store.mongo.prepare)  # another test may have changed its indexes, too
    yield store
    store.mongo.close()


async def _all(messages: Any) -> None:
    async for _ in messages:
        pass


async def _begun(store: Store) -> None:
    with suppress(AnswerInProgress):  # so it reads the newest position, too
        await store.of.attempts.begin(store.key, store.ended.reply_to, previous=store.ended, newest_seq=2)


async def _orphan_ended(store: Store) -> None:
    running = await store.of.reading.get(store.key, store.answer.id)
    assert isinstance(running, Answer)
    failure = Failure(code=ErrorCode.ANSWER_INTERRUPTED, request_id=None)
    ended = replace(running, status=Status.INTERRUPTED, failure=failure)
    with MongoClient[dict[str, Any]](store.uri, tz_aware=True) as client:  # the state that the sweeper has read
        document = client[DATABASE]["messages"].find_one({"_id": ObjectId(running.id)})
    assert document is not None
    orphan = Orphan(store.key, running.id, document["beatAt"], document["length"])
    assert await store.of.attempts.finish_orphan(orphan, ended)


async def _withdrawn(store: Store) -> None:
    await store.of.posting.add(store.conversation, "Wait.", behind_running=True)
    queued = await store.of.posting.add(store.conversation, "And wait.", behind_running=True)
    assert queued is not None
    await store.of.posting.withdraw(store.conversation, queued.message.id)


# The server's actions, as calls of the store's methods, with the number of documents that each operation may examine.
OPERATIONS: dict[str, tuple[Callable[[Store], Awaitable[Any]], int]] = {
    "find the caller's conversation": (lambda s: s.conversations.get("owner", "asked"), 1),
    "open a stream: the newest message": (lambda s: s.of.reading.newest(s.key), 1),
    "open a stream: the running answer": (lambda s: s.of.reading.running(s.key), 1),
    # Searched from the end of the log: the attempts at the question come after it.
    "open a stream: the newest question": (lambda s: s.of.reading.newest_question(s.key), 2),
    "resume a stream: the cursor's message": (lambda s: s.of.reading.get(s.key, s.answer.id), 1),
    "resume a stream: what came after it": (
        lambda s: s.of.reading.behind(s.key, after=10, messages=100, characters=10_000),
        2 * TURNS - 8,
    ),
    "a gap in a stream: what was missed": (lambda s: s.of.reading.after(s.key, 10, limit=PAGE), PAGE),
    "ask the model: the history": (lambda s: _all(s.of.reading.newest_that_count(s.key, before=6)), 5),
    "list the conversations": (lambda s: s.conversations.page("owner", limit=PAGE, before=None), PAGE + 1),
    "list the messages, from the end": (lambda s: _all(s.of.reading.newest_first(s.key, before=6)), 5),
    "list the messages": (lambda s: s.of.reading.page(s.key, limit=PAGE, before=None), PAGE),
    "list older messages": (lambda s: s.of.reading.page(s.key, limit=PAGE, before=20), PAGE),
    "repeat a message": (lambda s: s.of.posting.posted_before(s.key, "Tell me.", "message-3"), 1),
    "begin an answer with a budget": (lambda s: s.of.posting.post(s.idle, "Tell me.", spending=SPENDING), 1),
    "say what is left of it": (lambda s: s.of.ledger.balances("owner", NO_BUDGET, datetime.now(UTC)), 1),
    "look up what was reserved": (lambda s: s.of.ledger.settle("owner"), 1),
    "look for what is to be sent": (lambda s: s.of.outbox.due(), 1),
    "report a month": (lambda s: _all(s.of.ledger.rows(f"{datetime.now(UTC):%Y-%m}")), 1),
    "wait behind the running answer": (lambda s: s.of.posting.add(s.conversation, "Wait.", behind_running=True), 1),
    "take back what waits there": (_withdrawn, 2 * TURNS + 4),  # reads the whole tree, without texts
    "read the tree": (lambda s: s.of.reading.tree(s.key), 2 * TURNS + 2),
    "list the attempts": (lambda s: s.of.reading.attempts(s.key, [s.question.id, s.ended.reply_to]), 2),
    "rate an answer": (lambda s: s.of.attempts.rate(s.key, s.ended.id, Rating.UP), 1),
    "store the model's title": (lambda s: s.conversations.entitle(s.conversation, "Bets"), 1),
    "mark what runs": (lambda s: s.of.reading.running_in([s.key, s.waits.key]), 1),
    "mark what is unread": (lambda s: s.of.reading.unread_in([s.key]), TURNS),
    "checkpoint": (lambda s: s.of.attempts.checkpoint([Checkpoint(s.key, s.answer.id, 0, ["Well"])]), 1),
    "watch an answer of another process": (lambda s: s.of.attempts.poll(s.key, s.answer), 1),
    "ask for a stop": (lambda s: s.of.attempts.request_stop(s.key, s.answer.id), 1),
    "end an answer": (lambda s: s.of.attempts.finish(s.conversation, replace(s.answer, status=Status.COMPLETE)), 1),
    "count the interruptions": (lambda s: s.of.attempts.interruptions(s.key, s.question.id), 1),
    "keep a document of a plug-in's": (lambda s: s.documents.put("bets", "owner", str(ObjectId()), "kept"), 2),
    "read a document of a plug-in's": (lambda s: s.documents.get("bets", "owner", "asked"), 1),
    "list a plug-in's documents": (lambda s: s.documents.newest("bets", "owner", PAGE), PAGE),
    "export the plug-ins' documents": (lambda s: _all(s.documents.all_of("owner")), 9),
    "sweep: all answers that run": (lambda s: s.of.attempts.orphans(), 1),
    "sweep: ended answers with queued messages": (lambda s: s.of.attempts.ended_before_queued(9), 1),
    "sweep: no queued message is left": (lambda s: s.of.attempts.queue_is_over(s.key, s.ended.id), 1),
    "find a message's conversation": (lambda s: s.of.reading.conversation(s.key), 1),
    "after a gap: the newest places": (lambda s: s.of.reading.newest_seqs([s.key]), 1),
    "after a gap: what they show": (lambda s: s.of.reading.shown([s.key]), 1),
    "after a gap: what was taken back": (
        lambda s: s.of.reading.withdrawn_after({s.key: 2 * TURNS - 1, s.waits.key: 1}),
        4,
    ),
    "begin another attempt": (lambda s: _begun(s), 2),
    "let the running answer finish": (lambda s: s.of.attempts.let_finish(s.conversation), 1),
    "let the waiting answer finish": (lambda s: s.of.attempts.let_finish(s.waits), 1),
    "list what waits": (lambda s: s.of.reading.waiting_for("owner"), 1),
    "mark what waits": (lambda s: s.of.reading.waiting_in("owner", [s.key, s.waits.key]), 1),
    "look for what waits for too long": (lambda s: s.of.attempts.overdue(datetime.now(UTC), 9), 1),
    "end an orphan": (lambda s: _orphan_ended(s), 2),
    "mark as seen": (lambda s: s.of.attempts.mark_seen(s.key), TURNS),
    "change a conversation": (lambda s: s.conversations.update("owner", "asked", {"title": "Bets"}), 1),
    "delete a conversation": (lambda s: s.conversations.delete("owner", "asked"), 2 * TURNS + 2),
}


@pytest.mark.parametrize("what", OPERATIONS)
def test_it_uses_an_index_and_examines_what_it_returns(
    io_loop: IOLoop, store: Store, database: Database[dict[str, Any]], what: str
) -> None:
    operation, documents = OPERATIONS[what]
    entries = profiled(io_loop, database, lambda: operation(store))
    plans = [entry for entry in entries if "planSummary" in entry]  # an insertion has no plan
    assert plans
    for entry in plans:
        assert "COLLSCAN" not in entry["planSummary"], entry
        assert not entry.get("hasSortStage"), "sorted in memory: all that match were read"
        assert entry["docsExamined"] <= documents, entry
        # One more key shows that there are no more documents.
        assert entry["keysExamined"] <= documents + 1, entry


def test_a_checkpoint_of_many_answers_is_read_back_in_one_go(
    io_loop: IOLoop, store: Store, database: Database[dict[str, Any]]
) -> None:
    running = [
        {"_id": ObjectId(), "conversationId": ObjectId(), "seq": 1, "status": "streaming", "length": 0, "pieces": []}
        for _ in range(150)  # of a longer result the database returns 101 by default
    ]
    database["messages"].insert_many(running)
    checkpoints = [Checkpoint(str(answer["conversationId"]), str(answer["_id"]), 0, ["Well"]) for answer in running]
    entries = profiled(io_loop, database, lambda: store.of.attempts.checkpoint(checkpoints))
    assert Counter(entry["op"] for entry in entries) == {"update": 150, "query": 1}


def test_the_next_page_of_conversations_costs_what_the_first_does(
    io_loop: IOLoop, store: Store, database: Database[dict[str, Any]]
) -> None:
    _, cursor = io_loop.run_sync(lambda: store.conversations.page("owner", limit=PAGE, before=None))
    (entry,) = profiled(io_loop, database, lambda: store.conversations.page("owner", limit=PAGE, before=cursor))
    assert "COLLSCAN" not in entry["planSummary"]
    assert entry["docsExamined"] <= PAGE + 2, entry  # and the last conversation of the page before


def test_without_its_index_a_query_would_fail_here(
    io_loop: IOLoop, store: Store, database: Database[dict[str, Any]]
) -> None:
    database["messages"].drop_index("streaming")
    (entry,) = profiled(io_loop, database, store.of.attempts.orphans)
    assert entry["planSummary"] == "COLLSCAN"
    assert entry["docsExamined"] > OTHERS


def profiled(
    io_loop: IOLoop, database: Database[dict[str, Any]], operation: Callable[[], Awaitable[Any]]
) -> list[dict[str, Any]]:
    """The profiler's entries for `operation`."""
    database.command("profile", 0)
    database.drop_collection("system.profile")
    database.command("profile", 2)
    try:
        io_loop.run_sync(operation)
    finally:
        database.command("profile", 0)
    return list(database["system.profile"].find({"appName": "chatstream"}))


# Sharding -------------------------------------------------------------------------------------------------------------

# Operations that query every shard. A read of a message knows the conversation's key, but not the user; so do the
# sweeper and a process that missed changes. The running answers, and a user's waiting ones, are on all shards. Each
# process receives the changes of all conversations. A user's accounts of all months are found by the user: the ledger
# need not be sharded.
MAY_SCATTER = {
    "sweep: all answers that run",
    "sweep: ended answers with queued messages",
    "find a message's conversation",
    "end an orphan",
    "after a gap: what they show",
    "look for what is to be sent",
    "list what waits",
    "look for what waits for too long",
    "report a month",
    "look up what was reserved",
}
# Commands that continue a transaction or a cursor: it was named in an earlier command.
NAMED_BEFORE = ("getMore", "commitTransaction", "abortTransaction", "killCursors", "endSessions")


@pytest.mark.parametrize("what", OPERATIONS)
def test_it_names_its_conversation_or_its_user(
    io_loop: IOLoop, store: Store, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[CommandStartedEvent] = []
    monkeypatch.setattr(Commands, "started", lambda _self, event: sent.append(event))
    listened = Store(store.uri, Metrics())
    listened.take_over(store)
    io_loop.run_sync(lambda: OPERATIONS[what][0](listened))
    listened.mongo.close()
    commands = [dict(event.command) | {"what": event.command_name} for event in sent]
    scattered = [command for command in commands if command["what"] not in NAMED_BEFORE and not named(command)]
    assert commands
    assert bool(scattered) == (what in MAY_SCATTER), scattered


def named(command: dict[str, Any]) -> bool:
    """Whether the command names the shard key of all documents that it needs."""
    collection = command[command["what"]]
    keys = {"messages": "conversationId", "conversations": "userId", "search": "userId", "pluginDocuments": "userId"}
    key = keys | {"ledger": "_id", "ledgerKeys": "_id"}
    parts = [
        *command.get("documents", ()),
        *(update["q"] for update in command.get("updates", ())),
        *(deletion["q"] for deletion in command.get("deletes", ())),
        *(command[name] for name in ("filter", "query") if name in command),
        *(stage["$match"] for stage in command.get("pipeline", ())[:1]),
    ]
    found = [one.get(key[collection]) for part in parts for one in part.get("$or", [part])]
    return bool(found) and not any(one is None or (isinstance(one, dict) and one.keys() == {"$type"}) for one in found)


def test_each_unique_index_begins_with_the_shard_key(store: Store, database: Database[dict[str, Any]]) -> None:
    for name, key in (("messages", "conversationId"), ("conversations", "userId"), ("pluginDocuments", "userId")):
        unique = [index for index in database[name].index_information().values() if index.get("unique")]
        assert unique
        assert all(index["key"][0][0] == key for index in unique)


def test_an_index_of_the_version_before_is_replaced(
    io_loop: IOLoop, store: Store, database: Database[dict[str, Any]]
) -> None:
    database["messages"].drop_index("attempts_in_conversation")
    former: dict[str, Any] = {"unique": True, "partialFilterExpression": {"replyTo": {"$exists": True}}}
    database["messages"].create_index([("replyTo", 1), ("attempt", 1)], name="attempts", **former)
    io_loop.run_sync(store.mongo.prepare)
    assert "attempts" not in database["messages"].index_information()
    assert database["messages"].index_information()["attempts_in_conversation"]["unique"]
    # A process of the earlier version starts beside it, and then another one of this version.
    database["messages"].create_index([("replyTo", 1), ("attempt", 1)], name="attempts", **former)
    io_loop.run_sync(lambda: store.of.reading.newest_attempt(store.key, store.question.id))
    io_loop.run_sync(store.mongo.prepare)
    assert "attempts" not in database["messages"].index_information()


def test_the_keys_of_conversations_do_not_grow_with_time(io_loop: IOLoop, store: Store) -> None:
    made = [io_loop.run_sync(lambda: store.conversations.create("owner")).key for _ in range(20)]
    assert made != sorted(made)
    assert all(ObjectId.is_valid(key) for key in made)
