"""The examples and the page in real browsers, from another origin, over connections that break."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import MakeClient, StartServer
from tests.stress.faults import FaultProxy
from tests.support.client import Client
from tests.support.script import Script, script
from tests.support.upstream import Do, Upstream, answer, beginning, delta, ending, event, http_chunk

# One after the other: each keeps more than one core busy.
pytestmark = pytest.mark.xdist_group("browsers")

# The programs for each browser: Debian's packages chromium, firefox-esr, webkit2gtk-driver and xvfb.
PROGRAMS = {"chromium": ["chromium"], "firefox": ["firefox-esr"], "webkit": ["WebKitWebDriver", "Xvfb"]}


def here(engine: str) -> bool:
    return all(shutil.which(program) for program in PROGRAMS[engine])


@pytest.fixture(
    params=[
        pytest.param(
            engine, marks=pytest.mark.skipif(not here(engine), reason=f"{' or '.join(PROGRAMS[engine])} is not here")
        )
        for engine in PROGRAMS
    ]
)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The browser of the test."""
    for browser in Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"):
        monkeypatch.setenv("MINIBROWSER", str(browser))
    return str(request.param)


class Tab:
    """A browser's tab with a chat in it."""

    def __init__(self, browser: Script, origin: str) -> None:
        self._browser = browser
        self._origin = origin

    async def open(self, page: str, **config: str) -> None:
        """Open one of our pages."""
        await self._browser.call("goto", f"{self._origin}/{page}.html#{quote(json.dumps(config))}")

    async def visit(self, url: str) -> None:
        await self._browser.call("goto", url)

    async def ask(self, text: str) -> None:
        await self.wait("document.querySelector('main input') !== null")
        await self.write("main input", text)
        await self.wait(
            "!document.querySelector('main button').disabled"
        )  # useChat disables the box until the last answer has ended
        await self.click("main button")

    async def stop(self) -> None:
        await self.click("main button[type=button]")

    async def write(self, selector: str, text: str) -> None:
        await self._browser.call("fill", selector, text)

    async def click(self, selector: str) -> None:
        await self._browser.call("click", selector)

    async def shows(self, *messages: str) -> None:
        """Wait until the page shows exactly these messages."""
        shown = "Array.from(document.querySelectorAll('ol > li'), (item) => item.textContent)"
        await self.wait(f"JSON.stringify({shown}) === JSON.stringify({json.dumps(messages)})")

    async def wait(self, expression: str) -> None:
        await self._browser.call("wait", expression)

    async def evaluate(self, expression: str) -> Any:
        return await self._browser.call("evaluate", expression)

    async def call(self, name: str, *values: object) -> None:
        """Call a function that not every browser has."""
        await self._browser.call(name, *values)


@asynccontextmanager
async def tab(engine: str) -> AsyncIterator[tuple[Tab, str]]:
    """The tab, and the origin of our pages."""
    async with script("browser.mjs", engine) as browser:
        origin = await browser.call("origin")
        yield Tab(browser, origin), origin


async def chats(one: Tab, upstream: Upstream, proxy: FaultProxy) -> None:
    """Ask, lose the connection in mid-answer, ask again, stop."""
    go_on = asyncio.Event()
    upstream.reply(beginning("One 🏆, "), go_on, http_chunk(event(delta("two."))), ending())
    upstream.reply(beginning("Half"), Do.HANG)
    await one.ask("Count.")
    await one.shows("Count.", "One 🏆, ")
    proxy.cut()
    go_on.set()
    await one.shows("Count.", "One 🏆, two.")
    await one.wait("!document.querySelector('main input').value")
    await one.ask("Go on.")
    await one.shows("Count.", "One 🏆, two.", "Go on.", "Half")
    await one.stop()


async def stopped(client: Client, conversation: str) -> None:
    assert (await client.answer(conversation))["status"] == "stopped"
    assert [message["role"] for message in await client.messages(conversation)] == ["user", "assistant"] * 2


