"""Common clients for Server-Sent Events, in the versions in use: each resumes exactly by itself."""

import asyncio

import pytest

from tests.stress.faults import FaultProxy
from tests.support.client import API, Client
from tests.support.script import script
from tests.support.upstream import Upstream, answer, beginning, delta, ending, event, http_chunk

CLIENTS = [
    "eventsource-2",
    "eventsource-3",
    "eventsource",  # the newest version
    "fetch-event-source",
    "react-native-sse",
    "launchdarkly-eventsource",
]


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.gen_test
async def test_it_resumes_after_lost_connections(client: Client, upstream: Upstream, name: str) -> None:
    """The connection is lost twice during an answer, and once between two answers."""
    parts = ["Ärsenal 🏆 ", "by a goal ", "or 👨‍👩‍👧 two."]
    first, second = asyncio.Event(), asyncio.Event()
    more = [http_chunk(event(delta(part))) for part in parts]
    upstream.reply(beginning(parts[0]), first, more[1], second, more[2], ending())
    upstream.reply(answer("And again."))
    conversation = await client.create(initialMessage="Who wins?")

    proxy = await FaultProxy(lambda: int(client.url.rpartition(":")[2])).start()
    try:
        url = f"http://127.0.0.1:{proxy.port}{API}/{conversation}/stream?access_token={client.token}"
        # Another device watches, because these clients wait longer than the grace period before they reconnect.
        async with client.stream(conversation), script("event_source.mjs", name, url) as one:
            await one.event("llm_chunk")
            for step in (first, second):
                proxy.cut()
                step.set()
                await one.event("llm_chunk")
            await one.event("llm_complete")
            proxy.cut()
            await one.event("connected")
            await client.post(conversation, "And again?")
            ended = await one.event("llm_complete")
            assert ended["event"]["content"] == "And again."
            told = "".join(chunk["content"] for chunk in one.events("llm_chunk"))
            assert told == "".join(parts) + "And again."
            assert [event["resumed"] for event in one.events("connected")] == [False, True, True, True]
    finally:
        await proxy.close()
    assert len(upstream.calls) == 2
