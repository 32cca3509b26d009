"""Titles by the model, and the states in the list of conversations, as clients of a real server see them."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeClient, StartServer
from tests.support.client import API, PATIENCE, Client
from tests.support.processes import REPOSITORY
from tests.support.upstream import (
    USAGE,
    Do,
    Upstream,
    answer,
    beginning,
    delta,
    ending,
    event,
    http_chunk,
    stream,
    whole,
)


async def listed(client: Client, conversation: str) -> dict[str, Any]:
    """A conversation's entry in the list."""
    page = (await client.http.get(API)).json()
    return next(dict(one) for one in page["conversations"] if one["id"] == conversation)


async def until(client: Client, conversation: str, **wanted: Any) -> dict[str, Any]:
    """Wait until the list's entry has these values; returns it."""
    async with asyncio.timeout(2 * PATIENCE):
        while True:
            one = await listed(client, conversation)
            if {name: one[name] for name in wanted} == wanted:
                return one
            await asyncio.sleep(0.05)  # between two polls; there is no event to wait for over REST


async def outcomes(client: Client, outcome: str) -> float:
    """The number of titles of all users with this outcome."""
    lines = (await client.http.get("/metrics")).text.splitlines()
    name = f'chatstream_titles_total{{outcome="{outcome}"}} '
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


async def until_one_more(client: Client, outcome: str, before: float) -> None:
    """Wait until one more title has this outcome."""
    async with asyncio.timeout(2 * PATIENCE):
        while await outcomes(client, outcome) == before:
            await asyncio.sleep(0.05)  # there is no event to wait for in another process


async def ask(client: Client, conversation: str, question: str = "What is a palindrome?") -> None:
    """Ask, and wait for the end of the answer."""
    assert (await client.post(conversation, question)).status_code == 201
    assert (await client.answer(conversation))["status"] == "complete"


@pytest.mark.gen_test
async def test_the_model_names_a_conversation_after_its_first_answer(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("A word that reads the same from both ends."))
    upstream.reply(stream(delta('"Palindromes, '), delta('explained."'), delta(finish_reason="stop"), USAGE))
    upstream.reply(answer("Otto."))
    conversation = await client.create(title="What is a palindrome?", autoTitle=True)
    await ask(client, conversation)
    await until(client, conversation, title="Palindromes, explained")
    await ask(client, conversation, "Name one.")
    assert len(upstream.calls) == 3
    asked = upstream.calls[1].body["messages"]
    assert [turn["role"] for turn in asked] == ["user"]
    assert "What is a palindrome?" in asked[0]["content"]
    assert "from both ends" in asked[0]["content"]
    found = (await client.http.get(API, params={"q": "explained"})).json()["conversations"]
    assert [one["id"] for one in found] == [conversation]


