"""The message box: sending while an answer is written, messages that are too long or too early, and the keyboard."""

import re

from playwright.sync_api import Route, expect

from tests.conftest import StartServer
from tests.page.conftest import OpenPage
from tests.support.browser import Held, Model, more
from tests.support.upstream import Do, answer, beginning, ending, whole


def test_a_question_in_mid_answer_is_asked_next(open_page: OpenPage, model: Model) -> None:
    go_on = model.gate()
    model.reply(beginning("The first "), go_on, more("answer.") + ending())
    model.reply(answer("The second answer."))
    tab = open_page()
    tab.ask("One?")
    expect(tab.prose).to_have_text("The first")
    tab.ask_next("Two?")
    expect(tab.field).to_have_value("")
    expect(tab.questions).to_have_text(["One?", "Two?"])
    expect(tab.answers).to_have_count(1)
    tab.page.reload()
    expect(tab.page.get_by_text("Will be asked next")).to_be_visible()
    expect(tab.prose).to_have_text("The first")
    go_on.open()
    expect(tab.prose).to_have_text("The second answer.")
    expect(tab.answers.first).to_contain_text("The first answer.")
    expect(tab.page.get_by_text("Will be asked next")).to_be_hidden()
    expect(tab.questions).to_have_text(["One?", "Two?"])
    expect(tab.stop).to_be_hidden()
    assert len(model.asked()) == 2


def test_what_waits_is_asked_when_the_answer_is_stopped(open_page: OpenPage, model: Model) -> None:
    model.reply(beginning("On and on"), Do.HANG)
    model.reply(answer("Better."))
    tab = open_page()
    tab.ask("One?")
    expect(tab.prose).to_have_text("On and on")
    tab.field.fill("No, another one!")
    tab.button("Ask next").click()
    expect(tab.page.get_by_text("Will be asked next")).to_be_visible()
    tab.stop.click()
    expect(tab.prose).to_have_text("Better.")
    expect(tab.answers).to_have_count(2)


def test_what_is_too_long_is_counted_and_not_sent(open_page: OpenPage, model: Model, start_server: StartServer) -> None:
    model.reply(answer("Long."))
    tab = open_page(url=start_server(CHATSTREAM_CONTENT_CHARACTERS="100").url)
    count = tab.page.locator("#count")
    tab.field.fill("a" * 89)
    expect(count).to_be_hidden()
    tab.field.fill("a" * 101)
    expect(count).to_have_text("101 of 100 characters")
    expect(tab.button("Send")).to_be_disabled()
    tab.field.press("Enter")
    expect(tab.questions).to_have_count(0)
    tab.field.fill("🙂" * 100)  # characters, not UTF-16's halves of them
    expect(count).to_have_text("100 of 100 characters")
    tab.field.press("Enter")
    expect(tab.prose).to_have_text("Long.")
    expect(count).to_be_hidden()


