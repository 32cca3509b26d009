"""A webhook reports an answer's end to a phone that has left: once, and not if another device saw the end."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from tests.conftest import MakeClient, StartServer
from tests.support.client import API
from tests.support.processes import REPOSITORY, free_port
from tests.support.receiver import WEBHOOK_SECRET, Receiver, receiving
from tests.support.upstream import Upstream, beginning, ending


@pytest.fixture
def receiver(io_loop: IOLoop) -> Iterator[Receiver]:
    context = receiving()
    yield io_loop.run_sync(context.__aenter__)
    io_loop.run_sync(lambda: context.__aexit__(None, None, None))


def settings(receiver: Receiver, **more: str) -> dict[str, str]:
    return {
        "CHATSTREAM_WEBHOOK_URL": receiver.url,
        "CHATSTREAM_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "CHATSTREAM_WEBHOOK_DELAY": "2",
        **more,
    }


@pytest.mark.gen_test(timeout=110)
async def test_a_phone_that_leaves_is_told_once_unless_another_tab_saw_it(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, receiver: Receiver
) -> None:
    servers = [start_server(ready=False, **settings(receiver)) for _ in range(2)]
    here = make_client(servers[0].wait_until_ready())
    there = make_client(servers[1].wait_until_ready(), here.user)
    seen, unseen, read = [await here.create(background=True) for _ in range(3)]

    async def leave_in_the_middle(conversation: str, go_on: asyncio.Event) -> None:
        upstream.reply(beginning("Half of it, "), go_on, ending())
        async with here.stream(conversation) as watched:
            await here.post(conversation, "Tell me.")
            await watched.until("llm_chunk")

    # A viewer at another process sees the end.
    go_on = asyncio.Event()
    async with there.stream(seen) as other:
        await leave_in_the_middle(seen, go_on)
        go_on.set()
        await other.until("llm_complete")
    # The user reads the history a moment later.
    go_on = asyncio.Event()
    await leave_in_the_middle(read, go_on)
    go_on.set()
    assert (await there.answer(read))["status"] == "complete"
    # Nobody sees the end. An earlier event would have been sent before this one.
    go_on = asyncio.Event()
    await leave_in_the_middle(unseen, go_on)
    go_on.set()
    await receiver.until(1)
    [one] = receiver.received
    assert one.event["data"]["conversationId"] == unseen
    assert one.event["data"]["userId"] == here.user
    assert "content" not in one.event["data"]
    assert (await here.answer(unseen))["status"] == "complete"
    assert len(receiver.received) == 1
    assert len(upstream.calls) == 3


@pytest.mark.gen_test(timeout=115)
async def test_a_sender_that_dies_in_the_middle_is_followed_by_another(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, receiver: Receiver
) -> None:
    """The receiver may have got the event already: it is sent at least once, always with the same id."""
    first = start_server(**settings(receiver, CHATSTREAM_WEBHOOK_DELAY="0"))
    client = make_client(first)
    receiver.replies = [None]
    upstream.reply(beginning("All of it."), ending())
    conversation = await client.create()
    await client.post(conversation, "Tell me.")
    await receiver.until(1)
    await first.kill()
    start_server(**settings(receiver, CHATSTREAM_WEBHOOK_DELAY="0"))
    one, again = await receiver.until(2)
    assert one.id == again.id
    assert one.event == again.event


@pytest.mark.gen_test
async def test_the_example_makes_a_push_message_of_it(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, receiver: Receiver, tmp_path: Path
) -> None:
    """`receiver` stands for Expo."""
    receiver.replies = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"]
    port, tokens = free_port(), tmp_path / "tokens.json"
    environment = {
        "PATH": os.environ["PATH"],
        "PORT": str(port),
        "WEBHOOK_SECRET": WEBHOOK_SECRET,
        "TOKENS_FILE": str(tokens),
        "EXPO_URL": receiver.url,
    }
    command = [sys.executable, str(REPOSITORY / "conf" / "expo_push.py")]
    example = subprocess.Popen(command, env=environment)  # noqa: ASYNC220 - a test's loop serves nobody else
    try:
        hook = f"http://127.0.0.1:{port}/"
        server = start_server(**settings(receiver, CHATSTREAM_WEBHOOK_URL=hook, CHATSTREAM_WEBHOOK_DELAY="0"))
        client = make_client(server)
        tokens.write_text(json.dumps({client.user: ["ExponentPushToken[a]", "ExponentPushToken[b]"]}))
        upstream.reply(beginning("All of it."), ending())
        conversation = await client.create()
        posted = await client.post(conversation, "Tell me.")
        assert posted.status_code == 201
        [push] = await receiver.until(1)
        assert json.loads(push.body) == [
            {"to": to, "title": "Your answer is there", "data": {"conversationId": conversation}}
            for to in ("ExponentPushToken[a]", "ExponentPushToken[b]")
        ]
        forged = await client.http.post(hook, json={"type": "answer.ended", "data": {"userId": client.user}})
        assert forged.status_code == 401
        assert len(receiver.received) == 1
        assert (await client.http.get(f"{API}/{conversation}")).status_code == 200
    finally:
        example.kill()
        example.wait()
