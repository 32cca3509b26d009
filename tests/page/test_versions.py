"""A question edited, its other versions, an answer continued, and thumbs: by mouse, by keyboard, and in another tab."""

import httpx
from playwright.sync_api import expect

from tests.page.conftest import OpenPage
from tests.support.browser import ChatPage, Model, more
from tests.support.client import API
from tests.support.processes import without_tls
from tests.support.upstream import answer, beginning, delta, ending, event, http_chunk


def test_a_question_is_edited_and_both_versions_stay_within_reach(open_page: OpenPage, model: Model) -> None:
    for text in ("To one.", "To two.", "To the new two.", "To three."):
        model.reply(answer(text))
    tab = open_page()
    tab.ask("One")
    expect(tab.prose).to_have_text("To one.")
    tab.ask("Two")
    expect(tab.prose).to_have_text("To two.")
    other = open_page(tab.conversation)
    expect(other.questions).to_have_text(["One", "Two"])

    tab.page.keyboard.press("ArrowUp")  # the last question, by keyboard
    expect(tab.field).to_have_value("Two")
    expect(tab.page.get_by_text("You edit a question.")).to_be_visible()
    tab.page.keyboard.press("Escape")
    expect(tab.page.get_by_text("You edit a question.")).to_be_hidden()
    expect(tab.field).to_have_value("")
    tab.edit("New two")
    expect(tab.prose).to_have_text("To the new two.")
    for each in (tab, other):
        expect(each.questions).to_have_text(["One", "New two"])
        expect(each.answers.locator(".prose")).to_have_text(["To one.", "To the new two."])
        expect(each.page.get_by_role("group", name="Version 2 of 2")).to_be_visible()
    expect(tab.field).to_have_value("")

    # Show the first version again, by keyboard; the other tab follows, and the next question continues that branch.
    before = tab.button("Question before the edit")
    before.focus()
    tab.page.keyboard.press("Enter")
    for each in (tab, other):
        expect(each.questions).to_have_text(["One", "Two"])
        expect(each.page.get_by_role("group", name="Version 1 of 2")).to_be_visible()
    expect(tab.button("Question after the edit")).to_be_focused()
    tab.ask("Three")
    expect(tab.prose).to_have_text("To three.")
    expect(other.questions).to_have_text(["One", "Two", "Three"])
    told = [turn["content"] for turn in model.upstream.calls[-1].body["messages"]]
    assert told[-5:] == ["One", "To one.", "Two", "To two.", "Three"]
    tab.page.reload()
    expect(tab.questions).to_have_text(["One", "Two", "Three"])


def test_a_cut_answer_is_continued_and_attempts_are_rated(open_page: OpenPage, model: Model) -> None:
    hold = model.gate()
    model.reply(beginning("The cow jumps over"), hold, more("never told"), ending())
    tab = open_page()
    tab.ask("Tell me.")
    expect(tab.prose).to_have_text("The cow jumps over")
    tab.stop.click()
    model.reply(answer("over the moon."))
    tab.button("Continue the answer").click()
    expect(tab.prose).to_have_text("The cow jumps over the moon.")
    hold.open()
    expect(tab.answers).to_have_count(1)
    expect(tab.page.get_by_role("group", name="Version 2 of 2")).to_be_visible()
    expect(tab.button("Continue the answer")).to_have_count(0)

    other = open_page(tab.conversation)
    expect(other.prose).to_have_text("The cow jumps over the moon.")
    expect(other.state).to_have_text("Connected")
    tab.button("Good answer").click()
    for each in (tab, other):
        expect(each.button("Good answer")).to_have_attribute("aria-pressed", "true")
    expect(tab.button("Good answer")).to_be_focused()
    other.page.close()
    tab.button("Earlier attempt").click()
    expect(tab.prose).to_have_text("The cow jumps over")
    expect(tab.button("Good answer")).to_have_attribute("aria-pressed", "false")
    tab.button("Bad answer").click()
    expect(tab.button("Bad answer")).to_have_attribute("aria-pressed", "true")
    tab.page.reload()
    expect(tab.prose).to_have_text("The cow jumps over")
    expect(tab.button("Bad answer")).to_have_attribute("aria-pressed", "true")
    tab.button("Bad answer").click()
    expect(tab.button("Bad answer")).to_have_attribute("aria-pressed", "false")
    tab.button("Later attempt").click()
    expect(tab.button("Good answer")).to_have_attribute("aria-pressed", "true")


def ask_and_begin_edit(tab: ChatPage, question: str, answered: str, draft: str, edited: str) -> None:
    """Ask, write a draft below the answer, and type another text for the question."""
    tab.ask(question)
    expect(tab.prose).to_have_text(answered)
    tab.field.fill(draft)
    tab.begin_edit(edited)


