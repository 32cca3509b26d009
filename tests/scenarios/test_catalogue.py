"""A catalogue of models: users choose from it, and if one model fails the next one answers, for all viewers."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from tests.conftest import MakeClient, StartServer
from tests.support.client import API, PATIENCE, Client
from tests.support.exposition import scrape
from tests.support.processes import REPOSITORY, ServerProcess
from tests.support.upstream import (
    DONE,
    END,
    USAGE,
    Do,
    Upstream,
    answer,
    beginning,
    delta,
    event,
    head,
    http_chunk,
    stream,
    whole,
)

MODELS = "/api/v1/chat/models"
FIFTY = [f"word{number} " for number in range(50)]


@pytest.fixture
def second(io_loop: IOLoop) -> Iterator[Upstream]:
    """A second endpoint, besides `upstream`."""
    second = io_loop.run_sync(Upstream.start)
    yield second
    io_loop.run_sync(second.close)


@pytest.fixture
def serve(start_server: StartServer, tmp_path: Path, upstream: Upstream, second: Upstream) -> "Serve":
    return Serve(start_server, tmp_path, {"FIRST": upstream.url, "SECOND": second.url})


class Serve:
    """Starts a server with a file of models, in which FIRST and SECOND stand for the addresses of the endpoints."""

    def __init__(self, start_server: StartServer, directory: Path, addresses: dict[str, str]) -> None:
        self._start = start_server
        self._path = directory / "models.toml"
        self._addresses = addresses

    def __call__(self, text: str, **settings: str) -> ServerProcess:
        for name, address in self._addresses.items():
            text = text.replace(f'"{name}"', json.dumps(address))
        self._path.write_text(text, encoding="utf-8")
        own = {"CHATSTREAM_MODELS_FILE": str(self._path), "CHATSTREAM_USER_MODELS": "on"}
        return self._start(**{**own, "FIRST_KEY": "sk-first", "SECOND_KEY": "sk-second", **settings})


TWO = """
[[models]]
name = "First model"
description = "the one that everybody gets"
model = "@org/first#1"
base_url = "FIRST"
key = "FIRST_KEY"
context = 8000
tools = true
fallbacks = ["org/second@2"]