@pytest.mark.unmeasured
@pytest.mark.timeout(300)
@pytest.mark.gen_test(timeout=280)
async def test_chats_in_a_browser(
    engine: str, start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    async with tab(engine) as (one, origin):
        server = start_server(CHATSTREAM_CORS_ORIGINS=origin, CHATSTREAM_DISCONNECT_GRACE="30")
        client = make_client(server)
        proxy = await FaultProxy(lambda: int(server.url.rpartition(":")[2])).start()
        url = f"http://127.0.0.1:{proxy.port}"
        try:
            await one.open("use-chat", server=url, id="by-the-client", token=client.token)
            await chats(one, upstream, proxy)
            await one.shows("Count.", "One 🏆, two.", "Go on.", "HalfStopped.")
            await stopped(client, "by-the-client")

            conversation = await client.create()
            await one.open("use-chat-sse", server=url, id=conversation, token=client.token)
            await chats(one, upstream, proxy)
            await one.shows("Count.", "One 🏆, two.", "Go on.", "HalfStopped.")
            await stopped(client, conversation)

            conversation = await client.create()
            await one.open("chatstream", baseUrl=url, conversationId=conversation, token=client.token)
            await one.wait("document.querySelector('[role=status]').textContent")  # the form is there before the script
            await chats(one, upstream, proxy)
            await stopped(client, conversation)

            await with_its_event_source(one, client, upstream, proxy)
        finally:
            await proxy.close()
        await the_page(one, server.url, client, upstream)


async def with_its_event_source(one: Tab, client: Client, upstream: Upstream, proxy: FaultProxy) -> None:
    go_on = asyncio.Event()
    upstream.reply(beginning("By tickets, "), go_on, http_chunk(event(delta("twice."))), ending())
    conversation = await client.create(initialMessage="How?")
    options = {
        "baseUrl": f"http://127.0.0.1:{proxy.port}",
        "conversationId": conversation,
        "token": client.token,
        "transport": "eventsource",
    }
    await one.open("client")
    await one.wait("window.ChatStream")
    await one.wait(f"(window.chat = new ChatStream({json.dumps(options)}), chat.connect({{ history: true }}), true)")
    await one.wait("chat.messages.at(-1)?.content === 'By tickets, '")
    proxy.cut()
    await one.wait("chat.state !== 'open'")
    go_on.set()
    await one.wait("chat.messages.at(-1).status === 'complete'")
    await one.wait("chat.messages.at(-1).content === 'By tickets, twice.'")


async def the_page(one: Tab, url: str, client: Client, upstream: Upstream) -> None:
    """Ask a first question; find it after a reload, and by a search."""
    prose = "document.querySelector('#messages .assistant .prose')"
    upstream.reply(answer("**Bold** words."))
    await one.visit(f"{url}/#token={client.token}")
    await one.wait("document.querySelector('#text')?.offsetParent")
    await one.write("#text", "Who wins?")
    await one.click("#send")
    await one.wait(f"{prose}?.textContent.trim() === 'Bold words.'")
    await one.wait(f"{prose}.querySelector('strong')")
    await one.wait("new URL(location.href).searchParams.get('conversation')")
    await one.wait("(window.isOld = true, location.reload(), true)")
    await one.wait(
        f"!window.isOld && document.readyState === 'complete' && {prose}?.textContent.trim() === 'Bold words.'"
    )
    await one.wait("document.querySelector('#state').dataset.state === 'open'")
    await one.write("#search", "bold")
    await one.wait("document.querySelector('#search-status').textContent === 'Found: 1'")
    await one.click("#conversations a")
    await one.wait("!CSS.highlights || CSS.highlights.get('found')?.size === 1")
    await one.click("#open-chat-menu")
    # If the found chat was not open yet, the focus has gone to its text box, so open the menu again.
    again = "menu.matches(':popover-open') ? menu.hidePopover() : document.querySelector('#open-chat-menu').click()"
    opened = "document.activeElement.closest('#chat-menu:popover-open')"
    await one.wait(f"{opened} || ((menu) => ({again}, false))(document.querySelector('#chat-menu'))")
