"""The AI SDK's `useChat` with nothing but a transport configuration, under React's test renderer, on a real server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.client import API, PATIENCE, Client
from tests.support.script import Line, Script, script
from tests.support.upstream import Do, Upstream, answer, beginning, delta, ending, event, http_chunk


@asynccontextmanager
async def chat(client: Client, conversation: str, **props: Any) -> AsyncIterator[Script]:
    """A component with the hook."""
    base = {"url": client.url, "token": client.token, "id": conversation}
    async with script("use_chat.mjs", base | props) as one:
        await one.call("mount")
        yield one


def text(message: dict[str, Any]) -> str:
    """All of a message's text."""
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


def shows(status: str, *texts: str) -> Callable[[Line], bool]:
    """A rendering with this status, and these messages."""
    return lambda line: line.get("status") == status and [text(message) for message in line["messages"]] == [*texts]


@pytest.mark.gen_test
async def test_a_message_is_answered_with_text_metadata_and_recommendation(client: Client, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    bet, advice = "A bet on **Arsenal** at odds of 2.10: ", "I'd recommend it."
    upstream.reply(beginning(bet), go_on, http_chunk(event(delta(advice))), ending())
    conversation = await client.create()
    async with chat(client, conversation) as component:
        await component.call("send", "Who wins?")
        streaming = await component.until(shows("streaming", "Who wins?", bet))
        go_on.set()
        ready = await component.until(shows("ready", "Who wins?", bet + advice))
    question, reply = await client.messages(conversation)
    message = ready["messages"][1]
    assert message["id"] == streaming["messages"][1]["id"] == reply["id"]
    assert message["metadata"] == {
        "replyTo": question["id"],
        "attempt": 1,
        "status": "complete",
        "finishReason": "stop",
        "usage": None,
        "error": None,
    }
    words, found = message["parts"]
    assert words["state"] == "done"
    assert (found["type"], found["data"]["odds"], found["id"]) == ("data-recommendation", 2.1, found["data"]["betId"])
    finished = next(line["finished"] for line in component.lines if "finished" in line)
    assert finished == {"isAbort": False, "isDisconnect": False, "isError": False, "finishReason": "stop"}


@pytest.mark.gen_test
async def test_who_comes_back_in_mid_answer_resumes_it(client: Client, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    upstream.reply(beginning("One answer"), go_on, http_chunk(event(delta(", once."))), ending())
    conversation = await client.create()
    asked = {"id": "q", "role": "user", "parts": [{"type": "text", "text": "Once, please."}]}
    # Another device watches: a Node.js may take longer to start than the grace lasts.
    async with client.stream(conversation):
        async with chat(client, conversation) as component:
            await component.call("send", "Once, please.")
            streaming = await component.until(shows("streaming", "Once, please.", "One answer"))
            await component.call("unmount")
            await component.call("mount", {"resume": True, "messages": [asked]})
            await component.until(shows("streaming", "Once, please.", "One answer"))
        # A page that shows what was stored of it: that is replaced, not told again behind itself.
        stored = {
            "id": streaming["messages"][1]["id"],
            "role": "assistant",
            "parts": [{"type": "text", "text": "One"}],
        }
        async with chat(client, conversation, resume=True, messages=[asked, stored]) as component:
            await component.until(shows("streaming", "Once, please.", "One answer"))
            go_on.set()
            await component.until(shows("ready", "Once, please.", "One answer, once."))
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_there_is_nothing_to_resume_when_nothing_runs(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Done."))
    conversation = await client.create(initialMessage="Hello?")
    await client.answer(conversation)
    url, params = f"{API}/{conversation}/stream", {"format": "ui-message-stream"}
    async with asyncio.timeout(PATIENCE):
        while (await client.http.get(url, params=params)).status_code != 204:
            pass  # its end is stored, but not told yet
    async with chat(client, conversation, resume=True) as component:
        await component.until(shows("ready"))
        await component.call("resume")
        await component.call("send", "Again?")
        await component.until(shows("ready", "Again?", "Done."))
    assert not any("error" in line and line["error"] for line in component.lines)


@pytest.mark.gen_test
async def test_an_answer_is_stopped_and_regenerated(client: Client, upstream: Upstream) -> None:
    upstream.reply(beginning("Half"), Do.HANG)
    upstream.reply(answer("A better one."))
    conversation = await client.create()
    async with chat(client, conversation) as component:
        await component.call("send", "Go on.")
        await component.until(shows("streaming", "Go on.", "Half"))
        stopped = (await client.http.post(f"{API}/{conversation}/stop")).json()
        ready = await component.until(shows("ready", "Go on.", "Half"))
        assert ready["messages"][1]["id"] == stopped["messageId"]
        assert ready["messages"][1]["metadata"]["status"] == "stopped"
        await component.call("regenerate")
        again = await component.until(shows("ready", "Go on.", "A better one."))
        assert again["messages"][1]["id"] != stopped["messageId"]
        assert again["messages"][1]["metadata"]["attempt"] == 2
    assert upstream.calls[0].aborted.is_set()
    finished = [line["finished"]["finishReason"] for line in component.lines if "finished" in line]
    assert finished == ["interrupted", "stop"]


@pytest.mark.gen_test
async def test_its_own_stop_leaves_and_the_answer_is_cut_after_the_grace(client: Client, upstream: Upstream) -> None:
    upstream.reply(beginning("Half"), Do.HANG)
    conversation = await client.create()
    async with chat(client, conversation) as component:
        await component.call("send", "Go on.")
        await component.until(shows("streaming", "Go on.", "Half"))
        await component.call("stop")
        await component.until(shows("ready", "Go on.", "Half"))
        assert (await client.answer(conversation))["status"] == "interrupted"


@pytest.mark.gen_test
async def test_an_answer_that_fails_is_an_error_with_safe_text_and_can_be_regenerated(
    client: Client, upstream: Upstream
) -> None:
    upstream.reply(beginning("Half"), Do.RESET)
    upstream.reply(answer("All of it."))
    conversation = await client.create()
    async with chat(client, conversation) as component:
        await component.call("send", "Go on.")
        failed = await component.until(shows("error", "Go on.", "Half"))
        assert failed["error"] == "The answer broke off before it was finished. Try again."
        metadata = failed["messages"][1]["metadata"]
        assert (metadata["status"], metadata["error"]["code"]) == ("failed", "upstream_truncated")
        assert metadata["error"]["retryable"]
        await component.call("regenerate")
        await component.until(shows("ready", "Go on.", "All of it."))


@pytest.mark.gen_test
async def test_a_refusal_is_an_error(client: Client, upstream: Upstream) -> None:
    async with chat(client, "no-such-conversation") as component:
        await component.call("send", "Hello?")
        failed = await component.until(shows("error", "Hello?"))
    assert '"code":"not_found"' in failed["error"]
