"""Signing in on another page and returning to the same place, with nothing lost."""

from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import BrowserContext, Route, expect

from tests.conftest import StartServer
from tests.page.conftest import OpenPage
from tests.support.browser import Model, more
from tests.support.processes import ServerProcess
from tests.support.upstream import answer, beginning, ending

LOGIN = "https://login.example/in?app=chat"


class Login:
    """A sign-in page on another server: people press a link, and are sent back with a token."""

    def __init__(self, context: BrowserContext) -> None:
        self.fragment = ""
        self.asked: list[str] = []
        context.route("https://login.example/**", self._answer)

    def _answer(self, route: Route) -> None:
        query = parse_qs(urlsplit(route.request.url).query)
        assert query["app"] == ["chat"]
        (back,) = query["return_to"]
        self.asked.append(back)
        link = f"<!doctype html><title>Login</title><a href='{back}{self.fragment}'>Come in</a>"
        route.fulfill(body=link, content_type="text/html")


@pytest.fixture
def login(context: BrowserContext) -> Login:
    """The sign-in page."""
    return Login(context)


@pytest.fixture
def server(start_server: StartServer) -> ServerProcess:
    """A server that has the sign-in page's URL."""
    return start_server(CHATSTREAM_LOGIN_URL=LOGIN, CHATSTREAM_DISCONNECT_GRACE="30")


def test_there_and_back_to_where_one_was(
    server: ServerProcess, login: Login, context: BrowserContext, open_page: OpenPage, model: Model
) -> None:
    model.reply(answer("Noted."))
    tab = open_page(url=server.url)
    tab.ask("Where am I?")
    expect(tab.prose).to_have_text("Noted.")
    address = tab.page.url
    login.fragment = f"#token={tab.token}"
    tab.page.close()
    page = context.new_page()
    page.goto(address)
    page.get_by_role("link", name="Come in").click()
    expect(page.locator(".prose")).to_have_text("Noted.")
    expect(page).to_have_url(address)
    assert login.asked == [address]
    page.reload()
    expect(page.locator(".prose")).to_have_text("Noted.")
    assert login.asked == [address]


def test_a_token_that_ends_in_mid_answer_costs_nothing(
    server: ServerProcess, login: Login, open_page: OpenPage, model: Model
) -> None:
    go_on = model.gate()
    model.reply(beginning("Half, "), go_on, more("whole.") + ending())
    other = open_page(url=server.url)
    login.fragment = f"#token={other.token}"
    other.page.close()  # otherwise this tab would get the other one's token
    tab = open_page(url=server.url, seconds=8)  # long enough to open a page and ask on a busy machine
    tab.ask("How long?")
    expect(tab.prose).to_have_text("Half,")
    tab.field.fill("a draft")
    tab.page.get_by_role("link", name="Come in").click()
    expect(tab.prose).to_have_text("Half,")
    expect(tab.field).to_have_value("a draft")
    go_on.open()
    expect(tab.prose).to_have_text("Half, whole.")
    expect(tab.field).to_have_value("a draft")
    assert model.asked() == ["How long?"]


def test_nobody_is_sent_to_and_fro_without_end(
    server: ServerProcess, login: Login, context: BrowserContext, open_page: OpenPage
) -> None:
    page = context.new_page()
    page.goto(server.url)
    for fragment, problem in (("", ""), ("#token=not.a.token", "The server does not accept this sign-in.")):
        login.fragment = fragment
        if page.get_by_role("button", name="Sign in").is_visible():
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("link", name="Come in").wait_for()
        page.get_by_role("link", name="Come in").click()
        expect(page.get_by_role("heading", name="You are not signed in")).to_be_visible()
        expect(page.locator("#elsewhere-reason")).to_have_text(problem)
        page.reload()
        expect(page.get_by_role("heading", name="You are not signed in")).to_be_visible()
    tab = open_page(url=server.url)  # a sign-in in another tab is enough
    expect(page.get_by_label("Your message")).to_be_visible()
    tab.button("Sign out").click()
    for each in (page, tab.page):
        expect(each.get_by_role("heading", name="You are not signed in")).to_be_visible()
    assert len(login.asked) == 2
