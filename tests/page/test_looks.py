"""The page in each of its states, light, dark and on a phone: axe-core finds no fault. Each state is saved as a picture
in ``build/screenshots``; ``scripts/screenshots`` makes the README's pictures of them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import BrowserContext, Page, ViewportSize, expect

from chatstream import auth
from chatstream.plugins.bets.demo import DEMO
from tests.conftest import StartServer
from tests.page.conftest import OpenPage
from tests.page.test_conversations import make
from tests.support import node
from tests.support.browser import Model, more
from tests.support.processes import REPOSITORY, SECRET, ServerProcess
from tests.support.upstream import DONE, END, Do, answer, beginning, delta, event, http_chunk

SIZES: dict[str, ViewportSize] = {"desk": {"width": 1280, "height": 800}, "phone": {"width": 360, "height": 740}}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
# axe-core's rules about colours, which are all that differs between the two schemes.
OF_COLOURS = ["color-contrast", "link-in-text-block"]
QUESTION = "Is there a bet worth taking on Sunday?"
TABLE = """Fractional odds say what you win for what you stake; decimal odds include the stake.

| Fractional | Decimal | A stake of €8 returns |
|---|---:|---:|
| 4/5 | 1.80 | €14.40 |
| 11/8 | 2.38 | €19.00 |
| 5/2 | 3.50 | €28.00 |

```python
def decimal(fraction: str) -> float:
    won, staked = map(int, fraction.split("/"))
    return 1 + won / staked
```

So `11/8` is **1 + 11 / 8 = 2.375**.
"""


def finished() -> bytes:
    """The end of a complete answer, with the model's token counts."""
    usage = {"choices": [], "usage": {"prompt_tokens": 31, "completion_tokens": 107, "total_tokens": 138}}
    return b"".join(http_chunk(event(chunk)) for chunk in (delta(finish_reason="stop"), usage, DONE)) + END


