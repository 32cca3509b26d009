"""useChatSSE in React's test renderer, under StrictMode, against a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from chatstream import auth
from tests.stress.faults import FaultProxy
from tests.support.client import PATIENCE, Client
from tests.support.processes import SECRET
from tests.support.script import Line, Script, script
from tests.support.upstream import Do, Upstream, answer, beginning, delta, ending, event, http_chunk, whole


@asynccontextmanager
async def hook(client: Client, conversation: str, *, react: str = "19.3", **props: Any) -> AsyncIterator[Script]:
    """Run a component with the hook, with short delays."""
    base = {"baseUrl": client.url, "accessToken": client.token, "reconnectDelay": 50, "conversationId": conversation}
    async with script("hook.mjs" if react == "19.3" else "with_react_18.mjs", base | props) as one:
        line = await one.until(lambda line: "version" in line)
        assert line["version"].startswith(react)
        yield one


async def shown(component: Script, **wanted: object) -> dict[str, Any]:
    """Wait for the next rendering with these values."""
    line = await component.until(lambda line: line.get("shown", {}) | wanted == line.get("shown", {}))
    return dict(line["shown"])


def renderings(component: Script) -> list[dict[str, Any]]:
    return [line["shown"] for line in component.lines if "shown" in line]


def called(component: Script, name: str) -> list[Any]:
    """The values of a callback's calls."""
    return [line["value"] for line in component.lines if line.get("callback") == name]


def writes(text: str) -> Any:
    """A condition: the line shows this text of the streaming message."""

    def matches(line: Line) -> bool:
        message = line.get("shown", {}).get("currentStreamingMessage")
        return message is not None and message["content"] == text

    return matches


@pytest.mark.parametrize("react", ["18.3", "19.3"])
@pytest.mark.gen_test
async def test_two_turns_as_the_seeds_hook_shows_them(client: Client, upstream: Upstream, react: str) -> None:
    go_on = asyncio.Event()
    bet = "I'd back **Arsenal** at odds of 2.10: "
    upstream.reply(beginning(bet), go_on, http_chunk(event(delta("take it."))), ending())
    upstream.reply(answer("No bet."))
    conversation = await client.create()
    async with hook(client, conversation, react=react) as component:
        first = await shown(component)
        assert (first["error"], first["messages"], first["currentStreamingMessage"]) == (None, [], None)
        await shown(component, status="connected", isStreaming=False)
        await component.call("send", "Who wins?")
        streaming = (await component.until(writes(bet)))["shown"]  # maybe together with `isStreaming`
        assert streaming["isStreaming"] is True
        assert streaming["messages"] == []
        assert streaming["currentStreamingMessage"].items() >= {"type": "assistant", "isStreaming": True}.items()
        go_on.set()
        ended = (await component.until(lambda line: len(line.get("shown", {}).get("messages", [])) == 2))["shown"]
        assert (ended["currentStreamingMessage"], ended["isStreaming"]) == (None, False)
        assert ended["messages"][0] == streaming["currentStreamingMessage"] | {
            "content": bet + "take it.",
            "isStreaming": False,
            "timestamp": ended["messages"][0]["timestamp"],
        }
        await component.call("send", "And on Monday?")
        last = (await component.until(lambda line: len(line.get("shown", {}).get("messages", [])) == 3))["shown"]
        assert [(message["type"], message["content"]) for message in called(component, "onMessage")] == [
            ("assistant", bet + "take it."),
            ("system", "New bet recommendation available"),
            ("assistant", "No bet."),
        ]
        assert called(component, "onMessage")[1]["metadata"]["odds"] == 2.1
        assert [message["id"] for message in last["messages"]] == [
            message["id"] for message in called(component, "onMessage")
        ]
        assert [message["content"] for message in last["transcript"] if message["role"] == "user"] == [
            "Who wins?",
            "And on Monday?",
        ]
        await component.call("clearMessages")
        await shown(component, messages=[], transcript=[])
    # StrictMode mounts it twice: at most the second connection was opened.
    assert len(called(component, "onConnect")) == 1
    assert called(component, "onError") == []