@pytest.mark.gen_test
async def test_none_is_made_where_nobody_asked_for_one(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Yes."))
    conversation = await client.create()
    await ask(client, conversation)
    await ask(client, conversation)
    assert (await listed(client, conversation))["title"] is None
    assert len(upstream.calls) == 2


@pytest.mark.parametrize("title", ["Mine", None])
@pytest.mark.gen_test
async def test_a_name_that_is_given_meanwhile_stays(client: Client, upstream: Upstream, title: str | None) -> None:
    go_on = asyncio.Event()
    upstream.reply(answer("Yes."))
    upstream.reply(go_on, answer("The model's"))
    upstream.reply(answer("Yes, again."))
    conversation = await client.create(title="A question", autoTitle=True)
    await ask(client, conversation)
    async with asyncio.timeout(PATIENCE):
        await upstream.until_called(2)
    before = await outcomes(client, "named")
    assert (await client.http.patch(f"{API}/{conversation}", json={"title": title})).status_code == 200
    go_on.set()
    await until_one_more(client, "named", before)
    assert (await listed(client, conversation))["title"] == title
    await ask(client, conversation)
    assert len(upstream.calls) == 3  # the model is not asked again


@pytest.mark.parametrize(
    "said",
    [
        whole("500 Internal Server Error", {"error": {"message": "No."}}),
        whole("401 Unauthorized", {"error": {"message": "No.", "code": "invalid_api_key"}}),
        stream(delta(refusal="I can't help with that."), delta(finish_reason="stop")),
        stream(delta("   \n"), delta(finish_reason="stop")),
        stream(delta("Word " * 1000), delta(finish_reason="stop")),
        beginning("Half a ti"),
    ],
    ids=["error", "bad key", "refusal", "blank", "endless", "broken"],
)
@pytest.mark.gen_test
async def test_where_it_makes_no_good_one_the_first_stays(client: Client, upstream: Upstream, said: bytes) -> None:
    before = await outcomes(client, "none")
    upstream.reply(answer("Yes."))
    upstream.reply(said, Do.RESET)
    conversation = await client.create(title="A question", autoTitle=True)
    await ask(client, conversation)
    await until_one_more(client, "none", before)
    assert (await listed(client, conversation))["title"] == "A question"


HOLDS_BACK = """
from chatstream.plugins.plugin import Blocked
class Plugin:
    def release(self, text, told, ended):
        if "code is 4711" in text:
            raise Blocked
        return len(text)
def plugin():
    return Plugin()
"""


@pytest.mark.gen_test
async def test_what_is_held_back_is_no_title_without_its_marks(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "holding_back.py").write_text(HOLDS_BACK)
    paths = {"CHATSTREAM_PLUGINS": "holding_back:plugin", "PYTHONPATH": f"{REPOSITORY}:{tmp_path}"}
    client = make_client(start_server(**paths))
    for number, said in enumerate(("The code  is 4711", "The co**d**e is 4711", "The code"), start=1):
        upstream.reply(answer("That I must not say."))
        upstream.reply(answer(said))
        conversation = await client.create(title="What is it?", autoTitle=True)
        await ask(client, conversation)
        if number < 3:
            await until_one_more(client, "none", number - 1)
            assert (await listed(client, conversation))["title"] == "What is it?"
        else:
            await until(client, conversation, title="The code")


@pytest.mark.gen_test
async def test_a_title_delays_nothing(client: Client, upstream: Upstream) -> None:
    """The next question is answered while the model still thinks of a title, and so is the deletion."""
    go_on = asyncio.Event()
    before = await outcomes(client, "named")
    upstream.reply(answer("Yes."))
    upstream.reply(go_on, answer("A title"))
    upstream.reply(answer("Yes, again."))
    conversation = await client.create(title="A question", autoTitle=True)
    await ask(client, conversation)
    async with asyncio.timeout(PATIENCE):
        await upstream.until_called(2)
    await ask(client, conversation, "And now?")
    assert len(upstream.calls) == 3  # one title at a time
    assert (await client.http.delete(f"{API}/{conversation}")).status_code == 204
    go_on.set()
    await until_one_more(client, "named", before)  # otherwise this title would be a request to the next test's model


@pytest.mark.gen_test
async def test_off_is_off(start_server: StartServer, make_client: MakeClient, upstream: Upstream) -> None:
    upstream.reply(answer("Yes."))
    client = make_client(start_server(CHATSTREAM_TITLES="off"))
    conversation = await client.create(title="A question", autoTitle=True)
    await ask(client, conversation)
    await ask(client, conversation)
    assert len(upstream.calls) == 2


@pytest.mark.gen_test
async def test_another_process_makes_it_where_the_first_was_killed(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    upstream.reply(answer("Yes."))
    upstream.reply(Do.HANG)
    upstream.reply(answer("Yes, again."))
    upstream.reply(answer("A title"))
    server = start_server()
    client = make_client(server)
    conversation = await client.create(title="A question", autoTitle=True)
    await ask(client, conversation)
    async with asyncio.timeout(PATIENCE):
        await upstream.until_called(2)
    await server.kill()
    again = make_client(start_server(), client.user)
    await ask(again, conversation, "And now?")
    await until(again, conversation, title="A title")


@pytest.mark.gen_test
async def test_the_list_says_what_runs_and_what_is_unread(client: Client, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    upstream.reply(beginning("Half"), go_on, http_chunk(event(delta(" and half"))) + ending())
    conversation = await client.create()
    idle = await client.create()
    one = await listed(client, conversation)
    assert (one["state"], one["unread"]) == ("idle", False)
    await client.post(conversation, "Tell me.")
    await until(client, conversation, state="running", unread=False)
    go_on.set()
    await until(client, conversation, state="idle", unread=True)
    async with client.stream(conversation) as watched:
        await watched.until("llm_complete")
    await until(client, conversation, state="idle", unread=False)
    one = await listed(client, idle)
    assert (one["state"], one["unread"]) == ("idle", False)
    assert json.dumps(one).count("waiting") == 0


@pytest.mark.gen_test
async def test_what_a_title_takes_is_the_users_own_spending(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    server = start_server(CHATSTREAM_USER_TOKENS_PER_DAY="9", CHATSTREAM_USER_TOKENS_PER_MONTH="1000")
    client = make_client(server)
    upstream.reply(answer("A word that reads the same from both ends."))
    upstream.reply(stream(delta("Palindromes"), delta(finish_reason="stop"), USAGE))
    conversation = await client.create(autoTitle=True)
    await ask(client, conversation)
    await until(client, conversation, title="Palindromes")
    left = {one["name"]: one for one in (await client.http.get("/api/v1/chat/usage")).json()["budgets"]}
    assert [left[name]["used"] for name in ("tokensPerDay", "tokensPerMonth")] == [14, 14]
    assert left["tokensPerDay"]["left"] == 0
    # A budget of nine would have been enough for the answer alone.
    assert (await client.post(conversation, "Name one.")).status_code == 429
    # An interrupted title is charged with its known usage. In a report, a title does not count as an answer.
    other = make_client(server)
    upstream.reply(answer("Otto."))
    upstream.reply(beginning("Nam"), Do.CLOSE)
    before = await outcomes(other, "none")
    await ask(other, await other.create(autoTitle=True))
    await until_one_more(other, "none", before)
    used = {one["name"]: one["used"] for one in (await other.http.get("/api/v1/chat/usage")).json()["budgets"]}
    assert used["tokensPerMonth"] > 7
    report = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chatstream", "usage", "--format", "json",
        env=server._environment, cwd=server.log_path.parent, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    rows = [json.loads(line) for line in (await report.communicate())[0].splitlines()]
    assert {row["user"]: (row["answers"], row["totalTokens"]) for row in rows} == {
        client.user: (1, 14),
        other.user: (1, used["tokensPerMonth"]),
    }
