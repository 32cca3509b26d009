"""A process is killed while tools run: each effect happens at most once, and no call is reported wrongly."""

import asyncio
import functools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeClient, StartServer
from tests.support.client import Client
from tests.support.receiver import receiving
from tests.support.upstream import DONE, Do, Upstream, answer, beginning, delta, event, http_chunk, stream

PLUGIN = '''
import asyncio
import os
from pathlib import Path

from chatstream.plugins.tool import Caller, tool


async def work(name, wait, caller):
    with Path(os.environ["LEDGER"]).open("a", encoding="utf-8") as ledger:
        ledger.write(f"{name} {caller.key}\\n")
    if wait and "HOLD" in os.environ:
        await asyncio.Event().wait()
    return "done"


@tool(effect="once", approval="never")
async def pay(wait: bool, caller: Caller) -> str:
    """Pay."""
    return await work("pay", wait, caller)


@tool(effect="idempotent")
async def order(wait: bool, caller: Caller) -> str:
    """Order."""
    return await work("order", wait, caller)


@tool(effect="none")
async def look(wait: bool, caller: Caller) -> str:
    """Look."""
    return await work("look", wait, caller)


class Plugin:
    tools = (pay, order, look)


plugin = Plugin
'''


def called(name: str, arguments: str) -> dict[str, Any]:
    return delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": name, "arguments": arguments}}])


def calls(name: str, *, wait: bool) -> bytes:
    return stream(called(name, json.dumps({"wait": wait})), delta(finish_reason="tool_calls"), DONE)


def calls_in(complete: dict[str, Any]) -> list[str]:
    """The states of the calls in an answer."""
    return [part["state"] for part in complete.get("parts", ()) if part["type"] == "tool_call"]


async def until(seen: Callable[[], bool]) -> None:
    """Poll until another process has done something; it has no event to wait for."""
    async with asyncio.timeout(60):
        while not seen():
            await asyncio.sleep(0.02)


async def ended(client: Client, conversation: str) -> dict[str, Any]:
    """Watch until the final end; returns the answer."""
    async with client.stream(conversation) as watched:
        while True:
            complete = (await watched.until("llm_complete")).data
            if complete["status"] != "interrupted":
                return complete


@pytest.mark.gen_test(timeout=110)
async def test_an_endpoint_that_is_at_work_when_the_process_is_killed_is_asked_again_under_the_same_key_if_it_may_be(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path
) -> None:
    async with receiving() as receiver:
        file = tmp_path / "tools.toml"
        file.write_text(
            "".join(
                f'[[tool]]\nname = "{name}"\ndescription = "d"\nurl = "{receiver.url}&tool={name}"\n'
                f'effect = "{effect}"\napproval = "never"\n[tool.parameters]\ntype = "object"\n'
                for name, effect in (("pay", "once"), ("order", "idempotent"))
            )
        )
        receiver.replies = [None, None]
        settings = {"CHATSTREAM_TOOLS_FILE": str(file), "CHATSTREAM_PLUGINS": "none"}
        server = start_server(**settings)
        client = make_client(server)
        conversations = []
        for number, name in enumerate(("pay", "order"), start=1):
            upstream.reply(calls(name, wait=True))
            conversations.append(await client.create(initialMessage=name))
            await receiver.until(number)
        assert [offered["function"]["name"] for offered in upstream.calls[0].body["tools"]] == ["pay", "order"]
        upstream.reply(answer("So it is."))

        await server.kill()
        client = make_client(start_server(**settings), client.user)
        paid, ordered = [await ended(client, one) for one in conversations]

        assert (paid["status"], calls_in(paid)) == ("failed", ["unknown"])
        assert (ordered["status"], calls_in(ordered)) == ("complete", ["done"])
        sent = [(one.path.rpartition("=")[2], one.headers["idempotency-key"]) for one in receiver.received]
        (_, paid_under), (_, ordered_under) = sent[:2]
        assert sent == [("pay", paid_under), ("order", ordered_under), ("order", ordered_under)]
        assert {one.headers["x-user-id"] for one in receiver.received} == {client.user}
        assert {one.headers["x-conversation-id"] for one in receiver.received} == {*conversations}


@pytest.mark.gen_test(timeout=110)
async def test_a_killed_process_leaves_no_effect_twice_and_none_untold(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "paying.py").write_text(PLUGIN, encoding="utf-8")
    ledger = tmp_path / "ledger.txt"
    settings = {"CHATSTREAM_PLUGINS": "paying:plugin", "LEDGER": str(ledger)}
    server = start_server(HOLD="1", **settings)
    client = make_client(server)
    conversations: dict[str, str] = {}

    def worked() -> list[list[str]]:
        return [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []

    def has_worked(often: int) -> bool:
        return len(worked()) == often

    async def ask(case: str) -> None:
        conversations[case] = await client.create(initialMessage=case)

    for number, name in enumerate(("pay", "order", "look"), start=1):  # each call runs when the process dies
        upstream.reply(calls(name, wait=True))
        await ask(name)
        await until(functools.partial(has_worked, number))
    upstream.reply(calls("pay", wait=False))  # the result is stored, and the model has begun its next text
    upstream.reply(beginning("It is"), Do.HANG)
    await ask("paid")
    await until(lambda: len(upstream.calls) == 5)
    upstream.reply(beginning("I pay."), http_chunk(event(called("pay", '{"wa'))), Do.HANG)  # half of a call
    await ask("half")
    await until(lambda: len(upstream.calls) == 6)
    upstream.reply(answer("So it is."))

    await server.kill()
    client = make_client(start_server(**settings), client.user)
    outcomes = dict(
        zip(conversations, await asyncio.gather(*(ended(client, one) for one in conversations.values())), strict=True)
    )

    assert {case: outcome["status"] for case, outcome in outcomes.items()} == {
        "pay": "failed",
        "order": "complete",
        "look": "complete",
        "paid": "complete",
        "half": "complete",
    }
    states = {
        case: [part["state"] for part in one.get("parts", ()) if part["type"] == "tool_call"]
        for case, one in outcomes.items()
    }
    assert states == {"pay": ["unknown"], "order": ["done"], "look": ["done"], "paid": ["done"], "half": []}
    keys = Counter((name, key) for name, key in worked())
    assert sorted((name, count) for (name, _), count in keys.items()) == [
        ("look", 2),
        ("order", 2),
        ("pay", 1),
        ("pay", 1),
    ]
    # The model was not asked to repeat its output, and got one result for each call.
    for call in upstream.calls[6:]:
        messages = call.body["messages"]
        made = [one["id"] for message in messages for one in message.get("tool_calls") or ()]
        assert [message["tool_call_id"] for message in messages if message["role"] == "tool"] == made
    assert len(upstream.calls) == 6 + 4
    # Every conversation continues.
    for conversation in conversations.values():
        assert (await client.post(conversation, "And now?")).status_code == 201
        assert (await client.answer(conversation))["status"] == "complete"
    assert "streaming" not in {
        message.get("status") for one in conversations.values() for message in await client.messages(one)
    }
