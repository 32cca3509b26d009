"""The list of conversations, and the token for it."""

import re
import uuid
from datetime import datetime, timedelta

import httpx
from playwright.sync_api import Browser, BrowserContext, Route, expect

from chatstream import auth
from tests.page.conftest import OpenPage
from tests.support.browser import ChatPage, Held, Model, more
from tests.support.client import API
from tests.support.processes import SECRET, ServerProcess
from tests.support.upstream import answer, beginning, ending


def make(tab: ChatPage, *titles: str) -> None:
    """Create conversations of the tab's user."""
    with httpx.Client(base_url=tab.url, headers={"Authorization": f"Bearer {tab.token}"}) as http:
        for title in titles:
            assert http.post(API, json={"title": title}).status_code == 201


def delete(tab: ChatPage, title: str) -> None:
    """Delete a conversation, with the menu of its row."""
    tab.button(f"Options of {title}").click()
    tab.button("Delete").click()


def titles(tab: ChatPage) -> list[str]:
    """The titles of the stored conversations."""
    with httpx.Client(base_url=tab.url, headers={"Authorization": f"Bearer {tab.token}"}) as http:
        return [one["title"] for one in http.get(API).json()["conversations"]]


def test_the_newest_come_first_and_older_ones_when_they_are_wanted(open_page: OpenPage) -> None:
    tab = open_page()
    make(tab, *(f"Match {number}" for number in range(35)))
    tab.page.reload()
    links = tab.page.get_by_role("navigation").get_by_role("link")
    expect(links).to_have_count(30)
    expect(links.first).to_have_text("Match 34")
    tab.button("Show older chats").click()
    expect(links).to_have_count(35)
    expect(links.last).to_have_text("Match 0")
    expect(tab.button("Show older chats")).to_be_hidden()


