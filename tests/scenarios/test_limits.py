"""The limits per user: the refusals, their form, and that other users are not affected."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.conftest import MakeClient, StartServer
from tests.support.client import API, PATIENCE, Client
from tests.support.upstream import Do, Upstream, answer, beginning, delta, event, http_chunk


def assert_limited(response: httpx.Response, code: str, policy: str) -> None:
    """Check for a 429 that names the time to wait and the limit."""
    assert (response.status_code, response.json()["code"]) == (429, code), response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert int(response.headers["Retry-After"]) >= 1
    assert response.headers["RateLimit-Policy"] == policy
    name = policy.partition(";")[0]
    assert response.headers["RateLimit"].startswith(f"{name};r=0")


@pytest.mark.gen_test
async def test_too_many_streams_of_one_user(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    upstream.reply(answer("Not for you."))
    server = start_server(CHATSTREAM_STREAMS_PER_USER="2")
    mine, other = make_client(server), make_client(server)
    conversation, theirs = await mine.create(), await other.create()
    async with AsyncExitStack() as stack:
        open_streams = [await stack.enter_async_context(mine.stream(conversation)) for _ in range(2)]
        assert [(await stream.next()).type for stream in open_streams] == ["connected"] * 2
        async with mine.stream(conversation) as refused:
            [error] = await refused.rest()
            assert refused.response.status_code == 200
            assert refused.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert (error.type, error.data["error"], error.data["retryable"]) == ("error", "too_many_streams", True)
        assert refused.retries[0] >= error.data["retryAfterMs"] >= 1000
        policy = '"streams";q=2;qu="concurrent-requests"'
        path = f"{API}/{conversation}/stream"
        assert_limited(await mine.http.get(path), "too_many_streams", policy)
        # A client that posts can read a status. A message whose answer cannot be streamed is not stored.
        streaming = {"Accept": "text/event-stream"}
        assert_limited(await mine.post(conversation, "Hi", headers=streaming), "too_many_streams", policy)
        assert await mine.messages(conversation) == []
        async with other.stream(theirs) as open_:
            assert (await open_.next()).type == "connected"
    await opens_again(mine, conversation)
    assert upstream.calls == []


async def opens_again(client: Client, conversation: str) -> None:
    """Wait until a stream can be opened, after the server has noticed that others were closed."""
    while True:
        async with client.stream(conversation) as stream:
            if (await stream.next()).type == "connected":
                return


@pytest.mark.gen_test
async def test_too_many_streams_in_all(start_server: StartServer, make_client: MakeClient) -> None:
    server = start_server(CHATSTREAM_STREAMS_PER_PROCESS="1")
    first, second = make_client(server), make_client(server)
    conversation, theirs = await first.create(), await second.create()
    async with first.stream(conversation) as stream:
        await stream.next()
        async with second.stream(theirs) as refused:
            [error] = await refused.rest()
        assert error.data["error"] == "too_many_streams"
        response = await second.http.get(f"{API}/{theirs}/stream")
        assert (response.status_code, response.json()["code"]) == (503, "too_many_streams")
        assert int(response.headers["Retry-After"]) >= 1
    await opens_again(second, theirs)


@pytest.mark.gen_test
async def test_streams_that_are_opened_too_often(start_server: StartServer, make_client: MakeClient) -> None:
    server = start_server(CHATSTREAM_OPENINGS_PER_MINUTE="3")
    mine, other = make_client(server), make_client(server)
    conversation, theirs = await mine.create(), await other.create()
    for _ in range(3):
        assert (await mine.http.get(f"{API}/{conversation}/stream?once=true")).status_code == 204
    async with mine.stream(conversation) as refused:
        [error] = await refused.rest()
    assert error.data["error"] == "rate_limited"
    assert refused.retries[0] >= error.data["retryAfterMs"] > 0
    assert_limited(await mine.http.get(f"{API}/{conversation}/stream"), "rate_limited", '"openings";q=3;w=60')
    assert (await other.http.get(f"{API}/{theirs}/stream?once=true")).status_code == 204


@pytest.mark.gen_test
async def test_too_many_messages(start_server: StartServer, make_client: MakeClient, upstream: Upstream) -> None:
    upstream.reply(answer("Yes."))
    server = start_server(CHATSTREAM_MESSAGES_PER_MINUTE="4")
    mine, other = make_client(server), make_client(server)
    conversation = await mine.create()
    first = await mine.post(conversation, "One", headers={"Idempotency-Key": "first"})
    assert first.headers["RateLimit-Policy"] == '"messages";q=4;w=60'
    assert first.headers["RateLimit"].startswith('"messages";r=3;t=')
    await mine.answer(conversation)
    # A repeated message does not count as new.
    for _ in range(5):
        again = await mine.post(conversation, "One", headers={"Idempotency-Key": "first"})
        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert (await mine.post(conversation, "Two")).status_code == 201
    await mine.answer(conversation)
    # Everything that begins an answer counts.
    assert (await mine.http.post(f"{API}/{conversation}/regenerate")).status_code == 202
    await mine.answer(conversation)
    created = await mine.http.post(API, json={"initialMessage": "Four"})
    assert created.status_code == 201
    await mine.answer(created.json()["id"])

    stored, policy = await mine.messages(conversation), '"messages";q=4;w=60'
    assert_limited(await mine.post(conversation, "Five"), "rate_limited", policy)
    assert_limited(
        await mine.post(conversation, "Five", headers={"Accept": "text/event-stream"}), "rate_limited", policy
    )
    assert_limited(await mine.post(conversation, "Five", headers={"Idempotency-Key": "5"}), "rate_limited", policy)
    assert_limited(await mine.http.post(f"{API}/{conversation}/regenerate"), "rate_limited", policy)
    assert_limited(await mine.http.post(API, json={"id": "not-made", "initialMessage": "Hi"}), "rate_limited", policy)
    assert (await mine.http.get(f"{API}/not-made")).status_code == 404
    assert await mine.messages(conversation) == stored
    again = await mine.post(conversation, "One", headers={"Idempotency-Key": "first"})
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    other_content = await mine.post(conversation, "Other", headers={"Idempotency-Key": "first"})
    assert other_content.status_code == 422
    # Conversations have a limit of their own.
    for _ in range(2):
        await mine.create()
    assert_limited(await mine.http.post(API, json={"id": "not-made"}), "rate_limited", '"conversations";q=4;w=60')
    assert (await mine.http.get(f"{API}/not-made")).status_code == 404
    assert (await other.post(await other.create(), "One")).status_code == 201


@pytest.mark.gen_test
async def test_a_bad_message_does_not_count(start_server: StartServer, make_client: MakeClient) -> None:
    client = make_client(start_server(CHATSTREAM_MESSAGES_PER_MINUTE="1"))
    conversation = await client.create()
    for _ in range(3):
        assert (await client.post(conversation, "")).status_code == 422
    assert (await client.post("nobody", "Hi")).status_code == 404


@pytest.mark.gen_test
async def test_an_address_with_too_many_bad_tokens(start_server: StartServer, make_client: MakeClient) -> None:
    server = start_server(CHATSTREAM_FAILURES_PER_MINUTE="3", CHATSTREAM_TRUSTED_PROXIES="127.0.0.1")
    client = make_client(server)
    conversation = await client.create()
    path, bad = f"{API}/{conversation}/stream?once=true", {"Authorization": "Bearer bad"}
    here, there = {"X-Forwarded-For": "2001:db8::1"}, {"X-Forwarded-For": "2001:db8::6, 198.51.100.1"}
    for _ in range(3):
        assert (await client.http.get(path, headers=here | bad)).status_code == 401
        assert (await client.http.get(path, headers=here | {"Authorization": ""})).status_code == 401  # none is not bad
    assert_limited(await client.http.get(path, headers=here | bad), "rate_limited", '"failures";q=3;w=60')
    async with client.stream(conversation, headers=here | bad) as refused:
        assert (await refused.next()).data["error"] == "rate_limited"
    # A request with a valid token is accepted: it may be from another user behind the same address.
    for from_ in (here, there, {}):
        assert (await client.http.get(path, headers=from_)).status_code == 204
    # Requests from this machine are not counted.
    for _ in range(5):
        assert (await client.http.get(path, headers=bad)).status_code == 401


@pytest.mark.gen_test
async def test_an_address_with_too_many_bad_tickets(start_server: StartServer, make_client: MakeClient) -> None:
    """Over the limit tickets are refused without a check, which would query the database. Tokens and tickets are
    counted separately.
    """
    server = start_server(CHATSTREAM_FAILURES_PER_MINUTE="3", CHATSTREAM_TRUSTED_PROXIES="127.0.0.1")
    client = make_client(server)
    conversation = await client.create()
    path, here, there = f"{API}/{conversation}/stream?once=true", "192.0.2.1", "192.0.2.2"

    async def with_token(token: str) -> httpx.Response:
        return await client.http.get(path, headers={"X-Forwarded-For": here, "Authorization": f"Bearer {token}"})

    async def with_ticket(ticket: str, address: str = here) -> httpx.Response:
        headers = {"X-Forwarded-For": address, "Authorization": ""}
        return await client.http.get(f"{path}&ticket={ticket}", headers=headers)

    async def good_ticket() -> str:
        return str((await client.http.post(f"{API}/{conversation}/stream-tickets")).json()["ticket"])

    for _ in range(5):
        await with_token("bad")
    assert_limited(await with_token("bad"), "rate_limited", '"failures";q=3;w=60')
    assert (await with_ticket(await good_ticket())).status_code == 204  # regardless of other clients' bad tokens
    for _ in range(3):
        assert (await with_ticket("none")).status_code == 401
    unused = await good_ticket()
    assert_limited(await with_ticket(unused), "rate_limited", '"failures";q=3;w=60')
    assert (await with_ticket(unused, there)).status_code == 204
    assert (await with_token(client.token)).status_code == 204


@pytest.mark.gen_test
async def test_too_many_answers_of_one_user(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    upstream.reply(beginning("One "), Do.HANG)
    server = start_server(CHATSTREAM_ANSWERS_PER_USER="2", CHATSTREAM_DISCONNECT_GRACE="never")
    mine, other = make_client(server), make_client(server)
    for _ in range(2):
        last = await mine.create(initialMessage="Begin.")
    third, policy = await mine.create(), '"answers";q=2;qu="concurrent-requests"'
    assert_limited(await mine.post(third, "Begin."), "rate_limited", policy)
    assert_limited(await mine.http.post(f"{API}/{third}/regenerate"), "rate_limited", policy)
    assert_limited(await mine.http.post(API, json={"id": "x", "initialMessage": "Begin."}), "rate_limited", policy)
    assert await mine.messages(third) == []
    assert (await mine.http.get(f"{API}/x")).status_code == 404
    async with mine.stream(third) as stream:  # no answer begins
        assert (await stream.next()).type == "connected"
    await other.create(initialMessage="Begin.")
    assert (await mine.http.post(f"{API}/{last}/stop")).status_code == 200
    assert (await mine.post(third, "Begin.")).status_code == 201
    await mine.stop_all()
    await other.stop_all()


@pytest.mark.gen_test
async def test_too_many_answers_in_all(start_server: StartServer, make_client: MakeClient, upstream: Upstream) -> None:
    upstream.reply(beginning("One "), Do.HANG)
    settings = {"CHATSTREAM_ANSWERS_PER_PROCESS": "1", "CHATSTREAM_DISCONNECT_GRACE": "never"}
    server = start_server(**settings)
    first, second = make_client(server), make_client(server)
    # A message whose answer was cut by a crash: the next viewer starts a new attempt.
    owed = await second.create(initialMessage="Begin.")
    async with second.stream(owed) as stream:
        await stream.until("llm_chunk")
        await server.kill()
    server = start_server(server.port, **settings)
    assert (await second.answer(owed))["status"] == "interrupted"

    running = await first.create(initialMessage="Begin.")
    theirs = await second.create()
    refused = await second.post(theirs, "Begin.")
    assert (refused.status_code, refused.json()["code"]) == (503, "rate_limited")
    assert int(refused.headers["Retry-After"]) >= 1
    async with second.stream(owed) as stream:
        [error] = await stream.rest()
    assert (error.data["error"], error.data["retryable"]) == ("rate_limited", True)
    assert (await second.http.get(f"{API}/{owed}/stream")).status_code == 503
    # Requests that begin no answer still work.
    async with second.stream(theirs) as stream, first.stream(running) as watched:
        assert (await stream.next()).type == "connected"
        await watched.until("llm_chunk")
    await first.stop_all()
    async with second.stream(owed) as stream:
        await stream.until("llm_chunk")
    await second.stop_all()


# A plug-in that does what nobody may do on an event loop. Between its pauses the loop does what is due.
BLOCKING = """
import asyncio, pathlib, time

