"""A person's first minutes with the page: their actions, and what the page shows."""

import re
import signal

from playwright.sync_api import BrowserContext, expect

from tests.conftest import StartServer
from tests.page.conftest import OpenPage
from tests.support.browser import Model, more
from tests.support.upstream import Do, answer, beginning, ending, whole


def test_ask_and_watch_the_answer_come(open_page: OpenPage, model: Model) -> None:
    first, second = model.gate(), model.gate()
    rest = more("to win** at odds of 2.10, with a stake of €10.")
    model.reply(first, beginning("I'd recommend a bet on **Arsenal "), second, rest + ending())
    tab = open_page()
    expect(tab.page.get_by_role("heading", name="What shall we look at?")).to_be_visible()
    tab.ask("Who wins?")
    expect(tab.questions).to_have_text(["Who wins?"])
    expect(tab.answers.get_by_text("Waiting for the model")).to_be_attached()
    first.open()
    expect(tab.prose).to_have_text("I'd recommend a bet on Arsenal")
    expect(tab.prose.locator("strong")).to_have_text("Arsenal")  # no Markdown marks, though unfinished
    expect(tab.stop).to_be_visible()
    second.open()
    expect(tab.prose).to_have_text("I'd recommend a bet on Arsenal to win at odds of 2.10, with a stake of €10.")
    expect(tab.prose.locator("strong")).to_have_text("Arsenal to win")
    expect(tab.answers.locator(".bet")).to_contain_text(re.compile("Arsenal to win.*€10.*2.10", re.DOTALL))
    expect(tab.stop).to_be_hidden()
    expect(tab.page.get_by_role("navigation")).to_contain_text("Who wins?")
    expect(tab.state).to_have_text("Connected")


