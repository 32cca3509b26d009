"""The AI SDK's `useChat` as used in `examples/use-chat.tsx`, in each of its versions, on a real server."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.conftest import MakeClient, StartServer
from tests.stress.faults import FaultProxy
from tests.support.client import API, PATIENCE, Client
from tests.support.script import Line, Script, script
from tests.support.upstream import Do, Upstream, answer, beginning, delta, ending, event, http_chunk, whole

# The first and the newest of each major; 5.0.60 is a version without finish reasons.
VERSIONS = ["5.0.0", "5.0.60", "5", "6.0.0", "6", "7.0.0", "7"]
NEWEST = VERSIONS[-1]
every_version = pytest.mark.parametrize("version", VERSIONS)
# Each version with the example's format, which all of them can read; and each major version with its own format, also
# before there were finish reasons.
every_version_and_format = pytest.mark.parametrize(
    ("version", "format_"),
    [(version, "") for version in VERSIONS]
    + [(version, f"format=ui-message-stream&version={version[0]}") for version in ("5.0.0", "5.0.60", "6", "7")],
)
# For tests that depend on how the oldest and the newest version read a stream.
OLDEST_AND_NEWEST = [VERSIONS[0], NEWEST]
oldest_and_newest = pytest.mark.parametrize("version", OLDEST_AND_NEWEST)


@asynccontextmanager
async def chat(
    client: Client, conversation: str, version: str = NEWEST, history: object = None, **props: Any
) -> AsyncIterator[Script]:
    """Run a component with the hook, which has loaded its history."""
    base = {"version": version, "server": client.url, "token": client.token, "id": conversation}
    async with script("use_chat.mjs", base | props) as one:
        await one.call("mount", history)
        yield one


def text(message: dict[str, Any]) -> str:
    """All of a message's text."""
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


def reasoning(message: dict[str, Any]) -> str:
    """All reasoning of a message."""
    return "".join(part["text"] for part in message["parts"] if part["type"] == "reasoning")


def texts(line: Line) -> list[str]:
    """The texts of a rendering's messages."""
    return [text(message) for message in line["messages"]]


def shows(status: str, *wanted: str) -> Callable[[Line], bool]:
    """Wait for a rendering with this status and these messages."""
    return lambda line: line.get("status") == status and texts(line) == [*wanted]


def problems(component: Script) -> list[str]:
    """All errors that the component has shown."""
    return [line["error"] for line in component.lines if line.get("error")]


@every_version_and_format
@pytest.mark.gen_test
async def test_a_chat_in_every_version(client: Client, upstream: Upstream, version: str, format_: str) -> None:
    """Create, send, stop, regenerate, leave, ask, fail, retry: the hook never throws, and shows the stored messages."""
    go_on = asyncio.Event()
    upstream.reply(
        beginning("I'd back **Arsenal** at odds of 2.10: "), go_on, http_chunk(event(delta("take it 🏆."))), ending()
    )
    upstream.reply(beginning("Half"), Do.HANG)
    upstream.reply(answer("All of it."))
    upstream.reply(beginning("Left"), Do.HANG)
    upstream.reply(answer("Asked."))
    upstream.reply(beginning("Broken"), Do.RESET)
    upstream.reply(answer("Mended."))
    conversation = f"made-by-the-client-{uuid.uuid4().hex}"
    async with chat(client, conversation, version, format=format_) as component:
        await component.call("send", "Who wins?")
        await component.until(shows("streaming", "Who wins?", "I'd back **Arsenal** at odds of 2.10: "))
        go_on.set()
        first = ("Who wins?", "I'd back **Arsenal** at odds of 2.10: take it 🏆.")
        await component.until(shows("ready", *first))

        await component.call("send", "Go on.")
        await component.until(shows("streaming", *first, "Go on.", "Half"))
        await component.call("stop")
        stopped = await component.until(shows("ready", *first, "Go on.", "Half"))
        assert stopped["messages"][-1]["metadata"]["status"] == "stopped"
        await component.call("regenerate")
        second = (*first, "Go on.", "All of it.")
        again = await component.until(shows("ready", *second))
        assert again["messages"][-1]["metadata"]["attempt"] == 2

        await component.call("send", "Leave.")
        await component.until(shows("streaming", *second, "Leave.", "Left"))
        await component.call("leave")
        await component.until(shows("ready", *second, "Leave.", "Left"))
        await component.call("send", "Ask.")
        third = (*second, "Leave.", "Left", "Ask.", "Asked.")
        await component.until(shows("ready", *third))
        assert problems(component) == []

        await component.call("send", "Break.")
        failed = await component.until(shows("error", *third, "Break.", "Broken"))
        assert failed["error"] == "The answer broke off before it was finished. Try again."
        metadata = failed["messages"][-1]["metadata"]
        assert (metadata["status"], metadata["error"]["code"]) == ("failed", "upstream_truncated")
        await component.call("regenerate")
        ready = await component.until(shows("ready", *third, "Break.", "Mended."))
        assert set(problems(component)) == {failed["error"]}
        loaded = (await component.call("history"))["messages"]
    assert texts({"messages": loaded}) == texts(ready)
    for shown, stored in zip(ready["messages"], loaded, strict=True):
        assert shown["id"] == stored["id"]
        if shown["role"] == "assistant" and text(shown) != "Left":  # the client did not get the end of this message
            assert shown["metadata"] == stored["metadata"]


