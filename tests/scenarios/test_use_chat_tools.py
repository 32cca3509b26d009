"""Tools and approvals in the AI SDK's `useChat`, as used in `examples/use-chat.tsx`, in each of its versions."""

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from tests.conftest import MakeClient
from tests.scenarios.test_approvals import waiting_call
from tests.scenarios.test_tools import called
from tests.scenarios.test_use_chat import VERSIONS, chat, problems, texts
from tests.scenarios.test_use_chat_sse import hook
from tests.stress.faults import FaultProxy
from tests.support.client import API, Client
from tests.support.mcp_server import Seen, served
from tests.support.processes import ServerProcess
from tests.support.script import Line, Script, script
from tests.support.upstream import DONE, Do, Upstream, answer, beginning, delta, ending, event, http_chunk, stream

PLUGIN = '''
import asyncio
import os
from pathlib import Path

from chatstream.plugins.tool import tool


@tool(effect="none")
async def look(match: str) -> dict:
    """Look."""
    while match == "held" and not Path(os.environ["GO"]).exists():
        await asyncio.sleep(0.01)
    if match == "none":
        raise ValueError("there is no such match")
    return {"odds": 2.1}


@tool(effect="once")
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


class Plugin:
    tools = (look, pay)


plugin = Plugin
'''
TOOLS = """
[[tool]]
name = "locate"
description = "Where the user is."
where = "client"
parameters = { type = "object", properties = { precise = { type = "boolean" } } }
"""
PICK: dict[str, Any] = {
    "name": "pick_photo",
    "description": "Let the user pick a photo.",
    "parameters": {"type": "object"},
}

# Each version with its own format, and the most different versions also without a named format.
both_formats = pytest.mark.parametrize(
    ("version", "format_"),
    [(version, "") for version in ("5.0.0", "5.0.60", "7")]
    + [(version, f"format=ui-message-stream&version={version[0]}") for version in VERSIONS if version != "5.0.60"],
)
# The newest version of each major, in its own format, with its own approvals if it has them.
newest_of_each = pytest.mark.parametrize(
    ("version", "format_"), [(version, f"format=ui-message-stream&version={version}") for version in ("5", "6", "7")]
)


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that the tool `look` waits for."""
    return tmp_path_factory.mktemp("go") / "go"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], go: Path) -> Iterator[ServerProcess]:
    """A server with tools, for all tests of this module."""
    directory = tmp_path_factory.mktemp("tools")
    (directory / "tooling.py").write_text(PLUGIN, encoding="utf-8")
    seen = Seen()
    with served("modern", seen) as url:
        asking = f'[[mcp]]\nname = "hall"\nurl = "{url}"\n[[mcp.tools]]\nname = "book_later"\napproval = "never"\n'
        (directory / "tools.toml").write_text(TOOLS + asking)
        for server in _started(directory, environment, go):
            assert seen.listed.wait(60)
            yield server


def _started(directory: Path, environment: dict[str, str], go: Path) -> Iterator[ServerProcess]:
    settings = environment | {
        "MONGODB_DATABASE": f"test-{uuid.uuid4().hex}",
        "CHATSTREAM_PLUGINS": "tooling:plugin",
        "CHATSTREAM_TOOLS_FILE": str(directory / "tools.toml"),
        "GO": str(go),
    }
    server = ServerProcess(directory, settings).start().wait_until_ready()
    yield server
    server.stop()


@pytest.fixture
def client(io_loop: IOLoop, server: ServerProcess, make_client: MakeClient, go: Path) -> Iterator[Client]:
    """A client. Its answers are stopped after the test, so that none asks the next test's model."""
    go.unlink(missing_ok=True)
    client = make_client(server)
    yield client
    io_loop.run_sync(client.stop_all)