[[models]]
name = "org/second@2"
base_url = "SECOND"
key = "SECOND_KEY"
parameters = { temperature = 0.5, max_tokens = 100, reasoning = { effort = "low" } }
"""


@pytest.mark.gen_test
async def test_users_choose_from_the_catalogue_alone(
    serve: Serve, make_client: MakeClient, upstream: Upstream, second: Upstream
) -> None:
    server = serve(TWO)
    client, other = make_client(server), make_client(server)
    upstream.reply(answer("From the first."))
    second.reply(answer("From the second."))
    listed = (await client.http.get(MODELS)).json()
    assert listed == {
        "models": [
            {
                "name": "First model",
                "description": "the one that everybody gets",
                "capabilities": {"vision": False, "tools": True, "reasoning": False},
                "context": 8000,
                "default": True,
            },
            {
                "name": "org/second@2",
                "description": "",
                "capabilities": {"vision": False, "tools": False, "reasoning": False},
                "context": None,
                "default": False,
            },
        ]
    }
    del other.http.headers["Authorization"]
    assert (await other.http.get(MODELS)).status_code == 401

    chosen = await client.create(model="org/second@2", initialMessage="Who are you?")
    told = await client.answer(chosen)
    assert (told["content"], told["model"]) == ("From the second.", "org/second@2")
    [call] = second.calls
    assert (call.headers["authorization"], call.body["model"]) == ("Bearer sk-second", "org/second@2")
    assert {name: call.body[name] for name in ("temperature", "max_tokens", "reasoning")} == {
        "temperature": 0.5,
        "max_tokens": 100,
        "reasoning": {"effort": "low"},
    }
    usual = await client.create(initialMessage="Who are you?")
    told = await client.answer(usual)
    assert (told["content"], told["model"]) == ("From the first.", "First model")
    [call] = upstream.calls
    assert (call.headers["authorization"], call.body["model"]) == ("Bearer sk-first", "@org/first#1")
    assert "temperature" not in call.body

    for name in ("@org/first#1", "gpt-4", "first model", "First model ", "demo"):  # nor the endpoint's name for it
        refused = await client.http.post(API, json={"model": name, "initialMessage": "Hi"})
        assert (refused.status_code, refused.json()["errors"].keys()) == (422, {"model"})
        changed = await client.http.patch(f"{API}/{usual}", json={"model": name, "title": "T"})
        assert changed.status_code == 422
    about = (await client.http.get(f"{API}/{usual}")).json()
    assert (about["model"], about["title"]) == (None, None)
    assert len(upstream.calls) + len(second.calls) == 2


@pytest.mark.gen_test
async def test_an_operator_may_forbid_choosing_and_prompts_also_of_conversations_that_are_there(
    serve: Serve, make_client: MakeClient, upstream: Upstream, second: Upstream
) -> None:
    before = serve(TWO)
    client = make_client(before, "ada")
    second.reply(answer("From the second."))
    upstream.reply(answer("From the first."))
    conversation = await client.create(model="org/second@2", systemPrompt="Be a pirate.", initialMessage="One?")
    assert (await client.answer(conversation))["content"] == "From the second."
    assert before.stop() == 0

    server = serve(TWO, CHATSTREAM_USER_MODELS="off", CHATSTREAM_USER_PROMPTS="off", CHATSTREAM_SYSTEM_PROMPT="Ours.")
    client = make_client(server, "ada")
    assert [one["name"] for one in (await client.http.get(MODELS)).json()["models"]] == ["First model"]
    await client.post(conversation, "Two?")
    assert (await client.answer(conversation))["content"] == "From the first."
    assert upstream.calls[0].body["messages"][0] == {"role": "system", "content": "Ours."}
    named = ("org/second@2", "First model", "nonsense")  # the default's own name, too
    for body in (*({"model": name} for name in named), {"systemPrompt": "Be a pirate."}, {"systemPrompt": ""}):
        assert (await client.http.patch(f"{API}/{conversation}", json=body)).status_code == 422
        assert (await client.http.post(API, json=body)).status_code == 422
    reset = await client.http.patch(f"{API}/{conversation}", json={"model": None, "systemPrompt": None})
    assert (reset.status_code, reset.json()["model"]) == (200, None)


@pytest.mark.gen_test
async def test_a_conversation_whose_model_is_gone_is_answered_by_the_default(
    serve: Serve, make_client: MakeClient, upstream: Upstream, second: Upstream
) -> None:
    before = serve(TWO)
    client = make_client(before, "ada")
    second.reply(answer("From the second."))
    upstream.reply(answer("From the first."))
    conversation = await client.create(model="org/second@2", initialMessage="One?")
    await client.answer(conversation)
    assert before.stop() == 0

    server = serve('[[models]]\nname = "First model"\nmodel = "m"\nbase_url = "FIRST"\n')
    client = make_client(server, "ada")
    await client.post(conversation, "Two?")
    told = await client.answer(conversation)
    assert (told["content"], told["model"]) == ("From the first.", "First model")
    assert upstream.calls[0].headers["authorization"] == "Bearer none"
    assert "the conversation's model is not offered; the default answers" in await server.logged()
    assert (await client.messages(conversation))[1]["model"] == "org/second@2"  # the model that answered then


@pytest.mark.parametrize(
    "dead",
    [
        (Do.RESET,),
        (whole("500 Internal Server Error", {"error": {"message": "down"}}),),
        (whole("401 Unauthorized", {"error": {"code": "invalid_api_key"}}),),
        (whole("429 Too Many Requests", {"error": {"message": "slow down"}}, retry_after="9"),),
        (head(), END),
    ],
    ids=["reset", "500", "bad key", "429", "empty"],
)
@pytest.mark.gen_test
async def test_before_the_first_token_the_next_model_is_asked(
    serve: Serve, make_client: MakeClient, upstream: Upstream, second: Upstream, dead: tuple[bytes | Do, ...]
) -> None:
    server = serve(TWO)
    client = make_client(server)
    upstream.reply(*dead)
    second.reply(answer("From the ", "second."))
    conversation = await client.create()
    async with client.stream(conversation) as watched:
        await client.post(conversation, "Anybody there?")
        complete = await watched.until("llm_complete")
    assert watched.types == ["connected", "user_message", "llm_chunk", "llm_complete"]
    assert (complete.data["content"], complete.data["attempt"]) == ("From the second.", 1)
    [_, told] = await client.messages(conversation)
    assert (told["model"], told["usage"]["totalTokens"]) == ("org/second@2", 7)
    assert (len(upstream.calls), len(second.calls)) == (1, 1)


@pytest.mark.gen_test
async def test_what_a_model_refuses_is_not_shopped_around(
    serve: Serve, make_client: MakeClient, upstream: Upstream, second: Upstream
) -> None:
    client = make_client(serve(TWO))
    upstream.reply(whole("400 Bad Request", {"error": {"code": "content_filter"}}))
    second.reply(answer("Never asked."))
    conversation = await client.create(initialMessage="How do I …")
    assert (await client.answer(conversation))["error"]["error"] == "upstream_rejected"
    assert not second.calls


PARTIAL = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 50, "total_tokens": 53}}


def broken_off() -> tuple[bytes | Do, ...]:
    """Fifty words and the token counts so far; then the stream breaks off."""
    return beginning(*FIFTY), http_chunk(event(PARTIAL)), Do.CLOSE


@asynccontextmanager
async def streamed_post(client: Client, conversation: str, content: str) -> AsyncIterator[AsyncIterator[str]]:
    """Post a message whose response is the answer's stream; yields the response's lines."""
    request: dict[str, Any] = {"json": {"content": content}, "headers": {"Accept": "text/event-stream"}}
    async with client.http.stream("POST", f"{API}/{conversation}/messages", **request) as response:
        yield response.aiter_lines()


@pytest.mark.gen_test
async def test_after_fifty_words_the_text_is_replaced_for_all_who_watch(
    serve: Serve, make_client: MakeClient, upstream: Upstream, second: Upstream
) -> None:
    client = make_client(serve(TWO))
    *words, breaks_off = broken_off()
    both_watch = asyncio.Event()
    upstream.reply(*words, both_watch, breaks_off)
    second.reply(answer("The whole ", "answer."))
    conversation = await client.create()
    async with client.stream(conversation) as watched, streamed_post(client, conversation, "Count.") as lines:
        once = [await anext(lines)]
        while "llm_chunk" not in once[-1]:
            once.append(await anext(lines))
        both_watch.set()
        broken = await watched.until("llm_complete")
        complete = await watched.until("llm_complete")
        assert (broken.data["status"], broken.data["attempt"]) == ("interrupted", 1)
        assert broken.data["content"] == "".join(FIFTY)
        assert (complete.data["status"], complete.data["attempt"]) == ("complete", 2)
        assert complete.data["content"] == "The whole answer."
        second_text = [f.data for f in watched.frames if f.type == "llm_chunk" and f.data["attempt"] == 2]
        assert "".join(chunk["content"] for chunk in second_text) == "The whole answer."
        assert second_text[0]["offset"] == 0
        once += [line async for line in lines if line]  # the `once` stream continues to the end of the new attempt
    assert sum('"type":"llm_complete"' in line for line in once) == 2
    assert once[-1].count("The whole answer.") == 1
    async with client.stream(conversation, params={"once": "true", "last_event_id": broken.id or ""}) as later:
        assert (await later.until("llm_complete")).data["content"] == "The whole answer."
    [_, first, told] = await client.messages(conversation)
    assert (first["status"], first["model"], told["model"]) == ("interrupted", "First model", "org/second@2")
    assert first["usage"] == {"promptTokens": 3, "completionTokens": 50, "totalTokens": 53, "source": "partial"}
    assert told["usage"]["totalTokens"] == 7
    [question, shown] = (await client.http.get(f"{API}/{conversation}/ui-messages")).json()["messages"]
    assert question["role"] == "user"
    assert shown["parts"][0]["text"] == "The whole answer."
    # The next question is sent with the answer that counts.
    upstream.reply(answer("Good."))
    await client.post(conversation, "And now?")
    assert (await client.answer(conversation))["content"] == "Good."
    assert [turn["content"] for turn in upstream.calls[1].body["messages"][1:]] == [
        "Count.",
        "The whole answer.",
        "And now?",
    ]


@pytest.mark.gen_test
async def test_nobody_need_watch(serve: Serve, make_client: MakeClient, upstream: Upstream, second: Upstream) -> None:
    client = make_client(serve(TWO))
    upstream.reply(*broken_off())
    second.reply(answer("The whole answer."))
    conversation = await client.create(initialMessage="Count.")
    async with asyncio.timeout(PATIENCE):
        while len(await client.messages(conversation)) < 3:
            await asyncio.sleep(0.05)  # between two polls; there is no event to wait for over REST
    assert (await client.answer(conversation))["content"] == "The whole answer."


@pytest.mark.gen_test
async def test_a_ui_message_stream_never_joins_two_answers(
    serve: Serve, make_client: MakeClient, upstream: Upstream, second: Upstream
) -> None:
    client = make_client(serve(TWO))
    go_on = asyncio.Event()
    words, *end = broken_off()
    upstream.reply(words, go_on, *end)
    second.reply(answer("The whole answer."))
    conversation = await client.create()
    path, ui = f"{API}/{conversation}", {"format": "ui-message-stream"}
    first = ""
    async with client.http.stream("POST", f"{path}/messages", params=ui, json={"content": "Count."}) as response:
        async for part in response.aiter_text():
            first += part
            if "word49" in first:  # a viewer that comes after the second answer has begun only gets that one
                go_on.set()
    assert '"status":"interrupted"' in first
    assert "The whole" not in first
    await second.until_called(1)
    question = (await client.messages(conversation))[0]["id"]
    again = (await client.http.get(f"{path}/stream", params={**ui, "last_event_id": f"{question}.user"})).text
    assert "The whole answer." in again
    assert "word" not in again


@pytest.mark.gen_test
async def test_the_last_model_of_a_chain_fails_as_any_and_a_chain_longer_than_three_is_gone_through(
    serve: Serve, make_client: MakeClient, upstream: Upstream, second: Upstream
) -> None:
    names = [f"m{number}" for number in range(5)]
    first = f'[[models]]\nname = "m0"\nbase_url = "FIRST"\nfallbacks = {json.dumps(names[1:])}\n'
    others = "".join(f'[[models]]\nname = "{name}"\nbase_url = "FIRST"\nretries = 0\n' for name in names[1:])
    client = make_client(serve(first + others))
    upstream.reply(*broken_off())
    conversation = await client.create()
    async with client.stream(conversation) as watched:
        await client.post(conversation, "Count.")
        await watched.until("llm_complete", 5)
    told = (await client.messages(conversation))[1:]
    assert [one["status"] for one in told] == ["interrupted"] * 4 + ["failed"]
    assert [one["model"] for one in told] == names
    assert told[-1]["error"]["error"] == "upstream_truncated"
    assert [call.body["model"] for call in upstream.calls] == names


@pytest.mark.gen_test
async def test_what_an_endpoint_refuses_is_learnt_for_that_model_alone(
    serve: Serve, make_client: MakeClient, upstream: Upstream
) -> None:
    client = make_client(
        serve(
            '[[models]]\nname = "a"\nmodel = "same"\nbase_url = "FIRST"\n'
            '[[models]]\nname = "b"\nmodel = "same"\nbase_url = "FIRST"\n'
            '[[models]]\nname = "c"\nbase_url = "FIRST"\n'
            "stream_options = false\nsystem_role = false\nstreaming = false\n"
        )
    )
    upstream.reply(
        whole("400 Bad Request", {"error": {"param": "stream_options", "message": "unknown stream_options"}})
    )
    upstream.reply(answer("One."))
    a, b, c = [await client.create(model=name) for name in "abc"]
    for conversation in (a, a, b):
        await client.post(conversation, "Hello?")
        assert (await client.answer(conversation))["status"] == "complete"
    assert [("stream_options" in call.body) for call in upstream.calls] == [True, False, False, True]
    message = {"message": {"role": "assistant", "content": "In one piece."}, "finish_reason": "stop", "index": 0}
    upstream.scripts[-1:] = [upstream.scripts[-1]] * 3 + [(whole("200 OK", {"choices": [message]}),)]
    await client.post(c, "Hello?")
    assert (await client.answer(c))["content"] == "In one piece."
    body = upstream.calls[-1].body
    assert ("stream_options" in body, body["stream"]) == (False, False)
    assert [turn["role"] for turn in body["messages"]] == ["user"]


@pytest.mark.gen_test
async def test_each_model_has_deadlines_of_its_own(
    serve: Serve, make_client: MakeClient, upstream: Upstream, second: Upstream
) -> None:
    client = make_client(serve(TWO.replace('fallbacks = ["org', 'deadlines = { first_byte = 0.2 }\nfallbacks = ["org')))
    upstream.reply(Do.HANG)
    second.reply(answer("From the second."))
    conversation = await client.create(initialMessage="Anybody there?")
    assert (await client.answer(conversation))["content"] == "From the second."
    await upstream.calls[0].aborted.wait()  # the first model's request is closed, so it costs no more


@pytest.mark.gen_test
async def test_a_stop_while_the_second_one_answers_ends_it(
    serve: Serve, make_client: MakeClient, upstream: Upstream, second: Upstream
) -> None:
    client: Client = make_client(serve(TWO))
    upstream.reply(*broken_off())
    second.reply(beginning("The whole "), Do.HANG)
    conversation = await client.create()
    async with client.stream(conversation) as watched:
        await client.post(conversation, "Count.")
        await watched.until("llm_complete")
        await watched.until("llm_chunk")
        await client.http.post(f"{API}/{conversation}/stop")
        complete = await watched.until("llm_complete")
    assert (complete.data["status"], complete.data["content"]) == ("stopped", "The whole ")
    told = await client.answer(conversation)
    assert (told["attempt"], told["model"]) == (2, "org/second@2")
    assert (len(upstream.calls), len(second.calls)) == (1, 1)


@pytest.mark.gen_test
async def test_without_a_file_the_one_model_is_the_only_choice(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    upstream.reply(stream(delta("Yes."), delta(finish_reason="stop"), USAGE, DONE))
    client = make_client(start_server(CHATSTREAM_USER_MODELS="on", OPENAI_MODEL="org/m@x"))
    [one] = (await client.http.get(MODELS)).json()["models"]
    assert (one["name"], one["default"]) == ("org/m@x", True)
    assert (await client.http.post(API, json={"model": "gpt-99"})).status_code == 422
    conversation = await client.create(model="org/m@x", initialMessage="Yes?")
    assert (await client.answer(conversation))["model"] == "org/m@x"


@pytest.mark.gen_test
async def test_choosing_may_be_forbidden_without_a_file_too(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    upstream.reply(answer("Yes."))
    client = make_client(start_server(CHATSTREAM_USER_MODELS="off", OPENAI_MODEL="org/m@x"))
    conversation = await client.create(initialMessage="Yes?")
    assert (await client.answer(conversation))["content"] == "Yes."
    for name in ("org/m@x", "gpt-99"):
        for refused in (
            await client.http.post(API, json={"model": name}),
            await client.http.patch(f"{API}/{conversation}", json={"model": name}),
        ):
            assert (refused.status_code, refused.json()["errors"]) == (
                422,
                {"model": "the model cannot be chosen here"},
            )


@pytest.mark.gen_test
async def test_the_demo_models_are_the_catalogue_where_none_is_configured(
    start_server: StartServer, make_client: MakeClient
) -> None:
    client = make_client(start_server(CHATSTREAM_USER_MODELS="on", OPENAI_BASE_URL="", OPENAI_API_KEY=""))
    names = [one["name"] for one in (await client.http.get(MODELS)).json()["models"]]
    assert (names[0], "demo-500" in names, "demo-long" in names) == ("demo", True, True)
    conversation = await client.create(model="demo-none-bet", initialMessage="Hello?")
    assert (await client.answer(conversation))["status"] == "complete"
    assert (await client.http.post(API, json={"model": "nonsense"})).status_code == 422


# Costs ----------------------------------------------------------------------------------------------------------------

PRICED = """
[[models]]
name = "paid"
base_url = "FIRST"
key = "FIRST_KEY"
price = { input = 2.5, cached = 0.25, output = 10 }
fallbacks = ["free"]
retries = 0
[[models]]
name = "free"
base_url = "SECOND"
key = "SECOND_KEY"
"""
COUNTED = {"prompt_tokens": 120, "completion_tokens": 40, "prompt_tokens_details": {"cached_tokens": 100}}


@pytest.mark.gen_test
async def test_what_an_answer_cost_is_told_wherever_its_tokens_are(
    serve: Serve, make_client: MakeClient, upstream: Upstream, second: Upstream
) -> None:
    server = serve(PRICED)
    client = make_client(server)
    upstream.reply(stream(delta("Well."), delta(finish_reason="stop"), {"choices": [], "usage": COUNTED}, DONE))
    conversation = await client.create()
    async with client.stream(conversation) as watched:
        await client.post(conversation, "Tell me.")
        told = (await watched.until("llm_complete")).data["usage"]
        assert told["costMicros"] == 50 + 25 + 400
        assert (await client.answer(conversation))["usage"] == told
        upstream.reply(beginning("Half of an answer. "), Do.HANG)
        await client.post(conversation, "Tell me more.")
        await watched.until("llm_chunk")
        receipt = (await client.http.post(f"{API}/{conversation}/stop")).json()["usage"]
        stopped = receipt["costMicros"]
        prompt, completion = receipt["promptTokens"], receipt["completionTokens"]
        assert abs(stopped - (2.5 * prompt + 10 * completion)) <= 0.5  # estimated tokens cost as much
        assert (await watched.until("llm_complete")).data["usage"] == receipt
        # The price of the model that answers instead is charged.
        upstream.reply(whole("503 Service Unavailable", {}))
        second.reply(answer("Gladly."))
        await client.post(conversation, "And now?")
        assert "costMicros" not in (await watched.until("llm_complete")).data["usage"]
    samples = await scrape(client.http)
    assert samples["chatstream_cost_micros_total", "paid"] == told["costMicros"] + stopped
    assert samples["chatstream_model_tokens_total", "completion", "paid"] == 40 + completion
    assert samples["chatstream_model_tokens_total", "cached", "paid"] == 100
    assert samples["chatstream_model_tokens_total", "completion", "free"] > 0
    assert ("chatstream_cost_micros_total", "free") not in samples
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    assert [line["cost_micros"] for line in lines if "cost_micros" in line] == [told["costMicros"], stopped]


@pytest.mark.gen_test
async def test_a_model_that_takes_roles_in_turn_only_has_them_so_whatever_a_plugin_adds(
    serve: Serve, make_client: MakeClient, upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "memory.py").write_text(
        "from chatstream.llm.model import Turn\n"
        "class Memory:\n"
        "    def context(self, turn):\n"
        "        return [Turn('assistant', 'You like tea.'), Turn('assistant', 'You are Ada.')]\n"
    )
    paths = {"CHATSTREAM_PLUGINS": "memory:Memory", "PYTHONPATH": f"{REPOSITORY}:{tmp_path}"}
    client = make_client(
        serve(
            """
            [[models]]
            name = "strict"
            base_url = "FIRST"
            alternating_roles = true
            system_role = false
            [[models]]
            name = "loose"
            base_url = "FIRST"
            """,
            **paths | {"CHATSTREAM_SYSTEM_PROMPT": "Be brief."},
        )
    )
    for model, roles in (("strict", ["user", "assistant", "user"]), ("loose", ["system", "assistant", "user"])):
        upstream.reply(answer("Hello."))
        conversation = await client.create(model=model)
        await client.post(conversation, "Who am I?")
        await client.answer(conversation)
        messages = upstream.calls[-1].body["messages"]
        assert [one["role"] for one in messages] == roles
        assert messages[0]["content"].startswith("Be brief.")
        assert all(one["content"].strip() for one in messages)
        assert [one["content"] for one in messages[-2:]] == ["You like tea.\n\nYou are Ada.", "Who am I?"]
        # In the next turn, the setting of the conversation takes precedence over the remembered one.
        upstream.reply(answer("Ada."))
        await client.post(conversation, "And now?")
        await client.answer(conversation)
        then = [one["role"] for one in upstream.calls[-1].body["messages"] if one["role"] != "system"]
        assert then == ["user", "assistant", "user"]
