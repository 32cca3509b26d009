"""Searching for a conversation, the states in the list, and exporting a conversation."""

import json
import re
from pathlib import Path

import httpx
from playwright.sync_api import Route, expect

from tests.page.conftest import OpenPage
from tests.page.test_conversations import make
from tests.support.browser import ChatPage, Model, more
from tests.support.client import API
from tests.support.upstream import answer, beginning, ending


def results(tab: ChatPage) -> list[str]:
    """The titles in the list."""
    return tab.page.get_by_role("navigation").get_by_role("link").all_inner_texts()


def test_a_conversation_is_found_by_what_was_said(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("The capital is **Canberra**, and not Sydney."))
    tab = open_page()
    tab.ask("What is the capital of Australia?")
    expect(tab.prose).to_contain_text("Canberra")
    expect(tab.stop).to_be_hidden()  # the answer's end moves it up in the list, once
    make(tab, "Another one", "Canberra and other capitals")
    tab.button("New chat").click()
    links = tab.page.get_by_role("navigation").get_by_role("link")
    field = tab.page.get_by_label("Search chats")
    field.fill("canb")
    expect(links).to_have_text(["Canberra and other capitals", "What is the capital of Australia?"])
    expect(links.first.locator("mark")).to_have_text("Canb")
    expect(tab.page.locator("#search-status")).to_have_text("Found: 2")
    links.last.click()
    expect(tab.prose).to_contain_text("Canberra")
    tab.page.wait_for_function("CSS.highlights.get('found')?.size === 1")
    assert tab.page.evaluate("[...CSS.highlights.get('found')][0].toString()") == "Canb"
    field.fill("nowhere at all")
    expect(tab.page.get_by_text("No chat has all of these words.")).to_be_visible()
    field.fill("")
    expect(links).to_have_count(3)
    expect(tab.page.locator("mark")).to_have_count(0)


def test_a_hit_that_is_not_shown_is_opened_where_it_is(open_page: OpenPage, model: Model) -> None:
    """A hit on another branch, in an earlier attempt, or among older messages; the export contains all of them."""
    end = "\n\n".join(["The end."] * 40) + "\n\nI'd recommend a bet on **Arsenal to win** at odds of 2.10."
    for text in ("A zebra.", "A horse.", "A donkey, at first.", "A mule, at last.", end):
        model.reply(answer(text))
    tab = open_page()
    tab.ask("Which animal has stripes?")
    expect(tab.prose).to_have_text("A zebra.")
    tab.edit("Which animal has a mane?")
    expect(tab.prose).to_have_text("A horse.")
    tab.ask("And long ears?")
    expect(tab.prose).to_have_text("A donkey, at first.")
    tab.button("Regenerate the answer").click()
    expect(tab.prose).to_have_text("A mule, at last.")
    tab.ask("And now?")
    expect(tab.prose).to_contain_text("The end.")
    expect(tab.stop).to_be_hidden()
    field, link = tab.page.get_by_label("Search chats"), tab.page.get_by_role("navigation").get_by_role("link")

    def find(word: str) -> None:
        tab.button("New chat").click()
        field.fill("")
        expect(tab.page.locator("#search-status")).to_have_text("")
        field.fill(word)
        expect(tab.page.locator("#search-status")).to_have_text("Found: 1")
        link.click()
        tab.page.wait_for_function(
            "(word) => CSS.highlights.get('found')?.size && `${[...CSS.highlights.get('found')][0]}` === word", arg=word
        )

    find("donkey")
    expect(tab.questions).to_have_text(["Which animal has a mane?", "And long ears?"])
    find("zebra")
    expect(tab.questions).to_have_text(["Which animal has stripes?"])
    find("mule")
    expect(tab.questions).to_have_text(["Which animal has a mane?", "And long ears?", "And now?"])
    limited = re.compile(r"/messages\?limit=200$")
    tab.page.route(limited, lambda route: route.continue_(url=route.request.url.replace("200", "2")))
    find("horse")
    expect(tab.questions).to_have_text(["Which animal has a mane?", "And long ears?", "And now?"])
    expect(tab.answers.locator(".bet")).to_be_attached()  # a card at the end does not scroll the page there
    expect(tab.page.get_by_text("A horse.")).to_be_in_viewport()
    expect(tab.button("To the end")).to_be_visible()
    tab.button("Options of this chat").click()
    with tab.page.expect_download() as download:
        tab.button("Save as JSON").click()
    kept = json.loads(Path(download.value.path()).read_text())["messages"]
    assert [one["content"] for one in kept if one["role"] == "assistant"] == [
        *("A zebra.", "A horse.", "A donkey, at first.", "A mule, at last.", end)
    ]