Look = Callable[..., None]


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    node.install()
    return (node.CLIENTS / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.fixture(scope="session")
def pictures() -> Path:
    """The directory for the pictures."""
    directory = REPOSITORY / "build" / "screenshots"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture
def look(axe: str, pictures: Path) -> Look:
    """`look(page, name)`: take pictures of the page and let axe-core check it, on a desktop and on a phone, light and
    dark.
    """

    def look_(page: Page, name: str, *devices: str) -> None:
        for device in devices or SIZES:
            page.set_viewport_size(SIZES[device])
            for scheme in SCHEMES:
                page.emulate_media(color_scheme=scheme)
                page.screenshot(path=pictures / f"{name}-{device}-{scheme}.png")
                if not page.evaluate("'axe' in window"):
                    page.evaluate(axe)
                found = page.evaluate(
                    "(runOnly) => axe.run(document, { resultTypes: ['violations'], ...(runOnly && { runOnly }) })",
                    None if scheme == SCHEMES[0] else OF_COLOURS,
                )
                violations = [
                    (violation["id"], violation["help"], [node["html"][:200] for node in violation["nodes"]])
                    for violation in found["violations"]
                ]
                assert violations == [], f"{name}, {device}, {scheme}"
                # axe-core has really checked the page.
                assert len(found["passes"]) > (10 if scheme == SCHEMES[0] else 0)

    return look_


def test_without_a_token(context: BrowserContext, page_server: ServerProcess, look: Look) -> None:
    page = context.new_page()
    page.goto(page_server.url)
    expect(page.get_by_label("Token")).to_be_focused()
    look(page, "token")


def test_the_first_minutes(open_page: OpenPage, model: Model, look: Look) -> None:
    waiting, writing = model.gate(), model.gate()
    text = DEMO.answer(QUESTION)
    half, rest = text[: len(text) // 2], text[len(text) // 2 :]
    model.reply(waiting, beginning(half), writing, more(rest) + finished())
    model.reply(answer(TABLE))
    model.reply(beginning(half), Do.CLOSE)
    tab = open_page()
    look(tab.page, "empty")
    tab.ask(QUESTION)
    expect(tab.stop).to_be_visible()
    look(tab.page, "waiting")
    waiting.open()
    expect(tab.prose).to_contain_text("Let's look at")
    look(tab.page, "writing")
    writing.open()
    expect(tab.answers.locator(".bet")).to_be_visible()
    look(tab.page, "bet")
    tab.ask("What do such odds mean?")
    expect(tab.prose).to_contain_text("2.375")
    look(tab.page, "markdown")
    tab.ask("And on Monday?")
    expect(tab.answers.locator(".failure")).to_be_visible()
    look(tab.page, "error")
    tab.page.set_viewport_size(SIZES["phone"])
    tab.button("Conversations").click()
    look(tab.page, "list", "phone")


def test_a_resume(open_page: OpenPage, model: Model, look: Look) -> None:
    go_on = model.gate()
    words = [f"{word} " for word in DEMO.answer(QUESTION).split(" ")]
    model.reply(beginning(*words[:40]), go_on, more("".join(words[40:])) + finished())
    tab = open_page()
    tab.page.set_viewport_size({"width": 1440, "height": 900})
    tab.ask(QUESTION)
    expect(tab.prose).to_contain_text(words[39].strip())
    tab.button("Developer view").click()
    tab.button("Drop the connection").click()
    expect(tab.state).to_have_text("Reconnecting…")
    go_on.open()
    expect(tab.answers.locator(".bet")).to_be_visible()
    look(tab.page, "developer")


def test_what_could_not_be_sent(open_page: OpenPage, context: BrowserContext, look: Look) -> None:
    tab = open_page()
    expect(tab.page.get_by_role("heading", name="What shall we look at?")).to_be_visible()
    context.set_offline(True)
    tab.ask("Is anybody there?")
    expect(tab.page.get_by_role("alert")).to_contain_text("It was not sent")
    look(tab.page, "unsent")


def test_the_list_and_what_can_be_done_with_it(open_page: OpenPage, model: Model, look: Look) -> None:
    model.reply(answer("Noted."))
    tab = open_page()
    for title in ("A question with a rather long title, longer than its line", "Another one"):
        tab.page.evaluate(
            """async ([title, token]) => fetch("/api/v1/chat/conversations", {
                method: "POST", body: JSON.stringify({ title }),
                headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
            })""",
            [title, tab.token],
        )
    tab.ask("My question")
    expect(tab.prose).to_have_text("Noted.")
    tab.button("Options of Another one").click()
    look(tab.page, "menu", "desk")
    tab.button("Delete").click()
    look(tab.page, "undo")
    tab.page.set_viewport_size(SIZES["desk"])
    tab.button("Shortcuts").click()
    look(tab.page, "shortcuts", "desk")


def test_the_search(open_page: OpenPage, model: Model, look: Look) -> None:
    model.reply(beginning("مرحباً، هذا نص طويل عن الطقس"), Do.HANG)
    tab = open_page()
    make(tab, "الطقس في القاهرة", "Weather and a rather long title, longer than its line")
    tab.ask("ما هو الطقس")
    expect(tab.prose).to_contain_text("الطقس")
    field = tab.page.get_by_label("Search chats")
    links = tab.page.get_by_role("navigation").get_by_role("link")
    field.fill("الطقس")
    expect(links).to_have_count(2)
    expect(tab.page.get_by_role("img", name="An answer is being written")).to_be_visible()
    look(tab.page, "search", "desk")
    tab.page.set_viewport_size({"width": 320, "height": 640})
    tab.button("Conversations").click()
    look(tab.page, "search", "phone")
    field.fill("zzz")
    expect(tab.page.get_by_text("No chat has all of these words.")).to_be_visible()
    look(tab.page, "nothing-found", "phone")
    tab.button("Close the list").click()
    for width, height in ((320, 640), (640, 400)):  # a small phone; a desk at 200 %
        tab.page.set_viewport_size({"width": width, "height": height})
        assert tab.page.evaluate("document.documentElement.scrollWidth") == width
        tab.button("Options of this chat").click()
        expect(tab.button("Save as JSON")).to_be_in_viewport(ratio=1)
        tab.page.keyboard.press("Escape")
        expect(tab.button("Options of this chat")).to_be_focused()


def test_the_menu_of_a_chat(open_page: OpenPage, model: Model, look: Look) -> None:
    model.reply(answer("Noted."))
    tab = open_page()
    tab.ask("My question")
    expect(tab.prose).to_have_text("Noted.")
    tab.page.set_viewport_size(SIZES["phone"])
    tab.button("Options of this chat").click()
    look(tab.page, "chat-menu", "phone")
    tab.button("Instructions…").click()
    look(tab.page, "instructions", "phone")


def test_versions_an_edit_and_a_new_name(open_page: OpenPage, model: Model, look: Look) -> None:
    for text in ("To the first.", "To the second.", "Again."):
        model.reply(answer(text))
    tab = open_page()
    tab.ask("The first?")
    expect(tab.prose).to_have_text("To the first.")
    tab.button("Edit the question").click()
    look(tab.page, "editing", "phone")
    tab.field.fill("The second, with a rather long text, so that it takes more than the width of a phone?")
    tab.field.press("Enter")
    expect(tab.prose).to_have_text("To the second.")
    tab.button("Regenerate the answer").click()
    expect(tab.prose).to_have_text("Again.")
    tab.button("Bad answer").click()
    expect(tab.button("Bad answer")).to_have_attribute("aria-pressed", "true")
    expect(tab.page.get_by_role("group", name="Version 2 of 2")).to_have_count(2)
    look(tab.page, "versions")
    tab.page.set_viewport_size(SIZES["desk"])
    tab.page.get_by_role("button", name="Options of The first?").click()
    tab.button("Rename").click()
    expect(tab.page.get_by_role("dialog")).to_be_visible()
    look(tab.page, "rename", "desk")


def test_a_question_that_waits(open_page: OpenPage, model: Model, look: Look) -> None:
    model.reply(beginning("As far as this"), Do.HANG)
    tab = open_page()
    tab.ask("One?")
    expect(tab.prose).to_have_text("As far as this")
    tab.ask_next("Two?")
    tab.field.fill("x" * 31_999)
    look(tab.page, "queued", "phone")


def test_the_whole_conversation_is_printed(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("\n\n".join(f"Paragraph {number}." for number in range(100))))
    tab = open_page()
    tab.ask("A long one?")
    expect(tab.prose).to_contain_text("Paragraph 99.")
    expect(tab.stop).to_be_hidden()
    tab.page.emulate_media(media="print")
    expect(tab.field).to_be_hidden()
    expect(tab.page.get_by_role("navigation")).to_be_hidden()
    end = "element => element.getBoundingClientRect().bottom + scrollY"
    last = tab.prose.locator("p").last.evaluate(end)
    assert tab.page.evaluate("innerHeight") < last <= tab.page.evaluate("document.documentElement.scrollHeight")
    first = tab.questions.first.evaluate("element => element.getBoundingClientRect().top + scrollY")
    assert 0 <= first < tab.page.evaluate("innerHeight")


def test_where_people_sign_in_elsewhere(context: BrowserContext, start_server: StartServer, look: Look) -> None:
    page = context.new_page()
    server = start_server(CHATSTREAM_LOGIN_URL="/no/such/page", OPENAI_BASE_URL="", OPENAI_API_KEY="")
    page.goto(server.url)
    page.wait_for_url("**/no/such/page*")
    page.goto(server.url)
    expect(page.get_by_role("button", name="Sign in")).to_be_focused()
    look(page, "sign-in", "phone")
    page.goto(f"{server.url}/#token={auth.mint(SECRET, 'somebody', 3600)}")
    expect(page.get_by_text("Demo:")).to_be_visible()
    look(page, "demo")
    for width, height in ((320, 640), (640, 400), (360, 225)):  # a small phone; a desk at 200 %, and at 400 %
        page.set_viewport_size({"width": width, "height": height})
        page.screenshot(path=REPOSITORY / "build" / "screenshots" / f"demo-{width}.png")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        expect(page.get_by_role("heading", name="What shall we look at?")).to_be_in_viewport()


def test_the_reference(context: BrowserContext, page_server: ServerProcess, look: Look) -> None:
    page = context.new_page()
    page.goto(f"{page_server.url}/docs")
    page.get_by_role("link", name="Send a message and have it answered").click()
    expect(page.get_by_role("heading", name="Send a message and have it answered")).to_be_in_viewport()
    look(page, "docs", "phone")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
