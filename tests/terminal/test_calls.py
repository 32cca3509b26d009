"""``chatstream chat`` with tool calls: it shows them, and asks the user for decisions."""

import asyncio
from pathlib import Path

import pytest

from tests.conftest import MakeClient, StartServer
from tests.page.test_calls import PLUGIN, called
from tests.support.client import PATIENCE
from tests.support.mcp_server import Seen, served
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


@pytest.mark.gen_test(timeout=110)
async def test_who_types_is_asked_what_a_tool_asks(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path
) -> None:
    file = tmp_path / "tools.toml"
    seen = Seen()
    with served("modern", seen) as url:
        file.write_text(
            f'[[mcp]]\nname = "hall"\nurl = "{url}"\n[[mcp.tools]]\nname = "book_later"\napproval = "never"\n'
        )
        server = start_server(CHATSTREAM_PLUGINS="none", CHATSTREAM_TITLES="off", CHATSTREAM_TOOLS_FILE=str(file))
        assert await asyncio.to_thread(seen.listed.wait, 60)
        upstream.reply(called("hall__book_later"))
        upstream.reply(answer("So be it."))
        screen = Screen()
        process = await chat(make_client(server), "Book a seat", **screen.ends)
        screen.started()
        await screen.until("Which row?")
        await screen.until("answer? y/n")
        screen.type(b"y\n")
        await screen.until("Row (integer): ")
        screen.type(b"first\n")
        await screen.until("(422)")
        screen.type(b"y\n7\n")
        await screen.until("Really?")
        screen.type(b"n\n")
        await screen.until("So be it.")
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
        screen.close()
        assert "('accept', {'row': 7})" in screen.text
