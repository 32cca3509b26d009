"""Tools of an HTTP endpoint, with real sockets: the requests, and all kinds of responses."""

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from chatstream import hosts
from chatstream.pieces import ToolCallPart, fold
from chatstream.settings import Settings
from chatstream.tools.configuration import configured_tools
from chatstream.tools.http import header_text
from chatstream.tools.tool import Caller, OutcomeUnknown, Tool, ToolFailed, Tools
from tests.conftest import NameProxies
from tests.generations.test_tools import CALLED, call
from tests.support.listening import listening
from tests.support.processes import free_port
from tests.support.receiver import Receiver, receiving
from tests.support.scripted_model import STOP, bench

CALLER = Caller(user="auth0|7", conversation="c-1", answer="6b06f718bcab1449ce4875a6", key="6b06f718bcab1449ce4875a6.1")
SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _no_proxies(proxies: NameProxies, monkeypatch: pytest.MonkeyPatch) -> None:
    proxies()
    monkeypatch.setenv("SHOP_TOKEN", SECRET)


@contextlib.asynccontextmanager
async def made(directory: Path, url: str, effect: str = "none", more: str = "", **settings: Any) -> AsyncIterator[Tool]:
    """The tool in a tools file."""
    path = directory / "tools.toml"
    path.write_text(
        f'[[tool]]\nname = "odds"\ndescription = "d"\nurl = "{url}"\neffect = "{effect}"\napproval = "never"\n{more}\n'
        '[tool.parameters]\ntype = "object"\nrequired = ["match"]\n'
    )
    async with configured_tools(Settings(tools_file=path, **settings), []) as tools:
        tool = tools.get("odds")
        assert tool is not None
        yield tool


