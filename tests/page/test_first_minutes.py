"""A person's first minutes with the page."""

import re

import pytest
from playwright.sync_api import expect

from tests.page.conftest import OpenPage
from tests.support.browser import Model
from tests.support.upstream import beginning, delta, ending, event, http_chunk

pytestmark = pytest.mark.xdist_group("page")


def more(text: str) -> bytes:
    """Further text of an answer that has begun."""
    return http_chunk(event(delta(text)))


def test_ask_and_watch_the_answer_come(open_page: OpenPage, model: Model) -> None:
    first, second = model.gate(), model.gate()
    model.reply(
        first,
        beginning("I'd recommend a bet on **Arsenal "),
        second,
        more("to win** at odds of 2.10, with a stake of €10.") + ending(),
    )
    tab = open_page()
    expect(tab.page.get_by_role("heading", name="What shall we look at?")).to_be_visible()
    tab.ask("Who wins?")
    expect(tab.questions).to_have_text(["Who wins?"])
    expect(tab.answers.get_by_text("Waiting for the model")).to_be_attached()
    first.open()
    expect(tab.prose).to_contain_text("I'd recommend a bet on **Arsenal")
    expect(tab.stop).to_be_visible()
    second.open()
    expect(tab.prose).to_have_text("I'd recommend a bet on Arsenal to win at odds of 2.10, with a stake of €10.")
    expect(tab.prose.locator("strong")).to_have_text("Arsenal to win")
    slip = tab.answers.locator(".bet")
    expect(slip).to_contain_text(re.compile("Arsenal to win.*€10.*2.10", re.DOTALL))
    expect(tab.stop).to_be_hidden()
    expect(tab.page.get_by_role("navigation")).to_contain_text("Who wins?")
    expect(tab.state).to_have_text("Connected")
