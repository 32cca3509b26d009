"""The seeding script, run as a program: the stored data is read back through a real server."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from chatstream.errors import AlreadyExists
from chatstream.llm.demo_answers import GENERAL
from chatstream.store.mongo import Mongo
from chatstream.store.seeding import Line, Seeding, history, is_local
from tests.conftest import MakeClient
from tests.support.client import API, Client
from tests.support.processes import REPOSITORY, SECRET, ServerProcess, chatstream, measured
from tests.support.upstream import Upstream, answer

COMMAND = (sys.executable, "-m", "chatstream", "seed")
Documents = Database[dict[str, Any]]


class Seeder:
    """Runs the script with only the given environment."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.directory = directory
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            **measured(),
            **environment,
        }

    def run(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return chatstream(self.directory, "seed", *options, **self.environment | environment)

    def __call__(self, *options: str, **environment: str) -> dict[str, Any]:
        """Run the script, which must succeed; returns its summary."""
        done = self.run(*options, "--json", **environment)
        assert done.returncode == 0, done.stderr
        summary: dict[str, Any] = json.loads(done.stdout)
        return summary

    def refused(self, *options: str, status: int = 1, **environment: str) -> str:
        """Run the script, which must fail; returns its message."""
        done = self.run(*options, **environment)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
        return done.stderr


@pytest.fixture
def database(mongodb_uri: str) -> Iterator[Documents]:
    """A separate database for the test."""
    with MongoClient[dict[str, Any]](mongodb_uri, tz_aware=True) as client:
        name = f"seed-{uuid.uuid4().hex}"
        yield client[name]
        client.drop_database(name)


@pytest.fixture
def seed(tmp_path: Path, mongodb_uri: str, database: Documents) -> Seeder:
    """Seeds that database."""
    return Seeder(tmp_path, MONGODB_URI=mongodb_uri, MONGODB_DATABASE=database.name)


@pytest.fixture
def seed_shared(tmp_path: Path, mongodb_uri: str) -> Seeder:
    """Seeds the database of the shared server."""
    return Seeder(tmp_path, MONGODB_URI=mongodb_uri, MONGODB_DATABASE="shared")


def chats(database: Documents) -> list[tuple[str, str, str, list[str]]]:
    """All data of the database that depends on the seed."""
    return [
        (
            one["userId"],
            one["id"],
            one["title"],
            [message["content"] for message in database.messages.find({"conversationId": one["_id"]}).sort("seq")],
        )
        for one in database.conversations.find().sort("id")
    ]


def write(path: Path, *conversations: object) -> str:
    """Write a file of conversations; returns its name."""
    path.write_text(json.dumps({"conversations": conversations}))
    return str(path)


# Through the server --------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_the_server_lists_and_pages_what_was_seeded_and_goes_on_from_it(
    client: Client, seed_shared: Seeder, upstream: Upstream
) -> None:
    summary = seed_shared("--user", client.user, "--conversations", "5", "--messages", "8")
    assert (summary["conversations"], summary["messages"]) == (5, 40)

    listed: list[dict[str, Any]] = []
    page: dict[str, Any] = {"nextCursor": ""}
    while page["nextCursor"] is not None:
        before = {"before": page["nextCursor"]} if page["nextCursor"] else {}
        page = (await client.http.get(API, params={"limit": "2", **before})).json()
        listed += page["conversations"]
    assert sorted(one["id"] for one in listed) == [f"c{number:06d}" for number in range(5)]
    assert [one["updatedAt"] for one in listed] == sorted((one["updatedAt"] for one in listed), reverse=True)
    assert all(" v " in one["title"] and one["createdAt"] < one["updatedAt"] for one in listed)

    found = []
    for one in listed:
        messages = await client.messages(one["id"])
        assert [message["role"] for message in messages] == ["user", "assistant"] * 4
        times = [one["createdAt"], *(message["createdAt"] for message in messages)]
        assert times == sorted(set(times))
        assert times[-1] == one["updatedAt"]
        for question, reply in zip(messages[::2], messages[1::2], strict=True):
            assert (reply["replyTo"], reply["attempt"], reply["status"]) == (question["id"], 1, "complete")
            assert (reply["finishReason"], reply["usage"], reply["error"]) == ("stop", None, None)
            found += [(reply, bet) for bet in reply["recommendations"]]
    assert found
    for reply, bet in found:
        assert bet["betId"].startswith(f"bet-{reply['id']}-")
        assert bet["oddsText"] in reply["content"]

    upstream.reply(answer("Nobody."))
    conversation = listed[0]["id"]
    history = await client.messages(conversation)
    latest = (await client.http.get(f"{API}/{conversation}/messages", params={"limit": "3"})).json()
    older = (await client.http.get(f"{API}/{conversation}/messages", params={"before": latest["nextCursor"]})).json()
    assert older["messages"] + latest["messages"] == history
    async with client.stream(conversation, params={"last_event_id": latest["streamCursor"]}) as watched:
        assert (await watched.next()).data["resumed"] is True
        await client.post(conversation, "Who wins?")
        assert (await watched.until("llm_complete")).data["content"] == "Nobody."
        assert watched.types == ["connected", "user_message", "llm_chunk", "llm_complete"]
    turns = [(turn["role"], turn["content"]) for turn in upstream.calls[0].body["messages"][1:]]
    assert turns == [*((message["role"], message["content"]) for message in history), ("user", "Who wins?")]


