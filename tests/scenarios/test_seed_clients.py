"""The clients of the seed, unchanged: its curl line, its Node script, and the rules of its hook."""

import asyncio
import itertools
import json
import shutil

import httpx
import pytest

from tests.stress.faults import FaultProxy
from tests.support import node
from tests.support.client import API, PATIENCE, Client
from tests.support.program import program
from tests.support.upstream import Do, Upstream, answer, beginning, delta, ending, event, head, http_chunk


@pytest.mark.gen_test
async def test_the_curl_line(client: Client, upstream: Upstream) -> None:
    connected = asyncio.Event()
    upstream.reply(connected, answer("I'd back **Arsenal** at odds of 2.10: ", "take it."))
    await client.create(id="123", initialMessage="Who wins?")
    curl = shutil.which("curl")
    assert curl is not None
    header = f"Authorization: Bearer {client.token}"
    async with program(curl, "-sN", "-H", header, f"{client.url}{API}/123/stream") as running:
        await running.read_until('"type":"connected"')
        connected.set()
        await running.read_until('"type":"system"')
    frames = [line.removeprefix("data: ") for line in running.printed.splitlines() if line.startswith("data: ")]
    types = [type_ for frame in frames if (type_ := json.loads(frame)["type"]) != "heartbeat"]
    assert types[0] == "connected"
    assert types[-3:] == ["llm_chunk", "llm_complete", "system"]


@pytest.mark.gen_test
async def test_the_node_script(client: Client, upstream: Upstream) -> None:
    node.install()
    upstream.reply(answer("I'd back **Arsenal** at odds of 2.10: ", "take it."))
    upstream.reply(answer("I'd recommend a bet on **Leeds** at odds of 3.00."))
    await client.create(id="123")
    url = f"{client.url}{API}/123/stream?access_token={client.token}"
    async with program(*node.command("seed_example.mjs", url, "system", "2")) as running:
        await running.read_until("connected")
        assert (await client.post("123", "Who wins?")).status_code == 201
        await running.read_until("New bet recommendation")
        assert (await client.post("123", "And on Monday?")).status_code == 201
        await running.read_until("State: ")
    lines = running.printed.splitlines()
    events = [json.loads(line.removeprefix("Event: ")) for line in lines if line.startswith("Event: ")]
    types = [event["type"] for event in events if event["type"] != "heartbeat"]
    turn = ["user_message", "llm_chunk", "llm_complete", "system"]
    assert [one for one, _ in itertools.groupby(types)] == ["connected", *turn, *turn]
    assert [event["metadata"]["odds"] for event in events if event["type"] == "system"] == [2.1, 3.0]
    assert lines[-1] == "State: 1", "the stream is still open after the second answer"


@pytest.mark.gen_test
async def test_npms_eventsource_resumes_by_itself(client: Client, upstream: Upstream) -> None:
    """With `Last-Event-ID`, after the delay that the server asked for."""
    node.install()
    go_on = asyncio.Event()
    upstream.reply(beginning("Before the cut, "), go_on, http_chunk(event(delta("after it."))), ending())
    conversation = await client.create(initialMessage="Who wins?")
    proxy = await FaultProxy(lambda: int(client.url.rpartition(":")[2])).start()
    url = f"http://127.0.0.1:{proxy.port}{API}/{conversation}/stream?access_token={client.token}"
    try:
        async with (
            client.stream(conversation),  # otherwise the answer would be cut after a second without a viewer
            program(*node.command("seed_example.mjs", url, "llm_complete", "1")) as running,
        ):
            await running.read_until("llm_chunk")
            proxy.cut()
            go_on.set()
            await running.read_until("State: ")
    finally:
        await proxy.close()
    lines = running.printed.splitlines()
    events = [json.loads(line.removeprefix("Event: ")) for line in lines if line.startswith("Event: ")]
    assert [event["resumed"] for event in events if event["type"] == "connected"] == [False, True]
    assert "".join(event["content"] for event in events if event["type"] == "llm_chunk") == "Before the cut, after it."


class Hook:
    """The rules by which the seed's React Native hook reads the stream, from its public source."""

    def __init__(self) -> None:
        self.buffer = ""
        self.answers: list[str] = []
        self.connections = 0

    async def read(self, response: httpx.Response, until: str) -> None:
        """Read up to an event of type `until`, then drop the connection."""
        unread = ""
        async for text in response.aiter_text():
            unread += text
            *frames, unread = unread.split("\n\n")
            for frame in frames:
                for line in frame.split("\n"):
                    if line.startswith("data: "):
                        event = json.loads(line.removeprefix("data: "))
                        assert event["type"]
                        assert event["timestamp"]
                        self._on_event(event)
                        if event["type"] == until:
                            return

    def _on_event(self, event: dict[str, str]) -> None:
        match event["type"]:
            case "connected":
                self.connections += 1
            case "llm_chunk":
                self.buffer += event["content"]
            case "llm_complete":
                assert len(event["content"]) >= 0
                self.answers.append(event["content"])
                self.buffer = ""


@pytest.mark.gen_test
async def test_the_hook_sees_one_answer_over_five_reconnects(client: Client, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    upstream.reply(
        head() + http_chunk(event(delta("One answer"))),
        go_on,
        http_chunk(event(delta(", once."))) + http_chunk(event(delta(finish_reason="stop"))) + http_chunk(b""),
    )
    conversation = await client.create(initialMessage="Once, please.")
    hook = Hook()
    path = f"{API}/{conversation}/stream?access_token={client.token}"
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
    async with httpx.AsyncClient(base_url=client.http.base_url, timeout=PATIENCE) as http:
        for _ in range(5):  # it sends no cursor, so each time it gets the text so far again
            async with http.stream("GET", path, headers=headers) as response:
                hook.buffer = ""
                await hook.read(response, "llm_chunk")
                assert hook.buffer == "One answer"
        async with http.stream("GET", path, headers=headers) as response:
            go_on.set()
            await hook.read(response, "llm_complete")
        async with http.stream("GET", path, headers=headers) as response:
            await hook.read(response, "heartbeat")
    assert hook.connections == 7
    assert hook.answers == ["One answer, once."]
    assert len(upstream.calls) == 1
    assert [message["role"] for message in await client.messages(conversation)] == ["user", "assistant"]


@pytest.mark.gen_test
async def test_nobodys_coming_and_going_calls_the_model_again(client: Client, upstream: Upstream) -> None:
    upstream.reply(head() + http_chunk(event(delta("Partly"))), Do.HANG)
    conversation = await client.create(initialMessage="Try.")
    async with client.stream(conversation) as watched:
        await watched.until("llm_chunk")
    async with asyncio.timeout(PATIENCE):
        await upstream.calls[0].aborted.wait()
    for _ in range(3):
        async with client.stream(conversation) as watched:
            await watched.until("heartbeat")
        assert (await client.answer(conversation))["status"] == "interrupted"
    assert len(upstream.calls) == 1