blocking = set()

class Plugin:
    async def context(self, turn):
        if turn.message == "Block.":
            blocking.add(asyncio.create_task(block()))
        return ""

async def block():
    while not pathlib.Path("enough").exists():
        time.sleep(0.5)
        await asyncio.sleep(0.02)

def plugin():
    return Plugin()
"""


@pytest.mark.gen_test
async def test_a_process_that_is_late_begins_no_more_answers(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "blocking.py").write_text(BLOCKING)
    late = asyncio.Event()
    upstream.reply(beginning("x"), late, http_chunk(event(delta("y"))), Do.HANG)
    server = start_server(
        CHATSTREAM_PLUGINS="blocking:plugin",
        CHATSTREAM_OVERLOAD_LAG="0.2",  # more than the lag of a busy machine without the plug-in
        CHATSTREAM_ANSWERS_PER_USER="1000",
        CHATSTREAM_DISCONNECT_GRACE="never",
    )
    client = make_client(server)
    running = await begun(client, "Block.")
    async with client.stream(running) as watched, asyncio.timeout(PATIENCE):
        await watched.until("llm_chunk")
        while True:
            refused = await client.http.post(API, json={"initialMessage": "More."})
            # On a busy machine the database may be too slow, and the request fails for that reason first.
            if refused.status_code != 201 and refused.json()["code"] != "storage_unavailable":
                break
        assert (refused.status_code, refused.json()["code"]) == (503, "rate_limited")
        assert int(refused.headers["Retry-After"]) >= 1
        assert (await client.http.get("/healthz")).status_code == 200
        late.set()
        assert (await watched.until("llm_chunk")).data["content"] == "y"  # running streams continue
        (tmp_path / "enough").touch()
        await client.stop_all()
        await begun(client, "Begin.")
    await client.stop_all()


async def begun(client: Client, message: str) -> str:
    """Begin an answer, as soon as the server allows one: a busy test machine may be too late at first. Returns its
    conversation.
    """
    async with asyncio.timeout(PATIENCE):
        while (response := await client.http.post(API, json={"initialMessage": message})).status_code != 201:
            await asyncio.sleep(0.1)  # the server measures its lag; there is no event to wait for
    return str(response.json()["id"])


@pytest.mark.gen_test
async def test_too_many_reads(start_server: StartServer, make_client: MakeClient) -> None:
    server = start_server(CHATSTREAM_READS_PER_MINUTE="3")
    mine, other = make_client(server), make_client(server)
    conversation = await mine.create()
    paths = [API, f"{API}/{conversation}", f"{API}/{conversation}/messages"]
    for left, path in zip((2, 1, 0), paths, strict=True):
        read = await mine.http.get(path)
        assert read.status_code == 200
        assert read.headers["RateLimit-Policy"] == '"reads";q=3;w=60'
        assert read.headers["RateLimit"].startswith(f'"reads";r={left};t=')
    for path in paths:
        assert_limited(await mine.http.get(path), "rate_limited", '"reads";q=3;w=60')
        assert (await other.http.get(path)).status_code in (200, 404)
    # Other requests than reads still work: posting, streaming, deleting.
    async with mine.stream(conversation) as stream:
        assert (await stream.next()).type == "connected"
    assert (await mine.http.delete(f"{API}/{conversation}")).status_code == 204


@pytest.mark.gen_test
async def test_too_many_changes(start_server: StartServer, make_client: MakeClient, upstream: Upstream) -> None:
    upstream.reply(beginning("One "), Do.HANG)
    server = start_server(CHATSTREAM_CHANGES_PER_MINUTE="3")
    mine, other = make_client(server), make_client(server)
    conversation, gone = await mine.create(initialMessage="Begin."), await mine.create()
    one, policy = f"{API}/{conversation}", '"changes";q=3;w=60'
    # Malformed requests change nothing, and do not count.
    for body in ({}, {"title": 7}, {"unknown": "x"}):
        assert (await mine.http.patch(one, json=body)).status_code == 422
    stopped = await mine.http.post(f"{one}/stop")
    changed = await mine.http.patch(one, json={"title": "New"})
    deleted = await mine.http.delete(f"{API}/{gone}")
    assert [response.status_code for response in (stopped, changed, deleted)] == [200, 200, 204]
    assert changed.headers["RateLimit"].startswith('"changes";r=1;t=')
    assert_limited(await mine.http.post(f"{one}/stop"), "rate_limited", policy)
    assert_limited(await mine.http.patch(one, json={"title": "Newer"}), "rate_limited", policy)
    assert_limited(await mine.http.delete(one), "rate_limited", policy)
    assert (await mine.http.get(one)).json()["title"] == "New"
    assert (await other.http.delete(f"{API}/{await other.create()}")).status_code == 204


@pytest.mark.gen_test
async def test_too_many_conversations(start_server: StartServer, make_client: MakeClient) -> None:
    server = start_server(CHATSTREAM_CONVERSATIONS_PER_USER="3")
    mine, other = make_client(server), make_client(server)
    for number in range(3):
        await mine.create(id=f"c{number}")
    for body in ({}, {"id": "c3"}, {"initialMessage": "Hi."}):
        refused = await mine.http.post(API, json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "too_many_conversations")
        assert refused.json()["detail"] == (
            "You have 3 conversations, and cannot have more. Delete some of them, then try again."
        )
    assert (await mine.http.get(f"{API}/c3")).status_code == 404
    await other.create(id="c0")
    # After a deletion there is room for one more; creating an existing one again takes no room.
    assert (await mine.http.delete(f"{API}/c0")).status_code == 204
    for _ in range(3):
        assert (await mine.http.post(API, json={"id": "c1"})).status_code == 409
    await mine.create(id="c3")
    assert (await mine.http.post(API, json={})).status_code == 403
    # They are counted in the database, so also over other processes and after a restart.
    mine_again = make_client(start_server(CHATSTREAM_CONVERSATIONS_PER_USER="4"), mine.user)
    await mine_again.create()
    assert (await mine_again.http.post(API, json={})).status_code == 403


@pytest.mark.gen_test
async def test_too_many_messages_in_one_conversation(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    upstream.reply(answer("Yes."))
    client = make_client(start_server(CHATSTREAM_MESSAGES_PER_CONVERSATION="10"))
    conversation = await client.create()
    for number in range(4):
        asked = await client.post(conversation, f"Question {number}", headers={"Idempotency-Key": f"key-{number}"})
        assert asked.status_code == 201
        await client.answer(conversation)
    for _ in range(2):  # each adds an attempt
        assert (await client.http.post(f"{API}/{conversation}/regenerate")).status_code == 202
        await client.answer(conversation)
    stored, calls = await client.messages(conversation), len(upstream.calls)
    streaming = {"Accept": "text/event-stream"}
    for refused in (
        await client.post(conversation, "More"),
        await client.post(conversation, "More", headers=streaming),
        await client.post(conversation, "More", headers={"Idempotency-Key": "new"}),
        await client.post(conversation, "More", params={"ifBusy": "queue"}),
        await client.http.post(f"{API}/{conversation}/regenerate"),
    ):
        assert (refused.status_code, refused.json()["code"]) == (403, "conversation_full")
        assert refused.json()["detail"] == "This conversation has 10 messages, and cannot have more. Begin a new one."
    assert await client.messages(conversation) == stored
    assert len(upstream.calls) == calls
    # A repeated message still gets its first result; a new conversation has room.
    again = await client.post(conversation, "Question 0", headers={"Idempotency-Key": "key-0"})
    assert (again.status_code, again.json()["content"]) == (200, "Question 0")
    assert (await client.post(await client.create(), "More")).status_code == 201
