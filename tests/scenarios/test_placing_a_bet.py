"""A newcomer's first try, without configuration: a bet that waits for approval while the server is killed."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from chatstream.store.seeding import embedded_database
from tests.support.client import API
from tests.support.processes import ServerProcess


async def newest(http: httpx.AsyncClient, conversation: str, *, status: str) -> dict[str, Any]:
    """Wait until the newest answer has this status; returns it."""
    while True:
        message: dict[str, Any] = (await http.get(f"{API}/{conversation}/messages")).json()["messages"][-1]
        if message["role"] == "assistant" and message["status"] == status:
            return message


def opened(server: ServerProcess) -> httpx.AsyncClient:
    """A client with the last token that the server has printed."""
    token = re.findall(r"Bearer (\S+?)\"", server.output)[-1]
    return httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)


@pytest.mark.gen_test(timeout=110)
async def test_a_newcomer_places_a_bet_though_the_server_is_killed(tmp_path: Path) -> None:
    settings = {"CHATSTREAM_LOG_FORMAT": "text"}
    server = ServerProcess(tmp_path, settings).start().wait_until_ready()
    async with opened(server) as http:
        created = await http.post(API, json={"initialMessage": "Place €10 on Leeds"})
        conversation = created.json()["id"]
        asked = await newest(http, conversation, status="waiting")
    price, bet = asked["parts"]
    assert (price["name"], price["state"], price["output"]["odds"]) == ("best_price", "done", "2.90")
    assert (bet["name"], bet["state"]) == ("place_bet", "awaiting_approval")
    assert bet["message"].startswith("Place €10 on Leeds United to win (Leeds United v Aston Villa) at 2.90")
    assert bet["expiresAt"][:19] == price["output"]["good_until"][:19]
    await server.kill()

    server = ServerProcess(tmp_path, settings).start().wait_until_ready()
    async with opened(server) as http:
        listed = (await http.get(API, params={"waiting": "true"})).json()["conversations"]
        assert [one["id"] for one in listed] == [conversation]
        assert await newest(http, conversation, status="waiting") == asked
        url = f"{API}/{conversation}/tool-calls/{bet['toolCallId']}"
        for _ in range(2):
            assert (await http.post(url, json={"decision": "approve"})).status_code == 200
        answer = await newest(http, conversation, status="complete")
        assert answer["id"] == asked["id"]
        assert "It is placed: **€10** on **Leeds United to win**" in answer["content"]
        await http.post(f"{API}/{conversation}/messages", json={"content": "Which bets have I placed?"})
        while (later := await newest(http, conversation, status="complete"))["id"] == answer["id"]:
            pass
        assert later["content"].count("| Leeds United to win |") == 1
    async with embedded_database(tmp_path / "var") as (uri, running):
        assert running
        with MongoClient[dict[str, Any]](uri) as mongo:
            [entry] = mongo["chatstream"]["pluginDocuments"].find()
        assert (entry["plugin"], entry["key"]) == ("chatstream.plugins.bets:plugin", bet["toolCallId"])
    assert server.stop() == 0
