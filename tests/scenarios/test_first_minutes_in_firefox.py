"""A person's first ten minutes with the page in Firefox: by mouse, by keys, small, enlarged, in Arabic, in ten tabs.

Playwright can only drive its own Firefox, so Debian's is driven as in `test_browsers`.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.conftest import MakeClient, StartServer
from tests.scenarios.test_browsers import Tab, here, tab
from tests.support.client import Client
from tests.support.processes import REPOSITORY, ServerProcess
from tests.support.upstream import Do, Upstream, answer, beginning, delta, ending, event, http_chunk

PROSE = "document.querySelector('#messages > :last-child > .assistant:last-child .prose')"
QUESTIONS = "Array.from(document.querySelectorAll('#messages .user .body'), (one) => one.textContent)"
READS = r"""First:

1. One step.

```python
print(1 + 2)
```

2. Another step, of \(a^2 + b^2 = c^2\).

| Name | Odds |
|------|-----:|
| Leeds | 3.00 |
"""
BEGINS_AT_THE_RIGHT = """window.beginsAtTheRight = (block) => {
    const words = document.createRange();
    words.selectNodeContents(block);
    const [box, text] = [block.getBoundingClientRect(), words.getBoundingClientRect()];
    return box.right - text.right < text.left - box.left;
}, null"""
ARABIC = "مرحباً، كيف الطقس اليوم؟"

in_firefox = pytest.mark.skipif(not here("firefox"), reason="firefox-esr is not here")


class Person:
    """A person at the page, who reads, clicks and types."""

    def __init__(self, browser: Tab, pictures: Path) -> None:
        self.tab = browser
        self._pictures = pictures

    async def call(self, name: str, *values: object) -> None:
        await self.tab.call(name, *values)

    async def wait(self, expression: str) -> None:
        await self.tab.wait(expression)

    async def sees(self, text: str) -> None:
        """Wait until the newest answer has this text."""
        await self.wait(f"{PROSE}?.textContent.trim() === {json.dumps(text)}")

    async def asked(self, *questions: str) -> None:
        await self.wait(f"JSON.stringify({QUESTIONS}) === JSON.stringify({json.dumps(questions)})")

    async def click(self, selector: str) -> None:
        await self.wait(f"document.querySelector({json.dumps(selector)})?.checkVisibility()")
        await self.tab.click(selector)

    async def button(self, label: str) -> None:
        await self.click(f'button[aria-label="{label}"]')

    async def rests(self) -> None:
        """Wait until no answer is being written."""
        await self.wait("document.querySelector('#stop').hidden")

    async def ask(self, text: str) -> None:
        await self.rests()
        await self.tab.write("#text", text)
        await self.call("press", "Enter")

    async def picture(self, name: str) -> None:
        await self.call("picture", str(self._pictures / f"firefox-{name}.png"))


@pytest.fixture
def server(start_server: StartServer) -> ServerProcess:
    """A server with a sign-in page on another server."""
    settings = {"CHATSTREAM_LOGIN_URL": "/no/such/page", "CHATSTREAM_TITLES": "off"}
    return start_server(**settings, CHATSTREAM_DISCONNECT_GRACE="30")


@asynccontextmanager
async def somebody(address: str) -> AsyncIterator[Person]:
    """A function that opens the page as a new person."""
    pictures = REPOSITORY / "build" / "screenshots"
    pictures.mkdir(parents=True, exist_ok=True)
    async with tab("firefox") as (browser, _):
        person = Person(browser, pictures)
        await person.call("resize", 1280, 800)
        await browser.visit(address)
        yield person


@pytest.mark.unmeasured
@in_firefox
@pytest.mark.gen_test(timeout=110)
async def test_the_first_ten_minutes(server: ServerProcess, make_client: MakeClient, upstream: Upstream) -> None:
    client = make_client(server)
    async with somebody(f"{server.url}/#token={client.token}") as person:
        await by_mouse(person, upstream)
        await by_keyboard(person, upstream)
        await the_list(person, client)
        await small_enlarged_and_in_arabic(person, upstream)


@pytest.mark.unmeasured
@in_firefox
@pytest.mark.gen_test(timeout=110)
async def test_signed_in_again_and_in_ten_tabs(
    server: ServerProcess, make_client: MakeClient, upstream: Upstream
) -> None:
    address = f"{server.url}/#token={make_client(server).token}"
    async with somebody(address) as person:
        await signed_in_again_in_mid_answer(person, upstream, address)
        await ten_tabs(person, upstream, server.url)


async def by_mouse(person: Person, upstream: Upstream) -> None:
    """Send an example, read the answer, edit the question, show both versions, stop and continue an answer."""
    upstream.reply(answer(READS))
    await person.click("#examples button")
    await person.wait(f"{PROSE}?.querySelectorAll('ol').length === 2")
    await person.wait(f"{PROSE}.querySelectorAll('ol')[1].start === 2")
    await person.wait(f"{PROSE}.querySelector('math') && {PROSE}.querySelector('[class^=hljs-]')")
    await person.wait(f"getComputedStyle({PROSE}.querySelector('td + td')).textAlign === 'right'")
    await person.picture("reads")
    await person.rests()
    upstream.reply(answer("Of the new one."))
    await person.button("Edit the question")
    await person.wait("document.activeElement.id === 'text'")
    await person.call("press", "Control+a")
    await person.call("type", "A new one?")
    await person.click("#send")
    await person.sees("Of the new one.")
    await person.button("Question before the edit")
    await person.wait(f"{PROSE}?.querySelector('math')")
    await person.button("Question after the edit")
    await person.sees("Of the new one.")
    await person.asked("A new one?")
    await person.picture("versions")

    upstream.reply(beginning("The cow jumps over"), Do.HANG)
    await person.ask("Tell me.")
    await person.sees("The cow jumps over")
    await person.click("#stop")
    upstream.reply(answer("over the moon."))
    await person.button("Continue the answer")
    await person.sees("The cow jumps over the moon.")
    thumb = ".assistant:last-child button[aria-label='Good answer']"
    await person.click(thumb)
    await person.wait(f"document.querySelector({json.dumps(thumb)}).ariaPressed === 'true'")


async def by_keyboard(person: Person, upstream: Upstream) -> None:
    """A new chat, a question while another one is answered, a stop, an edit of the last question, the list of
    shortcuts.
    """
    go_on = asyncio.Event()
    upstream.reply(beginning("Half, "), go_on, http_chunk(event(delta("whole."))), ending())
    upstream.reply(beginning("And"), Do.HANG)
    upstream.reply(answer("Edited."))
    await person.call("press", "Control+Shift+O")
    await person.wait("document.querySelector('#empty').checkVisibility() && document.activeElement.id === 'text'")
    await person.call("type", "Two")
    await person.call("press", "Shift+Enter")
    await person.call("type", "lines")
    await person.call("press", "Enter")
    await person.sees("Half,")
    await person.asked("Two\nlines")
    await person.call("type", "Next")
    await person.call("press", "Enter")
    await person.wait("document.querySelector('.chip')?.textContent === 'Will be asked next'")
    await person.picture("queued")
    go_on.set()
    await person.sees("And")
    await person.asked("Two\nlines", "Next")
    await person.call("press", "Escape")
    newest = "document.querySelector('#messages > :last-child > :last-child')"
    await person.wait(f"{newest}.textContent.includes('You stopped it')")
    await person.call("press", "ArrowUp")
    await person.wait("document.querySelector('#text').value === 'Next'")
    await person.call("press", "End")
    await person.call("type", "!")
    await person.call("press", "Enter")
    await person.sees("Edited.")
    await person.asked("Two\nlines", "Next!")
    await person.rests()
    await person.call("press", "Tab")
    await person.call("press", "?")
    await person.wait("document.querySelector('#shortcuts[open]')")
    await person.call("press", "Escape")
    await person.wait("!document.querySelector('#shortcuts[open]')")


async def the_list(person: Person, client: Client) -> None:
    """Search the list by keyboard; rename a chat; delete another one, and undo that."""
    await client.create(title="Penguins at noon")
    await person.call("press", "Control+k")
    await person.wait("document.activeElement.id === 'search'")
    await person.call("type", "penguins")
    await person.wait("document.querySelector('#search-status').textContent === 'Found: 1'")
    await person.picture("found")
    await person.call("press", "Enter")
    await person.wait("document.querySelector('#title').textContent === 'Penguins at noon'")
    await person.button("Options of Penguins at noon")
    await person.click("#rename")
    await person.wait("document.activeElement.id === 'ask-text'")
    await person.call("press", "Control+a")
    await person.call("type", "Seals")
    await person.call("press", "Enter")
    await person.wait("document.querySelector('#title').textContent === 'Seals'")
    await person.click("#search")
    await person.call("press", "Escape")
    await person.button("Options of Seals")
    await person.click("#delete")
    await person.wait("!document.querySelector('[aria-label=\"Options of Seals\"]')")
    await person.picture("undo")
    await person.click("#undo-button")
    await person.wait("document.querySelector('#title').textContent === 'Seals'")


async def small_enlarged_and_in_arabic(person: Person, upstream: Upstream) -> None:
    upstream.reply(answer(f"{ARABIC}\n\n- {ARABIC}\n\n```\ncode\n```"))
    for width, height, scale, name in ((320, 640, 1, "320"), (640, 400, 2, "200-percent")):
        await person.call("resize", width, height, scale)
        await person.button("Conversations")
        await person.wait("document.querySelector('#sidebar').checkVisibility({ visibilityProperty: true })")
        await person.click("#new-chat")
        await person.wait("document.querySelector('#greeting').checkVisibility()")
        await person.picture(name)
        await person.wait(f"document.documentElement.scrollWidth === {width}")
        await person.wait("document.querySelector('#text').getBoundingClientRect().bottom <= innerHeight")
    await person.tab.evaluate(BEGINS_AT_THE_RIGHT)
    await person.ask(ARABIC)
    await person.wait(f"{PROSE}?.querySelectorAll('p, li').length === 2")
    for part in ("#messages .user .body", "#messages .prose p", "#messages .prose li", "#title"):
        await person.wait(f"getComputedStyle(document.querySelector({json.dumps(part)})).direction === 'rtl'")
    await person.wait("getComputedStyle(document.querySelector('#messages pre')).direction === 'ltr'")
    # Firefox aligns the content of a list like its parent; here each part starts at its own side.
    for part in ("p", "li"):
        await person.wait(f"beginsAtTheRight(document.querySelector('#messages .prose {part}'))")
    await person.picture("arabic")
    await person.call("resize", 1280, 800)


async def signed_in_again_in_mid_answer(person: Person, upstream: Upstream, address: str) -> None:
    go_on = asyncio.Event()
    upstream.reply(beginning("Half, "), go_on, http_chunk(event(delta("whole."))), ending())
    await person.click("#new-chat")
    await person.ask("How long?")
    await person.sees("Half,")
    await person.wait("document.querySelector('#state').dataset.state === 'open'")
    place = await person.tab.evaluate("location.search")
    assert re.fullmatch(r"\?conversation=[A-Za-z0-9_-]+", place)
    await person.click("#sign-out")
    await person.click("#go")
    await person.wait("location.pathname === '/no/such/page'")
    back = await person.tab.evaluate("new URLSearchParams(location.search).get('return_to')")
    assert str(back).endswith(f"/{place}")
    await person.tab.visit(f"{back}#{address.partition('#')[2]}")
    await person.sees("Half,")
    go_on.set()
    await person.sees("Half, whole.")
    await person.asked("How long?")
    assert await person.tab.evaluate("location.search + location.hash") == place


async def ten_tabs(person: Person, upstream: Upstream, url: str) -> None:
    """Ten tabs: Firefox, too, opens only six connections to a server for all of them."""
    for number in range(1, 10):
        await person.call("newTab")
        await person.tab.visit(url)  # with the sign-in of the other tabs
        upstream.reply(answer(f"Answer {number}."))
        await person.wait("document.querySelector('#text')?.checkVisibility()")
        await person.ask(f"Question {number}")
        await person.sees(f"Answer {number}.")
    for number in (0, 1, 5, 9):
        await person.call("toTab", number)
        upstream.reply(answer(f"Another, {number}."))
        await person.ask("And now?")
        await person.sees(f"Another, {number}.")
