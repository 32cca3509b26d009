"""Cards for tool calls, and a person who approves or denies a call."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.page.conftest import OpenPage
from tests.page.test_looks import Look, axe, look, pictures  # noqa: F401 - fixtures
from tests.support.browser import Model
from tests.support.mcp_server import Seen, served
from tests.support.processes import ServerProcess
from tests.support.upstream import DONE, answer, delta, stream

PLUGIN = '''
from chatstream.plugins.tool import Ask, OutcomeUnknown, ToolFailed, tool


@tool(effect="none")
async def best_price(selection: str) -> dict[str, str]:
    """Look up a price."""
    return {"odds": "2.10", "bookmaker": "Quayside"}


def ask(selection: str, stake: str) -> Ask:
    return Ask(text=f"Place {stake} on {selection}: <b>all</b> you have?" if stake == "€20" else None)


@tool(effect="once", ask=ask)
async def place_bet(selection: str, stake: str) -> str:
    """Place a bet."""
    return "The bet is placed."


@tool(effect="none")
async def cash_out() -> str:
    """Cash a bet out."""
    raise ToolFailed("the match is over")


@tool(effect="once", approval="never")
async def transfer() -> str:
    """Transfer money."""
    raise OutcomeUnknown


@tool(effect="once", approval_timeout=0.5)
async def hurry() -> str:
    """Do something soon."""
    return "done"


class Plugin:
    tools = (best_price, place_bet, cash_out, transfer, hurry)


plugin = Plugin
'''


def called(name: str, **arguments: str) -> bytes:
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"index": 0, "id": "a", "function": function}
    return stream(delta(tool_calls=[call]), delta(finish_reason="tool_calls"), DONE)


@pytest.fixture(scope="module")
def calling_server(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[ServerProcess]:
    directory: Path = tmp_path_factory.mktemp("calls")
    (directory / "placing.py").write_text(PLUGIN, encoding="utf-8")
    tools = directory / "tools.toml"
    seen = Seen()
    with served("modern", seen) as url:
        tools.write_text(
            f'[[mcp]]\nname = "hall"\nurl = "{url}"\n[[mcp.tools]]\nname = "book_later"\napproval = "never"\n'
        )
        for server in _started(directory, environment | {"CHATSTREAM_TOOLS_FILE": str(tools)}):
            assert seen.listed.wait(60)
            yield server


def _started(directory: Path, environment: dict[str, str]) -> Iterator[ServerProcess]:
    settings = environment | {
        "MONGODB_DATABASE": "page-calls",
        "CHATSTREAM_DISCONNECT_GRACE": "30",
        "CHATSTREAM_PLUGINS": "placing:plugin",
        "CHATSTREAM_TITLES": "off",
    }
    server = ServerProcess(directory, settings, measure=False).start().wait_until_ready()
    yield server
    server.stop()


def test_a_call_that_is_over_is_folded(
    open_page: OpenPage,
    model: Model,
    calling_server: ServerProcess,
    look: Look,  # noqa: F811 - the fixture
) -> None:
    looked = model.gate()
    model.reply(called("best_price", selection="Arsenal"))
    model.reply(looked, answer("It is 2.10."))
    tab = open_page(url=calling_server.url)
    tab.ask("What is the best price?")
    card = tab.page.get_by_role("region", name="best price Done")
    expect(card).to_be_visible()
    expect(card.get_by_text("Quayside")).to_be_hidden()
    card.get_by_text("Details").press("Enter")
    expect(card.get_by_text("Quayside")).to_be_visible()
    looked.open()
    expect(tab.prose).to_have_text("It is 2.10.")
    expect(tab.stop).to_be_hidden()
    expect(card.get_by_text("Quayside")).to_be_visible()  # although its card was redrawn
    look(tab.page, "call-done", "desk")
    tab.page.reload()  # the history shows the same
    expect(tab.page.get_by_role("region", name="best price Done")).to_be_visible()


@pytest.mark.parametrize(
    ("key", "told", "stake", "words"),
    [
        (
            "Approve",
            "Done",
            "€10",
            "“place bet” will be carried out with these details, once, if you approve.",
        ),
        ("Deny", "Denied", "€20", "Place €20 on Arsenal: <b>all</b> you have?"),
    ],
)
def test_a_person_decides_by_keys_and_another_device_sees_it(
    open_page: OpenPage,
    model: Model,
    calling_server: ServerProcess,
    look: Look,  # noqa: F811 - the fixture
    key: str,
    told: str,
    stake: str,
    words: str,
) -> None:
    model.reply(called("place_bet", selection="Arsenal", stake=stake))
    model.reply(answer("So be it."))
    tab = open_page(url=calling_server.url)
    tab.ask("Place €10 on Arsenal")
    card = tab.page.get_by_role("region", name="place bet Waits for you")
    expect(card).to_contain_text(words)
    expect(card.get_by_role("definition")).to_have_text(["Arsenal", stake])
    other = open_page(tab.conversation, url=calling_server.url)
    expect(other.page.get_by_role("region", name="place bet Waits for you")).to_be_visible()
    if key == "Approve":
        look(tab.page, "call-asks")
    card.get_by_role("button", name=key).press("Enter")
    for each in (tab, other):
        decided = each.page.get_by_role("region", name=f"place bet {told}")
        expect(decided).to_be_visible()
        expect(decided).not_to_contain_text("you have?")  # the question is not shown as the person's reason
        expect(each.prose).to_have_text("So be it.")
        expect(each.page.get_by_role("button", name="Approve")).to_have_count(0)
    assert tab.page.evaluate("document.activeElement.closest('.call') !== null")


def test_what_a_tool_asks_is_answered_in_a_form(
    open_page: OpenPage,
    model: Model,
    calling_server: ServerProcess,
    look: Look,  # noqa: F811 - the fixture
) -> None:
    model.reply(called("hall__book_later"))
    model.reply(answer("So be it."))
    tab = open_page(url=calling_server.url)
    tab.ask("Book a seat")
    card = tab.page.get_by_role("region", name="hall book later Waits for you")
    expect(card).to_contain_text("Which row?", timeout=60_000)
    other = open_page(tab.conversation, url=calling_server.url)
    expect(other.page.get_by_label("Row")).to_be_visible()
    look(tab.page, "call-asks-something")
    card.get_by_role("button", name="Send").click()  # the browser reports a missing field
    row = card.get_by_label("Row")
    expect(row).to_be_focused()
    row.fill("7")
    row.press("Enter")
    for each in (tab, other):
        expect(each.page.get_by_role("region", name="hall book later Waits for you")).to_contain_text("Really?")
        expect(each.page.get_by_label("Row")).to_have_count(0)
    other.page.get_by_role("button", name="Decline").press("Enter")
    for each in (tab, other):
        expect(each.prose).to_have_text("So be it.", timeout=60_000)
        done = each.page.get_by_role("region", name="hall book later Done")
        expect(done).to_contain_text("asked: {'row': ('accept', {'row': 7}), 'sure': ('decline', None)}")


def test_what_went_wrong_with_a_call_is_said_on_its_card(
    open_page: OpenPage, model: Model, calling_server: ServerProcess
) -> None:
    tab = open_page(url=calling_server.url)
    cards = (
        ("cash_out", "cash out Failed"),
        ("hurry", "hurry Nobody agreed in time"),
        ("transfer", "transfer Nobody knows whether it was carried out"),
    )
    for name, told in cards:
        model.reply(called(name))
        if name != "transfer":  # the model has no text about that call
            model.reply(answer(f"That was {name}."))
        tab.ask(f"Call {name}")
        expect(tab.page.get_by_role("region", name=told)).to_be_visible(timeout=60_000)
        if name != "transfer":
            expect(tab.prose).to_have_text(f"That was {name}.", timeout=60_000)
    for reloaded in (False, True):
        if reloaded:
            tab.page.reload()
        for _, told in cards:
            card = tab.page.get_by_role("region", name=told)
            expect(card).to_be_visible(timeout=60_000)
            expect(card.get_by_role("button", name="Approve")).to_have_count(0)
        expect(tab.page.get_by_text("Do not call it again")).to_have_count(0)  # this text is only for models
