"""A conversation of a hundred turns against a model with a prompt cache: most of the text is cached, and each left-out
message is announced.
"""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.web import Application, RequestHandler

from tests.conftest import MakeClient, StartServer
from tests.support.client import API
from tests.support.exposition import scrape
from tests.support.upstream import delta, event

# In tokens. Providers cache prompts in blocks, and do not cache short prompts.
BLOCK, LEAST = 128, 1024
TURNS = 100


class CachingModel:
    """A model that counts four characters as a token, and caches the last prompt of each cache key."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.prompts: list[list[dict[str, str]]] = []

    def usage(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = json.dumps(body["messages"])
        before, key = "", body["prompt_cache_key"]
        before, self.kept[key] = self.kept.get(key, ""), prompt
        self.prompts.append(body["messages"])
        same = next((place for place, (a, b) in enumerate(zip(before, prompt, strict=False)) if a != b), len(before))
        cached = same // 4 // BLOCK * BLOCK
        return {
            "prompt_tokens": len(prompt) // 4,
            "completion_tokens": 150,
            "total_tokens": len(prompt) // 4 + 150,
            "prompt_tokens_details": {"cached_tokens": cached if cached >= LEAST else 0},
        }


class Completions(RequestHandler):
    def initialize(self, model: CachingModel) -> None:
        self.model = model

    def post(self) -> None:
        body = json.loads(self.request.body)
        self.set_header("Content-Type", "text/event-stream")
        answer = f"Answer {len(self.model.prompts)}. " + "word " * 120
        usage = {"choices": [], "usage": self.model.usage(body)}
        for chunk in (delta(answer), delta(finish_reason="stop"), usage):
            self.write(event(chunk))
        self.finish(event(b"[DONE]"))


@pytest.fixture
def caching(io_loop: IOLoop, upstream_port: int) -> Iterator[CachingModel]:
    model = CachingModel()
    server = HTTPServer(Application([(r"/v1/chat/completions", Completions, {"model": model})]))
    server.listen(upstream_port, "127.0.0.1")
    yield model
    server.stop()
    io_loop.run_sync(server.close_all_connections)


@pytest.mark.unmeasured
@pytest.mark.gen_test(timeout=110)
async def test_most_of_what_is_sent_is_cached_and_the_user_knows_what_was_left_out(
    start_server: StartServer, make_client: MakeClient, caching: CachingModel
) -> None:
    client = make_client(start_server(CHATSTREAM_CONTEXT_CHARACTERS="32000", CHATSTREAM_PLUGINS="none"))
    conversation = await client.create(systemPrompt="Be brief. " * 20)
    told: list[dict[str, Any]] = []
    for number in range(TURNS):
        response = await client.post(
            conversation, f"Question {number}? " + "word " * 40, headers={"Accept": "text/event-stream"}
        )
        events = [json.loads(line[6:]) for line in response.text.split("\n") if line.startswith("data: ")]
        assert events[-1]["type"] == "llm_complete"
        trimmed = [one for one in events if one["type"] == "context_trimmed"]
        told += trimmed
        # Every message that is missing in the prompt was announced as left out.
        in_prompt = [one for one in caching.prompts[-1] if one["role"] != "system"]
        assert len(in_prompt) == 2 * number + 1 - (told[-1]["dropped"] if told else 0)
    samples = await scrape(client.http)
    share = samples["chatstream_tokens_total", "cached"] / samples["chatstream_tokens_total", "prompt"]
    assert share > 0.8
    assert 3 < len(told) < TURNS / 10
    assert samples["chatstream_contexts_trimmed_total",] == len(told)
    assert all(sum(len(one["content"]) for one in prompt) < 32_400 for prompt in caching.prompts)
    shown = [one async for one in history(client, conversation) if "contextTrimmed" in one]
    assert [(one["id"], one["contextTrimmed"]["dropped"]) for one in shown] == [
        (one["messageId"], one["dropped"]) for one in told
    ]
    assert "parts" not in shown[0]


async def history(client: Any, conversation: str) -> AsyncIterator[dict[str, Any]]:
    """All messages, oldest first."""
    pages: list[list[dict[str, Any]]] = []
    before: dict[str, str] = {}
    while True:
        page = (await client.http.get(f"{API}/{conversation}/messages", params={"limit": 200, **before})).json()
        pages.append(page["messages"])
        if page["nextCursor"] is None:
            break
        before = {"before": page["nextCursor"]}
    for one in reversed(pages):
        for message in one:
            yield message
