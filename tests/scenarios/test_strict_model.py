"""A failed turn never ends a conversation: a model with strict rules answers each valid message after it."""

from collections.abc import Awaitable, Callable

import pytest

from chatstream.llm import demo
from tests.conftest import MakeClient, StartServer
from tests.support.client import API, Client

Turn = Callable[[Client, str], Awaitable[None]]

BLANK = [" \n\t", "\u200b", "\ufeff \u2060", "\u0000", "\u3164"]


def asks(model: str, status: str, code: str | None = None, content: str = "What about it?") -> Turn:
    """Send a message to another model; returns how its answer ends."""

    async def turn(client: Client, conversation: str) -> None:
        await choose(client, conversation, model)
        await client.post(conversation, content)
        answer = await client.answer(conversation)
        assert (answer["status"], (answer["error"] or {}).get("error")) == (status, code)

    return turn


async def choose(client: Client, conversation: str, model: str) -> None:
    assert (await client.http.patch(f"{API}/{conversation}", json={"model": model})).is_success


async def stopped_before_its_first_token(client: Client, conversation: str) -> None:
    await choose(client, conversation, "demo-stall-start")
    await client.post(conversation, "Never mind.")
    await client.http.post(f"{API}/{conversation}/stop")
    answer = await client.answer(conversation)
    assert (answer["status"], answer["content"]) == ("stopped", "")


async def stopped_in_the_middle(client: Client, conversation: str) -> None:
    await choose(client, conversation, "demo-stall")
    async with client.stream(conversation) as watched:
        await client.post(conversation, "Enough.")
        await watched.until("llm_chunk")
        await client.http.post(f"{API}/{conversation}/stop")
        assert (await watched.until("llm_complete")).data["status"] == "stopped"


async def left_alone_before_its_first_token(client: Client, conversation: str) -> None:
    await choose(client, conversation, "demo-stall-start")
    async with client.stream(conversation) as watched:
        await client.post(conversation, "I am off.")
        await watched.until("user_message")
    answer = await client.answer(conversation)
    assert (answer["status"], answer["content"]) == ("interrupted", "")


async def interrupted_by_the_next_message(client: Client, conversation: str) -> None:
    await choose(client, conversation, "demo-stall-start")
    await client.post(conversation, "Wait …")
    await choose(client, conversation, "demo-strict")
    posted = await client.post(conversation, "… no, this.", params={"ifBusy": "interrupt"})
    assert posted.status_code == 201
    assert (await client.answer(conversation))["status"] == "complete"


async def three_that_wait_together(client: Client, conversation: str) -> None:
    await choose(client, conversation, "demo-stall-start")
    await client.post(conversation, "First.")
    for content in ("Second.", "Third."):
        assert (await client.post(conversation, content, params={"ifBusy": "queue"})).status_code == 201
    while (await client.http.post(f"{API}/{conversation}/stop")).is_success:
        pass  # the answer to the last message begins when the first answer is stopped


async def blank(client: Client, conversation: str) -> None:
    for content in BLANK:
        refused = await client.post(conversation, content)
        assert refused.status_code == 422
        assert "content" in refused.json()["errors"]


async def asked_again_without_success(client: Client, conversation: str) -> None:
    await choose(client, conversation, "demo-500")
    assert (await client.http.post(f"{API}/{conversation}/regenerate")).status_code == 202
    assert (await client.answer(conversation))["status"] == "failed"


BAD: list[Turn] = [
    asks("demo-500", "failed", "upstream_unavailable"),
    asks("demo-empty", "complete"),
    stopped_before_its_first_token,
    asks("demo-strict", "failed", "upstream_rejected", f"Say {demo.FILTERED}."),
    left_alone_before_its_first_token,
    three_that_wait_together,
    asks("demo-filter", "complete"),
    blank,
    asks("demo-refusal", "complete"),
    asks("demo-context", "failed", "context_too_long"),
    interrupted_by_the_next_message,
    asks("demo-bad-key", "failed", "upstream_misconfigured"),
    stopped_in_the_middle,
    asks("demo-drop", "failed", "upstream_truncated"),
    asked_again_without_success,
]


@pytest.mark.gen_test(timeout=110)
async def test_every_good_message_is_answered(start_server: StartServer, make_client: MakeClient) -> None:
    with demo.serve(pace=0) as url:
        server = start_server(OPENAI_BASE_URL=url, OPENAI_MODEL="demo-strict", CHATSTREAM_MODEL_RETRIES="0")
        client = make_client(server)
        conversation = await client.create(initialMessage="Who wins on Sunday?")
        assert (await client.answer(conversation))["status"] == "complete"
        for number, bad in enumerate(BAD):
            await bad(client, conversation)
            await choose(client, conversation, "demo-strict")
            await client.post(conversation, f"And on day {number}?")
            answer = await client.answer(conversation)
            assert (answer["status"], bool(answer["content"])) == ("complete", True), (number, answer)


@pytest.mark.parametrize("content", BLANK)
@pytest.mark.gen_test
async def test_a_conversation_does_not_begin_with_nothing(client: Client, content: str) -> None:
    refused = await client.http.post(API, json={"initialMessage": content})
    assert refused.status_code == 422
    assert "initialMessage" in refused.json()["errors"]
    assert (await client.http.get(API)).json()["conversations"] == []


@pytest.mark.gen_test
async def test_a_model_without_a_system_role_is_told_the_prompt_all_the_same(
    start_server: StartServer, make_client: MakeClient
) -> None:
    with demo.serve(pace=0) as url:
        client = make_client(start_server(OPENAI_BASE_URL=url, OPENAI_MODEL="demo-no-system"))
        conversation = await client.create()
        for question in ("Who wins?", "And then?"):
            await client.post(conversation, question)
            assert (await client.answer(conversation))["status"] == "complete"
