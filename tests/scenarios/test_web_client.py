"""chatstream.js in Node.js against a real server: by fetch, with npm's `eventsource`, and with `react-native-sse`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from chatstream import auth
from tests.conftest import MakeClient, StartServer
from tests.stress.faults import FaultProxy
from tests.support.client import Client
from tests.support.processes import SECRET
from tests.support.script import Script, script
from tests.support.upstream import Do, Step, Upstream, answer, beginning, delta, ending, event, head, http_chunk

TRANSPORTS = [None, "eventsource", "react-native-sse"]
every_transport = pytest.mark.parametrize("transport", TRANSPORTS, ids=lambda name: name or "fetch")


@asynccontextmanager
async def chat(client: Client, conversation: str, transport: str | None, **options: Any) -> AsyncIterator[Script]:
    """Run the client, with short delays; an EventSource uses tickets."""
    base = {"baseUrl": client.url, "tokens": [client.token], "reconnectDelay": 50}
    async with script("chat.mjs", base | {"conversationId": conversation, "eventSource": transport} | options) as one:
        yield one


def texts(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in messages]


async def shows_what_is_stored(chatting: Script, client: Client, conversation: str) -> None:
    """Check that the messages that the client assembled from events equal the history."""
    shown = {message["id"]: message for message in await chatting.call("messages")}
    for stored in await client.messages(conversation):
        message = shown.pop(stored["id"])
        for field in ("role", "content", "status", "attempt", "replyTo", "finishReason", "usage", "recommendations"):
            assert message.get(field) == stored.get(field), field
    assert not shown


@every_transport
@pytest.mark.gen_test
async def test_a_chat(client: Client, upstream: Upstream, transport: str | None) -> None:
    upstream.reply(answer("I'd back **Arsenal** at odds of 2.10: ", "take it 🏆."))
    upstream.reply(beginning("Well", ", "), Do.HANG)
    upstream.reply(answer("No bet."))
    conversation = await client.create()
    async with chat(client, conversation, transport) as chatting:
        assert await chatting.call("history") == []
        await chatting.call("connect")
        await chatting.event("connected")
        await chatting.call("send", "Who wins?")
        await chatting.event("system")
        await shows_what_is_stored(chatting, client, conversation)

        await chatting.call("send", "And on Monday?")
        await chatting.event("llm_chunk")
        assert await chatting.call("streaming") is True
        assert (await chatting.call("stop"))["status"] == "stopped"
        await chatting.until(lambda line: line.get("event", {}).get("status") == "stopped")
        assert await chatting.call("streaming") is False

        regenerated = await chatting.call("regenerate")
        await chatting.until(lambda line: line.get("event", {}).get("messageId") == regenerated["id"])
        await chatting.event("llm_complete")
        messages = await chatting.call("messages")
        assert texts(messages)[2:] == [("user", "And on Monday?"), ("assistant", "No bet.")]
        assert messages[-1]["attempt"] == 2
        await chatting.call("disconnect")
        assert await chatting.call("state") == "closed"
    assert not [line for line in chatting.lines if line.get("repeated") or "error" in line]


@pytest.mark.gen_test
async def test_a_long_history_page_by_page(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Yes."))
    conversation = await client.create()
    for number in range(3):
        await client.post(conversation, f"Question {number}?")
        await client.answer(conversation)
    async with chat(client, conversation, None) as chatting:
        await chatting.call("history", {"limit": 2})
        for shown in (2, 4, 6, 6):
            assert len(await chatting.call("messages")) == shown
            assert await chatting.call("hasEarlier") is (shown < 6)
            await chatting.call("earlier", {"limit": 2})
        await shows_what_is_stored(chatting, client, conversation)


@every_transport
@pytest.mark.gen_test
async def test_an_answer_over_five_lost_connections(client: Client, upstream: Upstream, transport: str | None) -> None:
    parts = ["Ärsenal 🏆 ", "by ", "a ", "goal ", "or 👨‍👩‍👧 ", "two."]
    steps = [asyncio.Event() for _ in parts]
    script_: list[Step] = [head()]
    for step, part in zip(steps, parts, strict=True):
        script_ += [step, http_chunk(event(delta(part)))]
    upstream.reply(*script_, ending())
    conversation = await client.create(initialMessage="Who wins?")
    proxy = await FaultProxy(lambda: int(client.url.rpartition(":")[2])).start()
    try:
        options = {"baseUrl": f"http://127.0.0.1:{proxy.port}"}
        async with chat(client, conversation, transport, **options) as chatting:
            await chatting.call("history")  # the history has no text of the answer yet
            await chatting.call("connect")
            steps[0].set()
            for step in steps[1:]:
                await chatting.event("llm_chunk")
                proxy.cut()
                step.set()
            await chatting.event("llm_complete")
            assert len(chatting.events("connected")) == 6
            assert "".join(chunk["content"] for chunk in chatting.events("llm_chunk")) == "".join(parts)
            assert not [line for line in chatting.lines if line.get("repeated")]
            await shows_what_is_stored(chatting, client, conversation)
    finally:
        await proxy.close()
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_a_server_that_is_killed_in_mid_answer(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    upstream.reply(beginning("Before the end. "), Do.HANG)
    upstream.reply(answer("After it."))
    server = start_server()
    client = make_client(server)
    conversation = await client.create(initialMessage="Survive.")
    async with chat(client, conversation, "eventsource") as chatting:
        await chatting.call("history")
        await chatting.call("connect")
        await chatting.event("llm_chunk")
        await server.kill()
        await chatting.state("reconnecting")
        client = make_client(start_server(server.port), client.user)
        await chatting.until(lambda line: line.get("event", {}).get("status") == "complete")
        assert texts(await chatting.call("messages")) == [("user", "Survive."), ("assistant", "After it.")]


@every_transport
@pytest.mark.gen_test
async def test_a_token_that_expires_in_mid_answer(client: Client, upstream: Upstream, transport: str | None) -> None:
    go_on = asyncio.Event()
    upstream.reply(beginning("Before, "), go_on, http_chunk(event(delta("after."))), ending())
    conversation = await client.create(initialMessage="Who wins?")
    async with chat(client, conversation, transport) as chatting:
        await chatting.call("tokens", auth.mint(SECRET, client.user, 3), client.token)
        await chatting.call("connect")
        await chatting.event("llm_chunk")
        await chatting.until(lambda line: line.get("event", {}).get("error") == "token_expired")
        await chatting.event("connected")
        go_on.set()
        complete = await chatting.event("llm_complete")
        assert complete["event"]["content"] == "Before, after."
        assert [chunk["content"] for chunk in chatting.events("llm_chunk")] == ["Before, ", "after."]
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("transport", ["eventsource", "react-native-sse"])
@pytest.mark.gen_test
async def test_without_tickets(client: Client, upstream: Upstream, transport: str) -> None:
    """Only for servers and proxies that accept tokens in URLs."""
    upstream.reply(answer("With a token."))
    conversation = await client.create(initialMessage="Who wins?")
    async with chat(client, conversation, transport, tickets=False) as chatting:
        await chatting.call("connect")
        assert (await chatting.event("llm_complete"))["event"]["content"] == "With a token."


@every_transport
@pytest.mark.gen_test
async def test_what_cannot_be_helped_closes_it(client: Client, transport: str | None) -> None:
    conversation = await client.create()
    for options, code in (
        ({"conversationId": "nowhere"}, "not_found"),
        ({"conversationId": "no/id"}, "invalid_request"),
        ({"tokens": ["not.a.token"]}, "invalid_token"),
    ):
        async with chat(client, conversation, transport, **options) as chatting:
            await chatting.call("connect")
            await chatting.state("closed")
            assert (await chatting.call("error"))["code"] in (code, "unauthenticated")
    async with chat(client, conversation, transport) as chatting:
        await chatting.call("connect")
        await chatting.event("connected")
        await client.http.delete(f"/api/v1/chat/conversations/{conversation}")
        await chatting.state("closed")
        assert {"error": "conversation_deleted", "status": None, "messageId": None} in chatting.lines
