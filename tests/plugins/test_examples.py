"""The example plug-ins, with the settings in the README: whole server processes, over real sockets."""

import asyncio
import contextlib
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from chatstream.pieces import Data
from chatstream.plugins import examples
from chatstream.plugins.examples import service
from chatstream.plugins.plugin import Turn
from tests.conftest import MakeClient, StartServer
from tests.support.client import API, Client, Frame
from tests.support.processes import REPOSITORY
from tests.support.upstream import Do, Upstream, answer, beginning, delta, event, http_chunk

EXAMPLES = Path(str(examples.__file__)).parent
README = (EXAMPLES.parent / "README.md").read_text()
ONCE = {"once": "true"}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def settings(heading: str) -> dict[str, str]:
    """The settings in a section of the README."""
    section = README.split(f"\n## {heading}")[1].split("\n## ")[0]
    [block] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return dict(line.split("=", 1) for line in block.splitlines())


def said(**fields: Any) -> bytes:
    return http_chunk(b"data: " + json.dumps(fields).encode() + b"\n\n")


def in_order(frames: list[Frame]) -> list[Any]:
    """The texts and the data of a stream."""
    shown: list[Any] = []
    for frame in frames:
        if frame.type == "llm_chunk":
            shown.append(frame.data["content"])
        elif frame.type == "data":
            shown.append((frame.data["kind"], frame.data["id"], frame.data["data"]))
    return shown


async def history(client: Client, conversation: str) -> str:
    return (await client.http.get(f"{API}/{conversation}/messages")).text


def test_the_readme_shows_the_file_that_is_tested_here() -> None:
    code = (EXAMPLES / "assistant.py").read_text()
    assert f"```python\n{code}```" in README
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 40


@pytest.mark.gen_test
async def test_the_assistant_knows_holds_back_and_tells(
    upstream: Upstream, start_server: StartServer, make_client: MakeClient, tmp_path: Path
) -> None:
    section = README.split("\n## A plug-in of forty lines")[1].split("\n## ")[0]
    [code] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "assistant.py").write_text(code)
    [name] = re.findall(r"CHATSTREAM_PLUGINS=(\S+)", section)
    plugin = {"CHATSTREAM_PLUGINS": name, "WEBHOOK": upstream.url + "/hook", "PYTHONPATH": f"{REPOSITORY}:{tmp_path}"}
    server = start_server(**plugin)
    other = start_server(**plugin)
    client = make_client(server)
    elsewhere = make_client(other, client.user)
    ticket = b'{"ticket": 7}'
    upstream.reply(answer("We open at 9."))
    upstream.reply(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(ticket), ticket))
    conversation = await client.create(initialMessage="What are your OPENING hours?")
    async with client.stream(conversation, params=ONCE) as stream:
        frames = await stream.rest()
    # Not the chunks: the answer may have ended before the stream was opened.
    assert [frame.data["content"] for frame in frames if frame.type == "llm_complete"] == ["We open at 9."]
    assert frames[-1].data["metadata"] == {"ticket": 7}
    assert "We open at 9." in upstream.calls[0].body["messages"][0]["content"]
    assert upstream.calls[1].body["text"] == "We open at 9."
    view = json.loads(await history(client, conversation))["messages"][-1]
    assert view["annotations"][0]["data"] == {"ticket": 7}

    parts = ["I may say it: The c", "ode", " is", " 47"]
    upstream.reply(beginning(*parts), http_chunk(event(delta("11."))), Do.HANG)
    posted = (await client.post(conversation, "What is the code?")).json()
    from_there = ONCE | {"last_event_id": posted["streamCursor"]}
    async with (
        elsewhere.stream(conversation, params=from_there) as stream,
        client.stream(conversation, params=from_there) as here,
    ):
        await here.rest()
        await stream.rest()
    assert here.frames[-1].data["finishReason"] == "content_filter"
    await upstream.calls[2].aborted.wait()
    texts = [
        *(json.dumps(frame.data) for frame in [*here.frames, *stream.frames]),
        await history(client, conversation),
        (await client.http.get(f"{API}/{conversation}/ui-messages")).text,
        await server.logged(),
    ]
    async with elsewhere.stream(
        conversation, params=ONCE | {"last_event_id": here.cursor.split(".")[0] + ".0"}
    ) as again:
        await again.rest()
    # The whole text, unless the secret was in the first read.
    assert again.frames[-1].data["content"] in ("I may say it: ", "")
    texts += [json.dumps(frame.data) for frame in again.frames]
    # Not as part of a longer number: an id in the log may have these digits by chance.
    assert not [text for text in texts if re.search(r"\b4711\b|The code", text)]


