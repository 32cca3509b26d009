"""The developer view: it shows a resume, and can choose a demo model's fault."""

import json
import re

from playwright.sync_api import expect

from tests.page.conftest import OpenPage
from tests.support.browser import Model, more
from tests.support.upstream import answer, beginning, ending


def test_a_dropped_connection_comes_back_and_gets_what_it_missed_once(open_page: OpenPage, model: Model) -> None:
    go_on = model.gate()
    model.reply(beginning("Before, "), go_on, more("meanwhile, ") + more("after.") + ending())
    tab = open_page()
    tab.button("Developer view").click()
    panel = tab.page.get_by_role("complementary", name="Developer view")
    tab.ask("What did I miss?")
    expect(tab.prose).to_have_text("Before,")
    tab.button("Drop the connection").click()
    expect(tab.state).to_have_text("Reconnecting…")
    expect(panel).to_contain_text("You dropped the connection.")
    go_on.open()
    expect(tab.prose).to_have_text("Before, meanwhile, after.")
    expect(tab.state).to_have_text("Connected")
    expect(panel.locator("#fact-cursor")).to_have_text(re.compile(r"^[0-9a-f]{24}\.complete$"))
    events = [json.loads(text) for text in panel.locator("li:not([data-type=lost]) pre").all_text_contents()]
    said = [event["content"] for event in events if event["type"] == "llm_chunk"]
    assert "".join(said) == "Before, meanwhile, after."
    assert [event["resumed"] for event in events if event["type"] == "connected"] == [True, True]
    panel.get_by_text("complete, stop").click()
    expect(panel.get_by_text('"status": "complete"')).to_be_visible()
    assert len(model.asked()) == 1


def test_a_conversation_gets_the_model_that_is_chosen(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Yes."))
    tab = open_page()
    tab.button("Developer view").click()
    name = tab.page.get_by_label("Model of this conversation")
    name.fill("demo-stall")
    tab.ask("Does it begin with it?")
    expect(tab.prose).to_have_text("Yes.")
    name.fill("demo-500")
    with tab.page.expect_response(lambda response: response.request.method == "PATCH"):
        name.press("Enter")
    tab.ask("And does it change?")
    expect(tab.answers).to_have_count(2)
    expect(tab.stop).to_be_hidden()
    tab.page.reload()
    expect(name).to_have_value("demo-500")  # the view is still open, with the same choice
    assert [call.body["model"] for call in model.upstream.calls] == ["demo-stall", "demo-500"]


def test_a_view_that_covers_the_chat_has_the_keyboard_until_escape_closes_it(open_page: OpenPage, model: Model) -> None:
    go_on = model.gate()
    model.reply(beginning("It "), go_on, more("goes on.") + ending())
    tab = open_page()
    tab.page.set_viewport_size({"width": 1000, "height": 640})
    tab.ask("Does it?")
    expect(tab.prose).to_have_text("It")
    tab.button("Developer view").press("Enter")
    expect(tab.button("Close developer view")).to_be_focused()
    tab.page.keyboard.press("Escape")
    expect(tab.page.get_by_role("complementary", name="Developer view")).to_be_hidden()
    expect(tab.button("Developer view")).to_be_focused()
    go_on.open()
    expect(tab.prose).to_have_text("It goes on.")  # not stopped
