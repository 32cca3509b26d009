"""Tools that the app declares in its conversation, and carries out: over REST and on the stream."""

from typing import Any

import pytest

from tests.support.client import API, Client
from tests.support.upstream import DONE, Upstream, answer, delta, stream

PICK: dict[str, Any] = {
    "name": "pick_photo",
    "description": "Let the user pick a photo.",
    "parameters": {"type": "object", "properties": {"album": {"type": "string"}}, "required": ["album"]},
}


def picking(arguments: str) -> bytes:
    call = {"index": 0, "id": "a", "function": {"name": "pick_photo", "arguments": arguments}}
    return stream(delta(tool_calls=[call]), delta(finish_reason="tool_calls"), DONE)


@pytest.mark.gen_test
async def test_the_app_declares_a_tool_and_answers_its_calls(client: Client, upstream: Upstream) -> None:
    conversation = await client.create()
    changed = await client.http.patch(f"{API}/{conversation}", json={"clientTools": [PICK | {"timeout": 60}]})
    assert changed.status_code == 200, changed.text
    assert changed.json()["clientTools"] == [PICK | {"timeout": 60.0}]
    upstream.reply(picking('{"album": 7}'))  # invalid by the schema: the app is not asked
    upstream.reply(picking('{"album": "Cats"}'))
    upstream.reply(answer("A cat."))
    assert (await client.post(conversation, "Which?")).status_code == 201
    async with client.stream(conversation) as watched:
        while (state := (await watched.until("tool_state")).data)["state"] != "awaiting_client":
            pass
        assert state["arguments"] == '{"album": "Cats"}'
        path = f"{API}/{conversation}/tool-calls/{state['toolCallId']}"
        for unclear in ({}, {"decision": None}, {"output": 1, "error": "No."}, {"output": 1, "decision": "deny"}):
            assert (await client.http.post(path, json=unclear)).status_code == 422
        assert (await client.http.post(path, json={"decision": "approve"})).json()["code"] == "not_waiting"
        response = await client.http.post(path, json={"output": {"name": "cat.jpg"}, "error": None})
        assert response.status_code == 200, response.text
        assert response.json()["output"] == {"name": "cat.jpg"}
        complete = (await watched.until("llm_complete")).data
    assert complete["content"] == "A cat."
    assert [part["failed"] for part in complete["parts"] if part["type"] == "tool_call"] == [True, False]
    assert len(complete["rounds"]) == 3
    again = await client.http.post(path, json={"output": {"name": "dog.jpg"}})
    assert (again.status_code, again.json()["code"]) == (409, "already_decided")
    offered = [one["function"]["name"] for one in upstream.calls[0].body["tools"]]
    assert "pick_photo" in offered
    told = [one["content"] for one in upstream.calls[2].body["messages"] if one["role"] == "tool"]
    assert told[0].startswith("bad arguments: album")
    assert told[1] == '{"name":"cat.jpg"}'
    # The history has the same; null removes the tools.
    assert (await client.messages(conversation))[-1]["rounds"] == complete["rounds"]
    changed = await client.http.patch(f"{API}/{conversation}", json={"clientTools": None})
    assert "clientTools" not in changed.json()
    upstream.reply(answer("No."))
    await client.post(conversation, "Again?")
    await client.answer(conversation)
    assert "pick_photo" not in [one["function"]["name"] for one in upstream.calls[3].body.get("tools", [])]


# Each definition leads to the next one twice: to check arguments against it would take minutes.
EXPONENTIAL = {
    "type": "object",
    "$defs": {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(20)} | {"d20": {"type": "null"}},
    "properties": {"a": {"$ref": "#/$defs/d0"}},
}

# Each level of the arguments would be checked eight times as often as the one around it.
MULTIPLYING = {"type": "object", "properties": {"x": {"allOf": [{"$ref": "#"}] * 8}}}


@pytest.mark.gen_test
async def test_what_is_no_tool_is_refused_and_changes_nothing(client: Client) -> None:
    conversation = await client.create()
    assert (await client.http.patch(f"{API}/{conversation}", json={"clientTools": [PICK]})).status_code == 200
    cases: list[tuple[Any, str]] = [
        ([PICK, PICK], "clientTools.1.name"),
        ([PICK | {"name": "recommend_bet"}], "clientTools.0.name"),  # the server has one
        ([PICK | {"name": "pick photo"}], "clientTools.0.name"),
        ([PICK | {"parameters": {"type": "array"}}], "clientTools.0.parameters"),
        ([PICK | {"parameters": {"type": "object", "properties": 7}}], "clientTools.0.parameters"),
        ([PICK | {"parameters": {"type": "object", "$ref": "http://127.0.0.1/x"}}], "clientTools.0.parameters"),
        ([PICK | {"parameters": EXPONENTIAL}], "clientTools.0.parameters"),
        ([PICK | {"parameters": MULTIPLYING}], "clientTools.0.parameters"),
        # Too many characters are refused before any schema is looked at.
        ([PICK | {"parameters": EXPONENTIAL | {"description": "x" * 32_000}}], "clientTools"),
        ([PICK | {"timeout": 0}], "clientTools.0.timeout"),
        ([PICK | {"effect": "none"}], "clientTools.0.effect"),
        ([PICK | {"name": f"pick_{n}"} for n in range(33)], "clientTools"),
        ([PICK | {"name": f"pick_{n}", "description": "x" * 2000} for n in range(20)], "clientTools"),
        ("pick_photo", "clientTools"),
    ]
    for declared, field in cases:
        refused = await client.http.patch(f"{API}/{conversation}", json={"clientTools": declared})
        assert refused.status_code == 422, declared
        assert [*refused.json()["errors"]] == [field]
    read = (await client.http.get(f"{API}/{conversation}")).json()
    assert [one["name"] for one in read["clientTools"]] == ["pick_photo"]