def test_a_search_only_looks(open_page: OpenPage, model: Model) -> None:
    for text in ("A zebra.", "A horse.", "A donkey.", "The okapi."):
        model.reply(answer(text))
    tab = open_page()
    tab.ask("Which animal has stripes?")
    expect(tab.prose).to_have_text("A zebra.")
    tab.edit("Which animal has a mane?")
    expect(tab.prose).to_have_text("A horse.")
    tab.ask("And long ears?")
    expect(tab.prose).to_have_text("A donkey.")
    other = open_page(tab.conversation)
    now = ["Which animal has a mane?", "And long ears?"]
    expect(other.questions).to_have_text(now)
    tab.button("New chat").click()
    tab.page.get_by_label("Search chats").fill("zebra")
    expect(tab.page.locator("#search-status")).to_have_text("Found: 1")
    tab.page.get_by_role("navigation").get_by_role("link").click()
    expect(tab.questions).to_have_text(["Which animal has stripes?"])
    expect(other.questions).to_have_text(now)
    other.page.reload()
    expect(other.questions).to_have_text(now)
    tab.button("Options of this chat").click()
    tab.button("Copy everything").click()
    expect(tab.button("Copied")).to_be_visible()
    copied = tab.page.evaluate("navigator.clipboard.readText()")
    assert ("zebra" in copied, "horse" in copied) == (True, False)
    tab.page.keyboard.press("Escape")
    tab.ask("Which others?")  # this goes on from what is shown, for everybody
    for each in (tab, other):
        expect(each.questions).to_have_text(["Which animal has stripes?", "Which others?"])
        expect(each.prose).to_have_text("The okapi.")
    told = [turn["content"] for turn in model.upstream.calls[-1].body["messages"]]
    assert told[-3:] == ["Which animal has stripes?", "A zebra.", "Which others?"]


def test_the_search_by_keyboard(open_page: OpenPage) -> None:
    tab = open_page()
    make(tab, "First match", "Second match", "Something else")
    tab.page.reload()
    press = tab.page.keyboard.press
    expect(tab.field).to_be_focused()
    press("Control+k")
    field = tab.page.get_by_label("Search chats")
    expect(field).to_be_focused()
    tab.page.keyboard.type("match")
    links = tab.page.get_by_role("navigation").get_by_role("link")
    expect(links).to_have_text(["Second match", "First match"])
    press("ArrowDown")
    expect(links.first).to_be_focused()
    press("ArrowDown")
    expect(links.last).to_be_focused()
    press("ArrowUp")
    press("ArrowUp")
    expect(field).to_be_focused()
    press("Enter")
    expect(tab.title).to_have_text("Second match")
    press("Control+k")
    press("Escape")
    expect(field).to_have_value("")
    expect(links).to_have_count(3)
    press("Escape")
    expect(tab.field).to_be_focused()


def test_pages_of_what_is_found(open_page: OpenPage) -> None:
    tab = open_page()
    make(tab, *(f"Match {number}" for number in range(32)), "Another one")
    tab.page.reload()
    tab.page.get_by_label("Search chats").fill("match")
    links = tab.page.get_by_role("navigation").get_by_role("link")
    expect(links).to_have_count(30)
    expect(tab.page.locator("#search-status")).to_have_text("Found: more than 30")
    tab.button("Show older chats").click()
    expect(links).to_have_count(32)


def test_a_page_of_all_chats_that_comes_late_is_not_what_was_found(open_page: OpenPage) -> None:
    tab = open_page()
    make(tab, *(f"Chat {number}" for number in range(30)), "A match")
    tab.page.reload()
    links = tab.page.get_by_role("navigation").get_by_role("link")
    expect(links).to_have_count(30)
    held: list[Route] = []
    tab.page.route(re.compile("before="), lambda route: held.append(route))
    tab.button("Show older chats").click()
    tab.page.get_by_label("Search chats").fill("match")
    expect(tab.page.locator("#search-status")).to_have_text("Found: 1")
    with tab.page.expect_response(re.compile("before=")) as late:
        held[0].continue_()
    late.value.finished()
    tab.page.evaluate("fetch('/healthz').then((response) => response.text())")  # the page got the earlier one
    assert results(tab) == ["A match"]


def test_nothing_is_said_to_be_found_before_it_is_searched_for(open_page: OpenPage) -> None:
    tab = open_page()
    make(tab, "First match", "Second one")
    tab.page.reload()
    links = tab.page.get_by_role("navigation").get_by_role("link")
    expect(links).to_have_count(2)
    held: list[Route] = []
    tab.page.route(re.compile("q="), lambda route: held.append(route))
    with tab.page.expect_request(re.compile("q=")):
        tab.page.get_by_label("Search chats").fill("match")
    links.last.click()  # the list shows which one is open
    expect(tab.title).to_have_text("First match")
    expect(links).to_have_count(2)
    expect(tab.page.locator("#search-status")).to_have_text("")
    expect(tab.page.locator("#none-found")).to_be_hidden()
    held[0].continue_()
    expect(tab.page.locator("#search-status")).to_have_text("Found: 1")