@pytest.mark.gen_test
async def test_an_answer_that_fails_and_another_try(client: Client, upstream: Upstream) -> None:
    refused = {"error": {"message": "sk-secret", "type": "invalid_request_error", "code": None}}
    upstream.reply(whole("400 Bad Request", refused))
    upstream.reply(answer("Better."))
    conversation = await client.create()
    async with hook(client, conversation) as component:
        await shown(component, status="connected")
        await component.call("send", "Who wins?")
        failed = await shown(component, error="The model refused this request.", isStreaming=False)
        assert failed["messages"] == []
        assert failed["transcript"][-1]["error"]["error"] == "upstream_rejected"
        await component.call("regenerate")
        better = await shown(component, error=None, isStreaming=False)
        assert [message["content"] for message in better["messages"]] == ["Better."]
    assert called(component, "onError") == ["The model refused this request."]


@pytest.mark.gen_test
async def test_five_reconnects_in_mid_answer(client: Client, upstream: Upstream) -> None:
    parts = ["Ärsenal 🏆 ", "by ", "a ", "goal ", "or ", "two."]
    steps = [asyncio.Event() for _ in parts[1:]]
    upstream.reply(
        beginning(parts[0]),
        *[
            step
            for pair in zip(steps, [http_chunk(event(delta(part))) for part in parts[1:]], strict=True)
            for step in pair
        ],
        ending(),
    )
    conversation = await client.create(initialMessage="Who wins?")
    proxy = await FaultProxy(lambda: int(client.url.rpartition(":")[2])).start()
    try:
        async with hook(client, conversation, baseUrl=f"http://127.0.0.1:{proxy.port}") as component:
            for index, step in enumerate(steps, start=1):
                await component.until(writes("".join(parts[:index])))
                proxy.cut()
                lost = await shown(component, status="reconnecting")
                assert lost["currentStreamingMessage"]["content"] == "".join(parts[:index])
                await shown(component, status="connected", error=None)
                step.set()
            ended = await shown(component, isStreaming=False)
            assert [message["content"] for message in ended["messages"]] == ["".join(parts)]
            assert len(called(component, "onConnect")) == 6
            assert len(called(component, "onDisconnect")) == 5
            assert len(called(component, "onMessage")) == 1
    finally:
        await proxy.close()
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_it_gives_up_after_five_tries_and_connects_when_told(client: Client, upstream: Upstream) -> None:
    conversation = await client.create()
    proxy = await FaultProxy(lambda: int(client.url.rpartition(":")[2])).start()
    try:
        base_url = f"http://127.0.0.1:{proxy.port}"
        async with hook(client, conversation, baseUrl=base_url, reconnectDelay=1) as component:
            await shown(component, status="connected")
            proxy.refuse()
            given_up = await shown(component, status="disconnected")
            assert given_up["error"] == "The connection is lost."
            assert len(called(component, "onError")) == 5 + 2  # the lost connection, five tries, and giving up
            proxy.heal()
            await component.call("connect")
            await shown(component, status="connected", error=None)
    finally:
        await proxy.close()


@pytest.mark.gen_test
async def test_a_new_token_in_mid_answer(client: Client, upstream: Upstream) -> None:
    steps = [asyncio.Event(), asyncio.Event()]
    upstream.reply(
        beginning("One, "),
        *(steps[0], http_chunk(event(delta("two, ")))),
        *(steps[1], http_chunk(event(delta("three.")))),
        ending(),
    )
    conversation = await client.create(initialMessage="Count.")
    # Another device watches: after a refused token the client waits one second before the next try, as long as the
    # grace period here.
    async with client.stream(conversation), hook(client, conversation, accessToken=None) as component:
        await shown(component)
        await component.call("props", {"accessToken": auth.mint(SECRET, client.user, 3)})
        await component.until(writes("One, "))
        await component.call("props", {"accessToken": auth.mint(SECRET, client.user, 6)})  # before the old one expires
        await shown(component, status="reconnecting")
        await shown(component, status="connected")
        steps[0].set()
        await component.until(writes("One, two, "))
        refused = await shown(component, status="disconnected")  # and now after it
        assert refused["error"] is not None
        assert refused["currentStreamingMessage"]["content"] == "One, two, "
        await component.call("props", {"accessToken": client.token})
        await shown(component, status="connected", error=None)
        steps[1].set()
        ended = await shown(component, isStreaming=False)
        assert [message["content"] for message in ended["messages"]] == ["One, two, three."]
        had_text = [bool(one["currentStreamingMessage"] or one["messages"]) for one in renderings(component)]
        assert all(had_text[had_text.index(True) :]), "the text was never gone"
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_unmounting_ends_the_answer_that_nobody_else_watches(client: Client, upstream: Upstream) -> None:
    upstream.reply(beginning("For nobody"), Do.HANG)
    conversation = await client.create(initialMessage="Who is there?")
    async with hook(client, conversation) as component:
        await component.until(writes("For nobody"))
        await component.call("unmount")
        async with asyncio.timeout(PATIENCE):
            await upstream.calls[0].aborted.wait()
        assert (await client.answer(conversation))["status"] == "interrupted"
        await component.until(lambda line: line.get("callback") == "onDisconnect")


