"""Titles by the model, in the list and in other tabs."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.page.conftest import OpenPage
from tests.support.browser import Model
from tests.support.processes import ServerProcess
from tests.support.upstream import answer


@pytest.fixture(scope="module")
def titling_server(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[ServerProcess]:
    """The usual server for the page, but with titles."""
    settings = environment | {"MONGODB_DATABASE": "page-titles", "CHATSTREAM_DISCONNECT_GRACE": "30"}
    server = ServerProcess(tmp_path_factory.mktemp("titles"), settings, measure=False).start().wait_until_ready()
    yield server
    server.stop()


def test_a_title_comes_after_the_first_answer_in_all_tabs(
    open_page: OpenPage, model: Model, titling_server: ServerProcess
) -> None:
    gate = model.gate()
    model.reply(answer("A word that reads the same from both ends."))
    model.reply(gate, answer("**Palindromes**"))
    tab = open_page(url=titling_server.url)
    tab.ask("What is a palindrome?")
    expect(tab.prose).to_contain_text("from both ends")
    expect(tab.title).to_have_text("What is a palindrome?")
    other = open_page(tab.conversation, url=titling_server.url)
    expect(other.title).to_have_text("What is a palindrome?")
    gate.open()
    for each in (tab, other):
        expect(each.title).to_have_text("Palindromes")
        expect(each.page.get_by_role("navigation").get_by_role("link")).to_have_text(["Palindromes"])