@pytest.mark.gen_test
async def test_who_opens_an_unanswered_conversation_starts_its_answer(
    client: Client, seed_shared: Seeder, upstream: Upstream
) -> None:
    seed_shared("--user", client.user, "--conversations", "1", "--messages", "3", "--unanswered")
    before = await client.messages("c000000")
    assert [message["role"] for message in before] == ["user", "assistant", "user"]
    upstream.reply(answer("Back ", "**Leeds to win** at odds of 2.10."))
    async with client.stream("c000000") as watched:
        complete = await watched.until("llm_complete")
        assert complete.data["replyTo"] == before[-1]["id"]
        assert complete.data["content"] == watched.text == "Back **Leeds to win** at odds of 2.10."
        assert (await watched.next()).data["metadata"]["odds"] == 2.1
    after = await client.messages("c000000")
    assert after[:-1] == before
    assert (after[-1]["attempt"], after[-1]["status"]) == (1, "complete")
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_the_documents_are_those_that_the_server_stores(
    client: Client, seed_shared: Seeder, upstream: Upstream, mongodb_uri: str
) -> None:
    def shapes(conversation: str) -> list[dict[str, Any]]:
        with MongoClient[dict[str, Any]](mongodb_uri) as mongo:
            one = mongo.shared.conversations.find_one({"userId": client.user, "id": conversation})
            assert one is not None
            messages = list(mongo.shared.messages.find({"conversationId": one["_id"]}).sort("seq"))
        assert [message["seq"] for message in messages] == list(range(1, len(messages) + 1))
        assert messages[1]["replyTo"] == messages[0]["_id"]
        assert messages[1]["length"] == len(messages[1]["content"])
        for document in (one, *messages):
            document.pop("writtenBy", None)  # by this, server processes recognise their own changes
        documents = [one, *messages, *messages[1]["recommendations"]]
        return [{name: type(value) for name, value in document.items()} for document in documents]

    text = "Back **Leeds to win** at odds of 2.10, with a stake of €5."
    upstream.reply(answer(text).replace(b'"usage"', b'"other"'))  # the model does not count its tokens
    own = await client.create(id="own", title="Derby", systemPrompt="Be brief.", model="m", initialMessage="Who wins?")
    await client.answer(own)
    lines = [{"role": "user", "content": "Who wins?"}, {"role": "assistant", "content": text}]
    given = {"userId": client.user, "id": "given", "title": "Derby", "systemPrompt": "Be brief.", "model": "m"}
    seed_shared("--file", write(seed_shared.directory / "chats.json", given | {"messages": lines}))
    own_shapes, given_shapes = shapes("own"), shapes("given")
    assert len(own_shapes) == 4
    # Seeded answers have no model and no token counts.
    assert {name: own_shapes[2].pop(name) for name in ("model", "usage")} == {"model": str, "usage": dict}
    assert given_shapes[2].pop("usage", type(None)) is type(None)
    assert given_shapes == own_shapes


