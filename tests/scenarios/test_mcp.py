"""A model calls a tool of an MCP server that is a program: the call is approved by a person, and carried out once."""

import json
import sys
from pathlib import Path

import pytest

from tests.conftest import MakeClient, StartServer
from tests.scenarios.test_tools import called, until
from tests.support.processes import REPOSITORY
from tests.support.upstream import DONE, Upstream, answer, delta, stream


@pytest.mark.gen_test(timeout=110)
async def test_a_tool_of_an_mcp_server_is_called_when_somebody_has_agreed(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path
) -> None:
    file = tmp_path / "tools.toml"
    pid = tmp_path / "pid"
    script = (
        f"import os, pathlib, runpy, sys; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); "
        "sys.argv[1:] = ['modern']; runpy.run_module('tests.support.mcp_server', run_name='__main__')"
    )
    command = json.dumps([sys.executable, "-c", script])
    file.write_text(
        f'[[mcp]]\nname = "shop"\ncommand = {command}\nenvironment = {{ PYTHONPATH = "{REPOSITORY}" }}\n'
        '[[mcp.tools]]\nname = "add"\n'
    )
    server = start_server(CHATSTREAM_TOOLS_FILE=str(file), CHATSTREAM_PLUGINS="none")
    client = make_client(server)
    # Wait until the tool is offered: on a busy machine that may take longer than the server's start waits.
    offered: list[str] = []
    upstream.reply(answer("Hi."))
    while not offered:
        conversation = await client.create(initialMessage="Hello?")
        async with client.stream(conversation) as watched:
            await watched.until("llm_complete")
        offered = [tool["function"]["name"] for tool in upstream.calls[-1].body.get("tools", ())]
    assert offered == ["shop__add"]

    upstream.scripts = [(answer(""),)] * len(upstream.calls)
    upstream.reply(stream(called("shop__add", '{"a": 2, "b": 3}'), delta(finish_reason="tool_calls"), DONE))
    upstream.reply(answer("Five."))
    conversation = await client.create(initialMessage="Two and three?")
    async with client.stream(conversation) as watched:
        while (state := (await watched.until("tool_state")).data)["state"] != "awaiting_approval":
            pass
        url = f"/api/v1/chat/conversations/{conversation}/tool-calls/{state['toolCallId']}"
        assert (await client.http.post(url, json={"decision": "approve"})).status_code == 200
        result = (await watched.until("tool_result")).data
        assert (result["output"], result["failed"]) == ({"result": 5}, False)
        assert (await watched.until("llm_complete")).data["status"] == "complete"
    assert server.stop() == 0
    number = int(pid.read_text())
    await until(lambda: not Path(f"/proc/{number}").exists())
