"""Budgets per day and month: over the budget no model is called, and each answer is counted exactly once, whatever
happens.
"""

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from tests.conftest import MakeClient, StartServer
from tests.support.client import API, PATIENCE, Client
from tests.support.processes import SECRET, ServerProcess
from tests.support.upstream import DONE, Do, Upstream, answer, beginning, delta, stream

USAGE = "/api/v1/chat/usage"


async def balances(client: Client) -> dict[str, Any]:
    """The user's balances, by the limit's name."""
    response = await client.http.get(USAGE)
    assert response.status_code == 200, response.text
    return {one.pop("name"): one for one in response.json()["budgets"]}


async def taken(client: Client, conversations: list[str]) -> int:
    """The tokens of all answers of the user, which must all have ended."""
    total = 0
    for conversation in conversations:
        for message in await client.messages(conversation):
            if message["role"] == "assistant":
                await client.answer(conversation)
        total += sum(one["usage"]["totalTokens"] for one in await client.messages(conversation) if one.get("usage"))
    return total


def give(client: Client, **claims: Any) -> None:
    """Give the client a token of the same user with further claims."""
    claims |= {"sub": client.user, "exp": int(time.time()) + 3600}
    client.http.headers["Authorization"] = f"Bearer {jwt.encode(claims, SECRET, algorithm='HS256')}"


