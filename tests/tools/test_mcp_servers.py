"""Tools of real MCP servers, of either protocol, over HTTP and on standard input and output."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from chatstream.pieces import Effect, Question
from chatstream.plugins.tool import Caller, Manner
from chatstream.tools.mcp_file import McpServer, McpTool
from chatstream.tools.mcp_servers import servers
from chatstream.tools.mcp_servers.servers import McpServers, try_out
from chatstream.tools.tool import (
    Answered,
    BadArguments,
    InputRequired,
    OutcomeUnknown,
    Said,
    Tool,
    ToolFailed,
    Tools,
)
from tests.support.mcp_server import ERAS, Seen, served
from tests.support.upstream import Do, Upstream, head, http_chunk, whole

CALLER = Caller(user="auth0|7", conversation="c", answer="a", key="a.1")
NAMES = ("add", "a.b/c", "fail", "slow", "flood", "crash", "book", "book_later")


def server(
    *,
    url: str | None = None,
    command: tuple[str, ...] = (),
    names: tuple[str, ...] = NAMES,
    effect: Effect = Effect.NONE,
    **fields: Any,
) -> McpServer:
    tools = tuple(
        McpTool(
            name=f"s__{name.replace('.', '_').replace('/', '_')}",
            own_name=name,
            description=None,
            manner=Manner(effect=effect, timeout=60),
        )
        for name in names
    )
    given = {"headers": {"X-Key": "k"}, "environment": {}, "internal": False, **fields}
    return McpServer(name="s", url=url, command=command, tools=tools, **given)


def program(era: str, **options: Any) -> McpServer:
    return server(command=(sys.executable, "-m", "tests.support.mcp_server", era), **options)


@asynccontextmanager
async def opened(*some: McpServer) -> AsyncIterator[Tools]:
    tools = Tools()
    there = asyncio.Event()

    def found(these: Any) -> None:
        tools.found(these)
        there.set()

    asked = tools.open_calls = McpServers(some, found)
    await asked.open()
    try:
        async with asyncio.timeout(60):  # on a busy machine a program may take longer than a start waits
            await there.wait()
        yield tools
    finally:
        await asked.close()


@pytest.fixture
def said_of_progress(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(sys.modules[__name__], "CALLER", replace(CALLER, progress=said.append))
    return said


async def run(tools: Tools, name: str, arguments: str = "{}") -> object:
    tool = tools.get(f"s__{name}")
    assert isinstance(tool, Tool)
    async with asyncio.timeout(60):
        return await tool.run(tool.checked(arguments), CALLER)


async def answered(
    tools: Tools, name: str, asks: InputRequired, *given: Any, key: str = "a.1", caller: Caller | None = None
) -> object:
    """Continue a call with these answers to its questions: an action, or the content of `accept`."""
    tool = tools.get(f"s__{name}")
    assert isinstance(tool, Tool)
    assert tool.go_on is not None
    said = tuple(
        Said(question=question, action=one)
        if isinstance(one, str)
        else Said(question=question, action="accept", content=one)
        for question, one in zip(asks.questions, given, strict=True)
    )
    async with asyncio.timeout(60):
        return await tool.go_on({}, replace(caller or CALLER, key=key), Answered(carry=asks.carry, said=said))


async def asked(tools: Tools, name: str, key: str = "a.1") -> InputRequired:
    tool = tools.get(f"s__{name}")
    assert isinstance(tool, Tool)
    with pytest.raises(InputRequired) as caught:
        async with asyncio.timeout(60):
            await tool.run({}, replace(CALLER, key=key))
    return caught.value


async def asks(tools: Tools, name: str) -> None:
    """Check that the server asks its question and continues with each kind of answer."""
    wanted = await asked(tools, name)
    assert wanted.questions[0].message == "Which row?"
    assert json.loads(wanted.questions[0].schema or "")["properties"]["row"]["type"] == "integer"
    if name == "book_later":
        assert [one.message for one in wanted.questions] == ["Which row?", "Really?"]
        said = await answered(tools, name, wanted, {"row": 7}, "decline")
        assert said == "asked: {'row': ('accept', {'row': 7}), 'sure': ('decline', None)}"
        return
    said_by_then: list[str] = []
    going_on = replace(CALLER, progress=said_by_then.append)
    assert await answered(tools, name, wanted, {"row": 7}, caller=going_on) == "row 7"
    assert said_by_then == ["booking it"]
    for action in ("decline", "cancel"):
        assert await answered(tools, name, await asked(tools, name), action) == action
    with pytest.raises(InputRequired) as caught:
        await answered(tools, name, await asked(tools, name), {"row": 13})
    assert caught.value.questions[0].message == "Really 13?"
    assert await answered(tools, name, caught.value, "decline") == "not 13: decline"


@pytest.fixture(scope="module", params=ERAS)
def over_http(request: pytest.FixtureRequest) -> Iterator[tuple[str, Seen, str]]:
    """The URL of a server, its received requests, and the expected protocol."""
    seen = Seen()
    with served(request.param, seen) as url:
        yield url, seen, "2026-07-28" if request.param == "modern" else "2025-11-25"


@pytest.mark.gen_test(timeout=110)
async def test_a_server_over_http(over_http: tuple[str, Seen, str], said_of_progress: list[str]) -> None:
    url, seen, version = over_http
    async with opened(server(url=url)) as tools:
        assert [one.name for one in tools.offered] == [
            f"s__{name}" for name in ("add", "a_b_c", "fail", "slow", "flood", "crash", "book", "book_later")
        ]
        assert tools.offered[0].description == "Adds."
        assert {*tools.offered[0].parameters["properties"]} == {"a", "b"}
        assert await run(tools, "add", '{"a": 2, "b": 3}') == {"result": 5}
        assert said_of_progress == ["half of it"]
        _, meta, headers = seen.calls[-1]
        assert meta["chatstream/idempotency-key"] == headers["idempotency-key"] == "a.1"
        assert meta["chatstream/user-id"] == "auth0|7"
        assert headers["x-key"] == "k"
        assert seen.versions[-1] == version
        assert await run(tools, "a_b_c", '{"text": "hi"}') == "hi\n(something that cannot be shown: image)"
        with pytest.raises(BadArguments):
            await run(tools, "add", '{"a": "two"}')
        with pytest.raises(ToolFailed, match="no room in row 7"):
            await run(tools, "fail")
        with pytest.raises(ToolFailed, match="broke off"):
            await run(tools, "flood")
        slow = asyncio.create_task(run(tools, "slow"))
        while seen.calls[-1][0] != "slow":
            await asyncio.sleep(0.01)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        await asks(tools, "book_later" if version == "2026-07-28" else "book")
        if version == "2025-11-25":  # an answer to another question does not answer this one: the call is repeated
            first = await asked(tools, "book")
            with pytest.raises(InputRequired) as again:
                await answered(tools, "book", InputRequired([Question(message="Which seat?")]), {"row": 7})
            assert again.value.questions == first.questions
            assert await answered(tools, "book", again.value, {"row": 7}) == "row 7"
        with pytest.raises(ToolFailed):  # this protocol does not support it
            await run(tools, "book" if version == "2026-07-28" else "book_later")
        both = await asyncio.gather(*(run(tools, "add", f'{{"a": {n}, "b": 0}}') for n in range(5)))
        assert both == [{"result": n} for n in range(5)]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.gen_test(timeout=110)
async def test_a_server_that_is_a_program(era: str, said_of_progress: list[str]) -> None:
    async with opened(program(era)) as tools:
        assert await run(tools, "add", '{"a": 2, "b": 3}') == {"result": 5}
        assert said_of_progress == ["half of it"]
        with pytest.raises(ToolFailed, match="no room in row 7"):
            await run(tools, "fail")
        await asks(tools, "book_later" if era == "modern" else "book")
        slow = asyncio.create_task(run(tools, "slow"))
        await asyncio.sleep(0)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        with pytest.raises(ToolFailed, match="broke off"):
            await run(tools, "crash" if era == "modern" else "flood")
        assert await run(tools, "add", '{"a": 2, "b": 3}') == {"result": 5}  # the program was restarted


@pytest.mark.gen_test(timeout=110)
async def test_a_program_of_the_older_protocol_asks_nobody_whose_call_it_may_not_be() -> None:
    async with opened(program("legacy")) as tools:
        first = await asked(tools, "book", "a.1")
        with pytest.raises(ToolFailed, match="refused it"):
            await run(tools, "book")  # while the user of the other call is being asked
        assert await answered(tools, "book", first, {"row": 7}, key="a.1") == "row 7"
        late = asyncio.create_task(run(tools, "slow"))
        await run(tools, "add", '{"a": 2, "b": 3}')  # the program now has two open calls
        late.cancel()
        await asyncio.wait([late])
        with pytest.raises(ToolFailed, match="refused it"):
            await run(tools, "book")  # the cancelled call may still run
        second = await asked(tools, "book", "c.1")  # the program has been restarted by now
        assert await answered(tools, "book", second, "decline", key="c.1") == "decline"
        stopped = await asked(tools, "book", "d.1")
        tools.open_calls.let_go(lambda caller: caller.key == "d.1")
        assert tools.open_calls.callers() == []
        async with asyncio.timeout(60):
            while True:  # until the program has received the cancellation and ended the call
                try:
                    third = await asked(tools, "book", "e.1")
                    break
                except ToolFailed:
                    pass
        assert (third.questions, await answered(tools, "book", third, "cancel", key="e.1")) == (
            stopped.questions,
            "cancel",
        )


@pytest.mark.gen_test(timeout=110)
async def test_questions_that_no_user_is_asked(upstream: Upstream) -> None:
    text = {"type": "string"}
    form = {"mode": "form", "message": "Which?", "requestedSchema": {"type": "object", "properties": {}}}
    asks: tuple[tuple[str, dict[str, Any]], ...] = (
        ("sampling/createMessage", {"messages": [], "maxTokens": 5}),
        ("roots/list", {}),
        ("elicitation/create", form | {"requestedSchema": {"type": "object", "properties": {"x" * 20_000: text}}}),
        ("elicitation/create", {"mode": "url", "message": "Open", "url": "javascript:alert(1)"}),
        ("elicitation/create", {"mode": "url", "message": "Open", "url": "http://pay.example/"}),
        ("elicitation/create", {"mode": "url", "message": "Open", "url": "https://pay.example/" + "x" * 2_000}),
    )
    upstream.scripts = [(said(1, DISCOVERED),), (said(2, LISTED),)]
    async with opened(server(url=upstream.url, names=("add",), effect=Effect.ONCE)) as tools:
        for method, params in asks:
            wanted = {"resultType": "input_required", "inputRequests": {"q": {"method": method, "params": params}}}
            upstream.scripts.append((said(1, wanted),))
            with pytest.raises(ToolFailed, match="not carried out"):
                await run(tools, "add")
        link = {"mode": "url", "message": " Open it ", "url": "https://pay.example/?a=1"}
        wanted = {
            "resultType": "input_required",
            "inputRequests": {"q": {"method": "elicitation/create", "params": link}},
        }
        upstream.scripts.append((said(1, wanted),))
        (question,) = (await asked(tools, "add")).questions
        assert (question.message, question.url, question.schema) == ("Open it", "https://pay.example/?a=1", None)


@pytest.mark.gen_test(timeout=110)
async def test_what_may_have_happened_once_is_not_known() -> None:
    async with opened(program("modern", names=("crash",), effect=Effect.ONCE)) as tools:
        with pytest.raises(OutcomeUnknown):
            await run(tools, "crash")


LISTED = {
    "resultType": "complete",
    "ttlMs": 0,
    "cacheScope": "public",
    "tools": [{"name": "add", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}}],
}
DISCOVERED = {
    "resultType": "complete",
    "ttlMs": 0,
    "cacheScope": "public",
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
}


def said(number: int, result: object) -> bytes:
    return whole("200 OK", {"jsonrpc": "2.0", "id": number, "result": result})


def error(number: int, code: int) -> bytes:
    return whole("200 OK", {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": "SECRET"}})


UNKNOWN = "unknown"


@pytest.mark.parametrize(
    ("steps", "once", "otherwise"),
    [
        ([whole("401 No", {"error": "SECRET"})], "HTTP 401", "HTTP 401"),
        ([whole("500 No", {"error": "SECRET"})], "HTTP 500", "HTTP 500"),
        ([whole("502 No", {"error": "SECRET"})], UNKNOWN, "HTTP 502"),
        ([whole("307 No", {}, Location="/v1/SECRET")], "a redirect, which is not followed", "a redirect"),
        ([whole("308 No", {}, Location="http://169.254.169.254/SECRET")], "a redirect", "a redirect"),
        ([error(1, -32602)], "refused it", "refused it"),
        ([error(1, -32603)], UNKNOWN, "broke off"),
        ([whole("200 OK", "SECRET")], "refused it", "refused it"),
        ([head(content_type="text/html") + http_chunk(b"<SECRET>"), Do.CLOSE], "refused it", "refused it"),
        ([Do.RESET], UNKNOWN, "broke off"),
        ([head(content_type="application/json") + http_chunk(b"{"), Do.RESET], UNKNOWN, "broke off"),
        ([head(content_type="application/json", Content_Encoding="gzip"), Do.HANG], UNKNOWN, "broke off"),
        ([head(), *[http_chunk(b"data: " + b"x" * 100_000 + b"\n\n")] * 100, Do.HANG], "refused it", "refused it"),
        ([head(), *[http_chunk(b": " + b"x" * 100_000 + b"\n\n")] * 100, Do.HANG], UNKNOWN, "broke off"),
    ],
    ids=[
        *("401", "500", "502", "redirect", "redirect elsewhere", "bad params", "internal", "no JSON-RPC", "a page"),
        *("reset", "half", "packed", "nonsense", "comments without end"),
    ],
)
@pytest.mark.gen_test(timeout=60)
async def test_what_becomes_of_a_call_that_goes_wrong(
    upstream: Upstream, caplog: pytest.LogCaptureFixture, steps: list[Any], once: str, otherwise: str
) -> None:
    for effect, expected in ((Effect.ONCE, once), (Effect.NONE, otherwise)):
        upstream.scripts = [(said(1, DISCOVERED),), (said(2, LISTED),), tuple(steps)]
        upstream.calls.clear()
        async with opened(server(url=upstream.url, names=("add",), effect=effect)) as tools:
            with pytest.raises(OutcomeUnknown if expected == UNKNOWN else ToolFailed) as caught:
                await run(tools, "add")
            assert expected == UNKNOWN or expected in str(caught.value)
            assert len(upstream.calls) == 3
    assert "SECRET" not in caplog.text


@pytest.mark.gen_test(timeout=60)
async def test_a_server_that_is_gone_was_not_asked(upstream: Upstream) -> None:
    upstream.reply(said(1, DISCOVERED))
    upstream.reply(said(2, LISTED))
    async with opened(server(url=upstream.url, names=("add",), effect=Effect.ONCE)) as tools:
        await upstream.close()
        with pytest.raises(ToolFailed, match="not carried out: the service cannot be reached"):
            await run(tools, "add")


@pytest.mark.gen_test(timeout=60)
async def test_a_name_that_leads_into_the_operators_network_is_not_followed(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def lead(host: str, port: int, **_: object) -> list[Any]:
        return [(None, None, None, "", (address, port)) for address in ("93.184.216.34", "127.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lead)
    good, text = await try_out(server(url=upstream.url.replace("127.0.0.1", "mcp.example"), names=("add",)))
    assert not good
    assert "it cannot be reached" in text
    assert "write internal = true" in caplog.text
    assert upstream.calls == []


@pytest.mark.gen_test(timeout=110)
async def test_a_server_is_tried_out(upstream: Upstream) -> None:
    good, text = await try_out(program("legacy", names=("add", "fail")))
    assert (good, text) == (True, "s: 2 tools (protocol 2025-11-25)")
    good, text = await try_out(program("modern", names=("add", "subtract")))
    assert (good, text) == (False, "s: tool subtract: the server has none of this name")
    good, text = await try_out(server(command=("/nowhere/no-such-program",)))
    assert (good, text) == (False, "s: there is no such program")
    good, text = await try_out(server(command=(sys.executable, "-c", "print('hello')")))
    assert not good
    for schema in (
        {"type": "object", "properties": {"a": {"type": "x"}}},
        {"type": "object", "description": "x" * 70_000},
    ):
        upstream.calls.clear()
        listed = LISTED | {"tools": [{"name": "add", "inputSchema": schema}]}
        upstream.scripts = [(said(1, DISCOVERED),), (said(2, listed),)]
        good, text = await try_out(server(url=upstream.url, names=("add",)))
        assert not good
        assert text.startswith("s: tool add: ")


@pytest.mark.gen_test(timeout=110)
async def test_a_program_gets_no_secrets_and_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "hunter2")
    seen = tmp_path / "seen"
    script = f"import os, pathlib; pathlib.Path({str(seen)!r}).write_text(repr(dict(os.environ)))"
    await try_out(server(command=(sys.executable, "-c", script), environment={"TOKEN": "t-1"}))
    given = seen.read_text()
    assert "'TOKEN': 't-1'" in given
    assert "hunter2" not in given


@pytest.mark.gen_test(timeout=110)
async def test_a_program_that_floods_is_ended() -> None:
    endless = "import sys\nwhile True: sys.stdout.write('x' * 100000)"
    lines = 'import sys\nwhile True: sys.stdout.write(\'{"jsonrpc":"2.0","method":"notifications/message"}\\n\')'
    for script in (endless, lines):
        good, _ = await try_out(server(command=(sys.executable, "-c", script)))
        assert not good


@pytest.mark.gen_test(timeout=110)
async def test_a_server_that_comes_later_is_offered_later(monkeypatch: pytest.MonkeyPatch, upstream: Upstream) -> None:
    monkeypatch.setattr(servers, "_SOONEST", 0.01)
    monkeypatch.setattr(servers, "_AT_START", 0.0)
    upstream.reply(Do.RESET)
    upstream.reply(said(1, DISCOVERED))
    upstream.reply(said(2, LISTED))
    tools = Tools()
    there = asyncio.Event()

    def found(some: Any) -> None:
        tools.found(some)
        there.set()

    asked = McpServers([server(url=upstream.url, names=("add",))], found)
    await asked.open()
    assert tools.offered == ()
    async with asyncio.timeout(60):
        await there.wait()
    await asked.close()
    # The server's own hints on its tools' effects are ignored.
    assert [(one.name, one.manner.effect) for one in tools] == [("s__add", Effect.NONE)]
