"""``chatstream chat`` where the model calls tools: they are shown, and whoever types is asked."""

import asyncio
from pathlib import Path

import pytest

from tests.conftest import MakeClient, StartServer
from tests.page.test_calls import PLUGIN, called
from tests.support.client import PATIENCE
from tests.support.screen import Screen
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
    screen = Screen()
    process = await chat(client, "Place 10 on Arsenal", **screen.ends)
    screen.started()
    await screen.until("approve? y/n")
    assert 'place_bet {"selection": "Arsenal", "stake": "10"}' in screen.text.replace("\r\n", " ")
    screen.type(b"what\ny\n")
    await screen.until("So be it.")
    assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    screen.close()
    assert "The bet is placed." in screen.text
    assert screen.text.count("So be it.") == 1

    upstream.reply(called("place_bet", selection="Arsenal", stake="10"))
    status, _, notes = await outcome(await chat(client, "Place 10 on Arsenal"))
    assert status == 1
    assert "it waits for your approval" in notes