def calling(*calls: tuple[str, dict[str, Any]], text: str = "") -> bytes:
    """A response with a text and tool calls."""
    made = [
        {"index": index, "id": f"call-{index}", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for index, (name, arguments) in enumerate(calls)
    ]
    said = [delta(text)] if text else []
    return stream(*said, *(delta(tool_calls=[one]) for one in made), delta(finish_reason="tool_calls"), DONE)


def calls_in(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The tool calls in a message."""
    return [part for part in message["parts"] if part["type"] == "dynamic-tool"]


def states(line: Line) -> list[str]:
    """The states of the last message's calls."""
    return [call["state"] for call in calls_in(line["messages"][-1])] if line.get("messages") else []


def ready(*wanted: str) -> Callable[[Line], bool]:
    """Wait for a rendering with these texts, in which nothing is awaited."""
    return lambda line: line.get("status") == "ready" and not line["waitsFor"] and texts(line) == [*wanted]


def waits(line: Line) -> bool:
    return line.get("status") == "ready" and bool(line["waitsFor"])


def waiting_ids(line: Line) -> list[str]:
    return [one["toolCallId"] for one in line["waitsFor"]]


SHOWN = ("type", "text", "toolCallId", "toolName", "state", "input", "output", "errorText", "approval", "id", "data")


def shown(message: dict[str, Any], version: str) -> list[dict[str, Any]]:
    """The visible content of a message, from the stream or the history."""
    found = []
    for part in message["parts"]:
        kept = {name: part[name] for name in SHOWN if part.get(name) is not None}
        if part["type"] in ("text", "reasoning"):
            kept = {"type": part["type"], "text": part["text"]}
        if "approval" in kept and version.startswith("6"):  # which is not told what somebody else has decided
            kept["approval"] = kept["approval"]["id"]
        if part.get("state") == "output-error":
            kept.pop("approval", None)  # the SDK keeps what was asked, also if nobody has decided
        found.append(kept)
    return found


async def check_history(component: Script, line: Line, version: str) -> None:
    """Check that the history equals the shown messages."""
    history = (await component.call("history"))["messages"]
    assert [(one["id"], shown(one, version)) for one in line["messages"]] == [
        (one["id"], shown(one, version)) for one in history
    ]


@pytest.mark.gen_test
async def test_a_tool_of_the_file_is_the_apps_in_every_conversation(client: Client, upstream: Upstream) -> None:
    conversation = await client.create()
    taken = [PICK | {"name": "locate"}]
    refused = await client.http.patch(f"{API}/{conversation}", json={"clientTools": taken})
    assert (refused.status_code, refused.json()["errors"]) == (
        422,
        {"clientTools.0.name": "the server has a tool locate"},
    )
    upstream.reply(calling(("locate", {"precise": 1})))  # invalid arguments: the app is not asked
    upstream.reply(calling(("locate", {"precise": True})))
    upstream.reply(answer("There."))
    await client.post(conversation, "Where am I?")
    call = await waiting_call(client, conversation)
    assert (call["state"], call["arguments"]) == ("awaiting_client", '{"precise": true}')
    url = f"{API}/{conversation}/tool-calls/{call['toolCallId']}"
    assert (await client.http.post(url, json={"decision": "approve"})).status_code == 409
    assert (await client.http.post(url, json={"output": [52.5, 13.4]})).json()["output"] == [52.5, 13.4]
    assert (await client.answer(conversation))["content"] == "There."
    assert "locate" in [one["function"]["name"] for one in upstream.calls[0].body["tools"]]


@both_formats
@pytest.mark.gen_test(timeout=110)
async def test_calls_approvals_and_an_app_s_own_tools_in_every_version(
    client: Client, upstream: Upstream, go: Path, version: str, format_: str
) -> None:
    conversation = await client.create()
    declared = await client.http.patch(f"{API}/{conversation}", json={"clientTools": [PICK]})
    assert declared.status_code == 200, declared.text
    upstream.reply(calling(("look", {"match": "held"}), ("look", {"match": "none"}), text="Let me look."))
    upstream.reply(answer("Take 2.10."))
    upstream.reply(calling(("pay", {"amount": 10}), text="I pay."))
    upstream.reply(answer("Paid."))
    upstream.reply(calling(("pay", {"amount": 1000})))
    upstream.reply(answer("Then not."))
    upstream.reply(calling(("pick_photo", {})))
    upstream.reply(answer("A cat."))
    upstream.reply(answer("Nothing."))
    tools = {"pick_photo": {"name": "cat.jpg"}}
    async with chat(client, conversation, version, format=format_, tools=tools) as component:
        await component.call("send", "Odds?")
        # The failed call is reported while the other one runs.
        await component.until(lambda line: states(line) == ["input-available", "output-error"])
        go.touch()
        told = ["Odds?", "Let me look.\n\nTake 2.10."]
        line = await component.until(ready(*told))
        found, missing = calls_in(line["messages"][-1])
        assert (found["input"], found["output"], found["state"]) == (
            {"match": "held"},
            {"odds": 2.1},
            "output-available",
        )
        assert (missing["errorText"], missing["state"]) == ("failed: there is no such match", "output-error")

        await component.call("send", "Pay.")
        line = await component.until(waits)
        [id_] = waiting_ids(line)
        assert line["waitsFor"][0]["state"] == "awaiting_approval"
        await check_history(component, line, version)
        # After a reload, or in another tab, the question is shown, too, and the answer given there counts.
        async with chat(client, conversation, version, format=format_) as opened:
            assert waiting_ids(await opened.until(waits)) == [id_]
            await opened.call("resume")
            assert waiting_ids(await opened.until(waits)) == [id_]
            await opened.call("decide", id_, "approve")
            told += ["Pay.", "I pay.\n\nPaid."]
            await check_history(opened, await opened.until(ready(*told)), version)
            assert problems(opened) == []
        await component.call("decide", id_, "deny")  # too late: the page shows the earlier decision
        line = await component.until(ready(*told))
        assert calls_in(line["messages"][-1])[0]["output"] == "paid 10"
        await check_history(component, line, version)

        await component.call("send", "Pay a thousand.")
        [id_] = waiting_ids(await component.until(waits))
        await component.call("decide", id_, "deny", "Too much.")
        told += ["Pay a thousand.", "Then not."]
        line = await component.until(ready(*told))
        assert states(line) == ["output-denied" if format_ and version[0] != "5" else "output-error"]
        assert any(
            "Too much." in one["content"] for one in upstream.calls[-1].body["messages"] if one["role"] == "tool"
        )

        await component.call("send", "Which?")
        line = await component.until(ready(*told, "Which?", "A cat."))
        assert calls_in(line["messages"][-1])[0]["output"] == {"name": "cat.jpg"}
        assert len([one for one in component.lines if "carriedOut" in one]) == 1
        await check_history(component, line, version)
        await component.call("regenerate")
        line = await component.until(ready(*told, "Which?", "Nothing."))
        await check_history(component, line, version)
        assert set(problems(component)) <= {"This call has been approved before."}
    assert len(upstream.calls) == 9


@newest_of_each
@pytest.mark.gen_test(timeout=110)
async def test_what_a_tool_asks_is_answered(client: Client, upstream: Upstream, version: str, format_: str) -> None:
    conversation = await client.create()
    upstream.reply(calling(("hall__book_later", {}), text="I book."))
    upstream.reply(answer("Booked."))
    async with chat(client, conversation, version, format=format_) as component:
        await component.call("send", "Book.")
        line = await component.until(waits)
        [asked] = line["waitsFor"]
        assert (asked["state"], asked["message"], asked["question"]["id"]) == ("awaiting_input", "Which row?", "1")
        assert asked["question"]["schema"]["required"] == ["row"]
        await check_history(component, line, version)
        await component.call("answerQuestion", asked["toolCallId"], "1", {"action": "accept", "content": {"row": 7}})
        line = await component.until(lambda line: waits(line) and line["waitsFor"][0]["question"]["id"] == "2")
        await check_history(component, line, version)
        async with chat(client, conversation, version, format=format_) as opened:
            assert (await opened.until(waits))["waitsFor"][0]["message"] == "Really?"
            await opened.call("answerQuestion", asked["toolCallId"], "2", {"action": "decline"})
            line = await opened.until(ready("Book.", "I book.\n\nBooked."))
            [part] = calls_in(line["messages"][-1])
            assert part["output"] == "asked: {'row': ('accept', {'row': 7}), 'sure': ('decline', None)}"
            await check_history(opened, line, version)
            assert problems(opened) == []


@newest_of_each
@pytest.mark.gen_test(timeout=110)
async def test_the_sdks_own_functions_say_it_too(
    client: Client, upstream: Upstream, version: str, format_: str
) -> None:
    """Called as by ready-made components: two approvals at once, one of them denied, and a tool of the app."""
    conversation = await client.create()
    await client.http.patch(f"{API}/{conversation}", json={"clientTools": [PICK]})
    upstream.reply(calling(("pay", {"amount": 1}), ("pick_photo", {}), ("pay", {"amount": 2})))
    upstream.reply(answer("So it is."))
    async with chat(client, conversation, version, format=format_) as component:
        await component.call("send", "Pay both.")
        first, picked, second = waiting_ids(await component.until(waits))
        if version == "5":
            await component.call("decide", second, "deny")
        else:
            await component.call(
                "addToolApprovalResponse", {"id": second, "approved": False, "reason": "Once is enough."}
            )
        await component.until(lambda line: waits(line) and waiting_ids(line) == [first, picked])
        # Both are sent at once, before the response to the first one.
        await component.call(
            "addToolOutput", {"tool": "pick_photo", "toolCallId": picked, "output": {"name": "cat.jpg"}}
        )
        if version != "5":
            await component.call("addToolApprovalResponse", {"id": first, "approved": True})
        else:
            await component.until(lambda line: waits(line) and waiting_ids(line) == [first])
            await component.call("decide", first, "approve")
        line = await component.until(ready("Pay both.", "So it is."))
        assert states(line)[:2] == ["output-available"] * 2
        assert [call.get("output") for call in calls_in(line["messages"][-1])] == ["paid 1", {"name": "cat.jpg"}, None]
        await check_history(component, line, version)
        assert problems(component) == []
        await component.call("send", "And?")
        await component.until(ready("Pay both.", "So it is.", "And?", "So it is."))
    # There is one answer, and no request was repeated.
    assert len(upstream.calls) == 3
    results = [one["content"] for one in upstream.calls[1].body["messages"] if one["role"] == "tool"]
    assert len(results) == 3
    assert results[:2] == ["paid 1", '{"name":"cat.jpg"}']


@newest_of_each
@pytest.mark.gen_test(timeout=110)
async def test_what_is_not_waited_for_any_more(
    client: Client, upstream: Upstream, go: Path, version: str, format_: str
) -> None:
    """Stop while a call runs, and while it waits; send another message; regenerate; and let the app's tool fail."""
    conversation = await client.create()
    await client.http.patch(f"{API}/{conversation}", json={"clientTools": [PICK]})
    upstream.reply(calling(("look", {"match": "held"})))
    upstream.reply(calling(("pay", {"amount": 1}), text="I pay."))
    upstream.reply(calling(("pay", {"amount": 2})))
    upstream.reply(answer("Good."))
    upstream.reply(calling(("pay", {"amount": 3})))
    upstream.reply(answer("Not at all."))
    upstream.reply(calling(("pick_photo", {"album": 1})))
    upstream.reply(answer("No camera."))
    async with chat(client, conversation, version, format=format_, tools={"pick_photo": None}) as component:
        await component.call("send", "Look.")
        await component.until(lambda line: states(line) == ["input-available"])
        await component.call("stop")
        line = await component.until(ready("Look.", ""))
        assert line["messages"][-1]["metadata"]["status"] == "stopped"
        assert states(line) == ["output-error"]

        await component.call("send", "Pay 1.")
        await component.until(waits)
        await component.call("stop")
        line = await component.until(ready("Look.", "", "Pay 1.", "I pay."))
        assert line["messages"][-1]["metadata"]["status"] == "stopped"
        await check_history(component, line, version)

        await component.call("send", "Pay 2.")
        await component.until(waits)
        await component.call("send", "No, wait.")
        told = ["Look.", "", "Pay 1.", "I pay.", "Pay 2.", "", "No, wait."]
        await component.until(ready(*told, "Good."))

        await component.call("send", "Pay 3.")
        await component.until(waits)
        await component.call("regenerate")
        await component.until(ready(*told, "Good.", "Pay 3.", "Not at all."))

        await component.call("send", "Pick one.")
        line = await component.until(ready(*told, "Good.", "Pay 3.", "Not at all.", "Pick one.", "No camera."))
        assert states(line) == ["output-error"]
        assert "no camera" in calls_in(line["messages"][-1])[0]["errorText"]
        assert problems(component) == []
        history = (await component.call("history"))["messages"]
        assert texts({"messages": history}) == texts(line)
    assert "paid" not in json.dumps(history)
    assert len(upstream.calls) == 8


@newest_of_each
@pytest.mark.gen_test(timeout=110)
async def test_a_connection_that_breaks_while_something_is_decided(
    client: Client, upstream: Upstream, go: Path, version: str, format_: str
) -> None:
    conversation = await client.create()
    go_on = asyncio.Event()
    upstream.reply(calling(("pay", {"amount": 1}), text="I pay."))
    upstream.reply(beginning("Paid, "), go_on, http_chunk(event(delta("once."))), ending())
    proxy = await FaultProxy(lambda: int(client.url.rpartition(":")[2])).start()
    try:
        base = {"server": f"http://127.0.0.1:{proxy.port}", "format": format_}
        async with client.stream(conversation), chat(client, conversation, version, **base) as component:
            await component.call("send", "Pay.")
            [id_] = waiting_ids(await component.until(waits))
            proxy.refuse()
            await component.call("decide", id_, "approve")
            await component.until(lambda line: line.get("broken"))
            proxy.heal()
            assert waiting_ids(await component.until(waits)) == [id_]  # it did not arrive, so ask again
            await component.call("decide", id_, "approve")
            await component.until(lambda line: "messages" in line and texts(line)[-1:] == ["I pay.\n\nPaid, "])
            proxy.cut()
            await component.until(lambda line: line.get("broken"))
            go_on.set()
            line = await component.until(ready("Pay.", "I pay.\n\nPaid, once."))
            assert states(line) == ["output-available"]
            await check_history(component, line, version)
    finally:
        await proxy.close()
    assert len(upstream.calls) == 2


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.gen_test(timeout=110)
async def test_a_history_with_calls_is_one_of_the_sdks_own(client: Client, upstream: Upstream, version: str) -> None:
    """With calls in every state, the messages are valid, and the SDK can convert them for a model."""
    conversation = await client.create()
    await client.http.patch(f"{API}/{conversation}", json={"clientTools": [PICK]})
    upstream.reply(calling(("look", {"match": "a"}), ("look", {"match": "none"}), text="I look."))
    upstream.reply(calling(("look", {})))  # invalid arguments
    upstream.reply(answer("Seen."))
    upstream.reply(calling(("pay", {"amount": 1})))
    upstream.reply(answer("Not."))
    upstream.reply(beginning("Cut"), http_chunk(event(called("pay", '{"amo'))), Do.HANG)
    upstream.reply(calling(("pay", {"amount": 2})))
    upstream.reply(answer("Paid."))
    upstream.reply(calling(("pay", {"amount": 3}), ("pick_photo", {})))

    async def ask(content: str) -> str:
        async with client.stream(conversation) as watched:
            assert (await client.post(conversation, content)).status_code == 201
            return str((await watched.until("tool_state" if content != "Cut." else "tool_call")).data["toolCallId"])

    async def decide(content: str, decision: str) -> None:
        id_ = await ask(content)
        await waiting_call(client, conversation)
        url = f"{API}/{conversation}/tool-calls/{id_}"
        response = await client.http.post(url, json={"decision": decision})
        assert response.status_code == 200, response.text
        await client.answer(conversation)

    await client.post(conversation, "Look.")
    await client.answer(conversation)
    await decide("Pay 1.", "deny")
    await ask("Cut.")
    assert (await client.http.post(f"{API}/{conversation}/stop")).status_code == 200
    await decide("Pay 2.", "approve")
    await ask("Pay 3.")
    await waiting_call(client, conversation)
    for params in ({}, {"version": version[0]}):
        page = (await client.http.get(f"{API}/{conversation}/ui-messages", params=params)).json()
        # A waiting call has no result yet. The first versions of the SDK cannot convert that, not even their own form
        # of it.
        messages = page["messages"][:-1] if version.startswith("5.0.") else page["messages"]
        async with script("ui_messages.mjs", {"version": version, "messages": messages}) as checked:
            line = await checked.until(lambda line: "asked" in line)
        whole = [one for message in line["asked"] for one in message["content"] if isinstance(one, dict)]
        made = [one["toolCallId"] for one in whole if one["type"] == "tool-call"]
        results = [one["toolCallId"] for one in whole if one["type"] == "tool-result"]
        assert len(made) == len(set(made))
        assert set(results) <= set(made)
        assert len(made) >= 6
        # The text that was written after three results comes after them.
        seen = next(
            index for index, one in enumerate(whole) if one["type"] == "text" and one["text"].strip() == "Seen."
        )
        assert [one["type"] for one in whole[:seen]].count("tool-result") == 3


def calls_of(line: Line) -> list[tuple[str, object]]:
    """The state and the result of each call of the newest message."""
    transcript = line.get("shown", {}).get("transcript") or [{}]
    return [
        (one["state"], one.get("output")) for one in transcript[-1].get("parts") or () if one["type"] == "tool_call"
    ]


@pytest.mark.gen_test(timeout=110)
async def test_the_hook_decides_and_answers(client: Client, upstream: Upstream) -> None:
    """Two components decide two calls at once; the page is reloaded while they wait; the first decision counts."""
    conversation = await client.create()
    upstream.reply(calling(("pay", {"amount": 1}), ("locate", {}), text="I pay."))
    upstream.reply(answer("Paid, there."))
    upstream.reply(calling(("pay", {"amount": 2})))
    upstream.reply(answer("Then not."))
    waiting = [("awaiting_approval", None), ("awaiting_client", None)]
    async with hook(client, conversation) as component:
        await component.until(lambda line: line.get("shown", {}).get("status") == "connected")
        await component.call("send", "Pay there.")
        line = await component.until(lambda line: calls_of(line) == waiting)
        pay, locate = (one["toolCallId"] for one in line["shown"]["transcript"][-1]["parts"] if "toolCallId" in one)
        async with hook(client, conversation, history=True) as reloaded:
            await reloaded.until(lambda line: calls_of(line) == waiting)
            assert (await reloaded.call("answerTool", locate, {"output": [52.5, 13.4]}))["status"] == "waiting"
            done = ("done", [52.5, 13.4])
            await component.until(lambda line: calls_of(line) == [waiting[0], done])
            assert (await component.call("decide", pay, "approve"))["status"] == "streaming"
            for one in (component, reloaded):
                line = await one.until(
                    lambda line: line.get("shown", {}).get("isStreaming") is False and calls_of(line)
                )
                assert calls_of(line) == [("done", "paid 1"), done]
                assert line["shown"]["messages"][-1]["content"] == "I pay.\n\nPaid, there."
            with pytest.raises(AssertionError, match="already_decided"):
                await reloaded.call("decide", pay, "deny")
            with pytest.raises(AssertionError, match="already_decided"):
                await component.call("answerTool", locate, {"error": "no idea"})
            await component.call("send", "Pay 2.")
            line = await reloaded.until(lambda line: calls_of(line) == waiting[:1])
            [pay] = (one["toolCallId"] for one in line["shown"]["transcript"][-1]["parts"] if "toolCallId" in one)
            await reloaded.call("decide", pay, "deny", {"reason": "Too much."})
            line = await component.until(
                lambda line: (
                    line.get("shown", {}).get("isStreaming") is False
                    and line["shown"]["transcript"][-1]["content"] == "Then not."
                )
            )
            assert [state for state, _ in calls_of(line)] == ["denied"]
    assert any("Too much." in one["content"] for one in upstream.calls[-1].body["messages"] if one["role"] == "tool")
    assert len(upstream.calls) == 4