@pytest.mark.gen_test
async def test_an_answer_of_a_file_may_have_been_thought_about(client: Client, seed_shared: Seeder) -> None:
    said = {"role": "assistant", "content": "Leeds.", "reasoning": "Form first."}
    chat = {"userId": client.user, "id": "thought", "messages": [{"role": "user", "content": "Who wins?"}, said]}
    seed_shared("--file", write(seed_shared.directory / "chats.json", chat))
    stored = (await client.messages("thought"))[-1]
    assert stored["content"] == "Leeds."
    assert stored["parts"] == [{"type": "reasoning", "text": "Form first."}, {"type": "text", "text": "Leeds."}]
    wrong = chat | {"id": "wrong", "messages": [{"role": "user", "content": "Who?", "reasoning": "Hm."}]}
    assert "reasoning is for answers" in seed_shared.refused(
        "--file", write(seed_shared.directory / "chats.json", wrong)
    )


@pytest.mark.gen_test
async def test_without_plug_ins_nothing_is_made_up_about_bets(client: Client, seed_shared: Seeder) -> None:
    summary = seed_shared("--user", client.user, "--conversations", "3", "--messages", "12", CHATSTREAM_PLUGINS="")
    assert summary["messages"] == 36
    for number in range(3):
        conversation = (await client.http.get(f"{API}/c{number:06d}")).json()
        messages = await client.messages(conversation["id"])
        said = " ".join([conversation["title"], *(message["content"] for message in messages)])
        assert not re.search(r"\b(?:bets?|odds|stakes?|match)\b", said, re.IGNORECASE)
        assert not any(message.get("recommendations") for message in messages)
    tip: dict[str, Any] = {"role": "assistant", "content": "I recommend **Leeds to win** at odds of 5/2."}
    chat = {"userId": client.user, "id": "tip", "messages": [{"role": "user", "content": "Who wins?"}, tip]}
    seed_shared("--file", write(seed_shared.directory / "tip.json", chat), CHATSTREAM_PLUGINS="none")
    assert (await client.messages("tip"))[1]["recommendations"] == []


@pytest.mark.gen_test
async def test_a_file_is_stored_as_it_says(client: Client, seed_shared: Seeder, upstream: Upstream) -> None:
    chat: dict[str, Any] = {
        "userId": client.user,
        "id": "derby",
        "title": "Dérby 🤔",
        "systemPrompt": "You are a bookmaker.",
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "user", "content": "Who wins?"},
            {"role": "assistant", "content": "I recommend **Leeds to win** at odds of 5/2."},
            {"role": "user", "content": "Sure?"},
            {"role": "user", "content": "Hello?"},
        ],
    }
    empty = {"userId": client.user, "messages": []}
    ids = seed_shared.directory / "ids"
    seed_shared("--file", write(seed_shared.directory / "chats.json", chat, empty), "--ids-file", str(ids))
    derby, made = ids.read_text().split()
    assert derby == "derby"
    conversation = (await client.http.get(f"{API}/derby")).json()
    assert {name: conversation[name] for name in ("title", "systemPrompt", "model")} == {
        name: chat[name] for name in ("title", "systemPrompt", "model")
    }
    assert await client.messages(made) == []
    messages = await client.messages("derby")
    assert [(message["role"], message["content"]) for message in messages] == [
        (line["role"], line["content"]) for line in chat["messages"]
    ]
    assert messages[1]["recommendations"][0]["odds"] == 3.5
    upstream.reply(answer("Yes."))
    async with client.stream("derby") as watched:
        assert (await watched.until("llm_complete")).data["replyTo"] == messages[-1]["id"]
    assert upstream.calls[0].body["model"] == "gpt-4o-mini"


