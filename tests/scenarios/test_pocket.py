"""A phone in the pocket: the fate of an answer without viewers, and the number of model calls that are paid for. With a
grace period of 0, the server cuts an answer at once when its last viewer leaves. So any absence here stands for one
longer than the grace period, such as 20 s with the default of 15 s.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from tests.conftest import MakeClient, StartServer
from tests.support.client import API, PATIENCE, Client, Stream
from tests.support.processes import ServerProcess
from tests.support.upstream import Do, Upstream, answer, beginning, delta, ending, event, http_chunk

pytestmark = pytest.mark.xdist_group("pocket")  # they share servers


async def default(client: Client) -> str:
    conversation = await client.create()
    await client.post(conversation, "Tell me.")
    return conversation


async def background_message(client: Client) -> str:
    conversation = await client.create()
    url = f"{API}/{conversation}/messages"
    posted = await client.http.post(url, json={"content": "Tell me.", "background": True})
    assert posted.status_code == 201
    return conversation


async def background_in_the_query(client: Client) -> str:
    conversation = await client.create()
    assert (await client.post(conversation, "Tell me.", params={"background": "true"})).status_code == 201
    return conversation


async def background_conversation(client: Client) -> str:
    return await client.create(background=True, initialMessage="Tell me.")


async def changed_before(client: Client) -> str:
    conversation = await client.create()
    changed = await client.http.patch(f"{API}/{conversation}", json={"background": True})
    assert changed.json()["background"] is True
    await client.post(conversation, "Tell me.")
    return conversation


async def changed_meanwhile(client: Client) -> str:
    conversation = await default(client)
    await client.http.patch(f"{API}/{conversation}", json={"background": True})
    return conversation


async def not_in_background(client: Client) -> str:
    conversation = await client.create(background=True)
    url = f"{API}/{conversation}/messages"
    await client.http.post(url, json={"content": "Tell me.", "background": False})
    return conversation


# For each policy: the request for the answer, the grace period, and whether the answer finishes without viewers.
POLICIES: dict[str, tuple[Callable[[Client], Awaitable[str]], str, bool]] = {
    "the grace": (default, "0", False),
    "never": (default, "never", True),
    "background message": (background_message, "0", True),
    "background in the query": (background_in_the_query, "0", True),
    "background conversation": (background_conversation, "0", True),
    "background since before": (changed_before, "0", True),
    "background since a moment ago": (changed_meanwhile, "0", True),
    "a message that does not want it": (not_in_background, "0", False),
}


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Iterator[Callable[[str], ServerProcess]]:
    """One server for each grace period, with short heartbeats, which show that no further event comes."""
    started: dict[str, ServerProcess] = {}

    def server(grace: str) -> ServerProcess:
        if grace not in started:
            directory = tmp_path_factory.mktemp("pocket")
            settings = {
                "MONGODB_DATABASE": f"pocket-{uuid.uuid4().hex}",
                "CHATSTREAM_DISCONNECT_GRACE": grace,
                "CHATSTREAM_HEARTBEAT_INTERVAL": "0.3",
                "CHATSTREAM_TITLES": "off",  # a late title would be a request to the next test's model
            }
            started[grace] = ServerProcess(directory, environment | settings).start().wait_until_ready()
        return started[grace]

    yield server
    for each in started.values():
        assert each.stop() == 0


async def look(client: Client, conversation: str, cursor: str | None = None) -> list[tuple[str, str | None]]:
    """Watch until a heartbeat shows that nothing follows; returns the events' types, each with its status or code."""
    headers = {"Last-Event-ID": cursor} if cursor else {}
    async with client.stream(conversation, headers=headers) as watched:
        await watched.until("heartbeat")
        events = [frame for frame in watched.frames if frame.type not in ("connected", "heartbeat", "llm_chunk")]
        return [(one.type, one.data.get("status") or one.data.get("error")) for one in events]


MAIN = ["the grace", "never", "background message"]