@every_version_and_format
@pytest.mark.gen_test
async def test_what_a_model_thinks_is_a_part_in_every_version(
    client: Client, upstream: Upstream, version: str, format_: str
) -> None:
    """Watched from the beginning, and by a page that is opened during the reasoning; the history is the same."""
    go_on = asyncio.Event()
    upstream.reply(
        beginning("<think>Form 👩‍👩‍👧 "),
        go_on,
        *[http_chunk(event(delta(one))) for one in ("first.</thi", "nk>Take ", "Leeds.")],
        ending(),
    )
    conversation = f"made-by-the-client-{uuid.uuid4().hex}"

    def ends(line: Line) -> bool:
        return line.get("status") == "ready" and texts(line)[-1:] == ["Take Leeds."]

    def thinks(line: Line) -> bool:
        return bool(line.get("messages")) and reasoning(line["messages"][-1]) == "Form 👩‍👩‍👧 "

    async with chat(client, conversation, version, format=format_) as component:
        await component.call("send", "Who wins?")
        await component.until(thinks)
        async with chat(client, conversation, version, format=format_) as opened:
            await opened.until(thinks)
            go_on.set()
            for one in (component, opened):
                ready = await one.until(ends)
                assert reasoning(ready["messages"][-1]) == "Form 👩‍👩‍👧 first."
                assert problems(one) == []
        stored = (await component.call("history"))["messages"][-1]
    assert (reasoning(stored), text(stored)) == ("Form 👩‍👩‍👧 first.", "Take Leeds.")


@every_version
@pytest.mark.gen_test
async def test_a_thinking_model_is_stopped_left_asked_again_and_fails(
    client: Client, upstream: Upstream, version: str
) -> None:
    """During the reasoning and during the text: there is no exception, and the page shows the stored message."""
    upstream.reply(beginning("<think>Hm, "), Do.HANG)
    upstream.reply(answer("<think>Form.</think>", "Take Leeds."))
    upstream.reply(beginning("<think>Well, "), Do.HANG)
    upstream.reply(beginning("<think>Odds.</think>Take "), Do.HANG)
    upstream.reply(beginning("<think>Broken"), Do.RESET)
    upstream.reply(answer("<think>Mended.</think>", "Take both."))
    conversation = f"made-by-the-client-{uuid.uuid4().hex}"

    def thinks(wanted: str) -> Callable[[Line], bool]:
        return lambda line: bool(line.get("messages")) and reasoning(line["messages"][-1]) == wanted

    async with chat(client, conversation, version) as component:
        await component.call("send", "One?")
        await component.until(thinks("Hm, "))
        await component.call("stop")
        stopped = await component.until(lambda line: line.get("status") == "ready" and thinks("Hm, ")(line))
        assert stopped["messages"][-1]["metadata"]["status"] == "stopped"
        await component.call("regenerate")
        first = ("One?", "Take Leeds.")
        await component.until(lambda line: shows("ready", *first)(line) and thinks("Form.")(line))

        await component.call("send", "Two?")
        await component.until(thinks("Well, "))
        await component.call("leave")
        await component.until(shows("ready", *first, "Two?", ""))
        await component.call("send", "Three?")
        second = (*first, "Two?", "", "Three?", "Take ")
        await component.until(shows("streaming", *second))
        await component.call("stop")
        await component.until(shows("ready", *second))
        assert problems(component) == []

        await component.call("send", "Four?")
        failed = await component.until(lambda line: line.get("status") == "error")
        assert failed["error"] == "The answer broke off before it was finished. Try again."
        assert thinks("Broken")(failed)
        await component.call("regenerate")
        ready = await component.until(shows("ready", *second, "Four?", "Take both."))
        assert reasoning(ready["messages"][-1]) == "Mended."
        assert set(problems(component)) == {failed["error"]}
        loaded = (await component.call("history"))["messages"]
    for shown, stored in zip(ready["messages"], loaded, strict=True):
        assert (shown["id"], text(shown), reasoning(shown)) == (stored["id"], text(stored), reasoning(stored))