@pytest.mark.gen_test
async def test_a_service_with_events_of_its_own_answers(
    upstream: Upstream, start_server: StartServer, make_client: MakeClient
) -> None:
    given = settings("A service of your own") | {"SERVICE_URL": upstream.url + "/answer"}
    client = make_client(start_server(**given))
    elsewhere = make_client(start_server(**given), client.user)
    go_on = asyncio.Event()
    update = {"type": "odds_update", "id": "m1", "odds": 2.1}
    upstream.reply(
        HEAD,
        said(type="llm_chunk", content="Hel"),
        said(**update),
        go_on,
        said(type="llm_chunk", content="lo 👍"),
        said(type="done"),
        http_chunk(b""),
    )
    conversation = await client.create()
    from_there = ONCE | {"last_event_id": (await client.post(conversation, "Hi")).json()["streamCursor"]}
    async with (
        client.stream(conversation, params=from_there) as stream,
        elsewhere.stream(conversation, params=from_there) as other,
    ):
        cursor = (await stream.until("data")).id
        go_on.set()
        await stream.rest()
        await other.rest()
    assert (stream.text, stream.frames[-1].data["status"]) == ("Hello 👍", "complete")
    answer_id = stream.frames[-1].data["messageId"]
    in_place = ["Hel", ("odds_update", "m1", update), "lo 👍"]
    assert in_order(stream.frames) == in_order(other.frames) == in_place
    for one, at, rest in (
        (client, cursor, in_place[2:]),
        (elsewhere, f"{answer_id}.2", ["l", *in_place[1:]]),
        (elsewhere, f"{answer_id}.0", in_place),
    ):
        async with one.stream(conversation, params={**ONCE, "last_event_id": str(at)}) as again:
            assert in_order(await again.rest()) == rest
    parts = [
        {"type": "text", "text": "Hel"},
        {"type": "data", "kind": "odds_update", "id": "m1", "data": update},
        {"type": "text", "text": "lo 👍"},
    ]
    view = json.loads(await history(elsewhere, conversation))["messages"][-1]
    assert stream.frames[-1].data["parts"] == view["parts"] == parts
    in_sdk = {"type": "data-odds_update", "id": "m1", "data": update}
    ui = (await elsewhere.http.get(f"{API}/{conversation}/ui-messages")).json()["messages"][-1]["parts"]
    assert ui == [parts[0], in_sdk, parts[2]]
    for version in ("", "5", "6", "7"):
        sdk = (
            ONCE
            | {"format": "ui-message-stream", "last_event_id": f"{answer_id}.0"}
            | ({"version": version} if version else {})
        )
        told = (await elsewhere.http.get(f"{API}/{conversation}/stream", params=sdk)).text
        chunks = [json.loads(line.removeprefix("data: ")) for line in told.splitlines() if line.startswith("data: {")]
        assert [(one["type"], one.get("delta")) for one in chunks[1:-1]] == [
            *(("text-start", None), ("text-delta", "Hel"), ("text-end", None), ("data-odds_update", None)),
            *(("text-start", None), ("text-delta", "lo 👍"), ("text-end", None)),
        ]
        assert in_sdk in chunks
    first = upstream.calls[0]
    assert first.request_line.startswith("POST /v1/answer ")
    assert first.body["message"] == "Hi"

    upstream.reply(HEAD, said(type="llm_chunk", content="Wait"), said(type="error", code="busy"), http_chunk(b""))
    await client.http.post(f"{API}/{conversation}/regenerate")
    async with client.stream(conversation, params=ONCE) as stream:
        await stream.rest()
    assert [frame.data["error"] for frame in stream.frames if frame.type == "error"] == ["upstream_rate_limited"]
    keys = [call.headers["idempotency-key"] for call in upstream.calls]
    assert keys[1] == keys[0].removesuffix("1") + "2"

    upstream.reply(HEAD, said(type="llm_chunk", content="So far"), Do.HANG)
    await client.post(conversation, "And?")
    async with client.stream(conversation) as stream:
        await stream.until("llm_chunk")
        cursor = stream.cursor
    async with client.stream(conversation, params={"last_event_id": cursor}) as stream:
        await client.http.post(f"{API}/{conversation}/stop")
        assert (await stream.until("llm_complete")).data["content"] == "So far"
        assert stream.text == ""
    await upstream.calls[2].aborted.wait()