@pytest.mark.parametrize(
    ("policy", "away"),
    [(policy, away) for policy in MAIN for away in ("20 s", "2 min", "20 min")]
    + [(policy, "20 s") for policy in POLICIES if policy not in MAIN],
)
@pytest.mark.gen_test
async def test_a_phone_that_is_away(
    servers: Callable[[str], ServerProcess], make_client: MakeClient, upstream: Upstream, policy: str, away: str
) -> None:
    """There is one model call, whenever viewers come back; they get the whole answer if the policy lets it finish."""
    ask, grace, given = POLICIES[policy]
    go_on = asyncio.Event()
    upstream.reply(beginning("So far, "), go_on, http_chunk(event(delta("so good."))), ending())
    upstream.reply(beginning("This one is cut."), Do.HANG)
    client = make_client(servers(grace))
    conversation = await ask(client)
    async with client.stream(conversation) as watched:
        await watched.until("llm_chunk")
    if not given:
        await client.answer(conversation)
    elif grace == "0":  # when another answer was cut, this one would have been cut, too
        other = await client.create(initialMessage="Tell me, too.")
        async with client.stream(other) as watched_too:
            await watched_too.until("llm_chunk")
        assert (await client.answer(other))["status"] == "interrupted"
    calls = len(upstream.calls)

    if away != "20 s":  # after this time the answer would be over
        go_on.set()
        await client.answer(conversation)
    cursor = watched.cursor if away != "20 min" else None  # the phone has ended the app
    if given and cursor:
        async with client.stream(conversation, headers={"Last-Event-ID": cursor}) as again:
            go_on.set()
            complete = await again.until("llm_complete")
            assert (complete.data["content"], complete.data["status"]) == ("So far, so good.", "complete")
            assert again.text == "so good."
        assert again.types == ["connected", "llm_chunk", "llm_complete"]
    elif given:
        newest = (await client.messages(conversation))[-1]
        assert (newest["status"], newest["content"]) == ("complete", "So far, so good.")
        assert await look(client, conversation) == []
    else:
        told = await look(client, conversation, cursor)
        cut = [("error", "answer_interrupted"), ("llm_complete", "interrupted")]
        assert told == (cut if cursor else [])  # without a cursor: the history, which was read above, has the answer
        for _ in range(2):
            assert await look(client, conversation) == []
        newest = (await client.messages(conversation))[-1]
        assert (newest["status"], newest["content"]) == ("interrupted", "So far, ")
        assert newest["error"]["retryable"] is True
        once = await client.http.get(f"{API}/{conversation}/stream", params={"once": "true"})
        assert once.status_code == 204
    assert len(upstream.calls) == calls
    await client.stop_all()  # no answer may be left that would ask the next test's model