@every_version
@pytest.mark.gen_test
async def test_a_page_that_is_opened_in_mid_answer(client: Client, upstream: Upstream, version: str) -> None:
    """The page shows the user's question, gets the answer from its beginning, and repeats nothing."""
    go_on = asyncio.Event()
    upstream.reply(answer("Before."))
    upstream.reply(beginning("One "), go_on, http_chunk(event(delta("answer, once."))), ending())
    conversation = await client.create(initialMessage="First?")
    await client.answer(conversation)
    await client.post(conversation, "Once, please.")
    async with client.stream(conversation) as watching:
        await watching.until("llm_chunk")
        async with chat(client, conversation, version) as component:
            await component.until(shows("streaming", "First?", "Before.", "Once, please.", "One "))
            go_on.set()
            await component.until(shows("ready", "First?", "Before.", "Once, please.", "One answer, once."))
            assert problems(component) == []
    assert len(upstream.calls) == 2


@every_version
@pytest.mark.gen_test
async def test_a_connection_that_breaks_twice_in_mid_answer(client: Client, upstream: Upstream, version: str) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    more = [http_chunk(event(delta(words))) for words in ("two, ", "three.")]
    upstream.reply(first, beginning("One, "), second, more[0], more[1], ending())
    conversation = await client.create()
    proxy = await FaultProxy(lambda: int(client.url.rpartition(":")[2])).start()
    try:
        # Another device watches: on a busy machine Node.js may be disconnected for longer than the grace period.
        async with (
            client.stream(conversation),
            chat(client, conversation, version, server=f"http://127.0.0.1:{proxy.port}") as component,
        ):
            await component.call("send", "Count.")
            await asyncio.wait_for(upstream.until_called(), PATIENCE)
            proxy.cut()  # before the first word
            await component.until(lambda line: line.get("broken"))
            first.set()
            await component.until(shows("streaming", "Count.", "One, "))
            proxy.cut()
            await component.until(lambda line: line.get("broken"))
            second.set()
            await component.until(shows("ready", "Count.", "One, two, three."))
    finally:
        await proxy.close()
    assert len(upstream.calls) == 1
    assert len(await client.messages(conversation)) == 2


@oldest_and_newest
@pytest.mark.gen_test
async def test_a_server_that_cannot_be_reached_for_a_while(client: Client, upstream: Upstream, version: str) -> None:
    """A message is stored once, whenever it arrives."""
    upstream.reply(answer("Here I am."))
    conversation = await client.create()
    proxy = await FaultProxy(lambda: int(client.url.rpartition(":")[2])).start()
    try:
        async with chat(client, conversation, version, server=f"http://127.0.0.1:{proxy.port}") as component:
            proxy.refuse()
            await component.call("send", "Are you there?")
            await component.until(lambda line: line.get("broken"))
            proxy.heal()
            await component.until(shows("ready", "Are you there?", "Here I am."))
    finally:
        await proxy.close()
    assert [message["content"] for message in await client.messages(conversation)] == ["Are you there?", "Here I am."]


