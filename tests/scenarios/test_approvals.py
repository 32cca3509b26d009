"""Approvals over REST and on the stream, with whole processes that come and go."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import MakeClient, StartServer
from tests.scenarios.test_tools import PLUGIN, called
from tests.support.client import API, Client
from tests.support.upstream import DONE, Upstream, answer, delta, stream

ASKING = PLUGIN.replace('@tool(effect="once", approval="never")', '@tool(effect="once")')


def paying() -> bytes:
    return stream(delta("I pay."), called("pay", '{"wait": false}'), delta(finish_reason="tool_calls"), DONE)


async def decide(
    client: Client, conversation: str, id_: str, params: dict[str, str] | None = None, **body: Any
) -> httpx.Response:
    return await client.http.post(f"{API}/{conversation}/tool-calls/{id_}", json=body, params=params)


async def waiting_call(client: Client, conversation: str) -> dict[str, Any]:
    """The part of the waiting call in the history."""
    while (newest := (await client.messages(conversation))[-1]).get("status") != "waiting":
        pass
    call: dict[str, Any] = [part for part in newest["parts"] if part["type"] == "tool_call"][-1]
    return call


@pytest.mark.gen_test(timeout=110)
async def test_an_approval_outlives_every_process(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "asking.py").write_text(ASKING, encoding="utf-8")
    ledger = tmp_path / "ledger.txt"
    settings = {"CHATSTREAM_PLUGINS": "asking:plugin", "LEDGER": str(ledger)}
    first = start_server(**settings)
    client = make_client(first)
    upstream.reply(paying())
    conversation = await client.create(initialMessage="Pay.")
    call = await waiting_call(client, conversation)
    assert (call["state"], json.loads(call["arguments"])) == ("awaiting_approval", {"wait": False})
    await first.kill()

    server = start_server(**settings)
    client, stranger = make_client(server, client.user), make_client(server)
    id_ = call["toolCallId"]
    listed = (await client.http.get(API, params={"waiting": "true"})).json()["conversations"]
    assert [(one["id"], one["state"]) for one in listed] == [(conversation, "waiting")]
    assert (await stranger.http.get(API, params={"waiting": "true"})).json()["conversations"] == []

    refusals: list[tuple[Client, str, dict[str, Any], int]] = [
        (stranger, id_, {"decision": "approve"}, 404),
        (client, f"{'0' * 24}.1", {"decision": "approve"}, 404),
        (client, id_.replace(".1", ".2"), {"decision": "approve"}, 404),
        (client, "x", {"decision": "approve"}, 404),
        (client, id_, {"decision": "approve", "arguments": '{"wait": true}'}, 422),
        (client, id_, {"decision": "maybe"}, 422),
        (client, id_, {"decision": None}, 422),
        (client, id_, {"decision": "approve", "reason": "Why not?"}, 422),
        (client, id_, {"decision": "approve", "output": 1}, 422),
        (client, id_, {"output": "paid"}, 409),
        (client, id_, {}, 422),
    ]
    for who, which, body, status in refusals:
        assert (await decide(who, conversation, which, **body)).status_code == status, body
    assert (await client.post(conversation, "And?")).status_code == 409

    upstream.reply(answer("Paid."))
    async with client.stream(conversation) as watched:
        while (await watched.until("tool_state")).data["state"] != "awaiting_approval":
            pass
        response = await decide(client, conversation, id_, decision="approve")
        assert response.status_code == 200
        assert response.json()["state"] == "approved"
        complete = (await watched.until("llm_complete")).data
    assert (complete["messageId"], complete["content"]) == (call["toolCallId"].partition(".")[0], "I pay.\n\nPaid.")
    assert ledger.read_text().split() == ["pay", id_]
    assert (await decide(client, conversation, id_, decision="approve")).json()["state"] == "done"
    late = await decide(client, conversation, id_, decision="deny")
    assert (late.status_code, late.json()["code"]) == (409, "already_decided")
    assert (await client.http.get(API, params={"waiting": "true"})).json()["conversations"] == []

    # In the AI SDK's format, a decision is a request whose response continues the message.
    for version, request in (("5", "data-approval"), ("6", "tool-approval-request"), ("7", "tool-approval-request")):
        upstream.reply(paying())
        upstream.reply(answer("No, then."))
        asked = {"format": "ui-message-stream", "version": version}
        body = {"content": "Pay.", "clientMessageId": version}
        chunks = _chunks(await client.http.post(f"{API}/{conversation}/messages", json=body, params=asked))
        assert chunks[-2]["type"] == request
        assert (chunks[-1]["type"], chunks[-1]["messageMetadata"]["status"]) == ("finish", "waiting")
        id_ = next(chunk["toolCallId"] for chunk in chunks if chunk["type"] == "tool-input-start")
        history = (await client.http.get(f"{API}/{conversation}/ui-messages", params={"version": version})).json()
        states = [part["state"] for part in history["messages"][-1]["parts"] if part["type"] == "dynamic-tool"]
        assert states == ["input-available" if version == "5" else "approval-requested"]
        cursor = {"last_event_id": history["streamCursor"]}
        assert (await client.http.get(f"{API}/{conversation}/stream", params=asked | cursor)).status_code == 204
        chunks = _chunks(await decide(client, conversation, id_, asked, decision="deny", reason="No."))
        types = [chunk["type"] for chunk in chunks]
        assert (
            types[: -len(_TEXT)]
            == {
                "5": ["message-metadata", "data-approval", "tool-output-error"],
                "6": ["message-metadata", "tool-output-denied"],
                "7": ["message-metadata", "tool-approval-response", "tool-output-denied"],
            }[version]
        )
        assert types[-len(_TEXT) :] == _TEXT
    assert len(ledger.read_text().splitlines()) == 1


_TEXT = ["start-step", "text-start", "text-delta", "text-end", "finish"]


def _chunks(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]