def test_an_example_is_a_question(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Eleven to eight: "))
    tab = open_page()
    tab.page.get_by_role("button", name="Explain what odds of 11/8 mean").click()
    expect(tab.questions).to_have_text(["Explain what odds of 11/8 mean, with an example"])
    expect(tab.answers).to_have_count(1)


def test_stop_keeps_what_was_written(open_page: OpenPage, model: Model) -> None:
    model.reply(beginning("As far as this"), Do.HANG)
    tab = open_page()
    tab.ask("Go on and on.")
    expect(tab.prose).to_have_text("As far as this")
    tab.stop.click()
    expect(tab.answers).to_contain_text("You stopped it")
    expect(tab.prose).to_have_text("As far as this")
    expect(tab.field).to_be_focused()


def test_another_answer_takes_the_place_of_the_first(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("The first."))
    model.reply(answer("The second."))
    tab = open_page()
    tab.ask("Again and again?")
    expect(tab.prose).to_have_text("The first.")
    tab.button("Regenerate the answer").click()
    expect(tab.prose).to_have_text("The second.")
    expect(tab.answers).to_have_count(1)
    tab.page.reload()
    expect(tab.prose).to_have_text("The second.")


def test_a_reload_in_mid_answer_loses_nothing(open_page: OpenPage, model: Model) -> None:
    begun, reloaded = model.gate(), model.gate()
    model.reply(beginning("One, "), begun, more("two, "), reloaded, more("three.") + ending())
    tab = open_page()
    tab.ask("Count.")
    expect(tab.prose).to_have_text("One,")
    tab.page.reload()
    expect(tab.prose).to_have_text("One,")
    begun.open()
    expect(tab.prose).to_have_text("One, two,")
    tab.page.reload()
    reloaded.open()
    expect(tab.prose).to_have_text("One, two, three.")
    expect(tab.stop).to_be_hidden()
    expect(tab.questions).to_have_text(["Count."])
    assert [call.body["messages"][-1]["content"] for call in model.upstream.calls] == ["Count."]


def test_two_tabs_are_in_step(open_page: OpenPage, model: Model) -> None:
    go_on = model.gate()
    model.reply(beginning("The same "), go_on, more("for both.") + ending())
    model.reply(answer("And again."))
    one = open_page()
    one.ask("Who sees this?")
    expect(one.prose).to_have_text("The same")
    other = open_page(one.conversation)
    expect(other.prose).to_have_text("The same")
    go_on.open()
    for tab in (one, other):
        expect(tab.prose).to_have_text("The same for both.")
    other.ask("And this?")
    for tab in (one, other):
        expect(tab.questions).to_have_text(["Who sees this?", "And this?"])
        expect(tab.prose).to_have_text("And again.")
    assert len(model.asked()) == 2


def test_the_server_is_killed_and_comes_back_in_mid_answer(
    open_page: OpenPage, model: Model, start_server: StartServer
) -> None:
    model.reply(beginning("This one will be cut"), Do.HANG)
    model.reply(answer("This one is whole."))
    server = start_server()
    tab = open_page(url=server.url)
    tab.ask("Shall we?")
    expect(tab.prose).to_have_text("This one will be cut")
    server.signal(signal.SIGKILL)
    server.wait()
    expect(tab.state).to_have_text("Reconnecting…")
    expect(tab.prose).to_have_text("This one will be cut")
    start_server(server.port)
    # The new process first waits until it is sure that no other process generates the answer: some twelve seconds.
    expect(tab.prose).to_have_text("This one is whole.", timeout=40_000)
    expect(tab.state).to_have_text("Connected")
    expect(tab.answers).to_have_count(1)
    expect(tab.questions).to_have_text(["Shall we?"])


def test_an_answer_that_fails_says_so_and_can_be_tried_again(open_page: OpenPage, model: Model) -> None:
    model.reply(beginning("Half an"), Do.CLOSE)
    model.reply(answer("A whole answer."))
    tab = open_page()
    tab.ask("Will it hold?")
    expect(tab.answers.locator(".failure")).to_contain_text("The answer broke off")
    expect(tab.prose).to_have_text("Half an")
    tab.button("Try again").click()
    expect(tab.prose).to_have_text("A whole answer.")
    expect(tab.answers.locator(".failure")).to_have_count(0)


def test_a_model_that_is_busy_says_when_it_can_be_asked_again(open_page: OpenPage, model: Model) -> None:
    """The model asks for a longer wait than the server's own retries take; the page counts down, also after a
    reload.
    """
    refused = whole("429 Too Many Requests", {"error": {"message": "Slow down."}}, Retry_After="12")
    model.reply(refused)
    model.reply(answer("At last."))
    tab = open_page()
    tab.ask("Are you busy?")
    again = tab.answers.locator(".failure button")
    expect(again).to_have_text(re.compile(r"^Try again in ([1-9]|1[0-2]) s$"))
    expect(again).to_be_disabled()
    tab.page.reload()
    expect(again).to_have_text(re.compile(r"^Try again in ([1-9]|1[0-2]) s$"))
    expect(again).to_have_text("Try again")
    expect(again).to_be_enabled()
    again.click()
    expect(tab.prose).to_have_text("At last.")


def test_without_a_network_nothing_is_lost(open_page: OpenPage, model: Model, context: BrowserContext) -> None:
    model.reply(answer("Hello."))
    model.reply(answer("Hello again."))
    tab = open_page()
    tab.ask("Hello?")
    expect(tab.prose).to_have_text("Hello.")
    expect(tab.stop).to_be_hidden()
    context.set_offline(True)
    expect(tab.state).to_have_text("Offline")
    tab.ask("Are you there?")
    expect(tab.page.get_by_role("alert")).to_contain_text("It was not sent")
    expect(tab.field).to_have_value("Are you there?")
    context.set_offline(False)
    tab.button("Send again").click()
    expect(tab.questions).to_have_text(["Hello?", "Are you there?"])
    expect(tab.prose).to_have_text("Hello again.")
    expect(tab.field).to_have_value("")
    expect(tab.state).to_have_text("Connected")


def test_on_a_phone(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("```text\n" + "a line of code that is much wider than any phone " * 3 + "\n```"))
    tab = open_page()
    tab.page.set_viewport_size({"width": 360, "height": 640})
    tab.ask("A word that is long enough: " + "Donaudampfschiffahrtsgesellschaft" * 3)
    expect(tab.prose).to_contain_text("a line of code")
    assert tab.page.evaluate("document.documentElement.scrollWidth") == 360
    tab.button("Conversations").click()
    expect(tab.button("New chat")).to_be_visible()
    tab.page.keyboard.press("Escape")
    expect(tab.button("New chat")).to_be_hidden()
    expect(tab.button("Conversations")).to_be_focused()
    tab.button("Conversations").click()
    tab.page.set_viewport_size({"width": 1024, "height": 600})  # the tablet is turned
    expect(tab.field).to_be_enabled()
    tab.field.click()
    tab.page.set_viewport_size({"width": 360, "height": 640})
    tab.button("Conversations").click()
    tab.button("New chat").click()
    expect(tab.page.get_by_role("heading", name="What shall we look at?")).to_be_visible()
    assert tab.page.evaluate("document.documentElement.scrollWidth") == 360


def test_by_keyboard_alone(open_page: OpenPage, model: Model) -> None:
    model.reply(beginning("Endless"), Do.HANG)
    model.reply(answer("Enough."))
    tab = open_page()
    press, write = tab.page.keyboard.press, tab.page.keyboard.type
    expect(tab.field).to_be_focused()
    write("Two")
    press("Shift+Enter")
    write("lines")
    press("Enter")
    expect(tab.questions).to_have_text(["Two\nlines"])
    expect(tab.prose).to_have_text("Endless")
    press("Escape")
    expect(tab.answers).to_contain_text("You stopped it")
    for _ in range(3):  # past the two rating buttons
        press("Shift+Tab")
    expect(tab.button("Try again")).to_be_focused()
    press("Enter")
    expect(tab.prose).to_have_text("Enough.")
    tab.page.reload()
    expect(tab.prose).to_have_text("Enough.")
    press("Tab")
    expect(tab.page.get_by_role("link", name="Skip to the message box")).to_be_focused()
    press("Enter")
    expect(tab.field).to_be_focused()
