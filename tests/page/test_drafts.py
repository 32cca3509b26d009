"""What is being written stays: over a reload, beside another tab, and when its chat is deleted meanwhile."""

from playwright.sync_api import expect

from tests.page.conftest import OpenPage
from tests.page.test_conversations import delete, make, titles
from tests.support.browser import Held, Model
from tests.support.upstream import answer

KEPT = "() => Object.keys({...localStorage, ...sessionStorage}).filter((key) => key.startsWith('chatstream.draft'))"


def test_each_tab_keeps_its_own_draft_until_the_user_signs_out(open_page: OpenPage) -> None:
    tab, other = open_page(), open_page()
    tab.field.fill("mine")
    other.field.fill("the other one's")
    tab.page.reload()
    expect(tab.field).to_have_value("mine")
    expect(open_page().field).to_have_value("the other one's")
    other.field.fill("")
    tab.page.reload()
    expect(tab.field).to_have_value("mine")
    tab.button("Sign out").click()
    for each in (tab, other):
        expect(each.page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert each.page.evaluate(KEPT) == []


def test_edits_are_kept_each_for_its_question(open_page: OpenPage, model: Model) -> None:
    for text in ("To one.", "To two.", "To the new two.", "To the other two."):
        model.reply(answer(text))
    tab = open_page()
    for question, text in (("One", "To one."), ("Two", "To two.")):
        tab.ask(question)
        expect(tab.prose).to_have_text(text)
    other = open_page(tab.conversation)
    other.begin_edit("Another two", place=1)
    tab.field.fill("a draft")
    tab.begin_edit("New one", place=0)
    tab.begin_edit("New two", place=1)
    tab.begin_edit(place=0)
    expect(tab.field).to_have_value("New one")
    tab.page.reload()
    expect(tab.field).to_have_value("New one")
    expect(tab.page.get_by_text("You edit a question.")).to_be_visible()
    tab.field.press("Escape")
    expect(tab.field).to_have_value("a draft")
    tab.begin_edit(place=0)
    expect(tab.field).to_have_value("One")
    tab.begin_edit("Now two", place=1)
    tab.field.press("Enter")
    expect(tab.prose).to_have_text("To the new two.")
    expect(tab.field).to_have_value("a draft")
    expect(other.prose).to_have_text("To the new two.")
    other.field.press("Enter")  # the question that it edits is not shown any more
    for each in (tab, other):
        expect(each.questions).to_have_text(["One", "Another two"])
        expect(each.prose).to_have_text("To the other two.")
        expect(each.page.get_by_role("group", name="Version 3 of 3")).to_be_visible()
    expect(other.field).to_have_value("a draft")
    tab.page.reload()
    expect(tab.field).to_have_value("a draft")
    assert tab.page.evaluate(KEPT) == [f"chatstream.draft.{tab.conversation}"]


def test_what_is_written_in_a_chat_that_is_deleted_goes_into_a_new_one(open_page: OpenPage) -> None:
    other = open_page()
    make(other, "One", "Two")
    other.page.reload()
    tab = open_page()
    tab.page.get_by_role("link", name="One").click()
    expect(tab.title).to_have_text("One")
    tab.button("New chat").click()
    tab.page.get_by_role("link", name="Two").click()
    expect(tab.state).to_have_text("Connected")
    tab.field.fill("for Two")
    delete(other, "Two")
    other.page.reload()  # it is too late to undo it
    expect(tab.title).to_have_text("New chat")
    expect(tab.field).to_have_value("for Two")
    assert tab.page.evaluate(KEPT) == ["chatstream.draft.new"]
    tab.page.go_back()  # to the new chat before: the deleted one holds nobody
    tab.page.go_back()
    expect(tab.title).to_have_text("One")


def test_back_does_not_lead_into_a_chat_whose_deletion_can_be_undone(open_page: OpenPage) -> None:
    tab = open_page()
    make(tab, "One", "Two")
    tab.page.reload()
    for name in ("One", "Two", "One"):
        tab.page.get_by_role("link", name=name).click()
        expect(tab.title).to_have_text(name)
    tab.field.fill("for One")
    delete(tab, "One")
    tab.page.locator("#undo").hover()  # meanwhile its time does not run
    tab.page.go_back()
    expect(tab.title).to_have_text("Two")
    tab.page.go_back()
    expect(tab.title).to_have_text("New chat")
    tab.button("Undo").click()
    expect(tab.title).to_have_text("One")
    expect(tab.field).to_have_value("for One")


def test_a_reload_just_after_the_first_enter_loses_nothing(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Noted."))
    tab = open_page()
    tab.page.route("**/messages?**", Held("POST"))
    tab.field.fill("First")
    with tab.page.expect_request(lambda request: request.method == "POST" and "/messages?" in request.url):
        tab.field.press("Enter")
    tab.page.goto(tab.url)  # the reload had begun before the address named the conversation
    expect(tab.field).to_have_value("First")
    tab.page.unroute("**/messages?**")
    tab.field.press("Enter")
    expect(tab.prose).to_have_text("Noted.")
    assert titles(tab) == ["First"]
    tab.button("New chat").click()
    expect(tab.field).to_have_value("")
    assert tab.page.evaluate(KEPT) == []


def test_instructions_are_kept_over_a_reload(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Arr."))
    tab = open_page()
    text = tab.page.get_by_label("The model gets this text")
    tab.button("Options of this chat").click()
    tab.button("Instructions…").click()
    text.fill("Speak like a pir")
    tab.page.reload()
    expect(text).to_have_value("Speak like a pir")
    text.fill("Speak like a pirate.")
    tab.button("Save").click()
    expect(text).to_be_hidden()
    tab.page.reload()
    expect(tab.field).to_be_visible()
    tab.ask("Who are you?")
    expect(tab.prose).to_have_text("Arr.")
    assert model.upstream.calls[0].body["messages"][0] == {"role": "system", "content": "Speak like a pirate."}
    expect(text).to_be_hidden()
    assert tab.page.evaluate(KEPT) == []