def test_open_rename_and_delete(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Noted."))
    tab = open_page()
    make(tab, "Another one")
    tab.ask("My question")
    expect(tab.prose).to_have_text("Noted.")
    expect(tab.title).to_have_text("My question")
    tab.button("Options of My question").click()
    tab.button("Rename").click()
    expect(tab.page.get_by_label("Title")).to_have_value("My question")
    tab.page.keyboard.type("My name for it")  # it replaces the old title, which is selected
    tab.page.keyboard.press("Enter")
    expect(tab.title).to_have_text("My name for it")
    expect(tab.page).to_have_title("My name for it · chatstream")
    tab.page.get_by_role("link", name="Another one").click()
    expect(tab.title).to_have_text("Another one")
    expect(tab.questions).to_have_count(0)
    tab.page.go_back()
    expect(tab.title).to_have_text("My name for it")
    expect(tab.prose).to_have_text("Noted.")
    delete(tab, "My name for it")
    expect(tab.title).to_have_text("New chat")
    expect(tab.page.get_by_role("navigation").get_by_role("link")).to_have_text(["Another one"])


def test_one_that_is_not_there_is_said_so(open_page: OpenPage) -> None:
    tab = open_page("nowhere")
    expect(tab.page.get_by_role("alert")).to_contain_text("That conversation does not exist")
    expect(tab.title).to_have_text("New chat")


def test_one_that_is_deleted_elsewhere_is_left(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Noted."))
    one = open_page()
    one.ask("Soon gone")
    expect(one.prose).to_have_text("Noted.")
    other = open_page(one.conversation)
    expect(other.state).to_have_text("Connected")
    delete(one, "Soon gone")
    one.page.reload()  # it is too late to undo it
    expect(other.title).to_have_text("New chat")
    expect(other.page.get_by_role("alert")).to_be_visible()


def test_the_token_leaves_the_address_and_stays_in_the_browser(open_page: OpenPage) -> None:
    tab = open_page()
    expect(tab.page).to_have_url(re.compile(r"/$"))
    tab.page.reload()
    expect(tab.field).to_be_visible()
    tab.button("Sign out").click()
    expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()
    tab.page.get_by_label("Access token").fill(f"{tab.url}/#token={tab.token}\n")
    tab.button("Open the chat").click()
    expect(tab.field).to_be_visible()


def test_a_token_is_read_as_people_paste_it(open_page: OpenPage) -> None:
    tab = open_page()
    alert, field = tab.page.get_by_role("alert"), tab.page.get_by_label("Access token")
    half = len(tab.token) // 2
    tab.button("Sign out").click()
    for bad in ("eyJhbG…", f"{tab.token}…", "two words"):  # no header can carry these
        field.fill(bad)
        tab.button("Open the chat").click()
        expect(alert).to_have_text("The server does not accept this token. Paste another one.")
    for good in (f"Bearer {tab.token[:half]}\r\n  {tab.token[half:]}\n", f"{tab.url}/#token={tab.token}&x=1"):
        field.fill(good)
        tab.button("Open the chat").click()
        expect(tab.field).to_be_visible()
        tab.button("Sign out").click()
        expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()
    tab.page.goto("about:blank")
    tab.page.goto(f"{tab.url}/#token=eyJhbG…")
    expect(alert).to_have_text("The server does not accept this token. Paste another one.")
    tab.page.goto("about:blank")
    tab.page.goto(f"{tab.url}/#token={tab.token[:half]}%0A{tab.token[half:]}")
    expect(tab.field).to_be_visible()


def test_a_token_that_is_refused_is_asked_for_again(open_page: OpenPage) -> None:
    tab = open_page()
    good, tab.token = tab.token, "not.a.token"
    tab.page.goto("about:blank")
    tab.page.goto(f"{tab.url}/#token={tab.token}")
    expect(tab.page.get_by_role("alert")).to_have_text("The server does not accept this token. Paste another one.")
    tab.page.get_by_label("Access token").fill("another.bad.one")
    tab.button("Open the chat").click()
    expect(tab.page.get_by_role("alert")).to_have_text("The server does not accept this token. Paste another one.")
    tab.page.get_by_label("Access token").fill(good)
    tab.button("Open the chat").click()
    expect(tab.field).to_be_visible()
    expect(tab.page.get_by_role("alert")).to_be_hidden()


def test_a_wrong_token_does_not_lose_the_place(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Noted."))
    tab = open_page()
    tab.ask("Where am I?")
    expect(tab.prose).to_have_text("Noted.")
    address = tab.page.url
    tab.page.goto("about:blank")
    tab.page.goto(f"{address}#token=not.a.token")
    tab.page.get_by_label("Access token").fill("neither")
    tab.button("Open the chat").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("does not accept")
    tab.page.get_by_label("Access token").fill(tab.token)
    tab.button("Open the chat").click()
    expect(tab.prose).to_have_text("Noted.")
    expect(tab.page).to_have_url(address)


def test_tabs_share_the_sign_in(open_page: OpenPage, context: BrowserContext) -> None:
    tab = open_page()
    other = context.new_page()
    other.goto(tab.url)  # like a bookmark: the URL has no token
    expect(other.get_by_label("Your message")).to_be_visible()
    tab.button("Sign out").click()
    for page in (tab.page, other):
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    other.get_by_label("Access token").fill(tab.token)
    other.get_by_role("button", name="Open the chat").click()
    expect(tab.field).to_be_visible()


def test_a_wrong_token_in_one_tab_takes_nothing_from_another(open_page: OpenPage, context: BrowserContext) -> None:
    tab = open_page()
    make(tab, "One")
    tab.page.reload()  # a token from the URL is passed to other tabs only after it has worked once
    expect(tab.page.get_by_role("navigation").get_by_role("link", name="One")).to_be_visible()
    other = context.new_page()
    other.goto(f"{tab.url}/#token=not.a.token")
    for page in (other, tab.page):
        page.reload()
        expect(page.get_by_role("navigation").get_by_role("link", name="One")).to_be_visible()
        expect(page.get_by_role("heading", name="Sign in")).to_be_hidden()


def test_a_draft_belongs_to_its_conversation(open_page: OpenPage) -> None:
    tab = open_page()
    make(tab, "One", "Two")
    tab.page.reload()
    for name in ("One", "Two"):
        tab.page.get_by_role("link", name=name).click()
        expect(tab.title).to_have_text(name)
        expect(tab.field).to_have_value("")
        tab.field.fill(f"about {name}")
    tab.page.reload()
    expect(tab.field).to_have_value("about Two")
    tab.page.get_by_role("link", name="One").click()
    expect(tab.field).to_have_value("about One")
    tab.button("New chat").click()
    expect(tab.field).to_have_value("")


def send(tab: ChatPage, text: str) -> None:
    """Send a message, whose request is held."""
    tab.field.fill(text)
    with tab.page.expect_request(lambda request: request.method == "POST"):
        tab.field.press("Enter")


def test_a_message_that_is_being_sent_stays_with_its_chat(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Noted."))
    tab = open_page()
    make(tab, "One", "Two")
    tab.page.reload()
    link = tab.page.get_by_role("navigation").get_by_role("link")
    link.get_by_text("Two").click()
    tab.field.fill("about Two")
    link.get_by_text("One").click()
    expect(tab.field).to_have_value("")
    held = Held("POST")
    tab.page.route("**/messages?**", held)
    send(tab, "for One")
    link.get_by_text("Two").click()
    expect(tab.field).to_have_value("about Two")
    expect(tab.field).to_be_editable()
    held.end(Route.abort)
    expect(tab.page.get_by_text("A message of another chat was not sent")).to_be_visible()
    expect(tab.button("Send again")).to_be_hidden()
    expect(tab.field).to_have_value("about Two")
    link.get_by_text("One").click()
    expect(tab.field).to_have_value("for One")
    held.end(None)
    send(tab, "for One")
    link.get_by_text("Two").click()
    expect(tab.field).to_have_value("about Two")
    held.end(Route.continue_)
    link.get_by_text("One").click()
    expect(tab.questions).to_have_text(["for One"])
    expect(tab.field).to_have_value("")
    expect(tab.prose).to_have_text("Noted.")
    link.get_by_text("Two").click()
    expect(tab.field).to_have_value("about Two")
    expect(tab.questions).to_have_count(0)


def test_a_chat_that_begins_does_not_take_the_reader_away_from_another(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Noted."))
    tab = open_page()
    make(tab, "One")
    tab.page.reload()
    held = Held("POST")
    tab.page.route("**/conversations", held)
    send(tab, "A new one")
    links = tab.page.get_by_role("navigation").get_by_role("link")
    links.get_by_text("One", exact=True).click()
    expect(tab.title).to_have_text("One")
    with tab.page.expect_response(lambda response: "/messages?" in response.url):
        held.end(Route.continue_)
    expect(links).to_have_text(["A new one", "One"])
    expect(tab.title).to_have_text("One")
    expect(tab.questions).to_have_count(0)
    links.get_by_text("A new one").click()
    expect(tab.prose).to_have_text("Noted.")
    expect(tab.field).to_have_value("")
    tab.button("New chat").click()
    expect(tab.field).to_have_value("")


def test_the_list_keeps_the_older_ones_that_were_loaded(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Noted."))
    tab = open_page()
    make(tab, *(f"Match {number}" for number in range(35)))
    tab.page.reload()
    tab.button("Show older chats").click()
    links = tab.page.get_by_role("navigation").get_by_role("link")
    expect(links).to_have_count(35)
    tab.ask("One more")
    expect(links).to_have_count(36)
    expect(links.first).to_have_text("One more")


def test_a_token_that_ends_in_mid_answer_costs_nothing(open_page: OpenPage, model: Model) -> None:
    go_on = model.gate()
    model.reply(beginning("Half, "), go_on, more("whole.") + ending())
    other = open_page()
    good = other.token
    other.page.close()  # otherwise this tab would get the other one's token
    tab = open_page(seconds=8)  # long enough to open a page and ask on a busy machine; then the server ends the stream
    tab.ask("How long?")
    expect(tab.prose).to_have_text("Half,")
    tab.field.fill("a draft")
    expect(tab.page.get_by_role("alert")).to_have_text("This token has expired. Paste a new one.")
    go_on.open()
    tab.page.get_by_label("Access token").fill(good)
    tab.button("Open the chat").click()
    expect(tab.prose).to_have_text("Half, whole.")
    expect(tab.field).to_have_value("a draft")
    assert len(model.asked()) == 1


def test_a_deletion_can_be_undone(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Noted."))
    tab = open_page()
    make(tab, "Another one")
    tab.ask("My question")
    expect(tab.prose).to_have_text("Noted.")
    links = tab.page.get_by_role("navigation").get_by_role("link")
    for title in ("My question", "Another one"):  # the open one, and one that is not
        expect(links).to_have_count(2)
        delete(tab, title)
        expect(links).to_have_count(1)
        expect(tab.page.get_by_role("status").filter(has_text="is deleted")).to_be_visible()
        tab.button("Undo").click()
        expect(tab.prose).to_have_text("Noted.")
        expect(tab.title).to_have_text("My question")
    expect(links).to_have_count(2)
    assert sorted(titles(tab)) == ["Another one", "My question"]
    delete(tab, "Another one")
    delete(tab, "My question")  # this carries out the first deletion
    expect(tab.page.get_by_role("status").filter(has_text="is deleted")).to_contain_text("My question")
    tab.button("Undo").click()
    expect(links).to_have_text(["My question"])
    with httpx.Client(base_url=tab.url, headers={"Authorization": f"Bearer {tab.token}"}) as http:
        expect(tab.prose).to_have_text("Noted.")
        assert [one["title"] for one in http.get(API).json()["conversations"]] == ["My question"]


def test_a_deletion_is_done_when_the_time_to_undo_it_is_over(open_page: OpenPage) -> None:
    tab = open_page()
    make(tab, "One")
    tab.page.clock.install()
    tab.page.reload()
    delete(tab, "One")
    with tab.page.expect_response(lambda response: response.request.method == "DELETE") as deleted:
        tab.page.clock.run_for(10_000)
    assert deleted.value.status == 204
    expect(tab.page.locator("#undo")).to_be_hidden()
    assert titles(tab) == []


def test_what_could_not_be_deleted_is_said_within_a_small_screen(open_page: OpenPage) -> None:
    tab = open_page()
    tab.page.set_viewport_size({"width": 320, "height": 640})
    title = "Donaudampfschifffahrtsgesellschaftskapitänsmütze"
    make(tab, title)
    tab.page.clock.install()
    tab.page.reload()
    tab.page.route(
        "**/conversations/*", lambda route: route.abort() if route.request.method == "DELETE" else route.fallback()
    )
    tab.button("Conversations").click()
    delete(tab, title)
    tab.page.clock.run_for(10_000)
    expect(tab.page.get_by_role("alert")).to_contain_text("could not be deleted. The connection failed.")
    assert tab.page.evaluate("document.documentElement.scrollWidth") == 320


def test_the_menu_by_keyboard(open_page: OpenPage) -> None:
    tab = open_page()
    make(tab, "One")
    tab.page.reload()
    press = tab.page.keyboard.press
    tab.page.get_by_role("link", name="One").focus()
    press("Tab")
    expect(tab.button("Options of One")).to_be_focused()
    press("Enter")
    expect(tab.button("Rename")).to_be_focused()
    press("ArrowDown")
    expect(tab.button("Delete")).to_be_focused()
    press("Escape")
    expect(tab.button("Delete")).to_be_hidden()
    expect(tab.button("Options of One")).to_be_focused()


def test_deleting_and_renaming_by_keyboard_leave_the_focus_in_reach(open_page: OpenPage) -> None:
    tab = open_page()
    title = "عنوان طويل جدا " * 10
    make(tab, title.strip(), "One")
    tab.page.reload()
    press = tab.page.keyboard.press
    links = tab.page.get_by_role("navigation").get_by_role("link")
    options = tab.page.locator("#conversations li").last.get_by_role("button")  # of the one with the long title
    expect(links).to_have_count(2)

    def delete_it() -> None:
        options.press("Enter")
        press("ArrowDown")
        press("Enter")
        expect(tab.button("Undo")).to_be_focused()
        expect(links).to_have_count(1)

    delete_it()
    toast = tab.page.locator("#undo p")
    expect(toast).to_have_css("direction", "ltr")
    expect(toast).to_contain_text("is deleted.")
    assert toast.evaluate("p => p.scrollWidth <= p.clientWidth")  # only the title is cut
    press("Enter")
    expect(links.last).to_be_focused()
    delete_it()
    press("Control+z")
    expect(links.last).to_be_focused()
    expect(links).to_have_count(2)

    options.press("Enter")
    press("Enter")
    expect(tab.page.get_by_label("Title")).to_be_focused()
    make(tab, "Another one")
    tab.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(links).to_have_count(3)  # the list was drawn again behind the dialog
    press("Escape")
    expect(options).to_be_focused()
    options.press("Enter")
    press("ArrowDown")
    press("Enter")
    expect(tab.button("Undo")).to_be_focused()
    press("Escape")
    expect(tab.button("New chat")).to_be_focused()


def test_a_title_is_not_cut_within_a_character(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Noted."))
    family = "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}\u200d\N{BOY}"
    tab = open_page()
    tab.ask(family * 20)
    expect(tab.prose).to_have_text("Noted.")
    expect(tab.title).to_have_text(f"{family * 8}…")


def test_they_are_grouped_by_their_days(open_page: OpenPage) -> None:
    tab = open_page()

    def page(route: Route) -> None:
        now = datetime.now().astimezone().replace(hour=12)
        days = {"Now": 0, "Before": 1, "Last week": 6, "Last month": 20, "Long ago": 800}
        conversations = [
            {"id": title, "title": title, "updatedAt": (now - timedelta(days=ago)).isoformat()}
            for title, ago in days.items()
        ]
        route.fulfill(json={"conversations": conversations, "nextCursor": None})

    tab.page.route(re.compile(r"/conversations\?limit"), page)
    tab.page.reload()
    navigation = tab.page.get_by_role("navigation")
    expect(navigation.get_by_role("link")).to_have_text(["Now", "Before", "Last week", "Last month", "Long ago"])
    headings = navigation.get_by_role("heading", level=2)
    expect(headings).to_have_text(
        ["Today", "Yesterday", "Previous 7 days", "Previous 30 days", re.compile(r"^[A-Z][a-z]+ 20\d\d$")]
    )
    region = navigation.get_by_role("region", name="Yesterday")
    expect(region.get_by_role("link")).to_have_text(["Before"])


def test_fingers_have_room(browser: Browser, page_server: ServerProcess) -> None:
    """44 px, as WCAG 2.5.5 has it."""
    context = browser.new_context(viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True)
    tab = ChatPage(context, page_server.url, auth.mint(SECRET, f"fingers-{uuid.uuid4().hex}", 3600)).open()
    make(tab, "One")
    tab.page.reload()
    tab.button("Conversations").tap()
    tab.button("Options of One").tap()
    expect(tab.button("Delete")).to_be_visible()
    small = tab.page.locator("button:visible, a:visible:not(.skip)").evaluate_all(
        "all => all.filter(one => one.getBoundingClientRect().height < 44).map(one => one.outerHTML)"
    )
    assert small == []
    context.close()
