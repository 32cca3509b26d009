"""Many tabs of one browser, over HTTP/1.1: all tabs together have six connections, and each tab can still send."""

from playwright.sync_api import BrowserContext, expect

from tests.page.conftest import OpenPage
from tests.support.browser import ChatPage, Model, more
from tests.support.upstream import answer, beginning, ending

TABS = 10


def hide(tab: ChatPage, *, hidden: bool) -> None:
    """Hide a tab, as if another one were shown. Playwright makes every tab believe that it is visible."""
    tab.page.evaluate(
        """hidden => {
            const get = () => hidden ? "hidden" : "visible";
            Object.defineProperty(document, "visibilityState", { configurable: true, get });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def test_ten_tabs_can_all_send(open_page: OpenPage, model: Model) -> None:
    tabs = []
    for number in range(TABS):
        model.reply(answer(f"Answer {number}."))
        tab = open_page()
        tab.ask(f"Question {number}")
        expect(tab.prose).to_have_text(f"Answer {number}.")
        tabs.append(tab)
    for number, tab in enumerate(tabs):  # the first tab has been without a stream for the longest time
        model.reply(answer(f"Another answer {number}."))
        tab.ask(f"And then {number}?")
        expect(tab.prose).to_have_text(f"Another answer {number}.")
        expect(tab.state).to_have_text("Connected")
        expect(tab.questions).to_have_text([f"Question {number}", f"And then {number}?"])


def test_ten_tabs_in_which_answers_run_can_all_send(open_page: OpenPage, model: Model) -> None:
    gates = [model.gate() for _ in range(TABS)]
    tabs = []
    for number, gate in enumerate(gates):
        model.reply(beginning(f"Answer {number} "), gate, more("is whole.") + ending())
        tab = open_page()
        tab.ask(f"Question {number}")
        expect(tab.prose).to_have_text(f"Answer {number}")
        hide(tab, hidden=True)
        tabs.append(tab)
    for gate in gates:
        gate.open()
    for number, tab in enumerate(tabs):
        hide(tab, hidden=False)
        expect(tab.prose).to_have_text(f"Answer {number} is whole.")
        expect(tab.answers).to_have_count(1)
        hide(tab, hidden=True)
    assert len(model.asked()) == TABS  # no answer was cut and requested again


def test_a_hidden_tab_gives_up_its_stream_when_no_answer_runs(open_page: OpenPage, model: Model) -> None:
    go_on = model.gate()
    model.reply(beginning("One, "), go_on, more("two.") + ending())
    model.reply(answer("Three."))
    tab = open_page()
    tab.ask("Count.")
    expect(tab.prose).to_have_text("One,")
    hide(tab, hidden=True)
    expect(tab.state).to_have_text("Connected")  # the answer still runs
    go_on.open()
    expect(tab.prose).to_have_text("One, two.")
    expect(tab.state).to_have_text("Paused")
    other = open_page(tab.conversation)
    other.ask("Go on.")
    expect(other.prose).to_have_text("Three.")
    expect(tab.questions).to_have_count(1)
    hide(tab, hidden=False)
    expect(tab.questions).to_have_text(["Count.", "Go on."])
    expect(tab.prose).to_have_text("Three.")
    expect(tab.state).to_have_text("Connected")


def test_a_tab_in_sight_that_had_to_pause_keeps_up(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("The first."))
    tab = open_page()
    tab.ask("One?")
    expect(tab.prose).to_have_text("The first.")
    others = []
    for number in range(3):
        model.reply(answer("The next."))
        other = open_page(tab.conversation)
        other.ask(f"Another, {number}?")
        expect(other.prose).to_have_text("The next.")
        others.append(other)
    expect(tab.state).to_have_text("Paused")
    expect(tab.questions).to_have_count(4)
    others[0].page.close()  # a connection is free again
    expect(tab.state).to_have_text("Connected")


def test_links_that_are_opened_in_the_background_load_and_wait(
    context: BrowserContext, open_page: OpenPage, model: Model
) -> None:
    model.reply(answer("Noted."))
    tab = open_page()
    tab.ask("My question")
    expect(tab.prose).to_have_text("Noted.")
    context.add_init_script(
        "Object.defineProperty(document, 'visibilityState', { configurable: true, get: () => 'hidden' })"
    )
    other = open_page(tab.conversation)
    expect(other.prose).to_have_text("Noted.")
    expect(other.state).to_have_text("Paused")
    hide(other, hidden=False)
    expect(other.state).to_have_text("Connected")