# What is made ---------------------------------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_chats(seed: Seeder, database: Documents) -> None:
    options = ("--users", "3", "--conversations", "2", "--messages", "4", "--id-prefix", "x-")
    seed(*options, "--seed", "7")
    first = chats(database)
    assert [(user, id_) for user, id_, *_ in first] == [(f"user-{n % 3}", f"x-{n:06d}") for n in range(6)]
    seed(*options, "--seed", "7", "--drop")
    assert chats(database) == first
    seed(*options, "--seed", "8", "--drop")
    other = chats(database)
    assert [one[:2] for one in other] == [one[:2] for one in first]
    assert not {title for *_, title, _ in other} & {title for *_, title, _ in first}


def test_a_conversation_larger_than_a_batch_is_stored(seed: Seeder, database: Documents) -> None:
    summary = seed("--users", "1", "--conversations", "2", "--messages", "1500")
    assert (summary["conversations"], summary["messages"]) == (2, 3000)
    assert database.messages.count_documents({}) == 3000


def test_as_a_benchmarks_hook_it_begins_anew_each_time(seed: Seeder, mongodb_uri: str, database: Documents) -> None:
    ids, owners = seed.directory / "ids", seed.directory / "owners"
    environment = {
        "MONGODB_URI": "",
        "MONGODB_DATABASE": "",
        "MONGO_URL": mongodb_uri.partition("?")[0],
        "MONGO_DB": database.name,
        "IDS_FILE": str(ids),
        "OWNERS_FILE": str(owners),
    }
    for count in (60, 10):
        done = seed.run("--hook", COUNT=str(count), **environment)
        assert done.returncode == 0, done.stderr
        assert owners.read_text().split() == [f"user-{number % (count // 5)}" for number in range(count)]
        stored = database.conversations.find().sort("id")
        assert [(one["id"], one["userId"]) for one in stored] == list(
            zip(ids.read_text().split(), owners.read_text().split(), strict=True)
        )
        assert [message["role"] for message in database.messages.find()] == ["user"] * count
        assert {index["name"] for index in database.messages.list_indexes()} > {"running", "log"}


# What is there already ------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_touched(seed: Seeder, database: Documents) -> None:
    ids = seed.directory / "ids"
    seed("--users", "2", "--conversations", "2", "--ids-file", str(ids))
    before, listed = chats(database), ids.read_text()
    said = seed.refused("--users", "2", "--conversations", "3", "--seed", "1", "--ids-file", str(ids))
    assert "4 of these conversations are there already, the first is c000000 of user-0" in said
    assert "--skip-existing" in said
    assert "--drop" in said
    assert (chats(database), ids.read_text()) == (before, listed)

    summary = seed("--users", "2", "--conversations", "3", "--seed", "1", "--skip-existing", "--ids-file", str(ids))
    assert (summary["conversations"], summary["messages"], summary["skipped"]) == (2, 12, 4)
    assert chats(database)[:4] == before
    assert ids.read_text().split() == [f"c{number:06d}" for number in range(6)]