@pytest.mark.gen_test
async def test_a_service_may_name_its_events_as_event_streams_do(upstream: Upstream) -> None:
    def named(name: str, **fields: Any) -> bytes:
        return http_chunk(f"event: {name}\r\n: beat\r\nid: 7\r\ndata:{json.dumps(fields)}\r\n\r\n".encode())

    upstream.reply(
        HEAD,
        *(
            named("llm_chunk", content="Hi"),
            named("ping"),
            named("odds_update", odds=[2.1]),
            named("odds_update", id=7),
        ),
        *(
            named("llm_chunk", content="!"),
            said(nothing="named"),
            named("done"),
            named("llm_chunk", content="late"),
            http_chunk(b""),
        ),
    )
    turn = Turn(user="u", conversation="c", history=(), message="Hi", attempt=1, key="k", model=None)
    pieces: Any = service.Service(upstream.url).answer(turn)
    async with contextlib.aclosing(pieces):
        assert [piece async for piece in pieces] == [
            *("Hi", Data(kind="odds_update", id="odds", data={"odds": [2.1]})),
            *(Data(kind="odds_update", id="7", data={"id": 7}), "!"),
        ]


@pytest.mark.gen_test
@pytest.mark.parametrize("none", ["none", ""])
async def test_a_cook_recommends_no_bets(
    upstream: Upstream, start_server: StartServer, make_client: MakeClient, none: str
) -> None:
    given = settings("No bets") | {"CHATSTREAM_PLUGINS": none}
    assert len(given) == 5
    server = start_server(**given | {"OPENAI_BASE_URL": upstream.url})
    client = make_client(server)
    upstream.reply(answer("I'd back Arsenal to win at odds of 2.10."))
    conversation = await client.create(initialMessage="What goes with olive oil?")
    async with client.stream(conversation, params=ONCE) as stream:
        frames = await stream.rest()
    # Not the chunks: the answer may have ended before the stream was opened.
    assert frames[-1].type == "llm_complete"
    assert frames[-1].data["content"] == "I'd back Arsenal to win at odds of 2.10."
    assert "system" not in {frame.type for frame in frames}
    assert upstream.calls[0].body["messages"][0]["content"] == given["CHATSTREAM_SYSTEM_PROMPT"]
    assert upstream.calls[0].body["model"] == "llama3.2"


@pytest.mark.gen_test
async def test_without_a_setting_there_are_bets(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("I'd back Arsenal to win at odds of 2.10."))
    conversation = await client.create(initialMessage="A tip?")
    async with client.stream(conversation, params=ONCE) as stream:
        assert (await stream.rest())[-1].data["metadata"]["oddsText"] == "2.10"
    assert upstream.calls[0].body["messages"][0]["content"] == "You are a helpful sports betting assistant."


@pytest.mark.gen_test
async def test_a_refused_first_message_leaves_no_conversation_behind(
    tmp_path: Path, start_server: StartServer, make_client: MakeClient
) -> None:
    (tmp_path / "rules.py").write_text(
        "from chatstream.plugins.plugin import Refused\n"
        "class Rules:\n"
        "    def admit(self, turn):\n"
        "        raise Refused('Not here.', code='off_topic')\n"
    )
    server = start_server(CHATSTREAM_PLUGINS="rules:Rules", PYTHONPATH=f"{REPOSITORY}:{tmp_path}")
    client = make_client(server)
    refused = await client.http.post(API, json={"id": "mine", "initialMessage": "Hi"})
    assert (refused.status_code, refused.json()["code"], refused.json()["detail"]) == (403, "off_topic", "Not here.")
    assert (await client.http.get(f"{API}/mine")).status_code == 404
    conversation = await client.create()
    refused = await client.http.post(f"{API}/{conversation}/messages", json={"content": "Hi"})
    assert (refused.status_code, refused.json()["code"]) == (403, "off_topic")
    assert json.loads(await history(client, conversation))["messages"] == []
    assert httpx.get(f"{server.url}/healthz").status_code == 200
