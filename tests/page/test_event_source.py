"""The browser's own EventSource, which gives up for good on any status but 200, through nginx with the configuration of
conf/.
"""

import re
from pathlib import Path

import httpx
from playwright.sync_api import BrowserContext

from chatstream import auth
from tests.conftest import StartServer
from tests.support.browser import Model
from tests.support.client import API
from tests.support.processes import SECRET
from tests.support.proxies import proxy
from tests.support.upstream import Do, answer, beginning

_WATCH = """
(address) => {
  window.seen = [];
  window.source = new EventSource(address);
  source.onmessage = (event) => seen.push(JSON.parse(event.data));
}
"""


def test_it_survives_a_restart_of_the_server(
    context: BrowserContext, start_server: StartServer, model: Model, tmp_path: Path
) -> None:
    model.reply(beginning("Before the restart. "), Do.HANG)
    model.reply(answer("And after it."))
    server = start_server(CHATSTREAM_DRAIN_TIMEOUT="0.1")
    token = auth.mint(SECRET, "somebody", 3600)
    with proxy("nginx", tmp_path / "nginx", server.port) as through:
        made = httpx.post(
            f"{through.url}{API}", json={"initialMessage": "Survive."}, headers={"Authorization": f"Bearer {token}"}
        )
        page = context.new_page()
        page.goto(f"{through.url}/healthz")  # any document of the same origin
        page.evaluate(_WATCH, f"{API}/{made.json()['id']}/stream?access_token={token}")
        page.wait_for_function("() => seen.some((event) => event.type === 'llm_chunk')")
        server.stop()
        for _ in range(2):  # only nginx asks it to reconnect
            with page.expect_response("**/stream?*") as told:
                pass
            assert told.value.status == 200
        assert page.evaluate("source.readyState") != 2  # CLOSED
        start_server(server.port)
        page.wait_for_function("() => seen.at(-1).content === 'And after it.'")
        connected = page.evaluate("seen.filter((event) => event.type === 'connected').map((event) => event.resumed)")
        assert connected == [False, True]
        assert page.evaluate("source.readyState") == 1
        page.close()
        assert re.search(r'"status":200,"bytes":\d+,"seconds":[\d.]+,"upstream_status":"502"', through.log)