@pytest.mark.gen_test
async def test_another_conversation_and_back(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("In the first."))
    upstream.reply(answer("In the second."))
    first = await client.create(initialMessage="One")
    await client.answer(first)
    second = await client.create(initialMessage="Two")
    await client.answer(second)
    async with hook(client, first) as component:
        await shown(component, status="connected")
        await component.call("history")
        await component.until(lambda line: "In the first." in str(line.get("shown", {}).get("messages")))
        await component.call("props", {"conversationId": second})
        assert (await shown(component, messages=[]))["status"] == "disconnected"
        await shown(component, status="connected")
        await component.call("history")
        shown_now = await component.until(lambda line: "In the second." in str(line.get("shown", {}).get("messages")))
        assert "In the first." not in str(shown_now)
        await component.call("props", {"enabled": False})
        await shown(component, status="disconnected")


@pytest.mark.gen_test
async def test_an_inline_token_function_that_is_refused_does_not_storm(client: Client) -> None:
    """Each rendering creates a new function, and each refusal causes a rendering: an earlier version sent 788 requests
    a second.
    """
    conversation = await client.create()
    async with hook(client, conversation, inlineToken="not.a.token", history=True) as component:
        await shown(component, status="disconnected", error="The token is not valid.")
        for number in range(20):
            await component.call("props", {"number": number})
        refused = component.requests
        assert 1 <= len(refused) <= 4  # StrictMode mounts it twice; each time once more, with a fresh token
        await component.call("props", {"inlineToken": client.token})
        await shown(component, status="connected", error=None)
        assert len(component.requests) == len(refused) + 2  # the history, the stream
        assert called(component, "onError")


@pytest.mark.gen_test
async def test_the_history_is_there_and_asked_for_again(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Before."))
    conversation = await client.create(initialMessage="First?")
    await client.answer(conversation)
    proxy = await FaultProxy(lambda: int(client.url.rpartition(":")[2])).start()
    try:
        proxy.refuse()
        base_url = f"http://127.0.0.1:{proxy.port}"
        async with hook(client, conversation, baseUrl=base_url, history=True, maxReconnectAttempts=99) as component:
            await shown(component, status="reconnecting", error="The connection failed.")
            proxy.heal()
            connected = await shown(component, status="connected", error=None)
            assert [message["content"] for message in connected["transcript"]] == ["First?", "Before."]
            await component.call("send", "Second?")
            await component.until(lambda line: len(line.get("shown", {}).get("transcript", [])) == 4)
    finally:
        await proxy.close()


@pytest.mark.gen_test
async def test_an_earlier_attempt_is_looked_at_while_a_newer_one_is_written(client: Client, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    upstream.reply(answer("First."))
    upstream.reply(beginning("Second "), go_on, http_chunk(event(delta("try."))), ending())
    conversation = await client.create(initialMessage="Well?")
    first = (await client.answer(conversation))["id"]
    async with hook(client, conversation, history=True) as component:
        await shown(component, status="connected", lookedAt=None, busyElsewhere=False)
        await component.call("regenerate")
        await component.until(writes("Second "))
        await component.call("lookAt", first)
        looking = await shown(component, status="connected", lookedAt=first, busyElsewhere=True)
        assert [message["content"] for message in looking["transcript"]] == ["Well?", "First."]
        go_on.set()
        ended = await shown(component, lookedAt=first, busyElsewhere=False)
        assert ended["transcript"] == looking["transcript"]
        await component.call("showBranch", looking["transcript"][1]["siblings"][1])
        newest = await shown(component, status="connected", lookedAt=None)
        assert newest["transcript"][1]["content"] == "Second try."


@pytest.mark.gen_test
async def test_without_a_token_nothing_is_tried(client: Client) -> None:
    conversation = await client.create()
    async with hook(client, conversation, accessToken=None) as component:
        assert (await shown(component))["status"] == "disconnected"
        await component.call("connect")
        await shown(component, status="disconnected", error="An access token is required.")
        await component.call("props", {"accessToken": client.token})
        await shown(component, status="connected")
