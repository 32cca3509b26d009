"""``chatstream chat`` where the model calls tools: they are shown, and whoever types is asked."""

import asyncio
import os
import pty
from pathlib import Path

import pytest

from tests.conftest import MakeClient, StartServer
from tests.page.test_calls import PLUGIN, called
from tests.support.client import PATIENCE
from tests.support.upstream import Upstream, answer
from tests.terminal.test_chat import chat, outcome


@pytest.mark.gen_test(timeout=110)
async def test_who_types_is_asked_and_a_pipe_is_not(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "placing.py").write_text(PLUGIN, encoding="utf-8")
    client = make_client(start_server(CHATSTREAM_PLUGINS="placing:plugin", CHATSTREAM_TITLES="off"))
    upstream.reply(called("place_bet", selection="Arsenal", stake="10"))
    upstream.reply(answer("So be it."))
    terminal, other_end = pty.openpty()
    process = await chat(client, "Place 10 on Arsenal", stdin=other_end, stdout=other_end, stderr=other_end)
    os.close(other_end)
    screen = ""
    async with asyncio.timeout(PATIENCE):
        while "approve? y/n" not in screen:
            screen += (await asyncio.to_thread(os.read, terminal, 4096)).decode()
        assert 'place_bet {"selection": "Arsenal", "stake": "10"}' in screen.replace("\r\n", " ")
        os.write(terminal, b"what\ny\n")
        while "So be it." not in screen:
            screen += (await asyncio.to_thread(os.read, terminal, 4096)).decode()
        assert await process.wait() == 0
    os.close(terminal)
    assert "The bet is placed." in screen
    assert screen.count("So be it.") == 1

    upstream.reply(called("place_bet", selection="Arsenal", stake="10"))
    status, _, notes = await outcome(await chat(client, "Place 10 on Arsenal"))
    assert status == 1
    assert "it waits for your approval" in notes