@pytest.mark.gen_test
async def test_what_somebody_else_stores_meanwhile_wins_and_what_is_repeated_is_there_once(
    mongodb_uri: str, database: Documents
) -> None:
    mongo = Mongo(mongodb_uri, database.name)
    try:
        await mongo.prepare()
        seeding = Seeding(mongo)
        now = datetime.now(UTC)
        theirs, ours, other = (
            history("ada", [Line("user", text, now)], id=id_, created_at=now, found=GENERAL.found)
            for id_, text in (("c1", "theirs"), ("c1", "ours"), ("c2", "other"))
        )
        await seeding.store([theirs])
        with pytest.raises(AlreadyExists):
            await seeding.store([other, ours])
        await seeding.store([theirs])  # as if the result of an earlier try was lost
    finally:
        mongo.close()
    assert [(id_, texts) for _, id_, _, texts in chats(database)] == [("c1", ["theirs"])]
    assert database.messages.count_documents({}) == 1


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        ("mongodb://localhost", True),
        ("mongodb://ada:pass@127.0.0.1:27017,[::1]:27018/?replicaSet=rs0", True),
        ("mongodb://%2Ftmp%2Fmongodb-27017.sock", True),
        ("mongodb://localhost,10.0.0.1", False),
        ("mongodb://localhost.example.net", False),
        ("mongodb+srv://localhost.example.net", False),
        ("mongodb://", False),
    ],
)
def test_which_databases_are_of_this_machine(uri: str, local: bool) -> None:
    assert is_local(uri) is local


def test_the_same_id_of_another_user_is_another_conversation(seed: Seeder, database: Documents) -> None:
    seed("--user", "ada", "--conversations", "2")
    seed("--user", "bob", "--conversations", "2")
    assert database.conversations.count_documents({}) == 4


@pytest.mark.parametrize("uri", ["mongodb://db.example.net,localhost/", "mongodb+srv://ada:pass@example.net/"])
def test_drop_wants_the_name_of_a_database_elsewhere(seed: Seeder, uri: str) -> None:
    said = seed.refused("--drop", MONGODB_URI=uri)
    assert "name it with --database" in said
    assert "example.net" not in said


def test_interrupted_it_leaves_whole_conversations_and_can_go_on(seed: Seeder, database: Documents) -> None:
    options = ("--users", "20", "--conversations", "1000")
    database.create_collection("conversations")
    with (
        database.conversations.watch() as changes,
        subprocess.Popen(
            [*COMMAND, *options],
            cwd=seed.directory,
            env=seed.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        next(changes)  # the first one is stored
        process.send_signal(signal.SIGINT)
        output, said = process.communicate()
    assert (process.returncode, output) == (130, "")
    stored = database.conversations.count_documents({})
    assert 0 < stored < 20_000
    assert re.fullmatch(
        rf"Interrupted\. Stored {stored:,} conversations .* --skip-existing goes on from there\.\n", said
    )
    assert database.messages.count_documents({}) == 6 * stored
    summary = seed("--users", "20", "--conversations", "50", "--skip-existing")
    assert summary["skipped"] == min(stored, 1000)
    assert summary["conversations"] == 1000 - summary["skipped"]


# What is refused ------------------------------------------------------------------------------------------------------


def test_every_fault_of_a_file_is_named_and_nothing_is_stored(seed: Seeder, database: Documents) -> None:
    question = {"role": "user", "content": "A secret question"}
    reply = {"role": "assistant", "content": "A secret answer"}
    good = {"userId": "ada", "id": "c1", "messages": [question, reply]}
    said = seed.refused(
        "--file",
        write(
            seed.directory / "chats.json",
            good,
            good,
            {"id": "no spaces", "messages": [question | {"content": ""}, {"role": "system", "content": "secret"}]},
            {"userId": "ada", "messages": [reply]},
            {"userId": "ada", "messages": [question, reply, reply]},
            {"userId": "ada", "messages": [question | {"content": "secret" * 10_000}], "status": "secret"},
            "secret",
        ),
    )
    assert "secret" not in said
    assert [line.partition(": ")[0].strip() for line in said.splitlines()[1:]] == [
        "conversations[1].id",
        "conversations[2].userId",
        "conversations[2].id",
        "conversations[2].messages[0].content",
        "conversations[2].messages[1].role",
        "conversations[3].messages",
        "conversations[4].messages",
        "conversations[5].messages[0]",
        "conversations[5].status",
        "conversations[6]",
    ]
    assert "this user has it in conversations[0] already" in said
    assert "message 2 is an answer" in said
    assert database.conversations.find_one() is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"conversations": {}}', '{"conversations": [], "more": 1}', '"\\ud800"']
)
def test_a_file_that_is_none_of_ours_is_refused(seed: Seeder, text: str) -> None:
    file = seed.directory / "chats.json"
    file.write_text(text)
    assert "chats.json" in seed.refused("--file", str(file))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--messages", "5"], "must be even"),
        (["--unanswered", "--messages", "4"], "must be odd"),
        (["--messages", "10002"], "from 0 to 10000"),
        (["--users", "0"], "from 1"),
        (["--users", "2", "--user", "ada"], "not allowed with"),
        (["--users", "100000", "--conversations", "100000"], "the most"),
        (["--id-prefix", "a b"], "at most 50 of"),
        (["--file", "x", "--seed", "0", "--unanswered"], "leave out --unanswered, --seed"),
        (["--drop", "--skip-existing"], "not allowed with"),
        (["--hook"], "MONGO_URL, MONGO_DB, COUNT"),
    ],
)
def test_wrong_options(seed: Seeder, options: list[str], reason: str) -> None:
    assert reason in seed.refused(*options, status=2)


