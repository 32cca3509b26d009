"""A model breaks off after fifty words and the next one replaces it: every client shows the new answer."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.conftest import MakeClient, StartServer
from tests.scenarios.test_catalogue import FIFTY, broken_off
from tests.support.client import API
from tests.support.script import script
from tests.support.upstream import Upstream, answer

MODELS = """
[[models]]
name = "first"
base_url = "URL"
key = "KEY"
fallbacks = ["second"]

[[models]]
name = "second"
base_url = "URL"
key = "KEY"
"""
WHOLE = "The whole answer."


@pytest.mark.gen_test
async def test_the_text_is_replaced_in_every_client_and_one_answer_counts(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path
) -> None:
    models = tmp_path / "models.toml"
    models.write_text(MODELS.replace("URL", upstream.url))
    client = make_client(start_server(CHATSTREAM_MODELS_FILE=str(models), KEY="sk-1"))
    broken, go_on = broken_off(), asyncio.Event()
    upstream.reply(*broken[:-1], go_on, broken[-1])
    upstream.reply(answer("The whole ", "answer."))
    conversation = await client.create()
    path = f"{API}/{conversation}/stream"
    ours = {"baseUrl": client.url, "conversationId": conversation, "reconnectDelay": 50}
    async with (
        client.stream(conversation) as raw,
        script("event_source.mjs", "eventsource", f"{client.url}{path}?access_token={client.token}") as source,
        script("chat.mjs", ours | {"tokens": [client.token], "eventSource": None}) as chat,
        script("hook.mjs", ours | {"accessToken": client.token}) as hook,
    ):
        await chat.call("connect")
        for one in (source, chat):
            await one.event("connected")
        await hook.until(lambda line: line.get("shown", {}).get("status") == "connected")
        question = (await client.post(conversation, "Count.")).json()
        last_word = FIFTY[-1].strip()
        for one in (source, chat):
            while last_word not in (await one.event("llm_chunk"))["event"]["content"]:
                pass
        await hook.until(
            lambda line: last_word in ((line.get("shown", {}).get("currentStreamingMessage") or {}).get("content", ""))
        )
        go_on.set()
        for one in (source, chat):
            ends = [(await one.event("llm_complete"))["event"] for _ in range(2)]
            assert [(end["status"], end["content"]) for end in ends] == [
                ("interrupted", "".join(FIFTY)),
                ("complete", WHOLE),
            ]
        ended = [(await raw.until("llm_complete")).data for _ in range(2)]
        assert [(end["attempt"], end["model"]) for end in ended] == [(1, "first"), (2, "second")]
        assert ended[1]["content"] == WHOLE
        assert "error" not in raw.types
        shown = await chat.call("messages")
        assert [(one["role"], one["content"]) for one in shown] == [("user", "Count."), ("assistant", WHOLE)]
        assert shown[1]["model"] == "second"
        await hook.until(
            lambda line: (
                [one["content"] for one in line.get("shown", {}).get("messages", [])] == [WHOLE]
                and line["shown"]["currentStreamingMessage"] is None
            )
        )
    ui = {"format": "ui-message-stream", "last_event_id": f"{question['id']}.user"}
    told = (await client.http.get(path, params=ui)).text
    assert [json.loads(line[6:])["delta"] for line in told.splitlines() if '"text-delta"' in line] == [WHOLE]
    history = (await client.http.get(f"{API}/{conversation}/ui-messages")).json()["messages"]
    assert [message["parts"][0]["text"] for message in history] == ["Count.", WHOLE]
    _, first, second = await client.messages(conversation)
    assert (first["usage"]["completionTokens"], second["usage"]["totalTokens"]) == (50, 7)
    assert (first["model"], second["model"]) == ("first", "second")
