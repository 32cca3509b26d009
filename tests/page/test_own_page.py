"""The page with other texts: an operator's, a plug-in's, another language's, and a demo server's."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from chatstream.errors import EXPLANATIONS
from tests.conftest import StartServer
from tests.page.conftest import OpenPage
from tests.support.browser import ChatPage, Model
from tests.support.processes import REPOSITORY, ServerProcess
from tests.support.upstream import Do, answer, beginning

WEB = REPOSITORY / "chatstream" / "web"


PAPER = "rgb(251, 250, 246)"


def contrast(one: str, other: str) -> float:
    """The contrast of two colours (WCAG 2.2)."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_operators_words_colours_and_logo(
    start_server: StartServer, open_page: OpenPage, model: Model, tmp_path: Path
) -> None:
    model.reply(answer("On its way."))
    (tmp_path / "logo.svg").write_text(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'><rect width='8' height='8' fill='red'/></svg>"
    )
    (tmp_path / "page.toml").write_text(
        'name = "Acme <b>Chat</b>"\nlogo = "logo.svg"\ngreeting = "How can we help?"\nintroduction = "About orders."\n'
        'examples = ["Where is my order?"]\nplaceholder = "Ask about an order"\nnote = "May be wrong."\n'
        '[colours]\naccent = ["#ffdd00", "#332200"]\n'
    )
    tab = open_page(url=start_server(CHATSTREAM_PAGE_FILE=str(tmp_path / "page.toml")).url)
    page = tab.page
    expect(page).to_have_title("New chat · Acme <b>Chat</b>")
    expect(page.get_by_role("navigation").get_by_role("heading", level=1)).to_have_text("Acme <b>Chat</b>")
    expect(page.get_by_role("heading", name="How can we help?")).to_be_visible()
    expect(page.get_by_text("About orders.")).to_be_visible()
    expect(tab.field).to_have_attribute("placeholder", "Ask about an order")
    expect(page.get_by_text("May be wrong.")).to_be_visible()
    expect(page.get_by_text("afford to lose")).to_have_count(0)
    assert page.locator(".sidebar .brand img").evaluate("img => img.decode().then(() => img.naturalWidth)") > 0
    expect(tab.button("Send")).to_have_css("background-color", "rgb(255, 221, 0)")
    # A frame of this yellow could not be seen on the paper.
    assert contrast(page.locator("#composer").evaluate("form => getComputedStyle(form).borderTopColor"), PAPER) >= 3
    expect(tab.button("Send")).to_have_css("color", "rgb(0, 0, 0)")
    page.emulate_media(color_scheme="dark")
    expect(tab.button("Send")).to_have_css("background-color", "rgb(51, 34, 0)")
    expect(tab.button("Send")).to_have_css("color", "rgb(255, 255, 255)")
    tab.button("Where is my order?").click()
    expect(tab.prose).to_have_text("On its way.")


def test_without_the_bets_nothing_is_said_of_them(start_server: StartServer, open_page: OpenPage) -> None:
    tab = open_page(url=start_server(CHATSTREAM_PLUGINS="none").url)
    expect(tab.page.get_by_role("heading", name="How can I help?")).to_be_visible()
    text = tab.page.locator("#chat").inner_text()
    assert not re.search(r"\bbets?\b|\bmatch\b|\bodds\b", text, re.IGNORECASE)


def test_in_german(browser: Browser, page_server: ServerProcess, open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Gut."))
    english = open_page()
    context = browser.new_context(locale="de-AT")
    tab = ChatPage(context, page_server.url, english.token)
    tab.field = tab.page.get_by_label("Ihre Nachricht")
    tab.stop = tab.page.get_by_role("button", name="Stopp", exact=True)
    tab.open()
    expect(tab.page.get_by_role("heading", name="Was schauen wir uns an?")).to_be_visible()
    expect(tab.page.locator("html")).to_have_attribute("lang", "de")
    tab.ask("Wie geht es?")
    expect(tab.prose).to_have_text("Gut.")
    expect(tab.button("Antwort neu erzeugen")).to_be_visible()
    expect(tab.state).to_have_text("Verbunden")
    expect(tab.page.get_by_role("navigation").get_by_role("heading", level=2)).to_have_text("Heute")
    model.reply(beginning("Halb"), Do.CLOSE)
    tab.ask("Und jetzt?")
    expect(tab.answers.last.locator(".failure")).to_contain_text("Die Antwort brach ab, bevor sie fertig war.")
    context.close()


def table() -> set[str]:
    """The English texts that have a German one."""
    words = (WEB / "page" / "words.js").read_text()
    entries = words[words.index("const GERMAN") : words.index("};")]
    return {quoted or bare for quoted, bare in re.findall(r'^  (?:"([^"]+)"|(\w+)):', entries, re.MULTILINE)}


def test_every_text_of_the_code_is_in_the_table() -> None:
    known = table()
    assert len(known) > 80
    for path in (WEB / "page").glob("*.js"):
        used = set(re.findall(r'\bt\(\s*"([^"]+)"', path.read_text()))
        assert used <= known, path.name


def test_everything_that_the_server_says_is_wrong_is_in_the_table() -> None:
    assert {explanation.message for explanation in EXPLANATIONS.values()} <= table()
    library = "".join(path.read_text() for path in (WEB / "chatstream.js", *(WEB / "client").glob("*.js")))
    said = set(re.findall(r'new ChatError\(\s*"([^"]+)"', library))
    assert len(said) > 5
    assert said - {"This fetch cannot stream: pass an EventSource."} <= table()  # for developers


def test_every_text_of_the_page_is_in_the_table(open_page: OpenPage) -> None:
    html = (WEB / "index.html").read_text()
    body = re.sub(r"<svg.*?</svg>|<noscript>.*?</noscript>", "", html[html.index("<body") :], flags=re.DOTALL)
    aside = re.search(r'<aside id="developer".*?</aside>', body, re.DOTALL)
    assert aside  # for developers, who read English
    body = body.replace(aside[0], "")
    texts = {text.strip() for text in re.findall(r">([^<>]+)<", body)}
    texts |= {text for _, text in re.findall(r'(aria-label|placeholder)="([^"]+)"', body)}
    keys = {"Enter", "Shift", "Ctrl", "Esc", "K", "O", "Z", "?", "↑", "+", "", "chatstream"}
    assert texts - keys <= table()


@pytest.fixture
def demo(start_server: StartServer) -> ServerProcess:
    """A server without a configured model."""
    return start_server(OPENAI_BASE_URL="", OPENAI_API_KEY="")


def test_the_demo_says_that_it_is_one_and_answers_its_examples(demo: ServerProcess, open_page: OpenPage) -> None:
    tab = open_page(url=demo.url)
    note = tab.page.get_by_text("Demo: the answers are prepared.")
    expect(note).to_contain_text("OPENAI_API_KEY")
    expect(note).to_contain_text("OPENAI_MODEL")
    examples = tab.page.locator("#examples button").all_text_contents()
    for example, about in zip(examples, ("Arsenal", "last five", "2.375", "draw"), strict=True):
        tab.button("New chat").click()
        tab.button(example).click()
        expect(tab.stop).to_be_visible()
        expect(tab.stop).to_be_hidden()
        expect(tab.prose).to_contain_text(about)


def test_a_real_model_is_no_demo(open_page: OpenPage) -> None:
    expect(open_page().page.get_by_text("Demo:")).to_be_hidden()