def test_a_count_that_is_none(seed: Seeder) -> None:
    environment = {"MONGO_URL": "mongodb://127.0.0.1:1", "MONGO_DB": "bench", "COUNT": "many"}
    assert "COUNT must be a number" in seed.refused("--hook", status=2, **environment)


def test_a_database_that_is_not_there(seed: Seeder) -> None:
    said = seed.refused("--uri", "mongodb://ada:secret@127.0.0.1:1/")
    assert "The database is not available" in said
    assert "secret" not in said


def test_a_list_that_cannot_be_written_leaves_all_as_it_is(seed: Seeder, database: Documents) -> None:
    seed("--users", "1")
    before = chats(database)
    assert "cannot be written" in seed.refused("--drop", "--seed", "1", "--ids-file", "/nowhere/ids")
    assert chats(database) == before


# Around it ------------------------------------------------------------------------------------------------------------


def test_only_a_terminal_sees_a_progress_bar(seed: Seeder) -> None:
    done = seed.run("--users", "1")
    assert re.fullmatch(r"Stored 5 conversations with 30 messages \(.* documents/s\)\.\n", done.stdout)
    assert done.stderr == ""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    try:
        subprocess.run([*COMMAND, "--drop"], cwd=seed.directory, env=seed.environment, stderr=theirs, check=True)
        assert b"50/50" in os.read(ours, 65_536)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.gen_test
async def test_without_a_configuration_it_finds_the_database_of_the_server(
    tmp_path: Path, make_client: MakeClient
) -> None:
    seed = Seeder(tmp_path)
    done = seed.run("--user", "ada")
    assert done.returncode == 0, done.stderr
    assert "the embedded database in var, started for now." in done.stderr

    server = ServerProcess(tmp_path, {"JWT_SECRET": SECRET}).start().wait_until_ready()
    try:
        done = seed.run("--user", "ada", "--id-prefix", "more-", "--conversations", "1")
        assert done.returncode == 0, done.stderr
        assert "the embedded database in var, a running server's." in done.stderr
        listed = (await make_client(server, "ada").http.get(API)).json()["conversations"]
        assert {one["id"] for one in listed} == {*(f"c{number:06d}" for number in range(5)), "more-000000"}
    finally:
        assert server.stop() == 0


@pytest.fixture
def installed(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the script's shell part with an existing environment."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "seed_conversations").write_bytes((REPOSITORY / "scripts" / "seed_conversations").read_bytes())
    (scripts / "environment.sh").write_text(f"source '{REPOSITORY}/scripts/environment.sh'\nenvironment() {{ :; }}\n")

    def run(*options: str, directory: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(scripts / "seed_conversations"), *options],
            cwd=directory,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )

    return run


def test_paths_are_meant_from_where_it_is_called(
    seed: Seeder, installed: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    installed("--user", "ada", "--ids-file", "ids", directory=elsewhere, environment=seed.environment)
    assert len((elsewhere / "ids").read_text().split()) == 5