@pytest.mark.gen_test
async def test_who_comes_back_and_asks_again_does_not_lose_it_twice(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    """A user looks every 20 s at an answer that takes 90 s: after at most two model calls it is complete."""
    go_on = asyncio.Event()
    upstream.reply(beginning("Cut."), Do.HANG)
    upstream.reply(beginning("All "), go_on, http_chunk(event(delta("of it."))), ending())
    upstream.reply(beginning("Control."), Do.HANG)
    client = make_client(start_server(CHATSTREAM_DISCONNECT_GRACE="0"))
    conversation = await default(client)
    async with client.stream(conversation) as watched:
        await watched.until("llm_chunk")
    await client.answer(conversation)
    async with client.stream(conversation) as watched:
        again = await client.http.post(f"{API}/{conversation}/regenerate")
        assert again.status_code == 202
        await watched.until("llm_chunk")
    other = await default(client)
    async with client.stream(other) as watched:
        await watched.until("llm_chunk")
    await client.answer(other)
    async with client.stream(conversation) as watched:
        assert (await watched.until("llm_chunk")).data["content"] == "All "
    go_on.set()
    assert (await client.answer(conversation))["content"] == "All of it."
    assert len(upstream.calls) == 3


@pytest.mark.gen_test
async def test_asking_again_may_say_that_it_need_not_finish(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    upstream.reply(answer("One."))
    upstream.reply(beginning("Two"), Do.HANG)
    client = make_client(start_server(CHATSTREAM_DISCONNECT_GRACE="0"))
    conversation = await background_conversation(client)
    await client.answer(conversation)
    refused = await client.http.post(f"{API}/{conversation}/regenerate", params={"background": "perhaps"})
    assert refused.status_code == 400
    async with client.stream(conversation) as watched:
        await client.http.post(f"{API}/{conversation}/regenerate", params={"background": "false"})
        await watched.until("llm_chunk")
    assert (await client.answer(conversation))["status"] == "interrupted"


@pytest.mark.gen_test
async def test_a_background_answer_is_ended_by_stop_and_by_deletion(client: Client, upstream: Upstream) -> None:
    upstream.reply(beginning("For ever"), Do.HANG)
    for end in ("stop", "delete"):
        conversation = await background_conversation(client)
        async with client.stream(conversation) as watched:
            await watched.until("llm_chunk")
        if end == "stop":
            assert (await client.http.post(f"{API}/{conversation}/stop")).json()["status"] == "stopped"
        else:
            await client.http.delete(f"{API}/{conversation}")
        await asyncio.wait_for(upstream.calls[-1].aborted.wait(), PATIENCE)


@pytest.mark.gen_test
async def test_another_process_may_be_told_to_let_it_finish(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    """The generating process reads that with its next checkpoint."""
    go_on = asyncio.Event()
    upstream.reply(beginning("To "), go_on, http_chunk(event(delta("the end."))), ending())
    upstream.reply(beginning("Control."), Do.HANG)
    here = make_client(start_server(CHATSTREAM_DISCONNECT_GRACE="2"))
    there = make_client(start_server(CHATSTREAM_DISCONNECT_GRACE="2"), here.user)
    conversation = await default(here)
    async with here.stream(conversation) as watched:
        await watched.until("llm_chunk")
        await there.http.patch(f"{API}/{conversation}", json={"background": True})
    other = await default(here)
    async with here.stream(other) as watched:
        await watched.until("llm_chunk")
    await here.answer(other)
    go_on.set()
    assert (await here.answer(conversation))["content"] == "To the end."


@pytest.mark.gen_test
async def test_background_is_shown_and_can_be_taken_back(client: Client) -> None:
    conversation = await client.create(background=True)
    url = f"{API}/{conversation}"
    assert (await client.http.get(url)).json()["background"] is True
    for body, expected in [({"title": "Bets"}, True), ({"background": False}, False), ({"background": True}, True)]:
        assert (await client.http.patch(url, json=body)).json()["background"] is expected
    assert (await client.http.patch(url, json={"background": None})).json()["background"] is False
    listed = (await client.http.get(API)).json()["conversations"]
    assert [one["background"] for one in listed] == [False]
    for wrong in ("yes", 1, "true"):
        assert (await client.http.patch(url, json={"background": wrong})).status_code == 422
        assert (
            await client.http.post(f"{url}/messages", json={"content": "Hi", "background": wrong})
        ).status_code == 422


# What we cut ourselves ------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_once_goes_on_into_the_attempt_that_follows_a_crash(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    """With either grace, at the same time: it takes a while until the database shows that a process is gone."""
    graces = ("1", "never")
    for _ in graces:
        upstream.reply(beginning("Before the end. "), Do.HANG)
    upstream.reply(answer("After it."))
    servers = [start_server(CHATSTREAM_DISCONNECT_GRACE=grace) for grace in graces]
    clients = [make_client(server) for server in servers]
    async with AsyncExitStack() as stack:
        begun = [await begin(stack, client) for client in clients]
        for server in servers:
            await server.kill()

    async def goes_on(client: Client, conversation: str, watched: Stream) -> None:
        params = {"once": "true", "last_event_id": watched.cursor}
        async with client.stream(conversation, params=params) as again:
            await again.rest()
            assert again.types == ["connected", "llm_complete", "llm_chunk", "llm_complete"]
            assert [frame.data["status"] for frame in again.frames if frame.type == "llm_complete"] == [
                "interrupted",
                "complete",
            ]
        first, second = [one for one in await client.messages(conversation) if one["role"] == "assistant"]
        assert (first["status"], first["error"], second["status"]) == ("interrupted", None, "complete")

    for server, grace in zip(servers, graces, strict=True):
        start_server(server.port, CHATSTREAM_DISCONNECT_GRACE=grace)
    await asyncio.gather(*(goes_on(client, *each) for client, each in zip(clients, begun, strict=True)))
    assert len(upstream.calls) == 2 * len(graces)


async def begin(stack: AsyncExitStack, client: Client) -> tuple[str, Stream]:
    """Begin an answer, and wait until it is stored so far; returns the conversation and its viewer's stream."""
    conversation = await client.create()
    watched = await stack.enter_async_context(client.stream(conversation))
    await client.post(conversation, "Survive.")
    await watched.until("llm_chunk")
    await client.saved(conversation)
    return conversation, watched


@pytest.mark.gen_test
async def test_a_ui_message_stream_goes_on_into_the_attempt_that_follows_a_crash(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    """A message cannot withdraw text: a viewer with text of the first attempt gets its end, and resumes to get the next
    attempt.
    """
    cursors = ("none", "question", "middle")
    for _ in cursors:
        upstream.reply(beginning("Before the end. "), Do.HANG)
    upstream.reply(answer("After it."))
    server = start_server()
    client = make_client(server)
    async with AsyncExitStack() as stack:
        begun = [await begin(stack, client) for _ in cursors]
        await server.kill()
    start_server(server.port)

    async def goes_on(cursor: str, conversation: str, watched: Stream) -> None:
        question = (await client.messages(conversation))[0]
        # The viewer "middle" gets the end when the process is found to be gone; the others come later.
        if cursor != "middle":
            assert (await client.answer(conversation))["status"] == "interrupted"
        params = {"format": "ui-message-stream"}
        if cursor != "none":
            params["last_event_id"] = f"{question['id']}.user" if cursor == "question" else watched.cursor
        body = (await client.http.get(f"{API}/{conversation}/stream", params=params)).text
        assert '"error"' not in body.replace('"error":null', "")
        assert body.endswith("data: [DONE]\n\n")
        if cursor == "middle":
            assert '"status":"interrupted"' in body
            assert "After it." not in body
            params["last_event_id"] = f"{question['id']}.user"
            body = (await client.http.get(f"{API}/{conversation}/stream", params=params)).text
        assert body.count('"type":"start"') == body.count('"type":"finish"') == 1
        assert "Before" not in body
        assert '"delta":"After it."' in body
        assert '"status":"complete"' in body

    await asyncio.gather(*(goes_on(cursor, *each) for cursor, each in zip(cursors, begun, strict=True)))
    assert len(upstream.calls) == 2 * len(cursors)