def test_another_tab_shows_what_runs_and_what_is_unread(open_page: OpenPage, model: Model) -> None:
    go_on = model.gate()
    model.reply(beginning("Half"), go_on, more(" and half") + ending())
    tab = open_page()
    make(tab, "One")
    with httpx.Client(base_url=tab.url, headers={"Authorization": f"Bearer {tab.token}"}) as http:
        [one] = http.get(API).json()["conversations"]
        http.post(f"{API}/{one['id']}/messages", json={"content": "Tell me."}, params={"background": "true"})
    tab.page.reload()
    row = tab.page.locator("#conversations li")
    expect(row.get_by_role("img", name="An answer is being written")).to_be_visible()
    go_on.open()
    expect(row.get_by_role("img", name="Not read yet")).to_be_visible(timeout=60_000)  # it polls every ten seconds
    row.get_by_role("link").click()
    expect(tab.prose).to_have_text("Half and half")
    expect(row.locator(".mark")).to_have_count(0)


def test_a_conversation_is_taken_along(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Write `x = 1`."))
    tab = open_page()
    tab.ask("A/B: how?")
    expect(tab.prose).to_have_text("Write x = 1.")
    saved: list[tuple[str, str]] = []
    for name in ("Save as Markdown", "Save as JSON"):
        tab.button("Options of this chat").click()
        with tab.page.expect_download() as download:
            tab.button(name).click()
        saved.append((download.value.suggested_filename, Path(download.value.path()).read_text()))
    (markdown_name, markdown), (json_name, text) = saved
    assert (markdown_name, json_name) == ("A B how.md", "A B how.json")
    assert re.fullmatch(
        r"# A/B: how\?\n\n## You · [^\n]+\n\nA/B: how\?\n\n## Answer · [^\n]+\n\nWrite `x = 1`\.\n", markdown
    ), markdown
    document = json.loads(text)
    assert document["conversation"]["title"] == "A/B: how?"
    assert [one["content"] for one in document["messages"]] == ["A/B: how?", "Write `x = 1`."]
    tab.button("Options of this chat").click()
    tab.button("Copy everything").click()
    expect(tab.button("Copied")).to_be_visible()
    assert tab.page.evaluate("navigator.clipboard.readText()") == markdown


def test_a_conversation_has_instructions_of_its_own(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Arr."))
    tab = open_page()
    tab.button("Options of this chat").click()
    expect(tab.button("Save as JSON")).to_be_hidden()  # there is no message yet
    tab.button("Instructions…").click()
    tab.page.get_by_label("The model gets this text").fill("Speak like a pirate.")
    tab.button("Save").click()
    tab.ask("Who are you?")
    expect(tab.prose).to_have_text("Arr.")
    assert model.upstream.calls[0].body["messages"][0] == {"role": "system", "content": "Speak like a pirate."}
    tab.button("Options of this chat").click()
    tab.button("Instructions…").click()
    expect(tab.page.get_by_label("The model gets this text")).to_have_value("Speak like a pirate.")
    # What could not be saved is said so, and is still there.
    tab.page.route(
        "**/conversations/*", lambda route: route.abort() if route.request.method == "PATCH" else route.continue_()
    )
    tab.page.get_by_label("The model gets this text").fill("Speak like a king.")
    tab.button("Save").click()
    expect(tab.page.get_by_text("The instructions were not saved.")).to_be_visible()
    tab.button("Options of this chat").click()
    tab.button("Instructions…").click()
    expect(tab.page.get_by_label("The model gets this text")).to_have_value("Speak like a king.")
    tab.page.keyboard.press("Escape")
    expect(tab.page.get_by_role("dialog")).to_be_hidden()
    tab.button("New chat").click()  # a look at another chat does not change that
    tab.button("Options of this chat").click()
    tab.button("Instructions…").click()
    expect(tab.page.get_by_label("The model gets this text")).to_have_value("")
    tab.page.go_back()
    expect(tab.prose).to_have_text("Arr.")
    tab.page.get_by_label("The model gets this text").fill("For a new chat.")
    tab.button("Save").click()
    tab.button("Options of this chat").click()
    tab.button("Instructions…").click()
    expect(tab.page.get_by_label("The model gets this text")).to_have_value("Speak like a king.")
    tab.page.keyboard.press("Escape")
    tab.button("New chat").click()
    tab.button("Options of this chat").click()
    tab.button("Instructions…").click()
    expect(tab.page.get_by_label("The model gets this text")).to_have_value("For a new chat.")
    tab.page.keyboard.press("Escape")
    tab.page.go_back()
    expect(tab.prose).to_have_text("Arr.")
