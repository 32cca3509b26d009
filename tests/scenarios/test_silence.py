"""A model that is silent for a minute, with the default intervals: no proxy may close the connection."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from tests.conftest import MakeClient, StartServer
from tests.support.proxies import RECIPES, proxy
from tests.support.upstream import Upstream, answer

# The server's default, in seconds: four heartbeats take a minute.
HEARTBEAT = "15"


@pytest.mark.gen_test(timeout=110)
async def test_a_minute_of_silence_is_survived_through_each_proxy(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path
) -> None:
    speak = asyncio.Event()
    upstream.reply(speak, answer("At last."))
    server = start_server(CHATSTREAM_HEARTBEAT_INTERVAL=HEARTBEAT, CHATSTREAM_FIRST_TOKEN_TIMEOUT="120")
    with contextlib.ExitStack() as proxies:
        running = [proxies.enter_context(proxy(name, tmp_path / name, server.port)) for name in RECIPES]
        clients = [make_client(one, "the-same-user") for one in running]
        conversation = await clients[0].create(initialMessage="Think.")
        async with contextlib.AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(client.stream(conversation)) for client in clients]
            await asyncio.gather(*(stream.until("heartbeat", 4) for stream in streams))
            speak.set()
            for stream in streams:
                assert (await stream.until("llm_complete")).data["content"] == "At last."
    assert len(upstream.calls) == 1