def test_what_came_too_soon_says_when_it_may_be_sent(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Hello."))
    model.reply(answer("Patience."))
    tab = open_page()
    tab.ask("Hello?")
    expect(tab.prose).to_have_text("Hello.")
    problem = '{"title":"Too Many Requests","status":429,"detail":"Too many messages.","code":"rate_limited"}'

    def refuse(route: Route) -> None:
        headers = {"Content-Type": "application/problem+json", "Retry-After": "3"}
        route.fulfill(status=429, headers=headers, body=problem)

    tab.page.route(re.compile("/messages"), refuse, times=1)
    tab.ask("Too soon?")
    again = tab.page.locator("#send-again")
    expect(again).to_have_text(re.compile(r"^Send again in [123] s$"))
    expect(again).to_be_disabled()
    expect(again).to_have_text("Send again")
    again.click()
    expect(tab.prose).to_have_text("Patience.")


def test_what_will_never_be_accepted_is_not_offered_again(open_page: OpenPage) -> None:
    tab = open_page()
    problem = (
        '{"title":"No","status":422,"detail":"No.","code":"invalid_content","errors":{"content":"must be polite"}}'
    )
    tab.page.route(
        re.compile("/messages"),
        lambda route: (
            route.fulfill(status=422, content_type="application/problem+json", body=problem)
            if route.request.method == "POST"
            else route.continue_()
        ),
    )
    tab.ask("You!")
    expect(tab.page.get_by_role("alert")).to_have_text("It was not sent: must be polite.")
    expect(tab.page.locator("#send-again")).to_be_hidden()
    expect(tab.field).to_have_value("You!")


def test_too_long_for_the_model_has_a_way_out(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Hello."))
    error = {"code": "context_length_exceeded", "message": "Too long."}
    model.reply(whole("400 Bad Request", {"error": error}))  # also to retries with a shorter context
    tab = open_page()
    tab.ask("Hello?")
    expect(tab.prose).to_have_text("Hello.")
    tab.ask("And now?")
    expect(tab.answers.locator(".failure")).to_be_visible()
    before = tab.page.url
    model.reply(answer("A new beginning."))
    tab.button("Start a new chat with this message").click()
    expect(tab.prose).to_have_text("A new beginning.")
    expect(tab.questions).to_have_text(["And now?"])
    assert tab.page.url != before


def test_shortcuts(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Noted."))
    tab = open_page()
    press = tab.page.keyboard.press
    tab.ask("My qestion")
    expect(tab.prose).to_have_text("Noted.")
    press("ArrowUp")
    expect(tab.field).to_have_value("My qestion")
    press("?")  # in the box this key types a character
    expect(tab.field).to_have_value("My qestion?")
    # The Enter that chooses a word of an input method sends nothing. Safari tells it by this number alone.
    tab.field.evaluate("""field => field.dispatchEvent(
        new KeyboardEvent("keydown", { key: "Enter", keyCode: 229, bubbles: true, cancelable: true }))""")
    expect(tab.field).to_be_editable()
    expect(tab.field).to_have_value("My qestion?")
    # While the edited text is being sent, Escape does not lose it.
    held = Held("POST")
    tab.page.route(re.compile("/messages"), held)
    press("Enter")
    expect(tab.field).not_to_be_editable()
    press("Escape")
    expect(tab.page.get_by_text("You edit a question.")).to_be_visible()
    held.end(Route.abort)
    expect(tab.page.locator("#notice")).to_be_visible()
    expect(tab.field).to_have_value("My qestion?")
    tab.page.locator("#scroller").focus()
    press("?")
    expect(tab.page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    press("Escape")
    expect(tab.page.get_by_role("dialog")).to_be_hidden()
    press("Control+Shift+O")
    expect(tab.title).to_have_text("New chat")
    expect(tab.field).to_be_focused()
    expect(tab.field).to_have_value("")


def test_a_question_that_waits_can_be_taken_back(open_page: OpenPage, model: Model) -> None:
    hold = model.gate()
    model.reply(beginning("To one."), hold, ending())
    model.reply(answer("To three."))
    tab = open_page()
    tab.ask("One?")
    expect(tab.prose).to_have_text("To one.")
    tab.ask_next("Two?")
    other = open_page(tab.conversation)
    expect(other.questions).to_have_text(["One?", "Two?"])
    back = tab.button("Take back the question")
    back.click()
    expect(tab.field).to_have_value("Two?")  # the text is not lost
    expect(tab.field).to_be_focused()
    for each in (tab, other):
        expect(each.questions).to_have_text(["One?"])
        expect(each.prose).to_have_text("To one.")
    tab.ask_next("Three?")
    tab.begin_edit("Three, edited?")
    tab.button("New chat").click()
    expect(tab.field).to_have_value("")
    tab.page.go_back()
    expect(tab.questions).to_have_text(["One?", "Three?"])
    expect(tab.field).to_have_value("Three, edited?")
    back.focus()
    tab.page.keyboard.press("Enter")  # sent while the question is being edited
    expect(tab.page.get_by_text("You edit a question.")).to_be_hidden()
    expect(tab.field).to_have_value("Three, edited?")
    expect(other.questions).to_have_text(["One?"])
    tab.button("New chat").click()
    expect(tab.field).to_have_value("")
    tab.page.go_back()
    expect(tab.questions).to_have_text(["One?"])
    expect(tab.page.get_by_text("You edit a question.")).to_be_hidden()  # there is no such question any more
    expect(tab.field).to_have_value("Three, edited?")
    # A tab that was disconnected learns of it after reconnecting.
    tab.ask_next("Four?")
    expect(tab.questions).to_have_text(["One?", "Four?"])
    other.page.reload()
    expect(other.questions).to_have_text(["One?", "Four?"])
    expect(other.state).to_have_text("Connected")
    other.page.route(re.compile("/stream"), lambda route: route.abort())
    other.button("Developer view").click()
    other.button("Drop the connection").click()
    expect(other.state).to_have_text("Reconnecting…")
    back.click()
    expect(tab.questions).to_have_text(["One?"])
    expect(other.questions).to_have_text(["One?", "Four?"])
    other.page.unroute_all()
    expect(other.questions).to_have_text(["One?"])
    tab.field.fill("")
    # If taking back fails because the answer has begun, the question is answered.
    tab.ask_next("Three?")
    tab.page.route(re.compile(r"/messages/\w+$"), lambda route: route.abort())
    back.click()
    expect(tab.page.locator("#notice")).to_contain_text("The connection failed.")
    hold.open()
    expect(tab.prose).to_have_text("To three.")
    expect(back).to_have_count(0)
    tab.page.reload()
    expect(tab.questions).to_have_text(["One?", "Three?"])