@pytest.mark.unmeasured
@pytest.mark.gen_test(timeout=110)
async def test_each_of_a_hundred_that_were_stopped_is_charged(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    upstream.reply(beginning("Half of an answer. "), Do.HANG)
    client = make_client(start_server(CHATSTREAM_USER_TOKENS_PER_MONTH="1000000000"))
    conversation, receipts = await client.create(), []
    async with client.stream(conversation) as watched:
        for _ in range(100):
            assert (await client.post(conversation, "Tell me.")).status_code == 201
            await watched.until("llm_chunk")
            receipts.append((await client.http.post(f"{API}/{conversation}/stop")).json()["usage"]["totalTokens"])
            await watched.until("llm_complete")
    assert all(receipts)
    month = (await balances(client))["tokensPerMonth"]
    assert (month["used"], month["reserved"]) == (sum(receipts), 0)
    assert len(receipts) == len(upstream.calls) == 100


@pytest.mark.unmeasured
@pytest.mark.gen_test(timeout=110)
async def test_two_hundred_at_once_at_two_processes_of_which_one_is_killed(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    upstream.reply(beginning("Half of an answer. "), Do.HANG)
    reserved = 600  # more than the expected use of one answer to these messages, less than that of two
    settings = {
        "CHATSTREAM_USER_TOKENS_PER_DAY": str(10 * 500),
        "CHATSTREAM_ANSWERS_PER_USER": "200",
        "CHATSTREAM_DISCONNECT_GRACE": "never",
        "CHATSTREAM_PLUGINS": "none",
    }
    servers = [start_server(ready=False, **settings) for _ in range(2)]
    here = make_client(servers[0].wait_until_ready())
    there = make_client(servers[1].wait_until_ready(), here.user)
    conversations = [await here.create() for _ in range(200)]

    async def send(number: int, conversation: str) -> int:
        try:
            return (await (here, there)[number % 2].post(conversation, "Tell me.")).status_code
        except httpx.TransportError:
            return 0  # the answer's process was killed

    sending = [asyncio.create_task(send(*each)) for each in enumerate(conversations)]
    async with asyncio.timeout(PATIENCE):
        await upstream.until_called(3)
    await servers[1].kill()
    statuses = await asyncio.gather(*sending)
    assert set(statuses) <= {201, 429, 503, 0}
    day = (await balances(here))["tokensPerDay"]
    assert day["used"] + day["reserved"] < 5000 + reserved
    stored = {each: await here.messages(each) for each in conversations}
    begun = [each for each, messages in stored.items() if messages]
    assert statuses.count(201) <= len(begun) <= 10
    # None was refused after a model call: refused requests have stored nothing.
    for status, conversation in zip(statuses, conversations, strict=True):
        assert status != 429 or not stored[conversation]
    # The sweeper ends the answers of the killed process; the others are stopped.
    for conversation in begun:
        await here.http.post(f"{API}/{conversation}/stop")
    assert len(upstream.calls) <= len(begun)
    total = await taken(here, begun)
    day = (await balances(here))["tokensPerDay"]
    assert (day["used"], day["reserved"]) == (total, 0)


@pytest.mark.gen_test
async def test_who_has_nothing_left_is_told_so_and_until_when(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    upstream.reply(answer("Well."))
    server = start_server(CHATSTREAM_USER_TOKENS_PER_DAY="1", CHATSTREAM_USER_TOKENS_PER_MONTH="1000000")
    client, other = make_client(server), make_client(server)
    conversation = await client.create(initialMessage="Tell me.")
    await client.answer(conversation)
    refused = await client.post(conversation, "And now?", headers={"Idempotency-Key": "now"})
    assert (refused.status_code, refused.json()["code"]) == (429, "budget_exhausted")
    now = datetime.now(UTC)
    midnight = 86_400 - (now.hour * 3600 + now.minute * 60 + now.second)
    assert abs(int(refused.headers["Retry-After"]) - midnight) <= 60
    assert refused.headers["RateLimit-Policy"] == '"tokensPerDay";q=1;w=86400'
    assert refused.headers["RateLimit"].startswith('"tokensPerDay";r=0;t=')
    day = (await balances(client))["tokensPerDay"]
    assert (day["limit"], day["left"], day["used"], day["unit"]) == (1, 0, 7, "tokens")
    assert datetime.fromisoformat(day["resetsAt"]) > now
    # All requests that would begin an answer are refused, and store nothing.
    for response in (
        await client.post(conversation, "And now?", params={"ifBusy": "queue"}),
        await client.post(conversation, "And now?", headers={"Accept": "text/event-stream"}),
        await client.http.post(f"{API}/{conversation}/regenerate"),
        await client.http.post(API, json={"id": "another", "initialMessage": "Tell me."}),
    ):
        assert (response.status_code, response.json()["code"]) == (429, "budget_exhausted")
    assert (await client.http.get(f"{API}/another")).status_code == 404
    assert len(await client.messages(conversation)) == 2
    assert len(upstream.calls) == 1
    # Requests that begin no answer still work, and so do those of other users.
    async with client.stream(conversation) as watched:
        await watched.until("connected")
    await client.create()
    assert (await balances(other))["tokensPerDay"]["left"] == 1
    await other.answer(await other.create(initialMessage="Tell me."))


@pytest.mark.gen_test
async def test_what_was_accepted_is_not_refused_when_it_is_sent_again(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    upstream.reply(answer("Well."))
    client = make_client(start_server(CHATSTREAM_USER_TOKENS_PER_DAY="1"))
    conversation = await client.create()
    first = await client.post(conversation, "Tell me.", headers={"Idempotency-Key": "one"})
    await client.answer(conversation)
    assert (await client.post(conversation, "And now?")).status_code == 429
    for _ in range(2):
        again = await client.post(conversation, "Tell me.", headers={"Idempotency-Key": "one"})
        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_a_question_that_waits_is_refused_in_a_way_that_an_event_source_survives(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    go_on = asyncio.Event()
    upstream.reply(beginning("Half of an answer. "), Do.HANG)
    upstream.reply(go_on, answer("Well."))
    client = make_client(start_server(CHATSTREAM_USER_TOKENS_PER_DAY="600"))
    conversation, second = await client.create(initialMessage="Tell me."), await client.create()
    async with client.stream(conversation) as watched:
        await watched.until("llm_chunk")
        assert (await client.post(conversation, "And now?", params={"ifBusy": "queue"})).status_code == 201
        assert (await client.post(second, "Tell me. " * 200)).status_code == 201  # the last one: reserves the rest
        give(client, nothing="of importance")
        await client.http.post(f"{API}/{conversation}/stop")
        # The expected use of the other answer is reserved while it runs, and leaves no room for this one.
        assert (await watched.rest())[-1].type == "error"
    for _ in range(2):
        async with client.stream(conversation) as watched:
            frames = await watched.rest()
            assert watched.response.status_code == 200
            assert frames[-1].type == "error"
            assert frames[-1].data["error"] == "budget_exhausted"
            assert frames[-1].data["retryable"] is True
            assert frames[-1].data["messageId"] is None
            assert frames[-1].data["retryAfterMs"] == 10_000
            assert max(watched.retries) >= frames[-1].data["retryAfterMs"]
            assert "used up" not in frames[-1].data["message"]
    third = await client.create()
    refused = await client.post(third, "And I?")
    assert (refused.status_code, refused.json()["code"]) == (429, "budget_exhausted")
    assert (refused.headers["Retry-After"], refused.headers["RateLimit"]) == ("10", '"tokensPerDay";r=0')
    assert "reserved" in refused.json()["detail"]
    go_on.set()
    await client.answer(second)
    # The budget was only reserved, not used up, so the refusal is not remembered.
    assert (await client.post(third, "And I?")).status_code == 201
    async with client.stream(conversation) as watched:
        await watched.until("llm_complete")


@pytest.mark.gen_test
async def test_an_interruption_that_would_be_refused_interrupts_nothing(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    go_on = asyncio.Event()
    upstream.reply(beginning("So far, "), go_on, answer("so good.").partition(b"\r\n\r\n")[2])
    client = make_client(start_server(CHATSTREAM_USER_TOKENS_PER_DAY="2"))
    conversation = await client.create(initialMessage="Tell me.")
    await upstream.until_called()
    for path in ("messages", "regenerate"):
        body = {"content": "And now?"} if path == "messages" else None
        refused = await client.http.post(f"{API}/{conversation}/{path}", params={"ifBusy": "interrupt"}, json=body)
        assert (refused.status_code, refused.json()["code"]) == (429, "budget_exhausted")
    go_on.set()
    stored = await client.answer(conversation)
    assert (stored["status"], stored["content"]) == ("complete", "So far, so good.")


@pytest.fixture
def by_claim(start_server: StartServer) -> ServerProcess:
    return start_server(CHATSTREAM_BUDGET_CLAIM="budget", CHATSTREAM_USER_TOKENS_PER_DAY="1")


@pytest.mark.gen_test
async def test_a_token_says_what_its_user_may_spend(
    by_claim: ServerProcess, make_client: MakeClient, upstream: Upstream
) -> None:
    upstream.reply(answer("Well."))
    client = make_client(by_claim)
    conversation = await client.create(initialMessage="Tell me.")
    await client.answer(conversation)
    assert (await client.post(conversation, "And now?")).status_code == 429
    # A larger budget takes effect at once, though the refusal is remembered.
    for budget, limit in (({"tokensPerDay": 100_000}, 100_000), ({"tokensPerDay": None}, None)):
        give(client, budget=budget)
        assert (await client.post(conversation, "And now?")).status_code == 201
        await client.answer(conversation)
        assert (await balances(client))["tokensPerDay"]["limit"] == limit
    give(client, budget={"tokensPerDay": 0})
    assert (await client.post(conversation, "And now?")).status_code == 429
    give(client)  # back to the budget of the settings
    assert (await client.post(conversation, "And now?")).status_code == 429
    assert (await balances(client))["tokensPerDay"]["limit"] == 1
    give(client, budget={"costPerMonth": 0.1})
    assert (await balances(client))["costPerMonth"]["limit"] == 100_000
    # A ticket has the budget of the token with which it was requested.
    give(client, budget={"tokensPerDay": None})
    ticket = (await client.http.post(f"{API}/{conversation}/stream-tickets")).json()["ticket"]
    del client.http.headers["Authorization"]
    async with client.stream(conversation, params={"ticket": ticket}) as watched:
        await watched.until("connected")
    give(client, budget={"tokensPerDay": None})
    assert (await client.post(conversation, "And now?")).status_code == 201


@pytest.mark.parametrize(
    "claim",
    [
        {"tokensPerDay": -1},
        {"tokensPerDya": 5},
        {"tokensPerDay": "1e9"},
        {"tokensPerDay": 1.5},
        {"tokensPerMonth": True},
        {"tokensPerMonth": 10**30},
        {"costPerMonth": "12"},
        {"costPerMonth": -0.01},
        {"costPerMonth": 10**9},
        "gold",
        12,
        [],
        False,
    ],
)
@pytest.mark.gen_test
async def test_a_budget_that_cannot_be_is_no_unlimited_one(
    shared_by_claim: ServerProcess, make_client: MakeClient, claim: object
) -> None:
    client = make_client(shared_by_claim)
    give(client, budget=claim)
    refused = await client.http.get(USAGE)
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")
    assert "`budget`" in refused.json()["detail"]


@pytest.fixture(scope="module")
def shared_by_claim(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Any:
    settings = {"MONGODB_DATABASE": "claims", "CHATSTREAM_BUDGET_CLAIM": "budget"}
    server = ServerProcess(tmp_path_factory.mktemp("claims"), environment | settings).start().wait_until_ready()
    yield server
    assert server.stop() == 0


PLUGIN = """
from chatstream.models import Budget
from chatstream.plugins.tool import tool

@tool(effect="none")
async def look(match: str) -> str:
    \"\"\"Look.\"\"\"
    return "2.10"

class Credits:
    tools = (look,)

    def budget(self, spender):
        if "broken" in spender.user:
            raise RuntimeError
        return Budget(tokens_per_month=1) if "poor" in spender.user else None

def plugin():
    return Credits()
"""


@pytest.mark.gen_test
async def test_a_plug_in_says_what_a_user_may_spend(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path, monkeypatch: Any
) -> None:
    upstream.reply(answer("Well."))
    (tmp_path / "credits_plugin.py").write_text(PLUGIN)
    server = start_server(
        CHATSTREAM_PLUGINS="credits_plugin:plugin", CHATSTREAM_USER_TOKENS_PER_DAY="100000"
    )  # its data directory is relative to its working directory
    rich, poor, broken = (make_client(server, f"{name}-{time.time_ns()}") for name in ("rich", "poor", "broken"))
    for client, status in ((rich, 201), (poor, 429)):
        conversation = await client.create(initialMessage="Tell me.")
        await client.answer(conversation)
        assert (await client.post(conversation, "And now?")).status_code == status
    assert (await balances(rich))["tokensPerDay"]["limit"] == 100_000
    assert (await balances(poor))["tokensPerMonth"]["limit"] == 1
    conversation = await broken.create()
    refused = await broken.post(conversation, "Tell me.")
    assert (refused.status_code, refused.json()["code"]) == (503, "budget_unavailable")
    assert refused.headers["Retry-After"] == "5"
    assert await broken.messages(conversation) == []
    # A model that keeps calling tools is not asked again once no budget is left.
    called = delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"match":"x"}'}}])
    spent, spends = make_client(server, f"poor-{time.time_ns()}"), make_client(server, f"rich-{time.time_ns()}")
    for client, ends, code, more in ((spent, "failed", "budget_exhausted", 1), (spends, "complete", None, 2)):
        calls = len(upstream.calls)
        upstream.scripts[:] = [(answer("Well."),)] * calls  # the first responses have been sent
        upstream.reply(stream(called, delta(finish_reason="tool_calls"), DONE))
        upstream.reply(answer("Well."))
        stored = await client.answer(await client.create(initialMessage="Which?"))
        assert (stored["status"], (stored["error"] or {"error": None})["error"]) == (ends, code)
        assert len(upstream.calls) - calls == more
        month = (await balances(client))["tokensPerMonth"]
        assert (month["used"], month["reserved"]) == (stored["usage"]["totalTokens"], 0)


@pytest.mark.gen_test
async def test_a_budget_in_money(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.reply(answer("Well."))
    models = tmp_path / "models.toml"
    address = json.dumps(upstream.url)
    models.write_text(f'[[models]]\nname = "m"\nbase_url = {address}\nprice = {{ input = 100000, output = 250000 }}\n')
    client = make_client(
        start_server(
            CHATSTREAM_MODELS_FILE=str(models), CHATSTREAM_USER_MODELS="on", CHATSTREAM_USER_COST_PER_MONTH="1.00"
        )
    )
    conversation = await client.create(initialMessage="Tell me.")
    await client.answer(conversation)  # 5 prompt tokens cost 0.50, and 2 tokens of the answer 0.50
    cost = (await balances(client))["costPerMonth"]
    assert (cost["used"], cost["limit"], cost["left"], cost["unit"]) == (1_000_000, 1_000_000, 0, "costMicros")
    refused = await client.post(conversation, "And now?")
    assert (refused.status_code, refused.json()["code"]) == (429, "budget_exhausted")
    assert "costPerMonth" in refused.headers["RateLimit"]


@pytest.mark.gen_test
async def test_where_nobody_has_a_budget_nobody_is_counted(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Well."))
    await client.answer(await client.create(initialMessage="Tell me."))
    assert await balances(client) == {}
