"""Cards for plug-ins' data and annotations: drawn by a plug-in's own module, or as names and values."""

import re
from pathlib import Path

import httpx
from playwright.sync_api import expect

from chatstream.plugins.bets import Bets
from tests.conftest import StartServer
from tests.page.conftest import OpenPage
from tests.support.browser import Model, more
from tests.support.client import API
from tests.support.processes import REPOSITORY
from tests.support.upstream import answer, beginning, ending

APP = """
from pathlib import Path

from chatstream.models import Annotation
from chatstream.plugins.cards import Card

HERE = Path(__file__).parent


def found(kind, **data):
    return Annotation(kind=kind, id="1", message=f"Found <i>{kind}</i>", data=data)


class App:
    cards = {
        "ticket": Card(script=HERE / "ticket.js", style=HERE / "ticket.css"),
        "throws": Card(script=HERE / "throws.js"),
        "broken": Card(script=HERE / "broken.js"),
    }

    def annotate(self, answer):
        last = found("constructor", c=None, d=[4])
        return [found("ticket", number=7), found("throws", a=1), found("broken", b=2), last]


plugin = App
"""
TICKET = """
export default function ticket({ kind, id, message, data }, { element, language }) {
  return element("p", { className: "ticket" }, [kind, id, message, data.number, language].join(" "));
}
"""


def test_a_plug_in_draws_its_own(start_server: StartServer, open_page: OpenPage, model: Model, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "ticket.js").write_text(TICKET)
    (tmp_path / "ticket.css").write_text(".ticket { color: rgb(1, 2, 3); }")
    (tmp_path / "throws.js").write_text("export default () => undefined.nothing;")
    (tmp_path / "broken.js").write_text("export const other = 1;")
    server = start_server(CHATSTREAM_PLUGINS="app:plugin", PYTHONPATH=f"{REPOSITORY}:{tmp_path}")
    model.reply(answer("Hello."))
    model.reply(answer("Again."))
    tab = open_page(url=server.url)
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    tab.ask("Hi")
    ticket = tab.answers.locator(".ticket")
    expect(ticket).to_have_text("ticket 1 Found <i>ticket</i> 7 en")
    expect(ticket).to_have_css("color", "rgb(1, 2, 3)")
    cards = tab.answers.locator(".card")
    expect(cards).to_have_text(["Found <i>throws</i>a1", "Found <i>broken</i>b2", "Found <i>constructor</i>d[4]"])
    expect(tab.page.locator("[aria-live=polite]")).to_contain_text("Answer: Hello.")
    tab.ask("And now?")
    expect(ticket).to_have_count(2)
    files = [url.partition("/page/cards/")[2] for url in asked if "/page/cards/" in url]
    assert sorted(files) == ["broken.js", "throws.js", "ticket.css", "ticket.js"]  # when they were needed, and once
    tab.page.reload()
    expect(ticket).to_have_count(2)
    expect(cards).to_have_count(6)

    script = httpx.get(f"{server.url}/page/cards/ticket.js")
    assert (script.text, script.headers["Content-Type"]) == (TICKET, "text/javascript; charset=utf-8")
    known = httpx.get(f"{server.url}/page/cards/ticket.js", headers={"If-None-Match": script.headers["ETag"]})
    assert known.status_code == 304
    for name in ("app.py", "ticket.py", "..%2fapp.py", "recommendation.js", "throws.css"):
        assert httpx.get(f"{server.url}/page/cards/{name}").status_code == 404


def test_a_bet_is_a_slip_or_a_card_where_nobody_knows_of_bets(
    start_server: StartServer, open_page: OpenPage, model: Model
) -> None:
    bets, plain = start_server(), start_server(CHATSTREAM_PLUGINS="")
    gate = model.gate()
    model.reply(
        beginning("I'd back **Arsenal to win** at "), gate, more("odds of 11/8, with a stake of €10."), ending()
    )
    tab = open_page(url=bets.url)
    tab.ask("A tip?")
    expect(tab.prose).to_contain_text("I'd back")
    expect(tab.answers.locator(".bet")).to_have_count(0)
    gate.open()
    expect(tab.answers.locator(".bet")).to_have_text(
        re.compile("Recommended bet.*Arsenal to win.*Stake €10.*Odds.*11/8.*2.38 decimal")
    )
    other = open_page(tab.conversation, url=plain.url)
    card = other.answers.locator(".card")
    expect(card.get_by_role("heading")).to_have_text("recommendation")
    expect(card).to_contain_text("selectionArsenal to winstake€10")
    expect(other.answers.locator(".bet")).to_have_count(0)
    headers = {"Authorization": f"Bearer {tab.token}"}
    both = [httpx.get(f"{one.url}{API}/{tab.conversation}/messages", headers=headers).json() for one in (bets, plain)]
    assert both[0]["messages"] == both[1]["messages"]
    assert both[1]["messages"][-1]["recommendations"][0]["oddsText"] == "11/8"


def test_the_slip_makes_no_markup_from_text() -> None:
    for card in Bets.cards.values():
        assert not re.search(r"(inner|outer)HTML|insertAdjacentHTML|\beval\(|new Function", card.script.read_text())