@pytest.mark.gen_test
async def test_a_server_that_is_killed_in_mid_answer(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    """Both versions at the same time: it takes a while until the database shows that the process is gone."""
    for _ in OLDEST_AND_NEWEST:
        upstream.reply(beginning("Before the end. "), Do.HANG)
    upstream.reply(answer("After it."))
    server = start_server()
    client = make_client(server)
    async with AsyncExitStack() as stack:
        components = []
        for version in OLDEST_AND_NEWEST:
            component = await stack.enter_async_context(chat(client, await client.create(), version))
            await component.call("send", "Survive.")
            await component.until(shows("streaming", "Survive.", "Before the end. "))
            components.append(component)
        await server.kill()
        for component in components:
            await component.until(lambda line: line.get("broken"))
        start_server(server.port)
        for component in components:
            await component.until(shows("ready", "Survive.", "After it."))


@pytest.mark.gen_test
async def test_a_message_that_waits_for_the_answer_before_it(client: Client, upstream: Upstream) -> None:
    """A message sent by another client with `ifBusy=queue`: its stream has the answer to it, which `useChat` can
    read.
    """
    go_on = asyncio.Event()
    upstream.reply(beginning("First, "), go_on, http_chunk(event(delta("done."))), ending())
    upstream.reply(answer("Second."))
    conversation = await client.create(initialMessage="One?")
    async with client.stream(conversation) as watching:
        await watching.until("llm_chunk")
        await client.http.post(f"{API}/{conversation}/messages?ifBusy=queue", json={"content": "Two?"})
        async with chat(client, conversation) as component:
            await component.until(shows("streaming", "One?", "Two?", "First, "))
            go_on.set()
            await component.until(shows("ready", "One?", "Two?", "First, done."))
            await watching.until("llm_complete", 2)
            assert [text(one) for one in (await component.call("history"))["messages"]] == [
                *("One?", "First, done."),
                *("Two?", "Second."),
            ]
            assert problems(component) == []


@oldest_and_newest
@pytest.mark.gen_test
async def test_there_is_nothing_to_resume_when_nothing_runs(client: Client, upstream: Upstream, version: str) -> None:
    upstream.reply(answer("Done."))
    conversation = await client.create(initialMessage="Hello?")
    await client.answer(conversation)
    async with chat(client, conversation, version) as component:
        await component.until(shows("ready", "Hello?", "Done."))
        await component.call("resume")
        if version == VERSIONS[0]:  # the newest version sends the request before it shows the waiting state
            await component.until(shows("submitted", "Hello?", "Done."))
            await component.until(shows("ready", "Hello?", "Done."))
        await component.call("send", "Again?")
        await component.until(shows("ready", "Hello?", "Done.", "Again?", "Done."))
        assert problems(component) == []


@oldest_and_newest
@pytest.mark.gen_test
async def test_a_refusal_is_told_in_the_servers_own_words(client: Client, upstream: Upstream, version: str) -> None:
    upstream.reply(answer("Done."))
    conversation = await client.create()
    async with chat(client, conversation, version) as component:
        await component.call("send", "a" * 32_001)
        failed = await component.until(lambda line: line.get("status") == "error")
        assert failed["error"] == (await client.post(conversation, "a" * 32_001)).json()["detail"]
        assert not failed["broken"]
        await component.call("send", "Shorter.")
        await component.until(lambda line: line.get("status") == "ready" and texts(line)[1:] == ["Shorter.", "Done."])
        # The AI SDK's request after a tool's output or an approval: it has no new message.
        await component.call("repost")
        refused = await component.until(lambda line: line.get("status") == "error")
        assert (refused["error"], refused["broken"]) == ("There is no message to send.", False)
    assert len(await client.messages(conversation)) == 2
    async with chat(client, conversation, version, token="not.a.token", history={"messages": []}) as component:
        await component.call("send", "Hello?")
        failed = await component.until(lambda line: line.get("status") == "error")
        assert failed["error"] == "The token is not valid."


@pytest.mark.gen_test
async def test_a_model_that_refuses_is_an_error_with_safe_text(client: Client, upstream: Upstream) -> None:
    upstream.reply(whole("400 Bad Request", {"error": {"message": "sk-secret", "type": "invalid_request_error"}}))
    conversation = await client.create()
    async with chat(client, conversation) as component:
        await component.call("send", "Go on.")
        failed = await component.until(shows("error", "Go on.", ""))
        assert failed["error"] == "The model refused this request."
        assert failed["messages"][-1]["metadata"]["error"]["code"] == "upstream_rejected"
        assert not failed["broken"]


@pytest.mark.gen_test
async def test_recommendations_are_parts_of_their_own(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("I'd back **Arsenal** at odds of 2.10: take it."))
    conversation = await client.create()
    async with chat(client, conversation) as component:
        await component.call("send", "Who wins?")
        ready = await component.until(lambda line: line.get("status") == "ready" and len(line["messages"]) == 2)
        words, found = ready["messages"][1]["parts"]
        assert words["state"] == "done"
        assert (found["type"], found["data"]["odds"], found["id"]) == (
            "data-recommendation",
            2.1,
            found["data"]["betId"],
        )
        _, stored = (await component.call("history"))["messages"]
        assert stored["parts"][1] == found