def test_an_edit_replaces_the_answer_that_runs_and_the_draft_stays(open_page: OpenPage, model: Model) -> None:
    hold = model.gate()
    model.reply(beginning("So far"), hold, http_chunk(event(delta(" never told"))), ending())
    tab = open_page()
    ask_and_begin_edit(tab, "Qestion", "So far", "A draft", "Question")
    model.reply(answer("Well."))
    tab.page.keyboard.press("Enter")
    expect(tab.questions).to_have_text(["Question"])
    expect(tab.prose).to_have_text("Well.")
    expect(tab.field).to_have_value("A draft")
    hold.open()


def test_an_edit_is_still_there_after_a_look_at_another_chat(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Noted."))
    tab = open_page()
    ask_and_begin_edit(tab, "My qestion", "Noted.", "a draft", "My question, and more")
    tab.button("New chat").click()
    expect(tab.field).to_have_value("")
    expect(tab.page.get_by_text("You edit a question.")).to_be_hidden()
    tab.page.go_back()
    expect(tab.page.get_by_text("You edit a question.")).to_be_visible()
    expect(tab.field).to_have_value("My question, and more")
    tab.field.press("Escape")
    expect(tab.field).to_have_value("a draft")


def test_an_edit_of_a_question_that_waits_leaves_the_answer_before_it_alone(open_page: OpenPage, model: Model) -> None:
    go_on = model.gate()
    model.reply(beginning("The first "), go_on, more("answer.") + ending())
    model.reply(answer("The second answer."))
    tab = open_page()
    tab.ask("One?")
    expect(tab.prose).to_have_text("The first")
    tab.ask_next("Tow?")
    tab.edit("Two?")
    expect(tab.questions).to_have_text(["One?", "Two?"])
    expect(tab.prose).to_have_text("The first")
    go_on.open()
    expect(tab.prose).to_have_text("The second answer.")
    expect(tab.answers.first).to_contain_text("The first answer.")
    assert [turn["content"] for turn in model.upstream.calls[1].body["messages"][-3:]] == [
        "One?",
        "The first answer.",
        "Two?",
    ]


def test_a_question_waits_for_an_answer_on_another_branch(open_page: OpenPage, model: Model) -> None:
    go_on = model.gate()
    model.reply(answer("To one."))
    model.reply(beginning("So "), go_on, more("far.") + ending())
    model.reply(answer("To two."))
    tab = open_page()
    tab.ask("One")
    expect(tab.prose).to_have_text("To one.")
    tab.edit("New one")
    expect(tab.prose).to_have_text("So")
    tab.button("Question before the edit").click()
    expect(tab.questions).to_have_text(["One"])
    tab.ask_next("Two")
    expect(tab.button("Take back the question")).to_be_visible()
    tab.page.reload()
    expect(tab.page.get_by_text("Will be asked next")).to_be_visible()
    go_on.open()
    expect(tab.prose).to_have_text("To two.")
    expect(tab.page.get_by_text("Will be asked next")).to_be_hidden()
    expect(tab.questions).to_have_text(["One", "Two"])


def test_an_earlier_attempt_stays_shown_while_a_newer_one_is_written(open_page: OpenPage, model: Model) -> None:
    go_on = model.gate()
    model.reply(answer("The first."))
    model.reply(beginning("The second "), go_on, more("attempt.") + ending())
    tab = open_page()
    tab.ask("Well?")
    expect(tab.prose).to_have_text("The first.")
    tab.button("Regenerate the answer").click()
    expect(tab.prose).to_have_text("The second")
    headers = {"Authorization": f"Bearer {tab.token}"}
    conversation = f"{API}/{tab.conversation}"
    with httpx.Client(base_url=tab.url, headers=headers, verify=without_tls()) as device:
        first = device.get(f"{conversation}/messages?branches=all").json()["messages"][1]["id"]
        assert device.patch(conversation, json={"head": first}).is_success
    expect(tab.prose).to_have_text("The first.")
    expect(tab.page.get_by_role("group", name="Version 1 of 2")).to_be_visible()
    tab.ask_next("Go on from the first.")
    model.reply(answer("The end."))
    go_on.open()
    expect(tab.prose).to_have_text("The end.")
    expect(tab.answers.locator(".prose")).to_have_text(["The first.", "The end."])
    tab.button("Later attempt").click()
    expect(tab.prose).to_have_text("The second attempt.")


def test_the_keyboard_stays_in_the_messages_when_the_focused_button_has_gone(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("The first."))
    model.reply(answer("The second."))
    tab = open_page()
    tab.ask("Well?")
    expect(tab.prose).to_have_text("The first.")
    tab.button("Good answer").focus()
    other = open_page(tab.conversation)
    other.button("Regenerate the answer").click()
    expect(tab.prose).to_have_text("The second.")
    expect(tab.page.get_by_role("log", name="Messages")).to_be_focused()