def said(body: bytes, kind: str | None = "application/json", status: str = "200 OK", more: str = "") -> bytes:
    """A response with this body."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}"
    return (head + (f"Content-Type: {kind}\r\n" if kind else "") + "\r\n").encode() + body


async def outcome(tool: Tool) -> object:
    return await tool.run({"match": 7}, CALLER)


@pytest.mark.gen_test
async def test_it_is_sent_the_arguments_and_for_whom_they_are(tmp_path: Path) -> None:
    async with receiving() as receiver:
        receiver.replies = [said(b'{"odds": 2.1}', more="Set-Cookie: session=1; Path=/\r\n"), said(b"null")]
        more = 'headers = { Authorization = "Bearer ${SHOP_TOKEN}", User-Agent = "ours" }'
        async with made(tmp_path, receiver.url, more=more) as tool:
            assert await tool.run(tool.checked('{"match": 7, "on": "Ärger 🏆"}'), CALLER) == {"odds": 2.1}
            assert await outcome(tool) is None
        [first, second] = receiver.received
    assert (first.path, json.loads(first.body)) == ("/hook?of=chat", {"match": 7, "on": "Ärger 🏆"})
    ids = {"idempotency-key": CALLER.key, "x-user-id": "auth0|7", "x-conversation-id": "c-1"}
    ours = {"x-message-id": CALLER.answer, "content-type": "application/json", "authorization": f"Bearer {SECRET}"}
    assert (ids | ours | {"user-agent": "ours"}).items() <= first.headers.items()
    assert "cookie" not in second.headers  # not the cookie from one user's call


@pytest.mark.parametrize(
    ("user", "header"),
    [
        ("auth0|7", "auth0|7"),
        ("a b", "a%20b"),
        ("a%20b", "a%2520b"),
        ("u\r\nX-User-Id: root", "u%0D%0AX-User-Id:%20root"),
        ("Zoë🏆", "Zo%C3%AB%F0%9F%8F%86"),
        ("\ud800\0\x7f", "%ED%A0%80%00%7F"),
    ],
)
@pytest.mark.gen_test
async def test_no_id_becomes_another_header_or_another_id(tmp_path: Path, user: str, header: str) -> None:
    assert header_text(user) == header
    async with receiving() as receiver, made(tmp_path, receiver.url) as tool:
        await tool.run({}, Caller(user=user, conversation="c", answer="a", key="k"))
        assert receiver.received[0].headers["x-user-id"] == header


@pytest.mark.parametrize(
    ("reply", "result"),
    [
        (said(b'[1, {"a": null}]'), [1, {"a": None}]),
        (said(b'{"a":1}', "application/problem+json; charset=utf-8"), {"a": 1}),
        (said(b'{"a":1}', "Application/JSON"), {"a": 1}),
        (said(b'{"a":1}', "text/plain"), '{"a":1}'),
        (said("Zoë".encode("latin-1"), "text/plain; charset=iso-8859-1"), "Zoë"),
        (said("Zoë".encode("cp1252"), "text/plain; charset=Windows-1252"), "Zoë"),
        (said("Zoë 🏆".encode(), "text/html"), "Zoë 🏆"),
        (said(b'{"a":1}', None), {"a": 1}),
        (said(b"plain", None), "plain"),
        (said(b"", "application/json", "201 Created"), None),
        (b"HTTP/1.1 204 No Content\r\n\r\n", None),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + said(b"1"), 1),
        (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n"Zo\r\n3\r\n\xc3\xab"\r\n0\r\n\r\n', "Zoë"),
    ],
)
@pytest.mark.gen_test
async def test_json_and_text_are_results(tmp_path: Path, reply: bytes, result: object) -> None:
    async with receiving() as receiver, made(tmp_path, receiver.url, "once") as tool:
        receiver.replies = [reply]
        assert await outcome(tool) == result


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (said(b"\x89PNG", "image/png"), "its answer cannot be read: it is neither JSON nor text"),
        (said(b"\xff\xfe", "application/json"), "its answer cannot be read: it is no valid JSON"),
        (said(b'{"a":', "application/json"), "its answer cannot be read: it is no valid JSON"),
        (said(b"[" * 100_000, "application/json"), "its answer cannot be read: it is no valid JSON"),
        (said(b'{"a":NaN}', "application/json"), "its answer cannot be read: it is no valid JSON"),
        (said(b"a\xffb", "text/plain"), "its answer cannot be read: it is no valid text"),
        (said(b"ab", "text/plain; charset=klingon"), "its answer cannot be read: it is no valid text"),
        # Python's other charsets; the first one takes minutes for a megabyte.
        (
            said(b"x" * 500_000 + b"-" + b"b" * 500_000, "text/plain; charset=punycode"),
            "its answer cannot be read: it is no valid text",
        ),
        (said(b"\\ud800", "text/plain; charset=unicode_escape"), "its answer cannot be read: it is no valid text"),
        (said(b"\xff", None), "its answer cannot be read: it is no valid JSON"),
        (
            said(b"\x1f\x8b", "application/json", more="Content-Encoding: gzip\r\n"),
            "its answer cannot be read: it is compressed, which was not asked for",
        ),
        (said(b'{"password": "hunter2"}', status="500 hunter2"), "the service answered HTTP 500"),
        (said(b'{"password": "hunter2"}', status="422 No"), "the service answered HTTP 422"),
        (said(b"hunter2", status="401 No", more="WWW-Authenticate: hunter2\r\n"), "the service answered HTTP 401"),
        (
            said(b"", status="307 Away", more="Location: http://169.254.169.254/hunter2\r\n"),
            "the service answered HTTP 307, a redirect, which is not followed",
        ),
        (said(b"", status="303 Away"), "the service answered HTTP 303, a redirect, which is not followed"),
        (said(b"", status="304 Same"), "the service answered HTTP 304, a redirect, which is not followed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "the service broke off"),
        (b"SSH-2.0-hunter2\r\n", "the service broke off"),
        (b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200_000 + b"\r\n\r\n", "the service broke off"),
    ],
)
@pytest.mark.gen_test
async def test_all_else_is_a_failure_which_tells_nothing_of_what_came(
    tmp_path: Path, reply: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with receiving(closing=True) as receiver, made(tmp_path, receiver.url) as tool:
        receiver.replies = [reply]
        with pytest.raises(ToolFailed) as failed:
            await outcome(tool)
        assert len(receiver.received) == 1
    assert str(failed.value) == why
    assert SECRET not in "".join(each.getMessage() for each in caplog.records if each.name.startswith("chatstream"))


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"",
        said(b"", status="504 Gateway Timeout"),
        said(b"", status="502 Bad Gateway"),
    ],
    ids=["half an answer", "none", "504", "502"],
)
@pytest.mark.gen_test
async def test_nobody_is_told_that_an_effect_failed_which_it_may_have_had(tmp_path: Path, reply: bytes) -> None:
    async with receiving(closing=True) as receiver, made(tmp_path, receiver.url, "once") as tool:
        receiver.replies = [reply]
        with pytest.raises(OutcomeUnknown):
            await outcome(tool)


@pytest.mark.gen_test
async def test_what_was_not_reached_was_not_carried_out(tmp_path: Path) -> None:
    for url in (f"http://127.0.0.1:{free_port()}/", "https://nowhere.invalid/"):
        async with made(tmp_path, url, "once") as tool:
            with pytest.raises(ToolFailed, match=r"\Anot carried out: the service cannot be (reached|found)\Z"):
                await outcome(tool)


@pytest.mark.gen_test
async def test_of_ten_megabytes_only_the_beginning_is_read(tmp_path: Path) -> None:
    async with receiving() as receiver, made(tmp_path, receiver.url, tool_output_characters=1000) as tool:
        receiver.replies = [said(b'"' + b"x" * 10_000_000 + b'"')]
        result = await outcome(tool)
    assert isinstance(result, str)
    assert len(result) == 1000
    assert result.endswith("xxx… (cut: the service sent more than a megabyte)")


@pytest.mark.gen_test
async def test_a_name_that_leads_into_the_operators_network_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with receiving() as receiver:

        async def lead(host: str, port: int, **_: object) -> list[Any]:
            return [(None, None, None, "", (address, port)) for address in ("93.184.216.34", "127.0.0.1")]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lead)
        url = f"https://tools.example:{receiver.port}/"
        async with made(tmp_path, url, "once") as tool:
            with pytest.raises(ToolFailed, match="not carried out: the service cannot be reached"):
                await outcome(tool)
        assert receiver.received == []
    assert "if it should, write internal = true" in caplog.text


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("127.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - compared
        ("224.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:a00:1::1", False),
    ],
)
def test_which_addresses_are_of_the_internet(address: str, public: bool) -> None:
    assert hosts.is_public(address) is public


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.gen_test
async def test_a_name_of_the_internet_is_asked_where_it_led_and_its_certificate_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    authority = trustme.CA()
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    monkeypatch.setattr(hosts, "is_public", lambda address: True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("tools.example").configure_cert(tls)
    receiver = Receiver()

    async def lead(host: str, port: int, **_: object) -> list[Any]:
        assert host == "tools.example"
        return [(None, None, None, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    async with listening(receiver.serve, tls=tls) as port:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lead)
        async with made(tmp_path, f"https://tools.example:{port}/", "once") as tool:
            if trusted:
                assert await outcome(tool) is None
                assert receiver.received[0].headers["host"] == f"tools.example:{port}"
            else:
                with pytest.raises(ToolFailed, match="not carried out: the service cannot be reached"):
                    await outcome(tool)
                assert receiver.received == []


@pytest.mark.gen_test(timeout=60)
async def test_who_says_nothing_or_says_it_drop_by_drop_has_the_tools_time(mongodb_uri: str, tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(0.02)  # a slow response
        gone.set()

    outcomes = {}
    async with listening(drip) as port, receiving() as receiver:
        url = f"http://127.0.0.1:{port}/"
        receiver.replies = [None] * 9
        for address, effect in ((url, "none"), (url, "once"), (receiver.url, "idempotent"), (receiver.url, "once")):
            async with (
                made(tmp_path, address, effect, "timeout = 0.3") as tool,
                bench(mongodb_uri, tools=Tools([tool])) as b,
            ):
                b.model.reply(*call(1), CALLED)
                b.model.reply("So it is.", STOP)
                conversation = await b.conversation()
                await b.post(conversation)
                answer = await b.ended(conversation)
                [part] = [part for part in fold(answer.pieces) if isinstance(part, ToolCallPart)]
                outcomes[address, effect] = (part.state, part.output if part.failed else None)
        await asyncio.wait_for(gone.wait(), 60)  # the request is cancelled, too
    assert outcomes[url, "none"] == outcomes[receiver.url, "idempotent"] == ("done", "failed: no answer within 0.3 s")
    assert outcomes[url, "once"][0] == outcomes[receiver.url, "once"][0] == "unknown"
